"""What changes a thread in one moment is one statement, as far as it can be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from holdfast.backends.base import Commit, Missing, Write
from holdfast.backends.postgres.begun import Begun
from holdfast.errors import StoreFull, StoreTimeout, StoreUnavailable, for_another

# Requests and bytes of one statement; the others wait for the next one.
_LARGEST = 256
_BYTES = 1 << 20

# Of the loop: so many after a checkpoint was stored LangGraph, which chains them, puts the next.
_TICKS = 3

# Failures of the store, not of a call.
_OF_ALL = (StoreUnavailable, StoreTimeout, StoreFull)

Change: TypeAlias = "Commit | Write"
_Call: TypeAlias = "tuple[Change, asyncio.Future[Missing]]"


class _Leader(asyncio.Task[None]):
    """A task that tells whether it was cancelled already, as all are when the loop ends: a second
    time would keep it from having the server stop. Python 3.10 does not tell."""

    is_cancelling = False

    begun: tuple[list[_Call], Begun[Missing]] | None = None
    """What was sent for it before its first step, or while it waited for more."""

    def cancel(self, msg: Any = None) -> bool:
        self.is_cancelling = True
        return super().cancel(msg)


@dataclass(slots=True)
class _Line:
    """The changes of one thread, which its leader works off.

    Attributes:
        waiting: Those that were not sent yet.
        under_way: Those that the leader has sent.
        leader: None where there is nothing to do.
    """

    waiting: list[_Call] = field(default_factory=list)
    under_way: list[_Call] = field(default_factory=list)
    leader: _Leader | None = None


class ChangeLines:
    """What changes threads on one event loop, a line for each thread: the changes of one would wait
    for each other in the store, each for a flush of its own. LangGraph stores the writes of a
    superstep and the checkpoint that follows in the same tick. Only pending writes and one
    checkpoint, under one fence, go together.

    Writes wait for a tick, in which the checkpoint may come. A checkpoint is sent at once if
    nothing is under way: a tick later the interpreter may be busy with the node that LangGraph has
    started.

    Each call has its own reply: a failure of one is no failure of its neighbours, and a call that
    is cancelled takes nothing from them.

    Args:
        store: Stores what requests to one thread bring in one round trip.
        is_ready: Whether `store` sends at once, whichever task that is in.
    """

    def __init__(
        self,
        store: Callable[[Sequence[Change]], Coroutine[Any, Any, Missing]],
        is_ready: Callable[[], bool],
    ) -> None:
        self._store = store
        self._is_ready = is_ready
        self._lines: dict[str, _Line] = {}

    async def send(self, request: Change) -> Missing:
        """The reply to one request."""
        future: asyncio.Future[Missing] = asyncio.get_running_loop().create_future()
        thread_id = request.thread_id
        line = self._lines.get(thread_id)
        if line is None:
            line = self._lines[thread_id] = _Line()
        line.waiting.append((request, future))
        leader = line.leader
        if leader is None or leader.done():
            leader = self._begin(thread_id, line)
        if isinstance(request, Commit) and not line.under_way and self._is_ready():
            calls = line.under_way = _taken(line)
            leader.begun = calls, Begun(self._sent(calls))
        try:
            return await future
        except asyncio.CancelledError:
            left = self._leave(thread_id, line)
            if left is not None:
                # What was under way is over when the caller hears that it is cancelled.
                await asyncio.wait([left])
            raise

    def _sent(self, calls: Sequence[_Call]) -> Coroutine[Any, Any, Missing]:
        return self._store([request for request, _ in calls])

    def _begin(self, thread_id: str, line: _Line) -> _Leader:
        # Not of the loop's factory, which may be eager: who comes in the same tick is to join.
        leader = _Leader(self._lead(line))
        line.leader = leader
        # Not in the leader itself, which may be cancelled before its first step.
        leader.add_done_callback(lambda _: self._end(thread_id, line, leader))
        return leader

    def _end(self, thread_id: str, line: _Line, leader: _Leader) -> None:
        if leader.begun is not None:
            leader.begun[1].close()
        if line.leader is leader:
            line.leader = None
            del self._lines[thread_id]
            # Where it was cancelled, as all are when the loop ends.
            for _, future in (*line.under_way, *line.waiting):
                future.cancel()

    def _leave(self, thread_id: str, line: _Line) -> _Leader | None:
        """Give up what is under way where nobody waits for it; the task that does so."""
        leader = line.leader
        if leader is None or not line.under_way or not all(_is_over(one) for one in line.under_way):
            return None
        line.under_way = []
        if line.waiting:
            self._begin(thread_id, line)
        else:
            line.leader = None
            del self._lines[thread_id]
        if leader.begun is not None:
            # It has to take what was sent for it, or would not have the server stop.
            leader.get_loop().call_soon(leader.cancel)
        elif not leader.is_cancelling:
            leader.cancel()
        return leader

    async def _lead(self, line: _Line) -> None:
        leader = cast("_Leader", asyncio.current_task())  # it is run in no other
        sent: Awaitable[Missing]
        while True:
            if leader.begun is not None:
                (calls, sent), leader.begun = leader.begun, None
            elif calls := _taken(line):
                line.under_way, sent = calls, self._sent(calls)
            else:
                break
            behind = list(line.waiting)
            failure = await self._settle(calls, sent)
            if line.leader is not leader:
                return  # another has taken over
            line.under_way = []
            if failure is not None:
                # They have waited for the store as long as those that were sent.
                _fail(behind, failure)
            had_checkpoint = any(isinstance(request, Commit) for request, _ in calls)
            if had_checkpoint and line.waiting:
                # A run that waited for this checkpoint has the next one ready, which is not to
                # wait for the writes that came meanwhile.
                for _ in range(_TICKS):
                    if leader.begun is None:
                        await asyncio.sleep(0)

    async def _settle(self, calls: Sequence[_Call], sent: Awaitable[Missing]) -> Exception | None:
        """Give calls their replies; store what each asks for by itself where something is wrong
        with one of them. A failure of the store is given back."""
        try:
            missing = await sent
        except _OF_ALL as error:
            _fail(calls, error)
            return error
        except Exception as error:  # noqa: BLE001 - each waiting caller gets it
            if len(calls) > 1:
                return await self._settle_apart(calls)
            _fail(calls, error)
            return None
        if missing and len(calls) > 1:
            return await self._settle_apart(calls)
        for _, future in calls:
            if not future.done():
                future.set_result(missing)
        return None

    async def _settle_apart(self, calls: Sequence[_Call]) -> Exception | None:
        for at, call in enumerate(calls):
            failure = None if _is_over(call) else await self._settle([call], self._sent([call]))
            if failure is not None:
                _fail(calls[at:], failure)
                return failure
        return None


def _is_over(call: _Call) -> bool:
    """Whether a call has its reply, or was cancelled."""
    return call[1].done()


def _fail(calls: Sequence[_Call], error: Exception) -> None:
    for _, future in calls:
        if not future.done():
            future.set_exception(for_another(error))


def _taken(line: _Line) -> list[_Call]:
    """Take from a line what goes together."""
    taken: list[_Call] = []
    size = commits = 0
    waiting, line.waiting = line.waiting, []
    for at, (request, future) in enumerate(waiting):
        if future.done():  # cancelled before it was sent, or failed with those before it
            continue
        size += sum(len(data) for _, data in request.chunks)
        commits += isinstance(request, Commit)
        is_full = len(taken) == _LARGEST or size > _BYTES or commits > 1
        if taken and (is_full or request.fence != taken[0][0].fence):
            line.waiting = waiting[at:]
            break
        taken.append((request, future))
    return taken
