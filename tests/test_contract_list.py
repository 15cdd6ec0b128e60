"""The saver contract, part four: listing checkpoints."""

from __future__ import annotations

from typing import Any

import pytest
from support.calls import Calls
from support.make import Thread, checkpoint, checkpoint_id, config, plain


async def put(calls: Calls, number: int, thread: Any = "t", ns: str = "", **metadata: Any) -> None:
    made = checkpoint(number, {"n": number})
    await calls.put(config(thread, ns), made, metadata, made["channel_versions"])  # type: ignore[arg-type]


def ids(*numbers: int) -> list[str]:
    return [checkpoint_id(number) for number in numbers]


async def test_an_empty_store_lists_nothing(calls: Calls) -> None:
    assert await calls.list(None) == []
    assert await calls.list(config()) == []


async def test_a_listed_checkpoint_is_what_get_tuple_gives(calls: Calls) -> None:
    thread = Thread(calls)
    for number in range(5):
        stored = await thread.put({"a": list(range(number)), f"b{number}": number})
        await calls.put_writes(stored, [("a", number)], "task")
    listed = await calls.list(config())
    assert len(listed) == 5
    for found in listed:
        assert plain(found) == plain(await calls.must_get(found.config))


async def test_newest_first_whatever_the_order_of_puts(calls: Calls) -> None:
    for number in (3, 1, 5, 2, 4):
        await put(calls, number)
    assert await calls.ids(config()) == ids(5, 4, 3, 2, 1)


async def test_newest_first_across_namespaces_and_threads(calls: Calls) -> None:
    for number in range(12):
        await put(calls, number, thread="tu"[number % 2], ns=["", "a", "b:1"][number % 3])
    assert await calls.ids(None) == ids(*reversed(range(12)))
    assert await calls.ids(config("t", None)) == ids(10, 8, 6, 4, 2, 0)


async def test_no_config_means_every_thread(calls: Calls) -> None:
    await put(calls, 1, "t")
    await put(calls, 2, "u", "sub")
    listed = await calls.list(None)
    assert [plain(found)["thread"] for found in listed] == ["u", "t"]
    assert [plain(found)["ns"] for found in listed] == ["sub", ""]


async def test_no_namespace_means_all_and_the_empty_one_the_root(calls: Calls) -> None:
    for number, ns in enumerate(["", "a", "a:1", "a|b:2"]):
        await put(calls, number, ns=ns)
    assert await calls.ids(config("t", None)) == ids(3, 2, 1, 0)
    assert await calls.ids(config("t", "")) == ids(0)
    assert await calls.ids(config("t", "a")) == ids(1)
    assert await calls.ids(config("t", "b")) == []


async def test_an_id_lists_that_checkpoint(calls: Calls) -> None:
    for ns in ("", "sub"):
        for number in (1, 2, 3):
            await put(calls, number, ns=ns)
    assert await calls.ids(config("t", "", checkpoint_id(2))) == ids(2)
    assert await calls.ids(config("t", None, checkpoint_id(2))) == ids(2, 2)
    assert await calls.ids(config("t", "", checkpoint_id(9))) == []


async def test_before_is_strict(calls: Calls) -> None:
    for number in range(5):
        await put(calls, number)
    assert await calls.ids(config(), before=config("t", "", checkpoint_id(3))) == ids(2, 1, 0)
    only_id: Any = {"configurable": {"checkpoint_id": checkpoint_id(1)}}
    assert await calls.ids(config(), before=only_id) == ids(0)
    assert await calls.ids(config(), before=config("t", "", checkpoint_id(0))) == []
    assert await calls.ids(config(), before=config("t", "", "9")) == ids(4, 3, 2, 1, 0)
    assert await calls.ids(None, before=only_id) == ids(0)


async def test_before_compares_ids_that_do_not_exist(calls: Calls) -> None:
    for id in ("a", "c", "e"):
        await calls.put(config(), checkpoint(id), {}, {})
    assert await calls.ids(config(), before=config("t", "", "d")) == ["c", "a"]


async def test_before_without_an_id_is_ignored(calls: Calls) -> None:
    await put(calls, 1)
    assert await calls.ids(config(), before=config()) == ids(1)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"source": "loop"}, ids(4, 2)),
        ({"source": "loop", "step": 2}, ids(2)),
        ({"run_id": "r1"}, ids(3)),
        ({"run_id": None}, ids(4, 2, 1)),
        ({"score": 0.5}, ids(2)),
        ({"flag": False}, ids(4)),
        ({"parents": {"": "x"}}, ids(1)),
        ({"tags": ["a", "b"]}, ids(3)),
        ({'it\'s "a" $.key': "odd"}, ids(4)),
        ({"source": "nothing"}, []),
        ({"source": "loop", "run_id": "r1"}, []),
        ({}, ids(4, 3, 2, 1)),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else "",
)
async def test_a_filter_is_equality_on_any_key(
    calls: Calls, asked: dict[str, Any], expected: list[str]
) -> None:
    await put(calls, 1, source="input", step=1, parents={"": "x"})
    await put(calls, 2, source="loop", step=2, score=0.5)
    await put(calls, 3, source="update", step=3, run_id="r1", tags=["a", "b"])
    await put(
        calls, 4, source="loop", step=4, flag=False, run_id=None, **{'it\'s "a" $.key': "odd"}
    )
    assert await calls.ids(config(), filter=asked) == expected
    assert await calls.ids(None, filter=asked) == expected


@pytest.mark.parametrize(("limit", "count"), [(0, 0), (1, 1), (3, 3), (99, 6), (None, 6)])
async def test_a_limit_is_the_most_that_comes(calls: Calls, limit: int | None, count: int) -> None:
    for number in range(6):
        await put(calls, number)
    expected = ids(5, 4, 3, 2, 1, 0)[:count]
    assert await calls.ids(config(), limit=limit) == expected
    assert await calls.ids(None, limit=limit) == expected


async def test_a_limit_counts_what_the_filter_lets_through(calls: Calls) -> None:
    for number in range(10):
        await put(calls, number, even=number % 2 == 0)
    assert await calls.ids(config(), filter={"even": True}, limit=2) == ids(8, 6)
    before = config("t", "", checkpoint_id(6))
    assert await calls.ids(config(), filter={"even": True}, limit=2, before=before) == ids(4, 2)


async def test_many_checkpoints_come_once_each_in_order(calls: Calls) -> None:
    thread = Thread(calls)
    for number in range(150):
        await thread.put({"a": ["x" * 50] * (number % 40), "b": number})
    listed = await calls.list(config())
    assert [plain(found)["id"] for found in listed] == ids(*range(150, 0, -1))
    for found in listed:
        assert found.checkpoint["channel_values"] == thread.expected[found.checkpoint["id"]]


async def test_an_abandoned_listing_hinders_nobody(calls: Calls) -> None:
    thread = Thread(calls)
    for number in range(30):
        await thread.put({"a": number})
    kept = calls.listing(config())
    assert (await kept.take()).checkpoint["channel_values"] == {"a": 29}
    dropped = calls.listing(config())
    await dropped.take()
    del dropped
    stored = await thread.put({"a": "later"})
    await calls.put_writes(stored, [("a", 1)], "task")
    await calls.prune(["t"])
    await calls.delete_thread("t")
    await kept.close()
    assert await calls.list(None) == []


async def test_a_listing_goes_on_while_its_checkpoints_are_read_and_new_ones_put(
    calls: Calls,
) -> None:
    thread = Thread(calls)
    for number in range(20):
        await thread.put({"a": [number]})
    expected = dict(thread.expected)
    seen = {}
    listing = calls.listing(config())
    for _ in range(20):
        found = await listing.take()
        seen[found.checkpoint["id"]] = found.checkpoint["channel_values"]
        assert plain(await calls.must_get(found.config)) == plain(found)
        await thread.put({"a": ["new"]})
    await listing.close()
    assert seen == expected


async def test_another_saver_can_write_during_a_listing(pair: tuple[Calls, Calls]) -> None:
    one, other = pair
    for number in range(10):
        await put(one, number)
    listing = one.listing(config())
    assert (await listing.take()).checkpoint["id"] == checkpoint_id(9)
    await put(other, 10)
    await other.delete_thread("t")
    await listing.close()
    assert await one.list(config()) == []
