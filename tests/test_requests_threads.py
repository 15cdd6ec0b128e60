"""How threads are listed, gone through, and weighed."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from holdfast.backends import base
from holdfast.backends.base import new_operation_id
from support.backends import Backend
from support.clock import LONG, Asked, Store, timed
from support.make import checkpoint_id
from support.requests import WORDS, anew, forget, made, write

ODD = ["", "%", "_", "\\", "*", "?", "[a]", "{t}", ":", "::", "a%", "a_", "ab", "aB", "a\\", "a\\%"]
ODD += ["a*", "a?", "[", "]", "a[b", "{", "}", "a:b", "a:", "a\0b", "a\0", "é", "e\u0301", "\ud800"]
ODD += ["\U0001f600", "\uffff", "'", '"', "$1", "a'; --", " ", "a ", "\n", "^", "a-z", "a" * 300]


@pytest.fixture
async def store(backend: Backend, mode: str, tmp_path: Path) -> AsyncIterator[Store]:
    async with timed(backend, tmp_path, mode) as store:
        yield store


@pytest.fixture
async def ask(store: Store) -> Asked:
    return await store.open()


def put(thread: str, number: int = 1, ns: str = "") -> Any:
    return made(thread, number, WORDS[:2], ns)


async def rows_of(ask: Asked) -> list[base.ThreadRow]:
    rows: list[base.ThreadRow] = await ask(base.Threads(1000))
    return rows


# --- listed


async def test_the_last_written_thread_comes_first(store: Store, ask: Asked) -> None:
    rng = random.Random(1)
    last: dict[str, int] = {}
    threads = [f"thread {at}" for at in range(9)]
    changes = [
        lambda thread: put(thread, rng.randrange(1, 9)),
        lambda thread: write(thread, idx=rng.randrange(9)),
        lambda thread: base.Copy("thread 0", thread, new_operation_id()),
    ]
    for thread in threads:
        await ask(put(thread))
    for at in range(40):
        await store.later(0.002)
        thread = rng.choice(threads[1:])
        await ask(rng.choice(changes)(thread))
        last[thread] = at
        assert (await ask(base.Threads(1)))[0].thread_id == thread
    written = sorted(last, key=lambda thread: -last[thread])
    assert (await ask.listed())[: len(written)] == written


async def test_threads_of_one_moment_come_greatest_id_first(store: Store, ask: Asked) -> None:
    for thread in random.Random(2).sample(ODD, len(ODD)):
        await ask(put(thread))
    rows = await rows_of(ask)
    keys = [(row.updated, row.thread_id) for row in rows]
    assert keys == sorted(keys, reverse=True)
    assert {row.thread_id for row in rows} == set(ODD)
    if store.is_moved:
        assert [row.thread_id for row in rows] == sorted(ODD, reverse=True)


@pytest.mark.parametrize("seed", range(3))
async def test_pages_are_cuts_of_the_whole(store: Store, ask: Asked, seed: int) -> None:
    rng = random.Random(seed)
    threads = rng.sample(ODD, 20) + [f"{rng.choice('ab%_')}{rng.randrange(30)}" for _ in range(20)]
    for thread in [*dict.fromkeys(threads)]:
        if rng.random() < 0.3:
            await store.later(0.002)
        await ask(put(thread))
    whole = await rows_of(ask)
    keys = [(row.updated, row.thread_id) for row in whole]
    for limit in (1, 2, 7, 39, 40, 41):
        assert await ask.listed(limit) == [row.thread_id for row in whole]
    asked = [base.Threads(rng.randrange(1, 9), rng.choice(keys)) for _ in range(12)]
    asked += [base.Threads(rng.randrange(1, 9), (time, "a")) for time, _ in rng.sample(keys, 4)]
    asked += [base.Threads(50, (keys[-1][0], "")), base.Threads(50, (2**52, ""))]
    asked += [replace(one, until=rng.choice(keys)[0] - rng.randrange(2)) for one in asked]
    asked += [base.Threads(50, until=0), base.Threads(50, until=keys[0][0])]
    asked += [replace(one, prefix=rng.choice(["a", "b", "%", "_", ""])) for one in asked]
    for request in asked:
        expected = [
            row
            for row in whole
            if (request.after is None or (row.updated, row.thread_id) < request.after)
            and (request.until is None or row.updated <= request.until)
            and row.thread_id.startswith(request.prefix)
        ]
        assert await ask(request) == expected[: request.limit], request


async def test_a_prefix_is_no_pattern(ask: Asked) -> None:
    for thread in ODD:
        await ask(put(thread))
    for prefix in [*ODD, "a" * 299, "a" * 301, "A", "é\u0301", "%%", ".", ".*", "\\\\", "\\%"]:
        for limit in (1, 3, 1000):
            found = await ask.listed(limit, prefix=prefix)
            assert sorted(found) == sorted(one for one in ODD if one.startswith(prefix)), prefix


async def test_few_of_many_threads_are_found_by_their_prefix(ask: Asked) -> None:
    wanted = {f"b{at}" for at in range(0, 120, 29)}
    for at in range(120):
        await ask(write(f"{'b' if f'b{at}' in wanted else 'a'}{at}"))
        await ask(put(f"{'b' if f'b{at}' in wanted else 'a'}{at}"))
    for limit in (1, 2, len(wanted), 50):
        assert set(await ask.listed(limit, prefix="b")) == wanted
    assert len(await ask.listed(7)) == 120


async def test_a_page_is_full_though_much_is_left_out(store: Store) -> None:
    ask, passing = await store.open(), await store.open(ttl=store.ttl)
    seen = []
    for at in range(60):
        thread = f"{at:02}"
        if at % 4 == 0:
            await ask(put(thread))
            seen.append(thread)
        elif at % 4 == 1:
            await ask(write(thread))
        elif at % 4 == 2:
            await passing(put(thread))
        else:
            await ask(forget(thread))
    await ask(base.Lease("leased", LONG))
    await store.later(store.ttl)
    for limit in (1, 4, 14, 15, 16):
        assert len(await ask(base.Threads(limit))) == min(limit, len(seen))
        assert sorted(await ask.listed(limit)) == seen


async def test_what_is_told_of_a_thread(store: Store) -> None:
    ask = await store.open(ttl=LONG)
    began = store.milliseconds()
    sub = ["", "sub", "sub:1", "\U0001f600", "a\0b", "%"]
    numbers = {ns: range(1, 3 + at) for at, ns in enumerate(sub)}
    await ask(write(number=9))
    for ns in reversed(sub):
        for number in numbers[ns]:
            await ask(put("t", number, ns))
    await ask(write(idx=1, number=2))
    await ask(write(idx=-1, number=2))
    await ask(write(idx=5, number=1))
    await ask(anew(write(number=2), checkpoint_ns="sub"))
    ended = store.milliseconds()
    row = await ask.row()
    assert dict(row.namespaces) == {ns: len(some) for ns, some in numbers.items()}
    assert began - 1 <= row.created <= row.updated <= ended + 1
    assert row.epoch == (await ask(base.Census("t")))[0]
    assert row.expires == pytest.approx(row.updated + LONG * 1000, abs=1)
    head = await ask(base.Head("t", "", None, list))
    assert head.checkpoint_id == checkpoint_id(2)
    assert replace(row.head, chunks={}, writes=[*row.head.writes]) == replace(
        head, chunks={}, writes=[*head.writes]
    )
    assert sorted((one.idx, one.data) for one in row.head.writes) == [
        (-1, made().record),
        (1, made().record),
    ]


async def test_the_head_is_of_the_first_namespace_that_has_checkpoints(ask: Asked) -> None:
    for ns in ("sub:2", "sub", "zzz", "\U0001f600", "\uffff"):
        for number in (2, 1):
            await ask(put("t", number, ns))
        await ask(write())  # in the root namespace there are but writes
    row = await ask.row()
    assert (row.head.thread_id, row.head.checkpoint_ns) == ("t", "sub")
    assert row.head.checkpoint_id == checkpoint_id(2)
    assert "" not in row.namespaces
    doomed = [("sub", checkpoint_id(number)) for number in (1, 2)]
    await ask(base.Remove("t", None, doomed, [], new_operation_id()))
    row = await ask.row()
    assert row.head.checkpoint_ns == "sub:2"
    assert row.namespaces.keys() == {"sub:2", "zzz", "\U0001f600", "\uffff"}
    await ask(put("t", 7))
    assert (await ask.row()).head.checkpoint_id == checkpoint_id(7)


async def test_times_are_those_of_the_first_and_the_last_write(store: Store, ask: Asked) -> None:
    await ask(put("source"))
    await ask(put("t"))
    first = await ask.row()
    assert first.created == first.updated
    moment = await store.moment()
    await ask(write())
    second = await ask.row()
    assert first.updated < moment < second.updated
    assert second.created == first.created
    await store.moment()
    token, _ = await ask(base.Lease("t", LONG))
    await ask(base.Release("t", token))
    await ask(base.Expire("t", LONG))
    await ask(base.Expire("t", None))
    epoch, _ = await ask(base.Mark("t"))
    await ask(base.Discard("t", [b"\x77" * 16], epoch))
    await ask(base.Copy("t", "other", new_operation_id()))
    third = await ask.row()
    assert (third.created, third.updated) == (first.created, second.updated), "nothing was written"
    await ask(base.Copy("source", "t", new_operation_id()))
    fourth = await ask.row()
    assert fourth.created == first.created
    assert fourth.updated > second.updated
    assert (await ask.row("other")).created > second.updated
    moment = await store.moment()
    await ask(forget())
    await ask(put("t"))
    assert (await ask.row()).created > moment


async def test_replaced_and_removed_checkpoints_are_counted_right(ask: Asked) -> None:
    for number in (1, 2, 3, 2):
        await ask(put("t", number))
    assert (await ask.row()).namespaces == {"": 3}
    doomed = [("", checkpoint_id(3)), ("", checkpoint_id(8))]
    await ask(base.Remove("t", None, doomed, [], new_operation_id()))
    row = await ask.row()
    assert row.namespaces == {"": 2}
    assert row.head.checkpoint_id == checkpoint_id(2)
    await ask(write(number=2))
    doomed = [("", checkpoint_id(number)) for number in (1, 2)]
    await ask(write(number=9))
    await ask(base.Remove("t", None, doomed, [], new_operation_id()))
    assert await ask.row() is None, "only writes are left"
    assert not (await ask.visited())["t"].is_deleted
    await ask(base.Remove("t", None, [("", checkpoint_id(9))], [], new_operation_id()))
    assert "t" not in await ask.visited()


# --- gone through


@pytest.mark.parametrize("limit", [1, 3, 1000])
async def test_a_sweep_comes_by_every_thread(store: Store, limit: int) -> None:
    ask, passing = await store.open(), await store.open(ttl=store.ttl)
    kinds = ["kept", "writes", "expired", "deleted", "begun", "leased", "persistent"]
    threads = {f"{kind} {id}": kind for kind in kinds for id in ODD[:20]}
    for thread, kind in threads.items():
        if kind == "writes":
            await ask(write(thread))
        elif kind != "expired":
            await ask(put(thread))
        if kind in ("deleted", "begun"):
            await ask(forget(thread))
        if kind == "begun":
            await ask(put(thread))
        if kind == "leased":
            await ask(base.Lease(thread, 3 * LONG))
        if kind == "persistent":
            await ask(base.Expire(thread, None))
    before = await store.moment()
    for thread, kind in threads.items():
        if kind == "expired":
            await passing(put(thread))
        if kind == "persistent":
            await passing(write(thread))
    await store.later(store.ttl)
    seen = await ask.visited(limit)
    gone = {thread for thread, kind in threads.items() if kind == "expired"} - seen.keys()
    assert not gone or not store.is_moved
    assert seen.keys() == threads.keys() - gone
    for thread, one in seen.items():
        kind = threads[thread]
        assert one.is_expired == (kind == "expired"), thread
        assert one.is_deleted == (kind == "deleted"), thread
        assert one.is_leased == (kind == "leased"), thread
        assert (one.updated >= before) == (kind in ("expired", "persistent")), thread
        if kind not in ("expired", "deleted"):
            assert one.epoch == (await ask(base.Census(thread)))[0]


async def test_threads_that_stay_are_met_while_others_come_and_go(ask: Asked) -> None:
    staying = {f"stays {at}" for at in range(40)}
    for at, thread in enumerate(sorted(staying)):
        await ask(put(thread))
        await ask(put(f"goes {at}"))
    met: set[str] = set()
    cursor, at = None, 0
    while True:
        page, cursor = await ask(base.Visit(cursor, 5))
        met |= {one.thread_id for one in page}
        if cursor is None:
            break
        await ask(forget(f"goes {39 - at}", leaves_tombstone=False))
        if page:
            await ask(forget(page[-1].thread_id.replace("stays", "goes"), leaves_tombstone=False))
            if page[-1].thread_id.startswith("goes"):
                await ask(forget(page[-1].thread_id, leaves_tombstone=False))
        await ask(put(f"comes {at}"))
        await ask(write(f"stays {at % 40}", idx=at))
        at += 1
        assert at < 200
    assert staying <= met


async def test_an_empty_store_has_nothing_to_list(ask: Asked) -> None:
    assert await ask(base.Threads(10)) == []
    assert await ask(base.Threads(10, (1, "t"), 5, "t")) == []
    assert await ask(base.Visit(None, 10)) == ([], None)
    assert await ask(base.Weigh("t")) == (0, 0)
