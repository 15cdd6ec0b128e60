"""Clients of redis-py that the user opened, and closes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import redis
import redis.asyncio

from holdfast.backends.eras import Era
from holdfast.backends.loops import Owner
from holdfast.backends.redis.clients import Clients, FromUrl, address, exchange
from holdfast.backends.redis.coalesce import Coalescer, Loans
from holdfast.backends.redis.scripts import Command
from holdfast.errors import ConfigurationError


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
        self._lines: dict[asyncio.AbstractEventLoop, Coalescer] = {}
        self._is_inherited = False
        self._owner = _owner()

    @property
    def where(self) -> str:
        client: Any = self._client if self._client is not None else self._async_client
        return address(client.connection_pool.connection_kwargs)

    def send(self, commands: Sequence[Command]) -> list[Any]:
        if self._client is not None:
            # Whose other connections are its user's to judge.
            return exchange(self._client, commands, Era())
        return self._owner.run(lambda: self.asend(commands))

    async def asend(self, commands: Sequence[Command]) -> list[Any]:
        if self._async_client is None or (self._is_inherited and self._client is not None):
            return await asyncio.to_thread(self.send, commands)
        if self._is_inherited:
            raise ConfigurationError(
                "the async_client was opened before a fork, and its connections belong to the "
                "parent: open a client and a saver in the child"
            )
        if self._owner.is_elsewhere():
            return await asyncio.to_thread(self._owner.run, lambda: self.asend(commands))
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            for other in list(self._lines):
                if other.is_closed():
                    self._lines.pop(other, None)
            line = Loans(self._async_client, together=self.together)
            self._lines[loop] = line
        return await line.send(commands)

    def close(self) -> None:
        """Give back the connections; who opened the clients closes them."""
        for loop in list(self._lines):
            line = self._lines.pop(loop, None)
            if line is not None and loop.is_running():
                asyncio.run_coroutine_threadsafe(line.close(), loop)

    async def aclose(self) -> None:
        """As `close`."""
        line = self._lines.pop(asyncio.get_running_loop(), None)
        if line is not None:
            await line.close()
        self.close()

    def drop(self) -> list[Any]:
        inherited = list(self._lines.values())
        self._lines = {}
        self._is_inherited, self._owner = True, _owner()
        return inherited


def _owner() -> Owner:
    return Owner("an async_client", "a client as well")


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
