"""Each request that reads."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from holdfast._core import level, references
from holdfast.backends.base import (
    Ancestors,
    Census,
    Check,
    ChunkIds,
    Chunks,
    Finding,
    GetRecord,
    Head,
    Mark,
    Page,
    Row,
    RunThreads,
    StoredWrite,
    WritesOf,
    follow,
)
from holdfast.backends.memory.state import Place, State, Thread


class Reads:
    """Answers requests on what is held."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.answers: dict[type, Callable[[Any], Any]] = {
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
            Check: self._check,
        }

    def _head(self, request: Head) -> Row | None:
        thread = self._state.read(request.thread_id)
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
        row = thread.row(request.thread_id, place)
        stored = [row.record, *(write.data for write in row.writes)]
        row.chunks.update(follow(stored, request.lacking, thread.fetch))
        return row

    def _get_record(self, request: GetRecord) -> bytes | None:
        thread = self._state.living(request.thread_id) or Thread()
        record = thread.records.get((request.checkpoint_ns, request.checkpoint_id))
        return record[0] if record else None

    def _chunks(self, request: Chunks) -> dict[bytes, bytes]:
        thread = self._state.living(request.thread_id) or Thread()
        found = thread.fetch(request.ids)
        if request.lacking is not None:
            found |= follow(found.values(), request.lacking, thread.fetch)
        return found

    def _writes_of(self, request: WritesOf) -> dict[Place, Sequence[StoredWrite]]:
        thread = self._state.living(request.thread_id) or Thread()
        return {place: thread.stored_writes(place) for place in request.places}

    def _page(self, request: Page) -> list[Row]:
        def matching() -> Iterator[tuple[str, str, str]]:
            wanted = request.thread_id
            for thread_id in self._state.threads if wanted is None else [wanted]:
                thread = self._state.living(thread_id) or Thread()
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
            self._state.read(request.thread_id)
        newest = sorted(found, reverse=True)[: request.limit]
        return [
            self._state.threads[thread_id].row(thread_id, (ns, checkpoint_id))
            for checkpoint_id, thread_id, ns in newest
        ]

    def _ancestors(self, request: Ancestors) -> list[Row]:
        rows: list[Row] = []
        thread = self._state.read(request.thread_id) or Thread()
        ids = thread.ids.get(request.checkpoint_ns, [])
        current = request.checkpoint_id or (ids[-1] if ids else None)
        seen: set[str] = set()
        while current and current not in seen and len(rows) < request.limit:
            place = (request.checkpoint_ns, current)
            if place not in thread.records:
                break
            seen.add(current)
            rows.append(thread.row(request.thread_id, place))
            current = thread.records[place][1]
        return rows

    def _run_threads(self, request: RunThreads) -> list[str]:
        runs = set(request.run_ids)
        return [
            thread_id
            for thread_id, thread in self._state.threads.items()
            if thread.runs & runs and self._state.living(thread_id) is not None
        ]

    def _census(self, request: Census) -> tuple[int, list[Row], list[Place]]:
        thread = self._state.living(request.thread_id) or Thread()
        rows = [
            Row(request.thread_id, *place, record) for place, (record, _) in thread.records.items()
        ]
        return thread.epoch, rows, [place for place in thread.writes if place not in thread.records]

    def _mark(self, request: Mark) -> tuple[int, set[tuple[int, bytes]]]:
        thread = self._state.living(request.thread_id) or Thread()
        stored = [record for record, _ in thread.records.values()]
        stored += [data for writes in thread.writes.values() for data in writes.values()]
        return thread.epoch, {reference for data in stored for reference in references(data)[1]}

    def _chunk_ids(self, request: ChunkIds) -> tuple[list[tuple[bytes, int, int]], bytes | None]:
        thread = self._state.living(request.thread_id) or Thread()
        after = request.cursor or b""
        ids = sorted(id for id in thread.chunks if id > after)[: request.limit]
        page = [(id, level(thread.chunks[id]), len(thread.chunks[id])) for id in ids]
        return page, ids[-1] if len(ids) == request.limit else None

    def _check(self, _: Check) -> list[Finding]:
        return [
            Finding(
                "persistence",
                False,
                "this process's memory",
                "Use SQLite or Redis where a checkpoint shall outlive the process.",
            )
        ]
