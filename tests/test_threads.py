"""Listings of threads: which, in what order, where their runs stand, and how much they hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import holdfast
import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from support.backends import Backend, opened
from support.calls import Calls
from support.clock import Store, timed
from support.graphs import Runs, asking, fan_out, on, with_subgraphs
from support.make import Thread, checkpoint, config
from support.recount import recount
from support.requests import Tap
from support.uses import WORDS
from test_graph import nested


@pytest.fixture
async def store(backend: Backend, mode: str, tmp_path: Path) -> AsyncIterator[Store]:
    async with timed(backend, tmp_path, mode) as store:
        yield store


@pytest.fixture
async def told(store: Store, mode: str) -> Calls:
    """A saver on a store whose time goes on as the test says."""
    return Calls((await store.open()).saver, mode)


async def ids(calls: Calls, *args: Any, **how: Any) -> list[str]:
    return [one.thread_id for one in await calls.threads(*args, **how)]


async def one(calls: Calls, thread: str = "t", **how: Any) -> holdfast.Thread:
    (found,) = await calls.threads(thread, **how)
    return found


async def put(calls: Calls, *threads: str) -> None:
    for thread in threads:
        await calls.put(config(thread), checkpoint(1, {"d": thread}), {"step": 0}, {})


# --- which, and in what order


async def test_the_last_written_comes_first(store: Store, told: Calls) -> None:
    names = [f"thread {number}" for number in range(5)]
    for name in names:
        await put(told, name)
        await store.later(0.002)
    assert await ids(told) == names[::-1]
    await told.put_writes(config("thread 1", "", checkpoint(1)["id"]), [("d", 1)], "task")
    await store.later(0.002)
    await told.copy_thread("thread 0", "thread 3")
    await store.later(0.002)
    expected = [names[number] for number in (3, 1, 4, 2, 0)]
    assert await ids(told) == expected
    await told.get_tuple(config("thread 0"))
    await told.list(config("thread 2"))
    assert await ids(told) == expected, "reads are no writes"
    await told.delete_thread("thread 1")
    expected.remove("thread 1")
    assert await ids(told) == expected


async def test_a_store_without_threads_lists_none(calls: Calls) -> None:
    assert await calls.threads() == []
    await calls.put_writes(config("t", "", "1"), [("d", 1)], "task")
    assert await calls.threads() == [], "writes alone are no thread yet"


async def test_by_the_beginning_of_their_ids(calls: Calls) -> None:
    names = ["user:1", "user:10", "user:2", "User:1", "us%r:1", "us_r", "é", "user"]
    await put(calls, *names)
    for prefix in ["", "user", "user:1", "us%", "us_", "u", "é", "e", "nobody", "user:1\x00"]:
        expected = {name for name in names if name.startswith(prefix)}
        assert set(await ids(calls, prefix)) == expected, prefix


async def test_those_that_were_not_written_for_a_while(store: Store, told: Calls) -> None:
    await put(told, "old")
    await store.later(0.3)
    await put(told, "new")
    assert await ids(told, idle_for=0.2) == ["old"]
    assert await ids(told, idle_for=0) == ["new", "old"]
    assert await ids(told, idle_for=1000) == []


async def test_those_that_were_written_before_a_time(store: Store, told: Calls) -> None:
    await put(told, "old")
    moment = datetime.fromtimestamp(await store.moment() / 1000, timezone.utc)
    await put(told, "new")
    elsewhere = moment.astimezone(timezone(timedelta(hours=-7)))
    plain = moment.astimezone().replace(tzinfo=None)
    for before in (moment, elsewhere, plain):
        assert await ids(told, before=before) == ["old"]
    newest = (await told.threads())[0]
    assert await ids(told, before=newest.updated_at) == ["old"], "not the one of that moment"
    assert await ids(told, before=newest.updated_at + timedelta(milliseconds=1)) == ["new", "old"]


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_pages_to_the_end_are_the_whole(store: Store, told: Calls, limit: int) -> None:
    for number in range(14):
        await put(told, f"thread {number * 5 % 14:02}")
        if number % 3 == 0:  # several in one millisecond, where time stands still
            await store.later(0.002)
    whole = await told.threads()
    pages: list[holdfast.Thread] = []
    last: Any = None
    while page := await told.threads(before=last, limit=limit):
        assert len(page) <= limit
        pages += page
        last = page[-1]
    assert pages == whole
    assert len(whole) == 14
    assert await told.threads(limit=0) == []
    assert await told.threads(limit=99) == whole


async def test_more_than_one_page_of_the_store(calls: Calls) -> None:
    names = [f"thread {number}" for number in range(230)]
    await asyncio.gather(*(put(calls, *names[start::8]) for start in range(8)))
    found = await ids(calls)
    assert sorted(found) == sorted(names)
    assert await ids(calls, limit=150) == found[:150]
    assert await ids(calls, unfinished=False, limit=150) == found[:150]
    assert sorted(await ids(calls, "thread 1")) == sorted(n for n in names if n[7] == "1")


async def test_both_ways_to_have_them_asynchronously(saver: holdfast.Saver) -> None:
    calls = Calls(saver, "async")
    await put(calls, "a", "b", "c")
    listed = await saver.athreads()
    assert [one async for one in saver.athreads()] == listed
    assert [one.thread_id for one in listed] == await ids(Calls(saver, "sync"))
    assert [one async for one in saver.athreads("b")] == await saver.athreads("b")
    async for one in saver.athreads():
        assert one == listed[0]
        break
    await saver.aclose()


# --- what a thread looks like


async def test_when_it_was_made_and_written(store: Store, told: Calls) -> None:
    thread = Thread(told)
    first = await store.moment()
    await thread.put({"d": 1})
    second = await store.moment()
    await thread.put({"d": 2})
    await Thread(told, "t", "sub:1").put({"d": 1})
    third = await store.moment()
    found = await one(told)
    created, updated = (time.timestamp() * 1000 for time in (found.created_at, found.updated_at))
    if store.is_moved:
        assert first < created < second < updated < third
    else:  # the server's clock is its own
        assert created < updated
    assert (found.created_at.tzinfo, found.expires_at) == (timezone.utc, None)
    assert (found.namespaces, found.checkpoints) == (["", "sub:1"], 3)
    assert (found.bytes, found.unshared_bytes) == (None, None)
    await told.delete_thread("t")
    await store.later(0.002)
    await put(told, "t")
    assert (await one(told)).created_at > found.updated_at, "another thread"


async def test_a_run_that_is_over(calls: Calls) -> None:
    runs = Runs(fan_out(calls.saver), calls.mode)
    await runs.invoke({"other": [1]}, on("t"))
    found = await one(calls)
    state = await runs.state(on("t"))
    assert state.metadata is not None
    assert (found.step, found.next) == (state.metadata["step"], [])
    assert (found.interrupted, found.unfinished) == (False, False)


@pytest.mark.usefixtures("interrupts")
async def test_a_run_that_waits_for_a_person(calls: Calls) -> None:
    runs = Runs(asking(calls.saver), calls.mode)
    await runs.invoke({"words": []}, on("t"))
    for _ in range(2):
        found = await one(calls)
        assert (found.next, found.interrupted, found.unfinished) == (["ask"], True, True)
        await runs.invoke(Command(resume="answer"), on("t"))
    found = await one(calls)
    assert (found.next, found.interrupted, found.unfinished) == ([], False, False)


@pytest.mark.usefixtures("interrupts")
async def test_a_run_that_waits_in_a_subgraph(calls: Calls) -> None:
    runs = Runs(nested(calls.saver), calls.mode)
    await runs.invoke({"steps": ["in"]}, on("t"))
    found = await one(calls)
    assert (found.next, found.interrupted, found.unfinished) == (["mid"], True, True)
    assert len(found.namespaces) == 3
    await runs.invoke(Command(resume="42"), on("t"))
    assert (await one(calls)).unfinished is False


async def test_a_run_that_was_told_to_stop(calls: Calls) -> None:
    runs = Runs(asking(calls.saver, interrupt_before=["ask"]), calls.mode)
    await runs.invoke({"words": []}, on("t"))
    found = await one(calls)
    assert (found.next, found.interrupted, found.unfinished) == (["ask"], False, True)


async def test_a_run_that_failed(calls: Calls) -> None:
    def fail(_: Any) -> Any:
        raise ArithmeticError("a node's own")

    builder = StateGraph(dict).add_node("good", lambda state: state).add_node("bad", fail)
    builder.add_edge(START, "good").add_edge("good", "bad").add_edge("bad", END)
    runs = Runs(builder.compile(checkpointer=calls.saver), calls.mode)
    with pytest.raises(ArithmeticError):
        await runs.invoke({"a": 1}, on("t"))
    found = await one(calls)
    assert (found.next, found.interrupted, found.unfinished) == (["bad"], False, True)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("graph", [fan_out, with_subgraphs])
async def test_next_is_what_langgraph_says_at_every_step(
    calls: Calls, durability: str, graph: Any
) -> None:
    runs = Runs(graph(calls.saver), calls.mode)
    value: Any = {}
    seen: list[Any] = []
    for _ in range(2):
        while True:
            how = {"interrupt_before": "*", "durability": durability}
            await runs.invoke(value, on("t"), **how)
            found, state = await one(calls), await runs.state(on("t"))
            # LangGraph names a node as often as it was sent to.
            assert found.next == list(dict.fromkeys(state.next))
            assert found.unfinished == bool(state.next)
            seen.append(found.next)
            value = None
            if not state.next:
                break
        value = {}
    assert len(seen) > 7


@pytest.mark.usefixtures("interrupts")
async def test_by_whether_a_run_would_go_on(calls: Calls) -> None:
    waits, done = Runs(asking(calls.saver), calls.mode), Runs(fan_out(calls.saver), calls.mode)
    for number in range(4):
        await waits.invoke({"words": []}, on(f"waits {number}"))
        await done.invoke({"other": [1]}, on(f"done {number}"))
    whole = await ids(calls)
    for unfinished, begin in ((True, "waits"), (False, "done")):
        expected = [name for name in whole if name.startswith(begin)]
        assert await ids(calls, unfinished=unfinished) == expected
        assert await ids(calls, unfinished=unfinished, limit=2) == expected[:2]
        (last,) = await calls.threads(unfinished=unfinished, limit=1)
        assert await ids(calls, unfinished=unfinished, before=last) == expected[1:]
    assert await ids(calls, "done", unfinished=True) == []


async def test_checkpoints_without_a_root_and_of_another_make_are_listed(calls: Calls) -> None:
    await calls.put(config("t", "sub:1"), checkpoint("1"), {}, {})
    await calls.put(config("u"), checkpoint("1", v=1), {"step": "three"}, {})  # type: ignore[typeddict-unknown-key]
    assert ((await one(calls, "t")).namespaces, (await one(calls, "t")).step) == (["sub:1"], None)
    assert ((await one(calls, "u")).step, (await one(calls, "u")).next) == (None, [])


# --- sizes


async def test_sizes_are_those_of_a_recount(calls: Calls) -> None:
    thread = Thread(calls)
    for length in (1, 3, 40, 60, 80):
        stored = await thread.put({"d": WORDS[:length], "e": [1, 2]})
        await calls.put_writes(stored, [("d", WORDS[length:][:3]), ("e", None)], "task")
    await Runs(with_subgraphs(calls.saver), calls.mode).invoke({}, on("u"))
    await put(calls, "v")
    await calls.put_writes(config("v", "", "9"), [("d", WORDS[:9])], "task")
    for found in await calls.threads(sizes=True):
        counted = await asyncio.to_thread(recount, calls.saver, found.thread_id)
        assert found.bytes == counted.bytes
        assert found.unshared_bytes == counted.unshared
        assert found.checkpoints == counted.checkpoints
    shared = await one(calls, sizes=True)
    assert shared.bytes is not None
    assert shared.unshared_bytes is not None
    assert shared.unshared_bytes > 1.5 * shared.bytes > 0
    for how in ({}, {"limit": 1, "before": shared}, {"prefix": "t"}):
        assert all(found.bytes for found in await calls.threads(sizes=True, **how))  # type: ignore[arg-type]


# --- what it costs


def test_a_page_asks_as_much_in_a_large_store_as_in_a_small_one(
    saver: holdfast.Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    tap = Tap(saver, monkeypatch)
    for number in range(3):
        saver.put(config(f"a {number}"), checkpoint(1, {"d": WORDS[:30]}), {}, {})
    assert tap.count(lambda: saver.threads(limit=3)) == ["Threads"]
    for number in range(120):
        saver.put(config(f"b {number}"), checkpoint(1, {"d": WORDS[:2]}), {}, {})
    last = saver.threads(limit=3)
    assert tap.count(lambda: saver.threads(limit=3)) == ["Threads"]
    assert tap.count(lambda: saver.threads(limit=3, before=last[-1])) == ["Threads"]
    assert tap.count(lambda: saver.threads("a ")) == ["Threads"]
    assert tap.count(saver.threads) == ["Threads"] * 2
    assert tap.count(lambda: saver.threads(unfinished=True)) == ["Threads"] * 2
    assert tap.count(lambda: saver.threads(unfinished=False, limit=5)) == ["Threads"]


async def test_a_listing_while_threads_are_written_shows_each_that_is_left_alone(
    backend: Backend, mode: str, tmp_path: Path
) -> None:
    async with opened(backend, tmp_path, mode) as calls:
        await put(calls, *(f"still {number}" for number in range(30)))
        await put(calls, *(f"moves {number}" for number in range(30)))
        seen: list[str] = []
        last: Any = None
        number = 0
        while page := await calls.threads(before=last, limit=7):
            seen += [found.thread_id for found in page]
            last = page[-1]
            await put(calls, f"moves {number}", f"new {number}")
            await calls.delete_thread(f"moves {29 - number}")
            number += 1
        assert sorted(name for name in seen if name.startswith("still")) == sorted(
            f"still {number}" for number in range(30)
        )
        assert len(seen) == len(set(seen))
