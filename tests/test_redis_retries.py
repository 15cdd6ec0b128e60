"""Redis: a change whose reply is lost is sent again, and changes nothing the second time.

Not even where another writer came between: what he stored stays.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import holdfast
import pytest
from holdfast import steps
from holdfast._core import Core
from holdfast.backends import base
from holdfast.backends.base import new_operation_id
from holdfast.drive import drive
from holdfast.serde import Serializer
from holdfast.steps.garbage import collect_garbage
from redis import Redis
from support.audit import audit
from support.calls import Calls
from support.faults import SOAK
from support.make import checkpoint, checkpoint_id, config, version
from support.redis_server import RedisServer
from support.redis_wire import DURABLE, UNKNOWN, RedisWire, Trip
from support.requests import WORDS, Execute, anew, made, state, write
from support.wire import Cut

OTHER = WORDS[60:90]
WIDE = [random.Random(number).randbytes(60_000) for number in range(40)]
"""More than one command takes."""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer(DURABLE) as server:
        yield server


@pytest.fixture
def wire(server: RedisServer) -> Iterator[RedisWire]:
    with RedisWire(server.port) as wire:
        yield wire


@pytest.fixture
def other(server: RedisServer) -> Iterator[Execute]:
    """How another client, with a nearer end to its patience, has requests answered."""
    with holdfast.open(server.url, retry_budget=0) as saver:
        yield saver._live.backend.execute


def ask(saver: holdfast.Saver, mode: str, *requests: base.Request) -> list[Any]:
    """The replies to requests, which on the async side are made at the same time."""
    backend = saver._live.backend
    if mode == "sync":
        return [backend.execute(request) for request in requests]

    async def at_once() -> list[Any]:
        return await asyncio.gather(*map(backend.aexecute, requests))

    return asyncio.run(at_once())


def all_of(execute: Execute) -> Any:
    """All of a thread. The order of its writes is the server's own, and is none."""
    epoch, records, writes, *others = state(execute)
    in_order = {place: sorted(map(repr, some)) for place, some in writes.items()}
    return [epoch, records, in_order, *others]


class Lost:
    """Loses the first reply of a script that did its work, and has others come between."""

    def __init__(self, script: str, between: Callable[[], None]) -> None:
        self._script = script
        self._between = between
        self.count = 0
        """How often the script was sent by then and thereafter."""

    def __call__(self, trip: Trip) -> bytes:
        reply = trip.forward()
        if trip.script != self._script or reply.startswith(UNKNOWN):
            return reply
        self.count += 1
        if self.count == 1:
            self._between()
            raise Cut
        return reply


Case = tuple[str, base.Request, list[base.Request]]
"""The script whose reply is lost, the change, and what others do between."""


def commit(execute: Execute) -> Case:
    return "commit", made(), [anew(made(value=OTHER))]


def commit_to_a_thread(execute: Execute) -> Case:
    execute(made(number=9))
    return "commit", made(), [anew(made(value=OTHER)), made(number=2), write()]


def commit_between_two(execute: Execute) -> Case:
    execute(made(number=9))
    between = [made(number=3), anew(made(number=5, value=OTHER)), made(number=7)]
    return "commit", made(number=5), between


def wide() -> base.Commit:
    """The commit of a checkpoint with more than one command takes."""
    seen: list[Any] = []
    core = Core(cache_bytes=0, compression="zstd")
    one = checkpoint(1, {"state": WIDE}, {"state": version(1)})
    making = steps.put(core, Serializer(), config(), one, {}, one["channel_versions"])
    drive(making, lambda request: seen.append(request) or [])
    (request,) = seen
    return request


def commit_in_slices(execute: Execute) -> Case:
    return "commit", wide(), [anew(made(value=OTHER))]


def slice_of_a_commit(execute: Execute) -> Case:
    return "upload", wide(), [made(number=2, value=OTHER)]


def special_write(execute: Execute) -> Case:
    return "write", write(idx=-1), [write(idx=-1, data=made(value=OTHER).record)]


def special_write_to_a_checkpoint(execute: Execute) -> Case:
    execute(made())
    return special_write(execute)


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
    commit_between_two,
    commit_in_slices,
    special_write,
    special_write_to_a_checkpoint,
    remove,
    remove_whatever_came_between,
    copy,
]


@pytest.mark.parametrize("when", ["at once", "much later"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_change_that_is_sent_again_leaves_what_came_between(
    server: RedisServer,
    wire: RedisWire,
    other: Execute,
    case: Callable[[Execute], Case],
    when: str,
    mode: str,
) -> None:
    between: list[Any] = []
    script, change, requests = case(other)
    data = made().record

    def work() -> None:
        if when == "much later":
            for number in range(60):
                other(write(number=50, idx=number, data=data))
            time.sleep(8 if SOAK else 0)  # longer than the others remember
        for request in requests:
            other(request)
        between.append(all_of(other))
        if when == "much later":
            server.kill()
            server.start()

    lost = wire.meddle = Lost(script, work)
    saver = holdfast.open(f"{wire.url}?socket_timeout=60", retry_budget=60)
    (reply,) = ask(saver, mode, change)
    assert lost.count == 2, "it was not sent again"
    assert [all_of(other)] == between
    assert reply == {base.Remove: True, base.Copy: None}.get(type(change), [])
    saver.close()


def test_the_control_case_shows_what_would_be_changed(other: Execute) -> None:
    """Each change, made anew after what came between, does change something."""
    for case in CASES:
        _, change, requests = case(other)
        first = other(change)
        for request in requests:
            other(request)
        before = all_of(other)
        second = other(anew(change))
        assert (second, all_of(other)[1:]) != (first, before[1:]), case.__name__
        for thread in ("t", "source"):
            other(base.Forget(thread, new_operation_id(), leaves_tombstone=False))


def test_a_slice_that_is_sent_again_takes_nothing_from_others(
    server: RedisServer, wire: RedisWire, other: Execute, mode: str
) -> None:
    script, change, requests = slice_of_a_commit(other)
    lost = wire.meddle = Lost(script, lambda: [other(one) for one in requests] and None)
    saver = holdfast.open(wire.url, retry_budget=60)
    assert ask(saver, mode, change) == [[]]
    assert lost.count > 2
    with Redis.from_url(server.url) as client:
        assert not audit(client)["t"].garbage
    with holdfast.open(server.url) as cold:
        for number, value in ((1, WIDE), (2, OTHER)):
            found = cold.get_tuple(config("t", "", checkpoint_id(number)))
            assert found is not None
            assert found.checkpoint["channel_values"] == {"state": value}
    saver.close()


def test_a_sweep_between_the_slices_and_their_commit_costs_nothing(
    wire: RedisWire, server: RedisServer, mode: str
) -> None:
    """What was sent ahead is garbage until the commit, and is sent again."""
    swept: list[int] = []
    with holdfast.open(server.url) as other, holdfast.open(wire.url) as saver:

        def meddle(trip: Trip) -> bytes:
            if trip.script == "commit" and not swept:
                sweeping = collect_garbage(other._live.core, "t")
                swept.append(drive(sweeping, other._live.backend.execute).chunks)
            return trip.forward()

        wire.meddle = meddle
        big = checkpoint(1, {"state": WIDE})

        async def put() -> Any:
            return await Calls(saver, mode).put(config(), big, {}, big["channel_versions"])

        stored = asyncio.run(put())
        assert swept[0] > 20
        found = other.get_tuple(stored)
        assert found is not None
        assert found.checkpoint == big
        with Redis.from_url(server.url) as client:
            assert not audit(client)["t"].garbage


def test_writes_that_share_a_call_are_each_done_once(
    server: RedisServer, wire: RedisWire, other: Execute
) -> None:
    """The tasks of one moment: their one reply is lost, and others write between."""
    sent: list[int] = []
    writes = [write(idx=-1, data=made(number=number).record) for number in range(1, 9)]
    writes = [
        anew(one, writes=[base.StoredWrite(f"task {number}", -1, one.writes[0].data)])
        for number, one in enumerate(writes)
    ]
    later = made(value=OTHER).record
    other(write(number=9))  # now the server knows the script: it is sent once for all

    def work() -> None:
        for number in (0, 3, 7):
            other(anew(writes[number], writes=[base.StoredWrite(f"task {number}", -1, later)]))
        (some,) = other(base.WritesOf("t", [("", checkpoint_id(1))])).values()
        sent.append(len(some))

    lost = wire.meddle = Lost("write", work)
    saver = holdfast.open(wire.url, retry_budget=60)
    assert ask(saver, "async", *writes) == [[]] * 8
    assert sent[0] > 3, "they do not share a call"
    assert lost.count > 1
    (stored,) = other(base.WritesOf("t", [("", checkpoint_id(1))])).values()
    for one in stored:
        number = int(one.task_id.split()[1])
        expected = later if number in (0, 3, 7) else writes[number].writes[0].data
        assert one.data == expected, one.task_id
    assert len(stored) == 8
    saver.close()


def test_a_put_that_is_sent_again_leaves_what_another_saver_put(
    server: RedisServer, wire: RedisWire, mode: str
) -> None:
    """The same as a user sees it."""
    mine, theirs = (checkpoint(1, {"state": [name] * 99}) for name in ("mine", "theirs"))
    with holdfast.open(server.url) as other:

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

        asyncio.run(put_and_read())
        saver.close()
