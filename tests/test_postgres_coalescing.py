"""What changes a thread in one moment on an event loop: one round trip, and to each caller what is
its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import holdfast
import psycopg
import pytest
from holdfast.backends.base import (
    Census,
    Commit,
    Fence,
    Forget,
    Lease,
    Write,
    WritesOf,
    new_operation_id,
)
from support.make import checkpoint, checkpoint_id, config
from support.postgres import eye, table_of
from support.postgres_server import postgres_url
from support.requests import anew, made, write

FEW = 10


@pytest.fixture
def url(tmp_path: Path) -> str:
    return postgres_url(tmp_path)


@pytest.fixture
async def saver(url: str) -> AsyncIterator[holdfast.Saver]:
    async with holdfast.open(url) as saver:
        await saver.asetup()
        yield saver


@pytest.fixture
def sent(saver: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests of each statement that has pending writes."""
    seen: list[Any] = []
    store = saver._live.backend._changes.change

    def spy(requests: Any) -> Any:
        if any(isinstance(request, Write) for request in requests):
            seen.append(list(requests))
        return store(requests)

    monkeypatch.setattr(saver._live.backend._changes, "change", spy)
    return seen


async def put(saver: holdfast.Saver, thread: str = "t") -> Any:
    return await saver.aput(config(thread), checkpoint(1), {}, {})


async def writes(saver: holdfast.Saver, thread: str = "t") -> list[Any]:
    found = await saver.aget_tuple(config(thread))
    assert found is not None
    return [*(found.pending_writes or [])]


async def test_writes_of_one_moment_are_one(saver: holdfast.Saver, sent: list[Any]) -> None:
    stored = await put(saver)
    batches = [
        saver.aput_writes(stored, [("a", n), ("b", [n])], f"task {n:03}") for n in range(100)
    ]
    await asyncio.gather(*batches)
    assert [len(requests) for requests in sent] == [100]
    assert await writes(saver) == [
        (f"task {n:03}", *one) for n in range(100) for one in [("a", n), ("b", [n])]
    ]


async def test_a_thousand_are_a_few_and_each_thread_has_its_own(
    saver: holdfast.Saver, sent: list[Any]
) -> None:
    places = [await put(saver, f"t{number}") for number in range(4)]
    await asyncio.gather(
        *(saver.aput_writes(places[n % 4], [("a", n)], f"task {n:04}") for n in range(2000))
    )
    assert len(sent) == 8, "of 256 at most"
    for requests in sent:
        assert len({request.thread_id for request in requests}) == 1
    for number in range(4):
        assert [one[2] for one in await writes(saver, f"t{number}")] == [*range(number, 2000, 4)]


async def test_who_comes_while_others_are_under_way_joins_the_next(
    saver: holdfast.Saver, sent: list[Any], url: str
) -> None:
    stored = await put(saver)
    with eye(url) as holder, holder.transaction():
        holder.execute(f"LOCK {table_of(url)}_writes IN SHARE MODE")
        tasks = [asyncio.create_task(saver.aput_writes(stored, [("a", 0)], "task 0"))]
        while not sent:  # noqa: ASYNC110
            await asyncio.sleep(0)
        for number in range(1, 50):
            tasks.append(
                asyncio.create_task(saver.aput_writes(stored, [("a", number)], f"task {number}"))
            )
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert [len(requests) for requests in sent] == [1, 49]
    assert len(await writes(saver)) == 50


async def test_a_checkpoint_goes_with_the_writes_of_its_moment(saver: Any, sent: list[Any]) -> None:
    """One at a time: those of a thread follow each other."""
    await put(saver)
    execute = saver._live.backend.aexecute
    requests = [write(idx=0), made(number=2), write(idx=1), made(number=3), write(idx=2)]
    assert await asyncio.gather(*map(execute, requests)) == [[]] * 5
    assert [len(group) for group in sent] == [2, 3]
    for group in sent:
        assert [type(request) for request in group].count(Commit) == 1
    _, rows, _ = await execute(Census("t"))
    assert {row.checkpoint_id for row in rows} == {checkpoint_id(number) for number in (1, 2, 3)}
    place = ("", checkpoint_id(1))
    stored = (await execute(WritesOf("t", [place])))[place]
    assert [one.idx for one in stored] == [0, 1, 2]


@pytest.mark.parametrize("lacks", ["commit", "write"])
async def test_a_checkpoint_and_writes_that_lack_something_apart(saver: Any, lacks: str) -> None:
    """What is missing for one of them is not missing for the other, which is stored."""
    await put(saver)
    execute = saver._live.backend.aexecute
    absent = b"\1" * 16
    requests = {"commit": made(number=2), "write": write(idx=7)}
    requests[lacks] = replace(requests[lacks], frontier=[absent])
    replies = await asyncio.gather(*map(execute, requests.values()))
    assert dict(zip(requests, replies, strict=True)) == {
        kind: [absent] if kind == lacks else [] for kind in requests
    }
    found = await saver.aget_tuple(config(id=checkpoint_id(2)))
    assert (found is None) == (lacks == "commit")
    place = ("", checkpoint_id(1))
    stored = (await execute(WritesOf("t", [place])))[place]
    assert [one.idx for one in stored] == ([] if lacks == "write" else [7])


async def test_a_part_that_was_done_before_is_no_reason_to_leave_the_rest(saver: Any) -> None:
    await put(saver)
    execute = saver._live.backend.aexecute
    done = write(idx=1)
    assert await execute(done) == []
    assert await asyncio.gather(*map(execute, [done, write(idx=2), made(number=2)])) == [[]] * 3
    place = ("", checkpoint_id(1))
    stored = (await execute(WritesOf("t", [place])))[place]
    assert [one.idx for one in stored] == [1, 2]
    _, rows, _ = await execute(Census("t"))
    assert {row.checkpoint_id for row in rows} == {checkpoint_id(1), checkpoint_id(2)}


async def test_a_checkpoint_under_another_fence_goes_apart(saver: Any, sent: list[Any]) -> None:
    await put(saver)
    execute = saver._live.backend.aexecute
    token, _ = await execute(Lease("t", 50))
    late = replace(made(number=2), fence=Fence(token - 1, 50))
    replies = await asyncio.gather(
        execute(replace(write(idx=7), fence=Fence(token, 50))),
        execute(late),
        return_exceptions=True,
    )
    assert replies[0] == []
    assert isinstance(replies[1], holdfast.LeaseLost)
    assert [len(group) for group in sent] == [1]
    assert await saver.aget_tuple(config(id=checkpoint_id(2))) is None


async def test_the_first_of_equal_writes_stays(saver: holdfast.Saver) -> None:
    """As they were called, also within one statement; special ones are replaced."""
    stored = await put(saver)
    await asyncio.gather(
        *(saver.aput_writes(stored, [("a", number)], "task") for number in range(5)),
        *(saver.aput_writes(stored, [("__error__", f"{n}")], "task") for n in range(5)),
    )
    found = await writes(saver)
    assert sorted(found, key=str) == [("task", "__error__", "4"), ("task", "a", 0)]


async def test_each_has_a_reply_of_its_own(saver: Any) -> None:
    await put(saver)
    execute = saver._live.backend.aexecute
    absent = [bytes([number]) * 16 for number in range(FEW)]
    requests = [anew(write(idx=n), frontier=absent[: n % 3]) for n in range(FEW)]
    replies = await asyncio.gather(*map(execute, requests))
    assert replies == [absent[: n % 3] for n in range(FEW)]
    place = ("", checkpoint_id(1))
    stored = (await execute(WritesOf("t", [place])))[place]
    assert sorted(one.idx for one in stored) == [n for n in range(FEW) if n % 3 == 0]


async def test_only_writes_under_one_fence_go_together(saver: Any, sent: list[Any]) -> None:
    await put(saver)
    execute = saver._live.backend.aexecute
    token, _ = await execute(Lease("t", 50))
    fences = [Fence(token, 50), Fence(token - 1, 50), None]
    requests = [replace(write(idx=n), fence=fences[n // FEW]) for n in range(3 * FEW)]
    replies = await asyncio.gather(*map(execute, requests), return_exceptions=True)
    assert replies[:FEW] == [[]] * FEW
    assert [type(reply) for reply in replies[FEW:]] == [holdfast.LeaseLost] * 2 * FEW
    assert len({id(reply) for reply in replies[FEW:]}) == 2 * FEW
    for group in sent:
        assert len({request.fence for request in group}) == 1
    assert [len(group) for group in sent if group[0].fence == fences[0]] == [FEW]


async def test_a_late_write_is_refused_and_not_its_neighbours(saver: Any, sent: list[Any]) -> None:
    execute = saver._live.backend.aexecute
    await put(saver)
    await execute(Forget("t", new_operation_id()))
    await put(saver)
    late = [write(idx=n, number=2) for n in range(FEW)]
    requests = [one if n % 2 else replace(one, made=2**52) for n, one in enumerate(late)]
    replies = await asyncio.gather(*map(execute, requests), return_exceptions=True)
    assert [reply == [] for reply in replies] == [n % 2 == 0 for n in range(FEW)]
    assert {type(reply) for reply in replies[1::2]} == {holdfast.ThreadDeleted}
    assert [len(group) for group in sent] == [FEW, *[1] * FEW]


async def test_an_error_is_its_callers_alone(saver: holdfast.Saver) -> None:
    long = "".join(chr(0x4E00 + number * 7919 % 20000) for number in range(2000))
    stored = await put(saver)
    results = await asyncio.gather(
        *(
            saver.aput_writes(config(id=long) if n % 3 == 0 else stored, [("a", n)], f"task {n}")
            for n in range(FEW)
        ),
        return_exceptions=True,
    )
    for number, result in enumerate(results):
        if number % 3 == 0:
            assert isinstance(result, holdfast.ConfigurationError)
            assert isinstance(result.__cause__, psycopg.Error)
        else:
            assert result is None
    assert [one[2] for one in await writes(saver)] == [n for n in range(FEW) if n % 3]


async def test_a_dead_server_is_told_to_each_caller() -> None:
    async with holdfast.open("postgresql://127.0.0.1:1/x", retry_budget=0) as saver:
        saver._live.backend._is_set_up = True  # type: ignore[attr-defined]
        errors = await asyncio.gather(
            *(saver.aput_writes(config(id="1"), [("a", n)], f"{n}") for n in range(FEW)),
            return_exceptions=True,
        )
        for error in errors:
            assert isinstance(error, holdfast.StoreUnavailable)
            assert isinstance(error.__cause__, psycopg.Error)
        assert len({id(error) for error in errors}) == FEW, "tracebacks would add up"


@pytest.mark.parametrize("moment", ["before", "under way"])
async def test_who_is_cancelled_disturbs_nobody(
    saver: holdfast.Saver, sent: list[Any], moment: str
) -> None:
    stored = await put(saver)
    tasks = [
        asyncio.create_task(saver.aput_writes(stored, [("a", n)], f"task {n}")) for n in range(FEW)
    ]
    while moment == "under way" and not sent:  # noqa: ASYNC110
        await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [task.cancelled() for task in tasks] == [number % 3 == 0 for number in range(FEW)]
    found = {one[2] for one in await writes(saver)}
    assert found >= {number for number in range(FEW) if number % 3}
    await saver.aput_writes(stored, [("a", "later")], "later")
    assert "later" in {one[2] for one in await writes(saver)}
