"""A given aiosqlite connection: requests run in the connection's own thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

from holdfast.backends.base import Backend, Request
from holdfast.backends.sqlite.backend import SqliteBackend
from holdfast.backends.sqlite.connections import Injected, inherited
from holdfast.backends.sqlite.reclaim import PAUSE_SECONDS, Reclaim
from holdfast.drive import adrive
from holdfast.errors import ConfigurationError, StoreUnavailable
from holdfast.options import Options


def is_aiosqlite(connection: object) -> bool:
    """Whether this is an aiosqlite connection; the library need not be installed."""
    return type(connection).__module__.split(".")[0] == "aiosqlite"


class AiosqliteBackend(Backend):
    """Works through the loop that opened the connection; sync calls come from other threads."""

    def __init__(self, connection: Any, options: Options) -> None:
        self._connection = connection
        self._options = options
        self._inner: SqliteBackend | None = None
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    def _opened(self) -> SqliteBackend:
        if self._inner is None:
            self._inner = SqliteBackend(Injected(self._connection._conn), self._options)
        self._inner.clock = self.clock
        return self._inner

    def setup(self) -> None:
        self._wait(self.asetup())

    async def asetup(self) -> None:
        await self._in_thread(lambda: self._opened().setup())

    def execute(self, request: Request) -> Any:
        return self._wait(self.aexecute(request))

    async def aexecute(self, request: Request) -> Any:
        reply = await self._answer(request)
        if self._inner is not None:
            await adrive(self._inner.rest_of(request), self._answer_later)
        return reply

    async def _answer(self, request: Request | Reclaim) -> Any:
        return await self._in_thread(lambda: self._opened().answer(request))

    async def _answer_later(self, request: Reclaim) -> None:
        await asyncio.sleep(PAUSE_SECONDS)
        await self._answer(request)

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        if self._connection is None:
            raise ConfigurationError(
                "SQLite: the saver's connection was opened by the parent of this process, and "
                "SQLite forbids to use it here. Give the saver a path instead of a connection."
            )
        self._loop = self._loop or asyncio.get_running_loop()
        try:
            return await self._connection._execute(work)
        except ValueError as error:
            # What aiosqlite raises for a connection that is closed, or was never opened.
            raise StoreUnavailable(
                f"SQLite, the given aiosqlite connection: {error}. Keep it open for as long as "
                "the saver is used."
            ) from error

    def _wait(self, work: Any) -> Any:
        try:
            is_own = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            is_own = False
        if is_own or self._loop is None or not self._loop.is_running():
            work.close()
            raise ConfigurationError(
                "a sync method of a saver with an aiosqlite connection was called "
                + (
                    "on its event loop's own thread"
                    if is_own
                    else "while its event loop is not running"
                )
                + ". Use the async method, or give the saver a path: it then serves both sides."
            )
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except CancelledError as error:
            raise StoreUnavailable(
                "SQLite, the given aiosqlite connection: its event loop ended before the "
                "answer. Whether the request was stored is unknown; repeating it is safe."
            ) from error

    def close(self) -> None:
        """Nothing: the connection is its opener's to close."""

    async def aclose(self) -> None:
        """As `close`."""

    def abandon(self) -> None:
        """As `close`."""

    def after_fork(self) -> None:
        inherited.append(self._connection)
        self._connection, self._loop = None, None
