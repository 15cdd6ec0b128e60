"""The sweeper in the background: it sweeps, it goes on after a failure, it ends when it is left."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import holdfast
import pytest
from holdfast import StoreUnavailable, Swept
from holdfast.backends import base
from holdfast.sweeper import Sweeper
from support.backends import BACKENDS, SHARED
from support.calls import Calls
from support.make import checkpoint, config

SOON = 0.01
"""Seconds between sweeps, where a test waits for several."""
NEVER = 3600.0
_METHODS = multiprocessing.get_all_start_methods()
_context: Any = multiprocessing.get_context("forkserver" if "forkserver" in _METHODS else "spawn")


@asynccontextmanager
async def sweeping(calls: Calls, every: float = SOON, **how: Any) -> AsyncIterator[Sweeper]:
    """A sweeper in a task or, where the saver is called in threads, in a thread."""
    sweeper = calls.saver.sweeper(every, **how)
    if calls.mode == "async":
        async with sweeper:
            yield sweeper
        return
    sweeper.__enter__()
    try:
        yield sweeper
    finally:
        await asyncio.to_thread(sweeper.__exit__, None, None, None)


async def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def working() -> list[str]:
    """Threads and tasks of sweepers that are there."""
    names = [thread.name for thread in threading.enumerate()]
    names += [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if name == "holdfast-sweeper"]


async def put(calls: Calls, *threads: str) -> None:
    for thread in threads:
        await calls.put(config(thread), checkpoint(1, {"d": thread}), {}, {})


async def test_it_sweeps_again_and_again(calls: Calls) -> None:
    await put(calls, "a", "b")
    async with sweeping(calls, idle_for=0) as sweeper:
        await until(lambda: sweeper.swept.threads == 2)
        await put(calls, "c")
        await until(lambda: sweeper.swept.threads == 3)
        before = sweeper.sweeps
        await until(lambda: sweeper.sweeps > before + 2)
        assert working() == ["holdfast-sweeper"]
    assert sweeper.swept.checkpoints == 3
    assert sweeper.swept.bytes > 0
    assert sweeper.failures == 0
    assert await calls.threads() == []


async def test_it_does_as_it_is_told(calls: Calls) -> None:
    head: Any = config("old")
    for number in range(5):
        head = await calls.put(head, checkpoint(number, {"d": [number]}), {}, {})
    heard: list[Swept] = []
    async with sweeping(calls, keep_last=2, idle_for=10**6, progress=heard.append) as sweeper:
        await until(lambda: sweeper.sweeps > 1)
    assert len(await calls.ids(config("old"))) == 2
    assert sweeper.swept.checkpoints == 3
    assert heard


async def test_it_ends_at_once_when_it_is_left(calls: Calls) -> None:
    """Not after the pause of an hour: else this test would not end."""
    async with sweeping(calls, NEVER) as sweeper:
        await until(lambda: sweeper.sweeps == 1)
    assert working() == []
    async with sweeping(calls, NEVER):
        pass
    with pytest.raises(ArithmeticError):
        async with sweeping(calls, NEVER):
            raise ArithmeticError("the block's own")
    assert working() == []
    await put(calls, "after")
    await asyncio.sleep(5 * SOON)
    assert sweeper.sweeps == 1


async def test_it_can_be_entered_again(calls: Calls) -> None:
    sweeper = calls.saver.sweeper(SOON)
    for _ in range(3):
        before = sweeper.sweeps
        if calls.mode == "async":
            async with sweeper:
                await until(lambda before=before: sweeper.sweeps > before)
        else:
            sweeper.__enter__()
            await until(lambda before=before: sweeper.sweeps > before)
            await asyncio.to_thread(sweeper.__exit__, None, None, None)
        assert working() == []


async def test_it_is_left_in_the_middle_of_a_sweep(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is as usable as before."""
    await put(calls, *(f"thread {number}" for number in range(30)))
    backend = calls.saver._live.backend
    reached = threading.Event()
    execute, aexecute = backend.execute, backend.aexecute

    def slow(request: Any) -> Any:
        if isinstance(request, base.Weigh):
            reached.set()
            time.sleep(0.002)
        return execute(request)

    async def aslow(request: Any) -> Any:
        if isinstance(request, base.Weigh):
            reached.set()
            await asyncio.sleep(0.002)
        return await aexecute(request)

    if calls.mode == "async":
        monkeypatch.setattr(backend, "aexecute", aslow)
    else:
        monkeypatch.setattr(backend, "execute", slow)
    async with sweeping(calls, NEVER, idle_for=0):
        assert await asyncio.to_thread(reached.wait, 60)
    assert working() == []
    left = len(await calls.threads())
    assert left > 0, "neither a thread nor a task ends its sweep first"
    await calls.sweep(idle_for=0)
    assert await calls.threads() == []


async def test_a_sweep_that_fails_is_logged_and_the_next_one_sweeps(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await put(calls, "a")
    backend = calls.saver._live.backend
    execute, aexecute = backend.execute, backend.aexecute
    is_gone = True

    def fail(request: Any) -> None:
        if is_gone and isinstance(request, base.Visit):
            raise StoreUnavailable("the store is away")

    def failing(request: Any) -> Any:
        fail(request)
        return execute(request)

    async def afailing(request: Any) -> Any:
        fail(request)
        return await aexecute(request)

    monkeypatch.setattr(backend, "execute", failing)
    monkeypatch.setattr(backend, "aexecute", afailing)
    with caplog.at_level(logging.WARNING, "holdfast"):
        async with sweeping(calls, idle_for=0) as sweeper:
            await until(lambda: sweeper.failures >= 3)
            assert (sweeper.sweeps, sweeper.swept) == (0, Swept())
            is_gone = False
            await until(lambda: sweeper.swept.threads == 1)
    assert [one for one in caplog.messages if "the store is away" in one]


async def test_what_is_no_failure_of_the_store_ends_it_and_is_raised(
    calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    await put(calls, "a")

    def broken(_: Swept) -> None:
        raise ZeroDivisionError("of the one who asked for progress")

    with caplog.at_level(logging.ERROR, "holdfast"), pytest.raises(ZeroDivisionError):
        async with sweeping(calls, progress=broken):
            await until(lambda: caplog.messages)
    assert "nobody sweeps any more" in caplog.text
    async with sweeping(calls) as sweeper:
        await until(lambda: sweeper.sweeps)


async def test_what_is_wrong_is_told_at_once(calls: Calls) -> None:
    for how in ({"every": 0}, {"every": -1}, {"keep_last": 0}, {"idle_for": -1}):
        with pytest.raises(ValueError, match=r"every|keep_last|idle_for"):
            calls.saver.sweeper(**how)  # type: ignore[arg-type]
    assert working() == []


def test_a_loop_that_ends_takes_its_sweeper_with_it(saver: holdfast.Saver) -> None:
    async def forgets() -> None:
        sweeper = saver.sweeper(NEVER)
        await sweeper.__aenter__()
        await until(lambda: sweeper.sweeps)

    for _ in range(3):
        asyncio.run(forgets())
    gc.collect()  # what was not awaited would be told here
    assert "holdfast-sweeper" not in [thread.name for thread in threading.enumerate()]


# --- several processes


def sweep_for(url: str, stop: Any, told: Any) -> None:
    """Have a sweeper run until told to stop."""
    with holdfast.open(url) as saver:
        with saver.sweeper(SOON, keep_last=1) as sweeper:
            while sweeper.sweeps == 0:
                time.sleep(0.001)
            told.put("begun")
            stop.wait(100)
        told.put((sweeper.sweeps, sweeper.failures, sweeper.swept.checkpoints))


@pytest.mark.parametrize("name", SHARED)
def test_two_processes_sweep_one_store_while_a_third_writes(name: str, tmp_path: Path) -> None:
    url = BACKENDS[name].url(tmp_path)
    with holdfast.open(url) as saver:
        saver.setup()
        stop, told = _context.Event(), _context.Queue()
        processes = [_context.Process(target=sweep_for, args=(url, stop, told)) for _ in range(2)]
        for process in processes:
            process.start()
        assert [told.get(timeout=60) for _ in processes] == ["begun"] * 2
        try:
            head: Any = config()
            deadline = time.monotonic() + 60
            number = 0
            while number < 40 or len([*saver.list(config())]) == number:
                number += 1
                made = checkpoint(number, {"d": [f"{number} {i}" * 50 for i in range(number % 9)]})
                head = saver.put(head, made, {}, made["channel_versions"])
                found = saver.get_tuple(head)
                assert found is not None
                assert found.checkpoint == made
                time.sleep(0.005)
                assert time.monotonic() < deadline, "nobody sweeps"
        finally:
            stop.set()
            heard = [told.get(timeout=60) for _ in processes]
            for process in processes:
                process.join(60)
        print(f"{number} checkpoints; sweeps, failures, removed: {heard}")
        assert [process.exitcode for process in processes] == [0, 0]
        assert [failures for _, failures, _ in heard] == [0, 0]
        assert sum(removed for _, _, removed in heard) <= number - 1
        assert all(sweeps for sweeps, _, _ in heard)


def test_leaving_ends_the_sweep_that_is_under_way(saver: holdfast.Saver) -> None:
    """After the thread that it is at: a sweep of a large store takes long."""
    for name in "abc":
        saver.put(config(name), checkpoint(1, {"d": name}), {}, {})
    begun, goes_on = threading.Event(), threading.Event()
    told: list[Swept] = []

    def progress(swept: Swept) -> None:
        told.append(swept)
        begun.set()
        assert goes_on.wait(60)

    sweeper = saver.sweeper(NEVER, idle_for=0, progress=progress)
    sweeper.__enter__()
    assert begun.wait(60)
    leaving = threading.Thread(target=sweeper.__exit__, args=(None, None, None))
    leaving.start()
    while not sweeper._stopped.is_set():
        time.sleep(0.001)
    goes_on.set()
    leaving.join(60)
    assert not leaving.is_alive()
    assert len(told) == 1
    assert len(saver.threads()) == 2
    with sweeper:
        while sweeper.sweeps == 0:
            time.sleep(0.001)
    assert saver.threads() == []
