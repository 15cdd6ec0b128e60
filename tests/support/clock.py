"""A store whose time a test has go on: moved where it is the process's, waited for where it is the
server's."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import holdfast
import pytest
from holdfast.backends import base
from holdfast.backends.base import Fence

from support.backends import Backend, opened
from support.requests import child, forget, made, parent, state, write

LONG = 100.0
"""Seconds that no test waits for: for what is only looked at, or still there."""

_HELD = ("threads", "tombstones", "leases")


class Asked:
    """A saver's backend, asked from the side that the mode names."""

    def __init__(self, saver: holdfast.Saver, mode: str) -> None:
        self.saver = saver
        self.backend = saver._live.backend
        self._mode = mode

    async def __call__(self, request: Any) -> Any:
        if self._mode == "async":
            return await self.backend.aexecute(request)
        return await asyncio.to_thread(self.backend.execute, request)

    async def refuses(self, error: type[Exception], *requests: Any) -> None:
        """Each request is refused with the error that names its thread, also when it is made again,
        and nothing of it is stored."""
        for request in requests:
            target = getattr(request, "target_thread_id", None)
            thread = request.thread_id if target is None else target
            before = await self.state(thread)
            for _ in range(2):
                with pytest.raises(error, match=re.escape(repr(thread))):
                    await self(request)
            assert await self.state(thread) == before

    async def state(self, thread: str = "t") -> Any:
        """All that is stored of a thread, with its epoch; None where there is nothing."""
        return await asyncio.to_thread(state, self.backend.execute, thread)

    async def row(self, thread: str = "t") -> Any:
        """The thread as it is listed; None where it is not."""
        rows = await self(base.Threads(1000, prefix=thread))
        return next((row for row in rows if row.thread_id == thread), None)

    async def listed(self, limit: int = 1000, **how: Any) -> list[str]:
        """The ids of all threads in the order in which they are listed, page by page."""
        found: list[str] = []
        after = None
        while True:
            rows = await self(base.Threads(limit, after, **how))
            found += [row.thread_id for row in rows]
            if len(rows) < limit:
                return found
            after = (rows[-1].updated, rows[-1].thread_id)

    async def visited(self, limit: int = 1000) -> dict[str, base.Visited]:
        """What a sweep comes by, in one round."""
        found: dict[str, base.Visited] = {}
        cursor = None
        while True:
            page, cursor = await self(base.Visit(cursor, limit))
            found.update((one.thread_id, one) for one in page)
            if cursor is None:
                return found


class Store:
    """One store, its time, and the savers that are on it.

    Attributes:
        is_moved: Whether time goes on by `later` alone, and is exact.
        ttl: Seconds that a test can have run out.
    """

    def __init__(self, backend: Backend, folder: Path, mode: str, stack: AsyncExitStack) -> None:
        self._backend, self._folder, self._mode, self._stack = backend, folder, mode, stack
        self._is_memory = backend.url(folder).startswith("memory:")
        self._first: Any = None
        # Whole seconds, of which floats count without rounding.
        self._milliseconds = int(time.time()) * 1000
        self.is_moved = backend.url(folder).startswith(("memory:", "sqlite:"))
        self.ttl = LONG if self.is_moved else 0.3

    async def open(self, **options: Any) -> Asked:
        """A further saver on the store."""
        saver_of = opened(self._backend, self._folder, self._mode, **options)
        calls = await self._stack.enter_async_context(saver_of)
        backend: Any = calls.saver._live.backend
        if self.is_moved:
            backend.clock = self.now
        if self._is_memory and self._first is not None:
            # One is all that a process can open; what several would do to it is its contract too.
            for name in _HELD:
                setattr(backend._state, name, getattr(self._first._state, name))
            backend._lock = self._first._lock
        self._first = self._first or backend
        return Asked(calls.saver, self._mode)

    def now(self) -> float:
        """Seconds since 1970, by the clock that the store goes by."""
        return self._milliseconds / 1000 if self.is_moved else time.time()

    def milliseconds(self) -> int:
        return int(self.now() * 1000)

    async def later(self, seconds: float) -> None:
        """So many seconds pass; where they are waited for, some more."""
        if self.is_moved:
            self._milliseconds += round(seconds * 1000)
        else:
            assert seconds < 2, "longer than a test should wait"
            await asyncio.sleep(seconds + 0.004)

    async def moment(self) -> int:
        """A millisecond that is after all before and before all after it."""
        await self.later(0.002)
        moment = self.milliseconds()
        await self.later(0.002)
        return moment


@asynccontextmanager
async def timed(backend: Backend, folder: Path, mode: str) -> AsyncIterator[Store]:
    """A new store; what is opened on it is closed at the end."""
    async with AsyncExitStack() as stack:
        yield Store(backend, folder, mode, stack)


def expires_after(row: base.ThreadRow, seconds: float) -> bool:
    """Whether a thread expires so many seconds after its last write, to the millisecond."""
    return row.expires is not None and abs(row.expires - row.updated - seconds * 1000) <= 1


async def expired(store: Store, *threads: str) -> Asked:
    """Threads that have expired, each with a checkpoint, writes and chunks."""
    lasting, passing = await store.open(), await store.open(ttl=store.ttl)
    for thread in threads:
        for number in (1, 2):
            await lasting(made(thread, number))
    for thread in threads:
        await passing(write(thread))
    await store.later(store.ttl)
    return passing


async def deleted(store: Store, ask: Asked) -> int:
    """Delete a thread with two checkpoints; when these were made."""
    before = await store.moment()
    await ask(made())
    await ask(child(2, parent(1, before)))
    await ask(write(number=2))
    await store.moment()
    assert await ask(forget()) is True
    return before


async def taken(ask: Asked, seconds: float = LONG, thread: str = "t") -> Fence:
    """Take a lease; changes under it prolong it by as much."""
    token, lasts = await ask(base.Lease(thread, seconds))
    assert isinstance(token, int)
    assert lasts == pytest.approx(seconds, abs=0.01)
    return Fence(token, seconds)


async def remaining(ask: Asked, thread: str = "t") -> float:
    """How long the lease lasts that another has."""
    token, seconds = await ask(base.Lease(thread, LONG))
    assert token is None, "nobody has it"
    assert seconds > 0
    return seconds
