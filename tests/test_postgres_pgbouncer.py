"""Behind PgBouncer, which gives each transaction whatever connection is free."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import holdfast
import pytest
from holdfast import PostgresSaver
from psycopg_pool import ConnectionPool
from support.calls import Calls
from support.graphs import Runs, fan_out, on
from support.make import Thread, checkpoint_id, config
from support.pgbouncer import PgBouncer
from support.postgres import bouncer, table_of
from support.postgres_server import PostgresServer, postgres_url
from support.uses import WORDS, use
from support.workers import put_and_check

CLIENTS = 40


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="module", params=[1, 2])
def pgbouncer(request: pytest.FixtureRequest, server: PostgresServer) -> Iterator[PgBouncer]:
    with bouncer(server.url, default_pool_size=request.param, max_client_conn=500) as pgbouncer:
        yield pgbouncer


@pytest.fixture
def url(pgbouncer: PgBouncer, tmp_path: Path) -> str:
    table = table_of(postgres_url(tmp_path))
    return f"{pgbouncer.url}?table={table}&prepared_statements=off"


async def test_everything_works(url: str, mode: str) -> None:
    calls = Calls(holdfast.open(url), mode)
    await use(calls)
    thread = Thread(calls, "history")
    for number in range(1, 6):
        stored = await thread.put({"other": WORDS[:number]}, metadata={"run_id": f"{number}"})
        await calls.put_writes(stored, [("state", number)], "task")
    cold = Calls(holdfast.open(url, cache_bytes=0), mode)
    history = await cold.history(stored, ["state"])
    assert [write[2] for write in history["state"]["writes"]] == [1, 2, 3, 4]
    assert len(await cold.list(config("history"), filter={"step": 3})) == 1
    await cold.delete_for_runs(["2"])
    await cold.copy_thread("history", "copy")
    await cold.prune(["history"])
    assert await cold.ids(config("history")) == [checkpoint_id(5)]
    assert len(await cold.ids(config("copy"))) == 4
    found = await cold.must_get(config("copy"))
    assert found.checkpoint["channel_values"] == {"other": WORDS[:5]}
    await cold.delete_thread("copy")
    assert {one.what: one for one in await cold.call("check")}["rights"].is_fine
    await calls.close()
    await cold.close()


async def test_a_graph_runs(url: str, mode: str) -> None:
    saver = holdfast.open(url)
    runs = Runs(fan_out(saver, width=10), mode)
    for turn in (1, 2):
        result = await runs.invoke({"items": [], "other": []}, on("t"))
        assert len(result["items"]) == turn * 12
    assert len(await runs.history(on("t"))) == 10
    await Calls(saver, mode).close()


async def test_many_clients_share_few_connections(url: str) -> None:
    """Savers of their own, as so many processes would have them."""
    savers = [holdfast.open(url, pool_size=2) for _ in range(CLIENTS // 4)]
    await savers[0].asetup()

    async def go(saver: holdfast.Saver, name: str) -> None:
        thread = Thread(Calls(saver, "async"), name)
        for length in (1, 10, 20):
            stored = await thread.put({"state": WORDS[:length]})
            await saver.aput_writes(stored, [("state", length)], "task")
            found = await saver.aget_tuple(config(name))
            assert found is not None
            assert found.checkpoint["channel_values"] == {"state": WORDS[:length]}

    await asyncio.gather(
        *(go(saver, f"{at} {n}") for at, saver in enumerate(savers) for n in range(4))
    )
    with ThreadPoolExecutor(8) as pool:
        jobs = [
            pool.submit(put_and_check, saver, f"t{at}", "", 3) for at, saver in enumerate(savers)
        ]
        await asyncio.gather(*map(asyncio.wrap_future, jobs))
    assert len([one async for one in savers[0].alist(None)]) == CLIENTS // 4 * (4 * 3 + 3)
    for saver in savers:
        await saver.aclose()


async def test_a_given_pool_serves_without_prepared_statements(
    pgbouncer: PgBouncer, url: str, mode: str
) -> None:
    how: Any = {"kwargs": {"prepare_threshold": None}, "max_size": 3, "min_size": 0, "open": False}
    pool = ConnectionPool(pgbouncer.url, **how)
    await asyncio.to_thread(pool.open)
    await use(Calls(PostgresSaver(pool, table=table_of(url)), mode))
    await asyncio.to_thread(pool.close)


async def test_prepared_statements_that_are_elsewhere_are_done_without(
    server: PostgresServer, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Savers that were not told of PgBouncer, and whose transactions meet on connections where the
    others' statements are, or are not: they serve, and each says once what it lacks."""
    how: Any = {"default_pool_size": 2}
    with bouncer(server.url, **how) as pgbouncer:
        savers = [holdfast.open(f"{pgbouncer.url}?pool_size=3") for _ in range(4)]
        with caplog.at_level("WARNING", "holdfast"):
            for number in range(3):
                await asyncio.gather(
                    *(
                        Thread(Calls(saver, mode), f"t{at} {number}").put({"state": WORDS[:at]})
                        for at, saver in enumerate(savers)
                    )
                )
                reads = [
                    Calls(saver, mode).must_get(config(f"t{at} {number}"))
                    for saver in savers
                    for at in range(len(savers))
                ]
                for nth, found in enumerate(await asyncio.gather(*reads)):
                    expected = {"state": WORDS[: nth % len(savers)]}
                    assert found.checkpoint["channel_values"] == expected
        told = [record.getMessage() for record in caplog.records]
        assert 1 <= len(told) <= len(savers)
        assert all("prepared_statements=False" in one for one in told)
        for saver in savers:
            await Calls(saver, mode).close()
