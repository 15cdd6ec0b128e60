"""Connections and pools of psycopg that were opened elsewhere: of either side, in any settings."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import holdfast
import psycopg
import pytest
from holdfast import PostgresSaver
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row, dict_row, namedtuple_row
from psycopg_pool import (
    AsyncConnectionPool,
    AsyncNullConnectionPool,
    ConnectionPool,
    NullConnectionPool,
)
from support.calls import Calls
from support.make import checkpoint, config, version
from support.postgres import Connection, backends_of, eye
from support.postgres_server import shared_postgres
from support.uses import put_one, use, use_from_other_loops
from support.workers import put_and_check

KINDS = ["connection", "pool", "async connection", "async pool", "both connections", "both pools"]
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "as documented": {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row},
    "names": {"row_factory": namedtuple_row, "prepare_threshold": None},
    "client side": {"cursor_factory": psycopg.ClientCursor, "row_factory": class_row(dict)},
}
ASYNC_CURSORS = {psycopg.ClientCursor: psycopg.AsyncClientCursor}
Open = Callable[..., Awaitable[Any]]


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
    """Opens a saver on what the test opened, and closes that at the end."""
    async with AsyncExitStack() as stack:

        async def open(kind: str, **settings: Any) -> Any:
            return PostgresSaver(**await arguments(stack, url, kind, settings), table=table)

        yield open


async def arguments(
    stack: AsyncExitStack, url: str, kind: str, settings: dict[str, Any]
) -> dict[str, Any]:
    how = {"application_name": "given", **settings}
    given: dict[str, Any] = {}
    if kind in ("connection", "both connections"):
        given["conn"] = stack.enter_context(psycopg.connect(url, **how))
    if kind in ("pool", "both pools"):
        pool = ConnectionPool(url, min_size=1, max_size=4, kwargs=how, open=False)
        await asyncio.to_thread(pool.open)
        stack.push_async_callback(asyncio.to_thread, pool.close)
        given["conn"] = pool
    if "cursor_factory" in how:
        how = {**how, "cursor_factory": ASYNC_CURSORS[how["cursor_factory"]]}
    side = "conn" if kind.startswith("async") else "async_conn"
    if kind in ("async connection", "both connections"):
        given[side] = await stack.enter_async_context(await AsyncConnection.connect(url, **how))
    if kind in ("async pool", "both pools"):
        apool: Any = AsyncConnectionPool(url, min_size=1, max_size=4, kwargs=how, open=False)
        given[side] = await stack.enter_async_context(apool)
    return given


def clients(conn: Connection) -> list[int]:
    return [one["pid"] for one in backends_of(conn) if one["application_name"] == "given"]


def rows(conn: Connection, table: str = "given.holdfast_checkpoints") -> int:
    found = conn.execute(f"SELECT count(*) FROM {table}").fetchone()
    return found[0] if found else 0


# --- settings


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_given_serves_both_sides_whatever_its_settings(
    opened: Open, conn: Connection, kind: str, settings: str, mode: str
) -> None:
    saver = await opened(kind, **SETTINGS[settings])
    await saver.asetup()
    await use(Calls(saver, mode))
    other = Calls(saver, "sync" if mode == "async" else "async")
    assert len(await other.ids(config())) == 3
    await other.delete_thread("t")
    assert rows(conn) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_given_is_not_closed(opened: Open, conn: Connection, kind: str) -> None:
    saver = await opened(kind, autocommit=True)
    await saver.asetup()
    before = clients(conn)
    assert before
    with saver:
        pass
    async with saver:
        pass
    saver.close()
    await saver.aclose()
    assert clients(conn) == before
    assert await saver.aget_tuple(config()) is None
    assert await asyncio.to_thread(saver.get_tuple, config()) is None


@pytest.mark.parametrize("pool", [ConnectionPool, NullConnectionPool])
async def test_pools_of_each_sort(url: str, table: str, pool: Any, mode: str) -> None:
    apool = AsyncConnectionPool if pool is ConnectionPool else AsyncNullConnectionPool
    how: Any = {"min_size": 0, "max_size": 2, "open": False}
    sync_pool, async_pool = pool(url, **how), apool(url, **how)
    await asyncio.to_thread(sync_pool.open)
    async with async_pool:
        await use(Calls(PostgresSaver(sync_pool, async_conn=async_pool, table=table), mode))
    await asyncio.to_thread(sync_pool.close)


# --- one at a time, or many


async def test_a_pool_of_n_connections_does_n_things_at_once(
    url: str, conn: Connection, table: str, mode: str
) -> None:
    """Each waits for a lock that the test holds, and so for all the others."""
    count = 4
    how: Any = {"min_size": 0, "max_size": count, "open": False}
    pool, apool = ConnectionPool(url, **how), AsyncConnectionPool(url, **how)
    pool.open()
    async with apool:
        calls = Calls(PostgresSaver(pool, async_conn=apool, table=table), mode)
        await calls.setup()
        with conn.transaction():
            conn.execute("LOCK given.holdfast_checkpoints")
            tasks = [
                asyncio.create_task(calls.get_tuple(config(f"t{number}"))) for number in range(9)
            ]
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            while conn.execute(waiting).fetchone() != (count,):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert await asyncio.gather(*tasks) == [None] * 9
        await asyncio.to_thread(pool.close)


async def test_one_connection_is_used_by_one_call_at_a_time(opened: Open) -> None:
    saver = await opened("both connections", autocommit=True)
    await saver.asetup()
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(put_and_check, saver, f"t{n}", "", 3) for n in range(8)]
        await asyncio.gather(*(asyncio.wrap_future(job) for job in jobs))
    made = checkpoint(1, {"state": [1]}, {"state": version(1)})
    await asyncio.gather(
        *(saver.aput(config(f"a{n}"), made, {}, made["channel_versions"]) for n in range(30))
    )
    assert len([one async for one in saver.alist(None)]) == 8 * 3 + 30


async def test_a_pool_is_shared_with_its_owner(opened: Open, url: str, table: str) -> None:
    """The saver keeps no connection of the owner's between calls."""
    async with AsyncConnectionPool(url, min_size=1, max_size=1) as mine:
        await use(Calls(PostgresSaver(mine, table=table), "async"))
        async with mine.connection(timeout=1) as connection:
            await connection.execute("SELECT 1")


# --- closed ones


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "both" not in kind])
async def test_what_was_closed_is_told_at_once(url: str, table: str, kind: str, mode: str) -> None:
    async with AsyncExitStack() as stack:
        saver = PostgresSaver(**await arguments(stack, url, kind, {}), table=table)
        await saver.asetup()
    calls = Calls(saver, mode)
    with pytest.raises(holdfast.StoreUnavailable, match=r"closed.*keep it open") as caught:
        await calls.get_tuple(config())
    assert isinstance(caught.value.__cause__, psycopg.Error)
    assert saver.stats()["retries"] == 0


async def test_a_pool_that_was_not_opened_is_told_of(url: str, mode: str) -> None:
    pools = ConnectionPool(url, open=False), AsyncConnectionPool(url, open=False)
    calls = Calls(PostgresSaver(pools[0], async_conn=pools[1]), mode)
    with pytest.raises(holdfast.StoreUnavailable, match="not open yet"):
        await calls.get_tuple(config())


# --- an async one alone


@pytest.mark.parametrize("kind", ["async connection", "async pool"])
async def test_a_sync_call_on_the_loop_itself_is_refused_at_once(opened: Open, kind: str) -> None:
    saver = await opened(kind, autocommit=True)
    for attempt in (
        lambda: saver.get_tuple(config()),
        lambda: put_one(saver),
        lambda: next(saver.list(None)),
    ):
        with pytest.raises(holdfast.ConfigurationError, match="await"):
            attempt()
    await use(Calls(saver, "async"))


def test_a_sync_call_that_no_loop_can_answer_is_refused(url: str) -> None:
    async def begin() -> Any:
        async with await AsyncConnection.connect(url) as mine:
            saver = PostgresSaver(mine)
            await saver.aget_tuple(config())
        return saver

    loop = asyncio.new_event_loop()
    saver = loop.run_until_complete(begin())
    for _ in range(2):
        with pytest.raises(holdfast.ConfigurationError, match="not running"):
            saver.get_tuple(config())
        loop.close()


async def test_threads_reach_the_connection_through_its_loop(opened: Open) -> None:
    saver = await opened("async connection", autocommit=True)
    seen = set()
    original = saver._live.backend._clients.asend

    async def spy(statements: Any) -> Any:
        seen.add(threading.current_thread())
        return await original(statements)

    saver._live.backend._clients.asend = spy
    await asyncio.gather(
        *(asyncio.to_thread(put_and_check, saver, f"t{n}", "", 2) for n in range(5))
    )
    assert seen == {threading.current_thread()}


@pytest.mark.parametrize("kind", ["async connection", "async pool"])
async def test_another_loop_reaches_it_through_its_own(opened: Open, kind: str) -> None:
    saver = await opened(kind, autocommit=True)
    await saver.asetup()

    await use_from_other_loops(saver)


# --- forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_forked_child_uses_nothing_of_its_parents(
    opened: Open, conn: Connection, kind: str
) -> None:
    """What cannot be opened anew for the child is refused there, at once."""
    saver = await opened(kind, autocommit=True)
    await saver.asetup()
    stored = await saver.aput(config(), checkpoint(1, {"a": 1}), {}, {})
    before = clients(conn)
    child = os.fork()
    if not child:
        signal.alarm(20)
        code = 1
        try:
            for attempt in (saver.get_tuple, lambda where: asyncio.run(saver.aget_tuple(where))):
                try:
                    attempt(config())
                except holdfast.ConfigurationError as error:
                    code += "fork" in str(error)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, child, 0))[1]) == 3
    for _ in range(3):
        assert await saver.aget_tuple(config()) == await asyncio.to_thread(saver.get_tuple, stored)
    assert clients(conn) == before


# --- failures that pass


async def test_a_failure_passes_also_while_the_connection_is_used(
    url: str, conn: Connection, table: str
) -> None:
    """Whether it was in a transaction of the owner's is not asked of a connection in use."""
    with psycopg.connect(url, autocommit=True) as mine:
        saver = PostgresSaver(mine, table=table)
        await saver.asetup()
        conn.execute(
            "CREATE SEQUENCE given.refusals MINVALUE 0;"
            "CREATE FUNCTION given.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF nextval('given.refusals') < 3 THEN RAISE 'made up' USING ERRCODE = '40001'; END IF;"
            "RETURN NULL; END $$;"
            "CREATE TRIGGER refuse AFTER INSERT ON given.holdfast_threads "
            "FOR EACH STATEMENT EXECUTE FUNCTION given.refuse()"
        )
        backend = saver._live.backend
        judged = backend._judged

        def judged_while_in_use(failure: Exception) -> tuple[bool, str]:
            with conn.transaction():
                conn.execute("LOCK given.holdfast_checkpoints")
                other = threading.Thread(target=saver.get_tuple, args=[config("other")])
                other.start()
                while mine.pgconn.transaction_status != TransactionStatus.ACTIVE:
                    pass
                verdict = judged(failure)
            other.join()
            return verdict

        backend._judged = judged_while_in_use
        await asyncio.to_thread(put_one, saver)
        assert saver.stats()["retries"] == 3
        assert rows(conn) == 1
