"""Closing takes nothing from those who go on, and leaves nothing of those who do not."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import holdfast
import pytest
import redis
import redis.asyncio
from blockbuster import BlockBuster
from holdfast import RedisSaver
from support.make import checkpoint, config, version
from support.redis import eye, let_given_clients_connect, others
from support.redis_server import RedisServer
from support.uses import put_one


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
    """The server notices a moment later what was closed."""
    while len(others(client)) != count:
        client.ping()


async def put(saver: holdfast.Saver, thread: str = "t") -> None:
    made = checkpoint(1, {"state": [thread] * 50}, {"state": version(1)})
    stored = await saver.aput(config(thread), made, {}, made["channel_versions"])
    found = await saver.aget_tuple(stored)
    assert found is not None
    assert found.checkpoint == made


# --- threads


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns more often than they do by themselves."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_closing_beside_threads_loses_none_of_their_puts(
    server: RedisServer, client: redis.Redis, restless: None
) -> None:
    saver = holdfast.open(server.url)

    def work(thread: str) -> None:
        for number in range(1, 61):
            put_one(saver, thread, number)

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(work, f"t{number}") for number in range(4)]
        while not all(job.done() for job in jobs):
            saver.close()
            time.sleep(0.001)
        for job in jobs:
            job.result()
    for number in range(4):
        assert len([*saver.list(config(f"t{number}"))]) == 60
    saver.close()
    wait_for_clients(client, 0)


def test_loops_that_come_and_go_in_threads_do_not_meet(
    server: RedisServer, client: redis.Redis, restless: None
) -> None:
    def work() -> None:
        for _ in range(20):
            asyncio.run(put(saver, threading.current_thread().name))

    with holdfast.open(server.url) as saver:
        idle = [asyncio.new_event_loop() for _ in range(50)]
        for loop in idle:
            loop.run_until_complete(put(saver))
        with ThreadPoolExecutor(8) as pool:
            for job in [pool.submit(work) for _ in range(8)]:
                job.result()
        for loop in idle:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
    wait_for_clients(client, 0)


# --- loops


def test_what_ends_with_its_loop_may_still_store(server: RedisServer, client: redis.Redis) -> None:
    """An asynchronous generator that was left is closed by its loop at the end, as the saver's
    connections are."""

    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(10):
                yield number
        finally:
            await asyncio.gather(*(put(saver, f"late {number}") for number in range(5)))

    async def go() -> None:
        await put(saver)
        kept.append(numbers())
        async for _ in kept[0]:
            break

    kept: list[Any] = []
    saver = holdfast.open(server.url, retry_budget=0.5)
    asyncio.run(go())
    wait_for_clients(client, 0)
    assert len([*saver.list(None)]) == 6
    saver.close()


STOPPED = """
import asyncio, gc, sys
sys.path.insert(0, {tests!r})
import holdfast
from support.make import config
saver = holdfast.open({url!r})
loop = asyncio.new_event_loop()
loop.run_until_complete(saver.aget_tuple(config()))
saver.close()
if {again}:
    loop.run_until_complete(saver.aget_tuple(config()))
    saver.close()
loop.close()
del saver, loop
gc.collect()
"""


@pytest.mark.parametrize("again", [False, True], ids=["once", "again"])
def test_closing_between_two_runs_of_a_loop_leaves_nothing(
    server: RedisServer, client: redis.Redis, again: bool
) -> None:
    """Also where it is not run again: warnings would be seen."""
    code = STOPPED.format(tests=str(Path(__file__).parent), url=server.url, again=again)
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    wait_for_clients(client, 0)


def test_a_loop_that_runs_again_closes_what_it_was_told_to(
    server: RedisServer, client: redis.Redis
) -> None:
    saver = holdfast.open(server.url)
    loop = asyncio.new_event_loop()
    for _ in range(3):
        loop.run_until_complete(put(saver))
        saver.close()
        loop.run_until_complete(asyncio.sleep(0.01))
        wait_for_clients(client, 0)
    loop.close()


# --- clients that were given


@pytest.mark.parametrize("how", ["on the loop", "in a thread"])
async def test_a_saver_with_a_given_client_is_used_again_after_closing(
    server: RedisServer, no_blocking_call_on_a_loop: BlockBuster, how: str
) -> None:
    let_given_clients_connect(no_blocking_call_on_a_loop)
    async with redis.asyncio.Redis.from_url(server.url) as mine:
        saver = RedisSaver(async_client=mine, retry_budget=0)
        for _ in range(3):
            await put(saver)
            if how == "on the loop":
                saver.close()
            else:
                await asyncio.to_thread(saver.close)
            await asyncio.sleep(0)
            await put(saver)
            await asyncio.to_thread(put_one, saver)


def test_a_saver_with_a_given_client_keeps_nothing_of_loops_that_are_closed(
    server: RedisServer, client: redis.Redis, no_blocking_call_on_a_loop: BlockBuster
) -> None:
    async def go() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await put(saver)
        await mine.connection_pool.disconnect()

    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []
    let_given_clients_connect(no_blocking_call_on_a_loop)
    mine = redis.asyncio.Redis.from_url(server.url)
    saver = RedisSaver(client=client, async_client=mine)
    for _ in range(10):
        asyncio.run(go())
    gc.collect()
    assert sum(loop() is not None for loop in loops) <= 1
