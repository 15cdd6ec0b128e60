"""Removing large threads: in slices, gone at once for everybody, and begun anew in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from uuid import UUID

import holdfast
import pytest
import redis
from support.audit import is_tombstone, standing
from support.calls import Calls
from support.make import checkpoint, checkpoint_id, config, version
from support.redis import dump, eye, keys
from support.redis_server import RedisServer
from support.relay import Relay
from support.uses import WORDS

MANY = 2600
"""Checkpoints that take several slices to remove."""


@pytest.fixture
def relay(server: RedisServer, client: redis.Redis) -> Iterator[Relay]:
    with Relay(server.port) as relay:
        yield relay


@pytest.fixture
async def calls(relay: Relay, mode: str) -> AsyncIterator[Calls]:
    """Who removes."""
    calls = Calls(holdfast.open(relay.url, retry_budget=0), mode)
    await calls.setup()
    await calls.delete_thread("nobody")
    yield calls
    await calls.close()


@pytest.fixture
async def other(server: RedisServer, client: redis.Redis) -> AsyncIterator[Calls]:
    """Who uses the thread meanwhile, past the relay."""
    calls = Calls(holdfast.open(server.url, retry_budget=0), "async")
    await calls.setup()
    yield calls
    await calls.close()


async def put(calls: Calls, number: int, thread: str = "t", ns: str = "") -> Any:
    made = checkpoint(number, {"state": [str(number), *WORDS[:2]]}, {"state": version(number)})
    metadata: Any = {"run_id": f"r{number % 3}"}
    return await calls.put(config(thread, ns), made, metadata, made["channel_versions"])


@pytest.fixture(scope="module")
def large(server: RedisServer) -> dict[bytes, bytes]:
    """The keys of a thread with many checkpoints, writes and runs, as DUMP gives them."""

    def ns(number: int) -> str:
        return "sub:1" if number % 5 == 0 else ""

    async def grow() -> None:
        async with holdfast.open(server.url) as saver:
            calls = Calls(saver, "async")
            wrote = [config("t", "", checkpoint_id(number)) for number in range(0, MANY, 10)]
            await asyncio.gather(
                *(put(calls, number, "t", ns(number)) for number in range(MANY)),
                *(calls.put_writes(where, [("a", 1)], "task") for where in wrote),
            )

    with eye(server.url) as client:
        client.flushall()
        asyncio.run(grow())
        names = keys(client)
        with client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.dump(name)
            return dict(zip(names, pipe.execute(), strict=True))


@pytest.fixture
def grow(large: dict[bytes, bytes], client: redis.Redis) -> Callable[[], None]:
    """Makes the thread `t` large, beside those that are there."""

    def restore() -> None:
        with client.pipeline(transaction=False) as pipe:
            for name, value in large.items():
                if b":run:" in name:
                    pipe.sadd(name, "t")
                elif name == b"holdfast:threads":
                    pipe.zadd(name, {"t": 1})
                else:
                    pipe.restore(name, 0, value, replace=True)
            pipe.execute()

    return restore


class Between:
    """Does something on a loop before the nth request passes the relay."""

    def __init__(self, relay: Relay, work: Callable[[int], Awaitable[None] | None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._relay = relay
        self._work = work
        self.count = 0
        relay.before = self

    def __call__(self) -> None:
        self.count += 1
        doing = self._work(self.count)
        if doing is not None:
            asyncio.run_coroutine_threadsafe(self._awaited(doing), self._loop).result(60)

    async def _awaited(self, doing: Awaitable[None]) -> None:
        await doing

    def end(self) -> None:
        self._relay.before = lambda: None


async def cut_short(calls: Calls, relay: Relay, thread: str = "t", after: int = 1) -> None:
    """Begin to delete a thread, and be killed after some slices."""

    def cut(count: int) -> None:
        if count > after:
            relay.cut()

    between = Between(relay, cut)
    with pytest.raises(holdfast.StoreUnavailable):
        await calls.delete_thread(thread)
    between.end()
    assert between.count > after


# --- whole


async def test_not_one_key_is_left(
    calls: Calls, other: Calls, relay: Relay, grow: Any, client: redis.Redis
) -> None:
    grow()
    await put(other, 1, "bystander")
    beside = {key: value for key, value in dump(client).items() if b"bystander" in key}
    relay.take()
    await calls.delete_thread("t")
    trips, _ = relay.take()
    assert trips >= 3, "other clients had to wait for all of it"
    assert trips < 10
    left = dump(client)
    assert {key: left[key] for key in beside} == beside
    tombstones = {b"holdfast:meta:nobody", b"holdfast:meta:t"}
    assert all(is_tombstone(client, key) for key in tombstones)
    rest = left.keys() - beside.keys() - tombstones
    assert rest == {b"holdfast:format", b"holdfast:threads", b"holdfast:run:r1"}
    assert left[b"holdfast:run:r1"] == {b"bystander"}


async def test_writes_without_checkpoints_go_in_slices_too(
    calls: Calls, other: Calls, relay: Relay, client: redis.Redis
) -> None:
    await asyncio.gather(
        *(
            other.put_writes(config("t", f"ns:{n % 7}", checkpoint_id(n)), [("a", n)], "task")
            for n in range(MANY)
        )
    )
    relay.take()
    await calls.delete_thread("t")
    assert relay.take()[0] >= 3
    assert standing(client) == [b"holdfast:format"]


async def test_pruning_many_goes_in_slices(
    calls: Calls, other: Calls, relay: Relay, grow: Any, client: redis.Redis
) -> None:
    grow()
    relay.take()
    await calls.prune(["t"])
    assert max(sum(map(len, command)) for command in relay.commands) < 200_000
    assert await other.ids(config("t")) == [checkpoint_id(MANY - 1)]
    found = await other.must_get(config("t"))
    assert found.checkpoint["channel_values"]["state"][0] == str(MANY - 1)
    assert client.llen("holdfast:idx:t") == 1
    await calls.prune(["t"], strategy="delete")
    assert standing(client) == [b"holdfast:format"]


# --- between the slices


async def test_the_thread_is_gone_with_the_first_slice(
    calls: Calls, other: Calls, relay: Relay, grow: Any
) -> None:
    grow()
    seen = []

    async def look(_: int) -> None:
        seen.append(
            (
                await other.get_tuple(config("t")) is not None,
                await other.get_tuple(config("t", "", checkpoint_id(1))) is not None,
                len(await other.ids(config("t", None), limit=3)),
                len(await other.ids(None, limit=3)),
            )
        )

    between = Between(relay, look)
    await calls.delete_thread("t")
    between.end()
    assert seen[0] == (True, True, 3, 3)
    assert len(seen) >= 3
    assert set(seen[1:]) == {(False, False, 0, 0)}


@pytest.mark.parametrize("what", ["put", "put_writes", "large put", "copy"])
async def test_a_change_between_the_slices_begins_anew_and_is_kept(
    calls: Calls, other: Calls, relay: Relay, grow: Any, client: redis.Redis, what: str
) -> None:
    grow()
    await put(other, 7, "source")
    # The id of a checkpoint that is made after the deletion: one that says no time is refused.
    made_later = str(UUID(int=(int(time.time() * 1000) + 60_000) << 80 | 7 << 76 | 1 << 63))
    place = config("t", "", made_later)

    async def change(count: int) -> None:
        if count != 2:
            return
        if what == "put":
            await put(other, 1)
        elif what == "put_writes":
            await other.put_writes(place, [("a", 1)], "task")
        elif what == "large put":
            made = checkpoint(1, {"state": [word * 100 for word in WORDS]})
            await other.put(config("t"), made, {}, made["channel_versions"])
        else:
            await other.copy_thread("source", "t")

    between = Between(relay, change)
    await calls.delete_thread("t")
    between.end()
    cold = Calls(holdfast.open(other.saver._live.backend._clients._url), "async")  # type: ignore[attr-defined]
    if what == "put_writes":
        assert await cold.get_tuple(place) is None
        await cold.put(config("t"), checkpoint(made_later), {}, {})
        assert (await cold.must_get(place)).pending_writes == [("task", "a", 1)]
    else:
        expected = checkpoint_id(7 if what == "copy" else 1)
        assert await cold.ids(config("t", None)) == [expected], "the put was lost"
        assert (await cold.must_get(config("t"))).pending_writes == []
    await cold.delete_thread("t")
    await cold.delete_thread("source")
    await cold.close()
    assert standing(client) == [b"holdfast:format"]


async def test_two_deletions_at_once_end(
    calls: Calls, other: Calls, relay: Relay, grow: Any, client: redis.Redis
) -> None:
    grow()
    between = Between(relay, lambda count: other.delete_thread("t") if count == 2 else None)
    await calls.delete_thread("t")
    between.end()
    assert standing(client) == [b"holdfast:format"]


# --- cut short


async def test_who_comes_across_what_is_left_finishes_it(
    calls: Calls, other: Calls, relay: Relay, grow: Any, client: redis.Redis
) -> None:
    await put(other, 3, "source")
    await put(other, 3, "target")
    before = dump(client)
    place = config("t", "", checkpoint_id(3))

    async def late() -> None:
        with pytest.raises(holdfast.ThreadDeleted):
            await other.put_writes(place, [("a", 1)], "task")

    ways: list[tuple[Callable[[], Awaitable[Any]], list[str]]] = [
        (lambda: other.delete_thread("t"), []),
        (lambda: calls.delete_thread("t"), []),
        (lambda: other.prune(["t"], strategy="delete"), []),
        (lambda: put(other, 3), [checkpoint_id(3)]),
        (late, []),
        (lambda: other.copy_thread("source", "t"), [checkpoint_id(3)]),
    ]
    for after in (1, 2):
        for finish, expected in ways:
            grow()
            await cut_short(calls, relay, after=after)
            assert await other.get_tuple(config("t")) is None
            assert await other.ids(config("t", None)) == []
            await other.copy_thread("t", "target")  # of a thread that is gone: nothing
            await finish()
            assert await other.ids(config("t", None)) == expected
            assert not [key for key in keys(client) if b":t:" in key and b"3" not in key]
            await other.delete_thread("t")
            left = dump(client)
            assert is_tombstone(client, b"holdfast:meta:t")
            del left[b"holdfast:meta:t"]
            assert {key: value for key, value in left.items() if b":threads" not in key} == {
                key: value for key, value in before.items() if b":threads" not in key
            }


async def test_many_who_finish_it_at_once_keep_what_each_has_put(
    calls: Calls, other: Calls, relay: Relay, grow: Any, server: RedisServer, client: redis.Redis
) -> None:
    """Who finds that the rest is gone and the thread lives again removes nothing of it."""
    grow()
    await cut_short(calls, relay)
    third = Calls(holdfast.open(server.url), "async")
    await third.setup()
    numbers = range(20)
    await asyncio.gather(*(put((other, third)[number % 2], number) for number in numbers))
    assert await other.ids(config("t")) == [checkpoint_id(number) for number in reversed(numbers)]
    await third.delete_thread("t")
    await third.close()
    assert standing(client) == [b"holdfast:format"]
