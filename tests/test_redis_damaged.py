"""Redis: what is lost or damaged is told of its checkpoint or thread, and of no other."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import holdfast
import pytest
import redis
from holdfast.errors import CheckpointCorrupted
from support.calls import Calls
from support.graphs import Runs, delta, fan_out, on
from support.make import Thread, checkpoint, checkpoint_id, config, id_of
from support.redis_server import RedisServer

TEXTS = [f"{number * 7919 % 1000003:x} {number} " * 60 for number in range(40)]
Harm = Callable[[redis.Redis], Any]
SECOND = f"holdfast:checkpoint:hurt:{checkpoint_id(2)}"


@pytest.fixture
async def calls(server: RedisServer, client: redis.Redis, mode: str) -> AsyncIterator[Calls]:
    """Two threads of three checkpoints, seen by a saver that did not put them."""
    before = Calls(holdfast.open(server.url), mode)
    for name in ("hurt", "other"):
        thread = Thread(before, name)
        for number in (1, 2, 3):
            stored = await thread.put({"state": TEXTS[: 10 * number]})
            await before.put_writes(stored, [("state", number)], "task")
    await before.close()
    calls = Calls(holdfast.open(server.url), mode)
    yield calls
    await calls.close()


def flip(client: redis.Redis, at: int) -> None:
    """Of the second record."""
    stored: Any = client.get(SECOND)
    client.set(SECOND, stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :])


LOST: dict[str, Harm] = {
    "evicted": lambda client: client.delete(SECOND),
    "first byte": lambda client: flip(client, 0),
    "fourth byte": lambda client: flip(client, 3),
    "empty": lambda client: client.set(SECOND, b""),
}


@pytest.mark.parametrize("harm", LOST.values(), ids=LOST)
async def test_a_record_that_is_lost_harms_its_checkpoint_alone(
    calls: Calls, client: redis.Redis, harm: Harm, caplog: pytest.LogCaptureFixture
) -> None:
    chunks = client.hlen("holdfast:blobs:hurt")
    harm(client)
    lost = config("hurt", id=checkpoint_id(2))
    with pytest.raises(CheckpointCorrupted, match="eviction policy"):
        await calls.get_tuple(lost)
    head = await calls.must_get(config("hurt"))
    assert head.checkpoint["channel_values"] == {"state": TEXTS[:30]}
    assert await calls.get_tuple(config("hurt", id=checkpoint_id(9))) is None
    with pytest.raises(CheckpointCorrupted, match=checkpoint_id(2)):
        await calls.copy_thread("hurt", "copy")
    assert await calls.get_tuple(config("copy")) is None
    with caplog.at_level(logging.ERROR, "holdfast"):
        assert (await calls.sweep(keep_last=1)).unreadable == 1
    assert client.hlen("holdfast:blobs:hurt") == chunks, "what a repair needs stays"
    with pytest.raises(CheckpointCorrupted):
        await calls.prune(["hurt"])
    assert len(await calls.list(config("other"))) == 1
    await calls.delete_thread("hurt")
    assert await calls.list(config("hurt")) == []


@pytest.mark.parametrize("where", [config("hurt"), None], ids=["thread", "all"])
def test_a_list_gives_what_stands_in_front_of_what_is_lost(
    calls: Calls, client: redis.Redis, where: Any
) -> None:
    client.delete(SECOND, "holdfast:checkpoint:other:" + checkpoint_id(2))
    found = []
    with pytest.raises(CheckpointCorrupted, match=checkpoint_id(2)):
        found += [id_of(one.config) for one in calls.saver.list(where)]
    for one in calls.saver.list(where, limit=1):
        assert id_of(one.config) == checkpoint_id(3)
    reading = calls.saver.list(where)
    assert id_of(next(reading).config) == checkpoint_id(3)


INDEX = "holdfast:idx:hurt"
DISORDER: dict[str, Harm] = {
    "swapped": lambda client: (
        client.lset(INDEX, 0, checkpoint_id(3)),
        client.lset(INDEX, 2, checkpoint_id(1)),
    ),
    "twice": lambda client: client.lset(INDEX, 0, checkpoint_id(2)),
    "another": lambda client: client.lset(INDEX, 1, "0"),
}


@pytest.mark.parametrize("harm", DISORDER.values(), ids=DISORDER)
async def test_an_index_that_is_damaged_ends_a_list(
    calls: Calls, client: redis.Redis, harm: Harm
) -> None:
    harm(client)
    with pytest.raises(CheckpointCorrupted, match="hurt"):
        await calls.list(config("hurt"))
    with suppress(CheckpointCorrupted):
        await calls.list(None)
    assert len(await calls.list(config("other"))) == 3


META = "holdfast:meta:hurt"
FIELDS: dict[str, Harm] = {
    "epoch": lambda client: client.hset(META, "epoch", "x"),
    "created": lambda client: client.hdel(META, "created"),
    "expires": lambda client: client.hset(META, "expires", "never"),
    "namespace": lambda client: client.hset(META, b"ns:\xff", ""),
    "head": lambda client: client.delete(f"holdfast:checkpoint:hurt:{checkpoint_id(3)}"),
    "index": lambda client: client.delete(INDEX),
}


@pytest.mark.parametrize("harm", FIELDS.values(), ids=FIELDS)
async def test_one_thread_does_not_keep_the_others_from_being_listed_and_swept(
    calls: Calls, client: redis.Redis, harm: Harm, caplog: pytest.LogCaptureFixture
) -> None:
    harm(client)
    listed = {one.thread_id: one.error for one in await calls.threads()}
    assert listed.keys() == {"hurt", "other"}
    assert listed["other"] is None
    assert "'hurt'" in (listed["hurt"] or "")
    with caplog.at_level(logging.ERROR, "holdfast"):
        swept = await calls.sweep(keep_last=1)
    assert swept.checkpoints >= 2
    assert len(await calls.list(config("other"))) == 1


def test_a_damaged_place_of_writes_does_not_keep_a_thread_from_being_deleted(
    calls: Calls, client: redis.Redis
) -> None:
    for field in ("w:x", "w:-1:a", "w:"):
        client.hset(META, field, "")
    calls.saver.delete_thread("hurt")
    assert calls.saver.get_tuple(config("hurt")) is None
    calls.saver.put(config("hurt"), checkpoint(5), {}, {})
    assert len([*calls.saver.list(config("hurt"))]) == 1


async def test_a_delta_channel_is_not_rebuilt_across_a_gap(
    server: RedisServer, client: redis.Redis, mode: str
) -> None:
    saver = holdfast.open(server.url)
    graph = Runs(fan_out(saver, delta()), mode)
    for turn in range(3):
        await graph.invoke({"turn": turn, "other": [0]}, on("t"))
    calls = Calls(saver, mode)
    ids = [id_of(one.config) for one in await calls.list(config("t"))]
    await calls.close()
    client.delete(f"holdfast:checkpoint:t:{ids[len(ids) // 2]}")
    saver = holdfast.open(server.url)
    with pytest.raises(CheckpointCorrupted, match=ids[len(ids) // 2]):
        await Runs(fan_out(saver, delta()), mode).state(on("t"))
    await Calls(saver, mode).close()


async def test_an_earlier_life_of_a_thread_is_not_seen(
    server: RedisServer, client: redis.Redis, mode: str
) -> None:
    """Its index is there for a while, until the present life has a checkpoint in the namespace."""
    calls = Calls(holdfast.open(server.url, ttl=100), mode)
    for ns in ("", "child"):
        await calls.put(config("t", ns), checkpoint(1, {"a": "first life"}), {}, {})
    client.delete("holdfast:meta:t", "holdfast:blobs:t")  # as Redis does it at the moment
    await calls.put_writes(config("t", "", checkpoint_id(5)), [("a", 1)], "early")
    for ns in ("", "child"):
        assert await calls.get_tuple(config("t", ns)) is None
        assert await calls.get_tuple(config("t", ns, checkpoint_id(1))) is None
        assert await calls.list(config("t", ns)) == []
        assert await calls.history(config("t", ns), ["a"]) == {"a": {"writes": []}}
    await calls.close()
