"""Tokens of leases, and who is refused among those who come at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from holdfast.backends import base
from holdfast.backends.base import Fence, new_operation_id
from holdfast.errors import LeaseLost
from support.backends import Backend
from support.clock import LONG, Asked, Store, remaining, taken, timed
from support.make import checkpoint_id
from support.requests import ABSENT, anew, changes, made, write


@pytest.fixture
async def store(backend: Backend, mode: str, tmp_path: Path) -> AsyncIterator[Store]:
    async with timed(backend, tmp_path, mode) as store:
        yield store


@pytest.fixture
async def ask(store: Store) -> Asked:
    """A saver on a store with a thread that may be copied."""
    ask = await store.open()
    await ask(made("source", 4))
    return ask


# --- fencing


async def test_tokens_only_grow(store: Store, ask: Asked) -> None:
    passing = await store.open(ttl=store.ttl)
    last = 0

    async def grows() -> Fence:
        nonlocal last
        fence = await taken(ask)
        assert fence.token > last
        last = fence.token
        return fence

    for _ in range(20):
        await ask(base.Release("t", (await grows()).token))
    for leaves_tombstone in (True, False, True):
        fence = await grows()
        await ask(replace(made(), fence=fence))
        await ask(base.Release("t", fence.token))
        await ask(base.Forget("t", new_operation_id(), leaves_tombstone=leaves_tombstone))
    fence = await grows()
    await passing(replace(made(), fence=replace(fence, seconds=store.ttl)))
    await store.later(store.ttl)
    assert await ask(base.Head("t", "", None, list)) is None
    fence = await grows()
    await ask(replace(made(), fence=fence))
    await ask(base.Release("t", fence.token))
    doomed = [("", checkpoint_id(1))]
    await ask(base.Remove("t", None, doomed, [], new_operation_id()))
    assert await ask.row() is None
    fence = await grows()
    await ask(base.Release("t", fence.token))
    await ask(made())
    await ask(base.Expire("t", store.ttl))
    await store.later(store.ttl)
    epoch = (await ask.visited()).get("t")
    if epoch is not None:
        await ask(base.Forget("t", new_operation_id(), epoch.epoch, leaves_tombstone=False))
    await grows()


async def test_one_of_many_takes_the_lease(store: Store, ask: Asked) -> None:
    savers = [ask, *[await store.open() for _ in range(3)]]
    tokens: list[int] = []
    for _ in range(5):
        replies = await asyncio.gather(*(one(base.Lease("t", LONG)) for one in savers * 5))
        (token,) = [token for token, _ in replies if token is not None]
        assert all(0 < seconds <= LONG + 0.01 for _, seconds in replies)
        tokens.append(token)
        await ask(base.Release("t", token))
    assert tokens == sorted(set(tokens))


async def test_what_was_done_under_a_lease_is_not_refused_when_it_is_repeated(
    ask: Asked, store: Store
) -> None:
    first = await taken(ask)
    done = changes(first)
    for change in done:
        await ask(change)
    await ask(base.Release("t", first.token))
    await taken(ask)
    before = await ask.state()
    left = await remaining(ask)
    for change in done:
        assert not await ask(change)
    assert await ask.state() == before
    await ask.refuses(LeaseLost, *changes(first))
    assert await remaining(ask) <= left


@pytest.mark.parametrize("size", [2, 30])
async def test_writes_at_once_are_refused_each_for_itself(
    store: Store, ask: Asked, size: int
) -> None:
    """Backends answer writes of one moment together: one that is refused leaves the others."""
    old = await taken(ask)
    await ask(base.Release("t", old.token))
    fence = await taken(ask)
    await ask(replace(made(), fence=fence))
    data = made().record
    kinds: dict[str, Fence | None] = {"held": fence, "old": old, "none": None}
    every = [
        (kind, replace(write(number=number), writes=[base.StoredWrite(kind, at, data)], fence=of))
        for number in (1, 2)
        for at in range(size)
        for kind, of in kinds.items()
    ]
    lacking = [("lacking", anew(one, frontier=[ABSENT])) for kind, one in every if kind == "held"]
    every += lacking[:size]
    every.sort(key=lambda pair: pair[1].writes[0].idx)
    replies = await asyncio.gather(*(ask(one) for _, one in every), return_exceptions=True)
    for (kind, _), reply in zip(every, replies, strict=True):
        if kind == "held":
            assert reply == []
        elif kind == "lacking":
            assert reply == [ABSENT]
        else:
            assert isinstance(reply, LeaseLost)
    _, _, writes, *_ = await ask.state()
    found = {(id, one.task_id, one.idx) for (_, id), some in writes.items() for one in some}
    assert found == {(checkpoint_id(number), "held", at) for number in (1, 2) for at in range(size)}


async def test_writes_at_once_on_leased_and_free_threads(store: Store, ask: Asked) -> None:
    threads = [f"thread {at}" for at in range(12)]
    fences = {thread: await taken(ask, thread=thread) for thread in threads[::3]}
    every = [write(thread, idx=at) for at in range(4) for thread in threads]
    replies = await asyncio.gather(*map(ask, every), return_exceptions=True)
    for one, reply in zip(every, replies, strict=True):
        assert isinstance(reply, LeaseLost) if one.thread_id in fences else reply == []
    replies = await asyncio.gather(
        *(ask(anew(one, fence=fences.get(one.thread_id))) for one in every)
    )
    assert replies == [[]] * len(every)


async def test_commits_at_once_with_and_without_the_lease(store: Store, ask: Asked) -> None:
    fence = await taken(ask)
    every = [
        replace(made(number=number), fence=fence if number % 2 else None) for number in range(1, 13)
    ]
    replies = await asyncio.gather(*map(ask, every), return_exceptions=True)
    for one, reply in zip(every, replies, strict=True):
        assert reply == [] if one.fence else isinstance(reply, LeaseLost)
    _, rows, _ = await ask(base.Census("t"))
    assert sorted(row.checkpoint_id for row in rows) == [
        checkpoint_id(number) for number in range(1, 13, 2)
    ]


async def test_a_lease_taken_among_changes_refuses_those_that_come_later(
    store: Store, ask: Asked
) -> None:
    other = await store.open()
    for turn in range(8):
        numbers = range(10 * turn, 10 * turn + 9)
        every: list[Any] = [made(number=number) for number in numbers]
        every.insert(turn, base.Lease("t", LONG))
        savers = [ask, other] * 5
        work = [one(request) for one, request in zip(savers, every, strict=True)]
        replies = await asyncio.gather(*work, return_exceptions=True)
        (token, _) = replies.pop(turn)
        del every[turn]
        assert token is not None
        for reply in replies:
            assert reply == [] or isinstance(reply, LeaseLost)
        done = {one.checkpoint_id for one, reply in zip(every, replies, strict=True) if reply == []}
        _, rows, _ = await ask(base.Census("t"))
        found = {row.checkpoint_id for row in rows}
        assert {id for id in found if id >= checkpoint_id(numbers[0])} == done
        await ask.refuses(LeaseLost, made(number=10 * turn + 9))
        await ask(base.Release("t", token))
