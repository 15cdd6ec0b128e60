"""Requests on threads as such: their expiry, their lease, and what is there of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Any

from holdfast.backends import base
from holdfast.backends.base import (
    Expire,
    Release,
    ThreadRow,
    Visit,
    Visited,
    Weigh,
    manifest_ids,
)
from holdfast.backends.memory.state import Lease, State, milliseconds


class Threads:
    """Answers requests on what is held."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.answers: dict[type, Callable[[Any], Any]] = {
            Expire: self._expire,
            base.Lease: self._lease,
            Release: self._release,
            base.Threads: self._threads,
            Visit: self._visit,
            Weigh: self._weigh,
        }

    def _expire(self, request: Expire) -> bool:
        thread = self._state.living(request.thread_id)
        if thread is None:
            return False
        thread.is_persistent = False
        thread.refresh(self._state.clock(), request.ttl)
        thread.is_persistent = request.ttl is None
        return True

    def _lease(self, request: base.Lease) -> tuple[int | None, float]:
        now = self._state.clock()
        lease = self._state.leases.get(request.thread_id)
        if request.token is not None:
            if lease is None or lease.until is None or lease.token != request.token:
                return None, 0.0
        elif lease is not None and lease.until is not None and lease.until > now:
            return None, lease.until - now
        else:
            last = 0 if lease is None else lease.token
            # A time, so that it is greater also when the last one is not known any more.
            lease = Lease(max(last + 1, milliseconds(now)), None)
            self._state.drop_old_leases(most=2)
            self._state.leases[request.thread_id] = lease
        lease.until = now + request.seconds
        return lease.token, request.seconds

    def _release(self, request: Release) -> None:
        lease = self._state.leases.get(request.thread_id)
        if lease is not None and lease.token == request.token:
            lease.until = None

    def _threads(self, request: base.Threads) -> list[ThreadRow]:
        found = sorted(
            (milliseconds(thread.updated), thread_id)
            for thread_id, thread in self._state.threads.items()
            if thread.records
            and thread_id.startswith(request.prefix)
            and not thread.is_expired(self._state.clock())
        )
        if request.after is not None:
            del found[bisect_left(found, request.after) :]
        if request.until is not None:
            del found[bisect_right(found, request.until, key=lambda one: one[0]) :]
        return [self._row(thread_id) for _, thread_id in found[: -request.limit - 1 : -1]]

    def _row(self, thread_id: str) -> ThreadRow:
        thread = self._state.threads[thread_id]
        ns = min(thread.ids)
        head = thread.row(thread_id, (ns, thread.ids[ns][-1]))
        head.chunks.update(thread.fetch(manifest_ids(head.record)))
        return ThreadRow(
            thread_id,
            thread.epoch,
            milliseconds(thread.created),
            milliseconds(thread.updated),
            None if thread.expires is None else milliseconds(thread.expires),
            {ns: len(ids) for ns, ids in sorted(thread.ids.items())},
            head,
        )

    def _visit(self, request: Visit) -> tuple[list[Visited], bytes | None]:
        after = (request.cursor or b"").decode("utf-8", "surrogatepass")
        now = self._state.clock()
        self._state.drop_old_leases()
        every = sorted({*self._state.threads, *self._state.tombstones, *self._state.leases})
        start = bisect_right(every, after) if request.cursor is not None else 0
        page = every[start : start + request.limit]
        visited = []
        for thread_id in page:
            thread = self._state.threads.get(thread_id)
            tombstone = self._state.tombstones.get(thread_id)
            lease = self._state.leases.get(thread_id)
            last = thread.updated if thread else tombstone.deleted if tombstone else now
            visited.append(
                Visited(
                    thread_id,
                    0 if thread is None else thread.epoch,
                    milliseconds(last),
                    is_expired=thread is not None and thread.is_expired(now),
                    is_deleted=thread is None,
                    is_leased=lease is not None and lease.until is not None and lease.until > now,
                )
            )
        is_last = start + request.limit >= len(every)
        return visited, None if is_last else page[-1].encode("utf-8", "surrogatepass")

    def _weigh(self, request: Weigh) -> tuple[int, int]:
        thread = self._state.threads.get(request.thread_id)
        if thread is None:
            return 0, 0
        size = sum(len(record) for record, _ in thread.records.values())
        size += sum(len(data) for writes in thread.writes.values() for data in writes.values())
        size += sum(map(len, thread.chunks.values()))
        return len(thread.records), size
