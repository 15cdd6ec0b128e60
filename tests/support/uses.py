"""What tests do with any saver, whatever its store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import holdfast

from support.calls import Calls
from support.make import Thread, checkpoint, config, version

WORDS = [f"{i * 7919 % 1000003:x} {i} " * 60 for i in range(120)]
"""Texts of which each is a chunk, and which do not compress to nothing."""


async def use(calls: Calls, thread_id: str = "t") -> None:
    """Put, write, list and copy, and check that what comes back is what was put."""
    thread = Thread(calls, thread_id)
    for length in (1, 2, 20):
        stored = await thread.put({"state": WORDS[:length]})
        await calls.put_writes(stored, [("state", length)], "task")
    for found in await calls.list(config(thread_id)):
        assert found.checkpoint["channel_values"] == thread.expected[found.checkpoint["id"]]
    head = await calls.must_get(config(thread_id))
    assert head.checkpoint["channel_values"] == {"state": WORDS[:20]}
    assert head.pending_writes == [("task", "state", 20)]
    assert len(await calls.list(config(thread_id))) == 3
    await calls.copy_thread(thread_id, f"{thread_id} copy")
    assert await calls.ids(config(f"{thread_id} copy")) == await calls.ids(config(thread_id))
    await calls.delete_thread(f"{thread_id} copy")
    assert await calls.get_tuple(config(f"{thread_id} copy")) is None


async def use_from_other_loops(saver: holdfast.Saver) -> None:
    """On loops of several threads at once, while the running one goes on."""

    def beside(number: int) -> None:
        async def put() -> None:
            for step in (1, 2, 3):
                await saver.aput(config(f"t{number}"), checkpoint(step), {}, {})
                assert await saver.aget_tuple(config(f"t{number}")) is not None

        asyncio.run(put())

    await asyncio.gather(*(asyncio.to_thread(beside, number) for number in range(4)))
    assert len([one async for one in saver.alist(None)]) == 12


def put_one(saver: holdfast.Saver, thread_id: str = "t", number: int = 1, **how: Any) -> Any:
    """A checkpoint that stands alone, with some chunks."""
    made = checkpoint(number, {"state": WORDS[:20]}, {"state": version(number)})
    where = config(thread_id, how.get("ns", ""))
    return saver.put(where, made, how.get("metadata", {}), made["channel_versions"])


def everything(error: BaseException) -> Iterator[BaseException]:
    """An error, its causes and its contexts, also those that are not shown."""
    seen: list[BaseException] = []
    front: list[BaseException | None] = [error]
    while front:
        one = front.pop()
        if one is not None and one not in seen:
            seen.append(one)
            front += [one.__cause__, one.__context__]
    yield from seen
