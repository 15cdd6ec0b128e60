"""Listings of threads: for people, and for sweeps."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from holdfast.backends.base import (
    Row,
    StoredWrite,
    ThreadRow,
    Threads,
    Visit,
    Visited,
    Weigh,
    manifest_ids,
)
from holdfast.backends.sqlite.reclaim import Reclaimer
from holdfast.backends.sqlite.tables import (
    IS_VISIBLE,
    Column,
    Tables,
    from_column,
    milliseconds,
    minute,
    to_column,
)

_WritesAt = Callable[[sqlite3.Cursor, int, Column, Column], list[StoredWrite]]
_Fetch = Callable[[sqlite3.Cursor, int, Sequence[bytes]], dict[bytes, bytes]]
_UPDATED = "CAST(updated_at * 1000 AS INTEGER)"
# As bytes ids with lone surrogates sort among the others, and none ends at a NUL.
_ID = "CAST(thread_id AS BLOB)"


class Listings:
    """Answers requests on the cursor of an open transaction, at a given time."""

    def __init__(
        self, tables: Tables, reclaimer: Reclaimer, writes_at: _WritesAt, fetch: _Fetch
    ) -> None:
        self._tables = tables
        self._reclaimer = reclaimer
        self._writes_at = writes_at
        self._fetch = fetch
        self.answers: dict[type, Callable[[sqlite3.Cursor, Any, float], Any]] = {
            Threads: self._threads,
            Visit: self._visit,
            Weigh: self._weigh,
        }

    def _threads(self, cursor: sqlite3.Cursor, request: Threads, now: float) -> list[ThreadRow]:
        where = [
            "is_alive = 1",
            IS_VISIBLE,
            f"EXISTS (SELECT 1 FROM {self._tables.checkpoints} WHERE thread = key)",
        ]
        values: list[Any] = [now]
        if request.after is not None:
            updated, thread_id = request.after
            where += ["minute <= ?", f"({_UPDATED}, {_ID}) < (?, ?)"]
            values += (minute(updated), updated, _bytes(thread_id))
        if request.until is not None:
            where += ["minute <= ?", f"{_UPDATED} <= ?"]
            values += (minute(request.until), request.until)
        if request.prefix:
            prefix = _bytes(request.prefix)
            where.append(f"substr({_ID}, 1, ?) = ?")
            values += (len(prefix), prefix)
        rows = cursor.execute(
            "SELECT key, thread_id, epoch, created_at, updated_at, expires_at "
            # The index gives the minutes in order: only the rows of one are sorted at a time.
            f"FROM {self._tables.threads} INDEXED BY {self._tables.threads_by_minute} "
            f"WHERE {' AND '.join(where)} "
            f"ORDER BY minute DESC, {_UPDATED} DESC, {_ID} DESC LIMIT ?",
            (*values, request.limit),
        ).fetchall()
        return [self._thread(cursor, *row) for row in rows]

    def _thread(
        self,
        cursor: sqlite3.Cursor,
        key: int,
        thread_id: Column,
        epoch: int,
        created_at: float,
        updated_at: float,
        expires_at: float | None,
    ) -> ThreadRow:
        checkpoints = self._tables.checkpoints
        counts = cursor.execute(
            f"SELECT checkpoint_ns, count(*) FROM {checkpoints} WHERE thread = ? "
            "GROUP BY checkpoint_ns",
            (key,),
        )
        namespaces = dict(sorted((from_column(ns), count) for ns, count in counts))
        ns = next(iter(namespaces))
        checkpoint_id, record = cursor.execute(
            f"SELECT checkpoint_id, record FROM {checkpoints} "
            "WHERE thread = ? AND checkpoint_ns = ? ORDER BY checkpoint_id DESC LIMIT 1",
            (key, to_column(ns)),
        ).fetchone()
        id = from_column(thread_id)
        writes = self._writes_at(cursor, key, to_column(ns), checkpoint_id)
        chunks = self._fetch(cursor, key, manifest_ids(record))
        return ThreadRow(
            id,
            epoch,
            milliseconds(created_at),
            milliseconds(updated_at),
            None if expires_at is None else milliseconds(expires_at),
            namespaces,
            Row(id, ns, from_column(checkpoint_id), record, writes, chunks),
        )

    def _visit(
        self, cursor: sqlite3.Cursor, request: Visit, now: float
    ) -> tuple[list[Visited], bytes | None]:
        # Keys only grow: a thread that gets another one meanwhile comes later.
        rows = cursor.execute(
            "SELECT key, thread_id, epoch, updated_at, expires_at, is_alive, lease_until "
            f"FROM {self._tables.threads} WHERE key > ? ORDER BY key LIMIT ?",
            (int(request.cursor or b"0"), request.limit),
        ).fetchall()
        self._reclaimer.look(cursor)
        visited = [
            Visited(
                from_column(thread_id),
                epoch if is_alive else 0,
                milliseconds(updated_at),
                is_expired=bool(is_alive) and expires_at is not None and expires_at <= now,
                is_deleted=not is_alive,
                is_leased=lease_until is not None and lease_until > now,
            )
            for _, thread_id, epoch, updated_at, expires_at, is_alive, lease_until in rows
        ]
        return visited, str(rows[-1][0]).encode() if len(rows) == request.limit else None

    def _weigh(self, cursor: sqlite3.Cursor, request: Weigh, _: float) -> tuple[int, int]:
        tables = self._tables
        key = f"(SELECT key FROM {tables.threads} WHERE thread_id = ?)"
        count = size = 0
        for table, column in (
            (tables.writes, "data"),
            (tables.blobs, "data"),
            (tables.checkpoints, "record"),
        ):
            count, total = cursor.execute(
                f"SELECT count(*), coalesce(sum(length({column})), 0) FROM {table} "
                f"WHERE thread = {key}",
                (to_column(request.thread_id),),
            ).fetchone()
            size += total
        return count, size


def _bytes(id: str) -> bytes:
    return id.encode("utf-8", "surrogatepass")
