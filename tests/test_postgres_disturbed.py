"""Postgres: a graph that is disturbed while it runs ends as if nothing had been."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator
from typing import Any

import holdfast
import pytest
from support import workers
from support.calls import Calls
from support.faults import SOAK, again_and_again
from support.graphs import Runs
from support.make import checkpoint
from support.make import config as at
from support.postgres import backends_of, eye
from support.postgres_audit import audit, is_empty
from support.postgres_server import DURABLE, PostgresServer
from support.walks import BEGIN, TURNS, Once, config, story, told_undisturbed, walk

RUNS = 50 if SOAK else 1
OURS = "application_name = 'holdfast' AND backend_type = 'client backend'"

pytestmark = pytest.mark.timeout(120 + 20 * RUNS)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(DURABLE) as server:
        yield server


@pytest.fixture
def url(server: PostgresServer, request: pytest.FixtureRequest) -> str:
    name = f"t{abs(hash(request.node.name)) % 10**8}"
    return f"{server.url}?table={name}"


@pytest.fixture
async def undisturbed(mode: str) -> list[Any]:
    return await told_undisturbed(mode)


@pytest.mark.parametrize("durability", ["async", "sync"])
async def test_connections_that_are_ended_all_the_time(
    url: str, undisturbed: list[Any], mode: str, durability: str
) -> None:
    ended = [0]

    def end() -> None:
        rows = killer.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}"
        ).fetchall()
        ended[0] += len(rows)
        killer.execute("SELECT pg_sleep(0.1 + random() * 0.2)")

    saver = holdfast.open(url, retry_budget=60)
    runs = Runs(walk(saver), mode)
    done = 0
    with eye(url) as killer:
        while done < RUNS or ended[0] < 20:
            with again_and_again(end):
                await runs.invoke(BEGIN, config("t"), durability=durability)
            done += 1
            assert await story(runs, "t") == undisturbed
            found = audit(killer, url)
            assert found.keys() == {"t"}
            await Calls(saver, mode).delete_thread("t")
        assert is_empty(killer, url)
    print(f"{done} runs, {ended[0]} connections were ended")
    assert saver.stats()["retries"]
    assert saver.stats()["errors"] == 0
    await Calls(saver, mode).close()


async def test_who_has_no_patience_minds_only_what_a_server_says(url: str, mode: str) -> None:
    """Connections that ended while they were idle say nothing, however many they were."""
    calls = Calls(holdfast.open(url, retry_budget=0), mode)
    await calls.setup()
    with eye(url) as conn:
        for number in range(1, 6):
            made = checkpoint(number, {"state": [number] * 99})
            threads = [at(f"{number} {n}") for n in range(8)]
            await asyncio.gather(*(calls.put(one, made, {}, {}) for one in threads))
            pids = [one["pid"] for one in backends_of(conn)]
            assert pids
            conn.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM unnest(%s::int[]) AS pid", [pids]
            )
            for one in threads:
                assert (await calls.must_get(one)).checkpoint == made
    assert calls.saver.stats()["retries"] == 0
    await calls.close()


@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize("seconds", [0, 0.5])
async def test_a_server_that_is_restarted(
    server: PostgresServer,
    url: str,
    undisturbed: list[Any],
    mode: str,
    durability: str,
    seconds: float,
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
    saver = holdfast.open(url, retry_budget=60)
    other = holdfast.open(url, retry_budget=60, cache_bytes=0)
    runs = Runs(walk(saver, once), mode)
    await Calls(other, mode).put(at("other"), there, {}, {})
    with again_and_again(read) as count:
        await runs.invoke(BEGIN, config("t"), durability=durability)
        await asyncio.to_thread(once.join)
    assert count[0] > 0
    assert await story(runs, "t") == undisturbed
    with eye(url) as conn:
        assert audit(conn, url).keys() == {"t", "other"}
    for one in (saver, other):
        await Calls(one, mode).close()


@pytest.mark.parametrize("what", ["paused", "killed"])
async def test_a_server_that_stays_away_ends_the_run_which_goes_on_later(
    server: PostgresServer,
    url: str,
    undisturbed: list[Any],
    mode: str,
    what: str,
) -> None:
    pids: list[int] = []

    def go_away() -> None:
        pids.extend(
            pid for (pid,) in conn.execute(f"SELECT pid FROM pg_stat_activity WHERE {OURS}")
        )
        {"paused": server.pause, "killed": server.kill}[what]()

    once = Once(go_away)
    options: Any = {"reply_timeout": 0.4, "connect_timeout": 2, "pool_size": 1}
    saver = holdfast.open(url, retry_budget=0.2, **options)
    runs = Runs(walk(saver, once), mode)
    with eye(url) as conn:
        try:
            # Who finds the one connection silent, and who finds none: the first of them is raised.
            with pytest.raises((holdfast.StoreTimeout, holdfast.StoreUnavailable)):
                await runs.invoke(BEGIN, config("t"), durability="sync")
        finally:
            await asyncio.to_thread({"paused": server.resume, "killed": server.start}[what])
        assert pids
        with eye(url) as conn_again:
            # What was asked last may be done now, when nobody waits for the reply any more.
            alive = "SELECT FROM pg_stat_activity WHERE pid = ANY (%s)"
            while conn_again.execute(alive, [pids]).rowcount:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
    last = await runs.state(config("t"))
    assert last.values["turn"] in (TURNS // 2, TURNS // 2 + 1)
    await runs.invoke(None, config("t"))
    # Of the step before, the pending writes may be lost that were under way beside the checkpoint
    # that followed from them: nobody needs them any more.
    told = await story(runs, "t")
    assert [one[:3] for one in told] == [one[:3] for one in undisturbed]
    with eye(url) as conn:
        assert audit(conn, url).keys() == {"t"}
    await Calls(saver, mode).close()


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_processes_that_put_and_prune_one_thread_lose_nothing(url: str, level: str) -> None:
    """Each put is read back at once by who made it, whatever is swept meanwhile."""
    count = 200 if SOAK else 25
    names = ["", "sub:1", "sub:2"]
    context: Any = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    with eye(url) as conn, holdfast.open(url) as saver:
        conn.execute(f"ALTER ROLE postgres SET default_transaction_isolation = '{level}'")
        patient = f"{url}&retry_budget=60"
        saver.setup()
        pruner = context.Process(target=workers.prune_until, args=(patient, "t", ready, stop))
        writers = [
            context.Process(target=workers.put_chain, args=(patient, "t", name, count))
            for name in names
        ]
        for one in (pruner, *writers):
            one.start()
        for one in writers:
            one.join()
        stop.set()
        pruner.join()
        conn.execute("ALTER ROLE postgres RESET default_transaction_isolation")
        assert [one.exitcode for one in (pruner, *writers)] == [0, 0, 0, 0]
        saver.prune(["t"])
        found = audit(conn, url)["t"]
        assert {name: len(ids) for name, ids in found.ids.items()} == dict.fromkeys(names, 1)
        assert not found.garbage
        for name in names:
            workers.check_chained(saver, at("t", name), name, count)
        saver.delete_thread("t")
        assert is_empty(conn, url)
