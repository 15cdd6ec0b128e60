"""Clients of redis-py that were opened elsewhere: of either side, of both, in any settings."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import holdfast
import pytest
import redis
import redis.asyncio
from blockbuster import BlockBuster
from holdfast import RedisSaver
from support.calls import Calls
from support.make import Thread, checkpoint, checkpoint_id, config, version
from support.redis import eye, keys, let_given_clients_connect, others
from support.redis_server import RedisServer
from support.uses import WORDS, put_one, use, use_from_other_loops
from support.workers import put_and_check

SETTINGS: list[dict[str, Any]] = [
    {},
    {"decode_responses": True},
    {"protocol": 3},
    {"decode_responses": True, "protocol": 3},
]
SIDES = ["sync", "async", "both"]
Open = Callable[..., Awaitable[RedisSaver]]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(autouse=True)
def connect(no_blocking_call_on_a_loop: BlockBuster) -> None:
    let_given_clients_connect(no_blocking_call_on_a_loop)


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """A look at an empty server."""
    with eye(server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
async def given(server: RedisServer, client: redis.Redis) -> AsyncIterator[Open]:
    """Opens a saver on clients of the test's own, for the sides that are named."""
    async with AsyncExitStack() as stack:

        async def opened(sides: str, options: dict[str, Any] | None = None, **how: Any) -> Any:
            arguments: dict[str, Any] = {}
            if sides in ("sync", "both"):
                arguments["client"] = redis.Redis.from_url(server.url, **how)
                stack.callback(arguments["client"].close)
            if sides in ("async", "both"):
                arguments["async_client"] = redis.asyncio.Redis.from_url(server.url, **how)
                stack.push_async_callback(arguments["async_client"].aclose)
            return RedisSaver(**arguments, **(options or {}))

        yield opened


# --- one for both sides


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("sides", SIDES)
async def test_a_given_client_serves_both_sides(
    given: Open, client: redis.Redis, settings: dict[str, Any], sides: str, mode: str
) -> None:
    saver = await given(sides, **settings)
    await use(Calls(saver, mode))
    other = Calls(saver, "sync" if mode == "async" else "async")
    assert len(await other.ids(config())) == 3
    assert all(key.startswith(b"holdfast:") for key in keys(client))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
async def test_every_request_is_answered_whatever_the_settings(
    given: Open, settings: dict[str, Any], mode: str
) -> None:
    """Those whose replies redis-py shapes by protocol: maps, sets and scores."""
    calls = Calls(await given("both", **settings), mode)
    thread = Thread(calls)
    for number in range(1, 4):
        stored = await thread.put({"other": WORDS[:number]}, metadata={"run_id": f"{number}"})
        await calls.put_writes(stored, [("state", number)], "task")
    assert len(await calls.list(None)) == 3
    history = await calls.history(stored, ["state"])
    assert history["state"]["writes"] == [("task", "state", 1), ("task", "state", 2)]
    await calls.delete_for_runs(["2"])
    assert await calls.ids(config()) == [checkpoint_id(3), checkpoint_id(1)]
    await calls.prune(["t"])
    assert await calls.ids(config()) == [checkpoint_id(3)]
    findings = {one.what: one for one in await calls.call("check")}
    assert findings["version"].is_fine
    assert findings["lazy expiry"].value == "no", "CONFIG GET was not understood"
    assert findings["rights"].is_fine


@pytest.mark.parametrize("how", ["first", "redis_client", "named"])
@pytest.mark.parametrize("kind", [redis.Redis, redis.asyncio.Redis])
async def test_a_client_may_be_given_in_each_documented_way(
    server: RedisServer, client: redis.Redis, how: str, kind: Any, mode: str
) -> None:
    mine = kind.from_url(server.url)
    named = "client" if kind is redis.Redis else "async_client"
    saver = (
        RedisSaver(mine)
        if how == "first"
        else RedisSaver(**{"redis_client" if how == "redis_client" else named: mine})
    )
    await use(Calls(saver, mode))
    await (mine.aclose() if kind is redis.asyncio.Redis else asyncio.to_thread(mine.close))


@pytest.mark.parametrize("sides", SIDES)
async def test_clients_that_were_given_are_not_closed(
    given: Open, client: redis.Redis, sides: str, mode: str
) -> None:
    saver = await given(sides)
    calls = Calls(saver, mode)
    await use(calls)
    before = {one["id"] for one in others(client)}
    assert before
    with saver:
        pass
    async with saver:
        pass
    await calls.close()
    assert {one["id"] for one in others(client)} == before
    assert await calls.get_tuple(config()) is not None
    assert {one["id"] for one in others(client)} <= before


async def test_a_given_client_has_its_own_patience(
    given: Open, server: RedisServer, mode: str
) -> None:
    for sides in SIDES:
        saver = await given(sides, {"retry_budget": 0}, socket_timeout=0.1, retry=None)
        calls = Calls(saver, mode)
        await calls.setup()
        server.pause()
        try:
            with pytest.raises(holdfast.StoreTimeout, match=f"{server.port}.*socket_timeout"):
                await calls.get_tuple(config())
        finally:
            server.resume()
        assert await calls.get_tuple(config()) is None


async def test_a_pool_of_one_connection_is_shared_with_its_owner(
    server: RedisServer, client: redis.Redis, mode: str
) -> None:
    """The saver keeps no connection of the owner's between calls."""
    arguments = {"max_connections": 1, "timeout": 5}
    pool = redis.BlockingConnectionPool.from_url(server.url, **arguments)
    apool = redis.asyncio.BlockingConnectionPool.from_url(server.url, **arguments)
    mine, amine = redis.Redis.from_pool(pool), redis.asyncio.Redis.from_pool(apool)
    calls = Calls(RedisSaver(client=mine, async_client=amine), mode)
    await use(calls)
    await asyncio.gather(*(calls.get_tuple(config(f"t{number}")) for number in range(20)))
    assert await asyncio.to_thread(mine.ping)
    assert await amine.ping()
    await asyncio.to_thread(mine.close)
    await amine.aclose()


# --- an async client alone


async def test_a_sync_call_on_the_loop_itself_is_refused_at_once(given: Open) -> None:
    saver = await given("async")
    for attempt in (
        lambda: saver.get_tuple(config()),
        lambda: put_one(saver),
        lambda: next(saver.list(None)),
    ):
        with pytest.raises(holdfast.ConfigurationError, match="await"):
            attempt()
    await use(Calls(saver, "async"))


async def test_another_loop_reaches_an_async_client_through_its_own(server: RedisServer) -> None:
    async with redis.asyncio.Redis.from_url(server.url) as mine:
        saver = holdfast.RedisSaver(async_client=mine, prefix="loops")
        await saver.asetup()

        await use_from_other_loops(saver)
        await saver.aclose()


def test_a_sync_call_that_no_loop_can_answer_is_refused(server: RedisServer) -> None:
    saver = RedisSaver(redis.asyncio.Redis.from_url(server.url))
    with pytest.raises(holdfast.ConfigurationError, match="event loop"):
        saver.get_tuple(config())

    async def begin() -> Any:
        mine = redis.asyncio.Redis.from_url(server.url)
        saver = RedisSaver(mine)
        await saver.aget_tuple(config())
        await mine.aclose()
        return saver

    loop = asyncio.new_event_loop()
    saver = loop.run_until_complete(begin())
    with pytest.raises(holdfast.ConfigurationError, match="not running"):
        saver.get_tuple(config())
    loop.close()
    with pytest.raises(holdfast.ConfigurationError, match="not running"):
        saver.get_tuple(config())


def test_a_client_made_outside_of_a_loop_belongs_to_the_first_that_uses_it(
    server: RedisServer, client: redis.Redis
) -> None:
    mine = redis.asyncio.Redis.from_url(server.url)
    saver = RedisSaver(mine)

    async def go() -> None:
        await saver.asetup()
        await asyncio.to_thread(put_and_check, saver, "t", "", 3)
        await mine.aclose()

    asyncio.run(go())


@pytest.mark.parametrize("ends", ["cancels", "stops"])
def test_a_loop_that_ends_during_a_sync_call_leaves_no_thread_waiting(
    server: RedisServer, ends: str
) -> None:
    loop = asyncio.new_event_loop()
    mine = redis.asyncio.Redis.from_url(server.url)

    async def begin(pool: ThreadPoolExecutor) -> Any:
        saver = RedisSaver(mine, retry_budget=0)
        await saver.asetup()
        server.pause()
        known = asyncio.all_tasks()
        call = pool.submit(saver.get_tuple, config())
        while asyncio.all_tasks() <= known:  # noqa: ASYNC110 - till the call is on the loop
            await asyncio.sleep(0.001)
        if ends == "cancels":
            under_way = asyncio.all_tasks() - {asyncio.current_task()}
            for task in under_way:
                task.cancel()  # as asyncio.run does at its end
            await asyncio.wait(under_way)
        return call

    async def end() -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await mine.aclose()

    with ThreadPoolExecutor(1) as pool:
        try:
            call = loop.run_until_complete(begin(pool))
            with pytest.raises(holdfast.HoldfastError):
                call.result(20)
        finally:
            server.resume()
            loop.run_until_complete(end())
            loop.close()


# --- forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("sides", SIDES)
async def test_a_forked_child_uses_no_connection_of_its_parent(
    given: Open, client: redis.Redis, sides: str
) -> None:
    """What cannot be opened anew for the child is refused there, at once."""
    saver = await given(sides)
    stored = await saver.aput(config(), checkpoint(1, {"a": 1}), {}, {"a": version(1)})
    await asyncio.to_thread(saver.get_tuple, config())
    before = {one["id"] for one in others(client)}
    child = os.fork()
    if not child:
        signal.alarm(20)
        code = 1
        try:
            found = [attempted(lambda: saver.get_tuple(config()))]
            found.append(attempted(lambda: asyncio.run(saver.aget_tuple(config()))))
            code = 0 if found == ([None, None] if sides == "async" else [1, 1]) else 2
        finally:
            os._exit(code)
    assert (await asyncio.to_thread(os.waitpid, child, 0))[1] == 0
    for _ in range(3):
        assert await saver.aget_tuple(config()) == await asyncio.to_thread(saver.get_tuple, stored)
    while {one["id"] for one in others(client)} - before:
        assert await asyncio.to_thread(client.ping)
    assert {one["id"] for one in others(client)} == before


def attempted(read: Callable[[], Any]) -> Any:
    """What was read; None where that was refused."""
    try:
        return read().checkpoint["channel_values"]["a"]
    except holdfast.ConfigurationError:
        return None
