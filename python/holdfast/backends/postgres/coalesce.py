"""What changes a thread in one moment is one statement, as far as it can be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from holdfast.backends.base import Commit, Missing, Write
from holdfast.errors import StoreFull, StoreTimeout, StoreUnavailable, for_another

# Requests and bytes of one statement; the others wait for the next one.
_LARGEST = 256
_BYTES = 1 << 20

# Of the loop: so many after a checkpoint was stored LangGraph, which chains them, puts the next.
_TICKS = 3

# Failures of the store, not of a call.
_OF_ALL = (StoreUnavailable, StoreTimeout, StoreFull)

# In the place of a reply: the call is to lead.
_TURN: Any = object()

Change: TypeAlias = "Commit | Write"


@dataclass(slots=True)
class _Call:
    """A request, and what its caller waits for: the reply, or `_TURN`."""

    request: Change
    future: asyncio.Future[Any]

    @property
    def is_over(self) -> bool:
        """Whether it has its reply, or was cancelled."""
        return self.future.done()


@dataclass(slots=True)
class _Line:
    """The changes of one thread.

    Attributes:
        waiting: Those that were not sent yet.
        is_led: Whether one of the callers sends, or is about to.
        watch: Has one of the callers lead, in a tick or a few, where nobody does so before.
    """

    waiting: list[_Call] = field(default_factory=list)
    is_led: bool = False
    watch: asyncio.Handle | None = None


class ChangeLines:
    """What changes threads on one event loop, a line for each thread: the changes of one would wait
    for each other in the store, each for a flush of its own. LangGraph stores the writes of a
    superstep and the checkpoint that follows in the same tick. Only pending writes and one
    checkpoint, under one fence, go together.

    One of the callers leads: it sends for all that wait, until it has its own reply. Who brings a
    checkpoint leads at once, unless another does; pending writes wait for a tick, in which it may
    come. Each call has its own reply: a failure of one is no failure of its neighbours, and a call
    that is cancelled takes nothing from them: what it led is sent again by the next.

    Args:
        store: Stores what requests to one thread bring in one round trip. It can be repeated.
    """

    def __init__(self, store: Callable[[Sequence[Change]], Awaitable[Missing]]) -> None:
        self._store = store
        self._lines: dict[str, _Line] = {}

    async def send(self, request: Change) -> Missing:
        """The reply to one request."""
        thread_id = request.thread_id
        line = self._lines.get(thread_id)
        if line is None:
            line = self._lines[thread_id] = _Line()
        loop = asyncio.get_running_loop()
        call = _Call(request, loop.create_future())
        line.waiting.append(call)
        if not line.is_led:
            if isinstance(request, Commit):
                return await self._lead(thread_id, line, call)
            if line.watch is None:
                line.watch = loop.call_soon(self._watch, thread_id, line, 0)
        try:
            reply: Missing = await call.future
        except asyncio.CancelledError:
            if not call.future.cancelled() and call.future.result() is _TURN:
                self._pass_on(thread_id, line)
            raise
        if reply is not _TURN:
            return reply
        call.future = loop.create_future()
        return await self._lead(thread_id, line, call)

    async def _lead(self, thread_id: str, line: _Line, own: _Call) -> Missing:
        """Send what waits until there is a reply to one's own call."""
        line.is_led = True
        if line.watch is not None:
            line.watch.cancel()
            line.watch = None
        calls: list[_Call] = []
        try:
            while not own.is_over:
                calls = _taken(line)
                behind = list(line.waiting)
                failure = await self._settle(calls)
                if failure is not None:
                    # They have waited for the store as long as those that were sent.
                    _fail(behind, failure)
        except BaseException:
            # Cancelled, as all calls are when the loop ends, or closed with it.
            if own.is_over:
                own.future.exception()  # of which nobody is to hear
            line.waiting[:0] = [call for call in calls if call is not own and not call.is_over]
            raise
        finally:
            # A run that waited for a checkpoint has the next one ready, which is not to wait for
            # the writes that came meanwhile.
            had_checkpoint = any(isinstance(call.request, Commit) for call in calls)
            self._pass_on(thread_id, line, _TICKS if had_checkpoint else 0)
        reply: Missing = own.future.result()
        return reply

    def _pass_on(self, thread_id: str, line: _Line, ticks: int = 0) -> None:
        """Have another caller lead, in so many ticks if none does so before; forget the line where
        nobody waits."""
        line.is_led = False
        following = next((call for call in line.waiting if not call.is_over), None)
        if following is None:
            del self._lines[thread_id]
            return
        loop = following.future.get_loop()
        if loop.is_closed():
            return
        if ticks:
            line.watch = loop.call_soon(self._watch, thread_id, line, ticks - 1)
        else:
            line.is_led = True
            following.future.set_result(_TURN)

    def _watch(self, thread_id: str, line: _Line, ticks: int) -> None:
        line.watch = None
        self._pass_on(thread_id, line, ticks)

    async def _settle(self, calls: Sequence[_Call]) -> Exception | None:
        """Store what calls ask for; each by itself where something is wrong with one of them. A
        failure of the store is given back."""
        try:
            missing = await self._store([call.request for call in calls])
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
        for call in calls:
            if not call.is_over:
                call.future.set_result(missing)
        return None

    async def _settle_apart(self, calls: Sequence[_Call]) -> Exception | None:
        for at, call in enumerate(calls):
            failure = None if call.is_over else await self._settle([call])
            if failure is not None:
                _fail(calls[at:], failure)
                return failure
        return None


def _fail(calls: Sequence[_Call], error: Exception) -> None:
    for call in calls:
        if not call.is_over:
            call.future.set_exception(for_another(error))


def _taken(line: _Line) -> list[_Call]:
    """Take from a line what goes together."""
    taken: list[_Call] = []
    size = commits = 0
    waiting, line.waiting = line.waiting, []
    for at, call in enumerate(waiting):
        if call.is_over:  # cancelled before it was sent, or failed with those before it
            continue
        request = call.request
        size += sum(len(data) for _, data in request.chunks)
        commits += isinstance(request, Commit)
        is_full = len(taken) == _LARGEST or size > _BYTES or commits > 1
        if taken and (is_full or request.fence != taken[0].request.fence):
            line.waiting = waiting[at:]
            break
        taken.append(call)
    return taken
