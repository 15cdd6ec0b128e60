"""A given aiosqlite connection: requests run in the connection's own thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from holdfast.backends.base import Backend, Request
from holdfast.backends.loops import LoopEnded, Owner
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
    """Works on every event loop. Sync calls come from other threads, through one that runs."""

    def __init__(self, connection: Any, options: Options) -> None:
        self._connection = connection
        self._options = options
        self._inner: SqliteBackend | None = None
        self._starting: asyncio.Future[Any] | None = None
        self._owner = Owner("an aiosqlite connection", "a path instead")

    def _opened(self) -> SqliteBackend:
        if self._inner is None:
            self._inner = SqliteBackend(Injected(self._connection._conn), self._options)
        self._inner.clock = self.clock
        return self._inner

    def setup(self) -> None:
        self._through_loop(self.asetup)

    async def asetup(self) -> None:
        await self._in_thread(lambda: self._opened().setup())

    def execute(self, request: Request) -> Any:
        return self._through_loop(lambda: self.aexecute(request))

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
        self._check_process()
        # aiosqlite answers on every loop: here it only matters that sync calls find one that runs.
        self._owner.is_elsewhere()
        try:
            await self._started()
            return await self._connection._execute(work)
        except ConfigurationError:
            raise  # which is a ValueError too
        except ValueError as error:
            # What aiosqlite raises for a connection that is closed, or was never opened.
            raise StoreUnavailable(
                f"SQLite, the given aiosqlite connection: {error}. Keep it open for as long as "
                "the saver is used."
            ) from error

    async def _started(self) -> None:
        """Open a connection that was given before anybody has."""
        # aiosqlite's own thread, which older versions are themselves.
        if self._starting is None:
            if getattr(self._connection, "_thread", self._connection).ident is not None:
                return
            self._starting = asyncio.ensure_future(self._connection)
        if not self._starting.done():
            await asyncio.shield(self._starting)

    def _through_loop(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        self._check_process()
        try:
            return self._owner.run(work)
        except LoopEnded as error:
            raise StoreUnavailable(
                f"SQLite: {error}, before it had the answer. Whether the request was stored is "
                "unknown; repeating it is safe."
            ) from error

    def _check_process(self) -> None:
        if self._connection is None:
            raise ConfigurationError(
                "SQLite: the saver's connection was opened by the parent of this process, and "
                "SQLite forbids to use it here. Give the saver a path instead of a connection."
            )

    def close(self) -> None:
        """Nothing: the connection is its opener's to close."""

    async def aclose(self) -> None:
        """As `close`."""

    def abandon(self) -> None:
        """As `close`."""

    def after_fork(self) -> None:
        inherited.append(self._connection)
        self._connection = None
