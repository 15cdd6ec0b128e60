"""The line of a thread's changes on an event loop: each caller has its reply, whatever happens."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import holdfast
import pytest
from holdfast.backends.postgres.coalesce import ChangeLines
from support.make import checkpoint_id
from support.requests import anew, made, write


class Store:
    """Stores requests when it is told to."""

    def __init__(self, is_ready: bool) -> None:
        self.sent: list[Sequence[Any]] = []
        self.replies: asyncio.Queue[list[bytes] | Exception] = asyncio.Queue()
        self.given_up = 0
        self.is_ready = is_ready
        self.lines = ChangeLines(self.store, lambda: self.is_ready)

    async def store(self, requests: Sequence[Any]) -> list[bytes]:
        self.sent.append(requests)
        try:
            reply = await self.replies.get()
        except GeneratorExit:
            self.given_up += 1
            raise
        if isinstance(reply, Exception):
            raise reply
        return reply

    def send(self, request: Any) -> asyncio.Task[Any]:
        return asyncio.ensure_future(self.lines.send(anew(request)))


async def ticks(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture(params=[True, False], ids=["ready", "connecting"])
async def store(request: pytest.FixtureRequest) -> Store:
    return Store(request.param)


async def outcomes(*tasks: asyncio.Task[Any]) -> list[Any]:
    async with asyncio.timeout(5) if sys.version_info >= (3, 11) else _Forever():
        return await asyncio.gather(*tasks, return_exceptions=True)


class _Forever:
    async def __aenter__(self) -> None: ...
    async def __aexit__(self, *_: object) -> None: ...


async def test_a_failure_of_the_store_is_that_of_all_in_the_line(store: Store) -> None:
    """Each would wait for it as long again."""
    tasks = [store.send(made(number=number)) for number in range(1, 5)]
    await ticks()
    late = store.send(made(number=9))
    store.replies.put_nowait(holdfast.StoreUnavailable("down"))
    assert [type(one) for one in await outcomes(*tasks)] == [holdfast.StoreUnavailable] * 4
    assert len(store.sent) == 1
    store.replies.put_nowait([])
    assert await outcomes(late) == [[]], "it came later, and is tried"


async def test_a_failure_of_the_store_is_not_that_of_who_came_later(store: Store) -> None:
    first = store.send(made(number=1))
    await ticks()
    tasks = [store.send(made(number=number)) for number in range(2, 6)]
    await ticks()
    store.replies.put_nowait([])
    assert await outcomes(first) == [[]]
    await ticks()
    late = store.send(made(number=9))
    await ticks()
    store.replies.put_nowait(holdfast.StoreUnavailable("down"))
    assert [type(one) for one in await outcomes(*tasks)] == [holdfast.StoreUnavailable] * 4
    assert len(store.sent) == 2
    store.replies.put_nowait([])
    assert await outcomes(late) == [[]], "it came later, and is tried"


async def test_a_checkpoint_is_sent_at_once_with_the_writes_before_it(store: Store) -> None:
    tasks = [store.send(write(idx=1)), store.send(made(number=1))]
    await asyncio.sleep(0)
    assert [len(requests) for requests in store.sent] == [2] * store.is_ready
    await asyncio.sleep(0)
    assert [len(requests) for requests in store.sent] == [2]
    store.replies.put_nowait([])
    assert await outcomes(*tasks) == [[], []]


async def test_the_next_checkpoint_of_a_run_does_not_wait_for_writes(store: Store) -> None:
    """Those that came meanwhile go with it."""

    async def run() -> None:
        for number in (1, 2):
            await store.lines.send(made(number=number))

    task = asyncio.ensure_future(run())
    await ticks()
    writes = [store.send(write(idx=number)) for number in range(3)]
    await ticks()
    store.replies.put_nowait([])
    store.replies.put_nowait([])
    await outcomes(task, *writes)
    assert [len(requests) for requests in store.sent] == [1, 4]


async def test_writes_behind_the_last_checkpoint_are_sent_without_another(store: Store) -> None:
    first = store.send(made(number=1))
    await ticks()
    writes = [store.send(write(idx=number)) for number in range(3)]
    await ticks()
    store.replies.put_nowait([])
    store.replies.put_nowait([])
    assert await outcomes(first, *writes) == [[]] * 4
    assert [len(requests) for requests in store.sent] == [1, 3]


async def test_a_checkpoint_that_comes_behind_others_is_not_sent_before_them(
    store: Store,
) -> None:
    """In the ticks in which the line waits for it."""
    first = store.send(made(number=1))
    await ticks()
    second = store.send(made(number=2))
    await ticks()
    store.replies.put_nowait([])
    assert await outcomes(first) == [[]]
    third = store.send(made(number=3))
    await ticks()
    third.cancel()
    store.replies.put_nowait([])
    assert isinstance((await outcomes(third))[0], asyncio.CancelledError)
    assert await outcomes(second) == [[]]
    store.replies.put_nowait([])
    assert await outcomes(store.send(made(number=4))) == [[]]
    sent = [[one.checkpoint_id for one in requests] for requests in store.sent]
    assert sent == [[checkpoint_id(number)] for number in (1, 2, 4)]


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("who", range(4))
async def test_who_is_cancelled_at_any_moment_takes_nothing_from_the_others(
    store: Store, turns: int, who: int
) -> None:
    tasks = [store.send(one) for one in (write(idx=0), made(number=1), write(idx=1))]
    tasks.append(store.send(made(number=2)))
    await ticks(turns)
    tasks[who].cancel()
    for _ in range(4):
        store.replies.put_nowait([])
    done = await outcomes(*tasks)
    assert isinstance(done.pop(who), (asyncio.CancelledError, list))
    assert done == [[]] * 3
    # What was sent is not sent again.
    sent = [request for requests in store.sent for request in requests]
    assert len(sent) == len({id(request) for request in sent})
    await ticks()
    assert not store.lines._lines


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("is_last", [True, False])
async def test_a_checkpoint_that_is_cancelled_at_any_moment_is_stopped(
    store: Store, before: int, turns: int, is_last: bool
) -> None:
    """Not just given up: the server would go on. Also where the line waited for it, and where
    nobody waits any more."""
    first = store.send(made(number=1))
    await ticks()
    behind = store.send(write(idx=0))
    await ticks()
    store.replies.put_nowait([])
    await ticks(before)
    second = store.send(made(number=2))
    await ticks(turns)
    second.cancel()
    if is_last:
        behind.cancel()
    await ticks()
    store.replies.put_nowait([])
    done = await outcomes(first, behind, second)
    assert done[0] == []
    assert is_last or done[1] == []
    assert isinstance(done[2], (asyncio.CancelledError, list))
    assert store.given_up == 0
    await ticks()
    assert not store.lines._lines


async def test_a_failure_of_the_store_ends_those_that_are_tried_apart(store: Store) -> None:
    tasks = [store.send(write(idx=number)) for number in range(5)]
    store.replies.put_nowait(ValueError("one of them"))
    store.replies.put_nowait([])
    store.replies.put_nowait(holdfast.StoreTimeout("silent"))
    first, *others = await outcomes(*tasks)
    assert first == []
    assert [type(one) for one in others] == [holdfast.StoreTimeout] * 4
    assert [len(requests) for requests in store.sent] == [5, 1, 1]


async def test_a_leader_that_is_cancelled_before_its_first_step(store: Store) -> None:
    """By code that cancels all tasks, and goes on."""
    task = store.send(write(idx=1))
    await asyncio.sleep(0)
    for one in asyncio.all_tasks() - {asyncio.current_task()}:
        one.cancel()
    assert isinstance((await outcomes(task))[0], asyncio.CancelledError)
    store.replies.put_nowait([])
    assert await outcomes(store.send(write(idx=2))) == [[]]


async def test_all_callers_leave_while_another_waits(store: Store) -> None:
    first = store.send(made(number=1))
    await ticks()
    second = store.send(made(number=2))
    await ticks()
    first.cancel()
    await ticks()
    assert len(store.sent) == 2, "nobody waits for the first"
    store.replies.put_nowait([])
    done = await outcomes(first, second)
    assert isinstance(done[0], asyncio.CancelledError)
    assert done[1] == []


async def test_one_of_several_callers_leaves(store: Store) -> None:
    tasks = [store.send(write(idx=number)) for number in range(3)]
    await ticks()
    tasks[1].cancel()
    await ticks()
    store.replies.put_nowait([])
    done = await outcomes(*tasks)
    assert [done[0], done[2]] == [[], []]
    assert isinstance(done[1], asyncio.CancelledError)
    assert len(store.sent) == 1


async def test_who_left_is_not_sent_apart(store: Store) -> None:
    tasks = [store.send(write(idx=number)) for number in range(3)]
    await ticks()
    tasks[1].cancel()
    await ticks()
    store.replies.put_nowait([b"missing"])
    for _ in range(2):
        store.replies.put_nowait([])
    await outcomes(*tasks)
    assert [[one.writes[0].idx for one in requests] for requests in store.sent[1:]] == [[0], [2]]


async def test_a_store_that_does_not_hear_of_the_cancellation(store: Store) -> None:
    """As one that has its reply in the same moment: the line has one leader."""
    first = store.send(write(idx=1))
    await ticks()
    second = store.send(write(idx=2))
    await ticks()

    heard = asyncio.Event()

    async def deaf(requests: Sequence[Any]) -> list[bytes]:
        store.sent.append(requests)
        try:
            await heard.wait()
        except asyncio.CancelledError:
            await heard.wait()
        return []

    store.lines._store = deaf
    store.replies.put_nowait([])
    assert await outcomes(first) == [[]]
    await ticks()
    second.cancel()
    await ticks()
    third = store.send(write(idx=3))
    await ticks()
    heard.set()
    done = await outcomes(second, third)
    assert isinstance(done[0], asyncio.CancelledError)
    assert done[1] == []


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks before Python 3.12")
async def test_a_loop_whose_tasks_are_eager(store: Store) -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    store.replies.put_nowait([])
    tasks = [store.send(write(idx=number)) for number in range(5)]
    assert await outcomes(*tasks) == [[]] * 5
    assert [len(requests) for requests in store.sent] == [5]


async def test_nothing_is_left_of_lines_that_are_done(store: Store) -> None:
    for number in range(20):
        store.replies.put_nowait([])
        assert await outcomes(store.send(write(f"t{number}"))) == [[]]
    await ticks()
    assert not store.lines._lines


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("one", [write(idx=1), made(number=1)], ids=["write", "checkpoint"])
async def test_nothing_is_left_of_a_call_that_is_cancelled_alone(
    store: Store, one: Any, turns: int
) -> None:
    task = store.send(one)
    await ticks(turns)
    task.cancel()
    assert isinstance((await outcomes(task))[0], asyncio.CancelledError)
    await ticks()
    assert store.given_up == 0
    assert not store.lines._lines


async def test_who_is_cancelled_when_the_failure_comes_is_cancelled(store: Store) -> None:
    tasks = [store.send(write(idx=1)), store.send(made(number=1))]
    await ticks()
    store.replies.put_nowait(holdfast.StoreUnavailable("down"))
    while not tasks[1].done():
        tasks[0].cancel()
        await asyncio.sleep(0)
    done = await outcomes(*tasks)
    assert isinstance(done[0], asyncio.CancelledError)


async def test_a_checkpoint_that_cannot_be_sent_fails_for_who_brought_it(store: Store) -> None:
    """What the first step raises is that of a trip like any other."""

    async def fail(requests: Sequence[Any]) -> list[bytes]:
        raise holdfast.StoreUnavailable("no socket")

    store.lines._store = fail
    done = await outcomes(store.send(write(idx=1)), store.send(made(number=1)))
    assert [type(one) for one in done] == [holdfast.StoreUnavailable] * 2


def test_a_loop_that_ends_leaves_no_call_behind(recwarn: pytest.WarningsRecorder) -> None:
    """Also where the leader has not taken its first step."""

    async def main(turns: int) -> list[asyncio.Task[Any]]:
        store = Store(is_ready=True)
        tasks = [store.send(write(idx=0)), store.send(made(number=1)), store.send(made(number=2))]
        await ticks(turns)
        return tasks

    for turns in range(5):
        tasks = asyncio.run(main(turns))
        assert all(task.cancelled() for task in tasks)
    assert not recwarn.list
