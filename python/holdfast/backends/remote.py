"""Requests as round trips to a server, each tried again while there is hope."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Awaitable, Generator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from holdfast.backends.attempts import Attempts
from holdfast.backends.base import Backend, Request
from holdfast.options import Options

T = TypeVar("T")

# Seconds for which an operation is remembered beyond those in which it may be repeated.
_SLACK = 3

_inherited: list[Any] = []
"""Connections of a parent process: to collect them here would end them there."""


class Clients(Protocol):
    """Where round trips are made."""

    @property
    def where(self) -> str: ...
    def send(self, sent: Any, /) -> list[Any]: ...
    async def asend(self, sent: Any, /) -> list[Any]: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...
    async def aclose(self) -> None: ...
    def drop(self) -> list[Any]: ...


class Pause(float):
    """Seconds to wait before the next attempt."""


IO: TypeAlias = Generator["Sequence[Any] | Pause", Any, T]
"""What is left to do for a side: make a round trip, or wait."""


class RemoteBackend(Backend):
    """What the backends of servers share. Answers are generators that yield what is sent in one
    round trip, and are sent the replies.

    Args:
        clients: Where round trips are made.
        options: `retry_budget` is heeded here.
    """

    def __init__(self, clients: Clients, options: Options) -> None:
        self._clients = clients
        self._options = options
        self._retries = 0

    @property
    def _keep(self) -> int:
        """Seconds for which an operation is remembered at least."""
        return int(self._options.retry_budget) + _SLACK

    def stats(self) -> Mapping[str, int]:
        return {"retries": self._retries}

    def close(self) -> None:
        self._clients.close()

    async def aclose(self) -> None:
        await self._clients.aclose()

    def abandon(self) -> None:
        self._clients.abandon()

    def after_fork(self) -> None:
        _inherited.append(self._clients.drop())

    # --- the only two calls that differ ---

    def _io(self, wanted: Sequence[Any] | Pause) -> Any:
        if isinstance(wanted, Pause):
            return time.sleep(wanted)
        return self._clients.send(wanted)

    def _aio(self, wanted: Sequence[Any] | Pause) -> Awaitable[Any]:
        if isinstance(wanted, Pause):
            return asyncio.sleep(wanted)
        return self._clients.asend(wanted)

    # --- what both share ---

    def _made(
        self, trips: Generator[Sequence[Any], list[Any], T], request: Request | None
    ) -> IO[T]:
        """Make round trips, each tried again while its failure may pass."""
        try:
            sent = next(trips)
            while True:
                replies = yield from self._attempted(sent, request)
                sent = trips.send(replies)
        except StopIteration as end:
            result: T = end.value
            return result

    def _attempted(self, sent: Sequence[Any], request: Request | None) -> IO[list[Any]]:
        begun = time.monotonic()
        attempts = None
        while True:
            try:
                replies: list[Any] = yield sent
            except self._errors as error:
                failure: Exception = error
            else:
                found = self._failure_among(replies, sent)
                if found is None:
                    return replies
                failure = found
            if attempts is None:
                attempts = Attempts(self._options.retry_budget, begun, self._free)
            pause = attempts.pause(*self._judged(failure))
            if pause is None:
                where = self._describe(request)
                raise self._raised(failure, where, attempts.count, attempts.seconds) from failure
            self._retries += 1
            sent = self._again(sent, failure)
            yield Pause(pause)

    def _describe(self, request: Request | None) -> str:
        # A copy fails on the thread that it would change.
        thread_id = getattr(request, "thread_id", getattr(request, "target_thread_id", None))
        where = self._clients.where
        return where if thread_id is None else f"{where}, thread {thread_id!r}"

    # --- what a driver says, and means ---

    _errors: tuple[type[Exception], ...]
    """What a round trip that failed raises."""

    _free: Mapping[str, int]
    """As `Attempts` takes it."""

    @abstractmethod
    def _judged(self, failure: Exception) -> tuple[bool, str]:
        """Whether a failure may pass, and its name among the free ones."""

    @abstractmethod
    def _raised(self, failure: Exception, where: str, attempts: int, seconds: float) -> Exception:
        """The error for the caller."""

    def _failure_among(self, replies: Sequence[Any], sent: Sequence[Any]) -> Exception | None:
        """A failure that stands in the place of a reply."""
        return None

    def _again(self, sent: Sequence[Any], failure: Exception) -> Sequence[Any]:
        """What is sent at the next attempt."""
        return sent
