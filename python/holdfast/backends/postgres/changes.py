"""Each request that changes something, as statements."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any

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
from holdfast.backends.postgres.columns import ByteArrays, to_column
from holdfast.backends.postgres.statements import (
    REFUSED,
    Refusable,
    Statement,
    Statements,
    Trips,
)

Reply = Trips[Any]


class Changes:
    """Answers requests.

    Args:
        statements: On the tables.
        last: What the caller most probably has; what is stored is noted there.
    """

    def __init__(self, statements: Statements, last: LastRecords) -> None:
        self._statements = statements
        self._last = last
        self.answers: dict[type, Callable[[Any], Reply]] = {
            Commit: self._commit,
            Write: lambda request: self.write([request]),
            Forget: self._forget,
            Copy: self._copy,
            Remove: self._remove,
            Discard: self._discard,
        }

    def _commit(self, request: Commit) -> Trips[Missing]:
        ids = [id for id, _ in request.chunks]
        frontier = _required(request.frontier, ids)
        parent_id, run_id = request.parent_id, request.run_id
        summary = request.summary
        statement = Refusable(
            self._statements.commit,
            (
                to_column(request.thread_id),
                to_column(request.checkpoint_ns),
                to_column(request.checkpoint_id),
                None if parent_id is None else to_column(parent_id),
                request.record,
                request.operation,
                ByteArrays(ids),
                ByteArrays([data for _, data in request.chunks]),
                ByteArrays(frontier),
                None if run_id is None else to_column(run_id),
                summary and summary.state,
                summary and summary.next_node,
                summary and summary.metadata,
                _first_epoch(),
            ),
            self._claim(request.thread_id),
        )
        missing = yield from self._stored(statement, request.thread_id, frontier)
        if not missing:
            self._last.note(request.thread_id, request.checkpoint_ns, request.record)
        return missing

    def write(self, requests: Sequence[Write]) -> Trips[Missing]:
        """Store the writes of requests to one thread at once. What is missing for any of them
        is missing for all."""
        chunks: dict[bytes, bytes] = {}
        for request in requests:
            chunks.update(request.chunks)
        entries = [
            # The operation stands with the first write of each request.
            (request, write, b"" if nth else request.operation)
            for request in requests
            for nth, write in enumerate(request.writes)
        ]
        frontier = _required([id for request in requests for id in request.frontier], chunks)
        thread_id = requests[0].thread_id
        statement = Refusable(
            self._statements.write,
            (
                to_column(thread_id),
                [to_column(request.checkpoint_ns) for request, _, _ in entries],
                [to_column(request.checkpoint_id) for request, _, _ in entries],
                [to_column(write.task_id) for _, write, _ in entries],
                [write.idx for _, write, _ in entries],
                ByteArrays([write.data for _, write, _ in entries]),
                ByteArrays([operation for _, _, operation in entries]),
                ByteArrays(chunks),
                ByteArrays(chunks.values()),
                ByteArrays(frontier),
                _first_epoch(),
            ),
            self._claim(thread_id),
        )
        return (yield from self._stored(statement, thread_id, frontier))

    def _stored(
        self, statement: Statement, thread_id: str, frontier: list[bytes]
    ) -> Trips[Missing]:
        """Make a change; what it lacks where it was refused."""
        while True:
            *_, reply = yield [statement]
            if reply is not REFUSED:
                return []
            values = (to_column(thread_id), ByteArrays(frontier))
            (rows,) = yield [Statement(self._statements.missing, values)]
            missing = {id for (id,) in rows}
            if missing:  # otherwise another sent it meanwhile
                return [id for id in frontier if id in missing]

    def _locked(self, thread_id: str, *statements: Statement) -> list[Statement]:
        """Statements on a thread that nobody else changes meanwhile."""
        return [Statement(self._statements.lock, (to_column(thread_id),)), *statements]

    def _claim(self, thread_id: str) -> Statement:
        """As the lock, also on a thread that is not there yet."""
        return Statement(self._statements.claim, (to_column(thread_id), _first_epoch()))

    def _forget(self, request: Forget) -> Reply:
        forget = Statement(self._statements.forget, (to_column(request.thread_id),))
        yield [self._claim(request.thread_id), forget]

    def _copy(self, request: Copy) -> Reply:
        if request.source_thread_id == request.target_thread_id:
            return
        yield [
            Statement(
                self._statements.copy,
                (
                    to_column(request.source_thread_id),
                    to_column(request.target_thread_id),
                    request.operation,
                    _first_epoch(),
                ),
            )
        ]

    def _remove(self, request: Remove) -> Trips[bool]:
        thread_id = to_column(request.thread_id)
        remove = Statement(
            self._statements.remove,
            (
                thread_id,
                request.epoch,
                request.operation,
                [to_column(ns) for ns, _ in request.checkpoints],
                [to_column(id) for _, id in request.checkpoints],
                [to_column(ns) for ns, _, _, _ in request.replaced],
                [to_column(id) for _, id, _, _ in request.replaced],
                ByteArrays([old for _, _, old, _ in request.replaced]),
                ByteArrays([new for _, _, _, new in request.replaced]),
            ),
        )
        tidy = Statement(self._statements.tidy, (thread_id,))
        _, rows, _ = yield self._locked(request.thread_id, remove, tidy)
        return all(is_done for (is_done,) in rows)

    def _discard(self, request: Discard) -> Trips[bool]:
        values = (to_column(request.thread_id), request.epoch, ByteArrays(request.ids))
        (rows,) = yield [Statement(self._statements.discard, values)]
        is_done: bool = rows[0][0]
        return is_done


def _required(frontier: Sequence[bytes], sent: Any) -> list[bytes]:
    """What must be there already."""
    sent = set(sent)
    return [id for id in dict.fromkeys(frontier) if id not in sent]


def _first_epoch() -> int:
    # Not from zero: a mark made of an earlier thread of this id must not fit the next one.
    return secrets.randbits(48)
