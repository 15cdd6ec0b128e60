"""The store in this process's memory: the reference for every other backend."""

from __future__ import annotations

import secrets
import threading
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast._core import level, references
from holdfast.backends.base import (
    TOMBSTONE_SECONDS,
    Ancestors,
    Backend,
    Census,
    Check,
    ChunkIds,
    Chunks,
    Commit,
    Copy,
    Discard,
    Expire,
    Fence,
    Finding,
    Forget,
    GetRecord,
    Head,
    Lease,
    Mark,
    Missing,
    Page,
    Predecessor,
    Release,
    Remove,
    Request,
    Row,
    RunThreads,
    StoredWrite,
    ThreadRow,
    Threads,
    Visit,
    Visited,
    Weigh,
    Write,
    WritesOf,
    follow,
)
from holdfast.errors import checkpoint_removed, lease_lost, thread_deleted
from holdfast.options import Options

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
    created: float = 0.0
    updated: float = 0.0
    expires: float | None = None
    is_persistent: bool = False
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

    def is_expired(self, now: float) -> bool:
        return self.expires is not None and self.expires <= now

    def refresh(self, now: float, ttl: float | None) -> None:
        """What expires, expires `ttl` seconds from now."""
        if not self.is_persistent:
            self.expires = None if ttl is None else now + ttl


@dataclass(slots=True)
class _Lease:
    token: int
    until: float | None
    """None when it was given back, or ended by a write of another."""


@dataclass(slots=True)
class _Tombstone:
    deleted: float
    operation: bytes


class MemoryBackend(Backend):
    """Keeps threads in dictionaries, each request under one lock.

    Args:
        options: `ttl` and `refresh_on_read` are heeded here.
    """

    def __init__(self, options: Options) -> None:
        self._ttl = options.ttl
        self._refreshes = options.refresh_on_read
        self._threads: dict[str, _Thread] = {}
        self._tombstones: dict[str, _Tombstone] = {}
        self._leases: dict[str, _Lease] = {}
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
            Expire: self._expire,
            Lease: self._lease,
            Release: self._release,
            Threads: self._threads_page,
            Visit: self._visit,
            Weigh: self._weigh,
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

    def _living(self, thread_id: str) -> _Thread | None:
        thread = self._threads.get(thread_id)
        return None if thread is None or thread.is_expired(self.clock()) else thread

    def _read(self, thread_id: str) -> _Thread | None:
        """The thread, for a read that counts for its expiry."""
        thread = self._living(thread_id)
        if thread is not None and self._refreshes and thread.expires is not None:
            thread.refresh(self.clock(), self._ttl)
        return thread

    def _head(self, request: Head) -> Row | None:
        thread = self._read(request.thread_id)
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
        thread = self._living(request.thread_id) or _Thread()
        record = thread.records.get((request.checkpoint_ns, request.checkpoint_id))
        return record[0] if record else None

    def _chunks(self, request: Chunks) -> dict[bytes, bytes]:
        lookup = _lookup(self._living(request.thread_id) or _Thread())
        found = lookup(request.ids)
        if request.lacking is not None:
            found |= follow(found.values(), request.lacking, lookup)
        return found

    def _writes_of(self, request: WritesOf) -> dict[_Place, Sequence[StoredWrite]]:
        thread = self._living(request.thread_id) or _Thread()
        return {place: thread.stored_writes(place) for place in request.places}

    def _page(self, request: Page) -> list[Row]:
        def matching() -> Iterator[tuple[str, str, str]]:
            wanted = request.thread_id
            for thread_id in self._threads if wanted is None else [wanted]:
                thread = self._living(thread_id) or _Thread()
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
        if request.thread_id is not None:
            self._read(request.thread_id)
        newest = sorted(found, reverse=True)[: request.limit]
        return [
            self._row(thread_id, self._threads[thread_id], (ns, checkpoint_id))
            for checkpoint_id, thread_id, ns in newest
        ]

    def _ancestors(self, request: Ancestors) -> list[Row]:
        rows: list[Row] = []
        thread = self._read(request.thread_id) or _Thread()
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

    def _store(
        self, request: Commit | Write, follows: Sequence[Predecessor]
    ) -> tuple[_Thread, Missing]:
        """The thread with the request's chunks; nothing of it is stored if some are missing."""
        thread = self._living(request.thread_id) or _Thread()
        self._check_fence(request.thread_id, request.fence)
        self._check_deleted(request.thread_id, follows)
        for one in follows:
            if one.is_needed and (one.checkpoint_ns, one.checkpoint_id) not in thread.records:
                raise checkpoint_removed(request.thread_id)
        sent = {id for id, _ in request.chunks}
        missing = [id for id in request.frontier if id not in thread.chunks and id not in sent]
        if not missing:
            for id, data in request.chunks:
                thread.chunks[id] = data
            self._change(request.thread_id, thread, request.operation, request.fence)
        return thread, missing

    def _change(
        self, thread_id: str, thread: _Thread, operation: bytes, fence: Fence | None
    ) -> None:
        """Note a change of a thread; in place of one that has expired, if it is new."""
        now = self.clock()
        if self._threads.get(thread_id) is not thread:
            self._threads[thread_id] = thread
            thread.created = now
        thread.updated = now
        thread.refresh(now, self._ttl)
        thread.epoch += 1
        thread.operations.append(operation)
        if (lease := self._leases.get(thread_id)) is not None:
            lease.until = None if fence is None else now + fence.seconds

    def _check_fence(self, thread_id: str, fence: Fence | None) -> None:
        lease = self._leases.get(thread_id)
        if fence is not None:
            if lease is None or lease.until is None or lease.token != fence.token:
                raise lease_lost(thread_id)
        elif lease is not None and lease.until is not None and lease.until > self.clock():
            raise lease_lost(thread_id)

    def _check_deleted(self, thread_id: str, follows: Sequence[Predecessor]) -> None:
        tombstone = self._tombstone(thread_id)
        if tombstone is None:
            return
        thread = self._living(thread_id)
        for one in follows:
            if thread is not None and (one.checkpoint_ns, one.checkpoint_id) in thread.records:
                continue
            if one.made <= _milliseconds(tombstone.deleted) or (one.is_parent and thread is None):
                raise thread_deleted(thread_id)

    def _tombstone(self, thread_id: str) -> _Tombstone | None:
        tombstone = self._tombstones.get(thread_id)
        if tombstone is None or tombstone.deleted + TOMBSTONE_SECONDS <= self.clock():
            return None
        return tombstone

    def _commit(self, request: Commit) -> Missing:
        if self._is_repeated(request.thread_id, request.operation):
            return []
        thread, missing = self._store(request, request.follows)
        if not missing:
            place = (request.checkpoint_ns, request.checkpoint_id)
            thread.put(place, request.record, request.parent_id)
            if request.run_id is not None:
                thread.runs.add(request.run_id)
        return missing

    def _write(self, request: Write) -> Missing:
        if self._is_repeated(request.thread_id, request.operation):
            return []
        place = (request.checkpoint_ns, request.checkpoint_id)
        follows = [Predecessor(*place, request.made, is_parent=False)]
        thread, missing = self._store(request, follows)
        if not missing:
            writes = thread.writes.setdefault(place, {})
            for write in request.writes:
                key = (write.task_id, write.idx)
                if write.idx < 0 or key not in writes:
                    writes[key] = write.data
        return missing

    def _is_repeated(self, thread_id: str, operation: bytes) -> bool:
        thread = self._threads.get(thread_id)
        return thread is not None and operation in thread.operations

    def _forget(self, request: Forget) -> bool:
        thread_id = request.thread_id
        tombstone = self._tombstones.get(thread_id)
        if tombstone is not None and tombstone.operation == request.operation:
            return True
        thread = self._threads.get(thread_id)
        if request.epoch is not None and thread is not None and thread.epoch != request.epoch:
            return False
        self._threads.pop(thread_id, None)
        if request.leaves_tombstone:
            self._tombstones[thread_id] = _Tombstone(self.clock(), request.operation)
        elif self._tombstone(thread_id) is None:
            self._tombstones.pop(thread_id, None)
        return True

    def _copy(self, request: Copy) -> None:
        source, target_id = self._living(request.source_thread_id), request.target_thread_id
        if source is None or request.source_thread_id == target_id:
            return
        target = self._living(target_id) or _Thread()
        if request.operation in target.operations:
            return
        self._check_fence(target_id, request.fence)
        for place, (record, parent_id) in source.records.items():
            target.put(place, record, parent_id)
        for place, writes in source.writes.items():
            target.writes.setdefault(place, {}).update(writes)
        target.chunks.update(source.chunks)
        target.runs |= source.runs
        self._change(target_id, target, request.operation, request.fence)

    def _run_threads(self, request: RunThreads) -> list[str]:
        runs = set(request.run_ids)
        return [
            thread_id
            for thread_id, thread in self._threads.items()
            if thread.runs & runs and self._living(thread_id) is not None
        ]

    def _census(self, request: Census) -> tuple[int, list[Row], list[_Place]]:
        thread = self._living(request.thread_id) or _Thread()
        rows = [
            Row(request.thread_id, *place, record) for place, (record, _) in thread.records.items()
        ]
        return thread.epoch, rows, [place for place in thread.writes if place not in thread.records]

    def _remove(self, request: Remove) -> bool:
        thread = self._living(request.thread_id)
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
        thread = self._living(request.thread_id) or _Thread()
        stored = [record for record, _ in thread.records.values()]
        stored += [data for writes in thread.writes.values() for data in writes.values()]
        return thread.epoch, {reference for data in stored for reference in references(data)[1]}

    def _chunk_ids(self, request: ChunkIds) -> tuple[list[tuple[bytes, int, int]], bytes | None]:
        thread = self._living(request.thread_id) or _Thread()
        after = request.cursor or b""
        ids = sorted(id for id in thread.chunks if id > after)[: request.limit]
        page = [(id, level(thread.chunks[id]), len(thread.chunks[id])) for id in ids]
        return page, ids[-1] if len(ids) == request.limit else None

    def _discard(self, request: Discard) -> bool:
        thread = self._living(request.thread_id)
        if thread is None:
            return True
        if thread.epoch != request.epoch:
            return False
        for id in request.ids:
            thread.chunks.pop(id, None)
        return True

    def _expire(self, request: Expire) -> bool:
        thread = self._living(request.thread_id)
        if thread is None:
            return False
        thread.is_persistent = False
        thread.refresh(self.clock(), request.ttl)
        thread.is_persistent = request.ttl is None
        return True

    def _lease(self, request: Lease) -> tuple[int | None, float]:
        now = self.clock()
        lease = self._leases.get(request.thread_id)
        if request.token is not None:
            if lease is None or lease.until is None or lease.token != request.token:
                return None, 0.0
        elif lease is not None and lease.until is not None and lease.until > now:
            return None, lease.until - now
        else:
            last = 0 if lease is None else lease.token
            # A time, so that it is greater also when the last one is not known any more.
            lease = _Lease(max(last + 1, int(now * 1000)), None)
            self._leases[request.thread_id] = lease
        lease.until = now + request.seconds
        return lease.token, request.seconds

    def _release(self, request: Release) -> None:
        lease = self._leases.get(request.thread_id)
        if lease is not None and lease.token == request.token:
            lease.until = None

    def _threads_page(self, request: Threads) -> list[ThreadRow]:
        found = sorted(
            (_milliseconds(thread.updated), thread_id)
            for thread_id, thread in self._threads.items()
            if thread.records
            and thread_id.startswith(request.prefix)
            and not thread.is_expired(self.clock())
        )
        if request.after is not None:
            del found[bisect_left(found, request.after) :]
        if request.until is not None:
            del found[bisect_right(found, request.until, key=lambda one: one[0]) :]
        return [self._thread_row(thread_id) for _, thread_id in found[: -request.limit - 1 : -1]]

    def _thread_row(self, thread_id: str) -> ThreadRow:
        thread = self._threads[thread_id]
        ns = min(thread.ids)
        return ThreadRow(
            thread_id,
            thread.epoch,
            _milliseconds(thread.created),
            _milliseconds(thread.updated),
            None if thread.expires is None else _milliseconds(thread.expires),
            {ns: len(ids) for ns, ids in sorted(thread.ids.items())},
            self._row(thread_id, thread, (ns, thread.ids[ns][-1])),
        )

    def _visit(self, request: Visit) -> tuple[list[Visited], bytes | None]:
        after = (request.cursor or b"").decode("utf-8", "surrogatepass")
        now = self.clock()
        every = sorted({*self._threads, *self._tombstones, *self._leases})
        start = bisect_right(every, after) if request.cursor is not None else 0
        page = every[start : start + request.limit]
        visited = []
        for thread_id in page:
            thread, tombstone = self._threads.get(thread_id), self._tombstones.get(thread_id)
            lease = self._leases.get(thread_id)
            last = thread.updated if thread else tombstone.deleted if tombstone else now
            visited.append(
                Visited(
                    thread_id,
                    0 if thread is None else thread.epoch,
                    _milliseconds(last),
                    is_expired=thread is not None and thread.is_expired(now),
                    is_deleted=thread is None,
                    is_leased=lease is not None and lease.until is not None and lease.until > now,
                )
            )
        is_last = start + request.limit >= len(every)
        return visited, None if is_last else page[-1].encode("utf-8", "surrogatepass")

    def _weigh(self, request: Weigh) -> tuple[int, int]:
        thread = self._threads.get(request.thread_id)
        if thread is None:
            return 0, 0
        size = sum(len(record) for record, _ in thread.records.values())
        size += sum(len(data) for writes in thread.writes.values() for data in writes.values())
        size += sum(map(len, thread.chunks.values()))
        return len(thread.records), size

    def _check(self, _: Check) -> list[Finding]:
        return [
            Finding(
                "persistence",
                False,
                "this process's memory",
                "Use SQLite or Redis where a checkpoint shall outlive the process.",
            )
        ]


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _lookup(thread: _Thread) -> Callable[[Sequence[bytes]], dict[bytes, bytes]]:
    def fetch(ids: Sequence[bytes]) -> dict[bytes, bytes]:
        return {id: thread.chunks[id] for id in ids if id in thread.chunks}

    return fetch
