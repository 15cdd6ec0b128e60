"""Sweeps: what goes, what stays, and what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from holdfast import Swept
from holdfast.backends import base
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from support.backends import Backend
from support.calls import Calls
from support.clock import LONG, Store, timed
from support.graphs import Runs, asking, fan_out, on
from support.make import Thread, checkpoint, checkpoint_id, config, id_of, snapshot
from support.recount import Counted, recount
from support.uses import WORDS

DAY = 86_400.0


class Sweeps:
    """A saver on a store whose time goes on as the test says, and what it does not say itself."""

    def __init__(self, store: Store, mode: str) -> None:
        self.store = store
        self.mode = mode

    async def open(self, **options: Any) -> Calls:
        return Calls((await self.store.open(**options)).saver, self.mode)

    async def idle(self, calls: Calls, seconds: float) -> None:
        """So many seconds pass for all that is stored now, as far as the saver can see."""
        if self.store.is_moved:
            await self.store.later(seconds)
        else:
            backend = calls.saver._live.backend
            now = backend.clock
            backend.clock = lambda: now() + seconds


@pytest.fixture
async def sweeps(backend: Backend, mode: str, tmp_path: Path) -> AsyncIterator[Sweeps]:
    async with timed(backend, tmp_path, mode) as store:
        yield Sweeps(store, mode)


@pytest.fixture
async def told(sweeps: Sweeps) -> Calls:
    return await sweeps.open()


async def grown(calls: Calls, name: str, count: int = 4) -> Thread:
    """A thread whose state is replaced at each step, with writes."""
    thread = Thread(calls, name)
    for step in range(count):
        stored = await thread.put({"d": WORDS[step * 9 : step * 9 + 9], "same": WORDS[:3]})
        await calls.put_writes(stored, [("d", WORDS[step])], "task")
    return thread


async def names(calls: Calls) -> set[str]:
    return {one.thread_id for one in await calls.threads()}


async def count(calls: Calls, *threads: str) -> Counted:
    return await asyncio.to_thread(recount, calls.saver, *threads)


async def check(calls: Calls, sweep: Callable[..., Any], threads: int) -> Swept:
    """A dry run changes nothing and tells what the real one then removes, which is what is missing
    after it."""
    before, seen = await count(calls), await snapshot_all(calls)
    foretold = await sweep(dry_run=True)
    assert await count(calls) == before
    assert await snapshot_all(calls) == seen
    done: Swept = await sweep()
    after = await count(calls)
    assert foretold == done
    assert done.threads == threads
    assert done.checkpoints == before.checkpoints - after.checkpoints
    assert done.bytes == before.bytes - after.bytes
    assert await sweep() == Swept(), "once is enough"
    return done


async def snapshot_all(calls: Calls) -> Any:
    return {name: await snapshot(calls, config(name, None)) for name in await names(calls)}


# --- idle threads


async def test_threads_that_are_idle_go_as_a_whole(sweeps: Sweeps, told: Calls) -> None:
    for name in ("a", "b"):
        await grown(told, name)
    await sweeps.idle(told, 100)
    await grown(told, "new")
    if not sweeps.store.is_moved:
        assert (await told.sweep(idle_for=1000)).threads == 0
        assert (await check(told, lambda **how: told.sweep(idle_for=50, **how), 3)).threads == 3
        return
    assert await told.sweep(idle_for=100.001) == Swept()
    await check(told, lambda **how: told.sweep(idle_for=100, **how), 2)
    assert await names(told) == {"new"}
    assert len(await told.ids(config("new"))) == 4


async def test_idle_for_nothing_is_all(told: Calls) -> None:
    await grown(told, "a")
    await grown(told, "b", 1)
    await check(told, lambda **how: told.sweep(idle_for=0, **how), 2)
    assert await told.list(None) == []


async def test_a_swept_thread_begins_anew_at_once_and_nothing_remembers_it(told: Calls) -> None:
    """No tombstone: nobody asked for the deletion of what nobody used."""
    thread = await grown(told, "t")
    await told.sweep(idle_for=0)
    await thread.put({"d": 1})
    assert len(await told.ids(config())) == 1


def failing(checkpointer: Any) -> Any:
    def fail(_: Any) -> Any:
        raise ArithmeticError("a node's own")

    builder = StateGraph(dict).add_node("bad", fail).add_edge(START, "bad").add_edge("bad", END)
    return builder.compile(checkpointer=checkpointer)


async def runs_of_all_kinds(calls: Calls) -> None:
    """Threads named by how their run ended."""
    await Runs(fan_out(calls.saver), calls.mode).invoke({"other": [1]}, on("finished"))
    stops = Runs(asking(calls.saver, interrupt_before=["ask"]), calls.mode)
    await stops.invoke({"words": []}, on("stopped"))
    with pytest.raises(ArithmeticError):
        await Runs(failing(calls.saver), calls.mode).invoke({"a": 1}, on("failed"))
    waits = Runs(asking(calls.saver), calls.mode)
    for thread in ("interrupted", "answered"):
        await waits.invoke({"words": []}, on(thread))
    for answer in ("one", "two"):
        await waits.invoke(Command(resume=answer), on("answered"))


@pytest.mark.usefixtures("interrupts")
async def test_runs_that_would_go_on_stay_unless_told_otherwise(
    sweeps: Sweeps, told: Calls
) -> None:
    await runs_of_all_kinds(told)
    waiting = {"stopped", "failed", "interrupted"}
    assert await names(told) == {*waiting, "finished", "answered"}
    await sweeps.idle(told, 100)
    await check(told, lambda **how: told.sweep(idle_for=50, **how), 2)
    assert await names(told) == waiting
    done = await Runs(asking(told.saver), told.mode).invoke(
        Command(resume="one"), on("interrupted")
    )
    assert done["words"] == ["draft 0"], "it can still be answered"
    await sweeps.idle(told, 100)
    sweep = lambda **how: told.sweep(idle_for=50, keep_interrupted=False, **how)  # noqa: E731
    await check(told, sweep, 3)
    assert await names(told) == set()


# --- old checkpoints


@pytest.mark.parametrize("keep", [1, 2, 5])
async def test_all_but_the_last_checkpoints_go(told: Calls, keep: int) -> None:
    threads = [await grown(told, "t"), await grown(told, "u", 7), await grown(told, "v", 1)]
    expected = [await snapshot(told, config(thread.thread)) for thread in threads]
    await check(told, lambda **how: told.sweep(keep_last=keep, **how), 0)
    for thread, before in zip(threads, expected, strict=True):
        after = await snapshot(told, config(thread.thread))
        assert [id for _, id in sorted(after)] == [id for _, id in sorted(before)][-keep:]
        oldest = min(after)
        assert after.pop(oldest) == {**before[oldest], "parent": None} or len(before) <= keep
        assert after.items() <= before.items()


async def test_a_savers_own_keep_last_counts_where_none_is_given(sweeps: Sweeps) -> None:
    everything, keeping = await sweeps.open(), await sweeps.open(keep_last=2)
    await grown(everything, "t", 6)
    assert (await everything.sweep()).checkpoints == 0
    assert (await keeping.sweep(keep_last=5)).checkpoints == 1
    assert (await keeping.sweep()).checkpoints == 3
    assert await everything.ids(config()) == [checkpoint_id(6), checkpoint_id(5)]


@pytest.mark.parametrize("wrong", [{"keep_last": 0}, {"keep_last": -1}, {"idle_for": -1}])
async def test_what_cannot_be_is_refused(calls: Calls, wrong: dict[str, Any]) -> None:
    await grown(calls, "t")
    with pytest.raises(ValueError, match=r"keep_last|idle_for"):
        await calls.sweep(**wrong)
    with pytest.raises(ValueError, match="idle_for"):
        await calls.sweep(idle_for=float("nan"))
    assert len(await calls.ids(config())) == 4


# --- garbage, and what else lies around


async def leave_garbage(calls: Calls, name: str = "t") -> Thread:
    """Remove checkpoints, and not their chunks: a process that died in between."""
    thread = await grown(calls, name, 6)
    execute = calls.saver._live.backend.execute
    gone = [("", checkpoint_id(number)) for number in (1, 2, 4)]
    remove = base.Remove(name, None, gone, [], base.new_operation_id())
    assert await asyncio.to_thread(execute, remove)
    assert (await count(calls, name)).garbage > 3
    return thread


async def test_chunks_that_nothing_refers_to_go(told: Calls) -> None:
    thread = await leave_garbage(told)
    await check(told, told.sweep, 0)
    assert (await count(told)).garbage == 0
    for found in await told.list(config()):
        assert found.checkpoint["channel_values"] == thread.expected[id_of(found.config)]
    assert len(await told.ids(config())) == 3


async def test_all_at_once(sweeps: Sweeps, told: Calls) -> None:
    """Idle, trimmed, garbage and writes without a checkpoint, in one sweep."""
    await grown(told, "idle")
    await sweeps.idle(told, 100)
    thread = await leave_garbage(told)
    await told.put_writes(config("t", "", checkpoint_id(0)), [("d", WORDS[:5])], "lost")
    await told.put_writes(config("t", "", checkpoint_id(99)), [("d", WORDS[5:9])], "early")
    if sweeps.store.is_moved:
        await check(told, lambda **how: told.sweep(idle_for=50, keep_last=2, **how), 1)
    else:  # a server's time does not move, so here all are idle
        assert (await told.sweep(idle_for=50, dry_run=True)).threads == 2
        await check(told, lambda **how: told.sweep(idle_for=1000, keep_last=2, **how), 0)
    left = await snapshot(told, config())
    assert [one["values"] for _, one in sorted(left.items())] == [
        thread.expected[checkpoint_id(number)] for number in (5, 6)
    ]
    await told.put(config(), checkpoint(99), {}, {})
    early = await told.must_get(config("t", "", checkpoint_id(99)))
    assert early.pending_writes == [("early", "d", WORDS[5:9])]


async def test_writes_alone_go_after_a_day(sweeps: Sweeps, told: Calls) -> None:
    await told.put_writes(config("t", "", checkpoint_id(1)), [("d", WORDS[:5])], "early")
    assert await told.sweep() == Swept()
    await sweeps.idle(told, DAY - 100)
    assert await told.sweep() == Swept()
    await sweeps.idle(told, 101)
    before = await count(told)
    assert before.writes == 1
    done = await check(told, told.sweep, 1)
    assert done == Swept(1, 0, before.bytes)
    assert await count(told) == Counted()


async def test_threads_that_have_expired_go(sweeps: Sweeps) -> None:
    short, lasting = await sweeps.open(ttl=sweeps.store.ttl), await sweeps.open()
    thread = await grown(lasting, "t")
    await grown(lasting, "kept")
    before = await count(lasting, "t")
    thread.calls = short
    await short.put_writes(config("t", "", checkpoint_id(4)), [("d", 1)], "last")
    with_write = await count(lasting, "t")
    assert with_write.writes == before.writes + 1
    await sweeps.store.later(sweeps.store.ttl)
    foretold = await lasting.sweep(dry_run=True)
    done = await lasting.sweep()
    # Redis removes them by itself.
    assert foretold == done
    assert done in (Swept(1, 4, with_write.bytes), Swept())
    assert await lasting.sweep() == Swept()
    assert await names(lasting) == {"kept"}


async def test_a_forgotten_tombstone_forgets_nothing_that_began_since(
    sweeps: Sweeps, told: Calls
) -> None:
    await grown(told, "t")
    await grown(told, "u")
    await told.delete_thread("t")
    await told.delete_thread("u")
    await grown(told, "u")
    assert await told.sweep() == Swept()
    await sweeps.idle(told, 2 * DAY)
    assert (await told.sweep()).threads == 0
    assert await names(told) == {"u"}
    if sweeps.store.is_moved:  # a server goes by its own time
        await told.put_writes(config("t", "", checkpoint_id(4)), [("d", 1)], "late")


# --- what is told meanwhile


async def test_progress_tells_what_went_so_far(told: Calls) -> None:
    for number in range(5):
        await grown(told, f"thread {number}", 2)
    heard: list[Swept] = []
    done = await told.sweep(idle_for=0, progress=heard.append)
    assert len(heard) >= 5
    assert heard[-1] == done
    assert [one.threads for one in heard if one.threads] == [1, 2, 3, 4, 5]
    assert sorted(heard, key=lambda one: one.bytes) == heard


async def test_more_threads_than_a_page(told: Calls) -> None:
    await asyncio.gather(
        *(told.put(config(f"{n}"), checkpoint(1, {"d": "x"}), {}, {}) for n in range(130))
    )
    assert (await told.sweep(idle_for=0, dry_run=True)).threads == 130
    assert (await told.sweep(idle_for=0)).threads == 130
    assert await told.threads() == []


# --- what is left alone


async def test_a_thread_under_a_lease_is_left_alone(told: Calls) -> None:
    await leave_garbage(told, "held")
    await leave_garbage(told, "free")
    before = await count(told, "held")
    async with told.lease("held", seconds=LONG):
        assert (await told.sweep(idle_for=0)).threads == 1
        assert (await told.sweep(keep_last=1)).checkpoints == 0
        assert await count(told, "held") == before
    assert (await told.sweep(idle_for=0)).threads == 1
