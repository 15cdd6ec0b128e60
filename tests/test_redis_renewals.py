"""The lease of a thread's keys in Redis is renewed, whoever is cut short, and where."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import holdfast
import pytest
import redis
from holdfast.backends.base import Expire
from support.audit import audit, milliseconds
from support.calls import Calls
from support.clock import Asked
from support.make import checkpoint, checkpoint_id, config
from support.redis_lifetimes import FOR_EVER, TTL, fields, grow, lives, put, script
from support.redis_server import RedisServer
from support.redis_wire import RedisWire, Trip
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


def set_leased(client: redis.Redis, seconds: float) -> int:
    """As if all keys had so much time left; when that is."""
    until = milliseconds(client) + int(seconds * 1000)
    for key in lives(client, "t"):
        if b":meta:" not in key and b":blob:" not in key:
            client.pexpireat(key, until)
    client.hset("holdfast:meta:t", "leased", until)
    return until


async def test_a_lease_is_renewed_before_it_is_short(
    open_calls: Any, client: redis.Redis, wire: RedisWire
) -> None:
    calls = open_calls(TTL, wire.url)
    await grow(calls, 700)
    for share, is_renewed in ((1.9, False), (1.6, False), (1.4, True), (0.5, True)):
        until = set_leased(client, share * TTL)
        scripts: list[str] = []

        def note(trip: Trip, scripts: list[str] = scripts) -> bytes:
            scripts.append(script(trip))
            return trip.forward()

        wire.meddle = note
        await calls.put(config("t"), checkpoint(901), {}, {})
        if is_renewed:
            assert int(fields(client)[b"leased"]) > until
            assert scripts.count("renew") >= 3, "one script for so many keys"
            assert scripts.count("commit") == (2 if share < 1 else 1)
        else:
            assert int(fields(client)[b"leased"]) == until
            assert scripts == ["commit"]
        audit(client)


async def test_a_renewal_that_fails_does_not_fail_the_change(
    open_calls: Any, client: redis.Redis, wire: RedisWire
) -> None:
    calls = open_calls(TTL, wire.url, refresh_on_read=True)
    await grow(calls, 700)
    for failing in ("begin_renewal", "LRANGE", "renew"):
        until = set_leased(client, 1.2 * TTL)

        def cut(trip: Trip, failing: str = failing) -> bytes:
            if failing in (script(trip), trip.command[0].decode()):
                raise Cut
            return trip.forward()

        wire.meddle = cut
        await calls.put(config("t"), checkpoint(902), {}, {})
        assert (await calls.must_get(config("t"))).checkpoint["id"] == checkpoint_id(902)
        wire.meddle = Trip.forward
        assert int(fields(client)[b"leased"]) >= until
        assert min(lives(client).values()) > 0
    await calls.put(config("t"), checkpoint(903), {}, {})
    assert b"renewal" not in fields(client)
    audit(client)


@pytest.mark.parametrize("to", [None, 50.0, TTL * 1000])
@pytest.mark.parametrize("since", [None, 50.0, TTL])
async def test_a_change_of_the_ttl_loses_nothing_wherever_it_is_cut(
    open_calls: Any, client: redis.Redis, wire: RedisWire, since: float | None, to: float | None
) -> None:
    """At every moment all keys live as long as the hash says, and the hash as long as they."""
    before, after = open_calls(since), open_calls(to, wire.url)
    for nth in range(1, 9):
        await before.delete_thread("t")
        client.flushall()
        before.saver._live.backend._is_set_up = False
        await grow(before, 5)
        count = 0

        def cut(trip: Trip, nth: int = nth) -> bytes:
            nonlocal count
            count += 1
            if count > nth:
                raise Cut
            return trip.forward()

        await after.get_tuple(config("t"))
        wire.meddle = cut
        with suppress(holdfast.StoreUnavailable):
            await after.put(config("t"), checkpoint(904), {}, {})
        wire.meddle = Trip.forward
        meta = fields(client)
        least = int(meta[b"leased"]) if b"leased" in meta else None
        own = lives(client, "t")
        hash_left = own.pop(b"holdfast:meta:t")
        own.pop(b"holdfast:blob:t")
        for key, left in own.items():
            if least is None:
                assert left == FOR_EVER, f"{key!r} would go"
            elif left != FOR_EVER:
                assert milliseconds(client) + left >= least - 2, f"{key!r} would go"
            assert left != FOR_EVER or hash_left == FOR_EVER, f"nothing names {key!r} in the end"
        for number in (905, 906):  # the next ones mend what was left half done
            await after.put(config("t"), checkpoint(number), {}, {})
        audit(client)
        assert (set(lives(client, "t").values()) == {FOR_EVER}) is (to is None)
        assert len(await before.list(config("t", None))) >= 7


async def test_a_writer_without_a_ttl_comes_before_the_renewal(
    open_calls: Any, server: RedisServer, client: redis.Redis, wire: RedisWire
) -> None:
    """The commit that has a thread expire is done, and the lease of its keys is not yet: what
    does not expire any more must get none."""
    without, passing = open_calls(), open_calls(TTL, wire.url)
    await grow(without)
    beside = holdfast.open(server.url)
    met: list[int] = []

    def meddle(trip: Trip) -> bytes:
        if script(trip) == "begin_renewal":
            beside.put(config("t"), checkpoint(910), {}, {})
            met.append(1)
        return trip.forward()

    wire.meddle = meddle
    await passing.put(config("t"), checkpoint(911), {}, {})
    beside.close()
    assert met
    audit(client)
    assert set(lives(client, "t").values()) == {FOR_EVER}


async def test_a_read_beyond_the_lease_renews_it(open_calls: Any, client: redis.Redis) -> None:
    calls = open_calls(TTL, refresh_on_read=True)
    await grow(calls)
    reads: list[Callable[[], Awaitable[Any]]] = [
        lambda: calls.must_get(config("t")),
        lambda: calls.list(config("t"), limit=1),
        lambda: calls.history(config("t"), ["state"]),
    ]
    for read in reads:
        set_leased(client, 0.4 * TTL)
        client.hset("holdfast:meta:t", "expires", milliseconds(client) + 1000)
        await read()
        left = int(fields(client)[b"expires"]) - milliseconds(client)
        assert left == pytest.approx(TTL * 1000, abs=1000)
        audit(client)


async def test_a_full_server_is_read_all_the_same(open_calls: Any, client: redis.Redis) -> None:
    calls = open_calls(TTL, refresh_on_read=True)
    await grow(calls)
    client.config_set("maxmemory", 1)
    try:
        assert await calls.must_get(config("t"))
        with pytest.raises(holdfast.StoreFull):
            await calls.put(config("t"), checkpoint(920), {}, {})
        await calls.delete_thread("t")
        assert await calls.get_tuple(config("t")) is None
    finally:
        client.config_set("maxmemory", 0)
    with pytest.raises(holdfast.ThreadDeleted):
        await calls.put_writes(config("t", "", checkpoint_id(0)), [("a", 1)], "task")
    audit(client)


@pytest.mark.parametrize("ttl", [None, TTL])
async def test_persist_and_expire(open_calls: Any, client: redis.Redis, ttl: float | None) -> None:
    calls = open_calls(ttl)
    ask = Asked(calls.saver, calls.mode)
    await grow(calls)
    for seconds in (None, 30.0, None, None, 5000.0, 30.0, None):
        assert await ask(Expire("t", seconds))
        audit(client)
        assert (b"expires" in fields(client)) is (seconds is not None)
        if seconds is None:
            assert set(lives(client, "t").values()) == {FOR_EVER}
            await put(calls, 950)
            assert set(lives(client, "t").values()) == {FOR_EVER}, "a write takes it away"
            assert client.ttl("holdfast:threads") == FOR_EVER
    assert not await ask(Expire("nobody", 5))
    assert not await ask(Expire("nobody", None))


async def test_savers_of_different_ttl_at_once(open_calls: Any, client: redis.Redis) -> None:
    savers = [open_calls(ttl, retry_budget=20) for ttl in (None, 20.0, TTL, TTL * 100)]
    for turn in range(6):
        await asyncio.gather(
            *(
                put(savers[number % 4], 10 * turn + number, ns=f"n{number % 3}")
                for number in range(10)
            )
        )
        meta = fields(client)
        assert len(await savers[0].list(config("t", None))) == 10 * (turn + 1)
        own = lives(client, "t")
        if b"leased" not in meta:
            own.pop(b"holdfast:blob:t")
            assert set(own.values()) == {FOR_EVER}
        for key, left in own.items():
            if left != FOR_EVER and b"leased" in meta and key[9:13] not in (b"meta", b"blob"):
                assert milliseconds(client) + left >= int(meta[b"leased"]) - 2, key
    await put(savers[0], 990)
    audit(client)
    assert set(lives(client, "t").values()) == {FOR_EVER}
