"""Each request that changes something, as SQL."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from holdfast.backends.base import (
    OPERATION_ID_BYTES,
    Commit,
    Copy,
    Discard,
    Forget,
    Missing,
    Remove,
    Write,
)
from holdfast.backends.sqlite.tables import Tables, batches, marks, to_column

# Operations that a thread remembers. Requests are answered in this process, where no
# reply is lost: few can ever be repeated.
_OPERATIONS = 32
_VACUUM_PAGES = 512


class Changes:
    """Answers requests on the cursor of a transaction that may write."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._can_return = sqlite3.sqlite_version_info >= (3, 35)
        self.answers: dict[type, Callable[[sqlite3.Cursor, Any], Any]] = {
            Commit: self._commit,
            Write: self._write,
            Forget: self._forget,
            Copy: self._copy,
            Remove: self._remove,
            Discard: self._discard,
        }

    def _begin(self, cursor: sqlite3.Cursor, thread_id: str, operation: bytes) -> int | None:
        """The thread's key, its epoch raised; None where the operation was done before."""
        id = to_column(thread_id)
        now = time.time()
        kept = -_OPERATIONS * OPERATION_ID_BYTES
        update = (
            f"UPDATE {self._tables.threads} SET epoch = epoch + 1, updated_at = ?, "
            # A concatenation of blobs is text, which would end at a NUL.
            "operations = substr(CAST(operations || ? AS BLOB), ?) "
            "WHERE thread_id = ? AND NOT instr(operations, ?)"
        )
        values = (now, operation, kept, id, operation)
        key: int | None = None
        if self._can_return:
            row = cursor.execute(f"{update} RETURNING key", values).fetchone()
            key = row[0] if row else None
        elif cursor.execute(update, values).rowcount:
            key = self._tables.key(cursor, thread_id)
        if key is None and self._tables.key(cursor, thread_id) is None:
            cursor.execute(
                f"INSERT INTO {self._tables.threads} "
                "(thread_id, epoch, created_at, updated_at, operations) VALUES (?, ?, ?, ?, ?)",
                # Not from zero: a mark made of an earlier thread must not fit this one.
                (id, secrets.randbits(48), now, now, operation),
            )
            key = cursor.lastrowid
        return key

    def _store(self, cursor: sqlite3.Cursor, key: int, request: Commit | Write) -> Missing:
        """Insert chunks and verify the frontier."""
        if request.chunks:
            cursor.executemany(
                # What is sent again heals what was damaged.
                f"INSERT INTO {self._tables.blobs} (thread, id, data) VALUES (?, ?, ?) "
                "ON CONFLICT (thread, id) DO UPDATE SET data = excluded.data "
                "WHERE data <> excluded.data",
                [(key, id, data) for id, data in request.chunks],
            )
        missing: Missing = []
        for some in batches(request.frontier):
            here = f"FROM {self._tables.blobs} WHERE thread = ? AND id IN ({marks(some)})"
            # Counted first: each row that is read hands the interpreter's lock back and forth.
            count = cursor.execute(f"SELECT count(*) {here}", (key, *some)).fetchone()[0]
            if count < len(some):
                found = {id for (id,) in cursor.execute(f"SELECT id {here}", (key, *some))}
                missing += [id for id in some if id not in found]
        return missing

    def _commit(self, cursor: sqlite3.Cursor, request: Commit) -> Missing:
        key = self._begin(cursor, request.thread_id, request.operation)
        if key is None:
            return []
        if missing := self._store(cursor, key, request):
            return missing
        parent_id = None if request.parent_id is None else to_column(request.parent_id)
        cursor.execute(
            f"INSERT OR REPLACE INTO {self._tables.checkpoints} VALUES (?, ?, ?, ?, ?)",
            (
                key,
                to_column(request.checkpoint_ns),
                to_column(request.checkpoint_id),
                parent_id,
                request.record,
            ),
        )
        if request.run_id is not None:
            cursor.execute(
                f"INSERT OR IGNORE INTO {self._tables.runs} VALUES (?, ?)",
                (to_column(request.run_id), key),
            )
        return []

    def _write(self, cursor: sqlite3.Cursor, request: Write) -> Missing:
        key = self._begin(cursor, request.thread_id, request.operation)
        if key is None:
            return []
        if missing := self._store(cursor, key, request):
            return missing
        ns, checkpoint_id = to_column(request.checkpoint_ns), to_column(request.checkpoint_id)
        for verb, special in (("REPLACE", True), ("IGNORE", False)):
            rows = [
                (key, ns, checkpoint_id, to_column(write.task_id), write.idx, write.data)
                for write in request.writes
                if (write.idx < 0) == special
            ]
            if rows:
                cursor.executemany(
                    f"INSERT OR {verb} INTO {self._tables.writes} VALUES (?, ?, ?, ?, ?, ?)", rows
                )
        return []

    def _forget(self, cursor: sqlite3.Cursor, request: Forget) -> None:
        key = self._tables.key(cursor, request.thread_id)
        if key is not None:
            self._drop(cursor, key)

    def _drop(self, cursor: sqlite3.Cursor, key: int) -> None:
        tables = self._tables
        for table in (tables.checkpoints, tables.writes, tables.blobs, tables.runs):
            cursor.execute(f"DELETE FROM {table} WHERE thread = ?", (key,))
        cursor.execute(f"DELETE FROM {tables.threads} WHERE key = ?", (key,))
        self._vacuum(cursor)

    def _vacuum(self, cursor: sqlite3.Cursor) -> None:
        """Give some free pages back to the file system."""
        cursor.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()

    def _copy(self, cursor: sqlite3.Cursor, request: Copy) -> None:
        source = self._tables.key(cursor, request.source_thread_id)
        if source is None or request.source_thread_id == request.target_thread_id:
            return
        target = self._begin(cursor, request.target_thread_id, request.operation)
        if target is None:
            return
        tables = self._tables
        for table, verb, columns in (
            (tables.blobs, "IGNORE", "id, data"),
            (tables.checkpoints, "REPLACE", "checkpoint_ns, checkpoint_id, parent_id, record"),
            (tables.writes, "REPLACE", "checkpoint_ns, checkpoint_id, task_id, idx, data"),
            (tables.runs, "IGNORE", "run_id"),
        ):
            cursor.execute(
                f"INSERT OR {verb} INTO {table} (thread, {columns}) "
                f"SELECT ?, {columns} FROM {table} WHERE thread = ?",
                (target, source),
            )

    def _remove(self, cursor: sqlite3.Cursor, request: Remove) -> bool:
        key = self._tables.key(cursor, request.thread_id)
        if key is None:
            return True
        is_repeated = cursor.execute(
            f"SELECT instr(operations, ?) FROM {self._tables.threads} WHERE key = ?",
            (request.operation, key),
        ).fetchone()[0]
        if is_repeated:
            return True
        if request.epoch not in (None, self._tables.epoch(cursor, key)):
            return False
        self._begin(cursor, request.thread_id, request.operation)
        places = [(key, to_column(ns), to_column(id)) for ns, id in request.checkpoints]
        for table in (self._tables.writes, self._tables.checkpoints):
            cursor.executemany(
                f"DELETE FROM {table} WHERE thread = ? AND checkpoint_ns = ? AND checkpoint_id = ?",
                places,
            )
        cursor.executemany(
            f"UPDATE {self._tables.checkpoints} SET record = ?, parent_id = NULL "
            "WHERE thread = ? AND checkpoint_ns = ? AND checkpoint_id = ? AND record = ?",
            [
                (new, key, to_column(ns), to_column(id), old)
                for ns, id, old, new in request.replaced
            ],
        )
        left = cursor.execute(
            f"SELECT EXISTS (SELECT 1 FROM {self._tables.checkpoints} WHERE thread = ?) "
            f"OR EXISTS (SELECT 1 FROM {self._tables.writes} WHERE thread = ?)",
            (key, key),
        ).fetchone()
        if not left[0]:
            self._drop(cursor, key)
        return True

    def _discard(self, cursor: sqlite3.Cursor, request: Discard) -> bool:
        key = self._tables.key(cursor, request.thread_id)
        if key is None:
            return True
        if self._tables.epoch(cursor, key) != request.epoch:
            return False
        cursor.executemany(
            f"DELETE FROM {self._tables.blobs} WHERE thread = ? AND id = ?",
            [(key, id) for id in request.ids],
        )
        self._vacuum(cursor)
        return True
