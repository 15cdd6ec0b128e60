"""SQLite: given connections of aiosqlite, used on event loops that come and go, and beside them."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import aiosqlite
import holdfast
import pytest
from holdfast import SqliteSaver
from support.calls import Calls
from support.make import config
from support.uses import put_one, use


async def test_a_closed_aiosqlite_connection_is_unavailable(tmp_path: Path) -> None:
    given = await aiosqlite.connect(tmp_path / "db")
    saver = SqliteSaver(given)
    await saver.asetup()
    await given.close()
    with pytest.raises(holdfast.StoreUnavailable, match="closed"):
        await saver.aget_tuple(config())


async def test_a_connection_that_nobody_has_opened_is_opened(tmp_path: Path) -> None:
    """As LangGraph's own saver does it; by whoever comes first."""
    given = aiosqlite.connect(tmp_path / "db")
    saver = SqliteSaver(given)
    found = await asyncio.gather(*(saver.aget_tuple(config(str(number))) for number in range(5)))
    assert found == [None] * 5
    await use(Calls(saver, "async"))
    await given.close()
    with pytest.raises(holdfast.StoreUnavailable, match="closed"):
        await saver.aget_tuple(config())


async def test_sync_calls_to_aiosqlite_come_from_other_threads(tmp_path: Path) -> None:
    async with aiosqlite.connect(tmp_path / "db") as given:
        saver = SqliteSaver(given)
        with pytest.raises(holdfast.ConfigurationError, match="wait for itself"):
            saver.get_tuple(config())
        await use(Calls(saver, "sync"))
        assert len([found async for found in saver.alist(config())]) == 3


def test_a_sync_call_to_aiosqlite_without_its_loop_is_refused(tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()

    async def begin() -> tuple[Any, SqliteSaver]:
        given = await aiosqlite.connect(tmp_path / "db")
        saver = SqliteSaver(given)
        await saver.asetup()
        return given, saver

    given, saver = loop.run_until_complete(begin())
    with pytest.raises(holdfast.ConfigurationError, match="not running"):
        saver.get_tuple(config())
    loop.run_until_complete(given.close())
    loop.close()
    with pytest.raises(holdfast.ConfigurationError, match="not running"):
        saver.get_tuple(config())


def test_a_loop_that_ends_during_a_sync_call_leaves_no_thread_waiting(tmp_path: Path) -> None:
    started, go_on = threading.Event(), threading.Event()

    async def begin(pool: ThreadPoolExecutor) -> Any:
        async with aiosqlite.connect(tmp_path / "db") as given:
            saver = SqliteSaver(given)
            await saver.asetup()

            def slow() -> None:
                started.set()
                go_on.wait(60)

            blocker = asyncio.ensure_future(given._execute(slow))
            call = pool.submit(saver.get_tuple, config())
            await asyncio.to_thread(started.wait)
            while len(asyncio.all_tasks()) < 3:  # noqa: ASYNC110 - till the call is on the loop
                await asyncio.sleep(0)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()  # as asyncio.run does at its end
            go_on.set()
            await asyncio.gather(blocker, return_exceptions=True)
            return call

    with ThreadPoolExecutor(1) as pool:
        call = asyncio.run(begin(pool))
        with pytest.raises(holdfast.StoreUnavailable):
            call.result(30)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_forked_child_may_not_use_the_parents_aiosqlite(tmp_path: Path) -> None:
    async with aiosqlite.connect(tmp_path / "db") as given:
        saver = SqliteSaver(given)
        await asyncio.to_thread(put_one, saver)
        child = os.fork()
        if not child:
            code = 1
            try:
                saver.get_tuple(config())
            except holdfast.ConfigurationError:
                code = 0
            finally:
                os._exit(code)
        assert (await asyncio.to_thread(os.waitpid, child, 0))[1] == 0
        assert await saver.aget_tuple(config()) is not None


class Stopping:
    """A saver on a given connection that was opened on an event loop which stops, unclosed."""

    def __init__(self, path: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.given, self.saver = self.loop.run_until_complete(self._open(path))

    async def _open(self, path: Path) -> tuple[aiosqlite.Connection, SqliteSaver]:
        given = await aiosqlite.connect(path)
        saver = SqliteSaver(given)
        await saver.asetup()
        return given, saver

    def close(self) -> None:
        self.loop.run_until_complete(self.given.close())
        self.loop.close()


@pytest.fixture
def stopping(tmp_path: Path) -> Iterator[Stopping]:
    with closing(Stopping(tmp_path / "db")) as stopping:
        yield stopping


def test_a_loop_that_stops_during_a_sync_call_leaves_no_thread_waiting(stopping: Stopping) -> None:
    go_on = threading.Event()

    async def begin(pool: ThreadPoolExecutor) -> Any:
        others = asyncio.all_tasks()
        slow = asyncio.ensure_future(stopping.given._execute(go_on.wait, 60))
        call = pool.submit(stopping.saver.get_tuple, config())
        while not asyncio.all_tasks() - others - {slow}:  # noqa: ASYNC110 - till it is on the loop
            await asyncio.sleep(0)
        return slow, call

    with ThreadPoolExecutor(1) as pool:
        slow, call = stopping.loop.run_until_complete(begin(pool))
        try:
            with pytest.raises(holdfast.StoreUnavailable, match=r"loop .* has ended"):
                call.result(30)
        finally:
            go_on.set()
            stopping.loop.run_until_complete(slow)
            while tasks := asyncio.all_tasks(stopping.loop):
                stopping.loop.run_until_complete(asyncio.gather(*tasks))


def test_the_next_loop_serves_sync_calls_as_the_first_did(stopping: Stopping) -> None:
    saver = stopping.saver

    async def go_on() -> None:
        assert await saver.aget_tuple(config()) is None
        await asyncio.to_thread(put_one, saver)
        assert await saver.aget_tuple(config()) is not None

    asyncio.run(go_on())
    with pytest.raises(holdfast.ConfigurationError, match="not running"):
        saver.get_tuple(config())


async def test_a_loop_beside_does_not_need_the_first(tmp_path: Path) -> None:
    """Which may be blocked by just this."""
    async with aiosqlite.connect(tmp_path / "db") as given:
        saver = SqliteSaver(given)
        await saver.asetup()
        with ThreadPoolExecutor(1) as pool:
            beside = pool.submit(asyncio.run, saver.aget_tuple(config()))
            assert beside.result(30) is None


async def test_what_is_wrong_with_a_connection_is_not_that_it_is_closed(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "db")) as mine:  # of this thread alone
        given = await aiosqlite.Connection(lambda: mine, 64)
        with pytest.raises(holdfast.ConfigurationError, match="check_same_thread"):
            await SqliteSaver(given).asetup()
        with suppress(sqlite3.ProgrammingError):
            await given.close()
