"""What a saver leaves behind: no connection, no thread, no warning, on either side."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import holdfast
import pytest
from support.backends import BACKENDS, SHARED, Backend, opened
from support.graphs import fan_out, on
from support.make import Thread, checkpoint, config

SLACK = 30
"""What a pool may still grow by; a leak at each round would be more in every test here."""


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the listing itself is one of them


def threads() -> int:
    """Those of the operating system, whoever started them."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208


@pytest.mark.timeout(600)
def test_a_thousand_loops_on_one_saver_leave_nothing(saver: holdfast.Saver) -> None:
    graph = fan_out(saver, width=1)

    def turn(number: int) -> None:
        asyncio.run(graph.ainvoke({"other": [number]}, on(f"thread {number % 50}")))

    for number in range(10):
        turn(number)
    files, tasks = open_files(), threads()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(10, 1000):
            turn(number)
        assert open_files() <= files + SLACK
        assert threads() <= tasks + SLACK
    assert [str(one.message) for one in caught if one.category is ResourceWarning] == []
    for number in range(50):
        assert graph.get_state(on(f"thread {number}")).values["turn"] == 20


async def test_a_closed_saver_leaves_nothing(backend: Backend, mode: str, tmp_path: Path) -> None:
    # the loop's own threads, of which it would start more now and then
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))

    async def once(number: int) -> None:
        async with opened(backend, tmp_path, mode) as calls:
            thread = Thread(calls, number)
            await thread.put({"a": 1})
            await calls.list(config(number))

    await once(0)
    files, tasks = open_files(), threads()
    for number in range(1, 20):
        await once(number)
    assert open_files() <= files
    assert threads() <= tasks


def test_threads_that_end_leave_no_connection(saver: holdfast.Saver) -> None:
    def work(number: int) -> None:
        saver.put(config(number), checkpoint(1), {}, {})
        assert saver.get_tuple(config(number)) is not None

    def run(count: int) -> None:
        for number in range(count):
            worker = threading.Thread(target=work, args=(number,))
            worker.start()
            worker.join()

    run(3)
    files, tasks = open_files(), threads()
    run(100)
    assert open_files() <= files + SLACK
    assert threads() <= tasks + SLACK


def test_loops_that_end_without_a_word_leave_no_connection(saver: holdfast.Saver) -> None:
    """Not every program ends its loops as `asyncio.run` does."""

    def once(number: int) -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(saver.aput(config(number), checkpoint(1), {}, {}))
        finally:
            loop.close()

    for number in range(5):
        once(number)
    files, tasks = open_files(), threads()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(100):
            once(number)
        assert open_files() <= files + SLACK
        assert threads() <= tasks + SLACK


@pytest.mark.parametrize("name", SHARED)
def test_closing_twice_and_using_with_twice_is_fine(name: str, tmp_path: Path) -> None:
    backend = BACKENDS[name]
    for number in range(2):
        with backend.open(tmp_path) as saver:
            saver.put(config(), checkpoint(number), {}, {})
        saver.close()
    with backend.open(tmp_path) as saver:
        assert len([*saver.list(config())]) == 2

    async def on_a_loop() -> int:
        async with backend.open(tmp_path) as saver:
            await saver.aput(config(), checkpoint(2), {}, {})
        await saver.aclose()
        async with backend.open(tmp_path) as saver:
            return len([one async for one in saver.alist(config())])

    assert asyncio.run(on_a_loop()) == 3
