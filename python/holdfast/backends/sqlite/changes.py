"""Each request that changes something, as SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from holdfast.backends.base import (
    Commit,
    Copy,
    Discard,
    Expire,
    Forget,
    Lease,
    Missing,
    Predecessor,
    Release,
    Remove,
    Write,
)
from holdfast.backends.sqlite.reclaim import Reclaim, Reclaimer
from holdfast.backends.sqlite.tables import Tables, batches, marks, to_column
from holdfast.backends.sqlite.threads import ThreadRows
from holdfast.errors import checkpoint_removed


class Changes:
    """Answers requests on the cursor of a transaction that may write, at a given time."""

    def __init__(self, tables: Tables, threads: ThreadRows, reclaimer: Reclaimer) -> None:
        self._tables = tables
        self._threads = threads
        self._reclaimer = reclaimer
        self.answers: dict[type, Callable[[sqlite3.Cursor, Any, float], Any]] = {
            Commit: self._commit,
            Write: self._write,
            Forget: threads.forget,
            Copy: self._copy,
            Remove: self._remove,
            Discard: self._discard,
            Expire: threads.expire,
            Lease: threads.lease,
            Release: threads.release,
            Reclaim: self._reclaim,
        }

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

    def _commit(self, cursor: sqlite3.Cursor, request: Commit, now: float) -> Missing:
        key = self._threads.begin(
            cursor, request.thread_id, request.operation, now, request.fence, request.follows
        )
        if key is None:
            return []
        for one in request.follows:
            if one.is_needed and not self._tables.has(
                cursor, key, one.checkpoint_ns, one.checkpoint_id
            ):
                raise checkpoint_removed(request.thread_id)
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

    def _write(self, cursor: sqlite3.Cursor, request: Write, now: float) -> Missing:
        place = (request.checkpoint_ns, request.checkpoint_id)
        follows = [Predecessor(*place, request.made, is_parent=False)]
        key = self._threads.begin(
            cursor, request.thread_id, request.operation, now, request.fence, follows
        )
        if key is None:
            return []
        if missing := self._store(cursor, key, request):
            return missing
        ns, checkpoint_id = map(to_column, place)
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

    def _copy(self, cursor: sqlite3.Cursor, request: Copy, now: float) -> None:
        source = self._tables.key(cursor, request.source_thread_id, now)
        if source is None or request.source_thread_id == request.target_thread_id:
            return
        target = self._threads.begin(
            cursor, request.target_thread_id, request.operation, now, request.fence, ()
        )
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

    def _remove(self, cursor: sqlite3.Cursor, request: Remove, now: float) -> bool:
        key = self._tables.key(cursor, request.thread_id, now)
        if key is None or self._threads.remembers(cursor, key, request.operation):
            return True
        if request.epoch not in (None, self._tables.epoch(cursor, key)):
            return False
        self._threads.note(cursor, key, request.operation)
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
            self._threads.end(cursor, request.thread_id, now)
        return True

    def _discard(self, cursor: sqlite3.Cursor, request: Discard, now: float) -> bool:
        key = self._tables.key(cursor, request.thread_id, now)
        if key is None:
            return True
        if self._tables.epoch(cursor, key) != request.epoch:
            return False
        cursor.executemany(
            f"DELETE FROM {self._tables.blobs} WHERE thread = ? AND id = ?",
            [(key, id) for id in request.ids],
        )
        self._reclaimer.vacuum(cursor)
        return True

    def _reclaim(self, cursor: sqlite3.Cursor, _: Reclaim, __: float) -> None:
        self._reclaimer.reclaim(cursor)
