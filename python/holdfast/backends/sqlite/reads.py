"""Each request that reads, as SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from holdfast._core import level, references
from holdfast.backends.base import (
    Ancestors,
    Census,
    Check,
    ChunkIds,
    Chunks,
    Finding,
    GetRecord,
    Head,
    Mark,
    Page,
    Row,
    RunThreads,
    StoredWrite,
    WritesOf,
    follow,
)
from holdfast.backends.sqlite.tables import (
    IS_VISIBLE,
    Column,
    Tables,
    batches,
    from_column,
    marks,
    to_column,
)

# SQLite's number for synchronous=FULL.
_FULL = 2


class Reads:
    """Answers requests on the cursor of an open transaction, at a given time."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.answers: dict[type, Callable[[sqlite3.Cursor, Any, float], Any]] = {
            Head: self._head,
            GetRecord: self._get_record,
            Chunks: self._chunks,
            WritesOf: self._writes_of,
            Page: self._page,
            Ancestors: self._ancestors,
            RunThreads: self._run_threads,
            Census: self._census,
            Mark: self._mark,
            ChunkIds: self._chunk_ids,
            Check: self._check,
        }

    def _head(self, cursor: sqlite3.Cursor, request: Head, now: float) -> Row | None:
        ns = to_column(request.checkpoint_ns)
        values = [to_column(request.thread_id), now, ns]
        if request.checkpoint_id is None:
            which = "ORDER BY c.checkpoint_id DESC LIMIT 1"
        else:
            which = "AND c.checkpoint_id = ?"
            values.append(to_column(request.checkpoint_id))
        row = cursor.execute(
            f"SELECT t.key, c.checkpoint_id, c.record FROM {self._tables.threads} t "
            f"CROSS JOIN {self._tables.checkpoints} c ON c.thread = t.key "
            f"WHERE t.thread_id = ? AND {IS_VISIBLE} AND c.checkpoint_ns = ? {which}",
            values,
        ).fetchone()
        if row is None:
            return None
        key, checkpoint_id, record = row
        writes = self.writes_at(cursor, key, ns, checkpoint_id)
        stored = [record, *(write.data for write in writes)]
        chunks = follow(stored, request.lacking, lambda ids: self.fetch(cursor, key, ids))
        return Row(
            request.thread_id,
            request.checkpoint_ns,
            from_column(checkpoint_id),
            record,
            writes,
            chunks,
        )

    def writes_at(
        self, cursor: sqlite3.Cursor, key: int, ns: Column, checkpoint_id: Column
    ) -> list[StoredWrite]:
        """The pending writes of one checkpoint."""
        rows = cursor.execute(
            f"SELECT task_id, idx, data FROM {self._tables.writes} "
            "WHERE thread = ? AND checkpoint_ns = ? AND checkpoint_id = ?",
            # Text may come as bytes from a given connection, and must not be bound as such.
            (key, to_column(from_column(ns)), to_column(from_column(checkpoint_id))),
        )
        return [StoredWrite(from_column(task_id), idx, data) for task_id, idx, data in rows]

    def fetch(self, cursor: sqlite3.Cursor, key: int, ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """Those of these chunks of a thread that there are."""
        found: dict[bytes, bytes] = {}
        for some in batches(ids):
            found.update(
                cursor.execute(
                    f"SELECT id, data FROM {self._tables.blobs} "
                    f"WHERE thread = ? AND id IN ({marks(some)})",
                    (key, *some),
                )
            )
        return found

    def _get_record(self, cursor: sqlite3.Cursor, request: GetRecord, now: float) -> bytes | None:
        row = cursor.execute(
            f"SELECT record FROM {self._tables.checkpoints} "
            "WHERE thread = ? AND checkpoint_ns = ? AND checkpoint_id = ?",
            (
                self._tables.key(cursor, request.thread_id, now),
                to_column(request.checkpoint_ns),
                to_column(request.checkpoint_id),
            ),
        ).fetchone()
        return row[0] if row else None

    def _chunks(self, cursor: sqlite3.Cursor, request: Chunks, now: float) -> dict[bytes, bytes]:
        key = self._tables.key(cursor, request.thread_id, now)
        if key is None:
            return {}

        def fetch(ids: Sequence[bytes]) -> dict[bytes, bytes]:
            return self.fetch(cursor, key, ids)

        found = fetch(request.ids)
        if request.lacking is not None:
            found |= follow(found.values(), request.lacking, fetch)
        return found

    def _writes_of(
        self, cursor: sqlite3.Cursor, request: WritesOf, now: float
    ) -> dict[tuple[str, str], list[StoredWrite]]:
        key = self._tables.key(cursor, request.thread_id, now)
        if key is None:
            return {place: [] for place in request.places}
        return {
            (ns, id): self.writes_at(cursor, key, to_column(ns), to_column(id))
            for ns, id in request.places
        }

    def _page(self, cursor: sqlite3.Cursor, request: Page, now: float) -> list[Row]:
        found = self._records(cursor, request, now)
        writes = self._writes_of_page(cursor, found)
        return [
            Row(thread_id, ns, id, record, writes.get((key, ns, id), []))
            for key, thread_id, ns, id, record in found
        ]

    def _records(
        self, cursor: sqlite3.Cursor, request: Page, now: float
    ) -> list[tuple[int, str, str, str, bytes]]:
        """The records of a page, with the keys of their threads."""
        where = [IS_VISIBLE]
        values: list[Any] = [now]
        ns = None if request.checkpoint_ns is None else to_column(request.checkpoint_ns)
        if request.thread_id is not None:
            key = self._tables.key(cursor, request.thread_id, now)
            if ns is None:
                ns = self._only_namespace(cursor, key)
            where.append("c.thread = ?")
            values.append(key)
        if ns is not None:
            where.append("c.checkpoint_ns = ?")
            values.append(ns)
        if request.checkpoint_id is not None:
            where.append("c.checkpoint_id = ?")
            values.append(to_column(request.checkpoint_id))
        if request.before is not None:
            where.append("c.checkpoint_id < ?")
            values.append(to_column(request.before))
        if request.cursor is not None:
            after = request.cursor
            where.append("(c.checkpoint_id, t.thread_id, c.checkpoint_ns) < (?, ?, ?)")
            values += map(to_column, (after.checkpoint_id, after.thread_id, after.checkpoint_ns))
        checkpoints = self._tables.checkpoints
        order = "ORDER BY checkpoint_id DESC, thread_id DESC, checkpoint_ns DESC"

        def select(column: str) -> str:
            return (
                f"SELECT c.thread, t.thread_id, c.checkpoint_ns, c.checkpoint_id, c.{column} "
                f"FROM {checkpoints} c JOIN {self._tables.threads} t ON t.key = c.thread "
                f"WHERE {' AND '.join(where)} {order} LIMIT ?"
            )

        if request.thread_id is not None and ns is not None:
            # The index has them in this order.
            query = select("record")
        else:
            # What is sorted is sorted without the records: the index alone is read for it.
            query = (
                "SELECT p.thread, thread_id, p.checkpoint_ns, p.checkpoint_id, c.record "
                f"FROM ({select('rowid')}) p CROSS JOIN {checkpoints} c ON c.rowid = p.rowid "
                "ORDER BY p.checkpoint_id DESC, thread_id DESC, p.checkpoint_ns DESC"
            )
        rows = cursor.execute(query, (*values, request.limit))
        return [
            (key, from_column(thread_id), from_column(ns), from_column(id), record)
            for key, thread_id, ns, id, record in rows
        ]

    def _only_namespace(self, cursor: sqlite3.Cursor, key: int | None) -> Column | None:
        """The namespace of a thread that has one alone."""
        some = f"checkpoint_ns) FROM {self._tables.checkpoints} WHERE thread = ?"
        least, greatest = cursor.execute(
            f"SELECT (SELECT min({some}), (SELECT max({some})", (key, key)
        ).fetchone()
        # Text may come as bytes from a given connection, and must not be bound as such.
        return to_column(from_column(least)) if least == greatest and least is not None else None

    def _writes_of_page(
        self, cursor: sqlite3.Cursor, page: Sequence[tuple[int, str, str, str, bytes]]
    ) -> dict[tuple[int, str, str], list[StoredWrite]]:
        """The pending writes of a page, by the thread's key, the namespace and the id. The page has
        all of a namespace between its greatest id there and its least: one query for each."""
        bounds: dict[tuple[int, str], tuple[str, str]] = {}
        for key, _, ns, id, _ in page:
            greatest, _ = bounds.get((key, ns), (id, id))
            bounds[key, ns] = greatest, id
        found: dict[tuple[int, str, str], list[StoredWrite]] = {}
        for (key, ns), (greatest, least) in bounds.items():
            rows = cursor.execute(
                f"SELECT checkpoint_id, task_id, idx, data FROM {self._tables.writes} "
                "WHERE thread = ? AND checkpoint_ns = ? AND checkpoint_id BETWEEN ? AND ?",
                (key, to_column(ns), to_column(least), to_column(greatest)),
            )
            for id, task_id, idx, data in rows:
                write = StoredWrite(from_column(task_id), idx, data)
                found.setdefault((key, ns, from_column(id)), []).append(write)
        return found

    def _ancestors(self, cursor: sqlite3.Cursor, request: Ancestors, now: float) -> list[Row]:
        key = self._tables.key(cursor, request.thread_id, now)
        ns = to_column(request.checkpoint_ns)
        start = None if request.checkpoint_id is None else to_column(request.checkpoint_id)
        checkpoints = self._tables.checkpoints
        rows = cursor.execute(
            "WITH RECURSIVE line (id, depth) AS ("
            f"  SELECT coalesce(?, (SELECT max(checkpoint_id) FROM {checkpoints} "
            "     WHERE thread = ? AND checkpoint_ns = ?)), 0"
            f"  UNION ALL SELECT c.parent_id, depth + 1 FROM line JOIN {checkpoints} c "
            "     ON c.thread = ? AND c.checkpoint_ns = ? AND c.checkpoint_id = line.id "
            "     WHERE c.parent_id IS NOT NULL"
            "  LIMIT ?) "
            f"SELECT c.checkpoint_id, c.record FROM line JOIN {checkpoints} c "
            "ON c.thread = ? AND c.checkpoint_ns = ? AND c.checkpoint_id = line.id ORDER BY depth",
            (start, key, ns, key, ns, request.limit, key, ns),
        ).fetchall()
        return [
            Row(
                request.thread_id,
                request.checkpoint_ns,
                from_column(id),
                record,
                [] if key is None else self.writes_at(cursor, key, ns, id),
            )
            for id, record in rows
        ]

    def _run_threads(self, cursor: sqlite3.Cursor, request: RunThreads, now: float) -> list[str]:
        found: set[str] = set()
        for some in batches(request.run_ids):
            rows = cursor.execute(
                f"SELECT t.thread_id FROM {self._tables.runs} r "
                f"JOIN {self._tables.threads} t ON t.key = r.thread "
                f"WHERE r.run_id IN ({marks(some)}) AND {IS_VISIBLE}",
                [*map(to_column, some), now],
            )
            found.update(from_column(thread_id) for (thread_id,) in rows)
        return sorted(found)

    def _census(
        self, cursor: sqlite3.Cursor, request: Census, now: float
    ) -> tuple[int, list[Row], list[tuple[str, str]]]:
        key = self._tables.key(cursor, request.thread_id, now)
        rows = cursor.execute(
            "SELECT checkpoint_ns, checkpoint_id, record "
            f"FROM {self._tables.checkpoints} WHERE thread = ?",
            (key,),
        ).fetchall()
        orphans = cursor.execute(
            f"SELECT DISTINCT checkpoint_ns, checkpoint_id FROM {self._tables.writes} "
            f"WHERE thread = ? EXCEPT SELECT checkpoint_ns, checkpoint_id "
            f"FROM {self._tables.checkpoints} WHERE thread = ?",
            (key, key),
        ).fetchall()
        return (
            self._tables.epoch(cursor, key),
            [
                Row(request.thread_id, from_column(ns), from_column(id), record)
                for ns, id, record in rows
            ],
            [(from_column(ns), from_column(id)) for ns, id in orphans],
        )

    def _mark(
        self, cursor: sqlite3.Cursor, request: Mark, now: float
    ) -> tuple[int, set[tuple[int, bytes]]]:
        key = self._tables.key(cursor, request.thread_id, now)
        marked: set[tuple[int, bytes]] = set()
        for table, column in ((self._tables.checkpoints, "record"), (self._tables.writes, "data")):
            rows = cursor.execute(f"SELECT {column} FROM {table} WHERE thread = ?", (key,))
            for (data,) in rows:
                marked.update(references(data)[1])
        return self._tables.epoch(cursor, key), marked

    def _chunk_ids(
        self, cursor: sqlite3.Cursor, request: ChunkIds, now: float
    ) -> tuple[list[tuple[bytes, int, int]], bytes | None]:
        key = self._tables.key(cursor, request.thread_id, now)
        rows = cursor.execute(
            f"SELECT id, coalesce(substr(data, 1, 2), x''), length(data) FROM {self._tables.blobs} "
            "WHERE thread = ? AND id > ? ORDER BY id LIMIT ?",
            (key, request.cursor or b"", request.limit),
        )
        page = [(id, level(start), size) for id, start, size in rows]
        return page, page[-1][0] if len(page) == request.limit else None

    def _check(self, cursor: sqlite3.Cursor, _: Check, __: float) -> list[Finding]:
        def pragma(name: str) -> Any:
            return cursor.execute(f"PRAGMA {name}").fetchone()[0]

        found = pragma("quick_check(1)")
        is_flushed = pragma("synchronous") >= _FULL
        return [
            Finding(
                "integrity",
                found == "ok",
                found,
                "" if found == "ok" else "Run sqlite3's .recover on a copy, or restore a backup.",
            ),
            Finding(
                "persistence",
                True,
                "each commit is flushed to the disk"
                if is_flushed
                else "a crash of the machine may cost the last commits",
                "" if is_flushed else 'Open it with synchronous="full" where they matter.',
            ),
        ]
