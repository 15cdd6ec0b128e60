"""Several threads, event loops and processes on one saver or one store at once."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import holdfast
import pytest
from blockbuster import BlockingError
from support import workers
from support.backends import BACKENDS, SHARED, Backend
from support.calls import Calls
from support.make import Thread, checkpoint, checkpoint_id, config, id_of, version

MESSAGES = [f"message {i} " * 40 for i in range(60)]


@contextmanager
def beside(work: Any) -> Iterator[None]:
    """Repeat `work` in a thread, at least once before the body begins; raise what it raised."""
    begun, stop = threading.Event(), threading.Event()

    def repeat() -> None:
        try:
            while not stop.is_set():
                work()
                begun.set()
                stop.wait(0.001)  # leave the others some of the interpreter
        finally:
            begun.set()

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(repeat)
        begun.wait()
        try:
            yield
        finally:
            stop.set()
        job.result()


async def put_heads(calls: Calls, count: int, ns: str = "") -> None:
    """Put checkpoints whose values come, go and come again; each head must be whole."""
    thread = Thread(calls, "t", ns)
    for number in range(count):
        length = [5, 60, 1, 59, 30][number % 5]
        await thread.put({"state": MESSAGES[:length], "same": MESSAGES[number % 3]})
        assert thread.head is not None
        await calls.put_writes(thread.head, [("state", MESSAGES[-length:])], "task")
        for where in (thread.head, config("t", ns)):
            found = await calls.must_get(where)
            assert found.checkpoint["channel_values"] == thread.expected[id_of(thread.head)]
            assert found.pending_writes == [("task", "state", MESSAGES[-length:])]
    for found in await calls.list(config("t", ns)):
        assert found.checkpoint["channel_values"] == thread.expected[id_of(found.config)]


# --- one saver


async def test_puts_race_a_prune(calls: Calls) -> None:
    with beside(lambda: calls.saver.prune(["t"])):
        await asyncio.gather(put_heads(calls, 40), put_heads(calls, 40, "sub:1"))


async def test_puts_race_a_copy_and_a_delete_of_it(calls: Calls) -> None:
    def copy() -> None:
        calls.saver.copy_thread("t", "copy")
        for found in calls.saver.list(config("copy", None)):
            assert found.checkpoint["channel_values"]["same"] in MESSAGES[:3]
            if found.parent_config is not None:
                assert calls.saver.get_tuple(found.parent_config) is not None
        calls.saver.delete_thread("copy")

    with beside(copy):
        await put_heads(calls, 30)


async def test_puts_race_the_deletion_of_their_thread(calls: Calls) -> None:
    """Each is refused or whole; nothing is half there."""
    with beside(lambda: calls.saver.delete_thread("t")):
        for life in range(25):
            thread = Thread(calls)
            try:
                for step in range(4):
                    await thread.put({"state": [life, step, *MESSAGES[: 20 * step]]})
            except holdfast.ThreadDeleted:
                pass
            for id, expected in thread.expected.items():
                found = await calls.get_tuple(config("t", "", id))
                if found is not None:
                    assert found.checkpoint["channel_values"] == expected


async def test_a_hundred_tasks_write_at_once(calls: Calls) -> None:
    for ahead in (False, True):
        stored = config("t", "", checkpoint_id(ahead))
        if not ahead:
            await calls.put(config(), checkpoint(0), {}, {})
        names = [f"task {number:03}" for number in range(100)]
        batches = [
            calls.put_writes(stored, [("a", name), ("b", [name] * 50)], name, "~path")
            for name in reversed(names)
        ]
        await asyncio.gather(*batches)
        if ahead:
            await calls.put(config(), checkpoint(1), {}, {})
        writes = (await calls.must_get(stored)).pending_writes
        assert writes == [
            (name, *write) for name in names for write in [("a", name), ("b", [name] * 50)]
        ]


async def test_tasks_that_write_twice_at_once_keep_one_whole_batch(calls: Calls) -> None:
    stored = await calls.put(config(), checkpoint(1), {}, {})
    both = [
        calls.put_writes(stored, [("a", number), ("b", number)], f"task {task}")
        for task in range(20)
        for number in (1, 2)
    ]
    await asyncio.gather(*both)
    writes = (await calls.must_get(stored)).pending_writes
    assert writes is not None
    assert len(writes) == 40
    for first, second in zip(writes[::2], writes[1::2], strict=True):
        assert (first[1], second[1]) == ("a", "b")
        assert first[2] == second[2], "two batches were mixed"


async def test_many_puts_on_one_thread_at_once(calls: Calls) -> None:
    root = await calls.put(config(), checkpoint(0), {}, {})

    def child(number: int) -> Any:
        return checkpoint(number, {"state": MESSAGES[: number % 60]}, {"state": version(number)})

    await asyncio.gather(
        *(
            calls.put(root, made, {"step": 1}, made["channel_versions"])
            for made in map(child, range(1, 61))
        )
    )
    listed = await calls.list(config())
    assert [id_of(found.config) for found in listed] == [
        checkpoint_id(number) for number in range(60, -1, -1)
    ]
    for found in listed[:-1]:
        assert found.checkpoint == child(int(found.checkpoint["id"][-3:]))


def test_several_loops_in_several_threads_share_a_saver(saver: holdfast.Saver) -> None:
    meet = threading.Barrier(6)

    async def work(number: int) -> None:
        calls = Calls(saver, "async")
        own = Thread(calls, f"own {number}")
        shared = Thread(calls, "shared", f"ns {number}")
        meet.wait()
        for step in range(10):
            await asyncio.gather(
                own.put({"state": MESSAGES[step:]}), shared.put({"state": [number, step]})
            )
        for thread in (own, shared):
            for id, expected in thread.expected.items():
                found = await calls.must_get(config(thread.thread, thread.ns, id))
                assert found.checkpoint["channel_values"] == expected

    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(asyncio.run, work(number)) for number in range(6)]
        for job in jobs:
            job.result()
    assert len([*saver.list(config("shared", None))]) == 60


def test_both_sides_of_a_saver_at_once(saver: holdfast.Saver) -> None:
    async def on_a_loop() -> None:
        await put_heads(Calls(saver, "async"), 20, "loop")

    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(asyncio.run, on_a_loop())]
        jobs += [pool.submit(workers.put_and_check, saver, "t", f"ns {n}", 20) for n in range(2)]
        for job in jobs:
            job.result()
    assert len([*saver.list(config("t", None))]) == 60


async def test_a_put_takes_its_bytes_when_it_is_called(backend: Backend, tmp_path: Path) -> None:
    """A graph goes on changing its live state while a put in the background is under way."""
    with backend.open(tmp_path) as saver:
        state = {"messages": list(MESSAGES)}
        metadata: Any = {"step": 1, "tags": ["a"]}
        made = checkpoint(1, {"state": state})
        put = asyncio.create_task(
            saver.aput(config(), made, metadata, dict(made["channel_versions"]))
        )
        await asyncio.sleep(0)  # the call has begun
        state["messages"].clear()
        metadata["tags"].append("b")
        made["channel_values"].clear()
        made["channel_versions"].clear()
        stored = await put
        value = ["written"]
        write = asyncio.create_task(saver.aput_writes(stored, [("state", value)], "task"))
        await asyncio.sleep(0)
        value.append("later")
        await write
        found = await saver.aget_tuple(stored)
        assert found is not None
        assert found.checkpoint == checkpoint(1, {"state": {"messages": MESSAGES}})
        assert found.metadata == {"step": 1, "tags": ["a"]}
        assert found.pending_writes == [("task", "state", ["written"])]
        await saver.aclose()


async def test_the_guard_of_these_tests_notices_a_blocking_call() -> None:
    inside = Path(holdfast.__file__).parent / "nap.py"
    code = compile("def nap(): time.sleep(0.001)", str(inside), "exec")
    names: dict[str, Any] = {"time": time}
    exec(code, names)
    with pytest.raises(BlockingError):
        names["nap"]()


# --- two savers


async def test_puts_race_another_savers_prune(pair: tuple[Calls, Calls]) -> None:
    one, other = pair
    with beside(lambda: other.saver.prune(["t"])):
        await put_heads(one, 40)


async def test_two_savers_put_on_one_thread(pair: tuple[Calls, Calls]) -> None:
    one, other = pair
    await asyncio.gather(put_heads(one, 25, "one"), put_heads(other, 25, "other"))
    for calls in pair:
        assert len(await calls.ids(config("t", None))) == 50


async def test_a_saver_sees_at_once_what_another_put(pair: tuple[Calls, Calls]) -> None:
    thread = Thread(pair[0])
    for number in range(20):
        writer, reader = pair[number % 2], pair[1 - number % 2]
        thread.calls = writer
        stored = await thread.put({"state": MESSAGES[:number], "fixed": number // 7})
        await writer.put_writes(stored, [("state", number)], "task")
        found = await reader.must_get(config())
        assert found.checkpoint["channel_values"] == thread.expected[id_of(stored)]
        assert found.pending_writes == [("task", "state", number)]


# --- several processes


@pytest.fixture(params=SHARED)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return BACKENDS[request.param].url(tmp_path)


async def test_puts_race_another_processs_prune(url: str, mode: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready, stop = spawn.Event(), spawn.Event()
    pruner = spawn.Process(target=workers.prune_until, args=(url, "t", ready, stop))
    pruner.start()
    try:
        assert await asyncio.to_thread(ready.wait, 60)
        calls = Calls(holdfast.open(url), mode)
        await put_heads(calls, 60)
        assert pruner.is_alive(), "the pruner failed"
        await calls.close()
    finally:
        stop.set()
        await asyncio.to_thread(pruner.join, 60)
    assert pruner.exitcode == 0


def test_several_processes_put_on_one_thread(url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    names = [f"process {number}" for number in range(3)]
    processes = [
        spawn.Process(target=workers.put_chain, args=(url, "t", name, 30)) for name in names
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        assert process.exitcode == 0
    with holdfast.open(url) as saver:
        for name in names:
            for number in range(1, 31):
                place = config("t", name, checkpoint_id(number))
                workers.check_chained(saver, place, name, number)


def forked(work: Any, *arguments: Any) -> Any:
    """A child of a fork that does the work."""
    child = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    with warnings.catch_warnings():
        # newer Pythons warn of any fork of a process with threads
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    return child


def test_a_child_goes_on_when_its_parent_has_closed(url: str) -> None:
    """Others see what it stores then."""
    context = multiprocessing.get_context("fork")
    begun, closed = context.Event(), context.Event()
    saver = holdfast.open(url)

    def go_on() -> None:
        workers.put_and_check(saver, "t", "before", 3)
        begun.set()
        closed.wait(60)
        workers.put_and_check(saver, "t", "after", 3)
        os._exit(0)  # as in a crash

    workers.put_and_check(saver, "t", "parent", 3)
    child = forked(go_on)
    assert begun.wait(60)
    saver.close()
    closed.set()
    child.join(60)
    assert child.exitcode == 0
    with holdfast.open(url) as reader:
        for name in ("parent", "before", "after"):
            for number in (1, 2, 3):
                place = config("t", name, checkpoint_id(number))
                workers.check_chained(reader, place, name, number)


def test_forks_in_the_midst_of_reads_and_writes(url: str) -> None:
    """Each child writes, and reads what it wrote; so does the parent, all the while."""
    with holdfast.open(url, retry_budget=30) as saver, ExitStack() as stack:
        for name in ("one", "two"):
            stack.enter_context(beside(partial(workers.put_and_check, saver, name, "", 3)))
        children = []
        for number in range(6):
            time.sleep(0.02)
            work = partial(workers.put_and_check, saver, f"child {number}", "", 5)
            children.append(forked(work))
        for child in children:
            child.join(60)
            assert child.exitcode == 0
    with holdfast.open(url) as reader:
        for number in range(6):
            assert len(list(reader.list(config(f"child {number}")))) == 5


def test_parent_and_child_of_a_fork_both_go_on(url: str) -> None:
    with holdfast.open(url) as saver:
        workers.write_after_fork(saver, "before")
        child = forked(workers.write_after_fork, saver, "child")
        workers.write_after_fork(saver, "parent")
        child.join(60)
        assert child.exitcode == 0
        workers.write_after_fork(saver, "after")
        for reader in (saver, holdfast.open(url)):
            for name in ("before", "child", "parent", "after"):
                for number in range(1, 21):
                    place = config("t", name, checkpoint_id(number))
                    workers.check_chained(reader, place, name, number)
            reader.close()
