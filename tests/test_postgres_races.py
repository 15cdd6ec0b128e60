"""Postgres: changes of one thread that meet, each pair in both orders, made to meet by locks.

One of the two is held within a transaction of the test's own; the other is seen to wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from operator import itemgetter
from typing import Any

import holdfast
import pytest
from holdfast import PostgresSaver
from holdfast._core import Core
from holdfast.backends import base
from holdfast.backends.base import new_operation_id
from support.make import checkpoint_id
from support.postgres import dump, eye
from support.postgres_audit import is_empty
from support.postgres_meeting import Meeting
from support.postgres_server import PostgresServer
from support.postgres_wire import PostgresWire, Trip
from support.requests import WORDS, Execute, anew, chunk_ids, made, state, write
from support.wire import Cut


def small(value: str = "") -> bytes:
    """A pending write that refers to no chunk."""
    core = Core(cache_bytes=0, compression="none")
    sealed: bytes = core.draft_writes("t", [("a", "", ("msgpack", value.encode()))]).sealed[0]
    return sealed


LEVELS = ["read committed", "repeatable read", "serializable"]
OLD, NEW = checkpoint_id(1), checkpoint_id(2)
LATER = 2**52
"""Milliseconds since 1970: after each deletion."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer({"max_prepared_transactions": 0}) as server:
        yield server


@pytest.fixture(params=LEVELS)
def url(server: PostgresServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty store, whose user's transactions are of one level."""
    url = f"{server.url}?table=holdfast"
    with eye(url) as conn:
        conn.execute(f"ALTER ROLE postgres SET default_transaction_isolation = '{request.param}'")
    with holdfast.open(url) as saver, eye(url) as conn:
        saver.setup()
        for table in ("threads", "checkpoints", "writes", "blobs"):
            conn.execute(f"TRUNCATE holdfast_{table}")
    yield url
    with eye(url) as conn:
        conn.execute("ALTER ROLE postgres RESET default_transaction_isolation")


@pytest.fixture
def meeting(url: str) -> Iterator[Meeting]:
    meeting = Meeting(url)
    meeting.held(base.Census("nobody"))  # so that it is set up before it is in a transaction
    yield meeting
    meeting.close()


def garbage(execute: Execute) -> tuple[int, list[bytes]]:
    """Leave chunks of a checkpoint that was removed, beside one that stays; the epoch, and them."""
    execute(made(number=9, value=WORDS[90:]))
    execute(made())
    execute(base.Remove("t", None, [("", OLD)], [], new_operation_id()))
    epoch, _ = execute(base.Mark("t"))
    return epoch, [id for id, _ in made().chunks]


def counting_on(chunks: list[bytes]) -> base.Commit:
    """A commit that sends none of its chunks: they must be there."""
    return anew(made(number=2), chunks=[], frontier=chunks)


def remove(*ids: str, epoch: int | None = None) -> base.Remove:
    return base.Remove("t", epoch, [("", id) for id in ids], [], new_operation_id())


def forget() -> base.Forget:
    return base.Forget("t", new_operation_id())


# --- a commit or a write, and a sweep


@pytest.mark.parametrize("change", ["commit", "write"])
def test_a_change_that_counts_on_chunks_that_are_being_discarded_is_refused(
    meeting: Meeting, change: str
) -> None:
    epoch, chunks = garbage(meeting.free)
    counts = counting_on(chunks) if change == "commit" else anew(write(number=9), frontier=chunks)
    reply = meeting.meet(base.Discard("t", chunks, epoch), counts)
    assert sorted(reply) == sorted(chunks)
    assert meeting.audit()["t"].ids == {"": [checkpoint_id(9)]}
    assert meeting.free(anew(made(number=2))) == []
    assert meeting.audit()["t"].ids == {"": [NEW, checkpoint_id(9)]}


@pytest.mark.parametrize("change", ["commit", "write"])
def test_a_change_that_counts_on_chunks_that_are_not_discarded_after_all_is_done(
    meeting: Meeting, change: str
) -> None:
    epoch, chunks = garbage(meeting.free)
    counts = counting_on(chunks) if change == "commit" else anew(write(number=9), frontier=chunks)
    assert meeting.meet(base.Discard("t", chunks, epoch), counts, "ROLLBACK") == []
    assert set(chunks) <= {id for id, _ in chunk_ids(meeting.free)}
    meeting.audit()


@pytest.mark.parametrize("change", ["commit", "write"])
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_discard_waits_for_a_change_that_counts_on_its_chunks(
    meeting: Meeting, change: str, end: str
) -> None:
    epoch, chunks = garbage(meeting.free)
    counts = counting_on(chunks) if change == "commit" else anew(write(number=9), frontier=chunks)
    is_done = meeting.meet(counts, base.Discard("t", chunks, epoch), end)
    assert is_done == (end == "ROLLBACK")
    left = {id for id, _ in chunk_ids(meeting.free)} & set(chunks)
    assert left == (set() if is_done else set(chunks))
    meeting.audit()


def test_a_copy_to_a_thread_whose_chunks_are_being_discarded_brings_its_own(
    meeting: Meeting,
) -> None:
    meeting.free(made("source"))
    epoch, chunks = garbage(meeting.free)
    copy = base.Copy("source", "t", new_operation_id())
    meeting.meet(base.Discard("t", chunks, epoch), copy)
    assert meeting.audit()["t"].ids == {"": [OLD, checkpoint_id(9)]}
    epoch, _ = meeting.free(base.Mark("t"))
    meeting.free(remove(OLD))
    assert meeting.meet(anew(copy), base.Discard("t", chunks, epoch + 1)) is False
    assert meeting.audit()["t"].ids == {"": [OLD, checkpoint_id(9)]}


# --- the first change of a thread


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_two_first_commits_of_a_thread(meeting: Meeting, end: str) -> None:
    assert meeting.meet(made(), made(number=2), end) == []
    assert meeting.audit()["t"].ids == {"": [OLD, NEW] if end == "COMMIT" else [NEW]}


def test_a_first_commit_and_a_first_write(meeting: Meeting) -> None:
    assert meeting.meet(made(), write(number=1, data=small())) == []
    found = meeting.audit()["t"]
    assert (found.ids, found.orphans) == ({"": [OLD]}, [])


@pytest.mark.parametrize("first", [made(), write(number=3, data=small())], ids=["put", "write"])
def test_a_thread_that_is_deleted_while_it_begins_is_whole_or_not_there(
    meeting: Meeting, first: base.Request
) -> None:
    """The first change is done and not committed; then another one, after which it is."""
    meeting.conn.execute("BEGIN")
    meeting.held(first)
    job = meeting.pool.submit(lambda: meeting.free(forget()))
    deadline = time.monotonic() + 30
    while not job.done() and not meeting.locked():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    meeting.conn.execute("COMMIT")
    job.result(30)
    found = meeting.audit()
    assert "t" not in found or state(meeting.free) is not None
    meeting.free(forget())
    assert is_empty(meeting.look, meeting.url)


def test_a_thread_that_begins_between_the_two_statements_of_its_deletion(
    meeting: Meeting,
) -> None:
    """The deletion finds nothing to lock; then one change is stored, and one is under way."""
    with eye(meeting.url) as third:
        third.execute("BEGIN")
        third.execute("LOCK TABLE holdfast_writes IN ACCESS EXCLUSIVE MODE")
        deletion = meeting.waiting(lambda: meeting.free(forget()))
        with eye(meeting.url) as fourth, PostgresSaver(fourth, retry_budget=10) as saver:
            begun = meeting.pool.submit(lambda: saver._live.backend.execute(made()))
            deadline = time.monotonic() + 30
            while not begun.done() and meeting.locked() < 2:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            is_first = begun.done()
            meeting.conn.execute("BEGIN")
            if is_first:
                meeting.held(made(number=2))
            third.execute("COMMIT")
            if is_first:
                while not deletion.done() and not meeting.locked():
                    time.sleep(0.001)
            meeting.conn.execute("COMMIT")
            deletion.result(30)
            begun.result(30)
    meeting.audit()
    meeting.free(forget())
    assert is_empty(meeting.look, meeting.url)


# --- the end of a thread


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
@pytest.mark.parametrize("change", ["commit", "write", "copy"])
def test_a_change_waits_for_a_deletion_and_begins_anew(
    meeting: Meeting, change: str, end: str
) -> None:
    meeting.free(made("source", number=5))
    meeting.free(made())
    changes: dict[str, base.Request] = {
        "commit": made(number=2),
        "write": replace(write(number=1, data=small()), made=LATER),
        "copy": base.Copy("source", "t", new_operation_id()),
    }
    meeting.meet(forget(), changes[change], end)
    found = meeting.audit()["t"]
    there = {"commit": [NEW], "write": [], "copy": [checkpoint_id(5)]}[change]
    if end == "ROLLBACK":
        assert found.ids == {"": [OLD, *there]}
    else:
        assert found.ids == ({"": there} if there else {})
        assert found.orphans == ([("", OLD)] if change == "write" else [])
        assert not found.garbage


def test_a_commit_that_counts_on_a_thread_that_is_being_deleted_is_refused(
    meeting: Meeting,
) -> None:
    meeting.free(made())
    chunks = [id for id, _ in made().chunks]
    assert sorted(meeting.meet(forget(), counting_on(chunks))) == sorted(chunks)
    assert is_empty(meeting.look, meeting.url)


@pytest.mark.parametrize("change", ["commit", "write", "copy"])
def test_a_deletion_waits_for_a_change_and_takes_it_too(meeting: Meeting, change: str) -> None:
    meeting.free(made())
    meeting.free(made("source", number=5))
    changes: dict[str, base.Request] = {
        "commit": made(number=2),
        "write": write(number=1, data=small()),
        "copy": base.Copy("source", "t", new_operation_id()),
    }
    meeting.meet(changes[change], forget())
    assert meeting.audit().keys() == {"source"}
    meeting.free(base.Forget("source", new_operation_id()))
    assert is_empty(meeting.look, meeting.url)


@pytest.mark.parametrize("change", ["commit", "write"])
def test_the_last_checkpoint_is_removed_while_another_comes(meeting: Meeting, change: str) -> None:
    """The thread goes with it only if nothing came."""
    meeting.free(made())
    epoch = meeting.free(base.Census("t"))[0]
    late = replace(write(number=3, data=small()), made=LATER)
    come = made(number=2) if change == "commit" else late
    assert meeting.meet(remove(OLD, epoch=epoch), come) == []
    found = meeting.audit()["t"]
    assert found.ids == ({"": [NEW]} if change == "commit" else {})
    assert found.orphans == ([] if change == "commit" else [("", checkpoint_id(3))])
    meeting.free(forget())
    meeting.free(made())
    epoch = meeting.free(base.Census("t"))[0]
    assert meeting.meet(anew(come), remove(OLD, epoch=epoch)) is False
    assert meeting.free(remove(OLD)) is True
    assert meeting.audit().keys() == {"t"}
    meeting.free(remove(NEW, checkpoint_id(3)))
    assert is_empty(meeting.look, meeting.url)


# --- sent again, while the first is still under way


@pytest.mark.parametrize(
    "kind",
    ["commit", "commit behind another", "commit of a new thread", "write", "write behind a commit"],
)
def test_a_change_that_is_sent_again_while_the_first_still_waits(
    meeting: Meeting, server: PostgresServer, kind: str
) -> None:
    """Mine, then theirs, then mine again, all behind one lock: each is done once, in some order."""
    mine, theirs = made(), made(value=WORDS[60:90])
    if kind.startswith("write"):
        mine, theirs = (write(idx=-1, data=small(name)) for name in ("mine", "theirs"))
    lock: Any = made(number=8)
    if kind != "commit of a new thread":
        meeting.free(made(number=9))
    if kind in ("commit", "write"):  # those who wait for this go on in the order of their coming
        lock = base.Discard("t", [], meeting.free(base.Mark("t"))[0])
    with PostgresWire(server.port) as wire, holdfast.open(wire.url, retry_budget=60) as saver:
        saver.setup()
        jobs: list[Future[Any]] = []

        def meddle(trip: Trip) -> bytes:
            if not trip.change or jobs:
                return trip.forward()
            trip.forward_only()
            while meeting.locked() < 1:
                time.sleep(0.001)
            jobs.append(meeting.waiting(lambda: meeting.free(theirs), 2))
            raise Cut

        wire.meddle = meddle
        meeting.conn.execute("BEGIN")
        meeting.held(lock)
        job = meeting.waiting(lambda: saver._live.backend.execute(mine), 3)
        meeting.conn.execute("COMMIT")
        assert (job.result(30), jobs[0].result(30)) == ([], [])
    _, records, writes, *_ = state(meeting.free)
    rows = dump(meeting.look, meeting.url)
    if kind.startswith("write"):
        logged = sorted(rows["writes"], key=itemgetter("number"))
        assert sorted(row["operation"] for row in logged) == sorted(
            [mine.operation, theirs.operation]
        )
        if kind == "write":
            assert logged[-1]["operation"] == theirs.operation
        last = mine if logged[-1]["operation"] == mine.operation else theirs
        assert [one.data for one in writes["", OLD]] == [last.writes[0].data]
        return
    (remembered,) = [
        row["operations"] for row in rows["checkpoints"] if row["checkpoint_id"] == OLD
    ]
    orders = {one.operation + two.operation: one for one, two in [(mine, theirs), (theirs, mine)]}
    assert ("", OLD, orders[remembered].record) in records
