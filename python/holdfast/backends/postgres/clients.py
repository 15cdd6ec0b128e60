"""Where round trips are made: over pools of its own, or connections and pools that were given."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from holdfast.backends.eras import Eras
from holdfast.backends.loops import running_loop
from holdfast.backends.postgres.conninfo import address, parsed
from holdfast.backends.postgres.link import Link
from holdfast.backends.postgres.loop_connections import LoopConnections
from holdfast.backends.postgres.pooled import Pooled
from holdfast.backends.postgres.statement import Statement
from holdfast.backends.postgres.trip import Preparing, Session
from holdfast.errors import for_another
from holdfast.options import Options

# Seconds that a request waits for a connection of the pool before it is looked why.
_PATIENCE = 0.5


class Clients(ABC):
    """Where round trips are made. One object serves threads and event loops."""

    size: int
    """Connections that there may be."""

    @property
    @abstractmethod
    def where(self) -> str:
        """The server, for messages: never with a password."""

    @abstractmethod
    def send(self, statements: Sequence[Statement]) -> list[Any]:
        """Make a round trip, blocking."""

    @abstractmethod
    async def asend(self, statements: Sequence[Statement]) -> list[Any]:
        """Make a round trip without blocking the running loop."""

    def is_ready(self) -> bool:
        """Whether `asend` on the running loop would send at once, with nothing to wait for."""
        return False

    may_move = True
    """Whether another attempt may reach another server."""

    @abstractmethod
    def stats(self) -> Mapping[str, int]:
        """Figures of the pools."""

    @abstractmethod
    def close(self) -> None:
        """Close what was opened here."""

    def abandon(self) -> None:
        """As `close`, when nobody uses it any more; never waits for a thread that runs."""
        self.close()

    @abstractmethod
    async def aclose(self) -> None:
        """As `close`; what belongs to the running loop is closed on return."""

    @abstractmethod
    def drop(self) -> list[Any]:
        """In a forked child: forget all connections; what must not be collected there."""


def can_await(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether psycopg can be asynchronous on a loop: not on that which Windows has by default."""
    proactor = getattr(asyncio, "ProactorEventLoop", None)
    return proactor is None or not isinstance(loop, proactor)


class FromUrl(Clients):
    """Pools of its own: one for all threads, and one for each event loop.

    Args:
        conninfo: A URL, or a string as libpq reads it.
        arguments: More of libpq's parameters.
        options: `pool_size`, `prepared_statements` and `reply_timeout` are heeded here.

    Raises:
        ConfigurationError: `conninfo` cannot be read.
    """

    def __init__(self, conninfo: str, arguments: Mapping[str, Any], options: Options) -> None:
        known = parsed(conninfo, arguments)
        self._where = address(known)
        self._conninfo = make_conninfo(**known)
        self.size = options.pool_size
        self._preparing = Preparing(options.prepared_statements)
        self._reply_timeout = options.reply_timeout
        self._eras = Eras()
        self._opening = threading.Lock()
        self._pool: ConnectionPool[Pooled] | None = None
        self._loops: dict[asyncio.AbstractEventLoop, LoopConnections] = {}

    def _kind_of_connection(self) -> type[Pooled]:
        """A kind of connections of which none was made."""
        made: Any = weakref.WeakValueDictionary
        how = {
            "preparing": self._preparing,
            "era": self._eras.now,
            "reply_timeout": self._reply_timeout,
            "made": made(),
        }
        return type("Connection", (Pooled,), how)

    @property
    def where(self) -> str:
        return self._where

    def _opened(self) -> ConnectionPool[Pooled]:
        pool = self._pool
        if pool is not None and _kind_of(pool).era.is_over:
            self._leave(pool)
            pool = None
        if pool is None:
            with self._opening:
                pool = self._pool
                if pool is None:
                    # Connections are made as they are needed. A failure to connect is not kept
                    # trying at: who asks next tries again.
                    pool = ConnectionPool(
                        self._conninfo,
                        connection_class=self._kind_of_connection(),
                        kwargs={"autocommit": True},
                        min_size=0,
                        max_size=self.size,
                        timeout=_PATIENCE,
                        reconnect_timeout=0,
                        open=False,
                    )
                    pool.open()
                    self._pool = pool
        return pool

    def send(self, statements: Sequence[Statement]) -> list[Any]:
        pool = self._opened()
        try:
            connection = self._taken(pool)
        except PoolClosed:  # meanwhile, by `close`: a call that comes later opens another
            return self.send(statements)
        try:
            return connection.exchange(statements)
        finally:
            if connection.session.is_left:
                self._leave(pool)
            pool.putconn(connection)

    def _taken(self, pool: ConnectionPool[Pooled]) -> Pooled:
        """A connection of the pool for the caller alone.

        Raises:
            PoolTimeout: All were in use for too long.
            Unreached: None could be made.
            PoolClosed: Meanwhile.
        """
        while True:
            begun = time.monotonic()
            try:
                connection = pool.getconn()
                for _ in range(self.size):
                    if connection.session.is_alive:
                        break
                    pool.putconn(connection)
                    connection = pool.getconn()
            except PoolTimeout:
                if not _is_empty(pool):
                    raise
                refused = _kind_of(pool).refused
                if refused is not None and refused[0] >= begun:
                    error = for_another(refused[1])
                    raise error from error.__cause__
                # The pool is still connecting: none is made beside it, which would be too many.
            else:
                return connection

    def _leave(self, pool: ConnectionPool[Pooled]) -> None:
        """Close a pool whose connections lead to a server that is not the primary, once: those that
        are in use when they are put back. Who waits for one of them asks the next pool."""
        with self._opening:
            if self._pool is not pool:
                return
            self._pool = None
        _close(pool, waits=not threading.main_thread().is_alive())

    async def asend(self, statements: Sequence[Statement]) -> list[Any]:
        loop = asyncio.get_running_loop()
        opened = self._loops.get(loop)
        if opened is None:
            if not can_await(loop):
                return await asyncio.to_thread(self.send, statements)
            self._reap()
            opened = self._loops[loop] = LoopConnections(self._connected, self.size, _PATIENCE)
            await opened.begin()
        link = await opened.take()
        try:
            return await link.exchange(statements)
        finally:
            opened.give(link)

    def is_ready(self) -> bool:
        opened = self._loops.get(asyncio.get_running_loop())
        return opened is not None and opened.is_ready

    async def _connected(self) -> Link:
        connect: Any = psycopg.AsyncConnection.connect
        era = self._eras.now
        connection = await connect(self._conninfo, autocommit=True)
        try:
            return Link(Session(connection, self._preparing, era), self._reply_timeout)
        except BaseException:
            await connection.close()
            raise

    def stats(self) -> Mapping[str, int]:
        pool = self._pool
        figures = {} if pool is None or pool.closed else pool.get_stats()
        loops = [opened for opened in list(self._loops.values()) if not opened.is_closed]
        return {
            "pool_size": figures.get("pool_size", 0) + sum(one.size for one in loops),
            "pool_idle": figures.get("pool_available", 0) + sum(one.idle for one in loops),
            "pool_waiting": figures.get("requests_waiting", 0) + sum(one.waiting for one in loops),
        }

    def _reap(self) -> None:
        """Close what was opened on loops that were closed without a word."""
        for loop in list(self._loops):
            opened = self._loops.pop(loop, None) if loop.is_closed() else None
            if opened is not None:
                opened.abandon()

    def close(self) -> None:
        self._end(waits=running_loop() is None)

    def abandon(self) -> None:
        # Called by the garbage collector, perhaps in a thread of the pool, which cannot wait for
        # itself. At exit no other thread can be started.
        self._end(waits=not threading.main_thread().is_alive())

    def _end(self, *, waits: bool) -> None:
        self._reap()
        pool, self._pool = self._pool, None
        if pool is not None:
            _close(pool, waits=waits)
        for loop in list(self._loops):
            opened = self._loops.pop(loop, None)
            if opened is None:
                continue
            if loop.is_running() and loop is not running_loop():
                asyncio.run_coroutine_threadsafe(opened.aclose(), loop)
            else:
                opened.close()

    async def aclose(self) -> None:
        opened = self._loops.pop(asyncio.get_running_loop(), None)
        if opened is not None:
            await opened.aclose()
        await asyncio.to_thread(self.close)

    def drop(self) -> list[Any]:
        inherited = [self._pool, *self._loops.values()]
        self._pool, self._opening = None, threading.Lock()
        self._loops = {}
        return inherited


def _close(pool: ConnectionPool[Any], *, waits: bool) -> None:
    """Close a pool, and wait for its threads, or have another thread do so."""
    if waits:
        pool.close()
    else:
        threading.Thread(target=pool.close).start()


def _kind_of(pool: ConnectionPool[Any]) -> type[Pooled]:
    """The class of a pool's connections, and of no other's."""
    kind: Any = pool.connection_class
    return kind  # type: ignore[no-any-return]


def _is_empty(pool: ConnectionPool[Any]) -> bool:
    """Whether no connection is open: the pool counts those that it is about to make."""
    made = [reference() for reference in _kind_of(pool).made.valuerefs()]
    return all(connection is None or connection.closed for connection in made)
