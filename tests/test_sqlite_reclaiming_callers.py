"""SQLite: who goes on with what removed threads leave, and what becomes of failures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from holdfast import SqliteSaver
from holdfast.backends.base import Backend, Visit
from holdfast.backends.sqlite import backend as backend_module
from holdfast.backends.sqlite import reclaim
from holdfast.errors import (
    CheckpointCorrupted,
    HoldfastError,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
)
from support.calls import Calls
from support.make import Thread, config
from support.requests import forget, made, state
from support.sqlite import Pauses, grow, lying

LEFT_TO_THE_NEXT = [StoreFull, StoreTimeout, StoreUnavailable]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of one statement, of a few rows."""
    monkeypatch.setattr(reclaim, "_BATCH_SECONDS", 1e-9)
    monkeypatch.setattr(reclaim, "_ROWS", 8)


def transacted(backend: Any, fails: Callable[[], HoldfastError | None] = lambda: None) -> list[str]:
    """The requests of each transaction from now on; batches fail with what is given."""
    seen: list[str] = []
    transact = backend._writer.transact

    def counted(jobs: list[Any], *others: Any) -> None:
        names = [type(job.request).__name__ for job in jobs]
        seen.extend(names)
        if "Reclaim" in names and (error := fails()):
            raise error
        transact(jobs, *others)

    backend._writer.transact = counted
    return seen


# --- failures


@pytest.mark.parametrize("kind", LEFT_TO_THE_NEXT)
async def test_what_fails_after_the_answer_is_left_to_the_next(
    path: Path, mode: str, kind: type[HoldfastError], caplog: pytest.LogCaptureFixture
) -> None:
    calls = Calls(SqliteSaver(path), mode)
    backend: Backend = calls.saver._live.backend
    for thread in ("t", "u"):
        await asyncio.to_thread(grow, backend.execute, thread, 3)
    failures: list[HoldfastError | None] = [kind("no luck."), kind("none again."), None]
    seen = transacted(backend, lambda: failures.pop(0) if failures else None)
    await calls.prune(["t", "u"], strategy="delete")
    assert [await calls.get_tuple(config(thread)) for thread in ("t", "u")] == [None, None]
    assert seen == ["Forget", "Reclaim", "Forget", "Reclaim"], "goes on after a failure"
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "no luck." in caplog.text
    assert await asyncio.to_thread(lying, path) > 0
    await calls.delete_thread("never there")
    assert await asyncio.to_thread(lying, path) == 0
    await calls.close()


def test_a_lock_of_another_process_does_not_undo_a_deletion(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        closing(SqliteSaver(path, retry_budget=0)) as saver,
        closing(SqliteSaver(path)) as other,
    ):
        grow(saver._live.backend.execute)
        grow(other._live.backend.execute, "u", 1)
        writer: Any = other._live.backend
        pauses = Pauses(lambda: writer._writer.connection.execute("BEGIN IMMEDIATE"))
        monkeypatch.setattr(backend_module, "time", pauses)
        saver.delete_thread("t")
        assert pauses.count == 1
        assert saver.get_tuple(config()) is None
        assert "is locked" in caplog.text


async def test_on_a_given_aiosqlite_connection_too(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with aiosqlite.connect(path) as given:
        saver = SqliteSaver(given)
        backend: Any = saver._live.backend
        for number in (1, 2):
            await backend.aexecute(made(number=number, value=[f"{i} " * 300 for i in range(30)]))
        seen = transacted(backend._inner, lambda: StoreTimeout("no luck."))
        await saver.adelete_thread("t")
        assert seen == ["Forget", "Reclaim"]
        assert "no luck." in caplog.text


async def test_a_damaged_file_is_told(path: Path, mode: str) -> None:
    calls = Calls(SqliteSaver(path), mode)
    backend: Any = calls.saver._live.backend
    await asyncio.to_thread(grow, backend.execute)
    transacted(backend, lambda: CheckpointCorrupted("malformed"))
    with pytest.raises(CheckpointCorrupted):
        await calls.delete_thread("t")
    await calls.close()


# --- who goes on


async def test_a_put_does_not_go_on_with_what_others_deleted(path: Path, mode: str) -> None:
    calls = Calls(SqliteSaver(path, keep_last=1), mode)
    backend: Any = calls.saver._live.backend
    await asyncio.to_thread(grow, backend.execute, "large", 20)
    await asyncio.to_thread(backend.answer, forget("large"))
    seen = transacted(backend)
    thread = Thread(calls)
    for number in range(3):
        await thread.put({"state": number})
    assert seen.count("Remove") == 2
    assert "Reclaim" not in seen
    assert await asyncio.to_thread(lying, path) > 0
    assert len(await calls.ids(config())) == 1
    await calls.close()


def test_who_deletes_little_does_not_wait_for_who_deletes_much(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SqliteSaver(path)) as saver:
        execute = saver._live.backend.execute
        grow(execute, "large")
        grow(execute, "small", 1)
        lain: list[int] = []

        def meanwhile() -> None:
            pauses.work = lambda: None
            for request in (forget("small"), Visit(None, 10)):
                execute(request)
                lain.append(lying(path))

        pauses = Pauses(meanwhile)
        monkeypatch.setattr(backend_module, "time", pauses)
        saver.delete_thread("large")
        assert lain[0] == lain[1] > 0, "the sweep went on as well"
        assert state(execute, "small") is None
        assert lying(path) == 0, "the one who deletes much does it for both"


def test_who_never_comes_back_is_not_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclaim, "_SILENCE_SECONDS", 0)
    loop = asyncio.new_event_loop()
    with closing(SqliteSaver(path)) as saver:
        grow(saver._live.backend.execute)
        backend: Any = saver._live.backend
        seen = transacted(backend)

        async def begin() -> None:
            while "Reclaim" not in seen:  # noqa: ASYNC110 - seen by the writer's thread
                await asyncio.sleep(0)

        deletion = loop.create_task(saver.adelete_thread("t"))
        loop.run_until_complete(begin())
        assert lying(path) > 0
        saver.delete_thread("never there")
        assert lying(path) == 0
        loop.run_until_complete(deletion)
    loop.close()
