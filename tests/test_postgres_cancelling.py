"""Postgres: a call that is cancelled takes nothing from its neighbours, and no connection."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import holdfast
import pytest
from support.faults import ROUNDS, seeded
from support.make import checkpoint, checkpoint_id, config, version
from support.postgres import Connection, backends_of, eye
from support.postgres_audit import audit
from support.postgres_server import PostgresServer, postgres_url
from support.requests import WORDS

SIZE = 3
FEW = 8


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    url = f"{server.url}?table=holdfast"
    yield url
    with eye(url) as conn:
        conn.execute(
            "DROP TABLE holdfast_threads, holdfast_checkpoints, holdfast_writes, holdfast_blobs, "
            "holdfast_layout"
        )


def made(number: int, thread: str) -> Any:
    return checkpoint(number, {"state": [thread, *WORDS[:5]]}, {"state": version(number)})


async def put(saver: holdfast.Saver, thread: str, number: int = 1) -> Any:
    one = made(number, thread)
    return await saver.aput(config(thread), one, {}, one["channel_versions"])


async def is_whole(saver: holdfast.Saver) -> None:
    """As many calls at once as there may be connections are all answered."""
    for _ in range(2):
        found = await asyncio.gather(*(put(saver, f"whole {n}") for n in range(3 * SIZE)))
        assert len(found) == 3 * SIZE
    while (figures := saver.stats())["pool_idle"] < figures["pool_size"]:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert 0 < figures["pool_size"] <= SIZE
    assert figures["pool_waiting"] == 0


async def cancelled(task: asyncio.Task[Any], rng: random.Random) -> bool:
    """Cancel a task at some point of its way, sometimes twice; whether that came in time."""
    if rng.random() < 0.5:
        for _ in range(rng.randrange(30)):
            await asyncio.sleep(0)
    else:
        await asyncio.sleep(rng.random() * 0.01)
    task.cancel()
    if rng.random() < 0.3:
        for _ in range(rng.randrange(10)):
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


@pytest.mark.parametrize("what", ["put", "delete", "prune", "get"])
async def test_calls_that_are_cancelled_at_any_point(url: str, what: str) -> None:
    """Each was done wholly or not at all, those beside it were done, and the pool is whole."""
    rng = seeded()
    count = [0, 0]
    async with holdfast.open(url, pool_size=SIZE, retry_budget=5) as saver:
        await is_whole(saver)
        for number in range(4 * ROUNDS):
            thread = f"{what} {number}"
            if what != "put":
                for one in (1, 2):
                    await put(saver, thread, one)
            work: Any = {
                "put": lambda thread=thread: put(saver, thread),
                "delete": lambda thread=thread: saver.adelete_thread(thread),
                "prune": lambda thread=thread: saver.aprune([thread]),
                "get": lambda thread=thread: saver.aget_tuple(config(thread)),
            }[what]
            task = asyncio.ensure_future(work())
            beside = [asyncio.ensure_future(put(saver, f"{thread} {n}")) for n in range(SIZE)]
            count[await cancelled(task, rng)] += 1
            await asyncio.gather(*beside)
            ids = [one.checkpoint["id"] async for one in saver.alist(config(thread))]
            allowed = {
                "put": ([], [1]),
                "delete": ([], [2, 1]),
                "prune": ([2], [2, 1]),
                "get": ([2, 1],),
            }[what]
            assert ids in [[checkpoint_id(n) for n in some] for some in allowed]
        await is_whole(saver)
    print(f"{count[1]} were cancelled, {count[0]} were done before")
    assert all(count)
    with eye(url) as conn:
        audit(conn, url)
        assert not [one for one in backends_of(conn) if one["application_name"] == "holdfast"]


async def test_writes_that_are_cancelled_among_others_of_their_group(url: str) -> None:
    rng = seeded()
    count = [0, 0]
    async with holdfast.open(url, pool_size=SIZE, retry_budget=5) as saver:
        place = await put(saver, "t")
        expected: set[str] = set()
        open_: set[str] = set()
        for number in range(2 * ROUNDS):
            names = [f"task {number:04} {n}" for n in range(FEW)]
            tasks = [
                asyncio.ensure_future(saver.aput_writes(place, [("a", n), ("b", name)], name))
                for n, name in enumerate(names)
            ]
            chosen = rng.sample(range(FEW), 3)
            await asyncio.gather(*(cancelled(tasks[n], rng) for n in chosen))
            done = await asyncio.gather(*tasks, return_exceptions=True)
            for name, reply in zip(names, done, strict=True):
                assert reply is None or isinstance(reply, asyncio.CancelledError)
                count[reply is not None] += 1
                (expected if reply is None else open_).add(name)
        found = await saver.aget_tuple(place)
        assert found is not None
        tasks_of: dict[str, list[Any]] = {}
        for task, channel, value in found.pending_writes or []:
            tasks_of.setdefault(task, []).append((channel, value))
        assert expected <= tasks_of.keys() <= expected | open_
        for task, some in tasks_of.items():
            assert some == [("a", int(task[-1])), ("b", task)]
        await is_whole(saver)
    print(f"{count[1]} were cancelled, {count[0]} were done")
    assert all(count)


async def test_who_waits_for_a_connection_and_is_cancelled_takes_none(url: str) -> None:
    """A pool of one, which another keeps: all who wait are cancelled but the last."""
    async with holdfast.open(url, pool_size=1, retry_budget=10) as saver:
        await put(saver, "t")
        with eye(url) as conn:
            conn.execute("BEGIN")
            conn.execute("SELECT 1 FROM holdfast_threads FOR UPDATE")
            first = asyncio.ensure_future(put(saver, "t", 2))
            others = [asyncio.ensure_future(put(saver, f"t{n}")) for n in range(FEW)]
            while saver.stats()["pool_waiting"] < FEW:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            for one in others[:-1]:
                one.cancel()
            await asyncio.wait(others[:-1])
            conn.execute("COMMIT")
        await asyncio.gather(first, others[-1])
        assert await saver.aget_tuple(config(f"t{FEW - 1}")) is not None
        assert await saver.aget_tuple(config("t0")) is None
        assert saver.stats()["pool_waiting"] == 0


@pytest.mark.timeout(30)
def test_a_loop_ends_while_its_pool_connects() -> None:
    """Nobody closed the saver, and asyncio.run waits for what it cancelled."""
    with PostgresServer() as server:
        saver = holdfast.open(server.url, retry_budget=0, connect_timeout=2)
        server.pause()

        async def ask() -> None:
            asking = asyncio.ensure_future(saver.aget_tuple(config()))
            await asyncio.wait([asking], timeout=0.2)
            assert not asking.done()

        asyncio.run(ask())
        server.resume()
        assert saver.get_tuple(config()) is None
        saver.close()


def test_loops_that_end_while_their_pools_grow(tmp_path: Any) -> None:
    url = postgres_url(tmp_path)
    for number in range(10):
        saver = holdfast.open(url)

        async def put_some(saver: Any = saver, number: int = number) -> None:
            tasks = [asyncio.ensure_future(put(saver, f"{number} {n}")) for n in range(FEW)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

        asyncio.run(put_some())
        saver.close()


def waits(conn: Connection, pid: int) -> bool:
    """Whether a backend waits for a lock."""
    (one,) = [one for one in backends_of(conn) if one["pid"] == pid]
    return bool(one["wait_event_type"] == "Lock")


async def test_a_call_that_is_cancelled_under_way_costs_no_connection(url: str) -> None:
    """What the server says to it is read, and the connection serves the next."""
    async with holdfast.open(url, pool_size=1, retry_budget=0) as saver:
        await put(saver, "t")
        with eye(url) as holder, eye(url) as conn:
            (one,) = [
                one["pid"] for one in backends_of(conn) if one["pid"] != holder.info.backend_pid
            ]
            for number in range(2, 12):
                with holder.transaction():
                    holder.execute("LOCK holdfast_checkpoints IN ACCESS EXCLUSIVE MODE")
                    task = asyncio.ensure_future(saver.aget_tuple(config("t")))
                    while not waits(conn, one):  # noqa: ASYNC110
                        await asyncio.sleep(0.001)
                    task.cancel()
                    await asyncio.wait([task])
                    assert task.cancelled()
                await put(saver, "t", number)
                found = await saver.aget_tuple(config("t"))
                assert found is not None
                assert found.checkpoint["id"] == checkpoint_id(number)
            pids = {one["pid"] for one in backends_of(conn)}
            assert pids == {one, holder.info.backend_pid}


HOLD = "SELECT FROM holdfast_threads WHERE thread_id = 'held' FOR UPDATE"


def busy(conn: Connection) -> list[dict[str, Any]]:
    """The backends that do something for a saver."""
    return [
        one
        for one in backends_of(conn)
        if one["application_name"] == "holdfast" and one["state"] == "active"
    ]


async def test_calls_that_ran_out_of_time_leave_nothing_under_way(url: str) -> None:
    """One after the other on a thread that somebody holds: another thread is served, and when it is
    let go nothing comes after."""
    async with holdfast.open(url, pool_size=2, retry_budget=0) as saver:
        await put(saver, "held")
        with eye(url) as holder, eye(url) as conn:
            with holder.transaction():
                holder.execute(HOLD)
                for number in range(2, 6):
                    with pytest.raises(asyncio.TimeoutError):
                        await asyncio.wait_for(put(saver, "held", number), 0.1)
                    assert not busy(conn)
                await put(saver, "other")
            assert saver.stats()["pool_size"] == saver.stats()["pool_idle"] <= 2
        assert [one.checkpoint["id"] async for one in saver.alist(config("held"))] == [
            checkpoint_id(1)
        ]


def test_a_call_that_is_under_way_when_its_loop_ends_is_stopped(url: str) -> None:
    saver = holdfast.open(url)
    asyncio.run(put(saver, "held"))
    with eye(url) as holder, eye(url) as conn:
        for number in range(2, 22):  # each on a new connection, where it is parsed first
            with holder.transaction():
                holder.execute(HOLD)

                async def leave(number: int = number) -> asyncio.Task[Any]:
                    task = asyncio.ensure_future(put(saver, "held", number))
                    while not busy(conn):  # noqa: ASYNC110
                        await asyncio.sleep(0.001)
                    return task

                assert asyncio.run(leave()).cancelled()
                assert not busy(conn)
    assert [one.checkpoint["id"] for one in saver.list(config("held"))] == [checkpoint_id(1)]
    saver.close()
