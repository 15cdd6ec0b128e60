"""Postgres: a change whose reply is lost is sent again, and changes nothing the second time.

Not even where another writer came between: what he stored stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import holdfast
import pytest
from holdfast.backends import base
from holdfast.backends.base import new_operation_id
from support.calls import Calls
from support.make import checkpoint, checkpoint_id, config
from support.postgres import eye
from support.postgres_audit import audit, is_empty
from support.postgres_server import PostgresServer
from support.postgres_wire import Lost, PostgresWire
from support.requests import WORDS, Execute, anew, chunk_ids, made, state, write

OTHER = WORDS[60:90]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    """The store as it is reached beside the wire; it has nothing in it."""
    url = f"{server.url}?table=holdfast"
    with holdfast.open(url) as saver, eye(url) as conn:
        saver.setup()
        conn.execute("TRUNCATE holdfast_threads, holdfast_checkpoints, holdfast_writes")
        conn.execute("TRUNCATE holdfast_blobs")
    return url


@pytest.fixture
def wire(server: PostgresServer, url: str) -> Iterator[PostgresWire]:
    with PostgresWire(server.port) as wire:
        yield wire


@pytest.fixture
def other(url: str) -> Iterator[Execute]:
    """How another client, with a nearer end to its patience, has requests answered."""
    with holdfast.open(url, retry_budget=0) as saver:
        yield saver._live.backend.execute


def ask(saver: holdfast.Saver, mode: str, *requests: base.Request) -> list[Any]:
    """The replies to requests, which on the async side are made at the same time."""
    backend = saver._live.backend
    if mode == "sync":
        return [backend.execute(request) for request in requests]

    async def at_once() -> list[Any]:
        await backend.asetup()
        try:
            return await asyncio.gather(*map(backend.aexecute, requests))
        finally:
            await saver.aclose()

    return asyncio.run(at_once())


Case = tuple[str, base.Request, list[base.Request]]
"""The kind of change whose reply is lost, the change, and what others do between."""


def commit(execute: Execute) -> Case:
    return "commit", made(), [anew(made(value=OTHER))]


def commit_to_a_thread(execute: Execute) -> Case:
    execute(made(number=9))
    return "commit", made(), [anew(made(value=OTHER)), made(number=2), write()]


def commit_that_is_removed(execute: Execute) -> Case:
    execute(made(number=9))
    remove = base.Remove("t", None, [("", checkpoint_id(1))], [], new_operation_id())
    return "commit", made(), [remove]


def special_write(execute: Execute) -> Case:
    return "write", write(idx=-1), [write(idx=-1, data=made(value=OTHER).record)]


def special_write_to_a_checkpoint(execute: Execute) -> Case:
    execute(made())
    return special_write(execute)


def regular_write(execute: Execute) -> Case:
    execute(made())
    return "write", write(), [write(data=made(value=OTHER).record)]


def remove(execute: Execute) -> Case:
    execute(made())
    execute(made(number=2))
    epoch = execute(base.Census("t"))[0]
    change = base.Remove("t", epoch, [("", checkpoint_id(1))], [], new_operation_id())
    return "remove", change, [made(value=OTHER)]


def remove_whatever_came_between(execute: Execute) -> Case:
    execute(made())
    execute(made(number=2))
    change = base.Remove("t", None, [("", checkpoint_id(1))], [], new_operation_id())
    return "remove", change, [made(value=OTHER)]


def copy(execute: Execute) -> Case:
    execute(made("source"))
    return "copy", base.Copy("source", "t", new_operation_id()), [made(value=OTHER)]


CASES = [
    commit,
    commit_to_a_thread,
    commit_that_is_removed,
    special_write,
    special_write_to_a_checkpoint,
    regular_write,
    remove,
    remove_whatever_came_between,
    copy,
]


@pytest.mark.parametrize("many", [False, True], ids=["few", "many"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_change_that_is_sent_again_leaves_what_came_between(
    wire: PostgresWire,
    url: str,
    other: Execute,
    case: Callable[[Execute], Case],
    many: bool,
    mode: str,
) -> None:
    between: list[Any] = []
    change, request, requests = case(other)

    def work() -> None:
        if many:
            for number in range(40):
                other(write(number=50, idx=number))
        for one in requests:
            other(one)
        between.append(state(other))

    lost = wire.meddle = Lost(change, work)
    saver = holdfast.open(wire.url, retry_budget=60)
    (reply,) = ask(saver, mode, request)
    assert lost.count == 2, "it was not sent again"
    assert [state(other)] == between
    assert reply == {base.Remove: True, base.Copy: None}.get(type(request), [])
    assert saver.stats()["retries"] == 1
    saver.close()


def test_the_control_case_shows_what_would_be_changed(other: Execute, url: str) -> None:
    """Each change, made anew after what came between, does change something."""
    for case in CASES:
        _, change, requests = case(other)
        first = other(change)
        for request in requests:
            other(request)
        before = state(other)
        second = other(anew(change))
        if case is not regular_write:  # the first of those stays in any case
            assert (second, state(other)[1:]) != (first, before[1:]), case.__name__
        for thread in ("t", "source"):
            other(base.Forget(thread, new_operation_id(), leaves_tombstone=False))


def test_a_batch_that_was_discarded_is_not_discarded_again(
    wire: PostgresWire, url: str, other: Execute, mode: str
) -> None:
    """Another has stored the chunks again and refers to them: the epoch has moved."""
    other(made(number=1))
    other(made(number=2, value=OTHER))
    other(base.Remove("t", None, [("", checkpoint_id(1))], [], new_operation_id()))
    epoch, alive = other(base.Mark("t"))
    ids = [id for id, _ in made(number=1).chunks]
    assert not {id for _, id in alive} & set(ids)
    lost = wire.meddle = Lost("discard", lambda: other(made(number=3)) and None)
    saver = holdfast.open(wire.url, retry_budget=60)
    assert ask(saver, mode, base.Discard("t", ids, epoch)) == [False]
    assert lost.count == 2
    assert set(ids) <= {id for id, _ in chunk_ids(other)}
    with eye(url) as conn:
        assert audit(conn, url)["t"].ids == {"": [checkpoint_id(2), checkpoint_id(3)]}
    saver.close()


def test_a_thread_that_was_deleted_is_deleted_again_without_an_error(
    wire: PostgresWire, url: str, other: Execute, mode: str
) -> None:
    for request in (made(), write(), made("u")):
        other(request)
    lost = wire.meddle = Lost("forget", lambda: None)
    saver = holdfast.open(wire.url, retry_budget=60)
    for thread in ("t", "u"):
        assert ask(saver, mode, base.Forget(thread, new_operation_id())) == [True]
    assert lost.count == 3
    with eye(url) as conn:
        assert is_empty(conn, url)
    saver.close()


@pytest.mark.parametrize("kind", ["commit", "write"])
def test_a_refusal_that_is_lost_is_told_again(
    wire: PostgresWire, url: str, other: Execute, kind: str, mode: str
) -> None:
    absent = [bytes([number]) * 16 for number in range(3)]
    request = anew(made() if kind == "commit" else write(), frontier=absent)
    lost = wire.meddle = Lost(kind, lambda: None)
    saver = holdfast.open(wire.url, retry_budget=60)
    assert ask(saver, mode, request) == [absent]
    assert lost.count == 2
    assert state(other) is None
    with eye(url) as conn:
        assert is_empty(conn, url)
    saver.close()


def test_writes_that_share_a_statement_are_each_done_once(
    wire: PostgresWire, url: str, other: Execute
) -> None:
    """The tasks of one moment: their one reply is lost, and others write between."""
    sent: list[int] = []
    writes = [
        anew(write(), writes=[base.StoredWrite(f"task {number}", -1, made(number=number).record)])
        for number in range(1, 9)
    ]
    later = made(value=OTHER).record

    def work() -> None:
        for number in (0, 3, 7):
            task = writes[number].writes[0].task_id
            other(anew(writes[number], writes=[base.StoredWrite(task, -1, later)]))
        (some,) = other(base.WritesOf("t", [("", checkpoint_id(1))])).values()
        sent.append(len(some))

    lost = wire.meddle = Lost("write", work)
    saver = holdfast.open(wire.url, retry_budget=60)
    assert ask(saver, "async", *writes) == [[]] * 8
    assert sent == [8], "they do not share a statement"
    assert lost.count == 2
    (stored,) = other(base.WritesOf("t", [("", checkpoint_id(1))])).values()
    found = {one.task_id: one.data for one in stored}
    for number, one in enumerate(writes):
        expected = later if number in (0, 3, 7) else one.writes[0].data
        assert found.pop(one.writes[0].task_id) == expected, number
    assert not found
    assert len(stored) == 8
    saver.close()


def test_a_put_that_is_sent_again_leaves_what_another_saver_put(
    wire: PostgresWire, url: str, mode: str
) -> None:
    """The same as a user sees it."""
    mine, theirs = (checkpoint(1, {"state": [name] * 99}) for name in ("mine", "theirs"))
    with holdfast.open(url) as other:

        def work() -> None:
            other.put(config(), theirs, {}, theirs["channel_versions"])
            other.put_writes(config("t", "", checkpoint_id(1)), [("a", "theirs")], "task")

        wire.meddle = Lost("commit", work)
        saver = holdfast.open(wire.url, retry_budget=60)

        async def put_and_read() -> None:
            calls = Calls(saver, mode)
            stored = await calls.put(config(), mine, {}, mine["channel_versions"])
            for one in (calls, Calls(other, mode)):
                found = await one.must_get(stored)
                assert found.checkpoint == theirs
                assert found.pending_writes == [("task", "a", "theirs")]
                await one.close()

        asyncio.run(put_and_read())
        saver.close()
