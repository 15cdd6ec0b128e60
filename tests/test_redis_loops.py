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
import redis
from support.make import checkpoint, config, version
from support.redis import TlsServer, eye, others
from support.redis_server import RedisServer
from support.relay import Relay
from support.uses import put_one
from support.workers import put_and_check, write_after_fork

NO_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
FORKS = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
PARAGRAPHS = [f"{number} {number * 7919 % 1000003:x} " * 500 for number in range(400)]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """A look at an empty server."""
    with eye(server.url) as client:
        client.flushall()
        wait_for_clients(client, 0)
        yield client


def wait_for_clients(client: redis.Redis, count: int) -> None:
    """The server notices a moment later what was closed; others must not come."""
    while (now := len(others(client))) != count:
        assert now > count
        client.ping()


def ids(client: redis.Redis) -> set[str]:
    return {one["id"] for one in others(client)}


async def put(saver: holdfast.Saver, thread: str = "t", number: int = 1) -> Any:
    made = checkpoint(number, {"state": [thread] * 50}, {"state": version(number)})
    stored = await saver.aput(config(thread), made, {}, made["channel_versions"])
    found = await saver.aget_tuple(stored)
    assert found is not None
    assert found.checkpoint == made
    return stored


# --- threads and loops


def test_threads_have_a_connection_each_and_leave_none(
    server: RedisServer, client: redis.Redis
) -> None:
    with holdfast.open(server.url) as saver:
        with ThreadPoolExecutor(6) as pool:
            jobs = [pool.submit(put_and_check, saver, f"t{n}", "", 10) for n in range(18)]
            for job in jobs:
                job.result()
        assert 1 <= len(others(client)) <= 6
        before = ids(client)
        put_and_check(saver, "t", "", 5)
        assert ids(client) == before
    wait_for_clients(client, 0)


def test_each_run_of_a_loop_leaves_no_connection(server: RedisServer, client: redis.Redis) -> None:
    with holdfast.open(server.url) as saver:
        for number in range(30):
            asyncio.run(put(saver, f"t{number}"))
            assert len(others(client)) <= 1, "connections of loops that are closed add up"
        wait_for_clients(client, 0)
        put_one(saver)
        asyncio.run(put(saver))
        wait_for_clients(client, 1)  # that of this thread
    wait_for_clients(client, 0)


def test_a_loop_that_was_closed_without_a_word_is_cleaned_up_by_the_next(
    server: RedisServer, client: redis.Redis
) -> None:
    saver = holdfast.open(server.url)
    for _ in range(5):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(put(saver))
        loop.close()
    asyncio.run(put(saver))
    gc.collect()
    wait_for_clients(client, 0)
    saver.close()


@pytest.mark.parametrize("how", ["close", "forget", "leave"])
def test_a_loop_ends_in_peace_however_the_saver_ends(
    server: RedisServer, client: redis.Redis, how: str
) -> None:
    """Called on the loop, collected there, or not at all: warnings would be errors."""

    async def go() -> Any:
        saver = holdfast.open(server.url)
        await put(saver)
        if how == "close":
            saver.close()
        elif how == "forget":
            del saver
            gc.collect()
            return None
        return saver

    kept = asyncio.run(go())
    gc.collect()
    wait_for_clients(client, 0)
    if kept is not None:
        assert kept.get_tuple(config()) is not None
        kept.close()
    wait_for_clients(client, 0)


def test_loops_in_threads_keep_to_themselves(server: RedisServer, client: redis.Redis) -> None:
    """One that ends takes nothing from those that go on."""
    meet = threading.Barrier(4)
    with holdfast.open(server.url) as saver:

        async def go(number: int) -> None:
            await put(saver, f"{number} first")
            meet.wait()
            for step in range(number * 10):
                await put(saver, f"{number} {step}")

        with ThreadPoolExecutor(4) as pool:
            for job in [pool.submit(asyncio.run, go(number)) for number in range(4)]:
                job.result()
    wait_for_clients(client, 0)


@pytest.mark.parametrize("how", ["close", "aclose"])
@pytest.mark.parametrize("yields", [0, 1, 3, 10])
async def test_closing_beside_fifty_puts_loses_none(
    server: RedisServer, client: redis.Redis, yields: int, how: str
) -> None:
    saver = holdfast.open(server.url)
    await saver.asetup()

    async def end() -> None:
        for _ in range(yields):
            await asyncio.sleep(0)
        await (saver.aclose() if how == "aclose" else asyncio.to_thread(saver.close))

    puts = [put(saver, f"t{number}") for number in range(50)]
    results = await asyncio.gather(*puts, end(), return_exceptions=True)
    assert not [one for one in results if isinstance(one, BaseException)]
    await saver.aclose()
    async with holdfast.open(server.url) as again:
        assert len([one async for one in again.alist(None)]) == 50
    while others(client):  # noqa: ASYNC110 - the loop ends its transports in its next turns
        await asyncio.sleep(0.001)


def test_a_saver_that_nobody_closed_leaves_nothing(
    server: RedisServer, client: redis.Redis
) -> None:
    code = f"""
import asyncio, gc, sys, threading
sys.path.insert(0, {str(Path(__file__).parent)!r})
import holdfast
from support.make import checkpoint, config
def use():
    saver = holdfast.open({server.url!r})
    saver.put(config(), checkpoint(1, {{"a": 1}}), {{}}, {{}})
    assert saver.get_tuple(config())
    asyncio.run(saver.aget_tuple(config()))
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(saver.aget_tuple(config()))
    loop.close()
    return saver
use()
gc.collect()
print(threading.active_count())
kept = use()
"""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    wait_for_clients(client, 0)


# --- other loops and transports


async def exchange_much(saver: holdfast.Saver) -> None:
    made = checkpoint(1, {"state": PARAGRAPHS, "blob": os.urandom(3_000_000)})
    stored = await saver.aput(config(), made, {}, made["channel_versions"])
    await asyncio.gather(*(put(saver, f"t{number}") for number in range(100)))
    for _ in range(3):
        found = await saver.aget_tuple(stored)
        assert found is not None
        assert found.checkpoint == made


def test_uvloop_serves_as_well(server: RedisServer, client: redis.Redis, tmp_path: Path) -> None:
    uvloop: Any = pytest.importorskip("uvloop")

    async def go(url: str) -> None:
        async with holdfast.open(url, cache_bytes=0) as saver:
            await exchange_much(saver)
        saver = holdfast.open(url)
        await put(saver)  # and nobody closes it

    def run(url: str) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(go(url))

    if sys.version_info < (3, 11):
        pytest.skip("asyncio.Runner came with Python 3.11")
    run(server.url)
    wait_for_clients(client, 0)
    with TlsServer(tmp_path) as tls:
        run(f"{tls.url}?ssl_ca_certs={tls.certificate}")


async def test_tls_carries_much(tmp_path: Path) -> None:
    with TlsServer(tmp_path) as tls:
        url = f"{tls.url}?ssl_ca_certs={tls.certificate}"
        async with holdfast.open(url, cache_bytes=0) as saver:
            await exchange_much(saver)


async def test_replies_that_trickle_in_are_put_together(server: RedisServer) -> None:
    """In pieces that end anywhere."""
    with Relay(server.port) as relay:
        relay.piece = 61
        async with holdfast.open(relay.url, cache_bytes=0) as saver:
            await asyncio.gather(*(put(saver, f"t{number}") for number in range(20)))


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
def test_a_forked_child_leaves_its_parents_connections_alone(
    server: RedisServer, client: redis.Redis
) -> None:
    saver = holdfast.open(server.url)
    put_one(saver)
    before = ids(client)
    assert len(before) == 1
    for number in range(3):
        assert in_child(lambda name=str(number): write_after_fork(saver, name)) == 0  # type: ignore[misc]
        while ids(client) != before:  # until the server has noticed that the child is gone
            assert ids(client) >= before, "the child ended its parent's"
        assert saver.get_tuple(config()) is not None
        assert ids(client) == before
    saver.close()


@NO_FORK
@FORKS
async def test_a_child_forked_beside_calls_under_way_takes_no_reply(
    server: RedisServer, client: redis.Redis
) -> None:
    with Relay(server.port) as relay:
        saver = holdfast.open(relay.url)
        await put(saver)
        await asyncio.to_thread(put_one, saver)
        relay.take()
        relay.hold()
        tasks = [asyncio.create_task(put(saver, f"t{number}")) for number in range(20)]
        while not relay.commands:  # noqa: ASYNC110 - it comes from another thread
            await asyncio.sleep(0.001)
        relay.before = relay.release  # the child's first request lets all replies through

        def work() -> None:
            gc.collect()
            assert saver.get_tuple(config()) is not None
            asyncio.run(put(saver, "child"))
            saver.close()
            gc.collect()

        code = await asyncio.to_thread(in_child, work)
        relay.release()
        await asyncio.gather(*tasks)
        assert code == 0
        assert await saver.aget_tuple(config("child")) is not None
        await saver.aclose()


@NO_FORK
@FORKS
def test_a_childs_child_too(server: RedisServer, client: redis.Redis) -> None:
    saver = holdfast.open(server.url)
    asyncio.run(put(saver))

    def work() -> None:
        write_after_fork(saver, "child")
        assert in_child(lambda: write_after_fork(saver, "grandchild")) == 0
        write_after_fork(saver, "again")

    assert in_child(work) == 0
    for name in ("child", "grandchild", "again"):
        assert saver.get_tuple(config("t", name)) is not None
    saver.close()
