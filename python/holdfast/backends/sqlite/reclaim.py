"""What removed threads leave under their keys, deleted a little at a time."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass

from holdfast.backends.sqlite.tables import Tables

PAUSE_SECONDS = 0.01
"""Between two batches: nearly as long as one of them, so that other processes, which look again and
again whether they can write, find the store free every other time."""

# Of deleting alone: the flush, and the log that is copied into the file, come on top.
_BATCH_SECONDS = 0.012
_ROWS = 128
_VACUUM_PAGES = 512
_VACUUM_STEP = 32
# After which who has the turn is taken to be gone: his event loop may never run again.
_SILENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Delete a batch of what lies under dead keys → `None`."""


RECLAIM = Reclaim()


class Turn:
    """Whose turn it is to go on with reclaiming. Two at once would do no harm."""

    def __init__(self) -> None:
        self._who: object = None
        self._until = 0.0

    def take(self, who: object) -> bool:
        """Have the turn, again or from now on; False while it is another's."""
        now = time.monotonic()
        if self._who not in (None, who) and now < self._until:
            return False
        self._who, self._until = who, now + _SILENCE_SECONDS
        return True

    def give_back(self, who: object) -> None:
        """Have it no more."""
        if self._who is who:
            self._who = None


class Reclaimer:
    """Deletes what lies under dead keys, in each transaction for some 12 ms at most."""

    def __init__(self, tables: Tables) -> None:
        self.has_dead = False
        """Whether there was more to delete when last looked at: a hint."""
        self._left = _BATCH_SECONDS
        self._next = f"SELECT key FROM {tables.dead} LIMIT 1"
        self._done = f"DELETE FROM {tables.dead} WHERE key = ?"
        self._bury = f"INSERT INTO {tables.dead} VALUES (?)"
        self._deletes = [
            f"DELETE FROM {table} WHERE {columns} IN "
            f"(SELECT {columns[1:-1]} FROM {table} WHERE thread = ? LIMIT {_ROWS})"
            for table, columns in (
                (tables.checkpoints, "(rowid)"),
                (
                    tables.writes,
                    "(thread, checkpoint_ns, checkpoint_id, task_id, idx)",
                ),
                (tables.blobs, "(rowid)"),
                (tables.runs, "(run_id, thread)"),
            )
        ]

    def renew(self) -> None:
        """A transaction begins, with time of its own."""
        self._left = _BATCH_SECONDS

    def bury(self, cursor: sqlite3.Cursor, key: int) -> None:
        """Note that nobody reads what lies under this key any more."""
        cursor.execute(self._bury, (key,))

    def look(self, cursor: sqlite3.Cursor) -> None:
        """Find out whether there is anything to delete."""
        self.has_dead = cursor.execute(self._next).fetchone() is not None

    def reclaim(self, cursor: sqlite3.Cursor) -> None:
        """Delete for as long as the transaction has time for it."""
        end = time.perf_counter() + self._left
        while row := cursor.execute(self._next).fetchone():
            if self._left <= 0:
                break
            self._delete_some(cursor, row[0])
            self._left = end - time.perf_counter()
        self.has_dead = row is not None
        self.vacuum(cursor)

    def _delete_some(self, cursor: sqlite3.Cursor, key: int) -> None:
        for delete in self._deletes:
            if cursor.execute(delete, (key,)).rowcount == _ROWS:
                return
        cursor.execute(self._done, (key,))

    def vacuum(self, cursor: sqlite3.Cursor) -> None:
        """Give some free pages back to the file system, if there is time."""
        end = time.perf_counter() + self._left
        for _ in range(_VACUUM_PAGES // _VACUUM_STEP):
            if self._left <= 0:
                break
            cursor.execute(f"PRAGMA incremental_vacuum({_VACUUM_STEP})").fetchall()
            self._left = end - time.perf_counter()
