"""Each request that changes something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from holdfast.backends.base import (
    Commit,
    Copy,
    Discard,
    Forget,
    Missing,
    Predecessor,
    Remove,
    Write,
)
from holdfast.backends.memory.state import State, Thread, Tombstone
from holdfast.errors import checkpoint_removed


class Changes:
    """Answers requests on what is held."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.answers: dict[type, Callable[[Any], Any]] = {
            Commit: self._commit,
            Write: self._write,
            Forget: self._forget,
            Copy: self._copy,
            Remove: self._remove,
            Discard: self._discard,
        }

    def _store(
        self, request: Commit | Write, follows: Sequence[Predecessor]
    ) -> tuple[Thread, Missing]:
        """The thread with the request's chunks; nothing of it is stored if some are missing."""
        thread = self._state.living(request.thread_id) or Thread()
        self._state.check_fence(request.thread_id, request.fence)
        self._state.check_deleted(request.thread_id, follows)
        for one in follows:
            if one.is_needed and (one.checkpoint_ns, one.checkpoint_id) not in thread.records:
                raise checkpoint_removed(request.thread_id)
        sent = {id for id, _ in request.chunks}
        missing = [id for id in request.frontier if id not in thread.chunks and id not in sent]
        if not missing:
            for id, data in request.chunks:
                thread.chunks[id] = data
            self._state.change(request.thread_id, thread, request.operation, request.fence)
        return thread, missing

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
        thread = self._state.threads.get(thread_id)
        return thread is not None and operation in thread.operations

    def _forget(self, request: Forget) -> bool:
        thread_id = request.thread_id
        tombstone = self._state.tombstones.get(thread_id)
        if tombstone is not None and tombstone.operation == request.operation:
            return True
        thread = self._state.threads.get(thread_id)
        if request.epoch is not None and thread is not None and thread.epoch != request.epoch:
            return False
        if request.is_tidying and self._state.is_leased(thread_id):
            return False
        self._state.threads.pop(thread_id, None)
        if request.leaves_tombstone:
            self._state.tombstones[thread_id] = Tombstone(self._state.clock(), request.operation)
        elif self._state.tombstone(thread_id) is None:
            self._state.tombstones.pop(thread_id, None)
        return True

    def _copy(self, request: Copy) -> None:
        source, target_id = self._state.living(request.source_thread_id), request.target_thread_id
        if source is None or request.source_thread_id == target_id:
            return
        target = self._state.living(target_id) or Thread()
        if request.operation in target.operations:
            return
        self._state.check_fence(target_id, request.fence)
        for place, (record, parent_id) in source.records.items():
            target.put(place, record, parent_id)
        for place, writes in source.writes.items():
            target.writes.setdefault(place, {}).update(writes)
        target.chunks.update(source.chunks)
        target.runs |= source.runs
        self._state.change(target_id, target, request.operation, request.fence)

    def _remove(self, request: Remove) -> bool:
        thread = self._state.living(request.thread_id)
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
            del self._state.threads[request.thread_id]
        return True

    def _discard(self, request: Discard) -> bool:
        thread = self._state.living(request.thread_id)
        if thread is None:
            return True
        if thread.epoch != request.epoch:
            return False
        for id in request.ids:
            thread.chunks.pop(id, None)
        return True
