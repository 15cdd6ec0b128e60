"""SQLite: tombstones and leases in the file, every kind of connection, and what changes cost."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from holdfast import SqliteSaver
from holdfast.backends import base
from holdfast.backends.base import Fence, new_operation_id
from holdfast.errors import LeaseLost, ThreadDeleted
from support.requests import Execute, anew, building, made, parent, put
from support.sqlite import Clock, executing, lying, rows

DAY = base.TOMBSTONE_SECONDS


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db"


@pytest.fixture
def saver(path: Path) -> Iterator[SqliteSaver]:
    with closing(SqliteSaver(path)) as saver:
        yield saver


@pytest.fixture
def execute(saver: SqliteSaver, clock: Clock) -> Execute:
    return executing(saver, clock)


# --- tombstones and leases


def test_old_tombstones_go_a_few_at_a_time(path: Path, execute: Execute, clock: Clock) -> None:
    for number in range(20):
        execute(base.Forget(f"t {number}", new_operation_id()))
    execute(base.Lease("t 0", 10))
    token, _ = execute(base.Lease("held", DAY * 2))
    clock.now += DAY + 61
    counts = []
    for number in range(8):
        execute(base.Forget(f"new {number}", new_operation_id()))
        counts.append(len(rows(path, "SELECT 1 FROM holdfast_threads WHERE thread_id LIKE 't %'")))
    assert counts[0] in range(15, 20)
    assert counts[-1] == 0
    assert rows(path, "SELECT lease_token FROM holdfast_threads WHERE thread_id = 'held'") == [
        (token,)
    ]


def test_a_sweep_leaves_nothing_of_an_old_lease(path: Path, execute: Execute, clock: Clock) -> None:
    first, _ = execute(base.Lease("t", 10))
    execute(base.Release("t", first))
    execute(base.Forget("t", new_operation_id(), leaves_tombstone=False))
    second, _ = execute(base.Lease("t", 10))
    assert second > first, "at the same moment"
    clock.now += 10 + DAY
    execute(base.Forget("t", new_operation_id(), leaves_tombstone=False))
    assert rows(path, "SELECT * FROM holdfast_threads") == []
    third, _ = execute(base.Lease("t", 10))
    assert third > second


# --- without RETURNING; on given connections


def lead_a_life(execute: Execute, clock: Clock) -> None:
    """A thread with a ttl of 10 seconds: expiry, a lease, a tombstone."""
    execute(made())
    clock.now += 9
    execute(building(made(number=2), parent(1)))
    clock.now += 9
    assert len(execute(base.Census("t"))[1]) == 2
    clock.now += 1
    assert execute(base.Head("t", "", None, list)) is None
    again = made(number=3)
    assert execute(again) == []
    assert execute(again) == []
    assert len(execute(base.Census("t"))[1]) == 1
    token, _ = execute(base.Lease("t", 5))
    with pytest.raises(LeaseLost):
        execute(made(number=4))
    assert execute(anew(made(number=4), fence=Fence(token, 5))) == []
    execute(base.Release("t", token))
    clock.now += 61
    execute(made(number=5))
    execute(base.Forget("t", new_operation_id()))
    with pytest.raises(ThreadDeleted):
        execute(building(made(number=6), parent(5)))
    assert execute(made(number=7)) == []
    assert [row.updated for row in execute(base.Threads(5))] == [int(clock.now * 1000)]


def test_without_returning(path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with closing(SqliteSaver(path, ttl=10)) as saver:
        backend: Any = saver._live.backend
        assert not backend._thread_rows._can_return
        lead_a_life(executing(saver, clock), clock)
    assert lying(path) == 0


@pytest.mark.parametrize("text", [str, bytes])
def test_on_a_given_connection(path: Path, clock: Clock, text: Any) -> None:
    with closing(sqlite3.connect(path, check_same_thread=False)) as given:
        given.row_factory, given.text_factory = sqlite3.Row, text
        execute = executing(SqliteSaver(given, ttl=10, refresh_on_read=True), clock)
        lead_a_life(execute, clock)
        clock.now += 9
        assert execute(base.Head("t", "", None, list)) is not None
        clock.now += 9
        assert execute(base.Threads(5, prefix="t"))[0].thread_id == "t"


async def test_on_a_given_aiosqlite_connection(path: Path, clock: Clock) -> None:
    async with aiosqlite.connect(path) as given:
        backend = SqliteSaver(given, ttl=10)._live.backend
        backend.clock = clock
        for number in range(1, 10):
            await backend.aexecute(made("t", number, [f"{number} {i} " * 60 for i in range(30)]))
        clock.now += 9
        assert len((await backend.aexecute(base.Census("t")))[1]) == 9
        clock.now += 1
        assert (await backend.aexecute(base.Census("t")))[1] == []
        await backend.aexecute(base.Forget("t", new_operation_id()))
        with pytest.raises(ThreadDeleted):
            await backend.aexecute(building(made(number=10), parent(9)))
    assert lying(path) == 0


# --- what it costs


def writer_of(saver: SqliteSaver) -> sqlite3.Connection:
    backend: Any = saver._live.backend
    connection: sqlite3.Connection = backend._writer.connection
    return connection


def frames(path: Path) -> int:
    """Pages in the log."""
    return (path.with_name(f"{path.name}-wal").stat().st_size - 32) // (24 + 4096)


@pytest.mark.parametrize("options", [{}, {"ttl": 1000}], ids=str)
def test_a_commit_touches_the_index_of_times_once_a_minute(
    path: Path, clock: Clock, options: dict[str, Any]
) -> None:
    with closing(SqliteSaver(path, **options)) as saver:
        execute = executing(saver, clock)
        execute(made())
        writer = writer_of(saver)
        touched = []
        for number in range(2, 8):
            clock.now += 60 if number % 3 == 0 else 0.5
            writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            execute(made(number=number))
            touched.append(frames(path))
    within = {touched[at] for at in (0, 2, 3, 5)}
    assert len(within) == 1
    assert {touched[1], touched[4]} == {within.pop() + 1}


def counted(saver: SqliteSaver, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests that the writer answers from now on."""
    backend: Any = saver._live.backend
    change, answered = backend._change, []

    def changes(job: Any) -> Any:
        answered.append(job.request)
        return change(job)

    monkeypatch.setattr(backend, "_change", changes)
    return answered


def test_reads_go_to_the_writer_only_where_they_refresh(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = [
        base.Head("t", "", None, list),
        base.Page("t", None, None, None, None, 5),
        base.Ancestors("t", "", None, 5),
    ]
    others = [base.Page(None, None, None, None, None, 5), base.Census("t"), base.Threads(5)]
    ways: list[tuple[dict[str, Any], int]] = [
        ({}, 0),
        ({"ttl": 9}, 0),
        ({"ttl": 9, "refresh_on_read": True}, 3),
    ]
    for options, count in ways:
        with closing(SqliteSaver(path, **options)) as saver:
            execute = executing(saver, clock)
            execute(made())
            with monkeypatch.context() as patch:
                answers = counted(saver, patch)
                for request in reads + others:
                    execute(request)
            assert len(answers) == count


def test_a_page_of_the_listing_costs_the_same_among_many_threads(
    path: Path, execute: Execute, clock: Clock, saver: SqliteSaver
) -> None:
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    backend: Any = saver._live.backend
    opened = backend._source.open

    def watched() -> sqlite3.Connection:
        connection: sqlite3.Connection = opened()
        connection.set_progress_handler(count, 50)
        return connection

    backend._source.open = watched
    one, costs = made(), []
    for many in (40, 800):
        for number in range(many):
            clock.now += 20
            execute(anew(one, thread_id=f"{many} {number}"))
        steps = 0
        page = execute(base.Threads(10))
        assert [row.thread_id for row in page] == [f"{many} {many - 1 - at}" for at in range(10)]
        after = (page[-1].updated, page[-1].thread_id)
        assert execute(base.Threads(10, after))[0].thread_id == f"{many} {many - 11}"
        costs.append(steps)
    assert costs[1] < 1.5 * costs[0]


def test_a_long_thread_is_written_as_cheaply_with_a_tombstone(
    execute: Execute, saver: SqliteSaver
) -> None:
    execute(base.Forget("t", new_operation_id()))
    put(saver, 1, {"state": [1]})
    counts: list[int] = []
    statements: list[str] = []
    writer_of(saver).set_trace_callback(statements.append)
    for number in range(2, 30):
        statements.clear()
        put(saver, number, {"state": [number]})
        counts.append(len(statements))
    assert len(set(counts[1:])) == 1


if sys.version_info >= (3, 12):

    def test_on_a_connection_without_autocommit(path: Path, clock: Clock) -> None:
        with closing(sqlite3.connect(path, autocommit=False)) as given:
            lead_a_life(executing(SqliteSaver(given, ttl=10), clock), clock)
