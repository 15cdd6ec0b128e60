"""A look into SQLite's file, and a saver on it whose time a test has go on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import holdfast
from holdfast.backends.sqlite.reclaim import PAUSE_SECONDS

from support.requests import Execute, made, write

NOW = 1_700_000_040.0
"""Seconds since 1970, a whole minute."""


class Clock:
    """A time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Pauses:
    """Stands in for the module `time`: has something done in each pause between batches."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.count = 0
        self.work = work

    def sleep(self, seconds: float) -> None:
        assert seconds == PAUSE_SECONDS
        self.count += 1
        self.work()


def executing(saver: holdfast.Saver, clock: Callable[[], float]) -> Execute:
    """Asks the saver's backend, which goes by this clock."""
    backend: Any = saver._live.backend
    backend.clock = clock
    execute: Execute = backend.execute
    return execute


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """What a connection of its own reads."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def lying(path: Path) -> int:
    """How many rows lie under keys that no thread has."""
    return sum(
        rows(
            path,
            f"SELECT count(*) FROM holdfast_{table} "
            "WHERE thread NOT IN (SELECT key FROM holdfast_threads)",
        )[0][0]
        for table in ("checkpoints", "writes", "blobs", "runs")
    )


def grow(execute: Execute, thread: str = "t", count: int = 20) -> None:
    """Put so many checkpoints, of thirty chunks and a write each."""
    for number in range(1, count + 1):
        execute(made(thread, number, [f"{thread} {number} {i} " * 60 for i in range(30)]))
        execute(write(thread, number=number))
