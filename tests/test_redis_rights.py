"""A user with the rights that docs/redis.md names can do everything, and needs each of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import holdfast
import pytest
import redis
from holdfast.backends.base import Expire, Lease, Release, Threads, Visit, Weigh
from support.audit import standing
from support.calls import Calls
from support.clock import Asked
from support.make import Thread, checkpoint, checkpoint_id, config, version
from support.redis import calls_of, eye, keys
from support.redis_server import RedisServer
from support.uses import WORDS

GUIDE = Path(__file__).parent.parent / "docs" / "redis.md"
(LINE,) = re.findall(r"^ACL SETUSER .*$", GUIDE.read_text(), re.MULTILINE)
(USER,), (PASSWORD,) = re.findall(r"SETUSER (\w+)", LINE), re.findall(r" >(\w+)", LINE)
COMMANDS = re.findall(r" \+(\S+)", LINE)
HANDSHAKE = {"auth", "hello", "select", "client|setinfo"}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """A look at an empty server that knows no script and no user."""
    with eye(server.url) as client:
        client.flushall()
        client.script_flush()
        client.acl_deluser(USER)
        client.acl_log_reset()
        yield client


def login(client: redis.Redis, server: RedisServer, *more: str) -> str:
    """Make the user of the guide, with changes to its rights; its URL."""
    client.execute_command(*LINE.split(), *more)
    return server.url.replace("//", f"//{USER}:{PASSWORD}@")


def refused(client: redis.Redis) -> set[str]:
    """What the user tried and may not do, but for what `check` can do without."""
    return {entry["object"].lower() for entry in client.acl_log()} - {"config|get"}


async def everything(calls: Calls) -> None:
    """All that a saver does, and each way in which it does it."""
    thread = Thread(calls)
    ahead = config("t", "", checkpoint_id(1))
    await calls.put_writes(ahead, [("early", 1)], "task")
    for number in range(1, 8):
        stored = await thread.put(
            {"state": WORDS[:number] if number != 5 else WORDS[60:90]},
            metadata={"run_id": f"r{number % 2}"},
        )
        await calls.put_writes(stored, [("state", WORDS[:number]), ("__error__", "no")], "task")
    await thread.put({"state": ["late"]}, id=checkpoint_id(1) + "b", parent=None)
    await calls.put(config("t", "sub:1"), checkpoint(1, {"a": 1}), {}, {"a": version(1)})
    assert len(await calls.list(config("t", None))) == 9
    assert len(await calls.list(None)) == 9
    assert (await calls.must_get(stored)).checkpoint["channel_values"] == {"state": WORDS[:7]}
    assert (await calls.must_get(ahead)).pending_writes
    assert await calls.get_tuple(config("t", "", "unknown")) is None
    assert (await calls.history(stored, ["none", "early"]))["early"]["writes"]
    large = checkpoint(9, {"large": [word * 40 for word in WORDS]})
    await calls.put(config("large"), large, {}, large["channel_versions"])
    await calls.put_writes(config("orphan", "", "1"), [("a", 1)], "task")
    for source in ("t", "orphan"):
        await calls.copy_thread(source, "copy")
    assert len(await calls.list(config("copy", None))) == 9
    await calls.delete_for_runs(["r1"])
    assert len(await calls.list(config("copy", ""))) == 4
    await calls.prune(["t", "copy"])
    assert len(await calls.list(config("t", ""))) == 1
    cold = Calls(holdfast.open(calls.url, retry_budget=0), calls.mode)  # type: ignore[attr-defined]
    assert (await cold.must_get(config("large"))).checkpoint == large
    await cold.close()
    await passing(calls)
    for name in ("t", "copy", "large", "orphan"):
        await calls.delete_thread(name)
    assert await calls.list(None) == []


async def passing(calls: Calls) -> None:
    """What has to do with time: expiry that comes and goes, a lease, a listing, a sweep."""
    url, execute = calls.url, Asked(calls.saver, calls.mode)  # type: ignore[attr-defined]
    short = Calls(holdfast.open(url, retry_budget=0, ttl=60, refresh_on_read=True), calls.mode)
    await short.put(config("large", "", checkpoint_id(9)), checkpoint(10), {"run_id": "r"}, {})  # type: ignore[typeddict-unknown-key]
    assert (await short.must_get(config("large"))).checkpoint["id"] == checkpoint_id(10)
    await calls.put_writes(config("large", "", checkpoint_id(10)), [("a", 1)], "task")
    await short.put(config("soon"), checkpoint(1), {}, {})
    await short.close()
    assert await execute(Expire("soon", 0.001))
    token, _ = await execute(Lease("large", 9))
    await execute(Release("large", token))
    await asyncio.sleep(0.01)
    listed = [row.thread_id for row in await execute(Threads(9))]
    assert listed == ["large", "copy", "t"]
    assert (await execute(Weigh("large")))[0] == 2
    visited, _ = await execute(Visit(None, 9))
    assert sorted(one.thread_id for one in visited) == ["copy", "large", "orphan", "t"]


def opened(url: str, mode: str) -> Any:
    calls = Calls(holdfast.open(url, retry_budget=0), mode)
    calls.url = url  # type: ignore[attr-defined]
    return calls


async def test_the_rights_that_the_guide_names_are_enough(
    server: RedisServer, client: redis.Redis, mode: str
) -> None:
    calls = opened(login(client, server), mode)
    findings = {one.what: one for one in await calls.call("check")}
    assert findings["rights"].is_fine, findings["rights"]
    assert findings["version"].is_fine
    await everything(calls)
    await calls.close()
    assert refused(client) == set()
    left = [key for key in standing(client) if not client.pttl(key) > 0]  # type: ignore[operator]
    assert left == [b"holdfast:format"]


async def test_no_other_command_is_run(server: RedisServer, client: redis.Redis, mode: str) -> None:
    """Counted at the server, by a user who may run any."""
    calls = opened(login(client, server, "+@all"), mode)
    client.config_resetstat()
    await everything(calls)
    await calls.close()
    ran = calls_of(client).keys() - HANDSHAKE - {"config|resetstat"}
    assert sorted(ran) == sorted(COMMANDS)
    await calls.call("check")
    assert sorted(calls_of(client).keys() - ran - HANDSHAKE) == ["config|get", "config|resetstat"]
    await calls.close()


@pytest.mark.parametrize("command", COMMANDS)
async def test_each_right_is_needed_and_missed_by_check(
    server: RedisServer, client: redis.Redis, command: str
) -> None:
    calls = opened(login(client, server, f"-{command}"), "async")
    if command != "info":  # of which first use makes a warning, and no more
        with pytest.raises(holdfast.ConfigurationError, match=r"docs/redis\.md"):
            await everything(calls)
        assert refused(client) == {command}
    await calls.close()
    client.script_flush()
    calls = opened(login(client, server, f"-{command}"), "async")
    try:
        findings = {one.what: one for one in await calls.call("check")}
        missed = findings["version" if command == "info" else "rights"]
        assert not missed.is_fine
        assert missed.remedy
    except holdfast.ConfigurationError as error:
        assert "docs/redis.md" in str(error)
        assert command in ("get", "set"), "check itself could not go on"
    await calls.close()


async def test_other_keys_are_out_of_reach(server: RedisServer, client: redis.Redis) -> None:
    url = login(client, server)
    client.set("holdfas", "of another program")
    for prefix in ("holdfas", "other", "holdfast2", "{holdfast}"):
        calls = Calls(holdfast.open(url, prefix=prefix, retry_budget=0), "async")
        with pytest.raises(holdfast.ConfigurationError, match="lacks a right"):
            await calls.get_tuple(config())
        await calls.close()
    assert keys(client) == [b"holdfas"]
    calls = Calls(holdfast.open(url, prefix="holdfast"), "async")
    assert await calls.get_tuple(config()) is None
    await calls.close()


async def test_another_database_takes_one_right_more(
    server: RedisServer, client: redis.Redis, mode: str
) -> None:
    url = login(client, server).replace("/0", "/5")
    refused = opened(url, mode)
    with pytest.raises(holdfast.ConfigurationError, match="select"):
        await refused.get_tuple(config())
    await refused.close()
    login(client, server, "+select")
    calls = opened(url, mode)
    await everything(calls)
    await calls.close()


async def test_config_get_tells_check_more(
    server: RedisServer, client: redis.Redis, mode: str
) -> None:
    for more, is_known in (("", False), ("+config|get", True)):
        calls = opened(login(client, server, *more.split()), mode)
        findings = {one.what: one for one in await calls.call("check")}
        assert (findings["lazy expiry"].is_fine is not None) is is_known
        await calls.close()
