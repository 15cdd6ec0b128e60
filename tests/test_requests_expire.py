"""What begins anew after a thread has expired, and threads that are told when to expire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from holdfast.backends import base
from holdfast.backends.base import new_operation_id
from support.backends import Backend
from support.clock import LONG, Store, expired, expires_after, timed
from support.make import checkpoint_id
from support.requests import CHANGES, COUNTING, WORDS, anew, made, write


@pytest.fixture
async def store(backend: Backend, mode: str, tmp_path: Path) -> AsyncIterator[Store]:
    async with timed(backend, tmp_path, mode) as store:
        yield store


# --- anew


@pytest.mark.parametrize("kind", CHANGES)
async def test_a_change_of_an_expired_thread_begins_it_anew(store: Store, kind: str) -> None:
    await expired(store, "t")
    ask = await store.open(ttl=LONG)
    await ask(made("source", 4, WORDS[60:70]))
    began = store.milliseconds()
    change: Any = CHANGES[kind]()
    if kind == "Commit":
        change = made(number=3, value=WORDS[50:60])
    elif kind == "Write":
        change = write(number=3, idx=4)
    await ask(change)
    epoch, records, writes, chunks, _ = await ask.state()
    assert [id for _, id, _ in records] == {"Commit": [checkpoint_id(3)], "Write": []}.get(
        kind, [checkpoint_id(4)]
    )
    assert [place for place, some in writes.items() if some] == (
        [("", checkpoint_id(3))] if kind == "Write" else []
    )
    sent = {id for id, _ in change.chunks} if kind == "Commit" else set()
    if kind == "Copy":
        sent = {id for id, _ in made("source", 4, WORDS[60:70]).chunks}
    assert {id for id, _ in chunks} == sent
    assert (await ask(base.Mark("t")))[0] == epoch
    if kind != "Write":
        row = await ask.row()
        assert row.namespaces == {"": 1}
        assert row.created >= began
        assert expires_after(row, LONG)
    weight = await ask(base.Weigh("t"))
    await ask(base.Forget("t", new_operation_id(), leaves_tombstone=False))
    await ask(anew(change))
    assert await ask(base.Weigh("t")) == weight, "something of the old one counts"


@pytest.mark.parametrize("kind", ["Commit", "Write"])
async def test_chunks_of_an_expired_thread_satisfy_no_frontier(store: Store, kind: str) -> None:
    ask = await expired(store, "t")
    whole = made()
    ids = [id for id, _ in whole.chunks]
    change = whole if kind == "Commit" else write()
    lacking = anew(change, chunks=[], frontier=ids)
    assert sorted(await ask(lacking)) == sorted(ids)
    assert await ask.state() is None
    assert await ask(anew(change, chunks=whole.chunks, frontier=ids)) == []


async def test_a_mark_of_an_expired_thread_does_not_fit_the_one_begun_anew(store: Store) -> None:
    lasting = await store.open()
    await lasting(made())
    epoch, _ = await lasting(base.Mark("t"))
    assert await lasting(base.Expire("t", store.ttl))
    await store.later(store.ttl)
    whole = made()
    ids = [id for id, _ in whole.chunks]
    await lasting(whole)
    assert await lasting(base.Discard("t", ids, epoch)) is False
    assert len(await lasting(base.Chunks("t", ids, None))) == len(ids)
    doomed = [("", checkpoint_id(1))]
    assert await lasting(base.Remove("t", epoch, doomed, [], new_operation_id())) is False
    assert await lasting(base.Forget("t", new_operation_id(), epoch)) is False
    assert await lasting(base.Head("t", "", None, list)) is not None


async def test_many_changes_at_once_begin_an_expired_thread_anew_once(store: Store) -> None:
    await expired(store, "t")
    asked = [await store.open(ttl=LONG), await store.open(ttl=LONG)]
    ask = asked[0]
    changes = [made(number=number) for number in range(10, 22)]
    changes += [write(number=number) for number in range(10, 22)]
    await asyncio.gather(*(asked[at % 2](one) for at, one in enumerate(changes)))
    _, records, writes, chunks, _ = await ask.state()
    assert [id for _, id, _ in records] == [checkpoint_id(number) for number in range(10, 22)]
    assert [len(some) for some in writes.values()] == [1] * 12
    assert {id for id, _ in chunks} == {id for one in changes for id, _ in one.chunks}


# --- told


async def test_a_thread_that_shall_never_expire_stays_whatever_is_written(store: Store) -> None:
    ask, other = await store.open(ttl=LONG, refresh_on_read=True), await store.open()
    await ask(made("source"))
    await ask(made())
    assert await ask(base.Expire("t", None)) is True
    for one in (ask, other):
        for request in (*CHANGES.values(), *COUNTING.values()):
            await one(request())
            assert (await ask.row()).expires is None
    assert await ask(base.Expire("t", None)) is True
    assert (await ask.row()).expires is None
    await ask(base.Copy("t", "copy", new_operation_id()))
    assert expires_after(await ask.row("copy"), LONG), "a copy is a thread of its own"


@pytest.mark.parametrize("was", ["passing", "never", "without"])
async def test_a_thread_expires_when_it_is_told(store: Store, was: str) -> None:
    ask = await store.open(ttl=LONG)
    lasting = await store.open()
    await (lasting if was == "without" else ask)(made())
    if was == "never":
        await ask(base.Expire("t", None))
    before = await ask.row()
    now = store.milliseconds()
    assert await ask(base.Expire("t", 7 * LONG)) is True
    row = await ask.row()
    assert replace(row, expires=before.expires) == before, "only the expiry moves"
    assert now + 7000 * LONG - 2 <= row.expires <= store.milliseconds() + 7000 * LONG + 2
    await ask(write())
    assert expires_after(await ask.row(), LONG), "who writes decides again"
    await lasting(write(idx=2))
    assert (await ask.row()).expires is None
    assert await lasting(base.Expire("t", store.ttl)) is True
    await store.later(store.ttl)
    assert await ask(base.Head("t", "", None, list)) is None
    assert await ask(base.Expire("t", LONG)) is False


async def test_there_is_nothing_to_expire_where_no_thread_is(store: Store) -> None:
    ask = await store.open(ttl=LONG)
    await ask(made("deleted"))
    await ask(base.Forget("deleted", new_operation_id()))
    token, _ = await ask(base.Lease("leased", LONG))
    for thread in ("absent", "deleted", "leased"):
        for ttl in (LONG, None):
            assert await ask(base.Expire(thread, ttl)) is False
        fence = base.Fence(token, LONG) if thread == "leased" else None
        await ask(replace(made(thread), fence=fence))
        assert expires_after(await ask.row(thread), LONG)


async def test_what_a_deleted_thread_was_told_is_forgotten(store: Store) -> None:
    ask = await store.open(ttl=LONG)
    for leaves_tombstone in (True, False):
        await ask(made())
        await ask(base.Expire("t", None))
        await ask(base.Forget("t", new_operation_id(), leaves_tombstone=leaves_tombstone))
        await ask(made())
        assert expires_after(await ask.row(), LONG)
