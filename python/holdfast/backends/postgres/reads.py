"""Each request that only reads, as statements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from holdfast._core import json, level, references
from holdfast.backends.base import (
    Ancestors,
    Census,
    ChunkIds,
    Chunks,
    GetRecord,
    Head,
    Mark,
    Page,
    Row,
    RunThreads,
    WritesOf,
)
from holdfast.backends.last_records import LastRecords
from holdfast.backends.postgres.columns import ByteArrays, Texts, from_column, to_column
from holdfast.backends.postgres.pending import Entry, folded
from holdfast.backends.postgres.statement import Statement, Trips
from holdfast.backends.postgres.statements import Statements

Reply = Trips[Any]
_LONGEST_FILTER = 1024
# Whether the thread of a checkpoint has not expired: of the one that is asked for, of each of a few
# checkpoints, and of all.
_LIVES_ONE = "EXISTS (SELECT FROM {threads} WHERE thread_id = $1 AND {unexpired})"
_LIVES = (
    "(SELECT expires_at <= statement_timestamp() FROM {threads} "
    "WHERE {threads}.thread_id = c.thread_id) IS NOT TRUE"
)
_LIVES_OF_MANY = (
    "NOT EXISTS (SELECT FROM {threads} AS t "
    "WHERE t.thread_id = c.thread_id AND t.expires_at <= statement_timestamp())"
)
# Above, the shortest decimals of a float may be another whole number than it is.
_LARGEST_EXACT = 1 << 53


class Reads:
    """Answers requests.

    Args:
        statements: On the tables.
        last: What the caller most probably has.
        ttl: Seconds after a read at which a thread that expires does so; None where reads do not
            count for that.
    """

    def __init__(self, statements: Statements, last: LastRecords, ttl: float | None) -> None:
        self._statements = statements
        self._last = last
        self._ttl = ttl
        filled = statements.filled
        self._record = filled(
            "SELECT record FROM {checkpoints} "
            "WHERE thread_id = $1 AND checkpoint_ns = $2 AND checkpoint_id = $3 AND EXISTS ("
            "SELECT FROM {threads} WHERE thread_id = $1 AND {unexpired})"
        )
        # A look at the index for each: the planner would read all threads.
        self._runs = filled(
            "SELECT thread_id FROM ("
            "SELECT DISTINCT thread_id FROM {checkpoints} WHERE run_id = ANY ($1::text[]) OFFSET 0"
            ") AS c WHERE " + _LIVES + " ORDER BY thread_id"
        )
        self._these = filled(
            "SELECT id, data FROM {blobs} "
            "WHERE thread = (SELECT key FROM {threads} WHERE thread_id = $1 AND {unexpired}) "
            "AND id = ANY ($2::bytea[])"
        )
        self._ids = filled(
            "SELECT id, substring(data FOR 2), length(data) FROM {blobs} "
            "WHERE thread = (SELECT key FROM {threads} WHERE thread_id = $1 AND {unexpired}) "
            "AND id > $2::bytea ORDER BY id LIMIT $3"
        )
        self.answers: dict[type, Callable[[Any], Reply]] = {
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

    def _head(self, request: Head) -> Reply:
        thread_id, ns = request.thread_id, request.checkpoint_ns
        known = self._last.known(thread_id, ns, request.lacking)
        id = None if request.checkpoint_id is None else to_column(request.checkpoint_id)
        values = (to_column(thread_id), to_column(ns), id, ByteArrays(known))
        *_, rows = yield self._touching(thread_id, Statement(self._statements.head, values))
        found: tuple[str, bytes] | None = None
        log: list[Entry] = []
        chunks: dict[bytes, bytes] = {}
        for kind, number, name, idx, id, data in rows:
            if kind == "record":
                found = from_column(name), data
            elif kind == "write":
                log.append((number, name, idx, data))
            elif data is not None:
                chunks[id] = data
        if found is None:
            return None
        if request.checkpoint_id is None:
            self._last.note(thread_id, ns, found[1])
        return Row(thread_id, ns, *found, folded(log), chunks)

    def _get_record(self, request: GetRecord) -> Reply:
        (rows,) = yield [
            Statement(
                self._record,
                (
                    to_column(request.thread_id),
                    to_column(request.checkpoint_ns),
                    to_column(request.checkpoint_id),
                ),
            )
        ]
        return rows[0][0] if rows else None

    def _chunks(self, request: Chunks) -> Reply:
        statement = self._these if request.lacking is None else self._statements.chunks
        values = (to_column(request.thread_id), ByteArrays(request.ids))
        (rows,) = yield [Statement(statement, values)]
        return {id: data for id, data in rows if data is not None}

    def _writes_of(self, request: WritesOf) -> Reply:
        spaces = Texts(to_column(ns) for ns, _ in request.places)
        ids = Texts(to_column(id) for _, id in request.places)
        (rows,) = yield [
            Statement(self._statements.writes_of, (to_column(request.thread_id), spaces, ids))
        ]
        logs: dict[tuple[str, str], list[Entry]] = {place: [] for place in request.places}
        for ns, id, *entry in rows:
            logs[from_column(ns), from_column(id)].append(tuple(entry))
        return {place: folded(log) for place, log in logs.items()}

    def _page(self, request: Page) -> Reply:
        conditions, values = _conditions(request)
        statement = Statement(
            self._statements.page(conditions, f"${len(values) + 1}"), (*values, request.limit)
        )
        *_, rows = yield self._touching(request.thread_id, statement)
        logs: dict[tuple[str, str, str], list[Entry]] = {}
        records: dict[tuple[str, str, str], bytes] = {}
        for kind, thread_id, ns, id, number, task_id, idx, data in rows:
            key = (from_column(id), from_column(thread_id), from_column(ns))
            if kind == "record":
                records[key] = data
            else:
                logs.setdefault(key, []).append((number, task_id, idx, data))
        return [
            Row(thread_id, ns, id, records[key], folded(logs.get(key, ())))
            for key in sorted(records, reverse=True)
            for id, thread_id, ns in [key]
        ]

    def _ancestors(self, request: Ancestors) -> Reply:
        id = None if request.checkpoint_id is None else to_column(request.checkpoint_id)
        thread_id, ns = request.thread_id, request.checkpoint_ns
        values = (to_column(thread_id), to_column(ns), id, request.limit)
        *_, rows = yield self._touching(thread_id, Statement(self._statements.ancestors, values))
        line: dict[int, tuple[str, bytes]] = {}
        logs: dict[int, list[Entry]] = {}
        for kind, depth, number, name, idx, data in rows:
            if kind == "record":
                line[depth] = from_column(name), data
            else:
                logs.setdefault(depth, []).append((number, name, idx, data))
        return [
            Row(thread_id, ns, *line[depth], folded(logs.get(depth, ()))) for depth in sorted(line)
        ]

    def _run_threads(self, request: RunThreads) -> Reply:
        runs = Texts(to_column(run_id) for run_id in request.run_ids)
        (rows,) = yield [Statement(self._runs, (runs,))]
        return [from_column(thread_id) for (thread_id,) in rows]

    def _census(self, request: Census) -> Reply:
        (rows,) = yield [Statement(self._statements.census, (to_column(request.thread_id),))]
        epoch = 0
        found: list[Row] = []
        orphans: list[tuple[str, str]] = []
        for kind, ns, id, number, record in rows:
            if kind == "thread":
                epoch = number
            elif kind == "record":
                found.append(Row(request.thread_id, from_column(ns), from_column(id), record))
            else:
                orphans.append((from_column(ns), from_column(id)))
        return epoch, found, orphans

    def _mark(self, request: Mark) -> Reply:
        (rows,) = yield [Statement(self._statements.mark, (to_column(request.thread_id),))]
        epoch = 0
        marked: set[tuple[int, bytes]] = set()
        for number, data in rows:
            if data is None:
                epoch = number
            else:
                marked.update(references(data)[1])
        return epoch, marked

    def _chunk_ids(self, request: ChunkIds) -> Reply:
        values = (to_column(request.thread_id), request.cursor or b"", request.limit)
        (rows,) = yield [Statement(self._ids, values)]
        page = [(id, level(start), size) for id, start, size in rows]
        return page, page[-1][0] if len(page) == request.limit else None

    def _touching(self, thread_id: str | None, statement: Statement) -> list[Statement]:
        """A read that counts for the expiry of its thread, if it is of one."""
        if self._ttl is None or thread_id is None:
            return [statement]
        return [
            Statement(self._statements.touch, (to_column(thread_id), self._ttl)),
            statement,
        ]


def _conditions(request: Page) -> tuple[str, list[Any]]:
    """What a page's rows fulfil, and the values that this is said with."""
    values: list[Any] = []

    def value(one: Any) -> str:
        values.append(one)
        return f"${len(values)}"

    conditions = ["true"]
    contained = json(comparable(request.filter), _LONGEST_FILTER)
    is_filtered = contained not in (None, "{}")
    if request.thread_id is not None:
        conditions.append(_LIVES_ONE)
    else:
        conditions.append(_LIVES if is_filtered else _LIVES_OF_MANY)
    for column, id in (
        ("thread_id", request.thread_id),
        ("checkpoint_ns", request.checkpoint_ns),
        ("checkpoint_id", request.checkpoint_id),
    ):
        if id is not None:
            conditions.append(f"{column} = {value(to_column(id))}")
    if request.before is not None:
        conditions.append(f"checkpoint_id < {value(to_column(request.before))}")
    if request.cursor is not None:
        after = request.cursor
        place = (after.checkpoint_id, after.thread_id, after.checkpoint_ns)
        numbers = ", ".join(value(to_column(id)) for id in place)
        conditions.append(f"(checkpoint_id, thread_id, checkpoint_ns) < ({numbers})")
    if is_filtered:
        # A checkpoint whose metadata JSON does not hold is looked at by who asked.
        conditions.append(f"(metadata @> {value(contained)}::jsonb OR metadata IS NULL)")
    return " AND ".join(conditions), values


def comparable(filter: Mapping[str, Any]) -> dict[str, Any]:
    """What of a filter means the same in JSONB and in Python, where True equals 1."""
    return {
        key: value
        for key, value in filter.items()
        if type(key) is str
        and (type(value) is str or (type(value) in (int, float) and _is_exact(value)))
        and json({key: value}, _LONGEST_FILTER) is not None
    }


def _is_exact(value: float) -> bool:
    """Whether a number equals the same numbers in JSONB, which has decimals and no booleans."""
    return value not in (0, 1) and abs(value) <= _LARGEST_EXACT
