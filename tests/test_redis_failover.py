"""Redis: an address that follows the primary is followed, whatever the demoted server says.

It goes on answering on the connections that lead to it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import holdfast
import pytest
import redis.asyncio
from blockbuster import BlockBuster
from holdfast import RedisSaver
from redis import Redis
from support.calls import Calls
from support.make import checkpoint, config
from support.redis import let_given_clients_connect
from support.redis_server import RedisServer
from support.redis_wire import RedisWire, Trip

pytestmark = pytest.mark.timeout(60)

NOWHERE = 1
"""A port on which no server replicates: what the demoted one has stays as it was."""
LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"


class Pair:
    """Two servers, and an address that leads to one of them."""

    def __init__(self, first: RedisServer, second: RedisServer, wire: RedisWire) -> None:
        self.first, self.second = Redis.from_url(first.url), Redis.from_url(second.url)
        self.ports = first.port, second.port
        self.wire = wire

    def fail_over(self, demote: Callable[[Pair], object]) -> None:
        """The second server has all that the first has, and takes over."""
        self.second.replicaof("127.0.0.1", self.ports[0])
        while self.second.info("replication")["master_link_status"] != "up":
            pass
        self.first.wait(1, 0)
        self.second.replicaof("NO", "ONE")
        self.wire.server = ("127.0.0.1", self.ports[1])
        demote(self)

    def wait_until_left(self, but: int = 0) -> None:
        """Until nobody is at the first server but the test, with some connections more."""
        while len(self.first.client_list(_type="normal")) > 1 + but:
            pass


@pytest.fixture
def pair() -> Iterator[Pair]:
    at_once = {"repl-diskless-sync-delay": 0}
    with RedisServer(at_once) as first, RedisServer() as second, RedisWire(first.port) as wire:
        pair = Pair(first, second, wire)
        yield pair
        pair.first.close()
        pair.second.close()


def make_replica(pair: Pair) -> None:
    pair.first.replicaof("127.0.0.1", NOWHERE)


def make_replica_that_serves_nothing(pair: Pair) -> None:
    pair.first.config_set("replica-serve-stale-data", "no")
    make_replica(pair)


def isolate(pair: Pair) -> None:
    pair.first.config_set("min-replicas-to-write", 1)


def load(pair: Pair) -> None:
    """What it says while it takes over what the new primary has."""
    there = pair.ports[0]
    pair.wire.meddle = lambda trip: LOADING if trip.port == there else trip.forward()


DEMOTIONS = [make_replica, make_replica_that_serves_nothing, isolate, load]


def of(number: int) -> Any:
    return checkpoint(number, {"state": [f"{number} of some"] * 50})


async def put(calls: Calls, number: int, thread: str = "t") -> None:
    await calls.put(config(thread), of(number), {}, {})


def sides(saver: holdfast.Saver, mode: str) -> tuple[Calls, Calls]:
    """The side of a test, and the other."""
    return Calls(saver, mode), Calls(saver, "sync" if mode == "async" else "async")


@pytest.mark.parametrize("demote", DEMOTIONS, ids=lambda demote: demote.__name__)
async def test_the_saver_goes_on_where_the_address_leads(
    pair: Pair, demote: Callable[[Pair], object], mode: str
) -> None:
    calls, other = sides(holdfast.open(pair.wire.url, retry_budget=10), mode)
    await asyncio.gather(*(put(one, 1, f"t{n}") for one in (calls, other) for n in range(6)))
    await put(calls, 1)
    await asyncio.to_thread(pair.fail_over, demote)
    await put(calls, 2)
    for number, one in enumerate((calls, other)):
        # Also the connections on which nothing was refused are left.
        found = await asyncio.gather(*(one.must_get(config()) for _ in range(9)))
        assert all(each.checkpoint == of(2) for each in found)
        assert (await one.must_get(config(f"t{number}"))).checkpoint == of(1)
        await put(one, 3, f"t{number}")
    assert calls.saver.stats()["errors"] == 0
    await asyncio.to_thread(pair.wait_until_left)
    await other.close()
    await calls.close()


async def test_a_connection_that_was_in_use_is_left_too(pair: Pair, mode: str) -> None:
    """It reads from the demoted server, whose reply comes when the others have left."""
    calls = Calls(holdfast.open(pair.wire.url, retry_budget=10, cache_bytes=0), mode)
    await put(calls, 1)
    asked, may_reply = threading.Event(), threading.Event()

    def meddle(trip: Trip) -> bytes:
        reply = trip.forward()
        if not trip.script and not asked.is_set():
            asked.set()
            may_reply.wait()
        return reply

    pair.wire.meddle = meddle
    late = asyncio.ensure_future(calls.get_tuple(config()))
    await asyncio.to_thread(asked.wait)
    await put(calls, 1, "beside")
    await asyncio.to_thread(pair.fail_over, make_replica)
    try:
        await put(calls, 2)
    finally:
        may_reply.set()
    assert await late is not None
    for _ in range(3):
        assert (await calls.must_get(config())).checkpoint == of(2)
    await asyncio.to_thread(pair.wait_until_left)
    await calls.close()


@pytest.mark.parametrize("kind", ["client", "async_client"])
async def test_clients_that_were_given_go_on_too(
    pair: Pair, no_blocking_call_on_a_loop: BlockBuster, kind: str, mode: str
) -> None:
    """Their other connections are their user's."""
    let_given_clients_connect(no_blocking_call_on_a_loop)
    how: dict[str, Any] = {"retry": None}
    sync_client = Redis.from_url(pair.wire.url, **how)
    async_client = redis.asyncio.Redis.from_url(pair.wire.url, **how)
    client: Any = sync_client if kind == "client" else async_client
    mine = client.connection_pool.get_connection()
    if kind == "async_client":
        mine = await mine
    calls = Calls(RedisSaver(**{kind: client}, retry_budget=10), mode)
    await put(calls, 1)
    await asyncio.to_thread(pair.fail_over, make_replica)
    await put(calls, 2)
    assert (await calls.must_get(config())).checkpoint == of(2)
    assert calls.saver.stats()["errors"] == 0
    await asyncio.to_thread(pair.wait_until_left, but=1)
    assert len(pair.first.client_list(_type="normal")) == 1 + 1
    await calls.close()
    await async_client.aclose()
    sync_client.close()
