"""Requests that read, as commands: generators of round trips that are sent the replies."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any

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
from holdfast.backends.redis.names import (
    LIFE_BYTES,
    Names,
    decode,
    encode,
    pairs,
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


class Reads:
    """How each request that reads is answered."""

    def __init__(self, names: Names, last: LastRecords) -> None:
        self._names = names
        self._last = last
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
        (reply,) = yield [
            call("head", keys, encode(ns), checkpoints, all_writes, len(known), *known, *id)
        ]
        if reply is None:
            return None
        if len(reply) == 2:
            raise _lost(thread_id, ns, reply[1])
        _, checkpoint_id, stored, writes, chunks = reply
        found = row(thread_id, ns, checkpoint_id, stored, writes, chunks)
        self._last.note(thread_id, ns, found.record)
        return found

    def _get_record(self, request: GetRecord) -> Reply:
        names, thread_id = self._names, request.thread_id
        key = names.checkpoint(thread_id, request.checkpoint_ns, request.checkpoint_id)
        life, stored = yield [("HGET", names.meta(thread_id), b"life"), ("GET", key)]
        if life is None or stored is None or stored[:LIFE_BYTES] != life:
            return None
        return record_of(stored)

    def _chunks(self, request: Chunks) -> Reply:
        key, ids = self._names.blobs(request.thread_id), request.ids
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
            commands: list[Command] = [("HGET", names.meta(thread_id), b"life")]
            commands += [("HGETALL", names.writes(thread_id, ns, id)) for ns, id in some]
            life, *replies = yield commands
            for place, reply in zip(some, replies, strict=True):
                found[place] = [] if life is None else writes_of(reply, life)
        return found

    def _page(self, request: Page) -> Reply:
        if request.thread_id is not None:
            (reply,) = yield [self._page_of(request.thread_id, request)]
            return _rows(request.thread_id, reply)
        rows = None
        while rows is None:
            rows = yield from self._page_of_all(request)
        return rows

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

    def _page_of_all(self, request: Page) -> Trips[list[Row] | None]:
        """The greatest ids of all threads: two round trips for some hundred threads, and one
        for their rows. None where one of them went meanwhile: a page that lacks a row would
        be taken for the last."""
        greatest: list[tuple[str, str, str]] = []
        cursor: Any = 0
        while True:
            (scanned,) = yield [("ZSCAN", self._names.threads(""), cursor, "COUNT", _BATCH)]
            cursor = scanned[0]
            threads = [decode(member) for member, _ in _members(scanned[1])]
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
            return []
        replies = yield [
            self._page_of(thread_id, Page(thread_id, ns, id, None, None, 1))
            for id, thread_id, ns in greatest
        ]
        rows = [
            one
            for (_, thread_id, _), reply in zip(greatest, replies, strict=True)
            for one in _rows(thread_id, reply)
        ]
        return rows if len(rows) == len(greatest) else None

    def _ancestors(self, request: Ancestors) -> Reply:
        names, thread_id, ns = self._names, request.thread_id, request.checkpoint_ns
        _, checkpoints, all_writes = names.bases(thread_id)
        start = [] if request.checkpoint_id is None else [encode(request.checkpoint_id)]
        (reply,) = yield [
            call(
                "ancestors",
                [names.meta(thread_id), names.index(thread_id, ns)],
                encode(ns),
                checkpoints,
                all_writes,
                request.limit,
                *start,
            )
        ]
        return [row(thread_id, ns, id, stored, writes) for id, stored, writes in reply[1]]

    def _run_threads(self, request: RunThreads) -> Reply:
        replies = yield [("SMEMBERS", self._names.run(run_id)) for run_id in request.run_ids]
        return sorted({decode(thread_id) for reply in replies for thread_id in reply})

    def _places(
        self, thread_id: str
    ) -> Trips[tuple[bytes, int, list[tuple[str, str]], list[tuple[str, str]]]]:
        """A thread's life, epoch, the places of its records, and those of orphan writes.

        The epoch is read first: what is read later is at least as new.
        """
        (fields,) = yield [("HGETALL", self._names.meta(thread_id))]
        meta = dict(pairs(fields))
        life = meta.get(b"life", b"")
        if not life:
            return b"", int(meta.get(b"epoch", 0)), [], []
        namespaces = [decode(field[3:]) for field in meta if field.startswith(b"ns:")]
        orphans = [_place(field) for field in meta if field.startswith(b"w:")]
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
        return life, int(meta[b"epoch"]), places, orphans

    def _records(
        self, thread_id: str, life: bytes, places: Sequence[tuple[str, str]]
    ) -> Trips[list[Row]]:
        rows: list[Row] = []
        for start in range(0, len(places), _BATCH):
            some = places[start : start + _BATCH]
            keys = [self._names.checkpoint(thread_id, ns, id) for ns, id in some]
            (replies,) = yield [("MGET", *keys)]
            rows += [
                Row(thread_id, ns, id, record_of(stored))
                for (ns, id), stored in zip(some, replies, strict=True)
                if stored is not None and stored[:LIFE_BYTES] == life
            ]
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
        key = self._names.blobs(request.thread_id)
        (reply,) = yield [call("chunk_ids", [key], request.cursor or b"0", request.limit)]
        cursor, found = reply
        page = [
            (id, level(start), size)
            for id, start, size in zip(found[::3], found[1::3], found[2::3], strict=True)
        ]
        return page, None if cursor == b"0" else cursor


def _rows(thread_id: str, reply: Any) -> list[Row]:
    """The rows of a page; all of its pages come with the first."""
    _, found, chunks = reply
    rows: list[Row] = []
    for ns, id, stored, writes in found:
        if stored is None:
            raise _lost(thread_id, decode(ns), id)
        rows.append(row(thread_id, decode(ns), id, stored, writes, () if rows else chunks))
    return rows


def _lost(thread_id: str, checkpoint_ns: str, checkpoint_id: bytes) -> Exception:
    return corrupted(
        thread_id,
        checkpoint_ns,
        decode(checkpoint_id),
        "the index names it, but its record is gone. Check the server's eviction policy",
    )


def _place(field: bytes) -> tuple[str, str]:
    """The namespace and id that common.lua's `orphan` made a field of."""
    _, length, rest = field.split(b":", 2)
    return decode(rest[: int(length)]), decode(rest[int(length) :])


def _members(reply: Any) -> list[tuple[bytes, Any]]:
    """The members and scores of ZSCAN: in turns, or paired where the protocol is RESP3."""
    if reply and isinstance(reply[0], (list, tuple)):
        return [(member, score) for member, score in reply]
    return list(zip(reply[::2], reply[1::2], strict=True))
