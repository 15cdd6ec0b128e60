"""Connections and pools that the user opened, and closes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolClosed

from holdfast.backends.loops import Owner
from holdfast.backends.postgres.clients import Clients
from holdfast.backends.postgres.conninfo import address
from holdfast.backends.postgres.errors import kind_of
from holdfast.backends.postgres.exchange import aexchange, exchange
from holdfast.backends.postgres.statement import Statement
from holdfast.backends.postgres.within import telling, told
from holdfast.errors import ConfigurationError

Given = psycopg.Connection[Any] | ConnectionPool[Any]
AsyncGiven = psycopg.AsyncConnection[Any] | AsyncConnectionPool[Any]


class GivenClients(Clients):
    """A connection or pool for one side or both. With one alone, the other side works through it.

    Neither a connection's row factory nor its autocommit is relied on: in a transaction of its
    user's, a request is a part of it.

    Args:
        conn: For the sync side; the async side runs it in threads if there is no other.
        async_conn: For the async side, on the event loop that uses it first; the sync side goes
            through that loop if there is no other.

    Raises:
        ConfigurationError: Neither was given, or one is not what psycopg makes.
    """

    def __init__(self, conn: Given | None, async_conn: AsyncGiven | None) -> None:
        self._conn = conn
        self._async_conn = async_conn
        pool = conn if conn is not None else async_conn
        self.size = getattr(pool, "max_size", 1)
        self._lock = threading.Lock()
        self._async_lock: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        self.may_move = not isinstance(pool, (psycopg.Connection, psycopg.AsyncConnection))
        self._is_inherited = False
        self._owner = Owner("an async connection or pool", "a sync one as well")

    @property
    def where(self) -> str:
        conn: Any = self._conn if self._conn is not None else self._async_conn
        if isinstance(conn, (psycopg.Connection, psycopg.AsyncConnection)):
            if conn.closed:
                return "the given connection"
            return address(conn.info.get_parameters())
        return f"the given pool {conn.name!r}"

    @contextmanager
    def _borrowed(self) -> Iterator[psycopg.Connection[Any]]:
        conn: Any = self._conn
        if isinstance(conn, psycopg.Connection):
            with self._lock:
                _check_open(conn)
                with telling(conn):
                    yield conn
        else:
            with conn.connection() as connection:
                try:
                    yield connection
                except psycopg.Error as error:
                    if kind_of(error).moves:
                        connection.close()  # in its place the pool makes another
                    raise

    @asynccontextmanager
    async def _aborrowed(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        conn: Any = self._async_conn
        if isinstance(conn, psycopg.AsyncConnection):
            loop = asyncio.get_running_loop()
            if self._async_lock is None or self._async_lock[0] is not loop:
                self._async_lock = loop, asyncio.Lock()
            async with self._async_lock[1]:
                _check_open(conn)
                with telling(conn):
                    yield conn
        else:
            async with conn.connection() as connection:
                try:
                    yield connection
                except psycopg.Error as error:
                    if kind_of(error).moves:
                        await connection.close()
                    raise

    def send(self, statements: Sequence[Statement]) -> list[Any]:
        self._check_process()
        if self._conn is None:
            return self._owner.run(lambda: self.asend(statements))
        with self._borrowed() as connection:
            return told(connection, exchange(connection, statements))

    async def asend(self, statements: Sequence[Statement]) -> list[Any]:
        self._check_process()
        if self._async_conn is None:
            return await asyncio.to_thread(self.send, statements)
        if self._owner.is_elsewhere():
            return await asyncio.to_thread(self._owner.run, lambda: self.asend(statements))
        async with self._aborrowed() as connection:
            return told(connection, await aexchange(connection, statements))

    def _check_process(self) -> None:
        if self._is_inherited:
            raise ConfigurationError(
                "the connection or pool was opened before a fork and belongs to the parent: open "
                "one, and a saver, in the child"
            )

    def stats(self) -> Mapping[str, int]:
        return {}

    def close(self) -> None:
        """Who opened them closes them."""

    async def aclose(self) -> None:
        """As `close`."""

    def drop(self) -> list[Any]:
        self._is_inherited = True
        return [self._conn, self._async_conn]


def _check_open(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    # Not to be tried again, as a pool's would be: nobody opens it anew.
    if connection.closed:
        raise PoolClosed("the connection is closed")


def given(conn: Any, async_conn: Any) -> GivenClients:
    """What was given, each on its side.

    Raises:
        ConfigurationError: One is not what psycopg makes.
    """
    if isinstance(conn, (psycopg.AsyncConnection, AsyncConnectionPool)) and async_conn is None:
        conn, async_conn = None, conn
    for one, kinds, name in (
        (conn, (psycopg.Connection, ConnectionPool), "conn"),
        (async_conn, (psycopg.AsyncConnection, AsyncConnectionPool), "async_conn"),
    ):
        if one is not None and not isinstance(one, kinds):
            raise ConfigurationError(
                f"{name} is a {' or '.join(kind.__name__ for kind in kinds)} of psycopg 3, not "
                f"{type(one).__module__}.{type(one).__name__}"
            )
    if conn is None and async_conn is None:
        raise ConfigurationError("PostgresSaver takes a URL, a connection or a pool")
    return GivenClients(conn, async_conn)
