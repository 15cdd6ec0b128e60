"""The saver contract, part three: pending writes."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from langgraph.checkpoint.base import writes_sort_key
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, SCHEDULED
from support.calls import Calls
from support.make import checkpoint, checkpoint_id, config

HERE = config("t", "", checkpoint_id(1))


async def there(calls: Calls) -> list[Any]:
    """The writes at HERE, whose checkpoint is put first if need be."""
    if await calls.get_tuple(HERE) is None:
        await calls.put(config(), checkpoint(1), {}, {})
    writes = (await calls.must_get(HERE)).pending_writes
    assert isinstance(writes, list)
    listed = await calls.list(config())
    assert listed[0].pending_writes == writes, "list and get_tuple disagree"
    return writes


async def test_writes_read_back_with_task_and_channel(calls: Calls) -> None:
    assert await there(calls) == []
    await calls.put_writes(HERE, [("a", {"k": [1]}), ("b", None)], "task")
    assert await there(calls) == [("task", "a", {"k": [1]}), ("task", "b", None)]


async def test_the_first_regular_write_of_a_task_and_index_wins(calls: Calls) -> None:
    await calls.put_writes(HERE, [("a", 1)], "task")
    await calls.put_writes(HERE, [("other", 2), ("b", 3)], "task")
    assert await there(calls) == [("task", "a", 1), ("task", "b", 3)]


async def test_another_tasks_write_at_the_same_index_is_its_own(calls: Calls) -> None:
    await calls.put_writes(HERE, [("a", 1)], "one")
    await calls.put_writes(HERE, [("a", 2)], "two")
    assert await there(calls) == [("one", "a", 1), ("two", "a", 2)]


@pytest.mark.parametrize("channel", [ERROR, SCHEDULED, INTERRUPT, RESUME])
async def test_the_last_special_write_wins(calls: Calls, channel: str) -> None:
    for value in (1, 2, [3]):
        await calls.put_writes(HERE, [(channel, value)], "task")
    assert await there(calls) == [("task", channel, [3])]


async def test_a_mixed_batch_renews_its_special_writes_and_keeps_its_regular_ones(
    calls: Calls,
) -> None:
    await calls.put_writes(HERE, [(RESUME, "r1"), (RESUME, "r2"), ("x", "first")], "task")
    assert await there(calls) == [("task", RESUME, "r2"), ("task", "x", "first")]
    await calls.put_writes(HERE, [(RESUME, "r3"), (RESUME, "r4"), ("x", "second")], "task")
    assert await there(calls) == [("task", RESUME, "r4"), ("task", "x", "first")]


async def test_one_batch_has_one_write_for_an_index(calls: Calls) -> None:
    await calls.put_writes(HERE, [(INTERRUPT, 1), ("a", 2), (INTERRUPT, 3)], "task")
    assert await there(calls) == [("task", INTERRUPT, 3), ("task", "a", 2)]


@pytest.mark.parametrize("kind", [list, tuple, deque])
async def test_writes_may_come_in_any_sequence(calls: Calls, kind: Any) -> None:
    await calls.put_writes(HERE, kind([("a", 1), ("b", 2)]), "task")
    assert await there(calls) == [("task", "a", 1), ("task", "b", 2)]


async def test_an_empty_batch_changes_nothing(calls: Calls) -> None:
    await calls.put_writes(HERE, [], "task")
    assert await there(calls) == []


async def test_writes_are_in_the_order_of_path_task_and_index(calls: Calls) -> None:
    paths = ["", "~a", "a", "A", "~10", "~2", "é", "\uffff", "😀", "~~1", "a\x00b", "a b"]
    tasks = ["b", "B", "ffffffff-1", "0", "é", "\uffff", "😀"]
    expected = []
    for number, path in enumerate(paths):
        for task in tasks[number % 3 :: 2]:
            task_id = f"{task}{number}"
            writes = [("c", f"{task_id}/{i}") for i in range(12)]
            await calls.put_writes(HERE, [*writes, (RESUME, "r")], task_id, path)
            expected += [(writes_sort_key(path, task_id, i), w) for i, w in enumerate(writes)]
            expected.append((writes_sort_key(path, task_id, -4), (RESUME, "r")))
    expected.sort(key=lambda one: one[0])
    assert await there(calls) == [(key[1], *write) for key, write in expected]


async def test_the_path_of_the_first_write_orders_it(calls: Calls) -> None:
    """A repeated task keeps its place, as its kept writes do."""
    await calls.put_writes(HERE, [("c", "one")], "one", "b")
    await calls.put_writes(HERE, [("c", "two")], "two", "c")
    await calls.put_writes(HERE, [("c", "late")], "one", "d")
    assert await there(calls) == [("one", "c", "one"), ("two", "c", "two")]


async def test_writes_may_come_before_their_checkpoint(calls: Calls) -> None:
    await calls.put_writes(HERE, [("a", 1)], "early")
    assert await calls.get_tuple(config()) is None
    assert await calls.ids(None) == []
    await calls.put(config(), checkpoint(1), {}, {})
    assert await there(calls) == [("early", "a", 1)]
    await calls.put_writes(HERE, [("a", 2)], "late")
    assert await there(calls) == [("early", "a", 1), ("late", "a", 2)]


async def test_early_writes_are_not_another_checkpoints(calls: Calls) -> None:
    ahead = config("t", "", checkpoint_id(2))
    await calls.put_writes(ahead, [("a", 1)], "early")
    assert await there(calls) == []
    await calls.put(HERE, checkpoint(2), {}, {})
    assert (await calls.must_get(ahead)).pending_writes == [("early", "a", 1)]
    assert (await calls.must_get(HERE)).pending_writes == []


async def test_writes_belong_to_one_thread_namespace_and_checkpoint(calls: Calls) -> None:
    places = [
        config(thread, ns, checkpoint_id(number))
        for thread in ("t", "u")
        for ns in ("", "sub")
        for number in (1, 2)
    ]
    for place in places:
        where = place["configurable"]
        root = config(where["thread_id"], where["checkpoint_ns"])
        await calls.put(root, checkpoint(where["checkpoint_id"]), {}, {})
        await calls.put_writes(place, [("a", str(where))], "task")
    for place in places:
        found = (await calls.must_get(place)).pending_writes
        assert found == [("task", "a", str(place["configurable"]))]


async def test_writes_without_a_namespace_are_the_roots(calls: Calls) -> None:
    await calls.put_writes(config("t", None, checkpoint_id(1)), [("a", 1)], "task")
    assert await there(calls) == [("task", "a", 1)]


async def test_large_writes_read_back(calls: Calls) -> None:
    value = [{"id": i, "text": f"{i} " * 200} for i in range(300)]
    await calls.put_writes(HERE, [("a", value), ("b", "x" * 300_000)], "task")
    assert await there(calls) == [("task", "a", value), ("task", "b", "x" * 300_000)]
