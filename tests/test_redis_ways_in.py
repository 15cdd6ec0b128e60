"""How a Redis server is named: URLs, their options, the environment, and what is not installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import holdfast
import pytest
import redis
import redis.asyncio
from holdfast import AsyncRedisSaver, RedisSaver
from support.audit import is_tombstone
from support.calls import Calls
from support.make import config
from support.redis import TlsServer, eye, keys, others
from support.redis_server import RedisServer
from support.uses import put_one, use

PLACES = ["redis", "unix", "rediss"]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer({"unixsocket": "server.sock"}) as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """A look at an empty server."""
    with eye(server.url) as client:
        client.flushall()
        yield client


# --- URLs


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, server: RedisServer, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty server, reached in each way."""
    if request.param == "redis":
        yield f"{server.url}?"
    elif request.param == "unix":
        yield f"unix://{server.folder}/server.sock?"
    else:
        with TlsServer(tmp_path) as tls:
            yield f"{tls.url}?ssl_ca_certs={tls.certificate}"


async def test_a_url_names_a_server(place: str, client: redis.Redis, mode: str) -> None:
    saver = holdfast.open(place, prefix="mine")
    assert type(saver) is RedisSaver
    calls = Calls(saver, mode)
    await use(calls)
    await calls.close()
    with redis.Redis.from_url(place) as there:
        found = keys(there)
    assert b"mine:meta:t" in found
    assert all(key.startswith(b"mine:") for key in found)


async def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path, mode: str) -> None:
    with TlsServer(tmp_path) as tls:
        calls = Calls(holdfast.open(tls.url, retry_budget=0), mode)
        with pytest.raises(holdfast.StoreUnavailable, match="certificate") as caught:
            await calls.get_tuple(config())
        assert isinstance(caught.value.__cause__, (redis.RedisError, OSError))
        await calls.close()


@pytest.mark.parametrize("named", ["/3?", "?db=3"])
def test_a_database_has_a_number(server: RedisServer, client: redis.Redis, named: str) -> None:
    url = f"redis://127.0.0.1:{server.port}{named}"
    with holdfast.open(url) as saver, redis.Redis(port=server.port, db=3) as third:
        put_one(saver)
        assert b"holdfast:meta:t" in keys(third)
        third.set("holdfast:meta:u", "of another kind")
        with pytest.raises(holdfast.HoldfastError, match="database 3"):
            put_one(saver, "u")
    assert keys(client) == []


def test_nothing_is_opened_before_first_use_nor_left_open(
    server: RedisServer, client: redis.Redis, mode: str
) -> None:
    holdfast.open("redis://127.0.0.1:1/0")
    with holdfast.open(server.url) as saver:
        assert others(client) == []
        put_one(saver)
        assert len(others(client)) == 1
    wait_for_clients(client, 0)
    assert saver.get_tuple(config()) is not None, "closed for good"
    saver.close()
    wait_for_clients(client, 0)


async def test_async_with_leaves_nothing_open(server: RedisServer, client: redis.Redis) -> None:
    async with holdfast.open(server.url) as saver:
        await use(Calls(saver, "async"))
        assert len(others(client)) == 1
    wait_for_clients(client, 0)


def wait_for_clients(client: redis.Redis, count: int) -> None:
    """The server notices a closed connection a moment later."""
    while len(others(client)) != count:
        assert client.ping()


# --- options


async def test_a_query_has_options_of_both(
    server: RedisServer, client: redis.Redis, mode: str
) -> None:
    url = f"{server.url}?prefix=a:b&retry_budget=0.5&client_name=me&socket_timeout=0.1"
    calls = Calls(holdfast.open(url), mode)
    await use(calls)
    assert {one["name"] for one in others(client)} == {"me"}
    assert all(key.startswith(b"a%3Ab:") for key in keys(client))
    server.pause()
    try:
        with pytest.raises(holdfast.StoreTimeout, match="attempts"):  # within half a second
            await calls.get_tuple(config())
    finally:
        server.resume()
        await calls.close()


async def test_arguments_are_options_of_both(
    server: RedisServer, client: redis.Redis, mode: str
) -> None:
    options = {"prefix": "won", "client_name": "me", "socket_timeout": 2.5, "db": 0}
    calls = Calls(holdfast.open(f"{server.url}?prefix=lost&client_name=you", **options), mode)
    await use(calls)
    assert {one["name"] for one in others(client)} == {"me"}
    assert all(key.startswith(b"won:") for key in keys(client))
    await calls.close()


async def test_replies_may_be_asked_for_in_any_form(
    server: RedisServer, client: redis.Redis, mode: str
) -> None:
    calls = Calls(holdfast.open(f"{server.url}?decode_responses=True&protocol=3"), mode)
    await use(calls)
    await calls.close()


@pytest.mark.parametrize(
    "arguments",
    [
        {"socket_timeout": 3.0, "socket_connect_timeout": 3.0, "client_name": "me"},
        {"decode_responses": True, "protocol": 3, "client_name": "me"},
        {"retry_on_timeout": True, "retry": None, "client_name": "me"},
        {"max_connections": 8, "health_check_interval": 5, "client_name": "me"},
    ],
    ids=",".join,
)
async def test_connections_take_arguments(
    server: RedisServer, client: redis.Redis, mode: str, arguments: dict[str, Any]
) -> None:
    calls = Calls(RedisSaver(server.url, connection_args=arguments), mode)
    await use(calls)
    assert {one["name"] for one in others(client)} == {"me"}
    await calls.close()


@pytest.mark.parametrize("named", ["prefx=mine", "socket_time=2"])
async def test_an_option_that_nobody_has_is_named(
    server: RedisServer, named: str, mode: str
) -> None:
    """Neither holdfast nor redis-py: a slip of the pen is told before the first put."""
    with pytest.raises(holdfast.ConfigurationError, match=named.partition("=")[0]):
        await Calls(holdfast.open(f"{server.url}?{named}"), mode).get_tuple(config())


@pytest.mark.parametrize("named", ["socket_timeout=soon", "db=first", "cache_bytes=much"])
def test_an_option_with_an_impossible_value_is_refused_at_once(named: str) -> None:
    with pytest.raises(holdfast.ConfigurationError):
        holdfast.open(f"redis://localhost?{named}")


@pytest.mark.parametrize("named", ["prefix=mine", "retry_budget=1", "cache_bytes=0"])
def test_an_option_of_holdfasts_in_the_url_of_a_class_is_told_where_it_goes(named: str) -> None:
    """`holdfast.open` reads it there; the class does not, and would not heed it."""
    name = named.partition("=")[0]
    words = rf"{name} is an option of holdfast.*RedisSaver\(url, {name}=.*holdfast\.open\(url\)"
    for url in (f"redis://localhost?{named}", f"redis://localhost/1?client_name=me&{named}"):
        with pytest.raises(holdfast.ConfigurationError, match=words):
            RedisSaver(url)
        holdfast.open(url)


async def test_text_is_read_as_what_an_argument_is(
    server: RedisServer, client: redis.Redis, mode: str
) -> None:
    """As in a URL: a mapping may come from a file."""
    options = {"db": "3", "socket_timeout": "2.5", "socket_keepalive": "yes", "client_name": "4"}
    for saver in (
        holdfast.from_config({"url": server.url, **options}),
        RedisSaver(server.url, connection_args=options),
    ):
        calls = Calls(saver, mode)
        await calls.setup()
        (other,) = others(client)
        assert (other["db"], other["name"]) == ("3", "4")
        await calls.close()
        wait_for_clients(client, 0)


async def test_an_argument_wins_over_the_url(
    server: RedisServer, client: redis.Redis, mode: str
) -> None:
    url = "redis://you:wrong@localhost.invalid:1/0?client_name=you&socket_timeout=0.001&db=0"
    there = {"host": "127.0.0.1", "port": server.port, "db": 3, "client_name": "me"}
    arguments = {**there, "username": None, "password": None, "socket_timeout": 5}
    for saver in (holdfast.open(url, **arguments), RedisSaver(url, connection_args=arguments)):
        calls = Calls(saver, mode)
        await use(calls)
        assert {(one["db"], one["name"]) for one in others(client)} == {("3", "me")}
        await calls.delete_thread("t")
        await calls.close()
        wait_for_clients(client, 0)


def test_prefixes_are_worlds_apart(server: RedisServer, client: redis.Redis) -> None:
    names = ["a", "a:b", "a%3Ab", "a:checkpoint", "{a}", "a*", "a\n", "\u00e9"]
    savers = [RedisSaver(server.url, prefix=name) for name in names]
    for saver, name in zip(savers, names, strict=True):
        put_one(saver, name)
    for saver, name in zip(savers, names, strict=True):
        found = [one.config["configurable"]["thread_id"] for one in saver.list(None)]
        assert found == [name]
        saver.delete_thread(name)
        saver.close()
    left = [key for key in keys(client) if not key.endswith((b":format", b":threads"))]
    assert len(left) == len(names)
    assert all(is_tombstone(client, key) for key in left)


# --- other ways


async def test_a_connection_string(server: RedisServer, client: redis.Redis, mode: str) -> None:
    if mode == "async":
        async with AsyncRedisSaver.from_conn_string(server.url, prefix="p") as saver:
            assert await saver.aget_tuple(config()) is None
            await use(Calls(saver, mode))
    else:
        with RedisSaver.from_conn_string(redis_url=server.url, checkpoint_prefix="p") as saver:
            await use(Calls(saver, mode))
    assert all(key.startswith(b"p:") for key in keys(client))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"redis_url": 6379},
        {"redis_url": b"redis://localhost"},
        {"redis_url": ""},
        {"redis_url": "http://localhost"},
        {"redis_url": "localhost:6379"},
        {"redis_url": "redis://localhost:port"},
        {"redis_url": "redis://localhost:99999"},
        {"client": "redis://localhost"},
        {"client": redis.asyncio.Redis()},
        {"async_client": redis.Redis()},
        {"redis_client": object()},
        {"redis_url": "redis://localhost", "client": redis.Redis()},
        {"redis_url": "redis://localhost", "redis_client": redis.asyncio.Redis()},
        {"client": redis.ConnectionPool()},
    ],
    ids=" ".join,
)
def test_what_names_no_server_is_refused_at_once(arguments: dict[str, Any]) -> None:
    with pytest.raises(holdfast.ConfigurationError):
        RedisSaver(**arguments)


# --- the environment


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("HOLDFAST_URL", "CHECKPOINTER_TYPE", "DATABASE_URL", "USE_POSTGRES_CHECKPOINTER"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


async def test_the_environment_names_a_server(
    server: RedisServer, client: redis.Redis, environ: pytest.MonkeyPatch, mode: str
) -> None:
    environ.setenv("DATABASE_URL", f"{server.url}?prefix=typed")
    environ.setenv("CHECKPOINTER_TYPE", "Redis")
    calls = Calls(holdfast.open(), mode)
    await use(calls)
    await calls.close()
    assert all(key.startswith(b"typed:") for key in keys(client))
    environ.setenv("HOLDFAST_URL", f"{server.url}?prefix=named")
    calls = Calls(holdfast.open(prefix="argument"), mode)
    await use(calls)
    await calls.close()
    assert {key.partition(b":")[0] for key in keys(client)} == {b"typed", b"argument"}


@pytest.mark.parametrize("url", ["postgresql://localhost/app", "sqlite:///state.db"])
def test_a_url_of_another_store_than_the_type_is_refused(
    environ: pytest.MonkeyPatch, url: str
) -> None:
    """Many applications have a DATABASE_URL of their own."""
    environ.setenv("CHECKPOINTER_TYPE", "redis")
    environ.setenv("DATABASE_URL", url)
    with pytest.raises(holdfast.ConfigurationError, match="DATABASE_URL is of another store"):
        holdfast.open()


@pytest.mark.parametrize("url", [Path("state.db"), b"redis://localhost", 6379])
def test_what_is_no_text_is_no_url(url: Any) -> None:
    with pytest.raises(holdfast.ConfigurationError, match=type(url).__name__):
        holdfast.open(url)


def test_without_a_url_redis_is_the_one_at_home(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("CHECKPOINTER_TYPE", "redis")
    saver: Any = holdfast.open()
    assert saver._live.backend._clients.where == "localhost:6379, database 0"


# --- without what it needs

WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import holdfast
with holdfast.open("memory://") as saver:
    print(saver.get_tuple({"configurable": {"thread_id": "t"}}))
for attempt in (
    lambda: holdfast.open("redis://localhost"),
    lambda: holdfast.RedisSaver("redis://localhost"),
    lambda: holdfast.AsyncRedisSaver.from_conn_string("redis://localhost"),
):
    try:
        attempt()
    except holdfast.ConfigurationError as error:
        print(error, type(error.__cause__).__name__)
"""


@pytest.mark.parametrize("package", ["redis", "hiredis"])
def test_without_its_packages_the_extra_is_named_and_the_rest_works(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT, package],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    first, *rest = done.stdout.splitlines()
    assert first == "None"
    assert len(rest) == 3
    for line in rest:
        assert "holdfast[redis]" in line
        assert line.endswith("ModuleNotFoundError")
