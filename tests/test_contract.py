"""The saver contract, part one: putting checkpoints and reading one back."""

from __future__ import annotations

import inspect
import math
from enum import Enum
from typing import Any

import holdfast
import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.types import TASKS
from support.calls import Calls
from support.make import (
    Thread,
    checkpoint,
    checkpoint_id,
    config,
    id_of,
    plain,
    same_bytes,
    through_serde,
    version,
)


async def put(calls: Calls, number: int, values: dict[str, Any] | None = None, **more: Any) -> Any:
    """A root checkpoint of thread "t" whose values are all new."""
    made = checkpoint(number, values, **more)
    return await calls.put(config(), made, {"step": number}, made["channel_versions"])


class Name(str, Enum):
    """Text that says of itself, as `str()`, that it is another."""

    SUB = "sub"


# --- the object


def test_a_saver_is_a_checkpoint_saver_and_true_even_when_empty(saver: holdfast.Saver) -> None:
    assert isinstance(saver, BaseCheckpointSaver)
    assert isinstance(saver, holdfast.Saver)
    assert bool(saver) is True


@pytest.mark.parametrize("method", ["put_writes", "aput_writes"])
def test_task_path_is_a_parameter_that_pregel_can_see(saver: holdfast.Saver, method: str) -> None:
    parameters = inspect.signature(getattr(saver, method)).parameters
    assert list(parameters) == ["config", "writes", "task_id", "task_path"]
    assert parameters["task_path"].default == ""


async def test_setup_may_be_repeated_and_comes_with_the_first_use(calls: Calls) -> None:
    await put(calls, 1, {"a": 1})
    await calls.setup()
    await calls.setup()
    assert await calls.saver.setup() is None
    assert (await calls.must_get(config())).checkpoint["channel_values"] == {"a": 1}


def test_setup_without_a_loop_is_done_on_return(saver: holdfast.Saver) -> None:
    saver.setup()
    assert saver.get_tuple(config()) is None


# --- versions


def test_versions_grow_and_sort_as_text(saver: holdfast.Saver) -> None:
    current = None
    seen = []
    for number in range(1, 12):
        current = saver.get_next_version(current, None)
        assert current.startswith(f"{number:032}.")
        seen.append(current)
    assert seen == sorted(seen)


def test_versions_of_two_forks_differ(saver: holdfast.Saver) -> None:
    assert len({saver.get_next_version(version(3), None) for _ in range(100)}) == 100


def test_a_version_continues_an_integer(saver: holdfast.Saver) -> None:
    assert saver.get_next_version(41, None).startswith(f"{42:032}.")  # type: ignore[arg-type]


# --- what is not there


async def test_what_was_never_put_is_none(calls: Calls) -> None:
    assert await calls.get_tuple(config("nobody")) is None
    await put(calls, 1, {"a": 1})
    assert await calls.get_tuple(config("t", "sub")) is None
    assert await calls.get_tuple(config("t", "", checkpoint_id(2))) is None
    assert await calls.get_tuple(config("T")) is None


# --- put and get_tuple


async def test_put_answers_where_the_checkpoint_is(calls: Calls) -> None:
    stored = await put(calls, 7)
    assert stored == config("t", "", checkpoint_id(7))
    assert (await calls.must_get(stored)).config == stored


async def test_a_checkpoint_reads_back_as_it_was_put(calls: Calls) -> None:
    made = checkpoint(
        1,
        {"a": [1, 2.5, "x"], "b": {"k": None}, "c": b"\x00\xff", "d": None},
        versions_seen={"node": {"a": version(1)}},
        updated_channels=["a", "b"],
    )
    await calls.put(config(), made, {"source": "input", "step": -1}, made["channel_versions"])
    found = await calls.must_get(config())
    assert found.checkpoint == made
    assert found.metadata == {"source": "input", "step": -1}
    assert found.parent_config is None
    assert found.pending_writes == []


async def test_the_namespace_may_be_left_out_to_mean_the_root(calls: Calls) -> None:
    await put(calls, 1, {"a": 1})
    assert (await calls.must_get(config("t", None))).checkpoint["channel_values"] == {"a": 1}
    by_id = await calls.must_get(config("t", None, checkpoint_id(1)))
    assert by_id.checkpoint["channel_values"] == {"a": 1}


@pytest.mark.parametrize("falsy", [None, ""])
async def test_a_falsy_id_means_the_head(calls: Calls, falsy: str | None) -> None:
    for number in (1, 2):
        await put(calls, number)
    where = config()
    where["configurable"]["checkpoint_id"] = falsy
    assert (await calls.must_get(where)).checkpoint["id"] == checkpoint_id(2)


async def test_the_head_is_the_greatest_id_not_the_last_put(calls: Calls) -> None:
    for id in ("b", "Z", "a9", "a10", "é", "aé"):
        made = checkpoint(id, {"name": id})
        await calls.put(config(), made, {}, made["channel_versions"])
    found = await calls.must_get(config())
    assert found.checkpoint["id"] == "é"
    assert found.checkpoint["channel_values"] == {"name": "é"}


@pytest.mark.parametrize("falsy", [None, ""])
async def test_there_is_no_parent_when_its_id_is_falsy(calls: Calls, falsy: str | None) -> None:
    where = config()
    where["configurable"]["checkpoint_id"] = falsy
    await calls.put(where, checkpoint(1), {}, {})
    assert (await calls.must_get(config())).parent_config is None


async def test_the_parent_is_named_by_thread_namespace_and_id(calls: Calls) -> None:
    thread = Thread(calls, "t", "sub:1")
    first = await thread.put({"a": 1})
    second = await thread.put({"a": 2})
    assert (await calls.must_get(second)).parent_config == first


async def test_a_thread_id_is_its_text(calls: Calls) -> None:
    made = checkpoint(1, {"a": 1})
    stored = await calls.put(config(7), made, {}, made["channel_versions"])
    await calls.put_writes(stored, [("a", 2)], "task")
    for thread in (7, "7"):
        found = await calls.must_get(config(thread))
        assert str(found.config["configurable"]["thread_id"]) == "7"
        assert found.checkpoint["channel_values"] == {"a": 1}
        assert found.pending_writes == [("task", "a", 2)]
        assert await calls.ids(config(thread)) == [checkpoint_id(1)]
    await calls.delete_thread(7)  # type: ignore[arg-type]
    assert await calls.get_tuple(config("7")) is None


async def test_no_thread_id_is_refused(calls: Calls) -> None:
    """All who have none would share one thread."""
    nobody: Any = {"configurable": {"thread_id": None, "checkpoint_ns": ""}}
    nowhere: Any = {"configurable": {**nobody["configurable"], "checkpoint_id": "1"}}
    made = checkpoint(1, {"a": 1})
    for attempt in (
        lambda: calls.get_tuple(nobody),
        lambda: calls.list(nobody),
        lambda: calls.put(nobody, made, {}, made["channel_versions"]),
        lambda: calls.put_writes(nowhere, [("a", 2)], "task"),
    ):
        with pytest.raises(holdfast.ConfigurationError, match="thread_id"):
            await attempt()
    assert await calls.list(None) == []


async def test_a_second_put_of_an_id_replaces_it_and_lists_it_once(calls: Calls) -> None:
    thread = Thread(calls)
    first = await thread.put({"a": 1})
    await thread.put({"a": 2})
    await thread.put({"a": 3, "b": 4}, id=checkpoint_id(2), parent=first, metadata={"try": 2})
    found = await calls.must_get(config())
    assert found.checkpoint["channel_values"] == {"a": 3, "b": 4}
    assert found.metadata["try"] == 2  # type: ignore[typeddict-item]
    assert await calls.ids(config()) == [checkpoint_id(2), checkpoint_id(1)]


async def test_a_second_put_of_an_id_may_give_it_another_parent(calls: Calls) -> None:
    for number in (1, 2):
        await put(calls, number)
    for parent in (1, 2):
        made = checkpoint(3)
        await calls.put(config("t", "", checkpoint_id(parent)), made, {}, {})
    assert (await calls.must_get(config())).parent_config == config("t", "", checkpoint_id(2))


async def test_a_second_put_of_an_id_keeps_its_writes(calls: Calls) -> None:
    stored = await put(calls, 1, {"a": 1})
    await calls.put_writes(stored, [("a", 2)], "task")
    await put(calls, 1, {"a": 1})
    assert (await calls.must_get(stored)).pending_writes == [("task", "a", 2)]


async def test_namespaces_and_threads_do_not_mix(calls: Calls) -> None:
    for thread in ("t", "u"):
        for ns in ("", "sub", "sub:1"):
            made = checkpoint(1, {"where": [thread, ns]})
            await calls.put(config(thread, ns), made, {}, made["channel_versions"])
    for thread in ("t", "u"):
        for ns in ("", "sub", "sub:1"):
            found = await calls.must_get(config(thread, ns))
            assert found.checkpoint["channel_values"] == {"where": [thread, ns]}


# --- channels


async def test_an_unchanged_channel_keeps_the_value_of_its_version(calls: Calls) -> None:
    thread = Thread(calls)
    await thread.put({"a": [1], "b": "kept"})
    for number in (2, 3):
        await thread.put({"a": [number]})
    found = await calls.must_get(config())
    assert found.checkpoint["channel_values"] == {"a": [3], "b": "kept"}


@pytest.mark.parametrize("given", [{}, {"b": "differs"}], ids=["absent", "different"])
async def test_a_channel_that_is_not_new_has_its_parents_value(
    calls: Calls, given: dict[str, Any]
) -> None:
    parent = await put(calls, 1, {"a": 1, "b": "the parent's"})
    versions = {"a": version(2), "b": version(1)}
    child = checkpoint(2, {"a": 2, **given}, versions)
    await calls.put(parent, child, {}, {"a": version(2)})
    found = await calls.must_get(config())
    assert found.checkpoint["channel_values"] == {"a": 2, "b": "the parent's"}


async def test_a_fork_without_new_versions_has_its_origins_values(calls: Calls) -> None:
    thread = Thread(calls)
    origin = await thread.put({"a": [1, 2], "b": {"k": 1}})
    await thread.put({"a": [3]})
    origin_found = await calls.must_get(origin)
    fork = {**origin_found.checkpoint, "id": checkpoint_id(9)}
    await calls.put(origin, fork, {"source": "fork"}, {})  # type: ignore[arg-type]
    found = await calls.must_get(config())
    assert found.checkpoint == fork
    assert found.parent_config == origin


async def test_two_forks_keep_their_own_values(calls: Calls) -> None:
    thread = Thread(calls)
    origin = await thread.put({"a": ["origin"]})
    left = await thread.put({"a": ["origin", "left"]}, parent=origin)
    right = await thread.put({"a": ["origin", "right"]}, parent=origin)
    for where in (origin, left, right):
        found = await calls.must_get(where)
        assert found.checkpoint["channel_values"] == thread.expected[id_of(where)]


async def test_a_new_version_without_a_value_is_an_empty_channel(calls: Calls) -> None:
    thread = Thread(calls)
    await thread.put({"a": 1, "b": 2})
    await thread.put({"a": 3}, drop=("b",))
    await thread.put({"a": 4})
    found = await calls.must_get(config())
    assert found.checkpoint["channel_values"] == {"a": 4}
    assert set(found.checkpoint["channel_versions"]) == {"a", "b"}


async def test_an_emptied_channel_can_be_filled_again(calls: Calls) -> None:
    thread = Thread(calls)
    await thread.put({"a": 1})
    await thread.put(drop=("a",))
    await thread.put({"a": None})
    found = await calls.must_get(config())
    assert found.checkpoint["channel_values"] == {"a": None}


async def test_unknown_keys_of_a_checkpoint_survive(calls: Calls) -> None:
    await put(calls, 1, {"a": 1}, pending_sends=[["node", 1]], of_tomorrow={"k": [1]})
    found = plain(await calls.must_get(config()))["checkpoint"]
    assert found["pending_sends"] == [["node", 1]]
    assert found["of_tomorrow"] == {"k": [1]}


async def test_put_leaves_its_arguments_alone(calls: Calls) -> None:
    made = checkpoint(1, {"a": [1]})
    metadata: Any = {"source": "loop", "step": 1}
    where = config()
    where["metadata"] = {"user": "u"}
    new = dict(made["channel_versions"])
    await calls.put(where, made, metadata, new)
    assert made == checkpoint(1, {"a": [1]})
    assert metadata == {"source": "loop", "step": 1}
    assert where == {**config(), "metadata": {"user": "u"}}
    assert new == {"a": version(1)}


async def test_what_was_read_can_be_changed_without_changing_the_store(calls: Calls) -> None:
    stored = await put(calls, 1, {"a": [1]})
    await calls.put_writes(stored, [("a", [2])], "task")
    first = await calls.must_get(stored)
    first.checkpoint["channel_values"]["a"].append("mine")
    first.checkpoint["channel_versions"]["a"] = "mine"
    assert first.pending_writes is not None
    first.pending_writes[0][2].append("mine")
    second = await calls.must_get(stored)
    assert second.checkpoint == checkpoint(1, {"a": [1]})
    assert second.pending_writes == [("task", "a", [2])]


AWKWARD: dict[str, Any] = {
    "NUL": "a\x00b",
    "NaN": math.nan,
    "infinity": [math.inf, -math.inf, -0.0],
    "lone surrogate": "a\ud800b",
    "keys that are no text": {1: "int", None: "none", 2.5: "float", b"k": "bytes"},
    "64 bits": [2**64 - 1, -(2**63)],
    "empty": ["", b"", [], {}, None],
    "no characters but bytes": bytes(range(256)),
}


@pytest.mark.parametrize("name", AWKWARD)
async def test_awkward_values_read_back_as_langgraphs_serializer_has_them(
    calls: Calls, name: str
) -> None:
    value = AWKWARD[name]
    stored = await put(calls, 1, {"alone": value, "nested": {"in": [value]}})
    await calls.put_writes(stored, [("alone", value)], "task")
    found = await calls.must_get(stored)
    assert same_bytes(found.checkpoint["channel_values"]["alone"], through_serde(value))
    assert same_bytes(found.checkpoint["channel_values"]["nested"], through_serde({"in": [value]}))
    assert found.pending_writes is not None
    assert same_bytes(found.pending_writes[0][2], through_serde(value))


@pytest.mark.parametrize("name", ["a\x00b", "a:b", "", "é😀", "x" * 1000])
async def test_channels_may_have_any_name(calls: Calls, name: str) -> None:
    thread = Thread(calls)
    stored = await thread.put({name: 1, "other": 2})
    await calls.put_writes(stored, [(name, 3)], "task")
    assert (await calls.must_get(stored)).pending_writes == [("task", name, 3)]
    await thread.put({"other": 4})
    found = await calls.must_get(config())
    assert found.checkpoint["channel_values"] == {name: 1, "other": 4}


# --- checkpoints from before version 4


async def test_an_old_checkpoint_gets_its_parents_sends(calls: Calls) -> None:
    parent = await put(calls, 1, v=1)
    await calls.put_writes(parent, [(TASKS, "c0"), ("x", 0), (TASKS, "c2")], "c", "~2")
    await calls.put_writes(parent, [(TASKS, "b")], "b", "~10")
    await calls.put_writes(parent, [(TASKS, "a")], "a", "~2")
    versions = {"x": version(3), "y": version(7)}
    made = checkpoint(2, {"x": 1, "y": 2}, versions, v=1)
    child = await calls.put(parent, made, {}, versions)
    by_list = (await calls.list(config()))[0]
    for found in (await calls.must_get(child), by_list):
        sends = ["b", "a", "c0", "c2"]
        assert found.checkpoint["channel_values"] == {"x": 1, "y": 2, TASKS: sends}
        assert found.checkpoint["channel_versions"] == {**versions, TASKS: version(7)}


async def test_an_old_checkpoint_without_versions_gets_the_first_for_its_sends(
    calls: Calls,
) -> None:
    parent = await put(calls, 1, v=3)
    await calls.put_writes(parent, [(TASKS, "send")], "task")
    child = await calls.put(parent, checkpoint(2, v=3), {}, {})
    found = await calls.must_get(child)
    assert found.checkpoint["channel_values"] == {TASKS: ["send"]}
    assert str(found.checkpoint["channel_versions"][TASKS]).startswith(f"{1:032}.")


async def test_sends_are_not_migrated_where_there_is_no_need(calls: Calls) -> None:
    parent = await put(calls, 1)
    await calls.put_writes(parent, [(TASKS, "send")], "task")
    today = await calls.put(parent, checkpoint(2), {}, {})
    old_root = await calls.put(config("u"), checkpoint(1, v=1), {}, {})
    await calls.put_writes(old_root, [(TASKS, "its own")], "task")
    for where in (today, old_root):
        found = await calls.must_get(where)
        assert found.checkpoint["channel_values"] == {}
        assert found.checkpoint["channel_versions"] == {}


async def test_ids_of_a_class_of_text_are_the_text(calls: Calls) -> None:
    made = checkpoint(1, {"a": 1})
    await calls.put(config("t", Name.SUB), made, {}, made["channel_versions"])
    await calls.put_writes(config("t", Name.SUB, made["id"]), [("a", 2)], "task")
    for ns in ("sub", Name.SUB):
        found = await calls.must_get(config("t", ns))
        assert found.checkpoint["channel_values"] == {"a": 1}
        assert found.pending_writes == [("task", "a", 2)]
