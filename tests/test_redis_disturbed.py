"""Redis: a graph that is disturbed while it runs ends as if nothing had been."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import holdfast
import pytest
from redis import Redis, RedisError
from support.audit import audit, standing
from support.calls import Calls
from support.faults import SOAK, Flat, again_and_again
from support.graphs import Runs
from support.make import checkpoint
from support.make import config as at
from support.redis_server import RedisServer
from support.redis_wire import DURABLE, held
from support.walks import (
    BEGIN,
    TURNS,
    Once,
    await_writes,
    config,
    story,
    told_undisturbed,
    walk,
)

RUNS = 50 if SOAK else 1
KILLS = 20_000
"""In one run, so that it ends in time."""

pytestmark = pytest.mark.timeout(120 + 20 * RUNS)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer(DURABLE) as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[Redis]:
    """A look at the server from beside the savers."""
    with Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
async def undisturbed(mode: str) -> list[Any]:
    return await told_undisturbed(mode)


# --- what goes on all the time


@pytest.mark.parametrize(("budget", "pause", "durability"), [(10, 0, "async"), (1, 0.001, "sync")])
async def test_connections_that_are_killed_all_the_time(
    server: RedisServer,
    client: Redis,
    undisturbed: list[Any],
    mode: str,
    durability: str,
    pause: float,
    budget: float,
) -> None:
    def kill() -> None:
        killer.execute_command("CLIENT KILL TYPE normal SKIPME yes")
        time.sleep(pause)

    saver = holdfast.open(server.url, retry_budget=budget)
    runs = Runs(walk(saver), mode)
    flat = Flat(lambda: held(client))
    kills = done = 0
    with Redis.from_url(server.url) as killer:
        while done < RUNS or kills < 500:
            with again_and_again(kill, KILLS) as count:
                await runs.invoke(BEGIN, config("t"), durability=durability)
            kills += count[0]
            done += 1
            assert await story(runs, "t") == undisturbed
            assert audit(client).keys() == {"t"}
            await Calls(saver, mode).delete_thread("t")
            flat.look()
    opened = client.info("stats")["total_connections_received"]
    print(f"{done} runs, {kills} kills, {opened} connections")
    assert opened > 20, "they were not in the way"
    assert standing(client) == [b"holdfast:format"]
    await Calls(saver, mode).close()
    if SOAK:
        flat.check()


async def test_who_has_no_patience_minds_only_what_a_server_says(
    server: RedisServer, client: Redis, mode: str
) -> None:
    """A connection that ended while it was idle, or a script that was never sent, says nothing."""
    calls = Calls(holdfast.open(server.url, retry_budget=0), mode)
    for number in range(1, 21):
        one = checkpoint(number, {"state": [number] * 99})
        stored = await calls.put(at(), one, {}, {})
        client.execute_command("CLIENT KILL TYPE normal SKIPME yes")
        assert (await calls.must_get(stored)).checkpoint == one
        if number % 2:
            client.execute_command("CLIENT KILL TYPE normal SKIPME yes")
        client.script_flush()
    await calls.close()


async def test_scripts_that_are_forgotten_all_the_time(
    server: RedisServer, client: Redis, undisturbed: list[Any], mode: str
) -> None:
    saver = holdfast.open(server.url, retry_budget=1)
    runs = Runs(walk(saver), mode)
    with Redis.from_url(server.url) as other, again_and_again(other.script_flush) as flushes:
        await runs.invoke(BEGIN, config("t"))
        assert await story(runs, "t") == undisturbed
        await asyncio.to_thread(saver.copy_thread, "t", "copy")
        await asyncio.to_thread(saver.prune, ["copy"])
        await asyncio.to_thread(saver.delete_thread, "copy")
    sources = client.info("commandstats")["cmdstat_eval"]["calls"]
    print(f"{flushes[0]} flushes, {sources} times a script was sent")
    assert sources > 20
    assert audit(client).keys() == {"t"}
    await Calls(saver, mode).close()


# --- what happens once


@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize("seconds", [0, 0.5])
async def test_a_server_that_is_restarted(
    server: RedisServer, undisturbed: list[Any], mode: str, durability: str, seconds: float
) -> None:
    """Nobody who reads meanwhile is told that there is nothing."""

    def restart() -> None:
        server.kill()
        once.later(seconds, server.start)

    def read() -> None:
        found = other.get_tuple(at("other"))
        assert found is not None
        assert found.checkpoint == there

    there = checkpoint(1, {"state": ["there"] * 99})
    once = Once(restart)
    saver, other = holdfast.open(server.url), holdfast.open(server.url, cache_bytes=0)
    runs = Runs(walk(saver, once), mode)
    await Calls(other, mode).put(at("other"), there, {}, {})
    with again_and_again(read) as count:
        await runs.invoke(BEGIN, config("t"), durability=durability)
        await asyncio.to_thread(once.join)
    assert count[0] > 0
    assert await story(runs, "t") == undisturbed
    with Redis.from_url(server.url) as client:
        assert audit(client).keys() == {"t", "other"}
    for one in (saver, other):
        await Calls(one, mode).close()


async def test_a_server_that_is_silent_for_less_than_the_budget(
    server: RedisServer, client: Redis, undisturbed: list[Any], mode: str
) -> None:
    opened = [0, 0]

    def pause() -> None:
        opened[0] = client.info("stats")["total_connections_received"]
        server.pause()
        once.later(0.8, server.resume)

    once = Once(pause)
    saver = holdfast.open(f"{server.url}?socket_timeout=0.2", retry_budget=30)
    runs = Runs(walk(saver, once), mode)
    await runs.invoke(BEGIN, config("t"))
    await asyncio.to_thread(once.join)
    assert await story(runs, "t") == undisturbed
    assert audit(client).keys() == {"t"}
    await Calls(saver, mode).close()
    opened[1] = client.info("stats")["total_connections_received"]
    assert opened[1] > opened[0], "nobody's patience ended"


@pytest.mark.parametrize(
    ("what", "error"), [("paused", holdfast.StoreTimeout), ("killed", holdfast.StoreUnavailable)]
)
async def test_a_server_that_stays_away_ends_the_run_which_goes_on_later(
    server: RedisServer, undisturbed: list[Any], mode: str, what: str, error: type[Exception]
) -> None:
    """Also while it is away nobody is told that there is no checkpoint."""
    away, back = {
        "paused": (server.pause, server.resume),
        "killed": (server.kill, server.start),
    }[what]

    def go_away() -> None:
        with holdfast.open(server.url) as beside:
            await_writes(beside, "t")
        away()

    url = f"{server.url}?socket_timeout=0.2"
    saver, cold = holdfast.open(url, retry_budget=0.4), holdfast.open(url, retry_budget=0.4)
    once = Once(go_away)
    runs = Runs(walk(saver, once), mode)
    with pytest.raises(error, match="retry_budget") as caught:
        await runs.invoke(BEGIN, config("t"), durability="sync")
    assert isinstance(caught.value.__cause__, (RedisError, OSError))
    answers = await asyncio.gather(
        runs.state(config("t")),
        *(Calls(one, mode).get_tuple(config("t")) for one in (saver, cold)),
        *(Calls(one, mode).list(config("t")) for one in (saver, cold)),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [error] * 5
    await asyncio.to_thread(back)
    last = await runs.state(config("t"))
    assert last.values["turn"] in (TURNS // 2, TURNS // 2 + 1)
    await runs.invoke(None, config("t"))
    assert await story(runs, "t") == undisturbed
    with Redis.from_url(server.url) as client:
        assert audit(client).keys() == {"t"}
    for one in (saver, cold):
        await Calls(one, mode).close()
