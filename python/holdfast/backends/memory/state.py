"""What is held: the threads, and what is left of those that are gone."""

from __future__ import annotations

import secrets
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias

from holdfast.backends.base import TOMBSTONE_SECONDS, Fence, Predecessor, Row, StoredWrite
from holdfast.errors import lease_lost, thread_deleted

Place: TypeAlias = tuple[str, str]
# Requests are answered in this process, where no reply is lost: few can ever be repeated.
_OPERATIONS = 32


@dataclass(slots=True)
class Thread:
    """All of one thread. Places are pairs of namespace and checkpoint id."""

    # Not from zero: a mark made of an earlier thread of this id must not fit this one.
    epoch: int = field(default_factory=lambda: secrets.randbits(48))
    records: dict[Place, tuple[bytes, str | None]] = field(default_factory=dict)
    ids: dict[str, list[str]] = field(default_factory=dict)
    writes: dict[Place, dict[tuple[str, int], bytes]] = field(default_factory=dict)
    chunks: dict[bytes, bytes] = field(default_factory=dict)
    runs: set[str] = field(default_factory=set)
    created: float = 0.0
    updated: float = 0.0
    expires: float | None = None
    is_persistent: bool = False
    operations: deque[bytes] = field(default_factory=lambda: deque(maxlen=_OPERATIONS))

    def put(self, place: Place, record: bytes, parent_id: str | None) -> None:
        if place not in self.records:
            insort(self.ids.setdefault(place[0], []), place[1])
        self.records[place] = (record, parent_id)

    def remove(self, place: Place) -> None:
        self.writes.pop(place, None)
        if self.records.pop(place, None) is not None:
            ids = self.ids[place[0]]
            del ids[bisect_left(ids, place[1])]
            if not ids:
                del self.ids[place[0]]

    def stored_writes(self, place: Place) -> list[StoredWrite]:
        writes = self.writes.get(place, {})
        return [StoredWrite(task_id, idx, data) for (task_id, idx), data in writes.items()]

    def row(self, thread_id: str, place: Place) -> Row:
        record, _ = self.records[place]
        return Row(thread_id, *place, record, self.stored_writes(place))

    def fetch(self, ids: Sequence[bytes]) -> dict[bytes, bytes]:
        return {id: self.chunks[id] for id in ids if id in self.chunks}

    def is_expired(self, now: float) -> bool:
        return self.expires is not None and self.expires <= now

    def refresh(self, now: float, ttl: float | None) -> None:
        """What expires, expires `ttl` seconds from now."""
        if not self.is_persistent:
            self.expires = None if ttl is None else now + ttl


@dataclass(slots=True)
class Lease:
    token: int
    until: float | None
    """None when it was given back, or ended by a write of another."""


@dataclass(slots=True)
class Tombstone:
    deleted: float
    operation: bytes


class State:
    """The whole store, with what several kinds of request need of it.

    Args:
        clock: Seconds since 1970.
        ttl: Seconds after which a thread expires that is changed now; None for never.
        refreshes: Whether reads have a thread expire later.
    """

    def __init__(self, clock: Callable[[], float], ttl: float | None, *, refreshes: bool) -> None:
        self.clock = clock
        self._ttl = ttl
        self._refreshes = refreshes
        self.threads: dict[str, Thread] = {}
        self.tombstones: dict[str, Tombstone] = {}
        self.leases: dict[str, Lease] = {}

    def living(self, thread_id: str) -> Thread | None:
        """The thread, unless it has expired."""
        thread = self.threads.get(thread_id)
        return None if thread is None or thread.is_expired(self.clock()) else thread

    def read(self, thread_id: str) -> Thread | None:
        """The thread, for a read that counts for its expiry."""
        thread = self.living(thread_id)
        if thread is not None and self._refreshes and thread.expires is not None:
            thread.refresh(self.clock(), self._ttl)
        return thread

    def tombstone(self, thread_id: str) -> Tombstone | None:
        """The tombstone, unless it is too old."""
        tombstone = self.tombstones.get(thread_id)
        if tombstone is None or tombstone.deleted + TOMBSTONE_SECONDS <= self.clock():
            return None
        return tombstone

    def check_fence(self, thread_id: str, fence: Fence | None) -> None:
        """Raise `LeaseLost`, as `Commit` says."""
        lease = self.leases.get(thread_id)
        if fence is not None:
            if lease is None or lease.until is None or lease.token != fence.token:
                raise lease_lost(thread_id)
        elif self.is_leased(thread_id):
            raise lease_lost(thread_id)

    def is_leased(self, thread_id: str) -> bool:
        """Whether somebody holds the lease."""
        lease = self.leases.get(thread_id)
        return lease is not None and lease.until is not None and lease.until > self.clock()

    def drop_old_leases(self, most: int | None = None) -> None:
        """Forget those that were taken and ended so long ago that nobody asks for them any more;
        `most` of those that stand first."""
        oldest = self.clock() - TOMBSTONE_SECONDS
        for thread_id, lease in [*islice(self.leases.items(), most)]:
            if lease.token < milliseconds(oldest) and (lease.until or 0) < oldest:
                del self.leases[thread_id]

    def check_deleted(self, thread_id: str, follows: Sequence[Predecessor]) -> None:
        """Raise `ThreadDeleted`, as `Commit` says."""
        tombstone = self.tombstone(thread_id)
        if tombstone is None:
            return
        thread = self.living(thread_id)
        for one in follows:
            if thread is not None and (one.checkpoint_ns, one.checkpoint_id) in thread.records:
                continue
            if one.made <= milliseconds(tombstone.deleted) or (one.is_parent and thread is None):
                raise thread_deleted(thread_id)

    def change(self, thread_id: str, thread: Thread, operation: bytes, fence: Fence | None) -> None:
        """Note a change of a thread; in place of one that has expired, if it is new."""
        now = self.clock()
        if self.threads.get(thread_id) is not thread:
            self.threads[thread_id] = thread
            thread.created = now
        thread.updated = now
        thread.refresh(now, self._ttl)
        thread.epoch += 1
        thread.operations.append(operation)
        if (lease := self.leases.get(thread_id)) is not None:
            lease.until = None if fence is None else now + fence.seconds


def milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
