"""Requests that store something, as statements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.backends.base import (
    Commit,
    Copy,
    Fence,
    Missing,
    Predecessor,
    Write,
)
from holdfast.backends.last_records import LastRecords
from holdfast.backends.postgres.columns import ByteArrays, Numbers, Texts, from_column, to_column
from holdfast.backends.postgres.pending import rows_of
from holdfast.backends.postgres.statement import REFUSED, Refusable, Statement, Trips
from holdfast.backends.postgres.statements import Changing, Statements, first_epoch
from holdfast.errors import checkpoint_removed, lease_lost, thread_deleted

Reply = Trips[Any]
# Threads that are noted as deleted; the notes only save a round trip.
_NOTED = 4096
# How often a change is made for which nothing was missing when that was looked for.
_ATTEMPTS = 3
# In the place of `_predecessors`.
_NOT_LOOKED_FOR = (None,) * 4
# Replies to what is sent behind a lock: why nothing is to be done, and whether it was.
_WHY, _DONE = 1, 2


class Mixed(Exception):
    """Of requests that were made at once some were made before: each is to be made by itself."""


@dataclass(slots=True)
class _Change:
    """What changes a thread, if the thread's row lets it.

    Attributes:
        thread_id: As a column holds it.
        variants: The statement.
        values: Of the statement, by whether it looks for what the change follows.
        fence: The lease under which it is made.
        claim: Makes the statement that waits for the thread, and keeps it for this change.
        settle: Makes the statement that finds out why nothing was done.
        note: Makes those behind it that see to it that an earlier attempt, which may come after
            all, does nothing.
        needs_parent: Whether the parent must be stored.
    """

    thread_id: str
    variants: Changing
    values: Callable[[bool], tuple[Any, ...]]
    fence: Fence | None
    claim: Callable[[], Statement]
    settle: Callable[[], Statement]
    note: Callable[[], Sequence[Statement]] = list
    needs_parent: bool = False

    def statement(self, is_anew: bool) -> Statement:
        """The statement, on a thread that has begun anew after a deletion or has not."""
        looks = is_anew or self.needs_parent
        sql = self.variants[self.fence is not None, looks]
        return Refusable(sql, self.values(looks), lambda sent: self.behind(self.claim(), sent))

    def behind(self, lock: Statement, sent: Statement) -> Sequence[Statement]:
        """The statement behind a lock, and what finds out why it does nothing: in the places that
        `_WHY` and `_DONE` name."""
        return [lock, self.settle(), sent, *self.note()]


class Changes:
    """Answers requests.

    Args:
        statements: On the tables.
        last: What the caller most probably has; what is stored is noted there.
        ttl: Seconds after a change at which a thread expires; None for never.
    """

    def __init__(self, statements: Statements, last: LastRecords, ttl: float | None) -> None:
        self._statements = statements
        self._last = last
        self._ttl = ttl
        self._deleted: set[str] = set()
        self.answers: dict[type, Callable[[Any], Reply]] = {
            Commit: lambda request: self.change([request]),
            Write: lambda request: self.change([request]),
            Copy: self._copy,
        }

    def change(self, requests: Sequence[Commit | Write]) -> Trips[Missing]:
        """Store at once what requests to one thread, under one fence, bring: pending writes, and
        one checkpoint at most. What is missing for any of them is missing for all; where one is
        refused, all are."""
        chunks = {id: data for request in requests for id, data in request.chunks}
        frontier = _required([id for request in requests for id in request.frontier], chunks)
        commit = next((request for request in requests if isinstance(request, Commit)), None)
        writes = [request for request in requests if isinstance(request, Write)]
        follows = () if commit is None else commit.follows
        thread_id, fence = requests[0].thread_id, requests[0].fence
        statements = self._statements

        def settle() -> Statement:
            places = [
                Predecessor(request.checkpoint_ns, request.checkpoint_id, request.made, False)
                for request in writes
            ]
            return self._settle(requests, [*follows, *places])

        def values(looks: bool) -> tuple[Any, ...]:
            return (
                *self._entering(thread_id),
                ByteArrays(chunks),
                ByteArrays(chunks.values()),
                ByteArrays(frontier),
                *(() if commit is None else _of_checkpoint(commit, looks)),
                *(_of_writes(writes, looks) if writes else ()),
                *_held(fence),
            )

        variants = statements.write
        if commit is not None:
            variants = statements.commit_with_writes if writes else statements.commit
        change = _Change(
            to_column(thread_id),
            variants,
            values,
            fence,
            lambda: self._statements.claiming(to_column(thread_id)),
            settle,
            lambda: self._note(thread_id, writes),
            any(one.is_needed for one in follows),
        )
        missing = yield from self._stored(change, frontier)
        if commit is not None and not missing:
            self._last.note(thread_id, commit.checkpoint_ns, commit.record)
        return missing

    def _entering(self, thread_id: str) -> tuple[Any, ...]:
        """The first values of each statement that changes a thread."""
        return to_column(thread_id), first_epoch(), self._ttl

    def _settle(
        self, requests: Sequence[Commit | Write], follows: Sequence[Predecessor]
    ) -> Statement:
        """Finds out why nothing was done, and makes room where that may be done now."""
        values = (
            to_column(requests[0].thread_id),
            _token(requests[0].fence),
            ByteArrays([request.operation for request in requests]),
            Texts(to_column(request.checkpoint_ns) for request in requests),
            Texts(to_column(request.checkpoint_id) for request in requests),
            *_predecessors(follows),
        )
        return Statement(self._statements.settle, values)

    def _note(self, thread_id: str, writes: Sequence[Write]) -> Sequence[Statement]:
        """Has the thread's row say what pending writes were stored: an earlier attempt, which began
        before and waits for the thread, sees that as it is, and their rows as they were."""
        if not writes:
            return []
        values = (
            to_column(thread_id),
            ByteArrays([request.operation for request in writes]),
            Texts(to_column(request.checkpoint_id) for request in writes),
        )
        return [Statement(self._statements.written, values)]

    def _stored(self, change: _Change, frontier: list[bytes]) -> Trips[Missing]:
        """Make a change; what it lacks where it was refused."""
        for _ in range(_ATTEMPTS):
            reply = yield from self._entered(change)
            if reply is not REFUSED:
                return []
            values = (change.thread_id, ByteArrays(frontier))
            (rows,) = yield [Statement(self._statements.missing, values)]
            missing = {id for (id,) in rows}
            if missing:  # otherwise another sent it meanwhile
                return [id for id in frontier if id in missing]
        # A transaction of the user's may see what has gone since it began: all is sent again.
        return frontier

    def _entered(self, change: _Change) -> Trips[Any]:
        """Make a change, unless it was made before; its reply.

        Raises:
            CheckpointRemoved: A parent that is needed is gone.
            Mixed: Of several requests some were made before.
            LeaseLost: Another holds the thread's lease.
            ThreadDeleted: The thread was deleted under it.
        """
        thread_id = change.thread_id
        replies = yield [change.statement(thread_id in self._deleted)]
        while True:
            is_behind = len(replies) > _DONE  # also as when it was sent again
            reply = replies[_DONE if is_behind else 0]
            if reply is REFUSED or reply:
                return reply
            if is_behind:
                # A fence without a row has no lease, which would stand there.
                is_fenced = change.fence is not None
                nothing = (False, False, is_fenced, False, change.needs_parent)
                why = replies[_WHY] or [nothing]
                ((is_repeated, is_mixed, is_lost, is_deleted, is_orphaned),) = why
                if is_repeated:
                    return reply
                if is_mixed:
                    raise Mixed
                if is_lost:
                    raise lease_lost(from_column(thread_id))
                if is_deleted:
                    raise thread_deleted(from_column(thread_id))
                if is_orphaned:
                    raise checkpoint_removed(from_column(thread_id))
            # Behind the lock what is found and what is done are of one moment.
            replies = yield change.behind(
                self._statements.locking(thread_id), change.statement(True)
            )
            if not change.needs_parent:
                self.note_deleted(thread_id)

    def note_deleted(self, thread_id: str) -> None:
        """The thread, as a column holds it, has a tombstone, as likely as not: its next change
        looks for what it follows at once."""
        if len(self._deleted) >= _NOTED:
            self._deleted.clear()
        self._deleted.add(thread_id)

    def _copy(self, request: Copy) -> Trips[None]:
        target_id = request.target_thread_id
        if request.source_thread_id == target_id:
            return
        fence = request.fence
        source_id = to_column(request.source_thread_id)
        values = (*self._entering(target_id), source_id, request.operation, *_held(fence))
        operations = ByteArrays([request.operation])
        none = _predecessors(())
        settle = (values[0], _token(fence), operations, *none[:2], *none)
        yield from self._entered(
            _Change(
                values[0],
                self._statements.copy,
                lambda _: values,
                fence,
                lambda: self._statements.claiming(values[0]),
                lambda: Statement(self._statements.settle, settle),
            )
        )


def _of_checkpoint(commit: Commit, looks: bool) -> tuple[Any, ...]:
    """The values `COMMIT`; what it follows only for a statement that looks for that."""
    parent_id, run_id, summary = commit.parent_id, commit.run_id, commit.summary
    return (
        *(_predecessors(commit.follows) if looks else _NOT_LOOKED_FOR),
        to_column(commit.checkpoint_ns),
        to_column(commit.checkpoint_id),
        None if parent_id is None else to_column(parent_id),
        commit.record,
        commit.operation,
        None if run_id is None else to_column(run_id),
        summary and summary.state,
        summary and summary.next_node,
        summary and summary.metadata,
    )


def _of_writes(requests: Sequence[Write], looks: bool) -> tuple[Any, ...]:
    """The values `WRITE`; when the checkpoints were made as in `_of_checkpoint`."""
    rows = [
        (request, task_id, data, b"" if nth else request.operation)
        for request in requests
        for nth, (task_id, data) in enumerate(rows_of(request.writes))
    ]
    return (
        Texts(to_column(request.checkpoint_ns) for request, _, _, _ in rows),
        Texts(to_column(request.checkpoint_id) for request, _, _, _ in rows),
        Numbers(request.made for request, _, _, _ in rows) if looks else None,
        Texts(to_column(task_id) for _, task_id, _, _ in rows),
        ByteArrays([data for _, _, data, _ in rows]),
        ByteArrays([operation for _, _, _, operation in rows]),
    )


def _required(frontier: Sequence[bytes], sent: Any) -> list[bytes]:
    """What must be there already."""
    sent = set(sent)
    return [id for id in dict.fromkeys(frontier) if id not in sent]


def _predecessors(follows: Sequence[Predecessor]) -> tuple[list[Any], ...]:
    """An array for each attribute."""
    return (
        Texts(to_column(one.checkpoint_ns) for one in follows),
        Texts(to_column(one.checkpoint_id) for one in follows),
        Numbers(one.made for one in follows),
        Numbers(one.rank for one in follows),
    )


def _held(fence: Fence | None) -> tuple[str, ...]:
    """The last values of each statement that changes a thread under a fence."""
    return () if fence is None else (str(fence.token), str(fence.seconds))


def _token(fence: Fence | None) -> str | None:
    return None if fence is None else str(fence.token)
