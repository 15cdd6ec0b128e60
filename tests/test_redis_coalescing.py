"""Calls of one moment on an event loop: one round trip, and to each caller what is its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import holdfast
import pytest
import redis
import redis.asyncio
from blockbuster import BlockBuster
from holdfast import RedisSaver
from holdfast.backends.base import WritesOf
from support.calls import Calls
from support.make import checkpoint, checkpoint_id, config, version
from support.redis import keys, let_given_clients_connect, others
from support.redis_server import RedisServer
from support.relay import Relay
from support.requests import anew, write
from support.uses import WORDS

FEW = 10


@pytest.fixture
def relay(server: RedisServer, client: redis.Redis) -> Iterator[Relay]:
    with Relay(server.port) as relay:
        yield relay


@pytest.fixture(params=["url", "given"])
async def saver(
    relay: Relay, request: pytest.FixtureRequest, given_client: redis.asyncio.Redis
) -> AsyncIterator[RedisSaver]:
    """A saver that has said hello, and whose scripts the server knows."""
    given = request.param == "given"
    async with RedisSaver(given_client if given else relay.url, cache_bytes=0) as saver:
        place = await put(saver, "first")
        await saver.aput_writes(place, [("a", 1)], "task")
        await read(saver, "first")
        await saver.adelete_thread("first")
        relay.take()
        yield saver


@pytest.fixture
async def given_client(
    relay: Relay, no_blocking_call_on_a_loop: BlockBuster
) -> AsyncIterator[redis.asyncio.Redis]:
    let_given_clients_connect(no_blocking_call_on_a_loop)
    async with redis.asyncio.Redis.from_url(relay.url, retry=None) as client:
        yield client


def made(thread_id: str) -> Any:
    return checkpoint(1, {"state": [thread_id, *WORDS[:3]]}, {"state": version(1)})


async def put(saver: holdfast.Saver, thread_id: str) -> Any:
    one = made(thread_id)
    return await saver.aput(config(thread_id), one, {}, one["channel_versions"])


async def read(saver: holdfast.Saver, thread_id: str) -> Any:
    """What is there must be this thread's own."""
    found = await saver.aget_tuple(config(thread_id))
    assert found is None or found.checkpoint == made(thread_id)
    return found


def threads(count: int) -> list[str]:
    return [f"t{number}" for number in range(count)]


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - it happens outside of the loop
        await asyncio.sleep(0.001)


async def under_way(relay: Relay, calls: list[Any]) -> list[asyncio.Task[Any]]:
    """Calls as tasks whose commands have left, and whose replies are held back."""
    relay.hold()
    tasks = [asyncio.create_task(call) for call in calls]
    await until(lambda: len(relay.commands) > 0)
    return tasks


# --- one round trip


async def test_tasks_that_write_at_once_share_a_round_trip(saver: RedisSaver, relay: Relay) -> None:
    place = await put(saver, "t")
    relay.take()
    batches = [saver.aput_writes(place, [("a", n), ("b", [n])], f"task {n:03}") for n in range(100)]
    await asyncio.gather(*batches)
    assert relay.take()[0] == 1
    found = await read(saver, "t")
    assert found.pending_writes == [
        (f"task {n:03}", *one) for n in range(100) for one in [("a", n), ("b", [n])]
    ]


async def test_calls_of_every_kind_share_a_round_trip(saver: RedisSaver, relay: Relay) -> None:
    for thread_id in threads(FEW):
        place = await put(saver, thread_id)
    relay.take()
    await asyncio.gather(
        *(put(saver, f"new {thread_id}") for thread_id in threads(FEW)),
        *(saver.adelete_thread(f"no {thread_id}") for thread_id in threads(FEW)),
        *(saver.aput_writes(place, [("a", n)], f"task {n}") for n in range(FEW)),
        *(saver.aget_tuple(config(f"no {thread_id}")) for thread_id in threads(FEW)),
    )
    assert relay.take()[0] == 1
    for thread_id in threads(FEW):
        assert await read(saver, f"new {thread_id}") is not None


async def test_steps_of_many_threads_stay_together(saver: RedisSaver, relay: Relay) -> None:
    """Calls that take two round trips take two together."""
    await asyncio.gather(*(put(saver, thread_id) for thread_id in threads(50)))
    relay.take()
    await asyncio.gather(*(read(saver, thread_id) for thread_id in threads(50)))
    assert relay.take()[0] == 2


async def test_a_thousand_calls_have_a_bounded_number_of_connections(
    saver: RedisSaver, relay: Relay, client: redis.Redis
) -> None:
    await asyncio.gather(*(put(saver, thread_id) for thread_id in threads(1000)))
    assert len(others(client)) <= 4
    for _ in range(2):
        found = await asyncio.gather(*(read(saver, thread_id) for thread_id in threads(1000)))
        assert all(found)
        assert len(others(client)) <= 4


async def test_who_comes_while_others_wait_joins_the_next(saver: RedisSaver, relay: Relay) -> None:
    """No queue of single calls grows behind a slow server."""
    tasks = await under_way(relay, [put(saver, "t")])
    for thread_id in threads(200):
        tasks.append(asyncio.create_task(put(saver, thread_id)))
        await asyncio.sleep(0)
    relay.release()
    await asyncio.gather(*tasks)
    # Connections of a given client begin with some round trips of redis-py's own.
    assert relay.take()[0] < 3 * FEW
    assert all([await read(saver, thread_id) for thread_id in threads(200)])


# --- to each its own


async def test_an_error_is_its_callers_alone(saver: RedisSaver, client: redis.Redis) -> None:
    client.set("holdfast:meta:t3", "of another kind")
    client.rpush("holdfast:meta:t7", "of another kind")
    results = await asyncio.gather(
        *(put(saver, thread_id) for thread_id in threads(FEW)), return_exceptions=True
    )
    for thread_id, result in zip(threads(FEW), results, strict=True):
        if thread_id in ("t3", "t7"):
            assert isinstance(result, holdfast.ConfigurationError)
            assert repr(thread_id) in str(result)
            assert not any(thread_id.encode() in key for key in keys(client) if b"meta" not in key)
        else:
            assert not isinstance(result, BaseException)
            assert await read(saver, thread_id) is not None


async def test_writes_to_one_checkpoint_have_replies_of_their_own(saver: RedisSaver) -> None:
    """Also those that go out as one command."""
    await put(saver, "t")
    execute = saver._live.backend.aexecute
    absent = [bytes([number]) * 16 for number in range(FEW)]
    requests = [anew(write(idx=n), frontier=absent[: n % 3]) for n in range(FEW)]
    replies = await asyncio.gather(*map(execute, requests))
    assert replies == [absent[: n % 3] for n in range(FEW)]
    place = ("", checkpoint_id(1))
    stored = (await execute(WritesOf("t", [place])))[place]
    assert sorted(one.idx for one in stored) == [n for n in range(FEW) if n % 3 == 0]


async def test_a_dead_server_is_told_to_each_caller(server: RedisServer) -> None:
    async with RedisSaver("redis://127.0.0.1:1/0", retry_budget=0) as saver:
        errors = await asyncio.gather(
            *(read(saver, thread_id) for thread_id in threads(FEW)), return_exceptions=True
        )
        for thread_id, error in zip(threads(FEW), errors, strict=True):
            assert isinstance(error, holdfast.StoreUnavailable)
            assert "127.0.0.1:1" in str(error), thread_id
            assert isinstance(error.__cause__, (redis.RedisError, OSError))
        assert len({id(error) for error in errors}) == FEW
        assert len({id(error.__cause__) for error in errors}) == FEW, "tracebacks would add up"


async def test_silence_is_told_to_each_caller_and_leaves_nothing(
    relay: Relay, client: redis.Redis
) -> None:
    async with RedisSaver(f"{relay.url}?socket_timeout=0.1", retry_budget=0) as saver:
        await put(saver, "t0")
        tasks = await under_way(relay, [put(saver, thread_id) for thread_id in threads(FEW)])
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, holdfast.StoreTimeout) for error in errors), errors
        relay.release()
        found = await asyncio.gather(*(read(saver, thread_id) for thread_id in threads(FEW)))
        assert found[0] is not None


# --- cancelled calls


async def test_a_call_that_is_cancelled_before_it_is_sent_disturbs_nobody(
    saver: RedisSaver, relay: Relay
) -> None:
    tasks = [asyncio.create_task(put(saver, thread_id)) for thread_id in threads(FEW)]

    async def cancel() -> None:
        for task in tasks[::3]:
            task.cancel()

    await asyncio.gather(*tasks, cancel(), return_exceptions=True)
    assert [task.cancelled() for task in tasks] == [number % 3 == 0 for number in range(FEW)]
    for task, thread_id in zip(tasks, threads(FEW), strict=True):
        assert await read(saver, thread_id) is not None or task.cancelled()


async def test_a_call_that_is_cancelled_under_way_disturbs_nobody(
    saver: RedisSaver, relay: Relay
) -> None:
    for thread_id in threads(FEW)[::2]:
        await put(saver, thread_id)
    relay.take()
    tasks = await under_way(relay, [read(saver, thread_id) for thread_id in threads(FEW)])
    for task in tasks[::3]:
        task.cancel()
    await asyncio.sleep(0)
    relay.release()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    for number, one in enumerate(found):
        if number % 3 == 0:
            assert isinstance(one, asyncio.CancelledError)
        else:
            assert (one is not None) == (number % 2 == 0)


@pytest.mark.parametrize("replies", ["before", "after", "never"])
async def test_a_batch_that_is_cancelled_whole_leaves_no_reply_behind(
    saver: RedisSaver, relay: Relay, client: redis.Redis, replies: str
) -> None:
    await asyncio.gather(*(put(saver, thread_id) for thread_id in threads(FEW)))
    relay.take()
    tasks = await under_way(relay, [read(saver, thread_id) for thread_id in threads(FEW)])
    if replies == "before":
        relay.release()
    for task in tasks:
        task.cancel()
    if replies == "never":
        relay.cut()
    relay.release()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert all(task.cancelled() for task in tasks)
    again = await asyncio.gather(*(read(saver, thread_id) for thread_id in threads(FEW)[::-1]))
    assert all(again), "a reply to a cancelled call met a later one"
    assert len(others(client)) <= 4


async def test_cancelled_puts_are_whole_or_nothing(saver: RedisSaver, relay: Relay) -> None:
    for number, thread_id in enumerate(threads(30)):
        task = asyncio.create_task(put(saver, thread_id))
        for _ in range(number % 8):
            await asyncio.sleep(0)
        task.cancel()
        beside = asyncio.create_task(put(saver, f"beside {thread_id}"))
        await asyncio.gather(task, return_exceptions=True)
        await beside
        assert await read(saver, f"beside {thread_id}") is not None
        assert await read(saver, thread_id) is not None or task.cancelled()


# --- lost connections


async def test_calls_whose_connection_is_lost_all_succeed(
    saver: RedisSaver, relay: Relay, client: redis.Redis
) -> None:
    tasks = await under_way(relay, [put(saver, thread_id) for thread_id in threads(300)])
    tasks += [asyncio.create_task(put(saver, f"late {thread_id}")) for thread_id in threads(300)]
    await asyncio.sleep(0)
    relay.cut()
    relay.release()
    await asyncio.gather(*tasks)
    for thread_id in threads(300):
        assert await read(saver, thread_id) is not None
        assert await read(saver, f"late {thread_id}") is not None
        assert client.lrange(f"holdfast:idx:{thread_id}", 0, -1) == [checkpoint_id(1).encode()]


@pytest.mark.parametrize("end", ["cut", "killed"])
async def test_a_connection_that_ended_in_the_night_costs_no_patience(
    relay: Relay, client: redis.Redis, end: str, mode: str
) -> None:
    """The next call finds no error, even if nothing may be tried again."""
    calls = Calls(RedisSaver(relay.url, retry_budget=0), mode)
    one = made("t")
    await calls.put(config(), one, {}, one["channel_versions"])
    for _ in range(3):
        if end == "cut":
            relay.cut()
        else:
            client.client_kill_filter(_type="normal", skipme=True)
        assert (await calls.must_get(config())).checkpoint == one
    await calls.close()


async def test_all_connections_may_end_in_the_night(
    saver: RedisSaver, relay: Relay, client: redis.Redis
) -> None:
    for end in (relay.cut, lambda: client.client_kill_filter(_type="normal", skipme=True)):
        await asyncio.gather(*(put(saver, thread_id) for thread_id in threads(600)))
        end()
        assert await read(saver, "t0") is not None
        await asyncio.gather(*(read(saver, thread_id) for thread_id in threads(600)))


# --- few connections


async def test_a_connection_that_is_lost_before_its_first_use_is_given_back(
    server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the pool would soon have none left to give."""
    connect = redis.asyncio.ConnectionPool.get_connection
    lost = 0

    async def lose(pool: redis.asyncio.ConnectionPool) -> Any:
        nonlocal lost
        connection: Any = await connect(pool)
        if lost < FEW:
            lost += 1
            connection._writer.transport.abort()
        return connection

    monkeypatch.setattr(redis.asyncio.ConnectionPool, "get_connection", lose)
    async with holdfast.open(f"{server.url}?max_connections=2") as saver:
        await put(saver, "t")
        assert await read(saver, "t") is not None
    assert lost == FEW


@pytest.mark.parametrize("count", [1, 3])
async def test_a_pool_may_have_fewer_connections_than_there_are_calls(
    server: RedisServer, client: redis.Redis, count: int, no_blocking_call_on_a_loop: BlockBuster
) -> None:
    let_given_clients_connect(no_blocking_call_on_a_loop)
    url = f"{server.url}?max_connections={count}"
    async with redis.asyncio.Redis.from_url(url) as mine:
        for saver in (holdfast.open(url, retry_budget=0), RedisSaver(mine, retry_budget=0)):
            await saver.asetup()
            await asyncio.gather(*(put(saver, thread_id) for thread_id in threads(600)))
            assert len(others(client)) <= count
            assert all(await asyncio.gather(*(read(saver, one) for one in threads(600))))
            client.client_kill_filter(_type="normal", skipme=True)
            assert all(await asyncio.gather(*(read(saver, one) for one in threads(600))))
            await saver.aclose()
            client.flushall()
