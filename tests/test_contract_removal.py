"""The saver contract, part five: deleting, copying and pruning threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from langgraph.checkpoint.serde.types import TASKS
from support.backends import Backend, opened
from support.calls import Calls
from support.make import Thread, checkpoint, checkpoint_id, config, id_of, snapshot


async def grown(calls: Calls, thread: str, ns: str = "", steps: int = 3, **metadata: Any) -> Thread:
    """A thread of some checkpoints with a channel that grows, one that stays, and writes."""
    made = Thread(calls, thread, ns)
    for step in range(steps):
        values: dict[str, Any] = {"grows": [f"{thread}/{ns}/{i} " * 30 for i in range(step + 1)]}
        if step == 0:
            values["stays"] = {"k": [thread, ns]}
        stored = await made.put(values, metadata=metadata)
        await calls.put_writes(stored, [("grows", step), ("stays", None)], f"task{step}")
    return made


# --- delete_thread


async def test_a_deleted_thread_is_gone_and_no_other(calls: Calls) -> None:
    for thread in ("t", "u", "t2", "t:", ""):
        await grown(calls, thread or "empty")
        await grown(calls, thread or "empty", "sub:1")
    others = {t: await snapshot(calls, config(t, None)) for t in ("u", "t2", "t:", "empty")}
    await calls.delete_thread("t")
    assert await calls.list(config("t", None)) == []
    assert await calls.get_tuple(config("t")) is None
    assert await calls.get_tuple(config("t", "sub:1")) is None
    assert await calls.get_tuple(config("t", "", checkpoint_id(1))) is None
    for thread, before in others.items():
        assert await snapshot(calls, config(thread, None)) == before


async def test_writes_without_a_checkpoint_go_with_their_thread(calls: Calls) -> None:
    ahead = config("t", "", checkpoint_id(9))
    await calls.put_writes(ahead, [("a", 1)], "early")
    await calls.delete_thread("t")
    await calls.put(config(), checkpoint(9), {}, {})
    assert (await calls.must_get(ahead)).pending_writes == []


async def test_deleting_what_is_not_there_is_nothing(calls: Calls) -> None:
    kept = await grown(calls, "t")
    await calls.delete_thread("nobody")
    await calls.delete_thread("nobody")
    assert len(await calls.ids(config())) == len(kept.expected)


async def test_a_deleted_thread_can_start_anew(calls: Calls) -> None:
    await grown(calls, "t")
    await calls.delete_thread("t")
    again = await grown(calls, "t", steps=2)
    assert again.head is not None
    assert (await calls.must_get(config())).checkpoint["channel_values"] == again.expected[
        id_of(again.head)
    ]
    assert len(await calls.ids(config())) == 2


async def test_a_value_put_again_after_its_thread_was_deleted_is_whole(calls: Calls) -> None:
    """What a saver remembers as stored is not taken for stored after a delete."""
    value = [f"message {i} " * 40 for i in range(100)]
    for _ in range(2):
        thread = Thread(calls)
        await thread.put({"a": value})
        await thread.put({"b": value})
        found = await calls.must_get(config())
        assert found.checkpoint["channel_values"] == {"a": value, "b": value}
        await calls.delete_thread("t")


async def test_a_value_put_again_after_another_saver_deleted_it_is_whole(
    pair: tuple[Calls, Calls],
) -> None:
    one, other = pair
    value = [f"message {i} " * 40 for i in range(100)]
    for _ in range(3):
        thread = Thread(one)
        await thread.put({"a": value})
        await other.delete_thread("t")
        await Thread(one).put({"a": value})
        for calls in pair:
            found = await calls.must_get(config())
            assert found.checkpoint["channel_values"] == {"a": value}
        await other.delete_thread("t")


# --- delete_for_runs


async def test_runs_are_deleted_across_threads_and_namespaces(calls: Calls) -> None:
    for thread in ("t", "u"):
        for ns in ("", "sub:1"):
            made = Thread(calls, thread, ns)
            for run in ("r1", "r2", "r1", "r3"):
                stored = await made.put({"run": run}, metadata={"run_id": run}, parent=None)
                await calls.put_writes(stored, [("run", run)], "task")
    await calls.delete_for_runs(["r1", "r3", "unknown"])
    left = await calls.list(None)
    assert [found.metadata["run_id"] for found in left] == ["r2"] * 4
    for thread in ("t", "u"):
        for ns in ("", "sub:1"):
            found = await calls.must_get(config(thread, ns))
            assert found.checkpoint["channel_values"] == {"run": "r2"}
            assert found.pending_writes == [("task", "run", "r2")]


async def test_a_deleted_runs_values_stay_where_later_runs_need_them(calls: Calls) -> None:
    made = Thread(calls)
    await made.put({"first": ["x" * 500] * 5, "second": 0}, metadata={"run_id": "r1"})
    for number in range(3):
        await made.put({"second": number}, metadata={"run_id": "r2"})
    before = await snapshot(calls, config())
    await calls.delete_for_runs(["r1"])
    after = await snapshot(calls, config())
    assert set(after) == {key for key, one in before.items() if one["metadata"]["run_id"] == "r2"}
    for key, one in after.items():
        assert one["values"] == before[key]["values"]
    await made.put({"second": "last"}, metadata={"run_id": "r4"})
    found = await calls.must_get(config())
    assert found.checkpoint["channel_values"] == {"first": ["x" * 500] * 5, "second": "last"}


async def test_deleting_no_run_or_an_unknown_one_is_nothing(calls: Calls) -> None:
    await grown(calls, "t", run_id="r1")
    before = await snapshot(calls, None)
    await calls.delete_for_runs([])
    await calls.delete_for_runs(["unknown"])
    assert await snapshot(calls, None) == before


# --- copy_thread


async def test_a_copy_has_everything_under_its_own_name(calls: Calls) -> None:
    await grown(calls, "t")
    await grown(calls, "t", "sub:1", run_id="r1")
    early = config("t", "", checkpoint_id(9))
    await calls.put_writes(early, [("grows", "early")], "early")
    before = await snapshot(calls, config("t", None))
    await calls.copy_thread("t", "copy")
    assert await snapshot(calls, config("t", None)) == before
    copied = await snapshot(calls, config("copy", None))
    assert {key: {**one, "thread": "t"} for key, one in copied.items()} == before
    for found in await calls.list(config("copy", None)):
        if found.parent_config:
            assert found.parent_config["configurable"]["thread_id"] == "copy"
            assert await calls.get_tuple(found.parent_config) is not None


@pytest.mark.parametrize("gone", ["source", "copy"])
async def test_a_copy_and_its_source_live_apart(calls: Calls, gone: str) -> None:
    source = await grown(calls, "source", steps=5)
    await calls.copy_thread("source", "copy")
    stays = {"source": "copy", "copy": "source"}[gone]
    before = await snapshot(calls, config(stays, None))
    await calls.prune([gone])
    await calls.delete_thread(gone)
    assert await snapshot(calls, config(stays, None)) == before
    assert source.head is not None
    child = checkpoint(50, {"stays": 1}, {"stays": "v9"})
    stored = await calls.put(config(stays, "", id_of(source.head)), child, {}, {"stays": "v9"})
    assert (await calls.must_get(stored)).checkpoint["channel_values"] == {"stays": 1}
    assert await calls.list(config(gone, None)) == []


async def test_copying_a_thread_onto_itself_or_from_nobody_is_nothing(calls: Calls) -> None:
    await grown(calls, "t")
    before = await snapshot(calls, None)
    await calls.copy_thread("t", "t")
    await calls.copy_thread("nobody", "target")
    assert await snapshot(calls, None) == before


async def test_a_copy_can_take_the_name_of_a_deleted_thread(calls: Calls) -> None:
    await grown(calls, "t")
    await grown(calls, "name")
    await calls.delete_thread("name")
    await calls.copy_thread("t", "name")
    assert await calls.ids(config("name")) == await calls.ids(config("t"))


# --- prune


@pytest.mark.parametrize("strategy", ["keep_latest", "delete"])
async def test_prune_refuses_one_thread_id_that_is_not_in_a_list(
    calls: Calls, strategy: str
) -> None:
    for thread in ("ab", "a", "b"):
        await grown(calls, thread)
    before = [await snapshot(calls, config(thread)) for thread in ("ab", "a", "b")]
    with pytest.raises(TypeError):
        await calls.prune("ab", strategy=strategy)
    assert [await snapshot(calls, config(thread)) for thread in ("ab", "a", "b")] == before


async def test_a_str_is_no_sequence_of_ids(calls: Calls) -> None:
    for remove in (calls.prune, calls.delete_for_runs):
        with pytest.raises(TypeError, match="not a str"):
            await remove("t")  # type: ignore[arg-type]


async def test_prune_refuses_an_unknown_strategy(calls: Calls) -> None:
    await grown(calls, "t")
    before = await snapshot(calls, None)
    with pytest.raises(ValueError, match="keep_all"):
        await calls.prune(["t"], strategy="keep_all")
    assert await snapshot(calls, None) == before


@pytest.mark.parametrize("strategy", ["keep_latest", "delete"])
async def test_pruning_nothing_or_nobody_is_nothing(calls: Calls, strategy: str) -> None:
    await grown(calls, "t")
    before = await snapshot(calls, None)
    await calls.prune([], strategy=strategy)
    await calls.prune([str(uuid4())], strategy=strategy)
    assert await snapshot(calls, None) == before


async def test_keep_latest_keeps_each_namespaces_head_whole(calls: Calls) -> None:
    for ns in ("", "sub:1", "sub:2|deep:3"):
        await grown(calls, "t", ns, steps=6)
    await grown(calls, "u")
    before = await snapshot(calls, config("t", None))
    other = await snapshot(calls, config("u", None))
    await calls.prune(["t"])
    after = await snapshot(calls, config("t", None))
    heads = {ns: max(key for key in before if key[0] == ns) for ns in ("", "sub:1", "sub:2|deep:3")}
    assert after == {key: {**before[key], "parent": None} for key in heads.values()}
    assert await snapshot(calls, config("u", None)) == other


async def test_a_pruned_thread_goes_on(calls: Calls) -> None:
    thread = await grown(calls, "t", steps=5)
    for number in range(3):
        await calls.prune(["t"], strategy="keep_latest")
        stored = await thread.put({"grows": [number]})
        found = await calls.must_get(stored)
        assert found.checkpoint["channel_values"] == thread.expected[id_of(stored)]
    assert len(await calls.ids(config())) == 2


async def test_keep_latest_keeps_a_checkpoint_whose_own_keys_are_large(
    backend: Backend, mode: str, tmp_path: Path
) -> None:
    """What is not a channel is stored in pieces then, and a saver without a cache reads them."""
    names = [f"channel {number} {number * 7919:x}" for number in range(300)]
    async with opened(backend, tmp_path, mode, cache_bytes=0) as calls:
        thread = Thread(calls)
        for length in (1, 2):
            await thread.put({"a": length}, updated_channels=names)
        await calls.prune(["t"])
        (found,) = await calls.list(config())
        assert found.checkpoint["updated_channels"] == names


async def test_keep_latest_keeps_writes_that_came_before_their_checkpoint(calls: Calls) -> None:
    thread = await grown(calls, "t")
    ahead = config("t", "", checkpoint_id(4))
    await calls.put_writes(ahead, [("grows", "early")], "early")
    await calls.prune(["t"])
    await thread.put()
    assert (await calls.must_get(ahead)).pending_writes == [("early", "grows", "early")]


async def test_keep_latest_keeps_the_parent_that_holds_an_old_heads_sends(calls: Calls) -> None:
    thread = Thread(calls)
    first = await thread.put(v=1)
    await calls.put_writes(first, [(TASKS, "send-1")], "task")
    second = await thread.put(v=1)
    head = await thread.put(v=1)
    await calls.put_writes(second, [(TASKS, "send-2")], "task")
    await calls.prune(["t"])
    found = await calls.must_get(head)
    assert found.checkpoint["channel_values"] == {TASKS: ["send-2"]}
    assert found.parent_config == second
    assert await calls.get_tuple(first) is None


async def test_keep_latest_keeps_a_subgraph_whose_parent_checkpoint_is_kept_or_to_come(
    calls: Calls,
) -> None:
    root = Thread(calls)
    await root.put({"a": 1})
    head = await root.put({"a": 2})
    waiting = await grown(calls, "t", "interrupted:1", parents={"": id_of(head)})
    running = await grown(calls, "t", "running:2", parents={"": checkpoint_id(99)})
    before = await snapshot(calls, config("t", None))
    await calls.prune(["t"])
    for thread in (root, waiting, running):
        assert thread.head is not None
        key = (thread.ns, id_of(thread.head))
        assert (await snapshot(calls, config("t", thread.ns)))[key] == {
            **before[key],
            "parent": None,
        }


async def test_the_delete_strategy_leaves_nothing(calls: Calls) -> None:
    for thread in ("t", "u", "v"):
        await grown(calls, thread)
        await grown(calls, thread, "sub:1")
    other = await snapshot(calls, config("v", None))
    await calls.prune(["t", "u"], strategy="delete")
    assert await snapshot(calls, None) == other
    assert await calls.get_tuple(config("t")) is None


async def test_a_value_put_again_after_a_prune_is_whole(calls: Calls) -> None:
    """What a prune swept is not taken for stored by a later put of the same value."""
    value = [f"message {i} " * 40 for i in range(100)]
    thread = Thread(calls)
    for _ in range(3):
        await thread.put({"a": value})
        await thread.put({"a": ["short"]})
        await calls.prune(["t"])
        await thread.put({"a": value, "b": value[::2]})
        found = await calls.must_get(config())
        assert found.checkpoint["channel_values"] == {"a": value, "b": value[::2]}


async def test_a_value_put_again_after_another_savers_prune_is_whole(
    pair: tuple[Calls, Calls],
) -> None:
    one, other = pair
    value = [f"message {i} " * 40 for i in range(100)]
    thread = Thread(one)
    for _ in range(3):
        await thread.put({"a": value})
        await thread.put({"a": ["short"]})
        await other.prune(["t"])
        await thread.put({"a": [*value, "one more"]})
        for calls in pair:
            found = await calls.must_get(config())
            assert found.checkpoint["channel_values"] == {"a": [*value, "one more"]}
