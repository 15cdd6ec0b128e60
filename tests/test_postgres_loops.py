"""Threads, event loops and forks on one saver: whose connections are opened, used and closed."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import holdfast
import pytest
from holdfast.backends.postgres.link import Link
from support.make import checkpoint, config, version
from support.postgres import Connection, backends_of, eye, terminate
from support.postgres_server import postgres_url, shared_postgres
from support.uses import put_one
from support.workers import put_and_check, write_after_fork

NO_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
FORKS = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def conn() -> Iterator[Connection]:
    with eye(shared_postgres()) as conn:
        yield conn


@pytest.fixture
def url(tmp_path: Path, conn: Connection) -> str:
    """A store of this test's own, whose clients call themselves by the test's name."""
    return f"{postgres_url(tmp_path)}&application_name=loops"


def pids(conn: Connection) -> set[int]:
    return {one["pid"] for one in backends_of(conn) if one["application_name"] == "loops"}


def wait_for_clients(conn: Connection, count: int) -> None:
    """The server notices a moment later what was closed; others must not come."""
    while (now := len(pids(conn))) != count:
        assert now > count


async def put(saver: holdfast.Saver, thread: str = "t", number: int = 1) -> Any:
    made = checkpoint(number, {"state": [thread] * 50}, {"state": version(number)})
    stored = await saver.aput(config(thread), made, {}, made["channel_versions"])
    found = await saver.aget_tuple(stored)
    assert found is not None
    assert found.checkpoint == made
    return stored


# --- threads and loops


def test_threads_share_a_pool_and_leave_none(url: str, conn: Connection) -> None:
    with holdfast.open(url, pool_size=3) as saver:
        with ThreadPoolExecutor(6) as pool:
            jobs = [pool.submit(put_and_check, saver, f"t{n}", "", 10) for n in range(18)]
            for job in jobs:
                job.result()
        before = pids(conn)
        assert 1 <= len(before) <= 3
        put_and_check(saver, "t", "", 5)
        assert pids(conn) == before
    wait_for_clients(conn, 0)


def test_each_run_of_a_loop_leaves_no_connection(url: str, conn: Connection) -> None:
    with holdfast.open(url) as saver:
        for number in range(200):
            asyncio.run(put(saver, f"t{number % 7}"))
            if number % 10 == 0:
                wait_for_clients(conn, 0)
        wait_for_clients(conn, 0)
        put_one(saver)
        asyncio.run(put(saver))
        wait_for_clients(conn, 1)  # that of this thread
        assert saver.stats()["pool_size"] == 1
    wait_for_clients(conn, 0)


async def test_a_pool_of_a_loop_has_its_size_too(url: str, conn: Connection) -> None:
    async with holdfast.open(url, pool_size=3) as saver:
        await asyncio.gather(*(put(saver, f"t{number}") for number in range(100)))
        assert 1 <= len(pids(conn)) <= 3
        await asyncio.to_thread(put_one, saver)
        assert 2 <= len(pids(conn)) <= 4
        stats = await saver.astats()
        assert stats["pool_size"] == stats["pool_idle"] == len(pids(conn))
        assert stats["pool_waiting"] == 0
    wait_for_clients(conn, 0)


async def test_a_connection_that_the_server_ends_while_it_is_idle_is_let_go(
    url: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its socket is ready for ever: the loop is not kept busy with it."""
    heard: list[Any] = []
    original = Link._on_input

    def on_input(link: Any) -> None:
        heard.append(link)
        original(link)

    monkeypatch.setattr(Link, "_on_input", on_input)
    async with holdfast.open(url, pool_size=3) as saver:
        for _ in range(3):
            await asyncio.gather(*(put(saver, f"t{number}") for number in range(10)))
            heard.clear()
            terminate(conn, sorted(pids(conn)))
            for _ in range(100):
                await asyncio.sleep(0)
            assert all(heard.count(link) == 1 for link in heard)
            assert saver.stats()["pool_size"] == saver.stats()["pool_idle"] == 0
        await put(saver)
        assert saver.stats()["retries"] == 0


def test_loops_that_are_closed_by_hand_leave_nothing(url: str, conn: Connection) -> None:
    told: list[Any] = []
    saver = holdfast.open(url)
    for _ in range(5):
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        loop.run_until_complete(put(saver))
        loop.run_until_complete(saver.aclose())
        loop.close()
    asyncio.run(put(saver))
    gc.collect()
    wait_for_clients(conn, 0)
    saver.close()
    assert told == []


@pytest.mark.parametrize("how", ["close", "forget", "leave"])
def test_a_loop_ends_in_peace_however_the_saver_ends(url: str, conn: Connection, how: str) -> None:
    """Called on the loop, collected there, or not at all: warnings would be errors."""

    async def go() -> Any:
        saver = holdfast.open(url)
        await put(saver)
        await asyncio.to_thread(put_one, saver)
        if how == "close":
            saver.close()
        elif how == "forget":
            del saver
            gc.collect()
            return None
        return saver

    kept = asyncio.run(go())
    gc.collect()
    if kept is not None:
        kept.close()
        wait_for_clients(conn, 0)
        assert kept.get_tuple(config()) is not None
        kept.close()
    wait_for_clients(conn, 0)


def test_loops_in_threads_keep_to_themselves(url: str, conn: Connection) -> None:
    """One that ends takes nothing from those that go on."""
    meet = threading.Barrier(4)
    with holdfast.open(url) as saver:

        async def go(number: int) -> None:
            await put(saver, f"{number} first")
            await asyncio.to_thread(meet.wait)
            for step in range(number * 10):
                await put(saver, f"{number} {step}")

        with ThreadPoolExecutor(4) as pool:
            for job in [pool.submit(asyncio.run, go(number)) for number in range(4)]:
                job.result()
    wait_for_clients(conn, 0)


@pytest.mark.parametrize("how", ["close", "aclose"])
@pytest.mark.parametrize("yields", [0, 1, 3, 10])
async def test_closing_beside_fifty_puts_loses_none(
    url: str, conn: Connection, yields: int, how: str
) -> None:
    saver = holdfast.open(url)
    await saver.asetup()

    async def end() -> None:
        for _ in range(yields):
            await asyncio.sleep(0)
        await (saver.aclose() if how == "aclose" else asyncio.to_thread(saver.close))

    puts = [put(saver, f"t{number}") for number in range(50)]
    results = await asyncio.gather(*puts, end(), return_exceptions=True)
    assert [one for one in results if isinstance(one, BaseException)] == []
    await saver.aclose()
    async with holdfast.open(url) as again:
        assert len([one async for one in again.alist(None)]) == 50
    while pids(conn):  # noqa: ASYNC110 - the server notices later
        await asyncio.sleep(0.001)


def test_closing_beside_threads_loses_none(url: str, conn: Connection) -> None:
    saver = holdfast.open(url)
    saver.setup()
    with ThreadPoolExecutor(5) as pool:
        jobs = [pool.submit(put_and_check, saver, f"t{n}", "", 6) for n in range(10)]
        for _ in range(10):
            while not pids(conn) and not all(job.done() for job in jobs):
                pass
            saver.close()
        for job in jobs:
            job.result()
    saver.close()
    wait_for_clients(conn, 0)


@pytest.mark.parametrize("ends", ["", "saver.close()", "del saver; gc.collect()"])
def test_a_process_that_ends_leaves_nothing_and_says_nothing(
    url: str, conn: Connection, ends: str
) -> None:
    code = f"""
import asyncio, gc, sys, threading
sys.path.insert(0, {str(Path(__file__).parent)!r})
import holdfast
from support.make import checkpoint, config
saver = holdfast.open({url!r})
saver.put(config(), checkpoint(1, {{"a": 1}}), {{}}, {{}})
assert saver.get_tuple(config())
asyncio.run(saver.aget_tuple(config()))
async def leave():
    assert await saver.aget_tuple(config())
asyncio.run(leave())
{ends}
"""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    wait_for_clients(conn, 0)


# --- forks


def in_child(work: Callable[[], None]) -> int:
    """What a forked child that does some work ends with: 0, unless it fails or hangs."""
    child = os.fork()
    if not child:
        signal.alarm(30)
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


@NO_FORK
@FORKS
def test_a_forked_child_leaves_its_parents_connections_alone(url: str, conn: Connection) -> None:
    saver = holdfast.open(url)
    put_one(saver)
    before = pids(conn)
    assert len(before) == 1
    for number in range(3):
        assert in_child(lambda name=str(number): write_after_fork(saver, name)) == 0  # type: ignore[misc]
        while (now := pids(conn)) != before:  # until the server has noticed that the child is gone
            assert now >= before, "the child ended its parent's"
        assert saver.get_tuple(config()) is not None
        assert pids(conn) == before
    saver.close()
    wait_for_clients(conn, 0)


@NO_FORK
@FORKS
async def test_a_child_forked_beside_calls_under_way_takes_no_reply(
    url: str, conn: Connection
) -> None:
    saver = holdfast.open(url)
    await put(saver)
    await asyncio.to_thread(put_one, saver)
    table = f"{url.partition('table=')[2].partition('&')[0]}_threads"

    def work() -> None:
        gc.collect()
        assert saver.get_tuple(config()) is not None
        asyncio.run(put(saver, "child"))
        saver.close()
        gc.collect()

    with eye(url) as holder:
        holder.execute("BEGIN")
        holder.execute(f"LOCK {table} IN SHARE MODE")
        tasks = [asyncio.create_task(put(saver, f"t{number}")) for number in range(20)]
        waiting = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"
        while conn.execute(waiting).fetchone() != (True,):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        child = asyncio.create_task(asyncio.to_thread(in_child, work))
        while len(pids(conn)) < 7:
            if child.done():
                break
            await asyncio.sleep(0.005)
        holder.execute("COMMIT")
    await asyncio.gather(*tasks)
    assert await child == 0
    assert await saver.aget_tuple(config("child")) is not None
    await saver.aclose()


@NO_FORK
@FORKS
def test_a_childs_child_too(url: str, conn: Connection) -> None:
    saver = holdfast.open(url)
    asyncio.run(put(saver))

    def work() -> None:
        write_after_fork(saver, "child")
        assert in_child(lambda: write_after_fork(saver, "grandchild")) == 0
        write_after_fork(saver, "again")

    assert in_child(work) == 0
    for name in ("child", "grandchild", "again"):
        assert saver.get_tuple(config("t", name)) is not None
    saver.close()
    wait_for_clients(conn, 0)
