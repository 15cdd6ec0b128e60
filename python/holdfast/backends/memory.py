"""The store in this process's memory: the reference for every other backend."""

from __future__ import annotations

import secrets
import threading
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast._core import level, references
from holdfast.backends.base import (
    Ancestors,
    Backend,
    Census,
    Check,
    ChunkIds,
    Chunks,
    Commit,
    Copy,
    Discard,
    Finding,
    Forget,
    GetRecord,
    Head,
    Mark,
    Missing,
    Page,
    Remove,
    Request,
    Row,
    RunThreads,
    StoredWrite,
    Write,
    WritesOf,
    follow,
)

_Place = tuple[str, str]
# Requests are answered in this process, where no reply is lost: few can ever be repeated.
_OPERATIONS = 32


@dataclass(slots=True)
class _Thread:
    """All of one thread. Places are pairs of namespace and checkpoint id."""

    # Not from zero: a mark made of an earlier thread of this id must not fit this one.
    epoch: int = field(default_factory=lambda: secrets.randbits(48))
    records: dict[_Place, tuple[bytes, str | None]] = field(default_factory=dict)
    ids: dict[str, list[str]] = field(default_factory=dict)
    writes: dict[_Place, dict[tuple[str, int], bytes]] = field(default_factory=dict)
    chunks: dict[bytes, bytes] = field(default_factory=dict)
    runs: set[str] = field(default_factory=set)
    operations: deque[bytes] = field(default_factory=lambda: deque(maxlen=_OPERATIONS))

    def put(self, place: _Place, record: bytes, parent_id: str | None) -> None:
        if place not in self.records:
            insort(self.ids.setdefault(place[0], []), place[1])
        self.records[place] = (record, parent_id)

    def remove(self, place: _Place) -> None:
        self.writes.pop(place, None)
        if self.records.pop(place, None) is not None:
            ids = self.ids[place[0]]
            del ids[bisect_left(ids, place[1])]
            if not ids:
                del self.ids[place[0]]

    def stored_writes(self, place: _Place) -> list[StoredWrite]:
        writes = self.writes.get(place, {})
        return [StoredWrite(task_id, idx, data) for (task_id, idx), data in writes.items()]


class MemoryBackend(Backend):
    """Keeps threads in dictionaries, each request under one lock."""

    def __init__(self) -> None:
        self._threads: dict[str, _Thread] = {}
        self._lock = threading.Lock()
        self._answers: dict[type, Callable[[Any], Any]] = {
            Head: self._head,
            GetRecord: self._get_record,
            Chunks: self._chunks,
            WritesOf: self._writes_of,
            Page: self._page,
            Ancestors: self._ancestors,
            Commit: self._commit,
            Write: self._write,
            Forget: self._forget,
            Copy: self._copy,
            RunThreads: self._run_threads,
            Census: self._census,
            Remove: self._remove,
            Mark: self._mark,
            ChunkIds: self._chunk_ids,
            Discard: self._discard,
            Check: self._check,
        }

    def setup(self) -> None:
        pass

    async def asetup(self) -> None:
        pass

    def execute(self, request: Request) -> Any:
        with self._lock:
            return self._answers[type(request)](request)

    async def aexecute(self, request: Request) -> Any:
        return self.execute(request)

    def close(self) -> None:
        pass

    async def aclose(self) -> None:
        pass

    def abandon(self) -> None:
        pass

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def _row(self, thread_id: str, thread: _Thread, place: _Place) -> Row:
        record, _ = thread.records[place]
        return Row(thread_id, *place, record, thread.stored_writes(place))

    def _head(self, request: Head) -> Row | None:
        thread = self._threads.get(request.thread_id)
        if thread is None:
            return None
        checkpoint_id = request.checkpoint_id
        if checkpoint_id is None:
            ids = thread.ids.get(request.checkpoint_ns)
            if not ids:
                return None
            checkpoint_id = ids[-1]
        place = (request.checkpoint_ns, checkpoint_id)
        if place not in thread.records:
            return None
        row = self._row(request.thread_id, thread, place)
        stored = [row.record, *(write.data for write in row.writes)]
        row.chunks.update(follow(stored, request.lacking, _lookup(thread)))
        return row

    def _get_record(self, request: GetRecord) -> bytes | None:
        thread = self._threads.get(request.thread_id, _Thread())
        record = thread.records.get((request.checkpoint_ns, request.checkpoint_id))
        return record[0] if record else None

    def _chunks(self, request: Chunks) -> dict[bytes, bytes]:
        lookup = _lookup(self._threads.get(request.thread_id, _Thread()))
        found = lookup(request.ids)
        if request.lacking is not None:
            found |= follow(found.values(), request.lacking, lookup)
        return found

    def _writes_of(self, request: WritesOf) -> dict[_Place, Sequence[StoredWrite]]:
        thread = self._threads.get(request.thread_id, _Thread())
        return {place: thread.stored_writes(place) for place in request.places}

    def _page(self, request: Page) -> list[Row]:
        def matching() -> Iterator[tuple[str, str, str]]:
            wanted = request.thread_id
            for thread_id in self._threads if wanted is None else [wanted]:
                thread = self._threads.get(thread_id, _Thread())
                for ns, ids in thread.ids.items():
                    if request.checkpoint_ns is None or ns == request.checkpoint_ns:
                        stop = len(ids) if before is None else bisect_left(ids, before)
                        for checkpoint_id in ids[:stop]:
                            yield checkpoint_id, thread_id, ns

        before = request.before
        after = request.cursor
        end = None if after is None else (after.checkpoint_id, after.thread_id, after.checkpoint_ns)
        found = (
            key
            for key in matching()
            if (request.checkpoint_id is None or key[0] == request.checkpoint_id)
            and (end is None or key < end)
        )
        newest = sorted(found, reverse=True)[: request.limit]
        return [
            self._row(thread_id, self._threads[thread_id], (ns, checkpoint_id))
            for checkpoint_id, thread_id, ns in newest
        ]

    def _ancestors(self, request: Ancestors) -> list[Row]:
        rows: list[Row] = []
        thread = self._threads.get(request.thread_id, _Thread())
        ids = thread.ids.get(request.checkpoint_ns, [])
        current = request.checkpoint_id or (ids[-1] if ids else None)
        seen: set[str] = set()
        while current and current not in seen and len(rows) < request.limit:
            place = (request.checkpoint_ns, current)
            if place not in thread.records:
                break
            seen.add(current)
            rows.append(self._row(request.thread_id, thread, place))
            current = thread.records[place][1]
        return rows

    def _store(self, request: Commit | Write) -> tuple[_Thread, Missing]:
        """The thread with the request's chunks; nothing of it is stored if some are missing."""
        thread = self._threads.get(request.thread_id, _Thread())
        sent = {id for id, _ in request.chunks}
        missing = [id for id in request.frontier if id not in thread.chunks and id not in sent]
        if not missing:
            self._threads[request.thread_id] = thread
            for id, data in request.chunks:
                thread.chunks[id] = data
            thread.epoch += 1
            thread.operations.append(request.operation)
        return thread, missing

    def _commit(self, request: Commit) -> Missing:
        if self._is_repeated(request.thread_id, request.operation):
            return []
        thread, missing = self._store(request)
        if not missing:
            place = (request.checkpoint_ns, request.checkpoint_id)
            thread.put(place, request.record, request.parent_id)
            if request.run_id is not None:
                thread.runs.add(request.run_id)
        return missing

    def _write(self, request: Write) -> Missing:
        if self._is_repeated(request.thread_id, request.operation):
            return []
        thread, missing = self._store(request)
        if not missing:
            place = (request.checkpoint_ns, request.checkpoint_id)
            writes = thread.writes.setdefault(place, {})
            for write in request.writes:
                key = (write.task_id, write.idx)
                if write.idx < 0 or key not in writes:
                    writes[key] = write.data
        return missing

    def _is_repeated(self, thread_id: str, operation: bytes) -> bool:
        thread = self._threads.get(thread_id)
        return thread is not None and operation in thread.operations

    def _forget(self, request: Forget) -> None:
        self._threads.pop(request.thread_id, None)

    def _copy(self, request: Copy) -> None:
        source = self._threads.get(request.source_thread_id)
        if source is None or request.source_thread_id == request.target_thread_id:
            return
        target = self._threads.setdefault(request.target_thread_id, _Thread())
        if request.operation in target.operations:
            return
        for place, (record, parent_id) in source.records.items():
            target.put(place, record, parent_id)
        for place, writes in source.writes.items():
            target.writes.setdefault(place, {}).update(writes)
        target.chunks.update(source.chunks)
        target.runs |= source.runs
        target.epoch += 1
        target.operations.append(request.operation)

    def _run_threads(self, request: RunThreads) -> list[str]:
        runs = set(request.run_ids)
        return [thread_id for thread_id, thread in self._threads.items() if thread.runs & runs]

    def _census(self, request: Census) -> tuple[int, list[Row], list[_Place]]:
        thread = self._threads.get(request.thread_id, _Thread())
        rows = [
            Row(request.thread_id, *place, record) for place, (record, _) in thread.records.items()
        ]
        return thread.epoch, rows, [place for place in thread.writes if place not in thread.records]

    def _remove(self, request: Remove) -> bool:
        thread = self._threads.get(request.thread_id)
        if thread is None:
            return True
        if request.operation in thread.operations:
            return True
        if request.epoch is not None and request.epoch != thread.epoch:
            return False
        for place in request.checkpoints:
            thread.remove(place)
        for ns, checkpoint_id, old, new in request.replaced:
            if thread.records.get((ns, checkpoint_id), (b"",))[0] == old:
                thread.records[ns, checkpoint_id] = (new, None)
        thread.epoch += 1
        thread.operations.append(request.operation)
        if not thread.records and not thread.writes:
            del self._threads[request.thread_id]
        return True

    def _mark(self, request: Mark) -> tuple[int, set[tuple[int, bytes]]]:
        thread = self._threads.get(request.thread_id, _Thread())
        stored = [record for record, _ in thread.records.values()]
        stored += [data for writes in thread.writes.values() for data in writes.values()]
        return thread.epoch, {reference for data in stored for reference in references(data)[1]}

    def _chunk_ids(self, request: ChunkIds) -> tuple[list[tuple[bytes, int]], bytes | None]:
        thread = self._threads.get(request.thread_id, _Thread())
        after = request.cursor or b""
        ids = sorted(id for id in thread.chunks if id > after)[: request.limit]
        page = [(id, level(thread.chunks[id])) for id in ids]
        return page, ids[-1] if len(ids) == request.limit else None

    def _discard(self, request: Discard) -> bool:
        thread = self._threads.get(request.thread_id)
        if thread is None:
            return True
        if thread.epoch != request.epoch:
            return False
        for id in request.ids:
            thread.chunks.pop(id, None)
        return True

    def _check(self, _: Check) -> list[Finding]:
        return [
            Finding(
                "persistence",
                False,
                "this process's memory",
                "Use SQLite or Redis where a checkpoint shall outlive the process.",
            )
        ]


def _lookup(thread: _Thread) -> Callable[[Sequence[bytes]], dict[bytes, bytes]]:
    def fetch(ids: Sequence[bytes]) -> dict[bytes, bytes]:
        return {id: thread.chunks[id] for id in ids if id in thread.chunks}

    return fetch
