"""Redis: the server dies, the client dies, and replies are lost, at random points of all changes.

Whatever was acknowledged is there and whole, and no key lies around.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import holdfast
import pytest
from redis import Redis
from support.audit import audit, standing
from support.calls import MODES, Calls
from support.faults import ROUNDS, Flat, again_and_again, rounds, seeded
from support.lives import Diary, Event, check, lead, rest, start
from support.make import checkpoint, config
from support.redis_server import RedisServer
from support.redis_wire import CHANGES, DURABLE, UNKNOWN, RedisWire, Trip, held
from support.wire import Cut
from support.workers import chained, check_chained

pytestmark = pytest.mark.timeout(60 + 10 * ROUNDS)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer(DURABLE) as server:
        yield server


@pytest.fixture
def wire(server: RedisServer) -> Iterator[RedisWire]:
    with RedisWire(server.port) as wire:
        yield wire


@pytest.fixture
def client(server: RedisServer) -> Iterator[Redis]:
    """A look at the server from beside the savers."""
    with Redis.from_url(server.url) as client:
        yield client


class Nth:
    """Calls `work` with the nth change that comes over a wire."""

    def __init__(self, nth: int, work: Callable[[Trip], bytes]) -> None:
        self.is_reached = threading.Event()
        self._left = nth
        self._work = work
        self._lock = threading.Lock()

    def __call__(self, trip: Trip) -> bytes:
        if trip.script:
            with self._lock:
                self._left -= 1
                is_it = self._left == 0
            if is_it:
                self.is_reached.set()
                return self._work(trip)
        return trip.forward()


def check_all(url: str, client: Redis, lives: Mapping[str, list[Event]]) -> None:
    """Only what was acknowledged is there, in order; and the store can be used, and emptied."""
    with holdfast.open(url) as saver:
        found = audit(client)
        assert found.keys() <= lives.keys()
        for thread, events in lives.items():
            check(saver, thread, events)
            listed = [one.checkpoint["id"] for one in saver.list(config(thread))]
            assert listed == (found[thread].ids[""][::-1] if thread in found else [])
        for thread in lives:
            saver.put(config(thread), checkpoint("9999-000001", {"state": thread}), {}, {})
            saver.prune([thread])
        for one in audit(client).values():
            assert one.ids == {"": ["9999-000001"]}
            assert not one.garbage
            assert not one.orphans
        for thread in lives:
            saver.delete_thread(thread)
            assert saver.get_tuple(config(thread)) is None
    assert standing(client) == [b"holdfast:format"]


# --- the server dies


def test_a_server_that_is_killed_loses_nothing_and_its_clients_go_on(
    server: RedisServer, wire: RedisWire, client: Redis
) -> None:
    """The patient notice nothing. Who has no patience is told, and what he did last is open."""
    rng = seeded()
    reads = changes = done = told = 0
    patient = holdfast.open(wire.url, retry_budget=60, cache_bytes=1 << 20)
    hasty = holdfast.open(wire.url, retry_budget=0, cache_bytes=1 << 20)
    flat = Flat(lambda: held(client))
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
            time.sleep(rng.random() * 0.002)  # before, within or after what the script does
            wire.is_open = False
            server.kill()
            server.start()
            for trip in wire.take_lost():
                reads += not trip.script
                changes += bool(trip.script)
                done += trip.was_done(client)
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
        check_all(server.url, client, {thread: diary.events for thread, diary in lives.items()})
        flat.look()
    patient.close()
    hasty.close()
    print(
        f"killed between send and reply: {reads} reads, {changes} changes, of which {done} "
        f"were done; {told} clients were told"
    )
    assert changes
    assert done
    assert told
    flat.check()


# --- the client dies


def test_a_client_that_is_killed_between_send_and_reply(wire: RedisWire, client: Redis) -> None:
    rng = seeded()
    ends = Counter[str]()
    flat = Flat(lambda: held(client))
    for number in rounds(ends, "commit", "write", "within the request"):
        thread = f"round {number}"
        share = rng.choice([1, 1, rng.random()])
        dead = threading.Event()

        def send(trip: Trip, share: float = share, dead: threading.Event = dead) -> bytes:
            if share < 1:
                trip.forward(share)
                ends["within the request"] += 1
            else:
                ends[trip.script] += not trip.forward().startswith(UNKNOWN)
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
        check_all(f"redis://127.0.0.1:{wire.server[1]}/0", client, {thread: events})
        flat.look()
    print(f"killed between send and reply: {ends}")
    flat.check()


# --- replies are lost


@pytest.mark.parametrize("mode", MODES)
def test_replies_that_are_lost_change_nothing(
    server: RedisServer, wire: RedisWire, client: Redis, mode: str
) -> None:
    rng = seeded()
    cut = Counter[str]()
    diary = Diary()

    def meddle(trip: Trip) -> bytes:
        if not trip.script or rng.random() > 0.25:
            return trip.forward()
        kind = rng.choice(["the reply", "half the reply", "half the request"])
        cut[trip.script] += kind != "half the request"
        cut[kind] += 1
        if kind == "half the request":
            trip.forward(rng.random())
            raise Cut
        reply = trip.forward()
        raise Cut(reply[: len(reply) // 2] if kind == "half the reply" else b"")

    wire.meddle = meddle
    flat = Flat(lambda: held(client))
    with holdfast.open(wire.url, retry_budget=60) as saver, ThreadPoolExecutor(1) as pool:
        job = pool.submit(lead, saver, mode, "t", rng.randrange(10**6), diary)
        wanted = [name for name in CHANGES if name not in ("copy", "upload")]
        for number in range(1, ROUNDS + 1):
            while len(diary.events) < 20 * number and not job.done():
                time.sleep(0.001)
            flat.look()
        while not job.done() and not all(cut[name] for name in wanted):
            time.sleep(0.001)
        diary.is_over = True
        job.result()
        wire.meddle = Trip.forward
        check_all(server.url, client, {"t": diary.events})
    print(f"{len(diary.events)} events, lost: {cut}")
    flat.check(memory=False)  # the thread remembers more and more operations, for a minute


@pytest.mark.parametrize("mode", MODES)
def test_writers_and_a_pruner_share_a_thread_on_a_bad_line(
    wire: RedisWire, client: Redis, mode: str
) -> None:
    rng = seeded()
    cut = Counter[str]()
    names = ["", "sub:1", "sub:2"]

    def meddle(trip: Trip) -> bytes:
        reply = trip.forward()
        if trip.script and rng.random() < 0.2:
            cut[trip.script] += 1
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
        found = audit(client)["t"]
        assert {name: len(ids) for name, ids in found.ids.items()} == dict.fromkeys(names, 1)
        assert not found.garbage
        for name in names:
            check_chained(saver, config("t", name), name, 2 * ROUNDS)
    print(f"lost: {cut}")
    assert cut["commit"]
    assert cut["discard"]


@pytest.mark.parametrize("how", ["the server is killed", "the reply is lost", "nobody tries again"])
@pytest.mark.parametrize("deed", ["delete", "prune"])
def test_removing_in_slices_is_finished(
    server: RedisServer,
    wire: RedisWire,
    client: Redis,
    monkeypatch: pytest.MonkeyPatch,
    deed: str,
    how: str,
) -> None:
    """Cut short between two slices: what remains is whole, and the next one removes it too."""
    for module in ("changing", "removals"):
        monkeypatch.setattr(f"holdfast.backends.redis.{module}.REMOVED", 20)
    budget = 0 if how == "nobody tries again" else 60
    script = {"delete": "forget", "prune": "remove"}[deed]
    count = Counter[str]()

    def meddle(trip: Trip) -> bytes:
        if trip.script != script:
            return trip.forward()
        count[script] += 1
        nth = count[script]
        if how == "the server is killed" and nth == 2:
            server.kill()
            server.start()
            raise Cut
        if how == "nobody tries again" and nth > 1:
            raise Cut
        reply = trip.forward()
        if how == "the reply is lost" and nth <= 2:
            raise Cut
        return reply

    with holdfast.open(wire.url, retry_budget=budget) as saver, holdfast.open(server.url) as other:
        for number in range(1, 71):
            made = checkpoint(f"{number:06}", {"state": [f"{number} of many"] * 50})
            other.put(config(), made, {"run_id": "r"}, {})
            other.put_writes(config("t", "", f"{number:06}"), [("a", [number] * 99)], "task")
            other.put(config("u"), made, {}, {})
        remove = {"delete": saver.delete_thread, "prune": lambda id: saver.prune([id])}[deed]
        remove("u")  # now the server knows the scripts
        other.delete_thread("u")
        wire.meddle = meddle
        if budget:
            remove("t")
            assert count[script] >= 4
        else:
            with pytest.raises(holdfast.StoreUnavailable):
                remove("t")
            wire.meddle = Trip.forward
            left = [one.checkpoint["id"] for one in other.list(config())]
            assert len(left) == (0 if deed == "delete" else 50)
            assert (other.get_tuple(config()) is None) == (deed == "delete")
            if deed == "prune":
                assert audit(client)["t"].ids[""] == left[::-1]
            again = checkpoint("000080", {"state": "again"})
            other.put(config(), again, {}, {})
            assert len([*other.list(config())]) == len(left) + 1
            remove("t")
        found = audit(client)
        if deed == "delete":
            assert standing(client) == [b"holdfast:format"]
        else:
            assert [len(ids) for ids in found["t"].ids.values()] == [1]
            assert not found["t"].garbage
            assert other.get_tuple(config()) is not None
