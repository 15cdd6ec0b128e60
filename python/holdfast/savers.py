"""The savers by store, with the ways in that the users of LangGraph's own savers know."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol
from typing_extensions import Self

from holdfast.backends.memory import MemoryBackend
from holdfast.backends.sqlite import (
    MEMORY,
    AiosqliteBackend,
    File,
    Injected,
    SqliteBackend,
    is_aiosqlite,
)
from holdfast.errors import ConfigurationError
from holdfast.options import Options
from holdfast.saver import Saver


class MemorySaver(Saver):
    """Keeps checkpoints in this process's memory, for tests and development.

    Args:
        serde: LangGraph's serializer protocol.
        options: See `holdfast.Options`.
    """

    def __init__(self, *, serde: SerializerProtocol | None = None, **options: Any) -> None:
        known = Options.of(options)
        super().__init__(MemoryBackend(known), known, serde=serde)


class SqliteSaver(Saver):
    """Keeps checkpoints in one SQLite file that several processes may share.

    Args:
        conn: A path, `":memory:"`, or an open connection of `sqlite3` (made with
            `check_same_thread=False` if more than one thread uses the saver) or of
            `aiosqlite`. A connection that was given stays its opener's to close.
        serde: LangGraph's serializer protocol.
        options: See `holdfast.Options`.

    Raises:
        ConfigurationError: `conn` is none of these, or an option does not exist.
    """

    def __init__(
        self,
        conn: str | os.PathLike[str] | sqlite3.Connection | Any = MEMORY,
        *,
        serde: SerializerProtocol | None = None,
        **options: Any,
    ) -> None:
        known = Options.of(options)
        if isinstance(conn, sqlite3.Connection):
            backend: Any = SqliteBackend(Injected(conn), known)
        elif is_aiosqlite(conn):
            backend = AiosqliteBackend(conn, known)
        elif isinstance(conn, (str, os.PathLike)):
            backend = SqliteBackend(File(conn, known), known)
        else:
            raise ConfigurationError(
                f"SqliteSaver takes a path or a connection, not {type(conn).__name__}"
            )
        super().__init__(backend, known, serde=serde)

    @classmethod
    def from_conn_string(cls, conn_string: str, **options: Any) -> Self:
        """A saver for a path or `":memory:"`, for use under `with` or `async with`."""
        return cls(conn_string, **options)


class RedisSaver(Saver):
    """Keeps checkpoints in Redis 6.2 or newer, or Valkey: no module is needed.

    Args:
        redis_url: `redis://`, `rediss://` or `unix://`; or a client of redis-py.
        client: A `redis.Redis` that was opened elsewhere; the async side runs it in threads
            unless `async_client` is given too.
        async_client: A `redis.asyncio.Redis`, to be used on its own event loop; the sync
            side goes through that loop unless `client` is given too. Clients that were given
            stay their opener's to close.
        redis_client: As `client` or `async_client`, whichever it is.
        connection_args: More arguments of redis-py's connections, for a URL; they win over it.
        checkpoint_prefix: As `prefix`.
        checkpoint_write_prefix: Is taken as LangGraph's own saver takes it, and not needed.
        serde: LangGraph's serializer protocol.
        options: See `holdfast.Options`.

    Raises:
        ConfigurationError: The URL or an option cannot be read, nothing to connect with was
            given, or redis-py and hiredis are not installed.
    """

    def __init__(
        self,
        redis_url: str | Any | None = None,
        *,
        client: Any = None,
        async_client: Any = None,
        redis_client: Any = None,
        connection_args: Mapping[str, Any] | None = None,
        checkpoint_prefix: str | None = None,
        checkpoint_write_prefix: str | None = None,
        serde: SerializerProtocol | None = None,
        **options: Any,
    ) -> None:
        try:
            from holdfast.backends.redis import RedisBackend, choose
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("redis", "hiredis"):
                raise
            raise ConfigurationError(
                "RedisSaver needs redis-py and hiredis, the extra holdfast[redis]: "
                "pip install redis hiredis"
            ) from error
        if checkpoint_prefix is not None:
            options["prefix"] = checkpoint_prefix
        known = Options.of(options)
        if redis_url is not None and not isinstance(redis_url, str):
            redis_url, redis_client = None, redis_url
        made = choose(redis_url, client, async_client, redis_client, connection_args)
        super().__init__(RedisBackend(made, known), known, serde=serde)

    @classmethod
    def from_conn_string(cls, redis_url: str | None = None, **options: Any) -> Self:
        """A saver for a URL, for use under `with` or `async with`."""
        return cls(redis_url, **options)


class PostgresSaver(Saver):
    """Keeps checkpoints in tables of a PostgreSQL database, version 12 or newer.

    Args:
        conn: `postgresql://user:password@host/database`, or a string as libpq reads it; or a
            connection or pool of psycopg 3 that was opened elsewhere, sync or async.
        pipe: Is taken as LangGraph's own saver takes it, and not needed.
        serde: LangGraph's serializer protocol.
        async_conn: An async connection or pool beside a sync one. Without it the async side works
            through `conn` in threads; without a sync one the sync side goes through the event
            loop. What was given stays its opener's to close, and a connection is used by one
            call at a time.
        options: See `holdfast.Options`; what is not one of these is a parameter of libpq
            (`connect_timeout`, `sslmode`).

    Raises:
        ConfigurationError: The URL or an option cannot be read, or psycopg is not installed.
    """

    def __init__(
        self,
        conn: str | Any | None = None,
        pipe: Any = None,
        serde: SerializerProtocol | None = None,
        *,
        async_conn: Any = None,
        **options: Any,
    ) -> None:
        postgres = _postgres()
        names = Options.names()
        known = Options.of({name: options[name] for name in options if name in names})
        parameters = {name: options[name] for name in options if name not in names}
        if isinstance(conn, str):
            if async_conn is not None:
                raise ConfigurationError("PostgresSaver takes a URL or connections, not both")
            clients: Any = postgres.FromUrl(conn, parameters, known)
        else:
            if parameters:
                # As for every other saver, the message lists the options that there are.
                Options.of(options)
            clients = postgres.given(conn, async_conn)
        super().__init__(postgres.PostgresBackend(clients, known), known, serde=serde)

    @classmethod
    def from_conn_string(cls, conn_string: str, *, pipeline: bool = False, **options: Any) -> Self:
        """A saver for a URL, for use under `with` or `async with`. Whatever `pipeline` says,
        what can share a round trip does."""
        return cls(conn_string, **options)

    @staticmethod
    def ddl(table: str = "holdfast") -> str:
        """The SQL that makes the tables, for those who run migrations themselves."""
        return str(_postgres().Tables(table).ddl())


def _postgres() -> Any:
    try:
        from holdfast.backends import postgres
    except ImportError as error:
        # psycopg without libpq raises an ImportError without a name.
        if (error.name or "psycopg").partition(".")[0] not in ("psycopg", "psycopg_pool"):
            raise
        raise ConfigurationError(
            "PostgresSaver needs psycopg and its pool, the extra holdfast[postgres]: "
            "pip install 'psycopg[binary,pool]'"
        ) from error
    return postgres


AsyncPostgresSaver = PostgresSaver
AsyncSqliteSaver = SqliteSaver
AsyncRedisSaver = RedisSaver
InMemorySaver = MemorySaver
