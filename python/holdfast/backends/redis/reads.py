"""Requests that read, as commands: generators of round trips that are sent the replies."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

from holdfast._core import level, references
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
    StoredWrite,
    WritesOf,
)
from holdfast.backends.last_records import LastRecords
from holdfast.backends.redis.changing import Changing
from holdfast.backends.redis.names import (
    LIFE_BYTES,
    Names,
    decode,
    encode,
    members_of,
    number,
    pairs,
    place_of,
    record_of,
    row,
    writes_of,
)
from holdfast.backends.redis.scripts import Command, Trips, call
from holdfast.errors import corrupted

# Ids of one HMGET: longer ones make other clients wait.
_CHUNKS = 1000
# Keys, or threads, that one round trip asks for.
_BATCH = 500

Reply = Trips[Any]
Named: TypeAlias = tuple[str, str, str]
"""A checkpoint as an index names it: its id, thread and namespace."""
ChunkPage: TypeAlias = tuple[list[tuple[bytes, int, int]], bytes | None]


class Reads:
    """How each request that reads is answered.

    Args:
        names: The keys.
        last: Notes what was read.
        changing: Has threads expire later that are read.
        refreshes: Whether that is wanted.
    """

    def __init__(
        self, names: Names, last: LastRecords, changing: Changing, *, refreshes: bool
    ) -> None:
        self._names = names
        self._last = last
        self._changing = changing
        self._refreshes = refreshes
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
        names, thread_id, ns = self._names, request.thread_id, request.checkpoint_ns
        _, checkpoints, all_writes = names.bases(thread_id)
        keys = [names.meta(thread_id), names.blobs(thread_id), names.index(thread_id, ns)]
        id: tuple[bytes, ...] = ()
        if request.checkpoint_id is not None:
            keys.append(names.checkpoint(thread_id, ns, request.checkpoint_id))
            keys.append(names.writes(thread_id, ns, request.checkpoint_id))
            id = (encode(request.checkpoint_id),)
        known = self._last.known(thread_id, ns, request.lacking, lowest=1)
        command = call("head", keys, encode(ns), checkpoints, all_writes, len(known), *known, *id)
        reply = yield from self._read(thread_id, command)
        if reply is None:
            return None
        found = row(thread_id, ns, *reply[1:])
        if found.record:
            self._last.note(thread_id, ns, found.record)
        return found

    def _read(self, thread_id: str, command: Command) -> Reply:
        """The reply to a command; the thread expires later for it where that is wanted."""
        if not self._refreshes:
            (reply,) = yield [command]
            return reply
        reply, *touched = yield [command, self._changing.touch(thread_id)]
        yield from self._changing.touched(thread_id, touched)
        return reply

    def _life(self, thread_id: str) -> list[Command]:
        """What `_living` makes a thread's life of."""
        return [("TIME",), ("HMGET", self._names.meta(thread_id), b"life", b"expires")]

    def _get_record(self, request: GetRecord) -> Reply:
        names, thread_id = self._names, request.thread_id
        key = names.checkpoint(thread_id, request.checkpoint_ns, request.checkpoint_id)
        *state, stored = yield [*self._life(thread_id), ("GET", key)]
        life = _living(*state)
        if life is None or stored is None or stored[:LIFE_BYTES] != life:
            return None
        return record_of(stored)

    def _chunks(self, request: Chunks) -> Reply:
        key, ids = self._names.blobs(request.thread_id), request.ids
        if not ids:
            return {}
        slices = [ids[start : start + _CHUNKS] for start in range(0, len(ids), _CHUNKS)]
        replies = yield [("HMGET", key, *some) for some in slices]
        return {
            id: data
            for some, reply in zip(slices, replies, strict=True)
            for id, data in zip(some, reply, strict=True)
            if data is not None
        }

    def _writes_of(self, request: WritesOf) -> Reply:
        return (yield from self._writes(request.thread_id, request.places))

    def _writes(
        self, thread_id: str, places: Sequence[tuple[str, str]]
    ) -> Trips[dict[tuple[str, str], list[StoredWrite]]]:
        names = self._names
        found: dict[tuple[str, str], list[StoredWrite]] = {}
        for start in range(0, len(places), _BATCH):
            some = places[start : start + _BATCH]
            commands = self._life(thread_id)
            commands += [("HGETALL", names.writes(thread_id, ns, id)) for ns, id in some]
            time, fields, *replies = yield commands
            life = _living(time, fields)
            for place, reply in zip(some, replies, strict=True):
                found[place] = [] if life is None else writes_of(reply, life)
        return found

    def _page(self, request: Page) -> Reply:
        if request.thread_id is not None:
            command = self._page_of(request.thread_id, request)
            reply = yield from self._read(request.thread_id, command)
            return _rows(request.thread_id, reply)
        last: list[Named] = []
        while True:
            named, rows = yield from self._page_of_all(request)
            if len(rows) == len(named):
                return rows
            if named == last:  # nothing went meanwhile: an index is damaged
                found = {(row.checkpoint_id, row.thread_id, row.checkpoint_ns): row for row in rows}
                return [found.get(one) or Row(one[1], one[2], one[0], b"") for one in named]
            last = named

    def _page_of(self, thread_id: str, request: Page, *, ids_alone: bool = False) -> Command:
        names, after = self._names, request.cursor
        cursor, cursor_id, cursor_ns = "", "", ""
        if after is not None:
            cursor_id, cursor_ns = after.checkpoint_id, after.checkpoint_ns
            lesser, same = thread_id < after.thread_id, thread_id == after.thread_id
            cursor = "=" if lesser else "n" if same else "<"
        optional: list[bytes] = []
        for value in (request.checkpoint_ns, request.checkpoint_id, request.before):
            optional += [b"0", b""] if value is None else [b"1", encode(value)]
        return call(
            "page",
            [names.meta(thread_id), names.blobs(thread_id)],
            *names.bases(thread_id),
            request.limit,
            int(ids_alone),
            *optional,
            cursor,
            encode(cursor_id),
            encode(cursor_ns),
        )

    def _page_of_all(self, request: Page) -> Trips[tuple[list[Named], list[Row]]]:
        """The greatest ids of all threads: two round trips for some hundred threads, and one
        for their rows, which are fewer where one of them went meanwhile: a page that lacks a row
        would be taken for the last."""
        greatest: list[Named] = []
        cursor: Any = 0
        while True:
            (scanned,) = yield [("ZSCAN", self._names.threads(""), cursor, "COUNT", _BATCH)]
            cursor = scanned[0]
            threads = [thread_id for thread_id, _ in members_of(scanned[1])]
            if threads:
                replies = yield [self._page_of(t, request, ids_alone=True) for t in threads]
                # A thread may come twice while the registry grows: once is enough.
                found = {
                    (decode(id), thread_id, decode(ns))
                    for thread_id, reply in zip(threads, replies, strict=True)
                    for ns, id in pairs(reply[1])
                }
                greatest = heapq.nlargest(request.limit, found.union(greatest))
            if int(cursor) == 0:
                break
        if not greatest:
            return [], []
        replies = yield [
            self._page_of(thread_id, Page(thread_id, ns, id, None, None, 1))
            for id, thread_id, ns in greatest
        ]
        rows = [
            one
            for (_, thread_id, _), reply in zip(greatest, replies, strict=True)
            for one in _rows(thread_id, reply)
        ]
        return greatest, rows

    def _ancestors(self, request: Ancestors) -> Reply:
        names, thread_id, ns = self._names, request.thread_id, request.checkpoint_ns
        _, checkpoints, all_writes = names.bases(thread_id)
        start = [] if request.checkpoint_id is None else [encode(request.checkpoint_id)]
        command = call(
            "ancestors",
            [names.meta(thread_id), names.index(thread_id, ns)],
            encode(ns),
            checkpoints,
            all_writes,
            request.limit,
            *start,
        )
        reply = yield from self._read(thread_id, command)
        return [row(thread_id, ns, id, stored, writes) for id, stored, writes in reply[1]]

    def _run_threads(self, request: RunThreads) -> Reply:
        replies = yield [("SMEMBERS", self._names.run(run_id)) for run_id in request.run_ids]
        touched = sorted({decode(thread_id) for reply in replies for thread_id in reply})
        living: list[str] = []
        for start in range(0, len(touched), _BATCH):
            some = touched[start : start + _BATCH]
            states = yield [command for one in some for command in self._life(one)]
            lives = [_living(*state) for state in zip(states[::2], states[1::2], strict=True)]
            living += [one for one, life in zip(some, lives, strict=True) if life is not None]
        return living

    def _places(
        self, thread_id: str
    ) -> Trips[tuple[bytes, int, list[tuple[str, str]], list[tuple[str, str]]]]:
        """A thread's life, epoch, the places of its records, and those of orphan writes.

        The epoch is read first: what is read later is at least as new.
        """
        time, fields = yield [("TIME",), ("HGETALL", self._names.meta(thread_id))]
        meta = dict(pairs(fields))
        life = _living(time, [meta.get(b"life"), meta.get(b"expires")])
        if life is None:
            return b"", number(meta.get(b"epoch", b"0")), [], []
        namespaces = [decode(field[3:]) for field in meta if field.startswith(b"ns:")]
        orphans = [place_of(field) for field in meta if field.startswith(b"w:")]
        places: list[tuple[str, str]] = []
        if namespaces:
            replies = yield [
                ("LRANGE", self._names.index(thread_id, ns), 0, -1) for ns in namespaces
            ]
            places = [
                (ns, decode(id))
                for ns, reply in zip(namespaces, replies, strict=True)
                for id in reply
            ]
        return life, number(meta.get(b"epoch")), places, orphans

    def _records(
        self, thread_id: str, life: bytes, places: Sequence[tuple[str, str]]
    ) -> Trips[list[Row]]:
        rows: list[Row] = []
        for start in range(0, len(places), _BATCH):
            some = places[start : start + _BATCH]
            keys = [self._names.checkpoint(thread_id, ns, id) for ns, id in some]
            (replies,) = yield [("MGET", *keys)]
            found = [
                Row(thread_id, ns, id, record_of(stored))
                for (ns, id), stored in zip(some, replies, strict=True)
                if stored is not None and stored[:LIFE_BYTES] == life
            ]
            rows += found
            if len(found) < len(some):
                # Removed meanwhile, or damaged: then the index names it still, and what it refers
                # to must not be taken for garbage.
                gone = set(some).difference((row.checkpoint_ns, row.checkpoint_id) for row in found)
                life_now, _, named, _ = yield from self._places(thread_id)
                if life_now == life:
                    lost = gone.intersection(named)
                    rows += [Row(thread_id, ns, id, b"") for ns, id in sorted(lost)]
        return rows

    def _census(self, request: Census) -> Reply:
        life, epoch, places, orphans = yield from self._places(request.thread_id)
        rows = yield from self._records(request.thread_id, life, places)
        return epoch, rows, orphans

    def _mark(self, request: Mark) -> Reply:
        thread_id = request.thread_id
        life, epoch, places, orphans = yield from self._places(thread_id)
        marked: set[tuple[int, bytes]] = set()
        for one in (yield from self._records(thread_id, life, places)):
            marked.update(references(one.record)[1])
        writes = yield from self._writes(thread_id, [*places, *orphans])
        for some in writes.values():
            for write in some:
                marked.update(references(write.data)[1])
        return epoch, marked

    def _chunk_ids(self, request: ChunkIds) -> Reply:
        return chunk_page(self._names, request)


def chunk_page(names: Names, request: ChunkIds) -> Trips[ChunkPage]:
    """Some ids of chunks with their levels and sizes, and where to go on."""
    key = names.blobs(request.thread_id)
    (reply,) = yield [call("chunk_ids", [key], request.cursor or b"0", request.limit)]
    cursor, found = reply
    page = [
        (id, level(start), size)
        for id, start, size in zip(found[::3], found[1::3], found[2::3], strict=True)
    ]
    return page, None if cursor == b"0" else cursor


def _living(time: Sequence[bytes], fields: Sequence[bytes | None]) -> bytes | None:
    """The life of a thread that has not expired, at the server's time."""
    life, expires = fields
    seconds, microseconds = map(int, time)
    is_expired = expires is not None and number(expires) <= seconds * 1000 + microseconds // 1000
    return None if is_expired else life


def _rows(thread_id: str, reply: Any) -> list[Row]:
    """The rows of a page; all of its pages come with the first."""
    _, found, chunks = reply
    rows: list[Row] = []
    for ns, id, stored, writes in found:
        rows.append(row(thread_id, decode(ns), id, stored, writes, () if rows else chunks))
    for newer, older in pairwise(rows):
        if (older.checkpoint_id, older.checkpoint_ns) >= (newer.checkpoint_id, newer.checkpoint_ns):
            raise corrupted(
                thread_id,
                older.checkpoint_ns,
                older.checkpoint_id,
                "the index of its namespace is not in order",
            )
    return rows
