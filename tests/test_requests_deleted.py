"""What a store remembers of a deleted thread, and whom it refuses then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from holdfast.backends import base
from holdfast.backends.base import new_operation_id
from holdfast.errors import ThreadDeleted
from support.backends import Backend
from support.clock import Asked, Store, deleted, timed
from support.make import checkpoint_id
from support.requests import ABSENT, anew, building, caller, child, forget, made, parent, write


@pytest.fixture
async def store(backend: Backend, mode: str, tmp_path: Path) -> AsyncIterator[Store]:
    async with timed(backend, tmp_path, mode) as store:
        yield store


@pytest.fixture
async def ask(store: Store) -> Asked:
    return await store.open()


# --- a run that began before


async def test_late_changes_of_a_deleted_thread_are_refused(store: Store, ask: Asked) -> None:
    before = await deleted(store, ask)
    assert await ask.state() is None
    await ask.refuses(ThreadDeleted, child(3, parent(2, before)))
    await ask.refuses(ThreadDeleted, anew(write(number=2), made=before))
    await ask.refuses(ThreadDeleted, anew(write(number=7), made=before))
    await ask.refuses(ThreadDeleted, anew(write(idx=-1, number=7), made=before))
    await ask.refuses(ThreadDeleted, child(3, caller(2, before)))
    assert await ask.row() is None
    assert await ask(base.RunThreads(["r"])) == []
    assert await ask(base.ChunkIds("t", None, 10)) == ([], None)
    assert await ask(base.Weigh("t")) == (0, 0)


async def test_a_thread_begins_anew_with_a_commit_without_a_parent(
    store: Store, ask: Asked
) -> None:
    before = await deleted(store, ask)
    after = await store.moment()
    assert await ask(made(number=10)) == []
    assert await ask(child(11, parent(10, after))) == []
    assert await ask(child(12, parent(11, after))) == []
    assert await ask(anew(write(number=12), made=after)) == []
    # Late ones are still refused, whatever they build on.
    await ask.refuses(ThreadDeleted, child(3, parent(2, before)))
    await ask.refuses(ThreadDeleted, child(13, parent(2, before)))
    await ask.refuses(ThreadDeleted, anew(write(number=2), made=before))
    await ask.refuses(ThreadDeleted, building(made(number=3, ns="sub"), caller(2, before)))
    assert (await ask.row()).namespaces == {"": 3}
    assert await ask(made(number=20)) == [], "another root"


async def test_a_parent_made_after_the_deletion_has_to_be_there_only_for_the_first(
    store: Store, ask: Asked
) -> None:
    await deleted(store, ask)
    after = await store.moment()
    await ask.refuses(ThreadDeleted, child(11, parent(10, after)))
    assert await ask(made(number=9)) == []
    assert await ask(child(11, parent(10, after))) == []
    assert await ask(anew(write(number=15), made=after)) == []


@pytest.mark.parametrize("has_begun", [False, True], ids=["gone", "begun anew"])
async def test_a_subgraphs_first_checkpoint_counts_by_when_its_caller_was_made(
    store: Store, ask: Asked, has_begun: bool
) -> None:
    before = await deleted(store, ask)
    after = await store.moment()
    if has_begun:
        await ask(made(number=10))
    sub = made(number=11, ns="sub")
    await ask.refuses(ThreadDeleted, building(sub, caller(2, before)))
    await ask.refuses(
        ThreadDeleted, building(sub, caller(2, after), caller(2, before, ns="between"))
    )
    await ask.refuses(ThreadDeleted, building(sub, caller(2)))
    assert await ask(building(sub, caller(10, after))) == []
    assert await ask(building(made(number=12, ns="sub"), parent(11, after, ns="sub"))) == []
    await ask.refuses(ThreadDeleted, building(sub, caller(2, before)))


async def test_a_write_may_come_before_its_checkpoint(store: Store, ask: Asked) -> None:
    before = await deleted(store, ask)
    after = await store.moment()
    assert await ask(anew(write(number=10), made=after)) == []
    await ask.refuses(ThreadDeleted, anew(write(number=11), made=before))
    assert await ask(made(number=10)) == []
    assert len((await ask.row()).head.writes) == 1


async def test_what_is_stored_may_be_built_on_whenever_it_was_made(
    store: Store, ask: Asked
) -> None:
    before = await deleted(store, ask)
    await ask.refuses(ThreadDeleted, child(11, parent(10)))
    await ask.refuses(ThreadDeleted, write(number=10))
    assert await ask(made(number=10)) == []
    for when in (0, before):
        assert await ask(child(11, parent(10, when))) == []
        assert await ask(building(made(number=11, ns="sub"), caller(10, when))) == []
        assert await ask(anew(write(number=10), made=when)) == []
        await ask.refuses(ThreadDeleted, child(12, parent(9, when)))
        await ask.refuses(
            ThreadDeleted, building(made(number=12, ns="sub"), caller(10, when, ns="other"))
        )
        await ask.refuses(ThreadDeleted, anew(write(number=9), made=when))
        await ask.refuses(ThreadDeleted, anew(write(number=10), made=when, checkpoint_ns="other"))
    two = (parent(10, before), caller(9, before, ns="sub"))
    await ask.refuses(ThreadDeleted, child(13, *two))
    await ask.refuses(ThreadDeleted, child(13, *reversed(two)))


async def test_a_checkpoint_that_was_removed_is_built_on_as_one_never_stored(
    store: Store, ask: Asked
) -> None:
    before = await deleted(store, ask)
    after = await store.moment()
    done = child(11, parent(10, before))
    wrote = anew(write(number=10), made=before)
    for request in (made(number=10), done, wrote):
        assert await ask(request) == []
    epoch = (await ask(base.Census("t")))[0]
    assert await ask(base.Remove("t", epoch, [("", checkpoint_id(10))], [], new_operation_id()))
    await ask.refuses(ThreadDeleted, child(12, parent(10, before)))
    await ask.refuses(ThreadDeleted, anew(write(number=10), made=before))
    unchanged = await ask.state()
    assert await ask(done) == []
    assert await ask(wrote) == []
    assert await ask.state() == unchanged, "what was done is not done again, and not refused"
    assert await ask(child(12, parent(10, after))) == []


async def test_a_late_commit_that_lacks_chunks_stores_nothing(store: Store, ask: Asked) -> None:
    before = await deleted(store, ask)
    late = child(3, parent(2, before))
    for frontier in ([ABSENT], [id for id, _ in late.chunks]):
        with suppress(ThreadDeleted):
            lacking = anew(late, chunks=[], frontier=frontier)
            assert sorted(await ask(lacking)) == sorted(frontier)
        assert await ask.state() is None
    await ask.refuses(ThreadDeleted, late)


async def test_repeating_a_change_that_the_deletion_removed_stores_nothing(
    store: Store, ask: Asked
) -> None:
    before = await store.moment()
    done = child(2, parent(1, before)), anew(write(number=1), made=before)
    for request in (made(), *done):
        assert await ask(request) == []
    await store.moment()
    await ask(forget())
    for request in done:
        with suppress(ThreadDeleted):
            assert await ask(request) == []
        assert await ask.state() is None


async def test_changes_at_once_are_refused_each_for_itself(store: Store, ask: Asked) -> None:
    before = await deleted(store, ask)
    await ask(made(number=10))
    late: list[Any] = [anew(write(number=number), made=before) for number in (1, 2, 3)]
    late += [replace(write(idx=at, number=11), made=before) for at in range(3)]
    late += [child(4, parent(3, before))]
    good: list[Any] = [anew(write(idx=at, number=10), made=before) for at in range(8)]
    good += [child(11, parent(10, before), thread="t")]
    lacking = [anew(write(idx=8, number=10), frontier=[ABSENT]) for _ in range(3)]
    every = [one for trio in zip(late, good, lacking * 3, strict=False) for one in trio]
    every += [one for one in good if one not in every]
    replies = await asyncio.gather(*map(ask, every), return_exceptions=True)
    commits = next(at for at, one in enumerate(every) if one == good[-1])
    for request, reply in zip(every, replies, strict=True):
        if request in good:
            assert reply == []
        elif request in lacking:
            assert reply == [ABSENT]
        elif request.checkpoint_id == checkpoint_id(11) and isinstance(replies[commits], list):
            assert reply == [] or isinstance(reply, ThreadDeleted), "it may be stored by now"
        else:
            assert isinstance(reply, ThreadDeleted)
    _, records, writes, *_ = await ask.state()
    assert [id for _, id, _ in records] == [checkpoint_id(10), checkpoint_id(11)]
    assert sorted(one.idx for one in writes["", checkpoint_id(10)]) == [*range(8)]
    assert writes.keys() == {("", checkpoint_id(10)), ("", checkpoint_id(11))}
