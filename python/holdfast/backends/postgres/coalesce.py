"""What changes a thread in one event loop tick, or while another change is under way, is one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from holdfast.backends.base import Commit, Missing, Write
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


class ChangeLines:
    """What changes threads on one event loop, a line for each thread: the changes of one would wait
    for each other in the store, each for a flush of its own. LangGraph stores the writes of a
    superstep and the checkpoint that follows in the same tick. Only pending writes and one
    checkpoint, under one fence, go together.

    Each call has its own reply: a failure of one is no failure of its neighbours, and a call that
    is cancelled takes nothing from them.

    Args:
        store: Stores what requests to one thread bring in one round trip.
    """

    def __init__(self, store: Callable[[Sequence[Change]], Awaitable[Missing]]) -> None:
        self._store = store
        self._waiting: dict[str, list[_Call]] = {}
        self._leaders: dict[str, asyncio.Task[None]] = {}
        self._under_way: dict[str, list[_Call]] = {}

    async def send(self, request: Change) -> Missing:
        """The reply to one request."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Missing] = loop.create_future()
        thread_id = request.thread_id
        self._waiting.setdefault(thread_id, []).append((request, future))
        if thread_id not in self._leaders:
            self._begin(thread_id)
        try:
            return await future
        except asyncio.CancelledError:
            self._leave(thread_id)
            raise

    def _begin(self, thread_id: str) -> None:
        leading = self._lead(thread_id)
        self._leaders[thread_id] = asyncio.get_running_loop().create_task(leading)

    def _leave(self, thread_id: str) -> None:
        """Wait no longer where nobody waits for what is under way."""
        calls = self._under_way.get(thread_id)
        if calls and all(future.done() for _, future in calls):
            self._leaders.pop(thread_id).cancel()
            del self._under_way[thread_id]
            if thread_id in self._waiting:
                self._begin(thread_id)

    async def _lead(self, thread_id: str) -> None:
        try:
            while calls := self._take(thread_id):
                self._under_way[thread_id] = calls
                await self._settle(calls)
                self._under_way.pop(thread_id, None)
                stored = any(isinstance(request, Commit) for request, _ in calls)
                if stored and thread_id in self._waiting:
                    # A run that waited for this checkpoint has the next one ready, which is not to
                    # wait for the writes that came meanwhile.
                    for _ in range(_TICKS):
                        await asyncio.sleep(0)
        finally:
            if self._leaders.get(thread_id) is asyncio.current_task():
                del self._leaders[thread_id]
                self._under_way.pop(thread_id, None)
                # The loop is ending.
                for _, future in self._waiting.pop(thread_id, []):
                    future.cancel()

    def _take(self, thread_id: str) -> list[_Call]:
        waiting = self._waiting.pop(thread_id, [])
        taken: list[_Call] = []
        size = commits = 0
        for at, (request, future) in enumerate(waiting):
            if future.done():  # cancelled before it was sent
                continue
            size += sum(len(data) for _, data in request.chunks)
            commits += isinstance(request, Commit)
            is_full = len(taken) == _LARGEST or size > _BYTES or commits > 1
            if taken and (is_full or request.fence != taken[0][0].fence):
                self._waiting[thread_id] = waiting[at:]
                break
            taken.append((request, future))
        return taken

    async def _settle(self, calls: Sequence[_Call]) -> None:
        """Store what calls ask for; each by itself where something is wrong with one of them."""
        try:
            missing = await self._store([request for request, _ in calls])
        except asyncio.CancelledError:
            for _, future in calls:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - each waiting caller gets it
            if len(calls) > 1 and not isinstance(error, _OF_ALL):
                await self._settle_apart(calls)
            for _, future in calls:
                if not future.done():
                    future.set_exception(for_another(error))
            return
        if missing and len(calls) > 1:
            await self._settle_apart(calls)
        for _, future in calls:
            if not future.done():
                future.set_result(missing)

    async def _settle_apart(self, calls: Sequence[_Call]) -> None:
        for call in calls:
            await self._settle([call])
