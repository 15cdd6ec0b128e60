"""DeltaChannel: the history that rebuilds it, and that no removal breaks it."""

from __future__ import annotations

from typing import Any

import holdfast
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from support.backends import Backend, opened
from support.calls import Calls
from support.graphs import Runs, delta, fan_out, on
from support.make import Thread, checkpoint, config, id_of

# --- the history of a chain


async def test_no_channels_have_no_history(calls: Calls) -> None:
    assert await calls.history(config("nobody"), []) == {}
    await Thread(calls).put()
    assert await calls.history(config(), []) == {}


async def test_a_thread_that_is_not_there_has_no_writes(calls: Calls) -> None:
    assert await calls.history(config("nobody"), ["d"]) == {"d": {"writes": []}}


async def test_a_root_has_neither_writes_nor_seed(calls: Calls) -> None:
    root = await Thread(calls).put({"d": _DeltaSnapshot([1])})
    await calls.put_writes(root, [("d", 1)], "task")
    assert await calls.history(root, ["d", "e"]) == {"d": {"writes": []}, "e": {"writes": []}}


async def chain(calls: Calls, seeds: dict[int, Any], steps: int = 4) -> Thread:
    """A chain whose every step has a write `w<step>` and, at some, a stored value."""
    thread = Thread(calls)
    for step in range(steps):
        values = {"d": seeds[step]} if step in seeds else {}
        await thread.put(values, drop=() if values else ("d",))
        assert thread.head is not None
        await calls.put_writes(thread.head, [("other", 0), ("d", f"w{step}")], f"task{step}")
    return thread


def written(history: Any, channel: str = "d") -> list[Any]:
    return [value for _, _, value in history[channel]["writes"]]


@pytest.mark.parametrize(
    "seed",
    [_DeltaSnapshot([10, 20]), [10, 20], 42, "x", 3.5, True, None, _DeltaSnapshot(True), []],
    ids=repr,
)
async def test_the_walk_ends_with_the_nearest_stored_value(calls: Calls, seed: Any) -> None:
    thread = await chain(calls, {0: "older", 1: seed})
    history = await calls.history(config(), ["d"])
    assert history["d"]["seed"] == seed
    assert type(history["d"]["seed"]) is type(seed)
    assert written(history) == ["w1", "w2"], "the seed's own writes count, the target's do not"
    assert thread.head is not None
    assert await calls.history(thread.head, ["d"]) == history


async def test_without_a_stored_value_the_walk_ends_at_the_root(calls: Calls) -> None:
    await chain(calls, {})
    history = await calls.history(config(), ["d"])
    assert "seed" not in history["d"]
    assert history["d"]["writes"] == [(f"task{i}", "d", f"w{i}") for i in range(3)]


async def test_each_channel_ends_at_its_own_seed(calls: Calls) -> None:
    thread = Thread(calls)
    for step, stored in enumerate([{"d": 1}, {"e": 2}, {}, {}]):
        await thread.put(stored, drop=tuple({"d", "e", "f"} - set(stored)))
        assert thread.head is not None
        writes = [(channel, f"{channel}{step}") for channel in "def"]
        await calls.put_writes(thread.head, writes, "task")
    history = await calls.history(config(), ["d", "e", "f", "unknown"])
    assert (history["d"]["seed"], written(history, "d")) == (1, ["d0", "d1", "d2"])
    assert (history["e"]["seed"], written(history, "e")) == (2, ["e1", "e2"])
    assert written(history, "f") == ["f0", "f1", "f2"]
    assert "seed" not in history["f"]
    assert history["unknown"] == {"writes": []}


@pytest.mark.parametrize("falsy", ["", None])
async def test_a_falsy_id_reads_from_the_head(calls: Calls, falsy: str | None) -> None:
    await chain(calls, {1: "seed"})
    where = config()
    where["configurable"]["checkpoint_id"] = falsy
    assert (await calls.history(where, ["d"]))["d"]["seed"] == "seed"


async def test_an_unknown_target_has_no_history(calls: Calls) -> None:
    await chain(calls, {1: "seed"})
    history = await calls.history(config("t", "", "unknown"), ["d"])
    assert history == {"d": {"writes": []}}


@pytest.mark.parametrize("ids", [["z-older", "m", "a-newer"], ["a-older", "m", "z-newer"]])
async def test_the_walk_follows_parents_whatever_the_order_of_ids(
    calls: Calls, ids: list[str]
) -> None:
    thread = Thread(calls)
    await thread.put({"d": "seed"}, id=ids[0])
    assert thread.head is not None
    await calls.put_writes(thread.head, [("d", "w")], "task")
    for id in ids[1:]:
        await thread.put(drop=("d",), id=id)
    history = await calls.history(thread.head, ["d"])
    assert history == {"d": {"writes": [("task", "d", "w")], "seed": "seed"}}


async def test_a_circle_of_parents_ends_the_walk(calls: Calls) -> None:
    first = await calls.put(config(), checkpoint("a"), {}, {})
    second = await calls.put(first, checkpoint("b"), {}, {})
    await calls.put(second, checkpoint("a"), {}, {})
    await calls.put_writes(first, [("d", 1)], "task")
    for where in (first, second):
        history = await calls.history(where, ["d"])
        assert "seed" not in history["d"]


async def test_forks_have_their_own_history(calls: Calls) -> None:
    thread = Thread(calls)
    root = await thread.put({"d": "seed"})
    sides = {}
    for side in ("left", "right"):
        parent = root
        for step in range(3):
            parent = await thread.put(drop=("d",), parent=parent)
            await calls.put_writes(parent, [("d", f"{side}{step}")], "task")
        sides[side] = parent
    for side, head in sides.items():
        assert written(await calls.history(head, ["d"])) == [f"{side}0", f"{side}1"]


async def test_writes_replay_in_the_order_of_their_paths(calls: Calls) -> None:
    thread = Thread(calls)
    first = await thread.put(drop=("d",))
    for task, path in [("a", "~2"), ("c", ""), ("b", "~10"), ("ffffffff-0", "~~3"), ("z", "")]:
        await calls.put_writes(first, [("d", f"{task}0"), ("d", f"{task}1")], task, path)
    await thread.put(drop=("d",))
    order = ["c", "z", "b", "a", "ffffffff-0"]
    assert written(await calls.history(config(), ["d"])) == [f"{t}{i}" for t in order for i in "01"]


def test_the_history_of_a_long_chain_takes_few_round_trips(
    saver: holdfast.Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = config()
    for number in range(400):
        made = checkpoint(number, {}, {"d": f"v{number}"})
        parent = saver.put(parent, made, {}, made["channel_versions"])
        saver.put_writes(parent, [("d", number)], "task")
    backend = saver._live.backend
    execute, requests = backend.execute, []

    def counted(request: Any) -> Any:
        requests.append(request)
        return execute(request)

    monkeypatch.setattr(backend, "execute", counted)
    history = saver.get_delta_channel_history(config=parent, channels=["d"])
    assert written(history) == list(range(399))
    assert 1 <= len(requests) <= 12


NODES = st.lists(
    st.fixed_dictionaries(
        {
            "parent": st.integers(0, 10_000),
            "d": st.sampled_from(["none", "bump", "bump", "plain", "snapshot"]),
            "e": st.sampled_from(["none", "bump", "plain"]),
            "writes": st.lists(
                st.tuples(
                    st.sampled_from("de"), st.sampled_from("xyz"), st.sampled_from(["", "~1", "~2"])
                ),
                max_size=4,
            ),
        }
    ),
    min_size=1,
    max_size=14,
)


@given(nodes=NODES, ids=st.randoms(use_true_random=False))
async def test_any_tree_has_the_history_that_the_base_classs_walk_finds(
    backend: Backend, mode: str, tmp_path_factory: pytest.TempPathFactory, nodes: Any, ids: Any
) -> None:
    async with opened(backend, tmp_path_factory.mktemp("tree"), mode) as calls:
        thread = Thread(calls)
        stored: list[Any] = []
        order = [f"id-{number:03d}" for number in range(len(nodes))]
        ids.shuffle(order)
        for number, node in enumerate(nodes):
            values: dict[str, Any] = {}
            for channel in "de":
                if node[channel] == "plain":
                    values[channel] = [number]
                elif node[channel] == "snapshot":
                    values[channel] = _DeltaSnapshot([number])
            parent = stored[node["parent"] % len(stored)] if stored else None
            bumped = tuple(channel for channel in "de" if node[channel] == "bump")
            stored.append(await thread.put(values, drop=bumped, parent=parent, id=order[number]))
            for place, (channel, task, path) in enumerate(node["writes"]):
                await calls.put_writes(stored[-1], [(channel, [number, place])], task, path)
        for where in [*stored, config()]:
            for channels in (["d"], ["d", "e", "unknown"]):
                assert await calls.history(where, channels) == await calls.walked(where, channels)


# --- graphs


async def turns(runs: Runs, thread: str, count: int, **how: Any) -> None:
    for turn in range(count):
        await runs.invoke({"items": [f"input {turn}"]}, on(thread, run_id=f"run {turn}"), **how)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("frequency", [1, 3, 1000])
async def test_a_delta_channel_holds_what_a_plain_one_would(
    calls: Calls, durability: str, frequency: int
) -> None:
    plain = Runs(fan_out(InMemorySaver()), calls.mode)
    oracle = Runs(fan_out(InMemorySaver(), delta(frequency)), calls.mode)
    runs = Runs(fan_out(calls.saver, delta(frequency)), calls.mode)
    for each in (plain, oracle, runs):
        await turns(each, "t", 4, durability=durability)
    expected = (await plain.state(on("t"))).values
    assert (await runs.state(on("t"))).values == expected
    history = [one.values for one in await runs.history(on("t"))]
    assert history == [one.values for one in await oracle.history(on("t"))]


@pytest.mark.parametrize("frequency", [1, 3, 1000])
async def test_pruning_keeps_delta_channels(calls: Calls, frequency: int) -> None:
    runs = Runs(fan_out(calls.saver, delta(frequency)), calls.mode)
    plain = Runs(fan_out(InMemorySaver()), calls.mode)
    for round in range(3):
        for each in (runs, plain):
            await turns(each, "t", 3)
        before = await runs.state(on("t"))
        await calls.prune(["t"])
        after = await runs.state(on("t"))
        assert after.values == before.values
        assert after.values == (await plain.state(on("t"))).values, f"round {round}"


async def test_pruning_drops_what_no_delta_channel_needs(calls: Calls) -> None:
    runs = Runs(fan_out(calls.saver, delta(2)), calls.mode)
    await turns(runs, "t", 10)
    before = await calls.ids(config())
    await calls.prune(["t"])
    after = await calls.ids(config())
    assert len(after) < len(before) / 4
    assert after == before[: len(after)]


@pytest.mark.parametrize("gone", [["run 0"], ["run 2"], ["run 0", "run 1", "run 3"]], ids=str)
@pytest.mark.parametrize("frequency", [3, 1000])
async def test_deleting_runs_keeps_delta_channels(
    calls: Calls, gone: list[str], frequency: int
) -> None:
    runs = Runs(fan_out(calls.saver, delta(frequency)), calls.mode)
    await turns(runs, "t", 5)
    before = {
        id_of(one.config): one.values
        for one in await runs.history(on("t"))
        if one.metadata and one.metadata.get("run_id") not in gone
    }
    assert before
    await calls.delete_for_runs(gone)
    after = {id_of(one.config): one.values for one in await runs.history(on("t"))}
    assert {id: after.get(id) for id in before} == before
    await turns(runs, "t", 1)
    head = (await runs.state(on("t"))).values
    newest = before[max(before)]
    assert head["items"][: len(newest["items"])] == newest["items"]


async def test_copies_keep_delta_channels(calls: Calls) -> None:
    runs = Runs(fan_out(calls.saver, delta()), calls.mode)
    await turns(runs, "t", 3)
    before = [one.values for one in await runs.history(on("t"))]
    await calls.copy_thread("t", "copy")
    await calls.delete_thread("t")
    assert [one.values for one in await runs.history(on("copy"))] == before


async def test_a_plain_channel_that_becomes_a_delta_channel_keeps_its_past(calls: Calls) -> None:
    plain = Runs(fan_out(calls.saver), calls.mode)
    await turns(plain, "t", 3)
    before = {id_of(one.config): one.values for one in await plain.history(on("t"))}
    runs = Runs(fan_out(calls.saver, delta()), calls.mode)
    for id, values in before.items():
        where = {"configurable": {"thread_id": "t", "checkpoint_id": id}}
        assert (await runs.state(where)).values == values  # type: ignore[arg-type]
    head = (await plain.state(on("t"))).values
    await turns(runs, "t", 2)
    await calls.prune(["t"])
    after = (await runs.state(on("t"))).values
    assert after["items"][: len(head["items"])] == head["items"]
    assert after["items"][-1].startswith("end 5")


async def test_a_fork_of_a_delta_channel_leaves_its_origin_alone(calls: Calls) -> None:
    runs = Runs(fan_out(calls.saver, delta()), calls.mode)
    await turns(runs, "t", 3)
    history = await runs.history(on("t"))
    origin = history[len(history) // 2]
    forked = await runs.update(origin.config, {"items": ["edited"]}, as_node="end")
    assert (await runs.state(forked)).values["items"] == [*origin.values["items"], "edited"]
    for one in history:
        assert (await runs.state(one.config)).values == one.values
