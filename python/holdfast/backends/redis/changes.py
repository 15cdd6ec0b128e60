"""Requests that change, as commands: each one script, large ones after uploads of leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from holdfast._core import level
from holdfast.backends.base import (
    Commit,
    Copy,
    Discard,
    Forget,
    Missing,
    Remove,
    Write,
)
from holdfast.backends.last_records import LastRecords
from holdfast.backends.redis.names import Names, encode, pairs, with_parent, write_field
from holdfast.backends.redis.scripts import Command, Trips, call, call_for_group

# Bytes of one command: above, other clients would wait, and leaves are sent ahead.
_LARGEST = 1 << 20
# Checkpoints that one script removes: some milliseconds.
_REMOVED = 1000
# Chunks above which a copy begins with slices.
_COPIED = 10_000
_DYING = -1
_MOVED = -2

Reply = Trips[Any]
Chunk = tuple[bytes, bytes]


class Changes:
    """How each request that changes is answered.

    Args:
        names: The keys.
        last: Notes what was stored.
        keep: Seconds for which a thread remembers an operation, at least.
    """

    def __init__(self, names: Names, last: LastRecords, keep: int) -> None:
        self._names = names
        self._last = last
        self._keep = keep
        self.answers: dict[type, Callable[[Any], Reply]] = {
            Commit: self._commit,
            Write: self._write,
            Forget: self._forget,
            Copy: self._copy,
            Remove: self._remove,
            Discard: self._discard,
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
        chunks, frontier = yield from self._send_ahead(request)
        command = call(
            "commit",
            keys,
            request.operation,
            self._keep,
            encode(thread_id),
            encode(ns),
            encode(id),
            encode(request.run_id or ""),
            record,
            len(frontier),
            *frontier,
            *flat(chunks),
        )
        missing: Missing = yield from self._change(thread_id, command)
        if not missing:
            self._last.note(thread_id, ns, request.record)
        return missing

    def _write(self, request: Write) -> Reply:
        names, thread_id, ns = self._names, request.thread_id, request.checkpoint_ns
        id = request.checkpoint_id
        chunks, frontier = yield from self._send_ahead(request)
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
            (self._keep, encode(thread_id), encode(ns), encode(id)),
            (
                request.operation,
                len(frontier),
                len(request.writes),
                len(chunks),
                *frontier,
                *flat((write_field(write), write.data) for write in request.writes),
                *flat(chunks),
            ),
        )
        reply = yield from self._change(thread_id, command)
        return reply[0]

    def _send_ahead(self, request: Commit | Write) -> Trips[tuple[Sequence[Chunk], Missing]]:
        """What is left to send with the request, and what must be stored before it."""
        chunks = request.chunks
        sent = {id for id, _ in chunks}
        frontier = [id for id in request.frontier if id not in sent]
        if sum(len(data) for _, data in chunks) <= _LARGEST:
            return chunks, frontier
        leaves = [(id, data) for id, data in chunks if level(data[:2]) == 0]
        for number, some in enumerate(_slices(leaves)):
            command = self._upload(request.thread_id, request.operation, number, some)
            yield from self._change(request.thread_id, command)
        # A sweep may have taken them for garbage meanwhile.
        frontier += [id for id, _ in leaves]
        return [(id, data) for id, data in chunks if level(data[:2]) != 0], frontier

    def _upload(
        self, thread_id: str, operation: bytes, number: int, chunks: Sequence[Chunk]
    ) -> Command:
        names = self._names
        return call(
            "upload",
            [names.meta(thread_id), names.blobs(thread_id), names.threads(thread_id)],
            _part(operation, number),
            self._keep,
            encode(thread_id),
            *flat(chunks),
        )

    def _change(self, thread_id: str, command: Command) -> Reply:
        """Run a script that changes a thread, once what is left of a removed one is gone."""
        while True:
            (reply,) = yield [command]
            if reply != _DYING:
                return reply
            yield from self._finish(thread_id)

    def _forget(self, request: Forget) -> Reply:
        (is_left,) = yield [self._forgetting(request.thread_id, begins=True)]
        if is_left:
            yield from self._finish(request.thread_id)

    def _finish(self, thread_id: str) -> Trips[None]:
        """Remove what is left of a thread whose removal has begun."""
        command = self._forgetting(thread_id, begins=False)
        while (yield [command]) != [0]:
            pass

    def _forgetting(self, thread_id: str, *, begins: bool) -> Command:
        names = self._names
        return call(
            "forget",
            [names.meta(thread_id), names.blobs(thread_id), names.threads(thread_id)],
            encode(thread_id),
            *names.bases(thread_id),
            names.runs,
            _REMOVED,
            int(begins),
        )

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
            self._keep,
            encode(target),
            *names.bases(source),
            *names.bases(target),
            names.runs,
        )
        yield from self._change(target, command)

    def _copy_ahead(self, request: Copy) -> Trips[None]:
        """Send a large thread's leaves in slices, so that one script has less to do."""
        blobs = self._names.blobs(request.source_thread_id)
        (count,) = yield [("HLEN", blobs)]
        if count <= _COPIED:
            return
        cursor: Any = 0
        number = 0
        while True:
            ((cursor, found),) = yield [("HSCAN", blobs, cursor, "COUNT", _REMOVED)]
            leaves = [(id, data) for id, data in pairs(found) if level(data[:2]) == 0]
            if leaves:
                command = self._upload(request.target_thread_id, request.operation, number, leaves)
                yield from self._change(request.target_thread_id, command)
                number += 1
            if int(cursor) == 0:
                break

    def _remove(self, request: Remove) -> Reply:
        """In slices: those removed first leave their parents' records as they were."""
        names, thread_id = self._names, request.thread_id
        doomed = sorted(request.checkpoints)
        starts = range(0, max(len(doomed), 1), _REMOVED)
        epoch: Any = b"" if request.epoch is None else request.epoch
        for number, start in enumerate(starts):
            some = doomed[start : start + _REMOVED]
            replaced = request.replaced if number == len(starts) - 1 else ()
            command = call(
                "remove",
                [names.meta(thread_id), names.blobs(thread_id), names.threads(thread_id)],
                _part(request.operation, number),
                epoch,
                encode(thread_id),
                *names.bases(thread_id),
                names.runs,
                len(some),
                *(part for ns, id in some for part in (encode(ns), encode(id))),
                *(
                    part
                    for ns, id, old, new in replaced
                    for part in (encode(ns), encode(id), old, new)
                ),
            )
            reply = yield from self._change(thread_id, command)
            if reply == _MOVED:
                return False
            if request.epoch is not None:
                epoch = reply
            if reply == b"":
                break
        return True

    def _discard(self, request: Discard) -> Reply:
        names, thread_id = self._names, request.thread_id
        keys = [names.meta(thread_id), names.blobs(thread_id)]
        command = call("discard", keys, request.epoch, *request.ids)
        return (yield from self._change(thread_id, command)) != _MOVED


def flat(entries: Any) -> Iterator[bytes]:
    """The parts of pairs, in turns."""
    for entry in entries:
        yield from entry


def _part(operation: bytes, number: int) -> bytes:
    """An operation id for one of the scripts that a request takes beside its last."""
    last = int.from_bytes(operation[-4:], "big") ^ (number + 1)
    return operation[:-4] + last.to_bytes(4, "big")


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
