"""Each request as SQL for SQLite, within a transaction that the caller has opened."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from holdfast._core import references
from holdfast.backends.base import (
    OPERATION_ID_BYTES,
    Ancestors,
    Census,
    ChunkIds,
    Chunks,
    Commit,
    Copy,
    Discard,
    Forget,
    GetRecord,
    Head,
    Mark,
    Missing,
    Page,
    Remove,
    Row,
    RunThreads,
    StoredWrite,
    Write,
    WritesOf,
    follow,
)

LAYOUT = 1
# Below the least limit on variables that builds of SQLite have (999).
_MANY = 500
# Operations that a thread remembers. Requests are answered in this process, where no
# reply is lost: few can ever be repeated.
_OPERATIONS = 32
_VACUUM_PAGES = 512

_Id = str | bytes


def to_column(id: str) -> _Id:
    """An id as a column holds it: text, or bytes where it has lone surrogates."""
    try:
        id.encode()
    except UnicodeEncodeError:
        return id.encode("utf-8", "surrogatepass")
    return id


def from_column(value: _Id) -> str:
    """The id that was given to `to_column`."""
    return value if isinstance(value, str) else value.decode("utf-8", "surrogatepass")


class Requests:
    """Answers requests on a cursor, for tables of one prefix."""

    def __init__(self, table: str) -> None:
        def name(suffix: str) -> str:
            return '"' + f"{table}_{suffix}".replace('"', '""') + '"'

        self.threads = name("threads")
        self.checkpoints = name("checkpoints")
        self.writes = name("writes")
        self.blobs = name("blobs")
        self.blob_ids = name("blob_ids")
        self.runs = name("runs")
        self.runs_of = name("runs_of_thread")
        self.layout = name("layout")
        self._can_return = sqlite3.sqlite_version_info >= (3, 35)
        self.reads: dict[type, Callable[[sqlite3.Cursor, Any], Any]] = {
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
        }
        self.changes: dict[type, Callable[[sqlite3.Cursor, Any], Any]] = {
            Commit: self._commit,
            Write: self._write,
            Forget: self._forget,
            Copy: self._copy,
            Remove: self._remove,
            Discard: self._discard,
        }

    # --- tables ---

    def create(self, cursor: sqlite3.Cursor) -> None:
        """Create the tables that are missing, and note their layout."""
        for statement in (
            f"CREATE TABLE IF NOT EXISTS {self.layout} (version INTEGER NOT NULL)",
            # AUTOINCREMENT: the key of a removed thread must not name the next one.
            f"CREATE TABLE IF NOT EXISTS {self.threads} (key INTEGER PRIMARY KEY AUTOINCREMENT, "
            "thread_id NOT NULL UNIQUE, epoch INTEGER NOT NULL, created_at REAL NOT NULL, "
            "updated_at REAL NOT NULL, operations BLOB NOT NULL)",
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
        ):
            cursor.execute(statement)
        if self.stored_layout(cursor) is None:
            cursor.execute(f"INSERT INTO {self.layout} VALUES (?)", (LAYOUT,))

    def stored_layout(self, cursor: sqlite3.Cursor) -> int | None:
        """The layout of the tables; None where there are none."""
        if not cursor.execute(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?",
            (self.layout[1:-1].replace('""', '"'),),
        ).fetchone():
            return None
        row = cursor.execute(f"SELECT max(version) FROM {self.layout}").fetchone()
        return row[0] if row else None

    def _key(self, cursor: sqlite3.Cursor, thread_id: str) -> int | None:
        row = cursor.execute(
            f"SELECT key FROM {self.threads} WHERE thread_id = ?", (to_column(thread_id),)
        ).fetchone()
        return row[0] if row else None

    # --- reading ---

    def _head(self, cursor: sqlite3.Cursor, request: Head) -> Row | None:
        key = self._key(cursor, request.thread_id)
        if key is None:
            return None
        ns = to_column(request.checkpoint_ns)
        if request.checkpoint_id is None:
            row = cursor.execute(
                f"SELECT checkpoint_id, record FROM {self.checkpoints} "
                "WHERE thread = ? AND checkpoint_ns = ? ORDER BY checkpoint_id DESC LIMIT 1",
                (key, ns),
            ).fetchone()
        else:
            row = cursor.execute(
                f"SELECT checkpoint_id, record FROM {self.checkpoints} "
                "WHERE thread = ? AND checkpoint_ns = ? AND checkpoint_id = ?",
                (key, ns, to_column(request.checkpoint_id)),
            ).fetchone()
        if row is None:
            return None
        checkpoint_id, record = row
        writes = self._writes_at(cursor, key, ns, checkpoint_id)
        stored = [record, *(write.data for write in writes)]
        chunks = follow(stored, request.lacking, lambda ids: self._fetch(cursor, key, ids))
        return Row(
            request.thread_id,
            request.checkpoint_ns,
            from_column(checkpoint_id),
            record,
            writes,
            chunks,
        )

    def _writes_at(
        self, cursor: sqlite3.Cursor, key: int, ns: _Id, checkpoint_id: _Id
    ) -> list[StoredWrite]:
        rows = cursor.execute(
            f"SELECT task_id, idx, data FROM {self.writes} "
            "WHERE thread = ? AND checkpoint_ns = ? AND checkpoint_id = ?",
            (key, ns, checkpoint_id),
        )
        return [StoredWrite(from_column(task_id), idx, data) for task_id, idx, data in rows]

    def _fetch(self, cursor: sqlite3.Cursor, key: int, ids: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for some in _batches(ids):
            found.update(
                cursor.execute(
                    f"SELECT id, data FROM {self.blobs} "
                    f"WHERE thread = ? AND id IN ({_marks(some)})",
                    (key, *some),
                )
            )
        return found

    def _get_record(self, cursor: sqlite3.Cursor, request: GetRecord) -> bytes | None:
        row = cursor.execute(
            f"SELECT record FROM {self.checkpoints} "
            "WHERE thread = ? AND checkpoint_ns = ? AND checkpoint_id = ?",
            (
                self._key(cursor, request.thread_id),
                to_column(request.checkpoint_ns),
                to_column(request.checkpoint_id),
            ),
        ).fetchone()
        return row[0] if row else None

    def _chunks(self, cursor: sqlite3.Cursor, request: Chunks) -> dict[bytes, bytes]:
        key = self._key(cursor, request.thread_id)
        if key is None:
            return {}

        def fetch(ids: Sequence[bytes]) -> dict[bytes, bytes]:
            return self._fetch(cursor, key, ids)

        found = fetch(request.ids)
        return found | follow(found.values(), request.lacking, fetch)

    def _writes_of(
        self, cursor: sqlite3.Cursor, request: WritesOf
    ) -> dict[tuple[str, str], list[StoredWrite]]:
        key = self._key(cursor, request.thread_id)
        if key is None:
            return {place: [] for place in request.places}
        return {
            (ns, id): self._writes_at(cursor, key, to_column(ns), to_column(id))
            for ns, id in request.places
        }

    def _page(self, cursor: sqlite3.Cursor, request: Page) -> list[Row]:
        where = ["1"]
        values: list[Any] = []
        if request.thread_id is not None:
            where.append("c.thread = ?")
            values.append(self._key(cursor, request.thread_id))
        if request.checkpoint_ns is not None:
            where.append("c.checkpoint_ns = ?")
            values.append(to_column(request.checkpoint_ns))
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
        rows = cursor.execute(
            "SELECT c.thread, t.thread_id, c.checkpoint_ns, c.checkpoint_id, c.record "
            f"FROM {self.checkpoints} c JOIN {self.threads} t ON t.key = c.thread "
            f"WHERE {' AND '.join(where)} "
            "ORDER BY c.checkpoint_id DESC, t.thread_id DESC, c.checkpoint_ns DESC LIMIT ?",
            (*values, request.limit),
        ).fetchall()
        return [
            Row(
                from_column(thread_id),
                from_column(ns),
                from_column(id),
                record,
                self._writes_at(cursor, key, ns, id),
            )
            for key, thread_id, ns, id, record in rows
        ]

    def _ancestors(self, cursor: sqlite3.Cursor, request: Ancestors) -> list[Row]:
        key = self._key(cursor, request.thread_id)
        ns = to_column(request.checkpoint_ns)
        start = None if request.checkpoint_id is None else to_column(request.checkpoint_id)
        rows = cursor.execute(
            "WITH RECURSIVE line (id, depth) AS ("
            f"  SELECT coalesce(?, (SELECT max(checkpoint_id) FROM {self.checkpoints} "
            "     WHERE thread = ? AND checkpoint_ns = ?)), 0"
            f"  UNION ALL SELECT c.parent_id, depth + 1 FROM line JOIN {self.checkpoints} c "
            "     ON c.thread = ? AND c.checkpoint_ns = ? AND c.checkpoint_id = line.id "
            "     WHERE c.parent_id IS NOT NULL"
            "  LIMIT ?) "
            f"SELECT c.checkpoint_id, c.record FROM line JOIN {self.checkpoints} c "
            "ON c.thread = ? AND c.checkpoint_ns = ? AND c.checkpoint_id = line.id ORDER BY depth",
            (start, key, ns, key, ns, request.limit, key, ns),
        ).fetchall()
        return [
            Row(
                request.thread_id,
                request.checkpoint_ns,
                from_column(id),
                record,
                [] if key is None else self._writes_at(cursor, key, ns, id),
            )
            for id, record in rows
        ]

    def _run_threads(self, cursor: sqlite3.Cursor, request: RunThreads) -> list[str]:
        found: set[str] = set()
        for some in _batches(request.run_ids):
            rows = cursor.execute(
                f"SELECT t.thread_id FROM {self.runs} r JOIN {self.threads} t ON t.key = r.thread "
                f"WHERE r.run_id IN ({_marks(some)})",
                [to_column(run_id) for run_id in some],
            )
            found.update(from_column(thread_id) for (thread_id,) in rows)
        return sorted(found)

    def _epoch(self, cursor: sqlite3.Cursor, key: int | None) -> int:
        row = cursor.execute(f"SELECT epoch FROM {self.threads} WHERE key = ?", (key,)).fetchone()
        return row[0] if row else 0

    def _census(self, cursor: sqlite3.Cursor, request: Census) -> tuple[int, list[Row]]:
        key = self._key(cursor, request.thread_id)
        rows = cursor.execute(
            f"SELECT checkpoint_ns, checkpoint_id, record FROM {self.checkpoints} WHERE thread = ?",
            (key,),
        ).fetchall()
        return self._epoch(cursor, key), [
            Row(request.thread_id, from_column(ns), from_column(id), record)
            for ns, id, record in rows
        ]

    def _mark(self, cursor: sqlite3.Cursor, request: Mark) -> tuple[int, set[tuple[int, bytes]]]:
        key = self._key(cursor, request.thread_id)
        marked: set[tuple[int, bytes]] = set()
        for table, column in ((self.checkpoints, "record"), (self.writes, "data")):
            rows = cursor.execute(f"SELECT {column} FROM {table} WHERE thread = ?", (key,))
            for (data,) in rows:
                marked.update(references(data)[1])
        return self._epoch(cursor, key), marked

    def _chunk_ids(self, cursor: sqlite3.Cursor, request: ChunkIds) -> list[tuple[bytes, int]]:
        # The first bytes of a stored chunk tell its level; a leaf's own may stand there.
        rows = cursor.execute(
            f"SELECT id, data FROM {self.blobs} WHERE thread = ? AND id > ? ORDER BY id LIMIT ?",
            (self._key(cursor, request.thread_id), request.after, request.limit),
        )
        return [(id, references(data)[0]) for id, data in rows]

    # --- changing ---

    def _begin(self, cursor: sqlite3.Cursor, thread_id: str, operation: bytes) -> int | None:
        """The thread's key, its epoch raised; None where the operation was done before."""
        id = to_column(thread_id)
        now = time.time()
        kept = -_OPERATIONS * OPERATION_ID_BYTES
        update = (
            f"UPDATE {self.threads} SET epoch = epoch + 1, updated_at = ?, "
            "operations = CAST(substr(operations || ?, ?) AS BLOB) "
            "WHERE thread_id = ? AND NOT instr(operations, ?)"
        )
        values = (now, operation, kept, id, operation)
        key: int | None = None
        if self._can_return:
            row = cursor.execute(f"{update} RETURNING key", values).fetchone()
            key = row[0] if row else None
        elif cursor.execute(update, values).rowcount:
            key = self._key(cursor, thread_id)
        if key is None and self._key(cursor, thread_id) is None:
            cursor.execute(
                f"INSERT INTO {self.threads} "
                "(thread_id, epoch, created_at, updated_at, operations) VALUES (?, 1, ?, ?, ?)",
                (id, now, now, operation),
            )
            key = cursor.lastrowid
        return key

    def _store(self, cursor: sqlite3.Cursor, key: int, request: Commit | Write) -> Missing:
        """Insert chunks and verify the frontier."""
        if request.chunks:
            cursor.executemany(
                f"INSERT OR IGNORE INTO {self.blobs} (thread, id, data) VALUES (?, ?, ?)",
                [(key, id, data) for id, data in request.chunks],
            )
        missing: Missing = []
        for some in _batches(request.frontier):
            rows = cursor.execute(
                f"SELECT id FROM {self.blobs} WHERE thread = ? AND id IN ({_marks(some)})",
                (key, *some),
            )
            found = {id for (id,) in rows}
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
            f"INSERT OR REPLACE INTO {self.checkpoints} VALUES (?, ?, ?, ?, ?)",
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
                f"INSERT OR IGNORE INTO {self.runs} VALUES (?, ?)",
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
                    f"INSERT OR {verb} INTO {self.writes} VALUES (?, ?, ?, ?, ?, ?)", rows
                )
        return []

    def _forget(self, cursor: sqlite3.Cursor, request: Forget) -> None:
        key = self._key(cursor, request.thread_id)
        if key is not None:
            self._drop(cursor, key)

    def _drop(self, cursor: sqlite3.Cursor, key: int) -> None:
        for table in (self.checkpoints, self.writes, self.blobs, self.runs):
            cursor.execute(f"DELETE FROM {table} WHERE thread = ?", (key,))
        cursor.execute(f"DELETE FROM {self.threads} WHERE key = ?", (key,))
        self._vacuum(cursor)

    def _vacuum(self, cursor: sqlite3.Cursor) -> None:
        """Give some free pages back to the file system."""
        cursor.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()

    def _copy(self, cursor: sqlite3.Cursor, request: Copy) -> None:
        source = self._key(cursor, request.source_thread_id)
        if source is None or request.source_thread_id == request.target_thread_id:
            return
        target = self._begin(cursor, request.target_thread_id, request.operation)
        if target is None:
            return
        for table, verb, columns in (
            (self.blobs, "IGNORE", "id, data"),
            (self.checkpoints, "REPLACE", "checkpoint_ns, checkpoint_id, parent_id, record"),
            (self.writes, "REPLACE", "checkpoint_ns, checkpoint_id, task_id, idx, data"),
            (self.runs, "IGNORE", "run_id"),
        ):
            cursor.execute(
                f"INSERT OR {verb} INTO {table} (thread, {columns}) "
                f"SELECT ?, {columns} FROM {table} WHERE thread = ?",
                (target, source),
            )

    def _remove(self, cursor: sqlite3.Cursor, request: Remove) -> bool:
        key = self._key(cursor, request.thread_id)
        if key is None:
            return True
        if request.epoch is not None and request.epoch != self._epoch(cursor, key):
            return False
        if self._begin(cursor, request.thread_id, request.operation) is None:
            return True
        places = [(key, to_column(ns), to_column(id)) for ns, id in request.checkpoints]
        for table in (self.writes, self.checkpoints):
            cursor.executemany(
                f"DELETE FROM {table} WHERE thread = ? AND checkpoint_ns = ? AND checkpoint_id = ?",
                places,
            )
        cursor.executemany(
            f"UPDATE {self.checkpoints} SET record = ?, parent_id = NULL "
            "WHERE thread = ? AND checkpoint_ns = ? AND checkpoint_id = ? AND record = ?",
            [
                (new, key, to_column(ns), to_column(id), old)
                for ns, id, old, new in request.replaced
            ],
        )
        left = cursor.execute(
            f"SELECT EXISTS (SELECT 1 FROM {self.checkpoints} WHERE thread = ?) "
            f"OR EXISTS (SELECT 1 FROM {self.writes} WHERE thread = ?)",
            (key, key),
        ).fetchone()
        if not left[0]:
            self._drop(cursor, key)
        return True

    def _discard(self, cursor: sqlite3.Cursor, request: Discard) -> bool:
        key = self._key(cursor, request.thread_id)
        if key is None:
            return True
        if self._epoch(cursor, key) != request.epoch:
            return False
        cursor.executemany(
            f"DELETE FROM {self.blobs} WHERE thread = ? AND id = ?",
            [(key, id) for id in request.ids],
        )
        self._vacuum(cursor)
        return True


def _batches(ids: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (ids[start : start + _MANY] for start in range(0, len(ids), _MANY))


def _marks(some: Sequence[Any]) -> str:
    return ",".join("?" * len(some))
