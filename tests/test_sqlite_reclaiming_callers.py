"""SQLite: what becomes of failures to delete what removed threads leave."""

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
from holdfast.backends.base import Backend
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
from support.make import config
from support.requests import made
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
