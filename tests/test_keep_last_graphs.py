"""Real graphs under `keep_last`: what a run needs to go on is kept, and a long life stays small."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import holdfast
import pytest
from holdfast.backends import base
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Command
from support.backends import BACKENDS, Backend, opened
from support.calls import Calls
from support.faults import SOAK
from support.graphs import Runs, asking, delta, fan_out, on, with_subgraphs
from support.make import Thread, config, id_of
from support.recount import Counted, recount
from support.requests import Tap
from test_graph import nested


@pytest.fixture(params=["sync", "async", "exit"])
def durability(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


# --- interrupts


@pytest.mark.usefixtures("interrupts")
async def test_a_run_that_waits_goes_on_with_its_writes(
    backend: Backend, mode: str, tmp_path: Path, durability: str
) -> None:
    """The first answer is a pending write of the only checkpoint."""
    async with opened(backend, tmp_path, mode, keep_last=1) as calls:
        runs = Runs(asking(calls.saver), mode)
        for thread in ("t", "u"):
            await runs.invoke({"words": []}, on(thread), durability=durability)
            await runs.invoke(Command(resume="one"), on(thread), durability=durability)
            assert len(await calls.ids(config(thread, None))) == 1
            assert (await runs.state(on(thread))).next == ("ask",)
            done = await runs.invoke(Command(resume="two"), on(thread), durability=durability)
            assert done["words"] == ["draft 0", "one", "two", "published"]
            assert len(await calls.ids(config(thread, None))) == 1


@pytest.mark.usefixtures("interrupts")
async def test_another_saver_goes_on_with_it(
    backend: Backend, mode: str, tmp_path: Path, durability: str
) -> None:
    if backend.one_saver:
        pytest.skip(backend.one_saver)
    async with AsyncExitStack() as stack:
        runs = []
        for _ in range(3):
            calls = await stack.enter_async_context(opened(backend, tmp_path, mode, keep_last=1))
            runs.append(Runs(asking(calls.saver), mode))
        await runs[0].invoke({"words": []}, on("t"), durability=durability)
        await runs[1].invoke(Command(resume="one"), on("t"), durability=durability)
        done = await runs[2].invoke(Command(resume="two"), on("t"), durability=durability)
        assert done["words"] == ["draft 0", "one", "two", "published"]


@pytest.mark.usefixtures("interrupts")
async def test_a_run_that_waits_in_a_subgraph_goes_on(
    backend: Backend, mode: str, tmp_path: Path, durability: str
) -> None:
    async with opened(backend, tmp_path, mode, keep_last=1) as calls:
        runs = Runs(nested(calls.saver), mode)
        oracle = Runs(nested(InMemorySaver()), mode)
        for turn in range(3):
            for each in (runs, oracle):
                await each.invoke({"steps": [f"in {turn}"]}, on("t"), durability=durability)
            inner = await runs.state(on("t"), subgraphs=True)
            expected = await oracle.state(on("t"), subgraphs=True)
            for _ in range(2):
                inner, expected = inner.tasks[0].state, expected.tasks[0].state  # type: ignore[assignment]
                assert (inner.values, inner.next) == (expected.values, expected.next)
            answers = [
                (await each.invoke(Command(resume="42"), on("t"), durability=durability))["steps"]
                for each in (runs, oracle)
            ]
            assert answers[0] == answers[1]
            counted = await asyncio.to_thread(recount, calls.saver)
            assert counted.namespaces <= 3, "those of one turn"


# --- time travel


async def test_what_is_kept_can_be_travelled_to(
    backend: Backend, mode: str, tmp_path: Path
) -> None:
    async with opened(backend, tmp_path, mode, keep_last=4) as calls:
        runs = Runs(fan_out(calls.saver), mode)
        oracle = Runs(fan_out(InMemorySaver()), mode)
        for each in (runs, oracle):
            for turn in range(3):
                await each.invoke({"other": [turn]}, on("t"))
        kept = await runs.history(on("t"))
        expected = (await oracle.history(on("t")))[:4]
        assert [(one.values, one.next) for one in kept] == [
            (one.values, one.next) for one in expected
        ]
        assert [one.parent_config is None for one in kept] == [False, False, False, True]
        past = [next(one for one in told if one.next == ("end",)) for told in (kept, expected)]
        done = [
            await each.invoke(None, one.config)
            for each, one in zip((runs, oracle), past, strict=True)
        ]
        assert done[0] == done[1]
        assert (await runs.state(on("t"))).values == (await oracle.state(on("t"))).values
        assert len(await calls.ids(config())) == 4


# --- delta channels

WALKS = st.lists(
    st.one_of(
        st.just(("invoke",)),
        st.tuples(st.just("update"), st.sampled_from(["begin", "end"])),
        st.tuples(st.just("fork"), st.integers(0, 2)),
        st.just(("again",)),
    ),
    min_size=1,
    max_size=8,
)


async def walk(runs: Runs, steps: Any, count: int) -> list[Any]:
    """What the last checkpoints hold after each step."""
    seen = []
    for number, (step, *how) in enumerate(steps):
        history = await runs.history(on("t"), limit=count)
        if step == "update" and history:
            await runs.update(on("t"), {"items": [f"update {number}"]}, as_node=how[0])
        elif step == "fork" and history:
            past = history[how[0] % len(history)]
            await runs.update(past.config, {"items": [f"fork {number}"]}, as_node="end")
        elif step == "again" and history:
            await runs.invoke(None, on("t"))
        else:
            await runs.invoke({"items": [f"input {number}"]}, on("t"))
        history = await runs.history(on("t"), limit=count)
        seen.append([(one.values, one.next) for one in history])
    return seen


@settings(max_examples=settings.default.max_examples // 3)  # type: ignore[union-attr]
@given(steps=WALKS, frequency=st.sampled_from([1, 2, 5, 1000]), count=st.integers(1, 4))
async def test_any_walk_leaves_the_states_that_it_leaves_where_all_is_kept(
    backend: Backend,
    mode: str,
    tmp_path_factory: pytest.TempPathFactory,
    steps: Any,
    frequency: int,
    count: int,
) -> None:
    oracle = Runs(fan_out(InMemorySaver(), delta(frequency)), mode)
    expected = await walk(oracle, steps, count)
    folder = tmp_path_factory.mktemp("walk")
    async with opened(backend, folder, mode, keep_last=count) as calls:
        assert (
            await walk(Runs(fan_out(calls.saver, delta(frequency)), mode), steps, count) == expected
        )


async def test_what_no_delta_channel_needs_goes(
    backend: Backend, mode: str, tmp_path: Path, durability: str
) -> None:
    async with opened(backend, tmp_path, mode, keep_last=1) as calls:
        runs = Runs(fan_out(calls.saver, delta(3)), mode)
        oracle = Runs(fan_out(InMemorySaver(), delta(3)), mode)
        for turn in range(10):
            for each in (runs, oracle):
                await each.invoke({"items": [turn]}, on("t"), durability=durability)
            assert len(await calls.ids(config())) <= 6
            states = [(await each.state(on("t"))).values for each in (runs, oracle)]
            assert states[0] == states[1]


@pytest.mark.parametrize("removal", ["prune", "sweep"])
def test_a_child_that_comes_while_the_history_is_read_keeps_what_its_delta_channel_needs(
    saver: holdfast.Saver, monkeypatch: pytest.MonkeyPatch, removal: str
) -> None:
    """The removal that was planned without it does not take place."""
    thread = Thread(Calls(saver, "sync"))
    metadata = {"counters_since_delta_snapshot": {"d": 1}}

    async def grow() -> Any:
        """A chain whose first and last checkpoint hold the channel, and one between them."""
        for step in range(1, 7):
            values = {"d": _DeltaSnapshot([step])} if step in (1, 6) else {}
            stored = await thread.put(values, drop=() if values else ("d",), metadata=metadata)
            await thread.calls.put_writes(stored, [("d", f"w{step}")], "task")
            if step == 4:
                between = stored
        return between

    between = asyncio.run(grow())
    tap = Tap(saver, monkeypatch)
    children: list[Any] = []

    def put(request: Any) -> None:
        if isinstance(request, base.Remove) and not children:
            children.append(None)
            children[0] = asyncio.run(thread.put(drop=("d",), parent=between, metadata=metadata))

    tap.before = put
    if removal == "prune":
        saver.prune(["t"])
    else:
        saver.sweep(keep_last=1)
    history = saver.get_delta_channel_history(config=children[0], channels=["d"])
    assert history["d"]["seed"] == _DeltaSnapshot([1])
    assert [value for _, _, value in history["d"]["writes"]] == ["w1", "w2", "w3", "w4"]
    assert len([*saver.list(config())]) == 5


# --- subgraphs


async def test_a_subgraphs_calls_go_with_what_they_were_called_from(
    backend: Backend, mode: str, tmp_path: Path, durability: str
) -> None:
    """Those that remember stay, and remember."""
    async with opened(backend, tmp_path, mode, keep_last=1) as calls:
        runs = Runs(with_subgraphs(calls.saver), mode)
        for turn in range(1, 51):
            done = await runs.invoke({}, on("t"), durability=durability)
            assert (done["turn"], done["ran"]) == (turn, turn)
            listed = await calls.list(config("t", None))
            calls_of = {one.config["configurable"]["checkpoint_ns"] for one in listed}
            assert {"", "remembers"} <= calls_of
            assert len(calls_of) <= 3
        roots = {
            id_of(one.config) for one in listed if not one.config["configurable"]["checkpoint_ns"]
        }
        assert len(roots) == 1


@pytest.mark.parametrize("count", [3, 7, 12])
async def test_a_run_from_what_is_kept_finds_what_a_subgraph_remembered(
    backend: Backend, mode: str, tmp_path: Path, count: int
) -> None:
    """Not so from the oldest: the first checkpoint of such a run takes its place."""
    async with opened(backend, tmp_path, mode, keep_last=count) as calls:
        oracle = Runs(with_subgraphs(InMemorySaver()), mode)
        runs = Runs(with_subgraphs(calls.saver), mode)
        for past in range(count - 1):
            told, done = [], []
            for each in (runs, oracle):
                for _ in range(4):
                    await each.invoke({}, on(f"{past}"))
                history = await each.history(on(f"{past}"), limit=count)
                told.append([(one.values, one.next) for one in history])
                if history[past].next != ("__start__",):
                    done.append(await each.invoke(None, history[past].config))
            assert told[0] == told[1]
            assert done[:1] == done[1:], f"from the checkpoint {past} before the last"


TURNS = {"memory": 1000, "sqlite": 1000, "redis": 200, "postgres": 200}
"""On the servers a thousand are many minutes."""


@pytest.mark.timeout(1800 if SOAK else 600)
@pytest.mark.parametrize("name", TURNS)
def test_a_thousand_turns_leave_no_more_than_ten(name: str, tmp_path: Path) -> None:
    turns = 1000 if SOAK else TURNS[name]
    most = Counted()
    with BACKENDS[name].open(tmp_path, keep_last=3, **QUICK.get(name, {})) as saver:
        graph = with_subgraphs(saver)
        for turn in range(1, turns + 1):
            done = graph.invoke({}, on("t"))
            if turn % 20 == 0:
                counted = recount(saver)
                names = counted.__dataclass_fields__
                most = Counted(*(max(getattr(most, n), getattr(counted, n)) for n in names))
        print(f"{turns} turns on {name}: at most {most}")
        assert (done["turn"], done["ran"]) == (turns, turns)
        assert most.checkpoints <= 3 * 3 + 3
        assert most.namespaces <= 4
        assert most.writes <= 40
        assert most.chunks <= 200
        assert most.bytes <= 64 << 10
        (listed,) = saver.threads()
        assert listed.checkpoints == recount(saver).checkpoints


QUICK: dict[str, Any] = {"sqlite": {"synchronous": "normal"}}
"""This test looks at what is left, not at whether a power cut spares it."""
