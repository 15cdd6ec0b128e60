"""What threads weigh, and how they are listed after any sequence of changes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from holdfast._core import level
from holdfast.backends import base
from holdfast.backends.base import new_operation_id
from holdfast.errors import ThreadDeleted
from support.backends import BACKENDS, Backend
from support.clock import LONG, Asked, Store, timed
from support.make import checkpoint_id
from support.requests import WORDS, building, forget, made, parent, write


@pytest.fixture
async def store(backend: Backend, mode: str, tmp_path: Path) -> AsyncIterator[Store]:
    async with timed(backend, tmp_path, mode) as store:
        yield store


@pytest.fixture
async def ask(store: Store) -> Asked:
    return await store.open()


# --- weighed


async def recount(ask: Asked, thread: str) -> tuple[int, int]:
    """What a thread weighs, from all that is stored of it."""
    _, rows, orphans = await ask(base.Census(thread))
    places = [*((row.checkpoint_ns, row.checkpoint_id) for row in rows), *orphans]
    writes = await ask(base.WritesOf(thread, places))
    size = sum(len(row.record) for row in rows)
    size += sum(len(one.data) for some in writes.values() for one in some)
    cursor, chunks = None, {}
    while True:
        page, cursor = await ask(base.ChunkIds(thread, cursor, 7))
        chunks.update({id: (depth, bytes) for id, depth, bytes in page})
        if cursor is None:
            break
    stored = await ask(base.Chunks(thread, [*chunks], None))
    assert chunks == {id: (level(data), len(data)) for id, data in stored.items()}
    return len(rows), size + sum(bytes for _, bytes in chunks.values())


async def test_a_thread_weighs_what_is_stored_of_it(ask: Asked) -> None:
    await ask(made("other", value=WORDS[40:80]))
    steps: list[Any] = [
        made(),
        made(number=2, value=WORDS[:60]),
        made(number=2, value=WORDS[:50]),
        made(number=1, ns="sub"),
        write(idx=3),
        write(idx=3, data=made(value=WORDS[:70]).record),
        write(idx=-1),
        write(idx=-1, data=made(value=WORDS[:70]).record),
        write(number=9),
        base.Remove("t", None, [("", checkpoint_id(1))], [], new_operation_id()),
        base.Copy("other", "t", new_operation_id()),
        base.Remove("t", None, [("", checkpoint_id(9))], [], new_operation_id()),
    ]
    weights = []
    for step in steps:
        await ask(step)
        weights.append(await ask(base.Weigh("t")))
        assert weights[-1] == await recount(ask, "t")
    assert [checkpoints for checkpoints, _ in weights] == [1, 2, 2, 3, 3, 3, 3, 3, 3, 2, 3, 3]
    epoch, _ = await ask(base.Mark("t"))
    ids = [id for id, _ in made().chunks][:5]
    assert await ask(base.Discard("t", ids, epoch))
    assert await ask(base.Weigh("t")) == await recount(ask, "t") < weights[-1]
    await ask(forget())
    assert await ask(base.Weigh("t")) == (0, 0)


# --- beside the memory store


class Beside:
    """A walk of random requests on one store; each request is answered by the store alone, times
    and epochs are its own."""

    def __init__(self, store: Store, ask: Asked) -> None:
        self.store, self.ask = store, ask
        self.made: dict[tuple[str, int], int] = {}
        self.epochs: dict[str, int] = {}

    async def step(self, seed: int) -> Any:
        """The reply to the request that the seed names."""
        await self.store.later(0.001)
        rng = random.Random(seed)
        thread = rng.choice(["a", "b", "c", "a%", "\ud800"])
        other = rng.choice(["a", "b", "c", "d"])
        number, ns = rng.randrange(1, 9), rng.choice(["", "", "sub"])
        now = self.store.milliseconds()
        await self.store.later(0.001)
        kind = rng.choice(["root", "child", "child", "write", "write", "forget", "forget at"])
        kind = rng.choice([kind, kind, kind, "remove", "copy", "note", "take away", "expire"])
        value = WORDS[: rng.randrange(1, 9)]
        if kind == "root":
            self.made[thread, number] = now
            return await self.ask(made(thread, number, value, ns))
        if kind == "child":
            above = rng.randrange(1, 9)
            when = self.made.get((thread, above), 0)
            self.made[thread, number] = now
            return await self.ask(
                building(made(thread, number, value, ns), parent(above, when, ns))
            )
        if kind == "write":
            when = self.made.get((thread, number), 0)
            data = made(value=value).record
            late = write(thread, rng.randrange(-2, 4), data, number)
            return await self.ask(replace(late, checkpoint_ns=ns, made=when))
        if kind == "note":
            row = await self.ask.row(thread)
            self.epochs[thread] = row.epoch if row is not None else 0
            return row is not None
        if kind == "expire":
            return await self.ask(base.Expire(thread, rng.choice([LONG, None])))
        if kind == "copy":
            return await self.ask(base.Copy(thread, other, new_operation_id()))
        if kind == "remove":
            doomed = [(ns, checkpoint_id(one)) for one in rng.sample(range(1, 9), 4)]
            return await self.ask(base.Remove(thread, None, doomed, [], new_operation_id()))
        epoch = None
        if kind == "forget at":
            if await self.ask.row(thread) is None:
                return None
            epoch = self.epochs.get(thread, 0)
        return await self.ask(forget(thread, epoch=epoch, leaves_tombstone=rng.random() < 0.7))

    async def seen(self) -> Any:
        """What threads are told to be, without times and epochs."""
        listed = [
            (row.thread_id, dict(row.namespaces), row.expires is None, plain(row.head))
            for row in await self.ask(base.Threads(1000))
        ]
        weighed = {thread: await self.ask(base.Weigh(thread)) for thread in "abcd"}
        for thread, weight in weighed.items():
            assert await recount(self.ask, thread) == weight
        visited = await self.ask.visited(3)
        return listed, weighed, {thread: one.is_deleted for thread, one in visited.items()}


def plain(row: base.Row) -> Any:
    writes = sorted((one.task_id, one.idx, one.data) for one in row.writes)
    return row.thread_id, row.checkpoint_ns, row.checkpoint_id, row.record, writes


@pytest.mark.parametrize("seed", range(3))
async def test_any_sequence_of_changes_is_listed_and_weighed_as_by_the_reference(
    store: Store, mode: str, tmp_path: Path, seed: int
) -> None:
    async with timed(BACKENDS["memory"], tmp_path, mode) as oracle:
        both = [Beside(one, await one.open(ttl=LONG)) for one in (store, oracle)]
        rng = random.Random(seed)
        replies: list[str] = []
        for at in range(120):
            seed = rng.randrange(2**32)
            given = []
            for one in both:
                try:
                    given.append(await one.step(seed))
                except ThreadDeleted as error:
                    given.append(str(error))
            assert given[0] == given[1]
            replies.append(repr(given[0])[:6])
            if at % 6 == 5:
                assert await both[0].seen() == await both[1].seen()
        assert {"[]", "False", "True", "None"} <= {*replies}
        assert len({*replies}) == 5, "none was refused"
