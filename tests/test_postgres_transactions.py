"""Given connections in a transaction or a pipeline of their user's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, closing
from typing import Any

import holdfast
import psycopg
import pytest
from holdfast import PostgresSaver
from holdfast.backends.base import Discard
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from support.calls import Calls
from support.make import checkpoint, checkpoint_id, config, version
from support.postgres import Connection, backends_of, eye
from support.postgres_server import shared_postgres
from support.uses import WORDS, put_one, use
from support.workers import put_and_check

Open = Callable[..., Awaitable[Any]]
IDLE = TransactionStatus.IDLE


@pytest.fixture
def url() -> str:
    return shared_postgres()


@pytest.fixture
def conn(url: str) -> Iterator[Connection]:
    with eye(url) as conn:
        yield conn


@pytest.fixture
def table(conn: Connection) -> Iterator[str]:
    """A prefix of this test's own, whose tables are gone at its end."""
    conn.execute("CREATE SCHEMA IF NOT EXISTS given")
    yield "given.holdfast"
    conn.execute("DROP SCHEMA given CASCADE")


@pytest.fixture
async def opened(url: str, table: str) -> AsyncIterator[Open]:
    """Opens a saver on a sync and an async connection, and closes these at the end."""
    async with AsyncExitStack() as stack:

        async def open(**settings: Any) -> Any:
            mine = stack.enter_context(psycopg.connect(url, **settings))
            other = await AsyncConnection.connect(url, **settings)
            await stack.enter_async_context(other)
            return PostgresSaver(mine, async_conn=other, table=table)

        yield open


def rows(conn: Connection) -> int:
    found = conn.execute("SELECT count(*) FROM given.holdfast_checkpoints").fetchone()
    return found[0] if found else 0


async def run(calls: Calls, statement: str) -> None:
    """As the user, on the connection of the side that is called."""
    clients = calls.saver._live.backend._clients  # type: ignore[attr-defined]
    if calls.mode == "async":
        await clients._async_conn.execute(statement)
    else:
        clients._conn.execute(statement)


# --- transactions of the user's


@pytest.mark.parametrize("autocommit", [True, False])
async def test_a_rollback_of_the_users_takes_back_what_was_put(
    opened: Open, conn: Connection, autocommit: bool, mode: str
) -> None:
    saver = await opened(autocommit=autocommit)
    await saver.asetup()
    calls = Calls(saver, mode)

    await run(calls, "BEGIN")
    await calls.put(config(), checkpoint(1, {"a": 1}), {}, {})
    assert (await calls.must_get(config())).checkpoint["channel_values"] == {"a": 1}
    await run(calls, "ROLLBACK")
    assert await calls.get_tuple(config()) is None
    await run(calls, "BEGIN")
    await calls.put(config(), checkpoint(2, {"a": 2}), {}, {})
    await calls.put_writes(config(id=checkpoint_id(2)), [("a", 3)], "task")
    await calls.delete_thread("nobody")
    assert rows(conn) == 0, "it is the user who commits"
    await run(calls, "COMMIT")
    assert rows(conn) == 1
    assert (await calls.must_get(config())).pending_writes == [("task", "a", 3)]


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_what_went_since_the_users_transaction_began_is_sent_again(
    url: str, table: str, level: str
) -> None:
    """Its snapshot shows chunks that a sweep has removed since."""
    with (
        psycopg.connect(url, autocommit=True) as mine,
        closing(PostgresSaver(url, table=table)) as sweeping,
    ):
        saver = PostgresSaver(mine, table=table)
        texts, small = ({"state": WORDS}, {"state": WORDS[:1]})
        for number, values in ((1, texts), (2, small)):
            put_values(saver, number, values)
        backend: Any = sweeping._live.backend
        execute = backend.execute

        def discarding(request: Any) -> Any:
            if isinstance(request, Discard) and mine.info.transaction_status == IDLE:
                mine.execute(f"BEGIN ISOLATION LEVEL {level}".encode())
                mine.execute(f"SELECT count(*) FROM {table}_blobs".encode())
            return execute(request)

        backend.execute = discarding
        assert sweeping.sweep(keep_last=1).bytes > 0
        put_values(saver, 3, texts)
        mine.commit()
        found = saver.get_tuple(config())
        assert found is not None
        assert found.checkpoint["channel_values"] == texts


def put_values(saver: holdfast.Saver, number: int, values: dict[str, Any]) -> None:
    made = checkpoint(number, values, dict.fromkeys(values, version(number)))
    saver.put(config(), made, {}, made["channel_versions"])


async def test_outside_of_a_transaction_each_call_is_committed(
    opened: Open, conn: Connection, mode: str
) -> None:
    saver = await opened(autocommit=False)
    await saver.asetup()
    calls = Calls(saver, mode)
    await calls.put(config(), checkpoint(1), {}, {})
    assert rows(conn) == 1
    await calls.get_tuple(config())
    assert not [one for one in backends_of(conn) if one["state"] == "idle in transaction"]


async def test_a_call_that_is_cancelled_leaves_the_users_transaction_usable(
    opened: Open, conn: Connection
) -> None:
    saver = await opened(autocommit=True)
    await saver.asetup()
    await saver.aput(config(), checkpoint(1), {}, {})
    given = saver._live.backend._clients._async_conn
    for number in (2, 3):
        with conn.transaction():
            conn.execute("SELECT FROM given.holdfast_threads FOR UPDATE")
            async with given.transaction():
                await given.execute("SET LOCAL lock_timeout = 0")
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(saver.aput(config(), checkpoint(number), {}, {}), 0.1)
                if number == 2:  # otherwise the transaction ends at once
                    await given.execute("SELECT 1")
        assert given.info.transaction_status == TransactionStatus.IDLE
        assert rows(conn) == 1


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_request_that_fails_leaves_the_users_transaction_usable(
    url: str, conn: Connection, table: str, autocommit: bool
) -> None:
    with psycopg.connect(url, autocommit=autocommit) as mine:
        saver = PostgresSaver(mine, table=table)
        saver.setup()
        mine.commit()
        with mine.transaction():
            mine.execute("CREATE TEMP TABLE users (a int)")
            put_one(saver)
            with pytest.raises(holdfast.ConfigurationError):
                put_one(saver, "x" * 3000 + os.urandom(3000).hex())
            mine.execute("INSERT INTO users VALUES (1)")
            assert saver.get_tuple(config()) is not None
            # What a cold saver does not have it asks for: a refusal inside.
            other = PostgresSaver(mine, table=table, cache_bytes=0)
            put_one(other, number=2)
        assert mine.execute("SELECT a FROM users").fetchall() == [(1,)]
        mine.commit()
        assert rows(conn) == 2


def test_a_commit_that_is_refused_is_completed_inside_of_a_transaction(
    url: str, conn: Connection, table: str
) -> None:
    """Its chunks were lost behind the saver's back: it sends them again."""
    with psycopg.connect(url) as mine:
        saver = PostgresSaver(mine, table=table)
        put_one(saver)
        mine.execute("DELETE FROM given.holdfast_blobs")
        made = checkpoint(2, dict(saver.get_tuple(config()).checkpoint["channel_values"]))  # type: ignore[union-attr]
        saver.put(config(id=checkpoint_id(1)), made, {}, made["channel_versions"])
        mine.commit()
        cold = PostgresSaver(mine, table=table)
        found = cold.get_tuple(config())
        assert found is not None
        assert found.checkpoint == made


def test_setup_inside_of_a_transaction_is_a_part_of_it(
    url: str, conn: Connection, table: str
) -> None:
    with psycopg.connect(url) as mine:
        mine.execute("SELECT 1")
        saver = PostgresSaver(mine, table=table)
        saver.setup()
        put_one(saver)
        there = "SELECT to_regclass('given.holdfast_layout') IS NOT NULL"
        assert conn.execute(there).fetchone() == (False,)
        mine.commit()
        assert conn.execute(there).fetchone() == (True,)
        assert rows(conn) == 1


@pytest.mark.parametrize("first", ["setup", "use"])
async def test_tables_that_were_taken_back_are_made_again(
    url: str, conn: Connection, table: str, first: str, mode: str
) -> None:
    with psycopg.connect(url) as mine:
        async with await AsyncConnection.connect(url) as other:
            calls = Calls(PostgresSaver(mine, async_conn=other, table=table), mode)
            for connection in (mine, other):
                began = connection.execute("SELECT 1")
                if connection is other:
                    await began
            if first == "setup":
                await calls.setup()
            await calls.put(config(), checkpoint(1), {}, {})
            assert await calls.get_tuple(config()) is not None
            mine.rollback()
            await other.rollback()
            assert await calls.get_tuple(config()) is None
            await calls.put(config(), checkpoint(2), {}, {})
            assert rows(conn) == 1


async def test_what_fails_in_a_transaction_of_the_users_is_not_tried_again(
    opened: Open, mode: str
) -> None:
    """It would fail there again, and hold the user's locks meanwhile."""
    saver = await opened(autocommit=True)
    await saver.asetup()
    calls = Calls(saver, mode)
    await calls.put(config(), checkpoint(1), {}, {})

    await run(calls, "BEGIN ISOLATION LEVEL REPEATABLE READ")
    await run(calls, "SELECT FROM given.holdfast_threads")
    beside = Calls(saver, "sync" if mode == "async" else "async")
    await beside.put(config(), checkpoint(2), {}, {})
    with pytest.raises(holdfast.StoreUnavailable, match="roll it back and repeat it"):
        await calls.put(config(), checkpoint(3), {}, {})
    await run(calls, "ROLLBACK")
    assert saver.stats()["retries"] == 0
    await calls.put(config(), checkpoint(3), {}, {})


def test_a_connection_that_is_read_only_is_told_at_once(url: str, table: str) -> None:
    """No failover can make it another."""
    with psycopg.connect(url) as mine:
        saver = PostgresSaver(mine, table=table)
        put_one(saver)
        mine.read_only = True
        with pytest.raises(holdfast.StoreUnavailable, match="read-only"):
            put_one(saver, number=2)
        assert saver.get_tuple(config()) is not None
        assert saver.stats()["retries"] == 0


# --- pipelines


async def test_a_connection_in_pipeline_mode(
    url: str, conn: Connection, table: str, mode: str
) -> None:
    """As LangGraph's own saver is given one, with the pipeline beside it."""
    if mode == "async":
        async with await AsyncConnection.connect(url, autocommit=True) as mine:
            async with mine.pipeline() as pipe:
                saver = PostgresSaver(mine, pipe, table=table)
                await saver.setup()
                await use(Calls(saver, mode))
            assert rows(conn) == 3
    else:

        def work() -> None:
            with psycopg.connect(url, autocommit=True) as mine, mine.pipeline() as pipe:
                saver = PostgresSaver(mine, pipe, table=table)
                saver.setup()
                put_and_check(saver, "t", "", 3)
                saver.prune(["t"])
                pipe.sync()
                assert rows(conn) == 1

        await asyncio.to_thread(work)


def test_a_refusal_inside_of_a_pipeline(url: str, conn: Connection, table: str) -> None:
    with psycopg.connect(url, autocommit=True) as mine, mine.pipeline():
        saver = PostgresSaver(mine, table=table)
        put_one(saver)
        conn.execute("DELETE FROM given.holdfast_blobs")
        put_one(saver, number=2)
        found = saver.get_tuple(config())
        assert found is not None
        assert len(found.checkpoint["channel_values"]["state"]) == 20
