"""How long a deletion is remembered, on what conditions it is done, and what it leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from holdfast.backends import base
from holdfast.backends.base import TOMBSTONE_SECONDS, new_operation_id
from holdfast.errors import ThreadDeleted
from support.backends import Backend
from support.clock import LONG, Asked, Store, deleted, timed
from support.make import checkpoint_id
from support.requests import WORDS, anew, child, forget, made, parent, write


@pytest.fixture
async def store(backend: Backend, mode: str, tmp_path: Path) -> AsyncIterator[Store]:
    async with timed(backend, tmp_path, mode) as store:
        yield store


@pytest.fixture
async def ask(store: Store) -> Asked:
    return await store.open()


# --- the tombstone


async def test_a_tombstone_is_left_also_where_no_thread_is(store: Store, ask: Asked) -> None:
    before = await store.moment()
    assert await ask(forget()) is True
    await ask.refuses(ThreadDeleted, child(3, parent(2, before)))
    assert (await ask.visited())["t"].is_deleted
    assert await ask(made()) == []


async def test_a_thread_begun_anew_that_has_expired_has_not_begun(store: Store) -> None:
    lasting, passing = await store.open(), await store.open(ttl=store.ttl)
    before = await deleted(store, lasting)
    after = await store.moment()
    await lasting(made(number=10))
    await passing(write(number=10))
    await store.later(store.ttl)
    for when in (0, before, after):
        await lasting.refuses(ThreadDeleted, child(11, parent(10, when)))
    await lasting.refuses(ThreadDeleted, anew(write(number=10), made=before))
    assert await lasting(made(number=12)) == []
    assert await lasting(child(11, parent(10, after))) == []


async def test_an_expired_thread_leaves_a_tombstone_when_it_is_deleted(store: Store) -> None:
    lasting, passing = await store.open(), await store.open(ttl=store.ttl)
    before = await store.moment()
    await lasting(made())
    await passing(write())
    await store.later(store.ttl)
    assert await lasting(child(2, parent(1, before))) == [], "an expired one leaves none"
    await passing(write())
    await store.later(store.ttl)
    await store.moment()
    assert await lasting(forget()) is True
    assert await lasting(base.Weigh("t")) == (0, 0)
    await lasting.refuses(ThreadDeleted, child(2, parent(1, before)))


async def test_a_tombstone_ends_after_its_time(store: Store, ask: Asked) -> None:
    if not store.is_moved:
        pytest.skip("this store's time is the server's")
    before = await deleted(store, ask)
    await ask(made("begun"))
    await ask(forget("begun"))
    await ask(made("begun", 10))
    await store.later(TOMBSTONE_SECONDS - 0.001)
    late, late_begun = child(3, parent(2, before)), child(3, parent(2, before), thread="begun")
    await ask.refuses(ThreadDeleted, late)
    await ask.refuses(ThreadDeleted, late_begun)
    await store.later(0.001)
    assert await ask(late) == []
    assert await ask(late_begun) == []


async def test_the_last_deletion_is_the_one_that_counts(store: Store, ask: Asked) -> None:
    await deleted(store, ask)
    between = await store.moment()
    await ask(made(number=10))
    assert await ask(child(12, parent(11, between))) == []
    assert await ask(forget()) is True
    await ask(made(number=20))
    await ask.refuses(ThreadDeleted, child(13, parent(11, between)))
    await ask.refuses(ThreadDeleted, anew(write(number=11), made=between))
    if store.is_moved:
        await store.later(TOMBSTONE_SECONDS - 0.005)
        await ask.refuses(ThreadDeleted, child(13, parent(11, between)))


async def test_without_a_tombstone_nothing_is_refused(store: Store, ask: Asked) -> None:
    before = await store.moment()
    for request in (made(), write()):
        await ask(request)
    await store.moment()
    assert await ask(forget(leaves_tombstone=False)) is True
    assert await ask.state() is None
    assert "t" not in await ask.visited()
    assert await ask(child(2, parent(1, before))) == []
    assert await ask(anew(write(number=1), made=before)) == []
    assert await ask(forget("absent", leaves_tombstone=False)) is True
    assert "absent" not in await ask.visited()


@pytest.mark.parametrize("has_begun", [False, True], ids=["gone", "begun anew"])
async def test_a_tombstone_stays_when_a_thread_goes_without_one(
    store: Store, ask: Asked, has_begun: bool
) -> None:
    """As a sweep makes it go: it may have seen the thread before that was deleted."""
    before = await deleted(store, ask)
    if has_begun:
        await ask(made(number=10))
    assert await ask(forget(leaves_tombstone=False)) is True
    await ask.refuses(ThreadDeleted, child(3, parent(2, before)))
    assert await ask(made(number=11)) == []


async def test_removing_the_last_checkpoint_leaves_no_tombstone(store: Store, ask: Asked) -> None:
    before = await store.moment()
    await ask(made())
    epoch = (await ask(base.Census("t")))[0]
    await store.moment()
    assert await ask(base.Remove("t", epoch, [("", checkpoint_id(1))], [], new_operation_id()))
    assert await ask.state() is None
    assert await ask.row() is None
    assert await ask(child(2, parent(1, before))) == []


async def test_a_tombstone_survives_a_thread_that_began_anew_and_went(
    store: Store, ask: Asked
) -> None:
    before = await deleted(store, ask)
    await ask(made())
    doomed = [("", checkpoint_id(1))]
    assert await ask(base.Remove("t", None, doomed, [], new_operation_id()))
    assert await ask.state() is None
    await ask.refuses(ThreadDeleted, child(3, parent(2, before)))
    assert await ask(base.Expire("t", LONG)) is False


async def test_a_copy_is_not_hindered_by_a_tombstone_of_its_target(
    store: Store, ask: Asked
) -> None:
    before = await deleted(store, ask)
    for request in (made("source"), child(2, parent(1, before), thread="source")):
        await ask(request)
    await ask(base.Copy("source", "t", new_operation_id()))
    assert (await ask.row()).namespaces == {"": 2}
    assert await ask(child(3, parent(2, before))) == [], "what is stored may be built on"
    await ask.refuses(ThreadDeleted, child(9, parent(8, before)))
    await ask(base.Copy("t", "copy", new_operation_id()))
    assert await ask(child(9, parent(8, before), thread="copy")) == [], "tombstones stay behind"


async def test_threads_do_not_touch_each_other(store: Store, ask: Asked) -> None:
    before = await store.moment()
    others = ["t ", "T", "t:", "t\0", "", "*", "é", "\ud800"]
    for thread in others:
        await ask(made(thread))
    states = [await ask.state(thread) for thread in others]
    await ask(made())
    await store.moment()
    await ask(forget())
    for thread, was in zip(others, states, strict=True):
        assert await ask.state(thread) == was
        assert await ask(child(3, parent(2, before), thread=thread)) == []
        assert await ask(anew(write(thread, number=9), made=before)) == []
        assert await ask(forget(thread)) is True
        await ask.refuses(ThreadDeleted, child(4, parent(2, before), thread=thread))
    await ask(made())
    await ask.refuses(ThreadDeleted, child(3, parent(2, before)))


# --- on conditions, and again


async def test_a_thread_is_forgotten_only_at_the_epoch_that_was_seen(
    store: Store, ask: Asked
) -> None:
    before = await store.moment()
    await ask(made())
    seen = (await ask.visited())["t"].epoch
    assert (await ask.row()).epoch == (await ask(base.Census("t")))[0] == seen
    changes = [write(), made(number=2), base.Copy("source", "t", new_operation_id())]
    await ask(made("source"))
    for change in changes:
        old = (await ask.row()).epoch
        await ask(change)
        was = await ask.state()
        for leaves_tombstone in (True, False):
            assert await ask(forget(epoch=old, leaves_tombstone=leaves_tombstone)) is False
        assert await ask.state() == was
        assert not (await ask.visited())["t"].is_deleted
        assert await ask(child(9, parent(8, before))) == [], "no tombstone is left"
    now = (await ask.row()).epoch
    await store.moment()
    assert await ask(forget(epoch=now)) is True
    assert await ask.state() is None
    await ask.refuses(ThreadDeleted, child(3, parent(2, before)))


async def test_an_epoch_of_an_earlier_thread_does_not_fit(store: Store, ask: Asked) -> None:
    for leaves_tombstone in (True, False):
        await ask(made())
        epoch = (await ask.row()).epoch
        await ask(forget(leaves_tombstone=leaves_tombstone))
        await ask(made())
        was = await ask.state()
        assert await ask(forget(epoch=epoch)) is False
        assert await ask(forget(epoch=epoch, leaves_tombstone=False)) is False
        assert await ask.state() == was


@pytest.mark.parametrize("conditional", [False, True], ids=["always", "at an epoch"])
async def test_a_repeated_deletion_spares_the_thread_begun_anew(
    store: Store, ask: Asked, conditional: bool
) -> None:
    before = await store.moment()
    await ask(made())
    request = forget(epoch=(await ask.row()).epoch if conditional else None)
    await store.moment()
    assert await ask(request) is True
    assert await ask(request) is True
    after = await store.moment()
    for change in (made(number=10), child(11, parent(10, after)), write(number=11)):
        await ask(change)
    assert await ask(child(13, parent(12, after))) == []
    was = await ask.state()
    assert await ask(request) is True
    assert await ask.state() == was
    assert await ask(child(14, parent(12, after))) == [], "made after the first, before the second"
    await ask.refuses(ThreadDeleted, child(3, parent(2, before)))


@pytest.mark.parametrize("backend", ["redis", "postgres"], indirect=True)
async def test_a_put_whose_reply_was_lost_is_not_done_again_after_the_deletion(ask: Asked) -> None:
    request = made()
    assert await ask(request) == []
    assert await ask(forget()) is True
    assert await ask(request) == []
    assert await ask.state() is None


async def test_a_repeated_removal_at_an_epoch_spares_the_thread_begun_anew(ask: Asked) -> None:
    await ask(made())
    request = forget(epoch=(await ask.row()).epoch, leaves_tombstone=False)
    assert await ask(request) is True
    await ask(made(value=WORDS[40:50]))
    was = await ask.state()
    await ask(request)  # whether it says that it was done, or that the epoch has moved
    assert await ask.state() == was


@pytest.mark.parametrize("kind", ["with a tombstone", "without", "remove"])
async def test_a_removal_at_an_epoch_takes_nothing_that_came_after_it(
    store: Store, ask: Asked, kind: str
) -> None:
    other = await store.open()
    outcomes = set()
    for number in range(1, 40, 3):
        await ask(made(number=number))
        epoch = (await ask.row()).epoch
        new = [made(number=number + 1), made(number=number + 2)]
        if kind == "remove":
            every = [("", checkpoint_id(one)) for one in range(1, number + 3)]
            removal: Any = base.Remove("t", epoch, every, [], new_operation_id())
        else:
            removal = forget(epoch=epoch, leaves_tombstone=kind == "with a tombstone")
        # Sometimes the removal is first, sometimes not, whatever the store.
        order = [removal, *new] if number % 2 else [*new, removal]
        replies = await asyncio.gather(ask(order[0]), other(order[1]), ask(order[2]))
        is_done = replies[order.index(removal)]
        outcomes.add(is_done)
        _, rows, _ = await ask(base.Census("t"))
        found = {row.checkpoint_id for row in rows}
        assert {one.checkpoint_id for one in new} <= found
        assert (checkpoint_id(number) in found) is not is_done
        for one in new:
            stored = await ask(base.Chunks("t", [id for id, _ in one.chunks], None))
            assert stored == dict(one.chunks)
    assert outcomes <= {True, False}


async def test_a_sweep_by_tells_what_was_deleted(store: Store, ask: Asked) -> None:
    for thread in ("deleted", "begun", "kept", "removed"):
        await ask(made(thread))
    began = store.milliseconds()
    await ask(forget("deleted"))
    await ask(forget("begun"))
    await ask(forget("removed", leaves_tombstone=False))
    ended = store.milliseconds()
    await ask(made("begun"))
    seen = await ask.visited()
    assert seen.keys() == {"deleted", "begun", "kept"}
    assert {thread for thread, one in seen.items() if one.is_deleted} == {"deleted"}
    assert began <= seen["deleted"].updated <= ended + 1
    assert not any(one.is_expired or one.is_leased for one in seen.values())
