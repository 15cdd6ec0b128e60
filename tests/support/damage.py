"""Damage to the rows of a SQLite file, done from outside and undone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

BOOKKEEPING = {"operations", "deleted_by"}
"""Columns that no checkpoint is read from."""


@dataclass(frozen=True)
class Cell:
    """Some stored bytes: a column of a row, which is named by its table's primary key."""

    table: str
    column: str
    key: tuple[tuple[str, object], ...]
    value: bytes

    def where(self) -> tuple[str, list[object]]:
        names = " AND ".join(f'"{name}" = ?' for name, _ in self.key)
        return names, [value for _, value in self.key]


def cells(path: Path) -> list[Cell]:
    """All bytes of checkpoints that the tables of a file hold outside of their keys."""
    found = []
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            columns = connection.execute(f'PRAGMA table_info("{table}")').fetchall()
            keys = [name for _, name, _, _, _, rank in columns if rank]
            for _, column, kind, _, _, rank in columns:
                if kind != "BLOB" or rank or column in BOOKKEEPING:
                    continue
                names = ", ".join(f'"{name}"' for name in [*keys, column])
                for *key, value in connection.execute(f'SELECT {names} FROM "{table}"'):
                    found.append(Cell(table, column, tuple(zip(keys, key, strict=True)), value))
    return found


def execute(path: Path, statement: str, values: list[object] | None = None) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values or [])


def dump(path: Path) -> list[str]:
    """All that is in a file, as statements that would make it again."""
    with closing(sqlite3.connect(path)) as connection:
        return [*connection.iterdump()]


@contextmanager
def damaged(path: Path, cell: Cell, value: bytes) -> Iterator[None]:
    """Another value in a cell, for as long as the body runs."""
    where, key = cell.where()
    change = f'UPDATE "{cell.table}" SET "{cell.column}" = ? WHERE {where}'
    execute(path, change, [value, *key])
    try:
        yield
    finally:
        execute(path, change, [cell.value, *key])


@contextmanager
def missing(path: Path, cell: Cell) -> Iterator[None]:
    """A file without the cell's row, for as long as the body runs."""
    where, key = cell.where()
    with closing(sqlite3.connect(path)) as connection, connection:
        row = connection.execute(f'SELECT * FROM "{cell.table}" WHERE {where}', key).fetchone()
        connection.execute(f'DELETE FROM "{cell.table}" WHERE {where}', key)
    try:
        yield
    finally:
        marks = ", ".join("?" * len(row))
        execute(path, f'INSERT INTO "{cell.table}" VALUES ({marks})', list(row))


def manners(value: bytes) -> Iterator[tuple[str, bytes]]:
    """Ways in which bytes go bad."""
    for at in sorted({0, 1, len(value) // 3, len(value) // 2, len(value) - 2, len(value) - 1}):
        if 0 <= at < len(value):
            for bit in (0x01, 0x80):
                bad = bytearray(value)
                bad[at] ^= bit
                yield f"bit {bit} of byte {at}", bytes(bad)
    yield "cut in half", value[: len(value) // 2]
    yield "one byte short", value[:-1]
    yield "one byte more", value + b"\x00"
    yield "empty", b""
    yield "zeros", bytes(len(value))
