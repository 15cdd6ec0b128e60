"""What `check` finds out about a server, and what first use warns of."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import holdfast
import pytest
import redis
from holdfast import Finding
from support.calls import Calls
from support.make import config
from support.redis import dump, eye, keys
from support.redis_server import RedisServer
from support.relay import Relay
from support.uses import put_one, use

EVERYTHING = [
    "version",
    "persistence",
    "eviction",
    "lazy expiry",
    "memory",
    "round trip",
    "rights",
]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """A look at an empty server with the settings that it started with."""
    with eye(server.url) as client:
        client.flushall()
        settings = client.config_get("*")
        yield client
        for name in ("appendonly", "appendfsync", "save", "maxmemory-policy", "maxmemory"):
            client.config_set(name, settings[name])
        client.config_set("lazyfree-lazy-expire", settings["lazyfree-lazy-expire"])


async def findings(url: str, mode: str, **options: Any) -> dict[str, Finding]:
    calls = Calls(holdfast.open(url, **{"retry_budget": 0, **options}), mode)
    try:
        found = await calls.call("check")
    finally:
        await calls.close()
    for one in found:
        assert one.is_fine or one.remedy or one.what == "rights", "what is to be done?"
    return {one.what: one for one in found}


# --- the server


async def test_all_is_looked_at_once(server: RedisServer, client: redis.Redis, mode: str) -> None:
    found = await findings(server.url, mode)
    assert [*found] == EVERYTHING
    version = client.info("server")["redis_version"]
    assert found["version"].is_fine
    assert version in found["version"].value


PERSISTENCE = [
    ({"appendonly": "no", "save": ""}, False, "no append-only file and no snapshots"),
    ({"appendonly": "no", "save": "3600 1"}, False, "snapshots alone"),
    ({"appendonly": "yes", "appendfsync": "everysec"}, True, "everysec"),
    ({"appendonly": "yes", "appendfsync": "no"}, True, "appendfsync no"),
    ({"appendonly": "yes", "appendfsync": "always"}, True, "flushed at each commit"),
]


@pytest.mark.parametrize(("settings", "is_fine", "value"), PERSISTENCE, ids=str)
async def test_what_a_crash_of_the_server_costs(
    server: RedisServer,
    client: redis.Redis,
    settings: dict[str, str],
    is_fine: bool,
    value: str,
    mode: str,
) -> None:
    for name, setting in settings.items():
        client.config_set(name, setting)
    found = (await findings(server.url, mode))["persistence"]
    assert found.is_fine is is_fine
    assert value in found.value
    assert ("appendonly" in found.remedy) is not is_fine
    if "flushed" not in found.value and is_fine:
        assert "always" in found.remedy


POLICIES = ["allkeys-lru", "allkeys-random", "volatile-ttl", "volatile-lfu"]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.filterwarnings("ignore::holdfast.StoreWarning")
async def test_a_server_that_drops_keys_when_full(
    server: RedisServer, client: redis.Redis, policy: str, mode: str
) -> None:
    assert (await findings(server.url, mode))["eviction"] == Finding("eviction", True, "noeviction")
    client.config_set("maxmemory-policy", policy)
    found = (await findings(server.url, mode))["eviction"]
    assert not found.is_fine
    assert policy in found.value
    assert "maxmemory-policy to noeviction" in found.remedy


async def test_how_expired_keys_are_freed(
    server: RedisServer, client: redis.Redis, mode: str
) -> None:
    for setting in ("no", "yes"):
        client.config_set("lazyfree-lazy-expire", setting)
        found = (await findings(server.url, mode))["lazy expiry"]
        assert (found.is_fine, found.value) == (setting == "yes", setting)


@pytest.mark.parametrize(("share", "is_fine"), [(0.1, True), (0.9, False), (1.1, False)])
async def test_how_much_room_is_left(
    server: RedisServer, client: redis.Redis, share: float, is_fine: bool, mode: str
) -> None:
    """Also where there is none: that is found, and is no failure of the check."""
    found = (await findings(server.url, mode))["memory"]
    assert found.is_fine
    assert "no limit" in found.value
    client.set("other", bytes(8 << 20))
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] / share))
    found = (await findings(server.url, mode))["memory"]
    assert found.is_fine is is_fine
    (percent,) = re.findall(r"(\d+)%", found.value)
    assert abs(int(percent) - 100 * share) < 25
    assert is_fine or "maxmemory" in found.remedy


async def test_how_far_away_it_is(server: RedisServer, client: redis.Redis, mode: str) -> None:
    with Relay(server.port) as relay:
        relay.before = lambda: time.sleep(0.02)
        found = (await findings(relay.url, mode))["round trip"]
    assert not found.is_fine
    assert float(found.value.removesuffix(" ms")) >= 20
    assert "SLOWLOG" in found.remedy


async def test_a_server_that_is_away_is_no_finding(mode: str) -> None:
    with pytest.raises(holdfast.StoreUnavailable):
        await findings("redis://127.0.0.1:1", mode)


# --- the user


@pytest.fixture
def user(client: redis.Redis, server: RedisServer) -> Any:
    """Gives a user some rights, and its URL."""

    def made(*rights: str) -> str:
        client.execute_command("ACL", "SETUSER", "app", "reset", "on", ">secret", *rights)
        return server.url.replace("//", "//app:secret@")

    return made


@pytest.mark.parametrize("command", ["evalsha", "hset", "unlink", "zadd", "rpush", "lindex"])
async def test_a_right_that_lacks_is_named_and_nothing_lies_around(
    client: redis.Redis, user: Any, command: str, mode: str
) -> None:
    found = (await findings(user("~holdfast:*", "+@all", f"-{command}"), mode))["rights"]
    assert found.is_fine is False
    assert re.search(r"permission|can't run|right", found.value)
    assert "docs/redis.md" in found.remedy
    calls = Calls(holdfast.open(user("~*", "+@all")), mode)
    assert await calls.list(None) == []
    await calls.close()


async def test_keys_beyond_the_users_are_named(client: redis.Redis, user: Any, mode: str) -> None:
    url = user("~holdfast:format", "~holdfast:meta:*", "+@all")
    found = (await findings(url, mode))["rights"]
    assert found.is_fine is False
    assert "docs/redis.md" in found.remedy


async def test_what_may_not_be_asked_is_unknown(client: redis.Redis, user: Any, mode: str) -> None:
    found = await findings(user("~holdfast:*", "+@all", "-info", "-config"), mode)
    assert [*found] == EVERYTHING
    for what in ("version", "persistence", "eviction", "lazy expiry", "memory"):
        assert found[what].is_fine is None, what
        assert found[what].remedy
    assert found["rights"].is_fine
    client.config_set("appendonly", "yes")
    found = await findings(user("~holdfast:*", "+@all", "-config"), mode)
    assert "unknown" in found["persistence"].value
    assert found["lazy expiry"].is_fine is None
    assert found["version"].is_fine


REFUSALS = {
    "full": ("maxmemory", "1", "0", "Raise maxmemory"),
    "too few replicas": ("min-replicas-to-write", "1", "0", "min-replicas-to-write"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("is_used", [False, True], ids=["new", "used"])
async def test_a_server_that_refuses_to_write_now_says_nothing_of_rights(
    server: RedisServer, client: redis.Redis, refusal: str, is_used: bool, mode: str
) -> None:
    name, now, later, remedy = REFUSALS[refusal]
    if is_used:
        assert (await findings(server.url, mode))["rights"].is_fine
    client.config_set(name, now)
    found = (await findings(server.url, mode))["rights"]
    client.config_set(name, later)
    assert found.is_fine is None
    assert "not tried" in found.value
    assert remedy in found.remedy
    assert (await findings(server.url, mode))["rights"].is_fine
    assert keys(client) == [b"holdfast:format"]


async def test_a_replica_says_nothing_of_rights(
    server: RedisServer, client: redis.Redis, mode: str
) -> None:
    client.replicaof("127.0.0.1", 1)
    found = (await findings(server.url, mode))["rights"]
    client.replicaof("NO", "ONE")
    assert found.is_fine is None
    assert "READONLY" in found.value
    assert "primary" in found.remedy


async def test_a_right_that_lacks_is_named_also_by_a_full_server(
    server: RedisServer, client: redis.Redis, user: Any, mode: str
) -> None:
    url = user("~holdfast:*", "+@all", "-hscan")
    await findings(url, mode)
    client.config_set("maxmemory", 1)
    found = (await findings(url, mode))["rights"]
    client.config_set("maxmemory", 0)
    assert found.is_fine is False
    assert "docs/redis.md" in found.remedy


# --- what it leaves


async def test_it_leaves_no_trace(server: RedisServer, client: redis.Redis, mode: str) -> None:
    calls = Calls(holdfast.open(server.url), mode)
    await use(calls)
    before = dump(client)
    assert (await findings(server.url, mode))["rights"].is_fine
    assert dump(client) == before
    await calls.close()


async def test_nobody_sees_what_it_tries(
    server: RedisServer, client: redis.Redis, mode: str
) -> None:
    """Who lists all threads meanwhile finds those that are real, and no damaged one."""
    lists = []
    with holdfast.open(server.url) as saver, Relay(server.port) as relay:
        await asyncio.to_thread(put_one, saver, "real")

        def look() -> None:
            try:
                lists.append([one.config["configurable"]["thread_id"] for one in saver.list(None)])
            except holdfast.HoldfastError as error:
                lists.append([str(error)])

        relay.before = look
        found = await findings(relay.url, mode)
    assert found["rights"].is_fine
    assert len(lists) >= 5
    assert {*map(tuple, lists)} == {("real",)}


# --- the warning


@pytest.mark.parametrize("first", ["get_tuple", "put", "setup", "check"])
async def test_first_use_warns_once_of_a_server_that_drops_keys(
    server: RedisServer, client: redis.Redis, first: str, mode: str
) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    calls = Calls(holdfast.open(server.url), mode)
    with pytest.warns(holdfast.StoreWarning, match="allkeys-lru") as caught:
        if first == "get_tuple":
            await calls.get_tuple(config())
        elif first == "put":
            await asyncio.gather(*(use(calls, f"t{number}") for number in range(3)))
        else:
            await calls.call(first)
    assert len(caught) == 1
    assert f"127.0.0.1:{server.port}" in str(caught[0].message)
    assert "noeviction" in str(caught[0].message), "the remedy"
    await calls.setup()
    await use(calls)
    await calls.close()
    await calls.get_tuple(config())
    await calls.close()


async def test_a_server_that_keeps_its_keys_is_not_warned_of(
    server: RedisServer, user: Any, client: redis.Redis, mode: str
) -> None:
    """Nor one that does not tell."""
    for url in (server.url, user("~holdfast:*", "+@all", "-info")):
        calls = Calls(holdfast.open(url), mode)
        await use(calls)  # a warning would be an error here
        await calls.close()


def test_threads_that_begin_at_once_are_warned_at_most_each(
    server: RedisServer, client: redis.Redis
) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    meet = threading.Barrier(8)
    with holdfast.open(server.url) as saver:

        def begin(number: int) -> None:
            meet.wait()
            put_one(saver, f"t{number}")

        with pytest.warns(holdfast.StoreWarning) as caught:
            threads = [threading.Thread(target=begin, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert 1 <= len(caught) <= 8
        assert len([*saver.list(None)]) == 8
    assert keys(client)
