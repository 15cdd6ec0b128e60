"""The clients of redis-py: made from a URL or given, one side or both."""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qs

import redis
import redis.asyncio
from redis import exceptions
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import URL_QUERY_ARGUMENT_PARSERS
from redis.retry import Retry

from holdfast.backends.eras import Era, Eras
from holdfast.backends.redis.coalesce import Links
from holdfast.backends.redis.errors import heed
from holdfast.backends.redis.scripts import Command, pack
from holdfast.errors import ConfigurationError
from holdfast.options import Options
from holdfast.urls import check_redis_url, unreadable

# redis-py would read its own version from the disk for each connection, on the event loop,
# and tell the server in two more round trips.
_ANONYMOUS: dict[str, Any] = (
    {"driver_info": None}
    if find_spec("redis.driver_info")
    else {"lib_name": None, "lib_version": None}
)
# Seconds for a connection, and for a reply, unless the URL says other ones.
_CONNECT_TIMEOUT = 5.0
_REPLY_TIMEOUT = 5.0


def exchange(client: redis.Redis, commands: Sequence[Command], era: Era) -> list[Any]:
    """The replies to commands in one round trip; an error that is replied stands in its place.

    Args:
        era: Ends with the answer of a server that is not the primary; so does the connection.

    Raises:
        redis.ConnectionError, redis.TimeoutError, OSError: No reply came.
    """
    # redis-py does not type what its own pipelines are made of.
    pool: Any = client.connection_pool
    try:
        connection = pool.get_connection()
    except exceptions.RedisError:
        raise
    except BaseException:
        # A provider of credentials failed, or took too long. redis-py keeps the connection that
        # never said who it is nor chose its database, and would give it next.
        with suppress(TypeError):  # blocking pools before redis-py 7 close all or none
            pool.disconnect(inuse_connections=False)
        raise
    is_whole = False
    try:
        connection.send_packed_command([pack(commands)])
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(connection.read_response(disable_decoding=True))
            except exceptions.ResponseError as error:
                replies.append(error)
                heed(error, era)
    except exceptions.BusyLoadingError as error:
        heed(error, era)
        raise
    else:
        is_whole = not era.is_over
        return replies
    finally:
        if not is_whole:
            connection.disconnect()
        pool.release(connection)


class Clients(ABC):
    """Where round trips are made. One object serves threads and event loops."""

    together = True
    """Whether calls of one tick share a pipeline."""

    @property
    @abstractmethod
    def where(self) -> str:
        """The server, for messages: never with a password."""

    @abstractmethod
    def send(self, commands: Sequence[Command]) -> list[Any]:
        """Make a round trip, blocking."""

    @abstractmethod
    async def asend(self, commands: Sequence[Command]) -> list[Any]:
        """Make a round trip on the running loop."""

    @abstractmethod
    def close(self) -> None:
        """Close what was opened here."""

    def abandon(self) -> None:
        """As `close`, when nobody uses it any more."""
        self.close()

    @abstractmethod
    async def aclose(self) -> None:
        """As `close`; what belongs to the running loop is closed on return."""

    @abstractmethod
    def drop(self) -> list[Any]:
        """In a forked child: forget all connections; what must not be collected there."""


class _Loop:
    """What one event loop opened: closed with the loop, or before."""

    def __init__(self, client: redis.asyncio.Redis, line: Links) -> None:
        self._client = client
        self.line = line
        self.is_over = False
        self._life = self._until_closed()

    async def open(self) -> None:
        # asyncio closes the generators of a loop before the loop itself.
        await anext(self._life)

    async def _until_closed(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.close()

    async def aclose(self) -> None:
        await self._life.aclose()

    async def close(self) -> None:
        self.is_over = True
        await self.line.close()
        await self._client.aclose()
        await self._client.connection_pool.disconnect()


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all threads share: a client, and the era of its connections."""

    client: redis.Redis
    era: Era

    def close(self) -> None:
        # Those that other threads use now are closed by them.
        self.client.connection_pool.disconnect(inuse_connections=False)


class FromUrl(Clients):
    """Clients of its own: one for all threads, and one for each event loop.

    Args:
        url: `redis://`, `rediss://` or `unix://`; in its query, arguments as below.
        arguments: Those of redis-py's connections; they win over the URL.

    Raises:
        ConfigurationError: The URL or an argument cannot be read.
    """

    def __init__(self, url: str, arguments: Mapping[str, Any] | None = None) -> None:
        check_redis_url(url)
        # Read here: redis-py before 8 decodes twice what stands in the query.
        self._url, _, query = url.partition("?")
        in_query = {name: values[0] for name, values in parse_qs(query).items()}
        self._arguments = _read({**in_query, **(arguments or {})})
        # Raised outside: the reason may show a part of the password, as its context, too.
        parsed = _parsed(self._url, {**_ANONYMOUS, **self._arguments})
        if parsed is None:
            raise unreadable()
        if (unknown := _unknown_argument(parsed)) is not None:
            raise ConfigurationError(f"neither holdfast nor redis-py has an option {unknown}")
        known = parsed.connection_kwargs
        self._where = address(known)
        self._timeout: float | None = known.get("socket_timeout", _REPLY_TIMEOUT)
        self._connect_timeout = known.get("socket_connect_timeout", _CONNECT_TIMEOUT)
        self._eras = Eras()
        self._shared: _Shared | None = None
        self._loops: dict[asyncio.AbstractEventLoop, _Loop] = {}

    @property
    def where(self) -> str:
        return self._where

    def _settings(self, **own: Any) -> dict[str, Any]:
        # Bytes as they are, the older protocol, which is enough, and no attempts of redis-py's
        # own: they are counted in `Attempts`.
        return {
            "protocol": 2,
            "socket_connect_timeout": self._connect_timeout,
            **_ANONYMOUS,
            **self._arguments,
            "decode_responses": False,
            **own,
        }

    def send(self, commands: Sequence[Command]) -> list[Any]:
        shared = self._shared
        if shared is None or shared.era.is_over:
            left, shared = shared, self._opened_for_threads()
            self._shared = shared
            if left is not None:
                left.close()
        try:
            return exchange(shared.client, commands, shared.era)
        finally:
            if self._shared is not shared:  # closed or left meanwhile, or another thread was first
                shared.close()

    def _opened_for_threads(self) -> _Shared:
        settings = self._settings(socket_timeout=self._timeout, retry=Retry(NoBackoff(), 0))
        pool = _pool(redis.ConnectionPool, self._url, settings)
        return _Shared(redis.Redis.from_pool(pool), self._eras.now)

    async def asend(self, commands: Sequence[Command]) -> list[Any]:
        loop = asyncio.get_running_loop()
        opened = self._loops.get(loop)
        if opened is None:
            self._reap()
            opened = self._loops[loop] = self._opened()
            await opened.open()
        elif opened.is_over:
            # The loop is closing its generators; another of them still has something to do.
            last = self._opened()
            try:
                return await last.line.send(commands)
            finally:
                await last.close()
        return await opened.line.send(commands)

    def _opened(self) -> _Loop:
        # The coalescer has one timer for a pipeline, redis-py one for each reply.
        settings = self._settings(socket_timeout=None, retry=AsyncRetry(NoBackoff(), 0))
        pool = _pool(redis.asyncio.ConnectionPool, self._url, settings)
        client = redis.asyncio.Redis.from_pool(pool)
        line = Links(client, self._timeout, self._eras, together=self.together)
        return _Loop(client, line)

    def _reap(self) -> None:
        """Close what was opened on loops that were closed without a word."""
        for loop in list(self._loops):
            opened = self._loops.pop(loop, None) if loop.is_closed() else None
            if opened is not None:
                opened.line.abandon()

    def close(self) -> None:
        self._reap()
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.close()
        for loop in list(self._loops):
            with suppress(RuntimeError):  # closed meanwhile
                if loop.is_running():
                    self._retire(loop)
                else:
                    # When it runs again; if it never does, as one that was closed without a word.
                    loop.call_soon_threadsafe(self._retire, loop)

    def _retire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close what was opened on a loop, in its next turns."""
        opened = self._loops.pop(loop, None)
        if opened is not None:
            asyncio.run_coroutine_threadsafe(opened.aclose(), loop)

    async def aclose(self) -> None:
        opened = self._loops.pop(asyncio.get_running_loop(), None)
        if opened is not None:
            await opened.aclose()
        self.close()

    def drop(self) -> list[Any]:
        inherited = [self._shared, *self._loops.values()]
        self._shared = None
        self._loops = {}
        return inherited


def _read(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for redis-py's connections; text is read as redis-py reads it in a URL.

    Raises:
        ConfigurationError: Shows no value: it may be a part of a password.
    """
    misplaced = sorted(arguments.keys() & {"serde", *Options.names()})
    if misplaced:
        name = misplaced[0]
        raise ConfigurationError(
            f"{name} is an option of holdfast, not of redis-py's connections: give it as an "
            f"argument, RedisSaver(url, {name}=...), or use holdfast.open(url), which reads it "
            "from the URL"
        )
    parsers: Mapping[str, Any] = URL_QUERY_ARGUMENT_PARSERS
    read, wrong = {}, []
    for name, value in arguments.items():
        parser: Any = parsers.get(name) if isinstance(value, str) else None
        try:
            read[name] = parser(value) if parser else value
        except (TypeError, ValueError):
            wrong.append(f"{name} is of type {parser.__name__}")
    if wrong:
        raise ConfigurationError(f"options for Redis cannot be read: {', '.join(wrong)}")
    return read


def _pool(kind: Any, url: str, settings: Mapping[str, Any]) -> Any:
    """A pool of connections. Where URL and settings differ the settings win: for redis-py it is
    the URL."""
    pool = kind.from_url(url, **settings)
    known = pool.connection_kwargs
    known.update({name: value for name, value in settings.items() if name in known})
    return pool


def _parsed(url: str, arguments: Mapping[str, Any]) -> redis.ConnectionPool | None:
    try:
        pool: redis.ConnectionPool = _pool(redis.ConnectionPool, url, arguments)
    except (ValueError, TypeError):
        return None
    return pool


def _unknown_argument(pool: redis.ConnectionPool) -> str | None:
    """The name of an argument that connections do not take."""
    try:
        pool.make_connection()
    except TypeError as error:
        # Python 3.13 goes on with what may have been meant.
        named = re.search("keyword argument ('.*?')", str(error))
        return named[1] if named else str(error)
    return None


def address(arguments: Mapping[str, Any]) -> str:
    """A server's name for messages, from the arguments of a connection."""
    database = arguments.get("db") or 0
    if "path" in arguments:
        return f"{arguments['path']}, database {database}"
    host = arguments.get("host", "localhost")
    return f"{host}:{arguments.get('port', 6379)}, database {database}"
