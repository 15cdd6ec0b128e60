"""A request in the writer's line."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from holdfast.backends.base import Request
from holdfast.backends.sqlite.reclaim import Reclaim
from holdfast.errors import StoreUnavailable


class Job:
    """A request on its way: its outcome, and the future of a loop that waits for it."""

    __slots__ = ("done", "error", "future", "reply", "request")

    def __init__(
        self, request: Request | Reclaim | None, future: asyncio.Future[Any] | None = None
    ) -> None:
        self.request = request
        self.future = future
        self.done = False
        self.reply: Any = None
        self.error: Exception | None = None

    def finish(self) -> None:
        self.done = True
        if self.future is not None:
            # A loop that has ended waits for nothing any more.
            with suppress(RuntimeError):
                self.future.get_loop().call_soon_threadsafe(self._settle, self.future)

    def _settle(self, future: asyncio.Future[Any]) -> None:
        if future.done():
            return  # cancelled: what was asked for is done all the same
        if self.error is not None:
            future.set_exception(self.error)
        else:
            future.set_result(self.reply)

    def outcome(self) -> Any:
        if not self.done:
            raise interrupted()
        if self.error is not None:
            raise self.error
        return self.reply


def interrupted() -> StoreUnavailable:
    """The error for a request whose writer was stopped in the midst of it."""
    return StoreUnavailable(
        "SQLite: the thread that was writing was interrupted. Whether the request was stored "
        "is unknown; repeating it is safe."
    )
