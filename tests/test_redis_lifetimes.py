"""Expiry in Redis: every key goes in time, and none before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import holdfast
import pytest
import redis
from holdfast.backends import base
from holdfast.backends.base import Expire, Forget, Page, new_operation_id
from support.audit import audit
from support.calls import Calls
from support.clock import Asked
from support.make import checkpoint, checkpoint_id, config
from support.redis import calls_of, keys
from support.redis_lifetimes import FOR_EVER, TTL, grow, large, lives, put
from support.redis_server import RedisServer
from support.redis_wire import RedisWire, Trip
from support.requests import anew, made
from support.wire import Cut


@pytest.fixture
def wire(server: RedisServer, client: redis.Redis) -> Iterator[RedisWire]:
    with RedisWire(server.port) as wire:
        yield wire


@pytest.fixture
async def open_calls(server: RedisServer, client: redis.Redis, mode: str) -> AsyncIterator[Any]:
    """Opens savers, which are closed at the end."""
    opened: list[Calls] = []

    def open_calls(ttl: float | None = None, url: str = server.url, **options: Any) -> Calls:
        options.setdefault("retry_budget", 0)
        opened.append(Calls(holdfast.open(url, ttl=ttl, **options), mode))
        return opened[-1]

    yield open_calls
    for calls in opened:
        await calls.close()


# --- every key


async def test_every_key_has_its_time(open_calls: Any, client: redis.Redis) -> None:
    calls = open_calls(TTL, refresh_on_read=True)
    ask = Asked(calls.saver, calls.mode)

    async def all_expire(work: Awaitable[Any]) -> None:
        await work
        for key, left in lives(client).items():
            assert left > 0, f"{key!r} stays for ever"
        audit(client)

    await all_expire(grow(calls))
    await all_expire(put(calls, 7, value=large()))
    await all_expire(put(calls, 7, "large", value=large()))
    wide = [("a", large())]
    await all_expire(calls.put_writes(config("ahead", "", checkpoint_id(1)), wide, "task"))
    await all_expire(calls.copy_thread("t", "copy"))
    await all_expire(calls.copy_thread("large", "copy"))
    await all_expire(calls.copy_thread("ahead", "copy of writes"))
    await all_expire(calls.must_get(config("t")))
    await all_expire(calls.list(config("t", None)))
    await all_expire(ask(Expire("t", 5)))
    await all_expire(calls.prune(["copy"]))
    await all_expire(calls.delete_for_runs(["r1"]))
    await all_expire(ask(base.Lease("leased", 5)))
    await all_expire(ask(base.Lease("t", 5)))
    await all_expire(calls.delete_thread("ahead"))
    await all_expire(calls.delete_thread("nobody"))


async def test_cancelled_and_failed_calls_leave_nothing_for_ever(
    wire: RedisWire, open_calls: Any, client: redis.Redis
) -> None:
    """Cut at each round trip in turn, of large and small changes."""
    calls = open_calls(TTL, wire.url)
    await grow(calls)
    changes: list[Callable[[int], Awaitable[Any]]] = [
        lambda n: put(calls, 20, f"put {n}", value=large()),
        lambda n: calls.put_writes(config(f"write {n}", "", "1"), [("a", large())], "task"),
        lambda n: calls.copy_thread("t", f"copy {n}"),
        lambda n: calls.delete_thread(f"put {n}"),
    ]
    for change in changes:
        for nth in range(1, 7):
            count = 0

            def cut(trip: Trip, nth: int = nth) -> bytes:
                nonlocal count
                count += 1
                reply = trip.forward()
                if count >= nth:
                    raise Cut
                return reply

            wire.meddle = cut
            with suppress(holdfast.StoreUnavailable):
                await change(nth)
            wire.meddle = Trip.forward
            for key, left in lives(client).items():
                assert left > 0, f"{key!r} stays for ever"
            if calls.mode == "async":
                task = asyncio.ensure_future(change(nth + 10))
                await asyncio.sleep(0.001 * nth)
                task.cancel()
                await asyncio.wait([task])
                assert min(lives(client).values()) > 0
    audit(client)


async def test_without_a_ttl_nothing_expires(open_calls: Any, client: redis.Redis) -> None:
    calls = open_calls()
    await grow(calls)
    await calls.copy_thread("t", "copy")
    assert set(lives(client).values()) == {FOR_EVER}


async def test_what_an_earlier_life_left_takes_nothing_along(
    open_calls: Any, client: redis.Redis
) -> None:
    """Keys of a thread that expired have a lease still, which the next one must not inherit."""
    await grow(open_calls(TTL))
    client.delete("holdfast:meta:t", "holdfast:blob:t")
    assert len(lives(client, "t")) > 10
    calls = open_calls()
    await grow(calls)
    await calls.put_writes(config("t", "", checkpoint_id(0)), [("b", 1)], "another task")
    assert set(lives(client).values()) == {FOR_EVER}
    audit(client)


# --- the end


async def test_an_expired_thread_is_gone_and_what_is_left_follows(
    open_calls: Any, client: redis.Redis
) -> None:
    calls = open_calls(0.3)
    await grow(calls)
    await calls.copy_thread("t", "copy")
    await asyncio.sleep(0.32)
    assert await calls.list(None) == []
    assert not [key for key in keys(client) if b":meta:" in key or b":blob:" in key]
    await asyncio.sleep(2)  # those that are shared live a little longer
    assert keys(client) == [b"holdfast:format"]


async def test_a_lease_outlives_the_thread(open_calls: Any, client: redis.Redis) -> None:
    calls = open_calls(0.2)
    ask = Asked(calls.saver, calls.mode)
    token, _ = await ask(base.Lease("t", 60))
    fence = base.Fence(token, 60)
    for _ in range(2):
        assert await ask(anew(made(), fence=fence)) == []
        await asyncio.sleep(0.22)
        assert await ask(Page("t", None, None, None, None, 9)) == []
        assert (await ask.visited())["t"].is_expired
        assert await ask(base.Lease("t", 60)) == (None, pytest.approx(60, abs=1))
        with pytest.raises(holdfast.LeaseLost):
            await ask(anew(made()))
    assert await ask(Forget("t", new_operation_id(), leaves_tombstone=False))
    assert lives(client, "t").keys() == {b"holdfast:meta:t"}
    assert (await ask.visited())["t"].is_leased


async def test_births_take_what_expired_out_of_the_registry(
    open_calls: Any, client: redis.Redis
) -> None:
    calls = open_calls(TTL)
    client.zadd("holdfast:threads", {f"gone {number}": number for number in range(30)})
    await put(calls, 1, "alive")
    assert client.zcard("holdfast:threads") <= 31 - 3 + 3
    for number in range(60):
        await put(calls, 1, f"alive {number}")
    gone = [name for name in client.zrange("holdfast:threads", 0, -1) if name.startswith(b"gone")]
    assert len(gone) < 10
    await Asked(calls.saver, calls.mode).visited()
    left = client.zrange("holdfast:threads", 0, -1)
    assert sorted(left) == sorted([b"alive", *(b"alive %d" % number for number in range(60))])


async def test_a_put_costs_as_much_with_a_history(open_calls: Any, client: redis.Redis) -> None:
    """Counted in commands that the server runs, in scripts too."""
    costs = {}
    for ttl in (None, TTL):
        calls = open_calls(ttl)
        await put(calls, 1)
        counted = []
        for number in range(2, 300):
            one = checkpoint(number)
            if number in (5, 299):
                client.config_resetstat()
            await calls.put(config("t"), one, {}, {})
            if number in (5, 299):
                ran = calls_of(client)
                counted.append(sum(ran.values()) - ran["config|resetstat"] - ran["evalsha"])
        assert counted[0] == counted[1]
        costs[ttl] = counted[0]
        await calls.delete_thread("t")
        client.flushall()
    assert costs[None] <= 9
    assert costs[TTL] <= costs[None] + 3
