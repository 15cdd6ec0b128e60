"""Credential providers of redis-py: what they raise is told, and what they give is used.

No connection is used that has not said who it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import holdfast
import pytest
import redis
import redis.asyncio
from blockbuster import BlockBuster
from holdfast import RedisSaver
from support.calls import Calls
from support.make import config
from support.redis import eye, keys, let_given_clients_connect, others
from support.redis_server import RedisServer
from support.uses import use

USER = ("ACL", "SETUSER", "app", "reset", "on", ">secret", "~holdfast:*", "+@all")


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """Whoever does not say who he is may do everything, too."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """A look at a server without keys, which knows one user."""
    with eye(server.url) as client:
        client.flushall()
        client.execute_command(*USER)
        yield client


@pytest.fixture(autouse=True)
def connect(no_blocking_call_on_a_loop: BlockBuster) -> None:
    let_given_clients_connect(no_blocking_call_on_a_loop)


class Provider(redis.CredentialProvider):
    """Fails some times before it gives what it has."""

    def __init__(self, *failures: Exception) -> None:
        self._failures = [*failures]

    def get_credentials(self) -> Any:
        if self._failures:
            raise self._failures.pop()
        return "app", "secret"

    async def get_credentials_async(self) -> Any:
        await asyncio.sleep(0)
        return self.get_credentials()


class Slow(Provider):
    """Never ends the first time."""

    async def get_credentials_async(self) -> Any:
        if self._failures:
            self._failures.pop()
            await asyncio.Event().wait()
        return "app", "secret"


@asynccontextmanager
async def opened(
    server: RedisServer, provider: Provider, kind: str, **how: Any
) -> AsyncIterator[RedisSaver]:
    """A saver for database 3, with clients of its own or given ones."""
    arguments: dict[str, Any] = {"credential_provider": provider, "db": 3, **how}
    url = server.url.removesuffix("/0")
    if kind == "url":
        saver = RedisSaver(url, connection_args=arguments, retry_budget=0)
        yield saver
        await saver.aclose()
        return
    async with redis.asyncio.Redis.from_url(url, **arguments) as theirs:
        with redis.Redis.from_url(url, **arguments) as mine:
            yield RedisSaver(client=mine, async_client=theirs, retry_budget=0)


@pytest.mark.parametrize("kind", ["url", "given"])
@pytest.mark.parametrize("failure", [ValueError("no token"), OSError("no way to tokens")])
async def test_no_connection_is_used_before_it_said_who_it_is(
    server: RedisServer, client: redis.Redis, failure: Exception, kind: str, mode: str
) -> None:
    """redis-py would give one next that was opened when the provider failed."""
    async with opened(server, Provider(failure, failure), kind) as saver:
        calls = Calls(saver, mode)
        told = 0
        for _ in range(4):
            try:
                await use(calls)
                break
            except (ValueError, holdfast.StoreUnavailable) as error:
                assert "token" in f"{error} {error.__cause__}"
                told += 1
        assert 1 <= told <= 2
        assert {(one["user"], one["db"]) for one in others(client)} == {("app", "3")}
    assert keys(client) == [], "it was another database"


async def test_nor_where_it_took_too_long(server: RedisServer, client: redis.Redis) -> None:
    async with opened(server, Slow(ValueError()), "url", socket_timeout=0.05) as saver:
        with pytest.raises(holdfast.StoreTimeout, match=r"no connection in 0\.05 s"):
            await saver.aget_tuple(config())
        await use(Calls(saver, "async"))
        assert {(one["user"], one["db"]) for one in others(client)} == {("app", "3")}
    assert keys(client) == []


@pytest.mark.parametrize("timeout", [5, None])
@pytest.mark.parametrize("kind", ["url", "given"])
async def test_a_provider_that_gives_up_is_told_of(
    server: RedisServer, client: redis.Redis, timeout: float | None, kind: str, mode: str
) -> None:
    provider = Provider(*[TimeoutError("no token in time, OOM")] * 20)
    async with opened(server, provider, kind, socket_timeout=timeout, retry=None) as saver:
        with pytest.raises(holdfast.StoreTimeout, match="socket_timeout"):
            await Calls(saver, mode).get_tuple(config())


async def test_a_provider_that_gives_up_is_told_of_also_in_another_thread(
    server: RedisServer, client: redis.Redis
) -> None:
    provider = Provider(*[TimeoutError("no token in time")] * 20)
    arguments: dict[str, Any] = {"credential_provider": provider, "retry": None}
    async with redis.asyncio.Redis.from_url(server.url, **arguments) as theirs:
        saver = RedisSaver(async_client=theirs, retry_budget=0)
        with pytest.raises(holdfast.StoreTimeout, match="socket_timeout"):
            await asyncio.to_thread(saver.get_tuple, config())
