"""The clients of redis-py: made from a URL or given, one side or both."""

from __future__ import annotations

import asyncio
import concurrent.futures
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import redis
import redis.asyncio
from redis import exceptions
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from holdfast.backends.redis.coalesce import Coalescer, Links, Loans
from holdfast.backends.redis.scripts import Command, pack
from holdfast.errors import ConfigurationError
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
# Seconds after which a thread that waits for an event loop sees whether it still runs.
_PATIENCE = 0.2


def exchange(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    """The replies to commands in one round trip; an error that is replied stands in its place.

    Raises:
        redis.ConnectionError, redis.TimeoutError, OSError: No reply came.
    """
    # redis-py does not type what its own pipelines are made of.
    pool: Any = client.connection_pool
    connection = pool.get_connection()
    is_whole = False
    try:
        connection.send_packed_command([pack(commands)])
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(connection.read_response(disable_decoding=True))
            except exceptions.ResponseError as error:
                replies.append(error)
        is_whole = True
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
        self._life = self._until_closed()

    async def open(self) -> None:
        # asyncio closes the generators of a loop before the loop itself.
        await anext(self._life)

    async def _until_closed(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.line.close()
            await self._client.aclose()
            await self._client.connection_pool.disconnect()

    async def aclose(self) -> None:
        await self._life.aclose()


class FromUrl(Clients):
    """Clients of its own: one for all threads, and one for each event loop.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with the query that redis-py reads.
        arguments: More arguments for redis-py's connections.

    Raises:
        ConfigurationError: The URL cannot be read.
    """

    def __init__(self, url: str, arguments: Mapping[str, Any] | None = None) -> None:
        self._url = url
        self._arguments = dict(arguments or {})
        check_redis_url(url)
        # Raised outside: the reason may show a part of the password, as its context, too.
        parsed = _parsed(url, {**_ANONYMOUS, **self._arguments})
        if parsed is None:
            raise unreadable()
        if (unknown := _unknown_argument(parsed)) is not None:
            raise ConfigurationError(f"neither holdfast nor redis-py has an option {unknown}")
        known = parsed.connection_kwargs
        self._where = address(known)
        self._timeout: float | None = known.get("socket_timeout", _REPLY_TIMEOUT)
        self._connect_timeout = known.get("socket_connect_timeout", _CONNECT_TIMEOUT)
        self._client: redis.Redis | None = None
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = (
            weakref.WeakKeyDictionary()
        )

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
        client = self._client
        if client is None:
            client = redis.Redis.from_url(
                self._url,
                **self._settings(socket_timeout=self._timeout, retry=Retry(NoBackoff(), 0)),
            )
            self._client = client
        return exchange(client, commands)

    async def asend(self, commands: Sequence[Command]) -> list[Any]:
        loop = asyncio.get_running_loop()
        opened = self._loops.get(loop)
        if opened is None:
            self._reap()
            # The coalescer has one timer for a pipeline, redis-py one for each reply.
            client = redis.asyncio.Redis.from_url(
                self._url,
                **self._settings(socket_timeout=None, retry=AsyncRetry(NoBackoff(), 0)),
            )
            line = Links(client, self._timeout, together=self.together)
            opened = _Loop(client, line)
            self._loops[loop] = opened
            await opened.open()
        return await opened.line.send(commands)

    def _reap(self) -> None:
        """Close what was opened on loops that were closed without a word."""
        for loop, opened in list(self._loops.items()):
            if loop.is_closed():
                opened.line.abandon()
                self._loops.pop(loop, None)

    def close(self) -> None:
        self._reap()
        client, self._client = self._client, None
        if client is not None:
            client.connection_pool.disconnect()
        for loop, opened in list(self._loops.items()):
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(opened.aclose(), loop)
            self._loops.pop(loop, None)

    async def aclose(self) -> None:
        opened = self._loops.pop(asyncio.get_running_loop(), None)
        if opened is not None:
            await opened.aclose()
        self.close()

    def drop(self) -> list[Any]:
        inherited = [self._client, *self._loops.values()]
        self._client = None
        self._loops = weakref.WeakKeyDictionary()
        return inherited


class Given(Clients):
    """Clients that the user opened, and closes. With one alone, the other side works through it.

    Args:
        client: For the sync side; the async side runs it in threads if there is no other.
        async_client: For the async side, on the event loop that uses it first; the sync side
            goes through that loop if there is no other.

    Raises:
        ConfigurationError: Neither was given, or one is not what redis-py makes.
    """

    def __init__(
        self, client: redis.Redis | None, async_client: redis.asyncio.Redis | None
    ) -> None:
        if client is None and async_client is None:
            raise ConfigurationError("RedisSaver takes a URL, a client or an async_client")
        for given, kind, name in (
            (client, redis.Redis, "client"),
            (async_client, redis.asyncio.Redis, "async_client"),
        ):
            if given is not None and not isinstance(given, kind):
                raise ConfigurationError(
                    f"{name} is a {kind.__module__.rpartition('.')[0]}.{kind.__name__}, "
                    f"not {type(given).__module__}.{type(given).__name__}"
                )
        self._client = client
        self._async_client = async_client
        self._lines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Coalescer] = (
            weakref.WeakKeyDictionary()
        )
        self._is_inherited = False
        self._owner: weakref.ref[asyncio.AbstractEventLoop] | None = None
        if async_client is not None:
            try:
                self._owner = weakref.ref(asyncio.get_running_loop())
            except RuntimeError:
                self._owner = None  # whoever uses it first

    @property
    def where(self) -> str:
        client: Any = self._client if self._client is not None else self._async_client
        return address(client.connection_pool.connection_kwargs)

    def send(self, commands: Sequence[Command]) -> list[Any]:
        if self._client is not None:
            return exchange(self._client, commands)
        owner = self._owner() if self._owner else None
        if owner is None or not owner.is_running():
            raise ConfigurationError(
                "only an async_client was given, and its event loop is not running: use the "
                "saver from async code, or give a client as well"
            )
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is owner:
            raise ConfigurationError(
                "a sync method was called on the event loop of the async_client, which would "
                "wait for itself: await the method with an a before its name, or give a client "
                "as well"
            )
        coming = asyncio.run_coroutine_threadsafe(self.asend(commands), owner)
        while True:
            try:
                return coming.result(_PATIENCE)
            except concurrent.futures.TimeoutError:
                if coming.done() or owner.is_running():
                    continue
                raise exceptions.ConnectionError("the client's event loop has ended") from None
            except concurrent.futures.CancelledError:
                raise exceptions.ConnectionError("the client's event loop is ending") from None

    async def asend(self, commands: Sequence[Command]) -> list[Any]:
        if self._async_client is None or (self._is_inherited and self._client is not None):
            return await asyncio.to_thread(self.send, commands)
        if self._is_inherited:
            raise ConfigurationError(
                "the async_client was opened before a fork, and its connections belong to the "
                "parent: open a client and a saver in the child"
            )
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            if self._owner is None:
                self._owner = weakref.ref(loop)
            line = Loans(self._async_client, together=self.together)
            self._lines[loop] = line
        return await line.send(commands)

    def close(self) -> None:
        """Give back the connections; who opened the clients closes them."""
        for loop, line in list(self._lines.items()):
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(line.close(), loop)

    async def aclose(self) -> None:
        """As `close`."""
        line = self._lines.pop(asyncio.get_running_loop(), None)
        if line is not None:
            await line.close()
        self.close()

    def drop(self) -> list[Any]:
        inherited = list(self._lines.values())
        self._lines = weakref.WeakKeyDictionary()
        self._is_inherited, self._owner = True, None
        return inherited


def _parsed(url: str, arguments: Mapping[str, Any]) -> redis.ConnectionPool | None:
    try:
        return redis.ConnectionPool.from_url(url, **arguments)
    except (ValueError, TypeError):
        return None


def _unknown_argument(pool: redis.ConnectionPool) -> str | None:
    """The name of an argument that connections do not take."""
    try:
        pool.make_connection()
    except TypeError as error:
        return str(error).rpartition(" ")[2]
    return None


def choose(
    url: str | None,
    client: Any,
    async_client: Any,
    either: Any,
    arguments: Mapping[str, Any] | None,
) -> Clients:
    """The clients for a URL, or those that were given.

    Raises:
        ConfigurationError: It is not clear which, or the URL cannot be read.
    """
    if either is not None:
        if isinstance(either, redis.asyncio.Redis):
            async_client = either if async_client is None else async_client
        else:
            client = either if client is None else client
    if url is None:
        return Given(client, async_client)
    if client is not None or async_client is not None:
        raise ConfigurationError("RedisSaver takes a URL or clients, not both")
    return FromUrl(url, arguments)


def address(arguments: Mapping[str, Any]) -> str:
    """A server's name for messages, from the arguments of a connection."""
    database = arguments.get("db") or 0
    if "path" in arguments:
        return f"{arguments['path']}, database {database}"
    host = arguments.get("host", "localhost")
    return f"{host}:{arguments.get('port', 6379)}, database {database}"
