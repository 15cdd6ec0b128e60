"""Redis: a server that is away, busy, full or a replica is waited for, and then it is an error.

Never is it taken for a store without the checkpoint.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import holdfast
import pytest
from redis import Redis, RedisError
from redis.exceptions import BusyLoadingError, ResponseError
from support.audit import audit
from support.calls import Calls
from support.make import checkpoint, checkpoint_id, config
from support.redis_server import Option, RedisServer
from support.redis_wire import DURABLE, RedisWire, Trip
from support.wire import Cut

pytestmark = pytest.mark.timeout(60)


class Trouble:
    """A server, and what is wrong with it between `begin` and `end`."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.client = Redis.from_url(server.url)
        self.beside: list[threading.Thread] = []

    def run(self, work: Callable[[], object]) -> None:
        """Work beside the test, until the trouble ends."""
        self.beside.append(threading.Thread(target=work))
        self.beside[-1].start()

    def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            time.sleep(0.005)

    def join(self) -> None:
        for one in self.beside:
            one.join()

    def says(self, code: str) -> bool:
        """Whether the server answers everybody with an error of this code."""
        try:
            self.client.ping()
        except (BusyLoadingError, ResponseError) as error:
            return code in f"{error} {type(error).__name__}"
        except RedisError:
            pass
        return False


def load_slowly(trouble: Trouble) -> None:
    trouble.client.mset({f"filler {number}": "x" * 2000 for number in range(3000)})
    trouble.client.save()
    trouble.server.kill()
    trouble.server.options["key-load-delay"] = 2000
    trouble.run(trouble.server.start)
    trouble.until(lambda: trouble.says("BusyLoading"))


def load_fast(trouble: Trouble) -> None:
    trouble.client.config_set("key-load-delay", 0)


def run_for_ever(trouble: Trouble) -> None:
    url = trouble.server.url

    def script() -> None:
        with suppress(ResponseError), Redis.from_url(url, socket_timeout=None) as client:
            client.eval("while true do end", 0)

    trouble.run(script)
    trouble.until(lambda: trouble.says("BUSY"))


def fail_to_save(trouble: Trouble) -> None:
    (trouble.server.folder / "dump.rdb").mkdir()
    trouble.client.bgsave()
    trouble.until(lambda: trouble.client.info()["rdb_last_bgsave_status"] == "err")


def save(trouble: Trouble) -> None:
    (trouble.server.folder / "dump.rdb").rmdir()
    trouble.client.bgsave()
    trouble.until(lambda: trouble.client.info()["rdb_last_bgsave_status"] == "ok")


def let_nobody_in(trouble: Trouble) -> None:
    trouble.client.config_set("maxclients", 1)
    trouble.client.execute_command("CLIENT KILL TYPE normal SKIPME yes")


def forget_the_primary(trouble: Trouble) -> None:
    trouble.client.config_set("replica-serve-stale-data", "no")
    trouble.client.replicaof("127.0.0.1", 1)


def setting(name: str, value: Any) -> Callable[[Trouble], Any]:
    return lambda trouble: trouble.client.config_set(name, value)


@dataclass(frozen=True)
class Outage:
    """What goes wrong, how it is mended, what it is called, and what is possible meanwhile."""

    begin: Callable[[Trouble], Any]
    end: Callable[[Trouble], Any]
    error: type[holdfast.HoldfastError]
    possible: tuple[str, ...] = ()
    options: Mapping[str, Option] = field(default_factory=dict)


READS = ("get", "list")
OUTAGES = {
    "stopped": Outage(
        lambda trouble: trouble.server.kill(),
        lambda trouble: trouble.server.start(),
        holdfast.StoreUnavailable,
        options=DURABLE,
    ),
    "paused": Outage(
        lambda trouble: trouble.server.pause(),
        lambda trouble: trouble.server.resume(),
        holdfast.StoreTimeout,
    ),
    "loading": Outage(
        load_slowly,
        load_fast,
        holdfast.StoreUnavailable,
        options={"rdbcompression": "no", "loading-process-events-interval-bytes": 1024},
    ),
    "replica": Outage(
        lambda trouble: trouble.client.replicaof("127.0.0.1", 1),
        lambda trouble: trouble.client.replicaof("NO", "ONE"),
        holdfast.StoreUnavailable,
        READS,
    ),
    "replica without its primary": Outage(
        forget_the_primary,
        lambda trouble: trouble.client.replicaof("NO", "ONE"),
        holdfast.StoreUnavailable,
    ),
    "full": Outage(
        setting("maxmemory", 1),
        setting("maxmemory", 0),
        holdfast.StoreFull,
        (*READS, "prune", "delete"),
    ),
    "busy": Outage(
        run_for_ever,
        lambda trouble: trouble.client.script_kill(),
        holdfast.StoreTimeout,
        options={"lua-time-limit": 5},
    ),
    "cannot save": Outage(
        fail_to_save, save, holdfast.StoreUnavailable, READS, {"save": "3600 1000000"}
    ),
    "too few replicas": Outage(
        setting("min-replicas-to-write", 1),
        setting("min-replicas-to-write", 0),
        holdfast.StoreUnavailable,
        READS,
    ),
    "too many clients": Outage(
        let_nobody_in, setting("maxclients", 1000), holdfast.StoreUnavailable
    ),
}


@pytest.fixture(params=OUTAGES)
def outage(request: pytest.FixtureRequest) -> Outage:
    return OUTAGES[request.param]


@asynccontextmanager
async def troubled(outage: Outage, mode: str) -> AsyncIterator[Trouble]:
    """A server with three threads of three checkpoints each."""
    with RedisServer(outage.options) as server:
        calls = Calls(holdfast.open(server.url), mode)
        for thread in ("kept", "pruned", "deleted"):
            for number in range(1, 4):
                await calls.put(config(thread), of(number), {}, {})
        await calls.close()
        trouble = Trouble(server)
        try:
            yield trouble
        finally:
            server.resume()
            await asyncio.to_thread(trouble.join)
            trouble.client.close()


def of(number: int) -> Any:
    return checkpoint(number, {"state": [f"{number} of some"] * 50})


def opened(trouble: Trouble, mode: str, budget: float) -> Calls:
    url = f"{trouble.server.url}?socket_timeout=1"
    return Calls(holdfast.open(url, retry_budget=budget), mode)


def deeds(calls: Calls) -> dict[str, asyncio.Task[Any]]:
    """Everything that can be asked for, at the same time."""
    head = config("kept", "", checkpoint_id(3))
    work = {
        "get": calls.get_tuple(config("kept")),
        "list": calls.list(config("kept")),
        "put": calls.put(config("kept"), of(4), {}, {}),
        "write": calls.put_writes(head, [("a", [1] * 99)], "task"),
        "prune": calls.prune(["pruned"]),
        "delete": calls.delete_thread("deleted"),
    }
    return {name: asyncio.ensure_future(one) for name, one in work.items()}


def are_right(answers: Mapping[str, Any]) -> None:
    """Reading gives what is there: three checkpoints, or four if the put came first."""
    if "get" in answers:
        assert answers["get"].checkpoint in (of(3), of(4))
    if "list" in answers:
        ids = [one.checkpoint["id"] for one in answers["list"]]
        assert ids[-3:] == [checkpoint_id(number) for number in (3, 2, 1)]
    for name in answers.keys() - {*READS, "put"}:
        assert answers[name] is None


async def is_all_done(trouble: Trouble, mode: str) -> None:
    """The deeds were done, each once."""
    calls = opened(trouble, mode, 10)
    assert await calls.ids(config("kept")) == [checkpoint_id(number) for number in (4, 3, 2, 1)]
    found = await calls.must_get(config("kept", "", checkpoint_id(3)))
    assert found.pending_writes == [("task", "a", [1] * 99)]
    assert await calls.ids(config("pruned")) == [checkpoint_id(3)]
    assert await calls.get_tuple(config("deleted")) is None
    await calls.close()
    assert audit(trouble.client).keys() == {"kept", "pruned"}


async def test_an_outage_is_waited_for(outage: Outage, mode: str) -> None:
    async with troubled(outage, mode) as trouble:
        calls = opened(trouble, mode, 10)
        await calls.setup()
        await asyncio.to_thread(outage.begin, trouble)
        tasks = deeds(calls)
        possible = {name: await tasks.pop(name) for name in outage.possible}
        are_right(possible)
        done, _ = await asyncio.wait(tasks.values(), timeout=0.2)
        assert not done
        outage.end(trouble)
        are_right({name: await task for name, task in tasks.items()})
        await calls.close()
        await is_all_done(trouble, mode)


async def test_an_outage_beyond_the_budget_is_an_error(outage: Outage, mode: str) -> None:
    """Also for a saver that was never used before. Later both work."""
    async with troubled(outage, mode) as trouble:
        warm, cold = (opened(trouble, mode, 0.5) for _ in range(2))
        await warm.setup()
        await asyncio.to_thread(outage.begin, trouble)
        for calls in (warm, cold):
            tasks = deeds(calls)
            answers = await asyncio.gather(*tasks.values(), return_exceptions=True)
            named = dict(zip(tasks, answers, strict=True))
            are_right({name: named.pop(name) for name in outage.possible})
            for name, error in named.items():
                assert type(error) is outage.error, f"{name}: {error!r}"
                assert isinstance(error.__cause__, (RedisError, OSError))
        outage.end(trouble)
        await asyncio.to_thread(trouble.join)
        for calls in (warm, cold):
            tasks = deeds(calls)
            are_right({name: await task for name, task in tasks.items()})
            await calls.close()
        await is_all_done(trouble, mode)


async def test_a_short_budget_is_spent_on_many_attempts(mode: str) -> None:
    """A line that fails fifteen times in a row, at each command, is got through in a second."""
    failed: list[Trip] = []

    def meddle(trip: Trip) -> bytes:
        failed.append(trip)
        if len(failed) <= 15:
            raise Cut
        return trip.forward()

    with RedisServer() as server, RedisWire(server.port) as wire:
        calls = Calls(holdfast.open(wire.url, retry_budget=1), mode)
        await calls.setup()
        wire.meddle = meddle
        stored = await calls.put(config(), of(1), {}, {})
        failed.clear()
        assert (await calls.must_get(stored)).checkpoint == of(1)
        assert len(failed) > 15
        await calls.close()


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def say_farewell(client: socket.socket) -> None:
    client.sendall(b"-ERR max number of clients reached\r\n")


def speak_otherwise(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


HANG_UP = pytest.mark.parametrize(
    "how",
    [lambda _: None, reset, say_farewell, speak_otherwise],
    ids=["close", "reset", "say", "speak"],
)


@HANG_UP
async def test_who_is_hung_up_on_is_told_at_once(
    mode: str, how: Callable[[socket.socket], None]
) -> None:
    """Not only when its patience with a silent server ends, which here it never does."""
    rng = random.Random(1)

    def refuse(client: socket.socket) -> None:
        time.sleep(rng.random() * 0.002)  # while it connects, and when it has sent something
        how(client)

    with RedisServer() as server, RedisWire(server.port) as wire:
        url = f"{wire.url}?socket_timeout=1000&socket_connect_timeout=1000"
        wire.refuse = refuse
        for _ in range(3):
            wire.is_open = False
            calls = Calls(holdfast.open(url, retry_budget=0.4), mode)
            answers = await asyncio.gather(*deeds(calls).values(), return_exceptions=True)
            assert {type(answer) for answer in answers} == {holdfast.StoreUnavailable}
            wire.is_open = True
            assert await calls.get_tuple(config("nobody")) is None
            await calls.close()


@HANG_UP
async def test_who_is_hung_up_on_while_the_loop_is_busy_is_told_at_once(
    how: Callable[[socket.socket], None],
) -> None:
    """A connection that is made, and all that happens to it, in one turn of the loop."""

    async def look_away() -> None:
        while True:
            time.sleep(0.002)  # noqa: ASYNC251 - that is the point
            await asyncio.sleep(0)

    with RedisServer() as server, RedisWire(server.port) as wire:
        url = f"{wire.url}?socket_timeout=1000&socket_connect_timeout=1000"
        wire.refuse = how
        async with holdfast.open(url, retry_budget=1) as saver:
            wire.is_open = False
            busy = asyncio.create_task(look_away())
            calls = (saver.aget_tuple(config(f"t{number}")) for number in range(20))
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(answer) for answer in answers} == {holdfast.StoreUnavailable}
            wire.is_open = True
            assert await saver.aget_tuple(config("nobody")) is None
            busy.cancel()
