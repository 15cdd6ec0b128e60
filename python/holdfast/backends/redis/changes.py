"""Requests that change, as commands: each one script, large ones after uploads of leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from holdfast._core import level
from holdfast.backends.base import Commit, Copy, Missing, Predecessor, Write
from holdfast.backends.last_records import LastRecords
from holdfast.backends.redis.changing import SOON, Changing
from holdfast.backends.redis.names import (
    Names,
    decode,
    encode,
    fence_of,
    follows_of,
    pairs,
    part,
    with_parent,
    write_field,
)
from holdfast.backends.redis.scripts import Trips, call, call_for_group
from holdfast.errors import corrupted

# Bytes of one command: above, other clients would wait, and leaves are sent ahead.
_LARGEST = 1 << 20
# Chunks that one round trip of a large copy brings.
_READ = 1000
# Chunks above which a copy begins with slices.
_COPIED = 10_000

Reply = Trips[Any]
Chunk = tuple[bytes, bytes]


class Changes:
    """How each request that changes is answered.

    Args:
        names: The keys.
        last: Notes what was stored.
        changing: Runs the scripts.
    """

    def __init__(self, names: Names, last: LastRecords, changing: Changing) -> None:
        self._names = names
        self._last = last
        self._changing = changing
        self.answers: dict[type, Callable[[Any], Reply]] = {
            Commit: self._commit,
            Write: self._write,
            Copy: self._copy,
        }

    def _commit(self, request: Commit) -> Reply:
        names, thread_id, ns = self._names, request.thread_id, request.checkpoint_ns
        id = request.checkpoint_id
        record = with_parent(request.record, request.parent_id)
        keys = [
            names.meta(thread_id),
            names.blobs(thread_id),
            names.index(thread_id, ns),
            names.checkpoint(thread_id, ns, id),
            names.threads(thread_id),
        ]
        if request.run_id is not None:
            keys.append(names.run(request.run_id))
        chunks, frontier = yield from self._send_ahead(request, request.follows)
        command = call(
            "commit",
            keys,
            request.operation,
            self._changing.keep,
            self._changing.ttl,
            fence_of(request.fence),
            follows_of(request.follows),
            encode(thread_id),
            encode(ns),
            encode(id),
            encode(request.run_id or ""),
            record,
            len(frontier),
            *frontier,
            *flat(chunks),
        )
        missing = _missing((yield from self._changing.change(thread_id, command)))
        if not missing:
            self._last.note(thread_id, ns, request.record)
        return missing

    def _write(self, request: Write) -> Reply:
        names, thread_id, ns = self._names, request.thread_id, request.checkpoint_ns
        id = request.checkpoint_id
        place = Predecessor(ns, id, request.made, is_parent=False)
        chunks, frontier = yield from self._send_ahead(request, [place])
        keys = [
            names.meta(thread_id),
            names.blobs(thread_id),
            names.writes(thread_id, ns, id),
            names.checkpoint(thread_id, ns, id),
            names.threads(thread_id),
        ]
        command = call_for_group(
            "write",
            keys,
            (
                self._changing.keep,
                self._changing.ttl,
                encode(thread_id),
                encode(ns),
                encode(id),
            ),
            (
                request.operation,
                fence_of(request.fence),
                request.made,
                len(frontier),
                len(request.writes),
                len(chunks),
                *frontier,
                *flat((write_field(write), write.data) for write in request.writes),
                *flat(chunks),
            ),
        )
        return _missing((yield from self._changing.change(thread_id, command)))

    def _send_ahead(
        self, request: Commit | Write, follows: Sequence[Predecessor]
    ) -> Trips[tuple[Sequence[Chunk], Missing]]:
        """What is left to send with the request, and what must be stored before it."""
        chunks = request.chunks
        sent = {id for id, _ in chunks}
        frontier = [id for id in request.frontier if id not in sent]
        if sum(len(data) for _, data in chunks) <= _LARGEST:
            return chunks, frontier
        leaves = [(id, data) for id, data in chunks if level(data[:2]) == 0]
        for number, some in enumerate(_slices(leaves)):
            yield from self._upload(request, request.thread_id, follows, number, some)
        # A sweep may have taken them for garbage meanwhile.
        frontier += [id for id, _ in leaves]
        return [(id, data) for id, data in chunks if level(data[:2]) != 0], frontier

    def _upload(
        self,
        request: Commit | Write | Copy,
        thread_id: str,
        follows: Sequence[Predecessor],
        number: int,
        leaves: Sequence[Chunk],
    ) -> Trips[None]:
        names, changing = self._names, self._changing
        command = call(
            "upload",
            [names.meta(thread_id), names.blobs(thread_id), names.threads(thread_id)],
            part(request.operation, number),
            changing.keep,
            changing.ttl,
            fence_of(request.fence),
            follows_of(follows),
            encode(thread_id),
            names.bases(thread_id)[1],
            *flat(leaves),
        )
        yield from changing.change(thread_id, command)

    def _copy(self, request: Copy) -> Reply:
        names, source, target = self._names, request.source_thread_id, request.target_thread_id
        if source == target:
            return
        yield from self._copy_ahead(request)
        command = call(
            "copy",
            [
                names.meta(source),
                names.blobs(source),
                names.meta(target),
                names.blobs(target),
                names.threads(target),
            ],
            request.operation,
            self._changing.keep,
            self._changing.ttl,
            fence_of(request.fence),
            encode(target),
            *names.bases(source),
            *names.bases(target),
            names.runs,
        )
        reply = yield from self._changing.change(target, command)
        if isinstance(reply, list):
            ns, id = map(decode, reply)
            raise corrupted(source, ns, id, "its record is gone or damaged; nothing was copied")

    def _copy_ahead(self, request: Copy) -> Trips[None]:
        """Send a large thread's leaves in slices, so that one script has less to do."""
        blobs = self._names.blobs(request.source_thread_id)
        (count,) = yield [("HLEN", blobs)]
        if count <= _COPIED:
            return
        cursor: Any = 0
        number = 0
        while True:
            ((cursor, found),) = yield [("HSCAN", blobs, cursor, "COUNT", _READ)]
            leaves = [(id, data) for id, data in pairs(found) if level(data[:2]) == 0]
            if leaves:
                yield from self._upload(request, request.target_thread_id, (), number, leaves)
                number += 1
            if int(cursor) == 0:
                break


def _missing(reply: Any) -> Missing:
    return [] if reply == SOON else reply


def flat(entries: Any) -> Iterator[bytes]:
    """The parts of pairs, in turns."""
    for entry in entries:
        yield from entry


def _slices(chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    some: list[Chunk] = []
    size = 0
    for chunk in chunks:
        if some and size + len(chunk[1]) > _LARGEST:
            yield some
            some, size = [], 0
        some.append(chunk)
        size += len(chunk[1])
    if some:
        yield some
