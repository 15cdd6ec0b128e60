"""The event loop that Windows has by default, on which psycopg cannot wait: threads do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import holdfast
import pytest
from holdfast import PostgresSaver
from psycopg_pool import ConnectionPool
from support.calls import Calls
from support.graphs import fan_out, on
from support.make import config
from support.postgres import Connection, backends_of, eye, table_of
from support.postgres_server import postgres_url, shared_postgres
from support.uses import use


@pytest.fixture
async def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store, on a loop that looks like that of Windows."""
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(asyncio, "ProactorEventLoop", type(loop), raising=False)
    return f"{postgres_url(tmp_path)}&application_name=proactor"


@pytest.fixture
def conn() -> Iterator[Connection]:
    with eye(shared_postgres()) as conn:
        yield conn


def clients(conn: Connection) -> int:
    return len([one for one in backends_of(conn) if one["application_name"] == "proactor"])


async def test_everything_works_through_threads(url: str, conn: Connection) -> None:
    async with holdfast.open(url, pool_size=3) as saver:
        await saver.setup()
        await use(Calls(saver, "async"))
        assert saver._live.backend._clients._loops == {}  # type: ignore[attr-defined]
        graph = fan_out(saver)
        assert len((await graph.ainvoke({"items": [], "other": []}, on("g")))["items"]) == 5
        await asyncio.gather(*(saver.aget_tuple(config("g")) for _ in range(50)))
        assert 1 <= clients(conn) <= 3
        assert await asyncio.to_thread(saver.get_tuple, config("g")) is not None
    while clients(conn):  # noqa: ASYNC110 - the server notices later
        await asyncio.sleep(0.001)


async def test_the_loop_goes_on_while_the_server_does_not(url: str, conn: Connection) -> None:
    async with holdfast.open(url) as saver:
        await saver.asetup()
        with conn.transaction():
            conn.execute(f"LOCK {table_of(url)}_checkpoints")
            reading = asyncio.create_task(saver.aget_tuple(config()))
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            turns = 0
            while conn.execute(waiting).fetchone() == (0,):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            for _ in range(100):
                await asyncio.sleep(0)
                turns += 1
            assert (reading.done(), turns) == (False, 100)
        assert await reading is None


async def test_a_given_pool_serves_it(url: str, conn: Connection) -> None:
    """A sync one; an async one cannot be opened there."""
    pool = ConnectionPool(shared_postgres(), min_size=0, max_size=2, open=False)
    await asyncio.to_thread(pool.open)
    saver = PostgresSaver(pool, table=table_of(url))
    await use(Calls(saver, "async"))
    await asyncio.to_thread(pool.close)
