"""The tables of one prefix: their names, their layout, and what stands in a column."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

LAYOUT = 2
IS_VISIBLE = "is_alive AND (expires_at IS NULL OR expires_at > ?)"
"""What holds of a thread's row, given the time, as long as the thread can be seen."""

# Below the least limit on variables that builds of SQLite have (999).
_MANY = 500

# What layout 2 added to a thread's row. In a row that is not alive a tombstone or a lease is
# all there is, and nothing lies under its key.
_LIFETIME = (
    "is_alive INTEGER NOT NULL DEFAULT 1",
    # Of the last change: coarse, so that few commits touch its index.
    "minute INTEGER NOT NULL DEFAULT 0",
    "expires_at REAL",
    "is_persistent INTEGER NOT NULL DEFAULT 0",
    "deleted_at REAL",
    "deleted_by BLOB",
    "lease_token INTEGER",
    "lease_until REAL",
)

Column: TypeAlias = str | bytes


def to_column(id: str) -> Column:
    """An id as a column holds it: text, or bytes where it has lone surrogates."""
    try:
        id.encode()
    except UnicodeEncodeError:
        return id.encode("utf-8", "surrogatepass")
    return id


def from_column(value: Column) -> str:
    """The id that was given to `to_column`."""
    return value if isinstance(value, str) else value.decode("utf-8", "surrogatepass")


def milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def minute(milliseconds: int) -> int:
    return milliseconds // 60_000


class Tables:
    """The tables of one prefix, asked on the cursor of an open transaction."""

    def __init__(self, table: str) -> None:
        def name(suffix: str) -> str:
            return '"' + f"{table}_{suffix}".replace('"', '""') + '"'

        self.threads = name("threads")
        self.threads_by_minute = name("threads_by_minute")
        self.checkpoints = name("checkpoints")
        self.writes = name("writes")
        self.blobs = name("blobs")
        self.blob_ids = name("blob_ids")
        self.runs = name("runs")
        self.runs_of = name("runs_of_thread")
        self.dead = name("dead_keys")
        self.layout = name("layout")
        self._visible_key = f"SELECT key FROM {self.threads} WHERE thread_id = ? AND {IS_VISIBLE}"

    def create(self, cursor: sqlite3.Cursor) -> None:
        """Create the tables that are missing, bring old ones to this layout, and note it."""
        found = self.stored_layout(cursor)
        if found == 1:
            for column in _LIFETIME:
                cursor.execute(f"ALTER TABLE {self.threads} ADD COLUMN {column}")
            cursor.execute(
                f"UPDATE {self.threads} SET minute = CAST(updated_at * 1000 AS INTEGER) / 60000"
            )
        for statement in (
            f"CREATE TABLE IF NOT EXISTS {self.layout} (version INTEGER NOT NULL)",
            # AUTOINCREMENT: the key of a removed thread must not name the next one.
            f"CREATE TABLE IF NOT EXISTS {self.threads} (key INTEGER PRIMARY KEY AUTOINCREMENT, "
            "thread_id NOT NULL UNIQUE, epoch INTEGER NOT NULL, created_at REAL NOT NULL, "
            f"updated_at REAL NOT NULL, operations BLOB NOT NULL, {', '.join(_LIFETIME)})",
            f"CREATE INDEX IF NOT EXISTS {self.threads_by_minute} "
            f"ON {self.threads} (is_alive, minute)",
            # With a rowid: a record above a quarter of a page would take pages of its own.
            f"CREATE TABLE IF NOT EXISTS {self.checkpoints} (thread INTEGER NOT NULL, "
            "checkpoint_ns NOT NULL, checkpoint_id NOT NULL, parent_id, record BLOB NOT NULL, "
            "PRIMARY KEY (thread, checkpoint_ns, checkpoint_id))",
            f"CREATE TABLE IF NOT EXISTS {self.writes} (thread INTEGER NOT NULL, "
            "checkpoint_ns NOT NULL, checkpoint_id NOT NULL, task_id NOT NULL, "
            "idx INTEGER NOT NULL, data BLOB NOT NULL, "
            "PRIMARY KEY (thread, checkpoint_ns, checkpoint_id, task_id, idx)) WITHOUT ROWID",
            # Chunks lie in the order of arrival, their random ids in an index apart: pages
            # are full, and a commit touches few.
            f"CREATE TABLE IF NOT EXISTS {self.blobs} (rowid INTEGER PRIMARY KEY, "
            "thread INTEGER NOT NULL, id BLOB NOT NULL, data BLOB NOT NULL)",
            f"CREATE UNIQUE INDEX IF NOT EXISTS {self.blob_ids} ON {self.blobs} (thread, id)",
            f"CREATE TABLE IF NOT EXISTS {self.runs} (run_id NOT NULL, thread INTEGER NOT NULL, "
            "PRIMARY KEY (run_id, thread)) WITHOUT ROWID",
            f"CREATE INDEX IF NOT EXISTS {self.runs_of} ON {self.runs} (thread)",
            # Keys that belong to no thread any more, and under which something still lies.
            f"CREATE TABLE IF NOT EXISTS {self.dead} (key INTEGER PRIMARY KEY)",
        ):
            cursor.execute(statement)
        if found is None:
            cursor.execute(f"INSERT INTO {self.layout} VALUES (?)", (LAYOUT,))
        else:
            cursor.execute(f"UPDATE {self.layout} SET version = ?", (LAYOUT,))

    def stored_layout(self, cursor: sqlite3.Cursor) -> int | None:
        """The layout of the tables; None where there are none."""
        if not cursor.execute(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?",
            (self.layout[1:-1].replace('""', '"'),),
        ).fetchone():
            return None
        row = cursor.execute(f"SELECT max(version) FROM {self.layout}").fetchone()
        return row[0] if row else None

    def key(self, cursor: sqlite3.Cursor, thread_id: str, now: float) -> int | None:
        """The key of a thread that can be seen; None where there is none."""
        row = cursor.execute(self._visible_key, (to_column(thread_id), now)).fetchone()
        return row[0] if row else None

    def has(self, cursor: sqlite3.Cursor, key: int, checkpoint_ns: str, checkpoint_id: str) -> bool:
        """Whether a checkpoint is stored under a thread's key."""
        found = cursor.execute(
            f"SELECT 1 FROM {self.checkpoints} "
            "WHERE thread = ? AND checkpoint_ns = ? AND checkpoint_id = ?",
            (key, to_column(checkpoint_ns), to_column(checkpoint_id)),
        )
        return found.fetchone() is not None

    def epoch(self, cursor: sqlite3.Cursor, key: int | None) -> int:
        row = cursor.execute(f"SELECT epoch FROM {self.threads} WHERE key = ?", (key,)).fetchone()
        return row[0] if row else 0


def batches(ids: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (ids[start : start + _MANY] for start in range(0, len(ids), _MANY))


def marks(some: Sequence[Any]) -> str:
    return ",".join("?" * len(some))
