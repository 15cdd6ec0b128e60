"""Postgres: the server dies, the client dies, and replies are lost, at random points of changes.

Whatever was acknowledged is there and whole, and no row lies around.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait

import holdfast
import pytest
from support.calls import MODES, Calls
from support.faults import ROUNDS, Flat, again_and_again, rounds, seeded
from support.lives import Diary, Event, check, lead, rest, start
from support.make import checkpoint, config
from support.postgres import Connection, backends_of, eye
from support.postgres_audit import audit, is_empty
from support.postgres_server import DURABLE, PostgresServer
from support.postgres_wire import CHANGES, PostgresWire, Trip
from support.wire import Cut
from support.workers import chained, check_chained

pytestmark = pytest.mark.timeout(60 + 10 * ROUNDS)


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with PostgresServer(DURABLE) as server:
        yield server


@pytest.fixture
def wire(server: PostgresServer) -> Iterator[PostgresWire]:
    with PostgresWire(server.port) as wire:
        yield wire


@pytest.fixture
def url(server: PostgresServer) -> str:
    """The store as it is reached beside the wire."""
    return f"{server.url}?table=holdfast"


class Nth:
    """Calls `work` with the nth change that comes over a wire."""

    def __init__(self, nth: int, work: Callable[[Trip], bytes]) -> None:
        self.is_reached = threading.Event()
        self._left = nth
        self._work = work
        self._lock = threading.Lock()

    def __call__(self, trip: Trip) -> bytes:
        if trip.change:
            with self._lock:
                self._left -= 1
                is_it = self._left == 0
            if is_it:
                self.is_reached.set()
                return self._work(trip)
        return trip.forward()


def check_all(url: str, conn: Connection, lives: Mapping[str, list[Event]]) -> None:
    """Only what was acknowledged is there; and the store can be used, and emptied."""
    with holdfast.open(url) as saver:
        found = audit(conn, url)
        assert found.keys() <= lives.keys()
        for thread, events in lives.items():
            check(saver, thread, events)
            listed = [one.checkpoint["id"] for one in saver.list(config(thread))]
            assert listed == (found[thread].ids.get("", [])[::-1] if thread in found else [])
        for thread in lives:
            saver.put(config(thread), checkpoint("9999-000001", {"state": thread}), {}, {})
            saver.prune([thread])
        for one in audit(conn, url).values():
            assert one.ids == {"": ["9999-000001"]}
            assert not one.garbage
            assert not one.orphans
        for thread in lives:
            saver.delete_thread(thread)
            assert saver.get_tuple(config(thread)) is None
    assert is_empty(conn, url)


def held(conn: Connection) -> tuple[int, int]:
    """The connections of a server. What it has of memory ends with each of them."""
    return len(backends_of(conn)), 0


# --- the server dies


def test_a_server_that_is_killed_loses_nothing_and_its_clients_go_on(
    server: PostgresServer, wire: PostgresWire, url: str
) -> None:
    """The patient notice nothing. Who has no patience is told, and what he did last is open."""
    rng = seeded()
    reads = changes = done = told = 0
    patient = holdfast.open(wire.url, retry_budget=60, cache_bytes=1 << 20)
    hasty = holdfast.open(wire.url, retry_budget=0, cache_bytes=1 << 20)
    conn = eye(url)
    flat = Flat(lambda: held(conn))
    for number in range(ROUNDS):
        saver = hasty if number % 3 == 2 else patient
        lives = {f"{mode} {number}": Diary() for mode in MODES}
        nth = wire.meddle = Nth(rng.randrange(1, 150), Trip.forward)
        with ThreadPoolExecutor(len(lives)) as pool:
            jobs = [
                pool.submit(lead, saver, thread.split()[0], thread, rng.randrange(10**6), diary)
                for thread, diary in lives.items()
            ]
            assert nth.is_reached.wait(60)
            time.sleep(rng.random() * 0.003)  # before, within or after what the server does
            wire.is_open = False
            conn.close()
            server.kill()
            server.start()
            conn = eye(url)
            for trip in wire.take_lost():
                reads += not trip.change
                changes += bool(trip.change)
                done += bool(trip.change) and trip.was_done(conn, url)
            if saver is hasty:
                wait(jobs)
            wire.is_open = True
            for diary, job in zip(lives.values(), jobs, strict=True):
                goal = len(diary.events) + 8
                while len(diary.events) < goal and not job.done():
                    time.sleep(0.001)
                diary.is_over = True
        for job in jobs:
            error = job.exception()
            if error is not None:
                if saver is patient or type(error) is not holdfast.StoreUnavailable:
                    raise error
                told += 1
        check_all(url, conn, {thread: diary.events for thread, diary in lives.items()})
        flat.look()
    conn.close()
    patient.close()
    hasty.close()
    print(
        f"killed between send and reply: {reads} reads, {changes} changes, of which {done} "
        f"were done; {told} clients were told"
    )
    assert changes
    assert done
    assert told == len(MODES) * (ROUNDS // 3)
    flat.check()


# --- the client dies


def test_a_client_that_is_killed_between_send_and_reply(wire: PostgresWire, url: str) -> None:
    rng = seeded()
    ends = Counter[str]()
    conn = eye(url)
    flat = Flat(lambda: held(conn))
    for number in rounds(ends, "commit", "write", "within the request"):
        thread = f"round {number}"
        share = rng.choice([1, 1, rng.random()])
        dead = threading.Event()

        def send(trip: Trip, share: float = share, dead: threading.Event = dead) -> bytes:
            trip.forward(share)
            ends[trip.change if share == 1 else "within the request"] += 1
            assert dead.wait(60)
            raise Cut

        nth = wire.meddle = Nth(rng.randrange(1, 60), send)
        process, heard = start(wire.url, thread, rng.randrange(10**6), MODES[number % 2])
        try:
            assert nth.is_reached.wait(60)
            time.sleep(rng.random() * 0.001)
        finally:
            process.kill()
            process.join()
            dead.set()
        events = rest(heard)
        assert events[-1][0] == "begin"
        wire.join()
        check_all(url, conn, {thread: events})
        flat.look()
    print(f"killed between send and reply: {ends}")
    flat.check()
    conn.close()


# --- replies are lost


@pytest.mark.parametrize("mode", MODES)
def test_replies_that_are_lost_change_nothing(wire: PostgresWire, url: str, mode: str) -> None:
    rng = seeded()
    cut = Counter[str]()
    diary = Diary()

    def meddle(trip: Trip) -> bytes:
        if not trip.change or rng.random() > 0.25:
            return trip.forward()
        kind = rng.choice(["the reply", "half the reply", "half the request"])
        cut[trip.change] += kind != "half the request"
        cut[kind] += 1
        if kind == "half the request":
            trip.forward(rng.random())
            raise Cut
        reply = trip.forward()
        raise Cut(reply[: len(reply) // 2] if kind == "half the reply" else b"")

    wire.meddle = meddle
    conn = eye(url)
    flat = Flat(lambda: held(conn))
    with (
        holdfast.open(wire.url, retry_budget=60, pool_size=2) as saver,
        ThreadPoolExecutor(1) as pool,
    ):
        job = pool.submit(lead, saver, mode, "t", rng.randrange(10**6), diary)
        for number in range(1, ROUNDS + 1):
            while len(diary.events) < 20 * number and not job.done():
                time.sleep(0.001)
            flat.look()
        while not job.done() and not all(cut[name] for name in CHANGES if name != "copy"):
            time.sleep(0.001)
        diary.is_over = True
        job.result()
        wire.meddle = Trip.forward
        check_all(url, conn, {"t": diary.events})
        assert saver.stats()["retries"] >= sum(cut[name] for name in CHANGES)
    print(f"{len(diary.events)} events, lost: {cut}")
    flat.check()
    conn.close()


@pytest.mark.parametrize("mode", MODES)
def test_writers_and_a_pruner_share_a_thread_on_a_bad_line(
    wire: PostgresWire, url: str, mode: str
) -> None:
    rng = random.Random(1)
    cut = Counter[str]()
    names = ["", "sub:1", "sub:2"]

    def meddle(trip: Trip) -> bytes:
        reply = trip.forward()
        if trip.change and rng.random() < 0.2:
            cut[trip.change] += 1
            raise Cut
        return reply

    async def put_all(name: str) -> None:
        calls, head = Calls(saver, mode), config("t", name)
        for number in range(1, 2 * ROUNDS + 1):
            made = chained(name, number)
            head = await calls.put(head, made, {"step": number}, made["channel_versions"])
            await calls.put_writes(head, [("state", [name, number])], "task")
            found = await calls.must_get(head)
            assert found.checkpoint == made
            assert found.pending_writes == [("task", "state", [name, number])]

    wire.meddle = meddle
    with holdfast.open(wire.url, retry_budget=60) as saver, holdfast.open(wire.url) as other:
        with again_and_again(lambda: other.prune(["t"])), ThreadPoolExecutor(3) as pool:
            for job in [pool.submit(asyncio.run, put_all(name)) for name in names]:
                job.result()
        wire.meddle = Trip.forward
        saver.prune(["t"])
        with eye(url) as conn:
            found = audit(conn, url)["t"]
        assert {name: len(ids) for name, ids in found.ids.items()} == dict.fromkeys(names, 1)
        assert not found.garbage
        for name in names:
            check_chained(saver, config("t", name), name, 2 * ROUNDS)
    print(f"lost: {cut}")
    assert cut["commit"]
    assert cut["discard"]
