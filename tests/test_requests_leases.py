"""One writer per thread on request: who may change a thread that is leased, and until when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from holdfast.backends import base
from holdfast.backends.base import Fence, new_operation_id
from holdfast.errors import LeaseLost, ThreadDeleted
from support.backends import Backend
from support.clock import LONG, Asked, Store, remaining, taken, timed
from support.make import checkpoint_id
from support.requests import ABSENT, CHANGES, anew, building, changes, made, parent, write


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


# --- held


async def test_who_comes_second_is_told_how_long_it_lasts(store: Store, ask: Asked) -> None:
    fence = await taken(ask, LONG)
    first = await remaining(ask)
    assert LONG / 2 < first <= LONG
    await store.later(0.05)
    assert await remaining(ask) <= first - 0.05 + 0.002, "who asks does not prolong it"
    other = await store.open()
    assert await other(base.Lease("t", LONG)) == (None, pytest.approx(first, abs=LONG / 2))
    await taken(ask, thread="other")
    assert await ask(base.Lease("t", 3 * LONG, fence.token)) == (
        fence.token,
        pytest.approx(3 * LONG, abs=0.01),
    )
    assert await remaining(ask) > 2 * LONG
    await ask(base.Lease("t", LONG, fence.token))
    assert await remaining(ask) <= LONG, "the last word counts"


@pytest.mark.parametrize("is_there", [False, True], ids=["new thread", "old thread"])
async def test_only_the_holder_changes_a_leased_thread(
    store: Store, ask: Asked, is_there: bool
) -> None:
    if is_there:
        await ask(made())
    fence = await taken(ask)
    other = await store.open()
    for one in (ask, other):
        await one.refuses(LeaseLost, *changes())
        for token in (fence.token + 1, fence.token - 1, 0, -1, 2**52):
            await one.refuses(LeaseLost, *changes(Fence(token, LONG)))
    for change in changes(fence):
        assert not await other(change), "the fence counts, not who shows it"
    assert (await ask.row()).namespaces == {"": 3 if is_there else 2}
    assert await ask(made("other")) == []


@pytest.mark.parametrize("kind", CHANGES)
async def test_a_change_under_the_lease_prolongs_it(ask: Asked, kind: str) -> None:
    fence = await taken(ask)
    await ask(replace(CHANGES[kind](), fence=replace(fence, seconds=3 * LONG)))
    assert 2 * LONG < await remaining(ask) <= 3 * LONG
    await ask(replace(CHANGES[kind](), fence=fence))
    assert await remaining(ask) <= LONG


@pytest.mark.parametrize("kind", ["Commit", "Write"])
async def test_chunks_that_are_missing_are_named_to_the_holder(ask: Asked, kind: str) -> None:
    fence = await taken(ask)
    lacking = replace(CHANGES[kind](), frontier=[ABSENT], fence=fence)
    assert await ask(lacking) == [ABSENT]
    await ask.refuses(LeaseLost, anew(lacking, fence=None))
    assert await ask(anew(lacking, frontier=[])) == []


async def test_who_only_reads_or_tidies_up_is_not_hindered(ask: Asked) -> None:
    for number in (1, 2, 3):
        await ask(made(number=number))
    fence = await taken(ask)
    assert (await ask(base.Head("t", "", None, list))).checkpoint_id == checkpoint_id(3)
    assert len(await ask(base.Page("t", None, None, None, None, 10))) == 3
    assert (await ask.row()).namespaces == {"": 3}
    seen = await ask.visited()
    assert seen["t"].is_leased
    assert not seen["source"].is_leased
    await ask(base.Copy("t", "copy", new_operation_id()))
    assert not (await ask.visited())["copy"].is_leased
    assert await ask(made("copy", 9)) == []
    assert await ask(base.Expire("t", LONG)) is True
    epoch, _ = await ask(base.Mark("t"))
    assert await ask(base.Discard("t", [ABSENT], epoch)) is True
    epoch = (await ask(base.Census("t")))[0]
    doomed = [("", checkpoint_id(1))]
    assert await ask(base.Remove("t", epoch, doomed, [], new_operation_id())) is True
    assert await remaining(ask) > LONG / 2
    assert await ask(replace(write(), fence=fence)) == []


# --- run out


async def test_another_can_take_a_lease_that_has_run_out(store: Store, ask: Asked) -> None:
    await ask(made())
    first = await taken(ask, store.ttl)
    await store.later(store.ttl)
    assert not (await ask.visited())["t"].is_leased
    second = await taken(ask)
    assert second.token > first.token
    # The first one never noticed.
    await ask.refuses(LeaseLost, *changes(first), *changes())
    assert (await ask(base.Lease("t", LONG, first.token)))[0] is None
    await ask(base.Release("t", first.token))
    await ask.refuses(LeaseLost, *changes(first), *changes())
    for change in changes(second):
        await ask(change)


async def test_a_lease_lasts_to_the_millisecond(store: Store, ask: Asked) -> None:
    if not store.is_moved:
        pytest.skip("this store's time is the server's")
    await taken(ask)
    await store.later(LONG - 0.001)
    assert await remaining(ask) == pytest.approx(0.001, abs=0.0005)
    await ask.refuses(LeaseLost, *changes())
    await store.later(0.001)
    await taken(ask)


async def test_a_lease_that_ran_out_is_still_that_of_its_holder(store: Store, ask: Asked) -> None:
    fence = await taken(ask, store.ttl)
    for change in changes():
        await store.later(store.ttl)
        await ask(replace(change, fence=replace(fence, seconds=LONG)))
        assert await remaining(ask) > LONG / 2
        assert (await ask(base.Lease("t", store.ttl, fence.token)))[0] == fence.token
    await store.later(store.ttl)
    assert await ask(base.Lease("t", LONG, fence.token)) == (
        fence.token,
        pytest.approx(LONG, abs=0.01),
    )
    await ask.refuses(LeaseLost, *changes())


@pytest.mark.parametrize("kind", CHANGES)
async def test_a_change_of_another_ends_a_lease_that_ran_out(
    store: Store, ask: Asked, kind: str
) -> None:
    await ask(made())
    fence = await taken(ask, store.ttl)
    await store.later(store.ttl)
    assert not await ask(CHANGES[kind]())
    await ask.refuses(LeaseLost, *changes(fence))
    assert (await ask(base.Lease("t", LONG, fence.token)))[0] is None
    for change in changes():
        assert not await ask(change)
    assert (await taken(ask)).token > fence.token


async def test_a_refused_change_of_another_does_not_end_it(store: Store, ask: Asked) -> None:
    before = await store.moment()
    await ask(base.Forget("t", new_operation_id()))
    fence = await taken(ask, store.ttl)
    await store.later(store.ttl)
    assert await ask(anew(made(), frontier=[ABSENT])) == [ABSENT]
    with pytest.raises(ThreadDeleted):
        await ask(building(made(number=2), parent(1, before)))
    assert (await ask(base.Lease("t", LONG, fence.token)))[0] == fence.token
    assert await ask(replace(made(), fence=fence)) == []


# --- given back


async def test_a_lease_that_is_given_back_is_nobodys(ask: Asked) -> None:
    first = await taken(ask)
    await ask(replace(made(), fence=first))
    await ask(base.Release("t", first.token))
    assert not (await ask.visited())["t"].is_leased
    await ask.refuses(LeaseLost, *changes(first))
    assert (await ask(base.Lease("t", LONG, first.token)))[0] is None
    await ask(base.Release("t", first.token))
    for change in changes():
        assert not await ask(change)
    second = await taken(ask)
    assert second.token > first.token
    await ask.refuses(LeaseLost, *changes())


async def test_a_token_that_is_not_the_present_one_gives_nothing_back(ask: Asked) -> None:
    await ask(base.Release("absent", 1))
    assert "absent" not in await ask.visited()
    first = await taken(ask)
    await ask(base.Release("t", first.token))
    second = await taken(ask)
    for token in (first.token, second.token + 1, 0, -1):
        await ask(base.Release("t", token))
        await ask(base.Release("other", second.token))
    await ask.refuses(LeaseLost, *changes())
    assert await remaining(ask) > LONG / 2


# --- and the thread


async def test_a_lease_is_no_thread(store: Store, ask: Asked) -> None:
    before = await store.moment()
    await ask(base.Forget("t", new_operation_id()))
    after = await store.moment()
    fence = await taken(ask)
    assert await ask.state() is None
    assert await ask.listed() == ["source"]
    assert await ask(base.Weigh("t")) == (0, 0)
    assert await ask(base.Expire("t", LONG)) is False
    for made_at in (before, after):
        late = replace(building(made(number=2), parent(1, made_at)), fence=fence)
        with pytest.raises(ThreadDeleted):
            await ask(late)
    began = store.milliseconds()
    assert await ask(replace(made(), fence=fence)) == []
    assert (await ask.row()).created >= began - 1
    await ask.refuses(LeaseLost, *changes())


@pytest.mark.parametrize("leaves_tombstone", [True, False])
@pytest.mark.parametrize("conditional", [False, True], ids=["always", "at an epoch"])
async def test_a_thread_is_deleted_under_its_holder_who_begins_it_anew(
    store: Store, ask: Asked, leaves_tombstone: bool, conditional: bool
) -> None:
    other = await store.open()
    fence = await taken(ask)
    await ask(replace(made(), fence=fence))
    epoch = (await ask.row()).epoch if conditional else None
    forget = base.Forget("t", new_operation_id(), epoch, leaves_tombstone)
    if conditional and not leaves_tombstone:  # a sweep, which comes again
        before = await other.state()
        assert await other(forget) is False
        assert await other.state() == before
        return
    assert await other(forget) is True
    assert await other.state() is None
    assert await remaining(other) > LONG / 2
    if (seen := (await other.visited()).get("t")) is not None:
        assert seen.is_leased
    await other.refuses(LeaseLost, *changes())
    assert await ask(replace(made(number=10), fence=fence)) == []
    assert await ask(replace(write(number=10), fence=fence)) == []
    assert (await other.row()).namespaces == {"": 1}


async def test_a_lease_outlives_the_thread_that_expires(store: Store) -> None:
    lasting, passing = await store.open(), await store.open(ttl=store.ttl)
    await lasting(made("source", 4))
    fence = await taken(lasting)
    await passing(replace(made(), fence=fence))
    await lasting(base.Lease("t", 3 * LONG, fence.token))
    await store.later(store.ttl)
    assert await lasting(base.Head("t", "", None, list)) is None
    await lasting.refuses(LeaseLost, *changes())
    assert await remaining(lasting) > LONG / 2
    if (seen := (await lasting.visited()).get("t")) is not None:
        assert seen.is_leased
    assert await lasting(replace(made(number=7), fence=fence)) == []
    assert (await lasting.row()).namespaces == {"": 1}


async def test_threads_have_leases_of_their_own(ask: Asked) -> None:
    fences = {thread: await taken(ask, thread=thread) for thread in ("t", "u", "t\0", "T", "")}
    for thread, fence in fences.items():
        with pytest.raises(LeaseLost):
            await ask(made(thread))
        assert await ask(replace(made(thread), fence=fence)) == []
    await ask(base.Release("u", fences["u"].token))
    assert await ask(made("u", 2)) == []
    await ask.refuses(LeaseLost, made(number=2))
