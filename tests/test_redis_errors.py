"""What Redis refuses is told by what it is, on which server and thread, and with the remedy."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import holdfast
import pytest
import redis
from holdfast import RedisSaver
from support.calls import Calls
from support.make import checkpoint, checkpoint_id, config, version
from support.redis import dump, eye, keys
from support.redis_server import RedisServer
from support.uses import WORDS, use

MADE = checkpoint(1, {"state": WORDS[:20]}, {"state": version(1)})
PLACE = config("t", "", checkpoint_id(1))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer({"repl-diskless-sync-delay": 0}) as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """A look at an empty server."""
    with eye(server.url) as client:
        client.flushall()
        yield client


@asynccontextmanager
async def opened(url: str, mode: str, **options: Any) -> AsyncIterator[Calls]:
    calls = Calls(holdfast.open(url, **{"retry_budget": 0, **options}), mode)
    try:
        yield calls
    finally:
        await calls.close()


async def put(calls: Calls, thread_id: str = "t") -> Any:
    metadata: Any = {"run_id": "r"}
    return await calls.put(config(thread_id), MADE, metadata, MADE["channel_versions"])


async def write(calls: Calls) -> None:
    await calls.put_writes(PLACE, [("a", WORDS[:20])], "task")


async def refused(calls: Calls, error: type[Exception], *words: str) -> list[str]:
    """The messages with which each kind of call is refused; all have these words."""
    messages = []
    for attempt in (
        lambda: put(calls),
        lambda: write(calls),
        lambda: calls.get_tuple(config("t")),
        lambda: calls.list(config("t")),
        lambda: calls.delete_thread("t"),
        lambda: calls.copy_thread("s", "t"),
    ):
        with pytest.raises(holdfast.HoldfastError) as caught:
            await attempt()
        assert type(caught.value) is error, caught.value
        assert isinstance(caught.value.__cause__, (redis.RedisError, OSError))
        messages.append(str(caught.value))
    for message in messages:
        for word in words:
            assert word in message
    return messages


# --- no server


async def test_a_server_that_is_not_there(mode: str) -> None:
    async with opened("redis://127.0.0.1:1/7", mode) as calls:
        words = ("127.0.0.1:1, database 7", "server runs", "host and port")
        await refused(calls, holdfast.StoreUnavailable, *words)


@pytest.mark.parametrize("host", ["no.such.host.invalid", f"{'a' * 64}.example", "a..b"])
async def test_a_host_that_has_no_address(host: str, mode: str) -> None:
    async with opened(f"redis://{host}", mode) as calls:
        with pytest.raises((holdfast.StoreUnavailable, holdfast.StoreTimeout)) as caught:
            await calls.get_tuple(PLACE)
        assert f"{host}:6379" in str(caught.value)
        assert isinstance(caught.value.__cause__, Exception)


async def test_attempts_are_told_with_the_option_that_bounds_them(mode: str) -> None:
    async with opened("redis://127.0.0.1:1", mode, retry_budget=0.1) as calls:
        with pytest.raises(holdfast.StoreUnavailable, match=r"\d attempts in 0\.\d s.*retry_budg"):
            await put(calls)


async def test_a_server_that_comes_back_in_time_is_waited_for(mode: str) -> None:
    with RedisServer() as server:
        async with opened(server.url, mode, retry_budget=60) as calls:
            await calls.setup()
            server.kill()
            late = asyncio.create_task(put(calls))
            done, _ = await asyncio.wait([late], timeout=0.2)
            assert not done
            await asyncio.to_thread(server.start)
            await late
            assert (await calls.must_get(PLACE)).checkpoint == MADE


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 50])
async def test_a_port_of_another_program(answer: bytes, mode: str) -> None:
    def serve() -> None:
        while True:
            try:
                wire, _ = door.accept()
            except OSError:
                return
            with wire:
                wire.recv(100)
                wire.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=serve)
        thread.start()
        port = door.getsockname()[1]
        async with opened(f"redis://127.0.0.1:{port}", mode) as calls:
            await refused(calls, holdfast.StoreUnavailable, f"127.0.0.1:{port}", "Check that")
        door.shutdown(socket.SHUT_RDWR)
        thread.join()


# --- rights


async def test_a_server_that_asks_for_a_password(mode: str) -> None:
    with RedisServer({"requirepass": "secret"}) as server:
        for url in (server.url, server.url.replace("//", "//:wrong@")):
            async with opened(url, mode) as calls:
                error = holdfast.ConfigurationError
                await refused(calls, error, f"127.0.0.1:{server.port}", "password", "URL")


@pytest.mark.parametrize(
    "rights",
    [
        "~* +@all -eval -evalsha",
        "~holdfast:format +@all",
        "~* +@all -hset -hget -hmget -hdel -hlen",
    ],
)
async def test_a_user_that_lacks_a_right(
    server: RedisServer, client: redis.Redis, rights: str, mode: str
) -> None:
    client.execute_command("ACL", "SETUSER", "app", "reset", "on", ">secret", *rights.split())
    async with opened(server.url.replace("//", "//app:secret@"), mode) as calls:
        await calls.setup()
        where = f"127.0.0.1:{server.port}"
        await refused(calls, holdfast.ConfigurationError, where, "'t'", "right", "docs/redis.md")
    assert keys(client) == [b"holdfast:format"]


# --- other programs' keys


FOREIGN = ["meta:t", "blob:t", "idx:t", f"checkpoint:t:{checkpoint_id(1)}", "threads", "run:r"]


@pytest.mark.parametrize("name", FOREIGN)
async def test_a_put_beside_another_programs_key_writes_nothing(
    server: RedisServer, client: redis.Redis, name: str, mode: str
) -> None:
    async with opened(server.url, mode) as calls:
        await calls.setup()
        client.xadd(f"holdfast:{name}", {"of": "another kind"})
        before = dump(client)
        with pytest.raises(holdfast.ConfigurationError, match=r"'t'.*prefix of holdfast's") as no:
            await put(calls)
        assert "WRONGTYPE" in str(no.value.__cause__)
        assert dump(client) == before
        client.delete(f"holdfast:{name}")
        await put(calls)
        assert (await calls.must_get(PLACE)).checkpoint == MADE


@pytest.mark.parametrize("name", ["meta:t", "blob:t", f"writes:t:{checkpoint_id(1)}", "threads"])
async def test_writes_beside_another_programs_key_write_nothing(
    server: RedisServer, client: redis.Redis, name: str, mode: str
) -> None:
    async with opened(server.url, mode) as calls:
        await calls.setup()
        client.set(f"holdfast:{name}", "of another kind")
        before = dump(client)
        with pytest.raises(holdfast.ConfigurationError, match=r"'t'.*prefix of holdfast's"):
            await write(calls)
        assert dump(client) == before


@pytest.mark.parametrize("held", ["2 2", "", "mine", "1", "1 x"])
async def test_a_prefix_with_another_layout_is_left_alone(
    server: RedisServer, client: redis.Redis, held: str, mode: str
) -> None:
    client.set("holdfast:format", held)
    async with opened(server.url, mode) as calls:
        for attempt in (lambda: put(calls), lambda: calls.get_tuple(PLACE), calls.setup):
            with pytest.raises(holdfast.ConfigurationError, match=r"layout.*another prefix"):
                await attempt()
    assert keys(client) == [b"holdfast:format"]
    assert client.get("holdfast:format") == held.encode()


async def test_a_layout_that_this_version_still_reads_is_read(
    server: RedisServer, client: redis.Redis, mode: str
) -> None:
    client.set("holdfast:format", "2 1")
    async with opened(server.url, mode) as calls:
        await use(calls)
    assert client.get("holdfast:format") == b"2 1"


# --- a server that cannot, now


async def test_a_full_server_refuses_and_reads_and_removes_also_for_newcomers(mode: str) -> None:
    with RedisServer({"maxmemory": "3mb"}) as server, eye(server.url) as client:
        async with opened(server.url, mode) as calls:
            count = 0
            with pytest.raises(holdfast.StoreFull, match=r"maxmemory.*delete or prune") as caught:
                while True:
                    await put(calls, f"t{count}")
                    count += 1
            assert f"'t{count}'" in str(caught.value)
            assert isinstance(caught.value.__cause__, redis.ResponseError)
            assert not [key for key in keys(client) if f"t{count}".encode() in key]
        async with opened(server.url, mode) as newcomer:
            assert (await newcomer.must_get(config("t0"))).checkpoint == MADE
            for number in range(count):
                await newcomer.delete_thread(f"t{number}")
            await put(newcomer)


async def test_a_replica_is_named_as_one(server: RedisServer, mode: str) -> None:
    with RedisServer({"replica-serve-stale-data": "no"}) as second, eye(second.url) as client:
        async with opened(second.url, mode) as calls:
            await calls.setup()
            client.replicaof("127.0.0.1", 1)
            where = f"127.0.0.1:{second.port}"
            await refused(calls, holdfast.StoreUnavailable, where, "'t'", "primary")
        with (
            RedisServer({"replicaof": f"127.0.0.1 {server.port}"}) as third,
            eye(third.url) as look,
        ):
            while look.info("replication")["master_link_status"] != "up":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            async with opened(third.url, mode) as calls:
                with pytest.raises(holdfast.StoreUnavailable, match="primary"):
                    await put(calls)


async def test_a_script_of_another_client_keeps_the_server_busy(mode: str) -> None:
    with RedisServer({"lua-time-limit": 10}) as server, eye(server.url) as client:
        async with opened(server.url, mode) as calls:
            await calls.setup()
            endless = asyncio.create_task(
                asyncio.to_thread(eye(server.url).eval, "while true do end", 0)
            )
            try:
                while True:
                    try:
                        client.ping()
                        await asyncio.sleep(0.001)
                    except redis.ResponseError as error:
                        assert "BUSY" in str(error)
                        break
                where = f"127.0.0.1:{server.port}"
                await refused(calls, holdfast.StoreTimeout, where, "'t'", "SCRIPT KILL")
            finally:
                client.script_kill()
                with pytest.raises(redis.ResponseError, match="killed"):
                    await endless
            await put(calls)


async def test_a_server_that_does_not_answer(server: RedisServer, mode: str) -> None:
    async with opened(f"{server.url}?socket_timeout=0.05", mode) as calls:
        await calls.setup()
        server.pause()
        try:
            where = f"127.0.0.1:{server.port}"
            await refused(calls, holdfast.StoreTimeout, where, "'t'", "socket_timeout", "SLOWLOG")
        finally:
            server.resume()
        await put(calls)
        assert await calls.get_tuple(PLACE) is not None


async def test_a_server_that_cannot_save(mode: str) -> None:
    with RedisServer({"save": "3600 1000000"}) as server, eye(server.url) as client:
        async with opened(server.url, mode) as calls:
            await calls.setup()
            shutil.rmtree(server.folder)
            client.bgsave()
            while client.info("persistence")["rdb_last_bgsave_status"] == "ok":  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            with pytest.raises(holdfast.StoreUnavailable, match=r"'t'.*disk"):
                await put(calls)


async def test_a_server_that_lacks_replicas(mode: str) -> None:
    with RedisServer() as server, eye(server.url) as client:
        async with opened(server.url, mode) as calls:
            await calls.setup()
            client.config_set("min-replicas-to-write", 1)
            with pytest.raises(holdfast.StoreUnavailable, match=r"'t'.*min-replicas-to-write"):
                await put(calls)


async def test_a_server_without_a_place_for_another_client(mode: str) -> None:
    with RedisServer({"maxclients": 1}) as server, eye(server.url) as client:
        client.ping()
        async with opened(server.url, mode) as calls:
            with pytest.raises(holdfast.StoreUnavailable, match=f"127.0.0.1:{server.port}"):
                await put(calls)


async def test_a_server_that_forbids_scripts(mode: str) -> None:
    with RedisServer({"rename-command": 'EVALSHA ""'}) as server:
        async with opened(server.url, mode) as calls:
            await calls.setup()
            where = f"127.0.0.1:{server.port}"
            await refused(calls, holdfast.StoreUnavailable, where, "'t'", "EVALSHA", "6.2")


# --- a cluster


async def test_a_node_of_a_cluster_says_what_it_is(mode: str) -> None:
    with RedisServer({"cluster-enabled": "yes"}) as server, eye(server.url) as client:
        async with opened(server.url, mode) as calls:
            with pytest.raises(holdfast.StoreUnavailable, match=r"[Cc]luster.*CLUSTER INFO"):
                await put(calls)
            client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
            while client.cluster("INFO")["cluster_state"] != "ok":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            for attempt in (lambda: put(calls), lambda: calls.get_tuple(config())):
                with pytest.raises(holdfast.ConfigurationError, match=r"Cluster.*not supported"):
                    await attempt()


# --- errors of nobody's making


class Odd(Exception):
    """Cannot be made from its arguments alone, as those of some cloud libraries."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(f"no credentials: {reason}")


class OddRefusal(Odd, redis.AuthenticationError):
    """The same, of redis-py's kind."""


class NoCredentials(redis.CredentialProvider):
    def __init__(self, error: type[Odd]) -> None:
        self._error = error

    def get_credentials(self) -> Any:
        raise self._error(reason="the token has expired")

    async def get_credentials_async(self) -> Any:
        raise self._error(reason="the token has expired")


@pytest.mark.parametrize("error", [Odd, OddRefusal])
async def test_an_error_of_a_credential_provider_reaches_every_caller(error: type[Odd]) -> None:
    with RedisServer({"requirepass": "secret"}) as server:
        arguments = {"credential_provider": NoCredentials(error)}
        saver = RedisSaver(server.url, connection_args=arguments, retry_budget=0)
        reads = asyncio.gather(*map(saver.aget_tuple, [PLACE] * 3), return_exceptions=True)
        for told in await asyncio.wait_for(reads, 20):
            assert "token has expired" in f"{told} {getattr(told, '__cause__', '')}"
        await saver.aclose()
