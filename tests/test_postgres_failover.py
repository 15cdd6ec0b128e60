"""Postgres: an address that follows the primary is followed, and nothing acknowledged is lost.

The server that is no longer the primary goes on answering on the connections that lead to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import holdfast
import pytest
from holdfast import PostgresSaver
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from support.calls import Calls
from support.make import checkpoint, checkpoint_id, config
from support.postgres import backends_of, eye
from support.postgres_server import PostgresServer
from support.postgres_standby import PRIMARY, PostgresStandby
from support.postgres_wire import PostgresWire

pytestmark = pytest.mark.timeout(60)


class Pair:
    """A primary, its synchronous standby, and an address that leads to the primary."""

    def __init__(self, primary: PostgresServer, standby: PostgresStandby) -> None:
        self.primary, self.standby = eye(primary.url), eye(standby.url)
        self._port = standby.port
        self.wire = PostgresWire(primary.port)
        self.say("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        while not self.primary.execute(
            "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'"
        ).rowcount:
            pass

    def say(self, statement: str) -> None:
        """Change a setting of the primary, for those who are there, too."""
        self.primary.execute(statement)
        self.primary.execute("SELECT pg_reload_conf()")

    def fail_over(self) -> None:
        """The primary changes nothing any more, and the standby takes over."""
        self.say("ALTER SYSTEM SET default_transaction_read_only = on")
        self.standby.execute("SELECT pg_promote()")
        self.wire.server = ("127.0.0.1", self._port)

    def wait_until_left(self) -> None:
        """Until no client is at the first server but the test."""
        while backends_of(self.primary):
            pass


@pytest.fixture
def pair() -> Iterator[Pair]:
    with PostgresServer(PRIMARY) as primary, PostgresStandby(primary) as standby:
        pair = Pair(primary, standby)
        with pair.wire, pair.primary, pair.standby:
            yield pair


def of(number: int) -> Any:
    return checkpoint(number, {"state": [f"{number} of some"] * 50})


async def put(calls: Calls, number: int, thread: str = "t") -> None:
    await calls.put(config(thread), of(number), {}, {})


async def test_the_saver_goes_on_where_the_address_leads(pair: Pair, mode: str) -> None:
    calls = Calls(holdfast.open(pair.wire.url, retry_budget=20, cache_bytes=0), mode)
    other = Calls(calls.saver, "sync" if mode == "async" else "async")
    for one in (calls, other):
        await asyncio.gather(*(put(one, 1, f"{one.mode} {n}") for n in range(6)))
    await put(calls, 1)
    await asyncio.to_thread(pair.fail_over)
    await put(calls, 2)
    for one in (calls, other):
        # Also the connections on which nothing was refused are left.
        found = await asyncio.gather(*(one.must_get(config()) for _ in range(9)))
        assert all(each.checkpoint == of(2) for each in found)
        for number in range(6):
            assert (await one.must_get(config(f"{one.mode} {number}"))).checkpoint == of(1)
        await put(one, 2, f"{one.mode} 0")
    assert await calls.ids(config()) == [checkpoint_id(2), checkpoint_id(1)]
    assert calls.saver.stats()["errors"] == 0
    await asyncio.to_thread(pair.wait_until_left)
    await calls.close()


@pytest.mark.parametrize("kind", ["conn", "async_conn"])
async def test_a_pool_that_was_given_goes_on_too(pair: Pair, kind: str, mode: str) -> None:
    pools = ConnectionPool if kind == "conn" else AsyncConnectionPool
    pool: Any = pools(pair.wire.url.replace("&table=holdfast", ""), min_size=2, open=False)
    if kind == "conn":
        await asyncio.to_thread(pool.open, wait=True)
    else:
        await pool.open(wait=True)
    calls = Calls(PostgresSaver(**{kind: pool}, retry_budget=20), mode)
    await put(calls, 1)
    await asyncio.to_thread(pair.fail_over)
    await put(calls, 2)
    assert (await calls.must_get(config("t", "", checkpoint_id(1)))).checkpoint == of(1)
    assert calls.saver.stats()["errors"] == 0
    if kind == "conn":
        await asyncio.to_thread(pool.close)
    else:
        await pool.close()
