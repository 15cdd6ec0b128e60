"""SQLite: a file of an older layout is brought to the present one, and loses nothing."""

from __future__ import annotations

import multiprocessing
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import holdfast
import pytest
from holdfast import SqliteSaver
from holdfast.backends import base
from holdfast.backends.base import new_operation_id
from holdfast.backends.sqlite import tables
from holdfast.backends.sqlite.writer import Writer
from holdfast.errors import ThreadDeleted
from support import golden
from support.make import config
from support.requests import building, made, parent, write
from support.sqlite import NOW, Clock, executing, lying, rows
from support.workers import put_chain

SPAWN = multiprocessing.get_context("spawn")
DATA = Path(__file__).parent / "data"
KEPT = golden.threads_of(1)
"""The threads of the files of the first layout."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db"


@pytest.fixture(params=["format-1.db", "format-2-long-pages.db"])
def old(request: pytest.FixtureRequest, path: Path) -> Path:
    shutil.copy(DATA / request.param, path)
    assert rows(path, "SELECT version FROM holdfast_layout") == [(1,)]
    return path


def test_an_old_file_gets_what_it_lacks_and_keeps_what_it_has(old: Path, clock: Clock) -> None:
    for at, thread in enumerate(KEPT):
        with closing(sqlite3.connect(old)) as connection, connection:
            connection.execute(
                "UPDATE holdfast_threads SET created_at = ?, updated_at = ? WHERE thread_id = ?",
                (NOW - 100, NOW - 90 + 40 * at, thread),
            )
    kept = ("checkpoints", "writes", "blobs")
    before = [rows(old, f"SELECT * FROM holdfast_{table} ORDER BY 1, 2, 3") for table in kept]
    with closing(SqliteSaver(old, ttl=50)) as saver:
        execute = executing(saver, clock)
        listed = execute(base.Threads(10))
        assert [row.thread_id for row in listed] == [*reversed(KEPT)]
        assert [row.updated for row in listed] == [
            int(NOW - 90 + 40 * at) * 1000 for at in reversed(range(len(KEPT)))
        ]
        assert {(row.created, row.expires) for row in listed} == {(int(NOW - 100) * 1000, None)}
        assert rows(old, "SELECT version FROM holdfast_layout") == [(2,)]
        after = [rows(old, f"SELECT * FROM holdfast_{table} ORDER BY 1, 2, 3") for table in kept]
        assert after == before
        first = KEPT[0]
        execute(base.Forget(first, new_operation_id()))
        assert lying(old) == 0
        with pytest.raises(ThreadDeleted):
            execute(building(made(first, 9), parent(8)))
        execute(write(KEPT[1]))
        clock.now += 50
        assert [row.thread_id for row in execute(base.Threads(10))] == [*KEPT[:1:-1]]


def test_a_new_file_and_an_old_one_have_the_same_tables(old: Path, tmp_path: Path) -> None:
    for name in (old, tmp_path / "new"):
        with closing(SqliteSaver(name)) as saver:
            saver.setup()
    for table in ("threads", "dead_keys", "layout"):
        info = f"PRAGMA table_info(holdfast_{table})"
        assert rows(old, info) == rows(tmp_path / "new", info)
    names = "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite%' ORDER BY 1"
    assert rows(old, names) == rows(tmp_path / "new", names)


def test_a_migration_that_fails_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_LIFETIME", (*tables._LIFETIME, "not a column ("))
    before = rows(old, "SELECT * FROM sqlite_master")
    with closing(SqliteSaver(old)) as saver, pytest.raises(holdfast.StoreUnavailable):
        saver.setup()
    assert rows(old, "SELECT * FROM sqlite_master") == before
    monkeypatch.undo()
    with closing(SqliteSaver(old)) as saver:
        assert saver.get_tuple(config("zstd")) is not None


def test_several_processes_bring_a_file_up_to_date_at_once(old: Path) -> None:
    url = f"sqlite:///{old.absolute()}"
    processes = [SPAWN.Process(target=put_chain, args=(url, f"t {n}", "", 5)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert rows(old, "SELECT version FROM holdfast_layout") == [(2,)]
    with closing(SqliteSaver(old)) as saver:
        assert len(saver._live.backend.execute(base.Threads(50))) == len(KEPT) + 4


def test_a_newer_layout_is_told_as_such_also_when_it_comes_while_one_waits(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SqliteSaver(old)) as saver, closing(sqlite3.connect(old)) as other:
        begin = Writer._begin

        def overtaken(self: Any, *args: Any) -> None:
            with other:
                other.execute("UPDATE holdfast_layout SET version = 3")
            begin(self, *args)

        monkeypatch.setattr(Writer, "_begin", overtaken)
        with pytest.raises(holdfast.FormatTooNew, match="layout 3"):
            saver.setup()
