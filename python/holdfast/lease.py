"""One writer per thread: a lease, and under which one the code that runs right now writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from types import TracebackType
from typing import Any, TypeAlias, TypeVar, cast

from typing_extensions import Self

from holdfast.backends.base import Fence, Lease, Release
from holdfast.errors import LeaseHeld, LeaseLost
from holdfast.live import Live

_Method = TypeVar("_Method", bound=Callable[..., Any])
_Held: TypeAlias = "dict[tuple[int, str], Fence]"
_held: ContextVar[_Held] = ContextVar("holdfast_leases", default={})  # noqa: B039 - never changed

# Seconds between two attempts at a lease that another has.
_PAUSE = 0.05


def held_fence(live: Live, thread_id: str) -> Fence | None:
    """The lease on a thread that the running code holds."""
    return _held.get().get((id(live), thread_id))


def under_its_lease(method: _Method) -> _Method:
    """A method of a saver that writes under the leases of where it was taken from its saver.

    LangGraph takes `put_writes` when a run begins, and calls it in threads that know nothing of
    the run's context: those in which nodes that run beside each other have ended.
    """
    return cast(_Method, _UnderItsLease(method))


class _UnderItsLease:
    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method

    def __get__(self, saver: object | None, kind: type) -> Callable[..., Any]:
        method: Callable[..., Any] = self._method.__get__(saver, kind)
        held = _held.get()
        if saver is None or not held:
            return method

        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            before = _held.set({**held, **_held.get()})
            try:
                return method(*args, **kwargs)
            finally:
                _held.reset(before)

        return call


class ThreadLease:
    """The right to be a thread's only writer, for as long as the block runs.

    What runs inside the block writes under the lease, in tasks and threads that it starts too, as
    LangGraph does; all others are refused with `LeaseLost`, and read as always. Each write prolongs
    it. When it has run out and another has taken it, or has written, this one's writes are refused.

    Args:
        live: The saver's.
        thread_id: Whose lease.
        seconds: For which it lasts from each write on.
        wait: Seconds to wait while another has it.
    """

    def __init__(self, live: Live, thread_id: str, seconds: float, wait: float) -> None:
        if not seconds > 0:
            raise ValueError("a lease lasts a number of seconds above 0")
        self._live = live
        self.thread_id = thread_id
        self.seconds = seconds
        self._wait = wait
        self.token: int | None = None
        """Grows with each lease of the thread; None while this one is not held."""
        self._key = (id(live), thread_id)

    def renew(self) -> None:
        """Have it last `seconds` from now, in a step that takes long.

        Raises:
            LeaseLost: Another has it, or has written since it ran out.
        """
        self._check(self._live.execute(self._request()))

    async def arenew(self) -> None:
        """As `renew`."""
        self._check(await self._live.aexecute(self._request()))

    def __enter__(self) -> Self:
        end = self._begin()
        while True:
            token, left = self._live.execute(self._request())
            if token is not None:
                return self._hold(token)
            time.sleep(self._pause(end, left))

    async def __aenter__(self) -> Self:
        end = self._begin()
        while True:
            token, left = await self._live.aexecute(self._request())
            if token is not None:
                return self._hold(token)
            await asyncio.sleep(self._pause(end, left))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.execute(self._let_go())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._live.aexecute(self._let_go())

    def _begin(self) -> float:
        """When to give up."""
        if self.token is not None:
            raise RuntimeError(f"this lease of thread {self.thread_id!r} is held already")
        return time.monotonic() + self._wait

    def _pause(self, end: float, left: float) -> float:
        """Seconds to wait for the next attempt.

        Raises:
            LeaseHeld: It was waited for long enough.
        """
        remaining = end - time.monotonic()
        if remaining <= 0:
            raise LeaseHeld(
                f"thread {self.thread_id!r}: another writer holds its lease, for {left:.1f} s at "
                "least. Wait for it with saver.lease(thread_id, wait=seconds), or let the other "
                "one finish."
            )
        return min(_PAUSE, remaining)

    def _request(self) -> Lease:
        return Lease(self.thread_id, self.seconds, self.token)

    def _check(self, reply: tuple[int | None, float]) -> None:
        if reply[0] is None:
            raise LeaseLost(
                f"thread {self.thread_id!r}: the lease ran out, and another writer came. Begin "
                "again from the latest checkpoint."
            )

    def _hold(self, token: int) -> Self:
        self.token = token
        fence = Fence(token, self.seconds)
        _held.set({**_held.get(), self._key: fence})
        return self

    def _let_go(self) -> Release:
        token, self.token = self.token, None
        if token is None:
            raise RuntimeError(f"this lease of thread {self.thread_id!r} is not held")
        _held.set({key: fence for key, fence in _held.get().items() if key != self._key})
        return Release(self.thread_id, token)
