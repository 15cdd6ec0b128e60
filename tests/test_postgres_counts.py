"""What each call costs: round trips on the wire, chunks and rows."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import holdfast
import pytest
from holdfast.backends.base import Commit
from support.calls import Calls
from support.make import Thread, checkpoint, checkpoint_id, config, version
from support.postgres import Connection, eye, tables
from support.postgres_audit import is_empty
from support.postgres_server import PostgresServer
from support.postgres_wire import PostgresWire, Trip
from support.requests import Tap, put
from support.uses import WORDS

STEPS = 30


class Counted:
    """A wire on which requests are counted."""

    def __init__(self, wire: PostgresWire) -> None:
        self.url = f"{wire.url}&pool_size=1"
        self.trips: list[Trip] = []
        wire.meddle = self._count

    def _count(self, trip: Trip) -> bytes:
        self.trips.append(trip)
        return trip.forward()

    def take(self) -> int:
        """The round trips since the last take."""
        count = len(self.trips)
        self.trips.clear()
        return count

    def sizes(self) -> list[int]:
        """As `take`: the bytes of each."""
        sizes = [len(trip.data) for trip in self.trips]
        self.trips.clear()
        return sizes


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def conn(server: PostgresServer) -> Iterator[Connection]:
    """A look at an empty database."""
    with eye(server.url) as conn:
        conn.execute("DROP SCHEMA public CASCADE")
        conn.execute("CREATE SCHEMA public")
        yield conn


@pytest.fixture
def counted(server: PostgresServer, conn: Connection) -> Iterator[Counted]:
    with PostgresWire(server.port) as wire:
        yield Counted(wire)


async def warm(calls: Calls) -> None:
    """Have each statement prepared on the one connection."""
    thread = Thread(calls, "warm")
    for number in range(1, 4):
        stored = await thread.put({"state": WORDS[:number]}, metadata={"run_id": "warm"})
        await calls.put_writes(stored, [("state", number)], f"task {number}")
    for where in (config("warm"), stored):
        await calls.must_get(where)
        await calls.list(where, limit=10)
    await calls.list(config("warm", None), before=stored, limit=1)
    await calls.list(None, limit=10)
    await calls.list(None, filter={"step": 100})
    await calls.history(stored, ["state"])
    await calls.copy_thread("warm", "other")
    await calls.delete_for_runs(["nobody"])
    await calls.prune(["warm"])
    await calls.delete_thread("warm")
    await calls.delete_thread("other")


@pytest.fixture
async def thread(counted: Counted, mode: str) -> AsyncIterator[Thread]:
    """A chat of some steps, put by a saver that knows all of it."""
    calls = Calls(holdfast.open(counted.url), mode)
    await warm(calls)
    thread = Thread(calls)
    for number in range(1, STEPS + 1):
        metadata = {"run_id": f"r{number % 2}"}
        stored = await thread.put({"state": WORDS[:number], "fixed": 1}, metadata=metadata)
        await calls.put_writes(stored, [("state", number)], f"task {number}")
    counted.take()
    yield thread
    await calls.close()


@pytest.fixture
async def cold(counted: Counted, thread: Thread, mode: str) -> AsyncIterator[Calls]:
    """A saver that has read nothing yet of that thread."""
    calls = Calls(holdfast.open(counted.url), mode)
    await warm(calls)
    counted.take()
    yield calls
    await calls.close()


# --- round trips


async def test_setting_up(counted: Counted, mode: str) -> None:
    calls = Calls(holdfast.open(counted.url), mode)
    await calls.setup()
    made = counted.take()
    another = Calls(holdfast.open(counted.url), mode)
    await another.setup()
    found = counted.take()
    # Whether there is a layout, and which one; where there is none, it is made between. Then
    # statements are made ready, which is not for those who did not ask.
    assert (found, made) == (2 + 1, 1 + 1 + 2 + 1)
    others = Calls(holdfast.open(counted.url), mode)
    await others.get_tuple(config("nobody"))
    assert counted.take() == 2 + 1
    await others.close()
    for _ in range(2):
        await another.get_tuple(config("nobody"))
        assert counted.take() == 1, "prepared and run at once"
    await calls.close()
    await another.close()


async def test_putting_takes_one(counted: Counted, thread: Thread) -> None:
    await thread.put({"state": WORDS[: STEPS + 1]})
    assert counted.take() == 1
    assert thread.head is not None
    await thread.calls.put_writes(thread.head, [("a", 1), ("b", WORDS[:5])], "task")
    assert counted.take() == 1
    await thread.put({"other": 1}, metadata={"run_id": "a new run"})
    assert counted.take() == 1
    await thread.calls.put(config("new"), checkpoint(1, {"a": 1}), {}, {"a": version(1)})
    assert counted.take() == 1


async def test_putting_below_a_parent_that_is_not_known_asks_for_it(
    counted: Counted, thread: Thread, cold: Calls
) -> None:
    thread.calls = cold
    await thread.put({"other": 1})
    assert counted.take() == 2
    await thread.put({"other": 2})
    assert counted.take() == 1


async def test_reading_takes_one(counted: Counted, thread: Thread, cold: Calls) -> None:
    """Record, writes, pages and leaves; known or not, latest or named."""
    for calls in (thread.calls, cold):
        for where in (config(), config("t", "", checkpoint_id(7)), thread.head):
            assert where is not None
            found = await calls.must_get(where)
            assert found.checkpoint["channel_values"] == thread.expected[found.checkpoint["id"]]
            assert counted.take() == 1


READS: dict[str, tuple[Callable[[Calls], Awaitable[Any]], int]] = {
    "nothing": (lambda calls: calls.get_tuple(config("nobody")), 1),
    "ten": (lambda calls: calls.list(config(), limit=10), 1),
    "ten of all threads": (lambda calls: calls.list(None, limit=10), 1),
    "two pages": (lambda calls: calls.list(config()), 3),
    "none that match": (lambda calls: calls.list(None, filter={"step": 100}), 1),
    "a history": (lambda calls: calls.history(config(id=checkpoint_id(STEPS)), ["state"]), 1),
    "no thread of a run": (lambda calls: calls.delete_for_runs(["nobody"]), 1),
    "nothing to copy": (lambda calls: calls.copy_thread("nobody", "u"), 1),
    "nothing to delete": (lambda calls: calls.delete_thread("nobody"), 1),
    "a copy": (lambda calls: calls.copy_thread("t", "u"), 1),
    "a deletion": (lambda calls: calls.delete_thread("t"), 1),
}


@pytest.mark.parametrize("what", READS)
async def test_what_others_take(counted: Counted, cold: Calls, what: str) -> None:
    work, most = READS[what]
    await work(cold)
    assert counted.take() == most


async def test_sweeping_takes_few(
    counted: Counted, thread: Thread, cold: Calls, conn: Connection, server: PostgresServer
) -> None:
    await cold.delete_for_runs(["r1"])
    assert counted.take() < STEPS, "one round trip for each checkpoint"
    await cold.prune(["t"])
    assert counted.take() < 10
    await cold.delete_thread("t")
    assert is_empty(conn, f"{server.url}?table=holdfast")


# --- many at once


async def test_a_hundred_tasks_that_write_at_once_take_few(counted: Counted) -> None:
    async with holdfast.open(counted.url) as saver:
        calls = Calls(saver, "async")
        await warm(calls)
        stored = await calls.put(config(), checkpoint(1), {}, {})
        counted.take()
        writes = [
            saver.aput_writes(stored, [("a", n), ("b", [n])], f"task {n:03}") for n in range(100)
        ]
        await asyncio.gather(*writes)
        assert counted.take() == 1
        found = await calls.must_get(config())
        assert found.pending_writes == [
            (f"task {n:03}", *one) for n in range(100) for one in [("a", n), ("b", [n])]
        ]


async def test_a_superstep_takes_one(counted: Counted) -> None:
    """Its writes, and the checkpoint that follows, as LangGraph stores them in one tick."""
    async with holdfast.open(counted.url) as saver:
        calls = Calls(saver, "async")
        stored = await calls.put(config(), checkpoint(1), {}, {})
        counted.take()
        for number in range(2, 6):
            made = checkpoint(number, {"a": number}, {"a": version(number)})
            tasks = [
                saver.aput_writes(stored, [("a", number)], "task 1"),
                saver.aput_writes(stored, [("b", number)], "task 2"),
                saver.aput(stored, made, {}, made["channel_versions"]),
            ]
            before = stored
            stored = (await asyncio.gather(*tasks))[2]
            assert counted.take() == 1
            assert (await calls.must_get(stored)).checkpoint == made
            found = await calls.must_get(before)
            assert found.pending_writes == [("task 1", "a", number), ("task 2", "b", number)]
            counted.take()


# --- what is sent


def test_only_what_is_new_is_sent(server: PostgresServer, conn: Connection) -> None:
    with holdfast.open(server.url) as saver, pytest.MonkeyPatch.context() as patch:
        tap = Tap(saver, patch)

        def sent() -> list[bytes]:
            commits = [request for request in tap.seen if isinstance(request, Commit)]
            tap.seen.clear()
            return [id for one in commits for id, _ in one.chunks]

        def stored() -> int:
            return tables(conn, f"{server.url}?table=holdfast")["blobs"]

        for number in range(1, 101):
            put(saver, number, {"state": WORDS[:number], "fixed": WORDS[:30]})
        before = stored()
        sent()
        put(saver, 101, {"state": WORDS[:101], "fixed": WORDS[:30]})
        new = sent()
        assert 1 <= len(new) <= 3, "an append sends its leaf, and the page that it completes"
        assert stored() == before + len(new)
        put(saver, 101, {"state": WORDS[:101], "fixed": WORDS[:30]})
        assert sent() == [], "the same again"
        put(saver, 102, {"state": WORDS[:50], "fixed": WORDS[:30]}, parent=checkpoint_id(50))
        assert sent() == [], "a fork of what is there"
        put(saver, 103, {"state": WORDS[:100], "fixed": WORDS[:30]}, new={})
        assert sent() == []
        assert stored() == before + len(new)


async def test_an_append_sends_as_much_at_the_end_as_in_the_beginning(
    counted: Counted, mode: str
) -> None:
    calls = Calls(holdfast.open(counted.url), mode)
    await warm(calls)
    thread = Thread(calls)
    sizes = []
    counted.take()
    for number in range(1, 101):
        await thread.put({"state": WORDS[:number]})
        sizes.append(sum(counted.sizes()))
    assert max(sizes[50:]) < 2 * max(sizes[1:20])
    await calls.close()


async def test_what_the_caller_has_does_not_come_again(counted: Counted, thread: Thread) -> None:
    """Of a thread that is known only what is new; a cold saver reads all of it."""
    received: list[int] = []
    original = Trip.forward

    def forward(self: Trip, share: float = 1) -> bytes:
        reply = original(self, share)
        received.append(len(reply))
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trip, "forward", forward)
        await thread.calls.must_get(config())
        known = sum(received)
        received.clear()
        other = Calls(holdfast.open(counted.url), thread.calls.mode)
        await other.must_get(config())
        assert known < sum(received) / 3
        await other.close()


async def test_a_large_value_is_one_round_trip(counted: Counted, mode: str) -> None:
    value = random.Random(7).randbytes(3_000_000)
    calls = Calls(holdfast.open(counted.url), mode)
    await warm(calls)
    counted.take()
    made = checkpoint(1, {"blob": value})
    stored = await calls.put(config(), made, {}, made["channel_versions"])
    assert counted.take() == 1
    assert (await calls.must_get(stored)).checkpoint == made
    await calls.close()
