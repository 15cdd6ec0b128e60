"""Deleted stays deleted: what a run that is under way writes late does not bring a thread back."""

from __future__ import annotations

import asyncio
import operator
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from holdfast import ThreadDeleted
from langgraph.graph import END, START, StateGraph
from support.backends import Backend, opened
from support.calls import Calls
from support.graphs import Runs, on
from support.make import Thread, checkpoint, config
from support.recount import recount
from typing_extensions import TypedDict

DURABILITIES = ["sync", "async", "exit"]
Delete = Callable[[Calls], Awaitable[None]]
DELETIONS: dict[str, Delete] = {
    "delete_thread": lambda calls: calls.delete_thread("t"),
    "prune": lambda calls: calls.prune(["t"], strategy="delete"),
}


@pytest.fixture(params=DURABILITIES)
def durability(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture(params=DELETIONS)
def delete(request: pytest.FixtureRequest) -> Delete:
    return DELETIONS[request.param]


class Gate:
    """Holds the nodes that come by, while it is closed, until it is opened."""

    def __init__(self) -> None:
        self.is_closed = True
        self.inside = False
        self.reached = threading.Event()
        self.opened = threading.Event()

    def pass_(self) -> None:
        if self.is_closed:
            self.reached.set()
            assert self.opened.wait(60)

    async def apass(self) -> None:
        if self.is_closed:
            self.reached.set()
            assert await asyncio.to_thread(self.opened.wait, 60)

    async def until_reached(self, calls: Calls, durability: str) -> None:
        """Until a run waits at the gate, and has stored what it does beside."""
        assert await asyncio.to_thread(self.reached.wait, 60)
        self.is_closed = False
        places = ["", "wait:"] if self.inside else [""]
        while durability != "exit":
            is_stored = all([await self._is_stored(calls, place) for place in places])
            # What was made in the millisecond of a deletion may be of a run that begins then.
            await asyncio.sleep(0.005)
            if is_stored:
                return

    async def _is_stored(self, calls: Calls, place: str) -> bool:
        """Whether the checkpoint is there from which the waiting node was begun."""
        heads: dict[str, Any] = {}
        for one in reversed(await calls.list(config("t", None))):
            heads[one.config["configurable"]["checkpoint_ns"]] = one.checkpoint
        of = [head for ns, head in heads.items() if ns.partition(":")[0] == place.rstrip(":")]
        return any("branch:to:wait" in head["channel_values"] for head in of)


class State(TypedDict):
    items: Annotated[list[str], operator.add]


def blocking(checkpointer: Any, gate: Gate, mode: str, inside: bool = False) -> Any:
    """A graph whose second node waits at the gate; `inside`: in a subgraph."""

    def step(name: str) -> Any:
        return lambda state: {"items": [f"{name} after {len(state['items'])}"]}

    def wait(state: State) -> dict[str, Any]:
        gate.pass_()
        return {"items": ["waited"]}

    async def await_(state: State) -> dict[str, Any]:
        await gate.apass()
        return {"items": ["waited"]}

    waiting: Any = wait if mode == "sync" else await_
    gate.inside = inside
    if inside:
        inner = StateGraph(State).add_node("first", step("inner first")).add_node("wait", waiting)
        inner.add_node("last", step("inner last"))
        inner.add_edge(START, "first").add_edge("first", "wait").add_edge("wait", "last")
        waiting = inner.compile()
    builder = StateGraph(State).add_node("begin", step("begin")).add_node("wait", waiting)
    builder.add_node("end", step("end"))
    builder.add_edge(START, "begin").add_edge("begin", "wait").add_edge("wait", "end")
    builder.add_edge("end", END)
    return builder.compile(checkpointer=checkpointer)


async def nothing_is_back(*savers: Calls, writes: int = 0) -> None:
    """Writes to a checkpoint that was made since may lie around: it could be on its way."""
    for calls in savers:
        assert await calls.get_tuple(config()) is None
        assert await calls.list(config("t", None)) == []
        assert await calls.list(None) == []
        assert await calls.threads() == []
        counted = await asyncio.to_thread(recount, calls.saver)
        assert (counted.checkpoints, counted.writes) <= (0, writes)


# --- real runs


@pytest.mark.parametrize("inside", [False, True], ids=["root", "subgraph"])
@pytest.mark.parametrize("before", [0, 1], ids=["first run", "second run"])
async def test_a_run_whose_thread_is_deleted_ends_and_nothing_is_back(
    calls: Calls, durability: str, delete: Delete, inside: bool, before: int
) -> None:
    gate = Gate()
    runs = Runs(blocking(calls.saver, gate, calls.mode, inside), calls.mode)
    gate.is_closed = False
    for _ in range(before):
        await runs.invoke({"items": ["in"]}, on("t"), durability=durability)
    gate.is_closed = True
    run = asyncio.create_task(runs.invoke({"items": ["in"]}, on("t"), durability=durability))
    await gate.until_reached(calls, durability)
    await delete(calls)
    await nothing_is_back(calls)
    gate.opened.set()
    if durability == "exit" and not before:
        # It had stored nothing: to the store this is a run that begins after the deletion.
        await run
        assert (await runs.state(on("t"))).values["items"][0] == "in"
        return
    with pytest.raises(ThreadDeleted, match="'t' was deleted"):
        await run
    await nothing_is_back(calls, writes=int(durability == "async"))
    done = await runs.invoke({"items": ["anew"]}, on("t"), durability=durability)
    assert done["items"][:2] == ["anew", "begin after 1"]
    assert (await runs.state(on("t"))).values == done


@pytest.mark.parametrize("inside", [False, True], ids=["root", "subgraph"])
async def test_a_thread_begins_anew_while_the_old_run_is_under_way(
    calls: Calls, durability: str, delete: Delete, inside: bool
) -> None:
    """The old run's late writes are still refused, and spoil nothing."""
    gate = Gate()
    runs = Runs(blocking(calls.saver, gate, calls.mode, inside), calls.mode)
    gate.is_closed = False
    await runs.invoke({"items": ["before"]}, on("t"), durability=durability)
    gate.is_closed = True
    old = asyncio.create_task(runs.invoke({"items": ["old"]}, on("t"), durability=durability))
    await gate.until_reached(calls, durability)
    await delete(calls)
    # What is made in the millisecond of the deletion may be taken for older.
    await asyncio.sleep(0.002)
    done = await runs.invoke({"items": ["anew"]}, on("t"), durability=durability)
    told = [(one.values, one.next) for one in await runs.history(on("t"))]
    gate.opened.set()
    with pytest.raises(ThreadDeleted):
        await old
    assert (await runs.state(on("t"))).values == done
    assert done["items"][0] == "anew"
    assert [(one.values, one.next) for one in await runs.history(on("t"))] == told
    again = await runs.invoke({"items": ["more"]}, on("t"), durability=durability)
    assert again["items"][: len(done["items"])] == done["items"]


async def test_another_saver_deletes_the_thread_of_a_run(
    pair: tuple[Calls, Calls], durability: str, delete: Delete
) -> None:
    one, other = pair
    gate = Gate()
    runs = Runs(blocking(one.saver, gate, one.mode), one.mode)
    gate.is_closed = False
    await runs.invoke({"items": ["before"]}, on("t"), durability=durability)
    gate.is_closed = True
    run = asyncio.create_task(runs.invoke({"items": ["in"]}, on("t"), durability=durability))
    await gate.until_reached(one, durability)
    await delete(other)
    gate.opened.set()
    with pytest.raises(ThreadDeleted):
        await run
    await nothing_is_back(one, other, writes=int(durability == "async"))
    for calls in pair:
        again = Runs(blocking(calls.saver, gate, calls.mode), calls.mode)
        done = await again.invoke({"items": ["anew"]}, on("t"), durability=durability)
        assert done["items"].count("anew") == (1 if calls is one else 2)


async def test_a_run_with_keep_last_whose_thread_is_deleted(
    backend: Backend, mode: str, tmp_path: Path, durability: str
) -> None:
    async with opened(backend, tmp_path, mode, keep_last=1) as calls:
        gate = Gate()
        runs = Runs(blocking(calls.saver, gate, mode, True), mode)
        gate.is_closed = False
        await runs.invoke({"items": ["before"]}, on("t"), durability=durability)
        gate.is_closed = True
        run = asyncio.create_task(runs.invoke({"items": ["in"]}, on("t"), durability=durability))
        await gate.until_reached(calls, durability)
        await calls.delete_thread("t")
        gate.opened.set()
        with pytest.raises(ThreadDeleted):
            await run
        await nothing_is_back(calls, writes=int(durability == "async"))


# --- single calls


async def test_late_writes_are_refused_and_early_ones_are_not(calls: Calls) -> None:
    thread = Thread(calls)
    for _ in range(2):
        await thread.put({"d": 1})
    old = thread.head
    assert old is not None
    await calls.delete_thread("t")
    late: list[Any] = [
        lambda: calls.put(old, checkpoint(3), {}, {}),
        lambda: calls.put_writes(old, [("d", 1)], "task"),
        lambda: calls.put(
            config("t", "sub:1"), checkpoint(3), {"parents": {"": checkpoint(2)["id"]}}, {}
        ),  # type: ignore[typeddict-unknown-key]
    ]
    for write in late:
        with pytest.raises(ThreadDeleted, match="without a checkpoint_id"):
            await write()
    await nothing_is_back(calls)
    new = await calls.put(config(), checkpoint(9), {}, {})
    for write in late:
        with pytest.raises(ThreadDeleted):
            await write()
    await calls.put_writes(new, [("d", 1)], "task")
    await calls.put(new, checkpoint("1fffffff-0000-6000-8000-000000000001"), {}, {})
    assert len(await calls.ids(config("t", None))) == 2


async def test_deleting_a_thread_that_is_not_there_refuses_late_writes_too(calls: Calls) -> None:
    """A run whose first checkpoint is on its way."""
    await calls.delete_thread("t")
    with pytest.raises(ThreadDeleted):
        await calls.put(config("t", "", checkpoint(1)["id"]), checkpoint(2), {}, {})
    await calls.put(config(), checkpoint(3), {}, {})
    await calls.delete_thread("t")
    await nothing_is_back(calls)


async def test_other_threads_and_a_pruned_one_are_not_deleted(calls: Calls) -> None:
    threads = [Thread(calls, name) for name in ("t", "u", "pruned")]
    for thread in threads:
        await thread.put({"d": 1})
        await thread.put({"d": 2})
    await calls.delete_thread("t")
    await calls.prune(["pruned"])
    for thread in threads[1:]:
        await thread.put({"d": 3})
        assert thread.head is not None
        await calls.put_writes(thread.head, [("d", 1)], "task")


async def test_a_copy_to_a_deleted_thread_is_no_late_write(calls: Calls) -> None:
    thread = Thread(calls, "u")
    await thread.put({"d": 1})
    await Thread(calls).put({"d": 1})
    await calls.delete_thread("t")
    await calls.copy_thread("u", "t")
    (found,) = await calls.list(config())
    await calls.put(found.config, checkpoint(2), {}, {})
    assert len(await calls.ids(config())) == 2


async def test_delete_for_runs_that_leaves_nothing_is_no_deletion_of_the_thread(
    calls: Calls,
) -> None:
    stored = await Thread(calls).put({"d": 1}, metadata={"run_id": "r"})
    await calls.delete_for_runs(["r"])
    assert await calls.threads() == []
    await calls.put(stored, checkpoint(2), {}, {})
    assert len(await calls.ids(config())) == 1
