"""When a thread expires, who refreshes it, and that nothing is seen of it afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from holdfast.backends import base
from holdfast.backends.base import new_operation_id
from holdfast.errors import HoldfastError, LeaseLost, ThreadDeleted
from support.backends import Backend
from support.clock import LONG, Asked, Store, expired, expires_after, timed
from support.make import checkpoint_id
from support.requests import ABSENT, CHANGES, COUNTING, anew, building, made, parent, write

OTHERS: dict[str, Callable[[], Any]] = {
    "GetRecord": lambda: base.GetRecord("t", "", checkpoint_id(1)),
    "Chunks": lambda: base.Chunks("t", [id for id, _ in made().chunks], list),
    "WritesOf": lambda: base.WritesOf("t", [("", checkpoint_id(1))]),
    "Page of all threads": lambda: base.Page(None, None, None, None, None, 10),
    "RunThreads": lambda: base.RunThreads(["r"]),
    "Census": lambda: base.Census("t"),
    "Mark": lambda: base.Mark("t"),
    "ChunkIds": lambda: base.ChunkIds("t", None, 10),
    "Threads": lambda: base.Threads(10),
    "Visit": lambda: base.Visit(None, 10),
    "Weigh": lambda: base.Weigh("t"),
    "Lease": lambda: base.Lease("t", LONG),
    "Release": lambda: base.Release("t", 1),
}
READS = COUNTING | OTHERS


@pytest.fixture
async def store(backend: Backend, mode: str, tmp_path: Path) -> AsyncIterator[Store]:
    async with timed(backend, tmp_path, mode) as store:
        yield store


# --- exactly


async def test_a_thread_is_there_until_its_ttl_after_the_last_write_and_then_not(
    store: Store,
) -> None:
    lasting, ask = await store.open(), await store.open(ttl=store.ttl)
    margin = 0 if store.is_moved else 0.002  # the server counts milliseconds, and rounds
    for number, change in enumerate((made(number=9), write(number=9)), 1):
        await lasting(made(number=number))
        before = store.now()
        await ask(change)
        after = store.now()
        while True:
            asked = store.now()
            found = await ask(base.Head("t", "", None, list))
            if store.now() < before + store.ttl - margin:
                assert found is not None
            if asked >= after + store.ttl + margin:
                assert found is None
                break
            await store.later(store.ttl / 8)


async def test_without_a_ttl_nothing_expires(store: Store) -> None:
    ask = await store.open()
    await ask(made())
    await ask(write())
    row = await ask.row()
    assert row.expires is None


@pytest.mark.parametrize("kind", CHANGES)
async def test_each_change_refreshes(store: Store, kind: str) -> None:
    ask = await store.open(ttl=LONG)
    await ask(made("source"))
    await ask(made())
    before, source = await ask.row(), await ask.row("source")
    assert expires_after(before, LONG)
    await store.later(0.03)
    await ask(CHANGES[kind]())
    after = await ask.row()
    assert after.expires >= before.expires + 30
    assert expires_after(after, LONG)
    assert await ask.row("source") == source


@pytest.mark.parametrize("kind", CHANGES)
async def test_a_change_gives_the_thread_the_ttl_of_its_saver(store: Store, kind: str) -> None:
    first, second = await store.open(ttl=LONG), await store.open(ttl=3 * LONG)
    without = await store.open()
    await first(made("source"))
    await first(made())
    for ask, ttl in ((second, 3 * LONG), (without, None), (first, LONG), (second, 3 * LONG)):
        await ask(CHANGES[kind]())
        row = await ask.row()
        assert row.expires is None if ttl is None else expires_after(row, ttl)


@pytest.mark.parametrize("kind", CHANGES)
async def test_what_is_refused_or_repeated_does_not_refresh(store: Store, kind: str) -> None:
    ask = await store.open(ttl=LONG)
    await ask(made("source"))
    await ask(base.Forget("t", new_operation_id()))
    await ask(made())
    done = CHANGES[kind]()
    await ask(done)
    token, _ = await ask(base.Lease("t", LONG))
    before = await ask.row()
    await store.later(0.03)
    await ask(done)
    with pytest.raises(LeaseLost):
        await ask(CHANGES[kind]())
    with pytest.raises(LeaseLost):
        await ask(anew(CHANGES[kind](), fence=base.Fence(token - 1, LONG)))
    fence = base.Fence(token, LONG)
    if kind != "Copy":
        assert await ask(anew(CHANGES[kind](), frontier=[ABSENT], fence=fence)) == [ABSENT]
        late = write(number=5) if kind == "Write" else building(made(number=6), parent(5))
        with pytest.raises(ThreadDeleted):
            await ask(replace(late, fence=fence))
    assert await ask.row() == before


# --- reads


@pytest.mark.parametrize("kind", READS)
async def test_reads_refresh_only_where_they_shall(store: Store, kind: str) -> None:
    plain, refreshing = await store.open(ttl=LONG), await store.open(ttl=LONG, refresh_on_read=True)
    await plain(made())
    await plain(write())
    before = await plain.row()
    await store.later(0.03)
    await plain(READS[kind]())
    assert await plain.row() == before
    await refreshing(READS[kind]())
    after = await plain.row()
    assert replace(after, expires=None) == replace(before, expires=None), "only the expiry moves"
    if kind in COUNTING:
        assert after.expires >= before.expires + 30
    else:
        assert after == before


@pytest.mark.parametrize("kind", COUNTING)
async def test_a_read_gives_no_expiry_to_a_thread_that_has_none(store: Store, kind: str) -> None:
    lasting, reader = await store.open(), await store.open(ttl=LONG, refresh_on_read=True)
    await lasting(made())
    await reader(COUNTING[kind]())
    assert (await reader.row()).expires is None
    await reader(write())
    assert (await reader.row()).expires is not None
    assert await reader(base.Expire("t", None))
    await reader(COUNTING[kind]())
    assert (await reader.row()).expires is None


async def test_a_thread_that_is_read_again_and_again_outlives_its_ttl(store: Store) -> None:
    ttl = store.ttl if store.is_moved else 1.5
    ask = await store.open(ttl=ttl, refresh_on_read=True)
    await ask(made())
    since, last = store.now(), store.now()
    while store.now() < since + 1.2 * ttl:
        await store.later(ttl / 8)
        asked = store.now()
        found = await ask(base.Head("t", "", None, list))
        if store.now() >= last + ttl:
            return  # the machine was too slow for a word on it
        assert found is not None
        last = asked


# --- unseen


async def replies(ask: Asked, thread: str, request: Callable[[str], Any]) -> Any:
    """What is answered, without what names the thread."""
    try:
        reply = await ask(request(thread))
    except HoldfastError as error:
        return type(error)
    if isinstance(request(thread), (base.Census, base.Mark)):
        return reply[1:]
    if isinstance(request(thread), base.WritesOf):
        return [[*some] for some in reply.values() if some]
    return reply


BLIND: dict[str, Callable[[str], Any]] = {
    "Head": lambda t: base.Head(t, "", None, list),
    "Head of a checkpoint": lambda t: base.Head(t, "", checkpoint_id(1), list),
    "GetRecord": lambda t: base.GetRecord(t, "", checkpoint_id(1)),
    "Chunks": lambda t: base.Chunks(t, [id for id, _ in made().chunks], list),
    "WritesOf": lambda t: base.WritesOf(t, [("", checkpoint_id(1))]),
    "Page": lambda t: base.Page(t, None, None, None, None, 10),
    "Ancestors": lambda t: base.Ancestors(t, "", None, 10),
    "Ancestors of a checkpoint": lambda t: base.Ancestors(t, "", checkpoint_id(2), 10),
    "Census": base.Census,
    "Mark": base.Mark,
    "ChunkIds": lambda t: base.ChunkIds(t, None, 10),
    "Remove": lambda t: base.Remove(
        t, None, [("", checkpoint_id(1)), ("", checkpoint_id(2))], [], new_operation_id()
    ),
    "Remove at an epoch": lambda t: base.Remove(t, 1, [], [], new_operation_id()),
    "Discard": lambda t: base.Discard(t, [id for id, _ in made().chunks], 1),
    "Copy": lambda t: base.Copy(t, "target", new_operation_id()),
    "Expire": lambda t: base.Expire(t, LONG),
    "Expire never": lambda t: base.Expire(t, None),
    "Threads": lambda t: base.Threads(10, prefix=t),
}


@pytest.mark.parametrize("refreshes", [False, True], ids=["plain", "refresh on read"])
async def test_every_request_takes_an_expired_one_for_none(store: Store, refreshes: bool) -> None:
    threads = [f"expired {kind}" for kind in BLIND]
    await expired(store, *threads)
    ask = await store.open(ttl=LONG, refresh_on_read=refreshes)
    for thread, (kind, request) in zip(threads, BLIND.items(), strict=True):
        assert await replies(ask, thread, request) == await replies(ask, "absent", request), kind
        assert await ask.state(thread) is None, kind
        assert await ask(base.Head(thread, "", None, list)) is None, kind
    assert await ask.state("target") is None
    assert await ask(base.Page(None, None, None, None, None, 10)) == []
    assert await ask(base.RunThreads(["r"])) == []
    assert await ask(base.Threads(10)) == []


async def test_a_sweep_sees_and_weighs_an_expired_thread(store: Store) -> None:
    lasting = await store.open()
    await lasting(made("other"))
    for request in (made(), write()):
        await lasting(request)
    whole = await lasting(base.Weigh("t"))
    assert not (await lasting.visited())["t"].is_expired
    ask = await expired(store, "t")
    await ask(made("other", 2))
    one = (await ask.visited()).get("t")
    if store.is_moved:
        assert one is not None
    if one is not None:  # Redis may have removed it by itself
        assert one.is_expired
        assert not one.is_deleted
        assert not one.is_leased
    checkpoints, size = await ask(base.Weigh("t"))
    if store.is_moved:
        assert checkpoints == 2
        assert size > whole[1]
    assert checkpoints <= 2
    assert not (await ask.visited())["other"].is_expired


async def test_expired_threads_are_forgotten_by_their_epoch(store: Store) -> None:
    ask = await expired(store, "t", "u")
    seen = await ask.visited()
    await ask(made("u"))
    for thread, one in seen.items():
        assert one.is_expired
        forgotten = base.Forget(thread, new_operation_id(), one.epoch, leaves_tombstone=False)
        assert await ask(forgotten) is (thread == "t")
    assert await ask(base.Weigh("t")) == (0, 0)
    assert (await ask(base.Weigh("u")))[0] == 1
