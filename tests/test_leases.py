"""Leases: one writer per thread, for as long as its block runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from holdfast import LeaseHeld, LeaseLost
from langgraph.types import Command
from support.backends import Backend
from support.calls import Calls
from support.clock import LONG, Store, timed
from support.graphs import Runs, asking, fan_out, on, with_subgraphs
from support.make import Thread, checkpoint, config

SHORT = 0.2
"""Seconds of a lease that is to run out."""


@pytest.fixture
async def store(backend: Backend, mode: str, tmp_path: Path) -> AsyncIterator[Store]:
    async with timed(backend, tmp_path, mode) as store:
        yield store


@pytest.fixture
async def one(store: Store, mode: str) -> Calls:
    return Calls((await store.open()).saver, mode)


@pytest.fixture
async def other(store: Store, mode: str) -> Calls:
    return Calls((await store.open()).saver, mode)


async def put(calls: Calls, thread: str = "t", number: int = 1) -> Any:
    return await calls.put(config(thread), checkpoint(number, {"d": number}), {}, {"d": "1"})


async def after(event: asyncio.Event, work: Any) -> Any:
    await event.wait()
    return await work


async def refuses(calls: Calls, thread: str = "t") -> None:
    """All changes are refused, all reads answered, and nothing is stored."""
    before = await calls.ids(config(thread, None))
    where = config(thread, "", checkpoint(1)["id"])
    changes = [
        lambda: put(calls, thread, 50),
        lambda: calls.put_writes(where, [("d", 1)], "refused"),
        lambda: calls.copy_thread("source", thread),
    ]
    await put(calls, "source")
    for change in changes:
        with pytest.raises(LeaseLost, match="lease"):
            await change()
    assert await calls.ids(config(thread, None)) == before
    found = await calls.get_tuple(where)
    assert "refused" not in [write[0] for write in (found and found.pending_writes) or []]


# --- graphs


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("graph", [fan_out, with_subgraphs])
async def test_a_graph_runs_under_a_lease_and_others_only_read(
    one: Calls, other: Calls, durability: str, graph: Any
) -> None:
    runs, others = Runs(graph(one.saver), one.mode), Runs(graph(other.saver), other.mode)
    async with one.lease("t"):
        done = await runs.invoke({}, on("t"), durability=durability)
        await refuses(other)
        with pytest.raises(LeaseLost):
            await others.invoke({}, on("t"), durability=durability)
        assert (await others.state(on("t"))).values == done
        again = await runs.invoke({}, on("t"), durability=durability)
        await others.invoke({}, on("u"), durability=durability)
    assert again["turn"] == 2
    done = await others.invoke({}, on("t"), durability=durability)
    assert done["turn"] == 3


@pytest.mark.usefixtures("interrupts")
async def test_each_answer_may_come_under_a_lease_of_its_own(one: Calls, other: Calls) -> None:
    seen = []
    for calls, value in [
        (one, {"words": []}),
        (other, Command(resume="one")),
        (one, Command(resume="two")),
    ]:
        async with calls.lease("t") as lease:
            done = await Runs(asking(calls.saver), calls.mode).invoke(value, on("t"))
            seen.append(lease.token)
    assert done["words"] == ["draft 0", "one", "two", "published"]
    assert seen == sorted(set(seen)), "each has a greater token"


# --- who is inside


async def test_the_same_saver_outside_the_block_is_refused(one: Calls) -> None:
    is_held, is_done = asyncio.Event(), asyncio.Event()

    async def stranger() -> None:
        try:
            await is_held.wait()
            await refuses(one)
        finally:
            is_done.set()

    task = asyncio.create_task(stranger())
    async with one.lease("t"):
        for number in range(1, 4):
            await put(one, "t", number)
        is_held.set()
        await is_done.wait()
        await put(one, "t", 4)
    await task
    assert len(await one.ids(config())) == 4
    await put(one, "t", 5)


async def test_tasks_that_the_block_starts_are_inside(one: Calls, other: Calls) -> None:
    left = asyncio.Event()
    async with one.lease("t"):
        await asyncio.gather(*(put(one, "t", number) for number in range(1, 9)))
        task = asyncio.create_task(put(one, "t", 9))
        await task
        with pytest.raises(LeaseLost):
            await put(other)
        late = asyncio.create_task(after(left, put(one, "t", 10)))
    left.set()
    with pytest.raises(LeaseLost):
        await late
    assert len(await one.ids(config())) == 9


async def test_leases_of_different_threads_nest(one: Calls, other: Calls) -> None:
    async with one.lease("t"):
        async with one.lease("u"), one.lease("v"):
            for thread in "tuvw":
                await put(one, thread)
            for thread in "tuv":
                await refuses(other, thread)
        await put(one, "t", 2)
        await refuses(other, "t")
        await put(other, "u", 2)
        await put(one, "v", 2)
    await put(other, "t", 3)


async def test_a_held_lease_cannot_be_had(one: Calls, other: Calls) -> None:
    async with one.lease("t", seconds=LONG):
        for calls in (one, other):
            with pytest.raises(LeaseHeld, match="wait=seconds"):
                async with calls.lease("t"):
                    raise AssertionError("nobody comes in")
            with pytest.raises(LeaseHeld):
                async with calls.lease("t", wait=0.06):
                    raise AssertionError("nobody comes in")
        await put(one)
    async with other.lease("t"):
        await put(other, "t", 2)
        await refuses(one)


async def test_who_waits_has_it_when_the_other_is_done(one: Calls, other: Calls) -> None:
    order: list[str] = []

    async def second() -> None:
        async with other.lease("t", wait=60):
            order.append("second")
            await put(other, "t", 2)

    async with one.lease("t", seconds=LONG):
        task = asyncio.create_task(second())
        await asyncio.sleep(0.1)
        await put(one, "t", 1)
        order.append("first")
    await task
    assert order == ["first", "second"]


async def test_several_who_wait_have_it_one_after_the_other(one: Calls, other: Calls) -> None:
    inside: list[int] = []
    tokens: list[Any] = []

    async def work(number: int) -> None:
        calls = [one, other][number % 2]
        async with calls.lease("t", wait=100) as lease:
            inside.append(number)
            assert inside == [number]
            tokens.append(lease.token)
            await put(calls, "t", number)
            inside.remove(number)

    await asyncio.gather(*(work(number) for number in range(1, 5)))
    assert tokens == sorted(set(tokens))
    assert len(await one.ids(config())) == 4


# --- how it ends


async def test_an_error_inside_gives_it_back(one: Calls, other: Calls) -> None:
    with pytest.raises(ArithmeticError):
        async with one.lease("t", seconds=LONG):
            await put(one)
            raise ArithmeticError("the block's own")
    await put(other, "t", 2)
    async with other.lease("t"):
        await refuses(one)


async def test_a_lease_that_ran_out_may_be_taken_and_its_writer_is_refused(
    store: Store, one: Calls, other: Calls
) -> None:
    async with one.lease("t", seconds=SHORT) as first:
        await put(one)
        await store.later(SHORT + 0.01)
        async with other.lease("t", seconds=LONG) as second:
            assert first.token is not None
            assert second.token is not None
            assert second.token > first.token
            # Each under its own lease: the first one's is not forgotten, and of no use.
            with pytest.raises(LeaseLost):
                await put(one, "t", 2)
            with pytest.raises(LeaseLost):
                await one.renew(first)
            await put(other, "t", 3)
        with pytest.raises(LeaseLost):
            await put(one, "t", 4)
    assert len(await one.ids(config())) == 2
    await put(one, "t", 5)


async def test_leaving_late_does_not_take_the_lease_from_who_has_it_now(
    store: Store, one: Calls, other: Calls
) -> None:
    async with one.lease("t", seconds=SHORT):
        await store.later(SHORT + 0.01)
        second = other.lease("t", seconds=LONG)
        await second.__aenter__()
    with pytest.raises(LeaseLost):
        await put(one)
    await put(other)
    await second.__aexit__(None, None, None)


async def test_a_lease_that_ran_out_goes_on_if_nobody_came(
    store: Store, one: Calls, other: Calls
) -> None:
    async with one.lease("t", seconds=SHORT) as lease:
        await store.later(SHORT + 0.01)
        await put(one)
        await store.later(SHORT + 0.01)
        await one.renew(lease)
        await put(one, "t", 2)
        await store.later(SHORT + 0.01)
        await put(other, "t", 3)  # another's write ends it
        with pytest.raises(LeaseLost):
            await put(one, "t", 4)
        with pytest.raises(LeaseLost, match="Begin again"):
            await one.renew(lease)
    assert len(await one.ids(config())) == 3


async def test_each_write_prolongs_it_and_so_does_renewing(
    store: Store, one: Calls, other: Calls
) -> None:
    if not store.is_moved:
        pytest.skip("a test that waits for a server cannot be sure to be in time")
    async with one.lease("t", seconds=10) as lease:
        for number in range(1, 4):
            await store.later(6)
            stored = await put(one, "t", number)
            await store.later(6)
            await one.put_writes(stored, [("d", 1)], "task")
            await store.later(6)
            await one.renew(lease)
            await refuses(other)
            with pytest.raises(LeaseHeld):
                async with other.lease("t"):
                    raise AssertionError("nobody comes in")
        await store.later(10)
        await put(other, "t", 9)


async def test_a_lease_can_be_taken_again_but_not_twice(one: Calls) -> None:
    lease = one.saver.lease("t")
    if one.mode == "async":
        for _ in range(2):
            async with lease:
                with pytest.raises(RuntimeError, match="held already"):
                    async with lease:
                        raise AssertionError("nobody comes in")
                await put(one)
        with pytest.raises(RuntimeError, match="not held"):
            await lease.__aexit__(None, None, None)
        return

    def work() -> None:
        for _ in range(2):
            with lease:
                with pytest.raises(RuntimeError, match="held already"), lease:
                    raise AssertionError("nobody comes in")
                one.saver.put(config(), checkpoint(1), {}, {})
        with pytest.raises(RuntimeError, match="not held"):
            lease.__exit__(None, None, None)

    await asyncio.to_thread(work)


async def test_a_lease_of_no_time_is_refused(one: Calls) -> None:
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="seconds"):
            one.saver.lease("t", seconds=wrong)


# --- and what else there is


async def test_a_thread_need_not_be_there_and_does_not_come_by_it(one: Calls, other: Calls) -> None:
    async with one.lease("t"):
        assert await one.threads() == []
        assert await one.get_tuple(config()) is None
        await refuses(other)
    assert {found.thread_id for found in await one.threads()} == {"source"}


async def test_a_thread_is_deleted_whoever_has_its_lease(one: Calls, other: Calls) -> None:
    thread = Thread(one)
    async with one.lease("t"):
        await thread.put({"d": 1})
        await other.delete_thread("t")
        assert await one.get_tuple(config()) is None
        await refuses(other)
        await put(one, "t", 5)
    await put(other, "t", 6)


async def test_a_copy_to_a_thread_under_ones_own_lease(one: Calls, other: Calls) -> None:
    await put(one, "source")
    async with one.lease("t"):
        await one.copy_thread("source", "t")
        with pytest.raises(LeaseLost):
            await other.copy_thread("source", "t")
    assert len(await one.ids(config())) == 1


async def test_keep_last_trims_under_a_lease(store: Store, mode: str) -> None:
    calls = Calls((await store.open(keep_last=2)).saver, mode)
    async with calls.lease("t"):
        thread = Thread(calls)
        for _ in range(5):
            await thread.put({"d": 1})
    assert len(await calls.ids(config())) == 2
