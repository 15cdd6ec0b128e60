"""SQLite: what removed threads leave goes in small batches, others between, and none is lost."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from holdfast import SqliteSaver
from holdfast.backends import base
from holdfast.backends.base import new_operation_id
from holdfast.backends.sqlite import backend as backend_module
from holdfast.backends.sqlite import reclaim
from support.make import checkpoint_id
from support.requests import Execute, anew, made, state
from support.sqlite import Clock, Pauses, executing, grow, lying, rows

SPAWN = multiprocessing.get_context("spawn")


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


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of one statement, of a few rows."""
    monkeypatch.setattr(reclaim, "_BATCH_SECONDS", 1e-9)
    monkeypatch.setattr(reclaim, "_ROWS", 8)


@pytest.mark.usefixtures("small")
def test_others_write_between_the_batches_and_see_nothing_of_the_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lain: list[int] = []
    with closing(SqliteSaver(path)) as saver, closing(SqliteSaver(path, retry_budget=0)) as other:
        execute, ask = saver._live.backend.execute, other._live.backend.execute
        grow(execute)

        def meanwhile() -> None:
            lain.append(lying(path))
            assert state(ask) is None
            assert ask(base.Page(None, None, None, None, None, 50)) == others
            assert ask(base.RunThreads(["r"])) == [row.thread_id for row in others[:1]]
            assert ask(base.Weigh("t")) == (0, 0)
            ask(made("other"))  # would fail at once if the file were locked
            others[:] = ask(base.Page("other", None, None, None, None, 50))

        others: list[Any] = []
        pauses = Pauses(meanwhile)
        monkeypatch.setattr(backend_module, "time", pauses)
        assert execute(base.Forget("t", new_operation_id())) is True
        assert lying(path) == 0
        removed = [before - after for before, after in zip(lain, [*lain[1:], 0], strict=True)]
        assert pauses.count > 10
        # Of each of four tables at most so many, in each transaction.
        assert 0 < min(removed) <= max(removed) <= 4 * 8


@pytest.mark.usefixtures("small")
def test_a_thread_begins_anew_while_the_old_one_is_being_deleted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SqliteSaver(path)) as saver, closing(SqliteSaver(path)) as other:
        grow(saver._live.backend.execute)
        found: list[Any] = []

        def meanwhile() -> None:
            if not found:
                other._live.backend.execute(made(number=99))
            found.append(state(other._live.backend.execute))

        monkeypatch.setattr(backend_module, "time", Pauses(meanwhile))
        saver.delete_thread("t")
        assert [record[1] for record in found[0][1]] == [checkpoint_id(99)]
        assert all(one == found[0] for one in found)
        assert state(saver._live.backend.execute) == found[0]
        assert lying(path) == 0


@pytest.mark.usefixtures("small")
async def test_an_event_loop_goes_on_between_the_batches(path: Path) -> None:
    async with SqliteSaver(path) as saver:
        backend: Any = saver._live.backend
        for number in range(1, 21):
            await backend.aexecute(made("t", number, [f"{number} {i} " * 60 for i in range(30)]))
        transacted: list[list[str]] = []
        transact = backend._writer.transact

        def counted(jobs: list[Any], *others: Any) -> None:
            transact(jobs, *others)
            transacted.append([type(job.request).__name__ for job in jobs])

        backend._writer.transact = counted
        assert await backend.aexecute(base.Forget("t", new_operation_id())) is True
        assert transacted[0] == ["Forget"]
        assert len(transacted) > 10
        assert all(names == ["Reclaim"] for names in transacted[1:])
        assert lying(path) == 0


@pytest.mark.usefixtures("small")
async def test_a_given_aiosqlite_connection_is_free_between_the_batches(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with aiosqlite.connect(path) as given:
        backend = SqliteSaver(given)._live.backend
        for number in range(1, 6):
            await backend.aexecute(made("t", number, [f"{number} {i} " * 60 for i in range(30)]))
        lain: list[int] = []

        async def sleep(seconds: float) -> None:
            assert seconds == reclaim.PAUSE_SECONDS
            await given.execute("CREATE TABLE IF NOT EXISTS mine (a)")
            lain.append(await asyncio.to_thread(lying, path))

        monkeypatch.setattr(asyncio, "sleep", sleep)
        await backend.aexecute(base.Forget("t", new_operation_id()))
        assert len(lain) > 5
        assert lain == sorted(lain, reverse=True)
    assert lying(path) == 0


def test_a_small_thread_goes_in_one_transaction(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclaim, "_BATCH_SECONDS", 1e-9)
    pauses = Pauses(lambda: None)
    monkeypatch.setattr(backend_module, "time", pauses)
    with closing(SqliteSaver(path)) as saver:
        grow(saver._live.backend.execute, count=1)
        saver.delete_thread("t")
        assert pauses.count == 0
        assert lying(path) == 0


@pytest.mark.usefixtures("small")
def test_what_a_closed_saver_leaves_the_next_one_deletes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = SqliteSaver(path)
    backend: Any = saver._live.backend
    grow(backend.execute)
    monkeypatch.setattr(backend_module, "time", Pauses(backend.close))
    assert backend.execute(base.Forget("t", new_operation_id())) is True
    assert backend._writer.connection is None, "opened again"
    assert lying(path) > 0
    monkeypatch.undo()
    with closing(SqliteSaver(path)) as other:
        other.delete_thread("never there")
    assert lying(path) == 0
    assert rows(path, "SELECT * FROM holdfast_dead_keys") == []


def delete_and_die(path: str) -> None:
    """Delete a thread, and die when the first transaction is over."""
    reclaim._BATCH_SECONDS = 0
    vars(backend_module)["time"] = Pauses(lambda: os._exit(9))
    with closing(SqliteSaver(path)) as saver:
        saver.delete_thread("t")


@pytest.mark.parametrize("finisher", [base.Visit(None, 10), base.Forget("u", new_operation_id())])
def test_what_a_killed_process_leaves_is_invisible_and_the_next_one_deletes_it(
    path: Path, execute: Execute, finisher: Any
) -> None:
    grow(execute)
    execute(made("u"))
    process = SPAWN.Process(target=delete_and_die, args=(str(path),))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    assert len(rows(path, "SELECT * FROM holdfast_dead_keys")) == 1
    assert lying(path) > 0
    assert state(execute) is None
    execute(finisher)
    assert lying(path) == 0
    assert rows(path, "SELECT * FROM holdfast_dead_keys") == []


def test_a_commit_on_an_expired_thread_leaves_the_deleting_to_others(
    path: Path, clock: Clock
) -> None:
    with closing(SqliteSaver(path, ttl=10)) as saver:
        execute = executing(saver, clock)
        grow(execute)
        before = lying(path), execute(base.Weigh("t"))
        clock.now += 10
        refused = made(number=50)
        assert execute(anew(refused, chunks=[], frontier=[b"\x77" * 16])) == [b"\x77" * 16]
        assert (lying(path), execute(base.Weigh("t"))) == before, "stored nothing, removed nothing"
        execute(refused)
        assert lying(path) > 0
        assert [record[1] for record in state(execute)[1]] == [checkpoint_id(50)]
        execute(base.Visit(None, 10))
        assert lying(path) == 0
        assert [record[1] for record in state(execute)[1]] == [checkpoint_id(50)]


def test_a_copy_and_a_remove_leave_nothing_under_dead_keys(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclaim, "_BATCH_SECONDS", 60)
    with closing(SqliteSaver(path, ttl=10)) as saver:
        execute = executing(saver, clock)
        grow(execute, "target", 3)
        clock.now += 10
        grow(execute, "t", 3)
        execute(base.Copy("t", "target", new_operation_id()))
        places = [("", checkpoint_id(number)) for number in (1, 2, 3)]
        execute(base.Remove("t", None, places, [], new_operation_id()))
        assert lying(path) == 0
        assert state(execute) is None
        assert len(state(execute, "target")[1]) == 3
