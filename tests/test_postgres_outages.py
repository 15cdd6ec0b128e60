"""Postgres: a server that is away, silent, busy or read-only is waited for, then it is an error.

Never is it taken for a store without the checkpoint.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import holdfast
import psycopg
import pytest
from holdfast.backends.postgres import clients
from psycopg_pool import PoolTimeout
from support.calls import Calls
from support.make import checkpoint, checkpoint_id, config, version
from support.postgres import backends_of, eye, settle
from support.postgres_audit import audit
from support.postgres_server import DURABLE, PostgresServer
from support.postgres_wire import PostgresWire, Trip
from support.wire import Cut

pytestmark = pytest.mark.timeout(60)

OURS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'holdfast'"


class Trouble:
    """A server, and what is wrong with it between `begin` and `end`."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.conn = eye(server.url)

    def has_app(self) -> bool:
        return bool(self.conn.execute("SELECT FROM pg_roles WHERE rolname = 'app'").rowcount)

    def say(self, *statements: str) -> None:
        for one in statements:
            self.conn.execute(one)

    def let_nobody_in(self) -> None:
        self.say("ALTER ROLE app CONNECTION LIMIT 0")
        self.say(f"SELECT pg_terminate_backend(pid, 5000) FROM ({OURS}) AS ours")

    def set_for_all(self, name: str, value: str) -> None:
        """Also for those who are there: a connection that was made before does not know of it."""
        self.say(f"ALTER ROLE app SET {name} = '{value}'")
        self.say(f"SELECT pg_terminate_backend(pid, 5000) FROM ({OURS}) AS ours")

    def reset(self, name: str) -> None:
        self.say(f"ALTER ROLE app RESET {name}")

    def lock(self) -> None:
        """Keep all threads from being changed. Who waits for that is told soon."""
        self.set_for_all("lock_timeout", "20ms")
        self.say("BEGIN", "LOCK TABLE holdfast_threads IN EXCLUSIVE MODE")

    def lock_slowly(self) -> None:
        self.set_for_all("statement_timeout", "20ms")
        self.say("BEGIN", "LOCK TABLE holdfast_threads IN EXCLUSIVE MODE")


@dataclass(frozen=True)
class Outage:
    """What goes wrong, how it is mended, what it is called, and what is possible meanwhile."""

    begin: Callable[[Trouble], Any]
    end: Callable[[Trouble], Any]
    error: type[holdfast.HoldfastError]
    possible: tuple[str, ...] = ()
    cold: type[holdfast.HoldfastError] | None = None
    """What it is called by a saver that has no connection yet, where that is something else."""


READS = ("get", "list")
OUTAGES = {
    "stopped": Outage(
        lambda trouble: trouble.server.kill(),
        lambda trouble: trouble.server.start(),
        holdfast.StoreUnavailable,
    ),
    "paused": Outage(
        lambda trouble: trouble.server.pause(),
        lambda trouble: trouble.server.resume(),
        holdfast.StoreTimeout,
        cold=holdfast.StoreUnavailable,
    ),
    "read-only": Outage(
        lambda trouble: trouble.set_for_all("default_transaction_read_only", "on"),
        lambda trouble: trouble.reset("default_transaction_read_only"),
        holdfast.StoreUnavailable,
        READS,
    ),
    "locked": Outage(
        Trouble.lock, lambda trouble: trouble.say("COMMIT"), holdfast.StoreTimeout, READS
    ),
    "slow": Outage(
        Trouble.lock_slowly, lambda trouble: trouble.say("COMMIT"), holdfast.StoreTimeout, READS
    ),
    "too many connections": Outage(
        Trouble.let_nobody_in,
        lambda trouble: trouble.say("ALTER ROLE app CONNECTION LIMIT -1"),
        holdfast.StoreUnavailable,
    ),
}


@pytest.fixture(params=OUTAGES)
def outage(request: pytest.FixtureRequest) -> Outage:
    return OUTAGES[request.param]


PAUSE = 0.004
LONG = random.Random(7).randbytes(4_000_000)


class Slow:
    """A line to a server on which replies take their time.

    Args:
        port: The server's.
    """

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.pauses = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Slow:
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes who accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                for ends, pause in (((client, server), 0.0), ((server, client), PAUSE)):
                    self._threads.append(
                        threading.Thread(target=self._pass_on, args=(*ends, pause))
                    )
                    self._threads[-1].start()

    def _pass_on(self, source: socket.socket, target: socket.socket, pause: float) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 14):
                target.sendall(data)
                time.sleep(pause)
                self.pauses += bool(pause)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        if not pause:  # both directions have ended
            return
        source.close()
        target.close()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(DURABLE) as server:
        yield server


@pytest.fixture
def slow(server: PostgresServer) -> Iterator[Slow]:
    """A slow line to a server with a long value."""
    made = checkpoint(1, {"blob": LONG}, {"blob": version(1)})
    with holdfast.open(server.url) as saver:
        saver.put(config("long"), made, {}, made["channel_versions"])
    with Slow(server.port) as slow:
        yield slow


@pytest.fixture
def trouble(server: PostgresServer) -> Iterator[Trouble]:
    trouble = Trouble(server)
    trouble.say(
        "DROP OWNED BY app" if trouble.has_app() else "CREATE ROLE app LOGIN",
        "DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO app",
    )
    yield trouble
    server.resume()
    trouble.conn.close()
    with eye(server.url) as conn:
        conn.execute("ALTER ROLE app RESET ALL; ALTER ROLE app CONNECTION LIMIT -1")


@pytest.fixture
async def filled(trouble: Trouble, mode: str) -> Trouble:
    """A server with three threads of three checkpoints each."""
    calls = opened(trouble, mode, 10)
    for thread in ("kept", "pruned", "deleted"):
        for number in range(1, 4):
            await calls.put(config(thread), of(number), {}, {})
    await calls.close()
    return trouble


def of(number: int) -> Any:
    return checkpoint(number, {"state": [f"{number} of some"] * 50})


def opened(trouble: Trouble, mode: str, budget: float, **options: Any) -> Calls:
    url = f"{trouble.server.url.replace('postgres@', 'app@')}?connect_timeout=2"
    return Calls(holdfast.open(url, retry_budget=budget, reply_timeout=0.3, **options), mode)


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
    with eye(trouble.server.url) as conn:
        assert audit(conn, f"{trouble.server.url}?table=holdfast").keys() == {"kept", "pruned"}


async def test_an_outage_is_waited_for(outage: Outage, filled: Trouble, mode: str) -> None:
    """It ends within the budget, and everybody goes on: how soon is counted in attempts."""
    calls = opened(filled, mode, 30, pool_size=6)
    await calls.setup()
    outage.begin(filled)
    tasks = deeds(calls)
    are_right({name: await tasks.pop(name) for name in outage.possible})
    while calls.saver.stats()["retries"] < len(tasks):  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert not [one for one in tasks.values() if one.done()]
    outage.end(filled)
    before = calls.saver.stats()["retries"]
    are_right({name: await task for name, task in tasks.items()})
    assert calls.saver.stats()["retries"] - before < 8 * len(tasks)
    assert calls.saver.stats()["errors"] == 0
    await calls.close()
    await is_all_done(filled, mode)


async def test_an_outage_beyond_the_budget_is_an_error(
    outage: Outage, filled: Trouble, mode: str
) -> None:
    """Also for a saver that was never used before. Later both work."""
    warm, cold = (opened(filled, mode, 0.15, pool_size=6) for _ in range(2))
    await asyncio.gather(*(warm.get_tuple(config(f"t{n}")) for n in range(6)))
    # One that the pool has asked for, and has not yet got, would come when nobody else does.
    while (figures := warm.saver.stats())["pool_idle"] < figures["pool_size"]:
        await asyncio.to_thread(time.sleep, 0.001)
    outage.begin(filled)
    for calls in (warm, cold):
        tasks = deeds(calls)
        answers = await asyncio.gather(*tasks.values(), return_exceptions=True)
        named = dict(zip(tasks, answers, strict=True))
        are_right({name: named.pop(name) for name in outage.possible})
        errors = {outage.error, outage.cold or outage.error}
        for name, error in named.items():
            # A pool whose connections are all silent makes others.
            assert type(error) in errors, f"{name}: {error!r}"
            assert isinstance(error.__cause__, (psycopg.Error, OSError))
            assert "raise pool_size" not in str(error)
        assert calls.saver.stats()["errors"] == len(named)
    outage.end(filled)
    for calls in (warm, cold):
        tasks = deeds(calls)
        are_right({name: await task for name, task in tasks.items()})
        await calls.close()
    await is_all_done(filled, mode)


async def test_a_connection_that_was_silent_is_not_used_again(filled: Trouble, mode: str) -> None:
    """What it has to say later is the reply to another question."""
    calls = opened(filled, mode, 0, pool_size=1)
    for number in range(3):
        assert await calls.get_tuple(config("kept")) is not None
        pids = {one["pid"] for one in backends_of(filled.conn)}
        filled.server.pause()
        with pytest.raises(holdfast.StoreTimeout, match="reply_timeout") as caught:
            await calls.put(config("late"), of(number + 1), {}, {})
        filled.server.resume()
        assert isinstance(caught.value.__cause__, psycopg.OperationalError)
        assert (await calls.must_get(config("kept"))).checkpoint == of(3)
        # It ends as soon as it finds that nobody listens.
        while pids & {one["pid"] for one in backends_of(filled.conn)}:
            await asyncio.to_thread(time.sleep, 0.001)
    await calls.close()


async def test_who_is_not_waited_for_leaves_the_server(filled: Trouble, mode: str) -> None:
    """Backends that wait for a lock would stay until they have it, more with each attempt."""
    filled.say("BEGIN", "LOCK TABLE holdfast_threads IN ACCESS EXCLUSIVE MODE")
    calls = opened(filled, mode, budget=0.5)
    attempts = (calls.put(config(f"t{n}"), of(2), {}, {}) for n in range(3))
    answers = await asyncio.gather(*attempts, return_exceptions=True)
    assert [type(one) for one in answers] == [holdfast.StoreTimeout] * 3
    await calls.close()
    with eye(filled.server.url) as conn:
        waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while conn.execute(waits).rowcount:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    filled.say("COMMIT")


async def test_a_reply_that_takes_long_and_comes_is_waited_for(slow: Slow, mode: str) -> None:
    """A slow line: longer than `reply_timeout` in all, but never silent for so long."""
    url = f"postgresql://postgres@127.0.0.1:{slow.port}/postgres?sslmode=disable"
    calls = Calls(holdfast.open(url, retry_budget=0, reply_timeout=0.4), mode)
    found = await calls.must_get(config("long"))
    assert slow.pauses > 2 * 0.4 / PAUSE
    assert found.checkpoint["channel_values"] == {"blob": LONG}
    await calls.close()


async def test_a_pool_that_is_exhausted_names_its_size(mode: str) -> None:
    with PostgresServer() as server, eye(server.url) as conn:
        saver = holdfast.open(server.url, pool_size=2, retry_budget=0)
        calls = Calls(saver, mode)
        for number in range(4):
            await calls.put(config(f"t{number}"), of(1), {}, {})
        conn.execute("BEGIN")
        conn.execute("LOCK TABLE holdfast_threads IN EXCLUSIVE MODE")
        busy = [
            asyncio.ensure_future(calls.put(config(f"t{number}"), of(2), {}, {}))
            for number in range(2)
        ]
        while (figures := saver.stats())["pool_size"] < 2 or figures["pool_idle"]:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        late = asyncio.ensure_future(calls.put(config("t2"), of(2), {}, {}))
        while not late.done() and saver.stats()["pool_waiting"] != 1:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert not late.done(), "nobody was seen to wait"
        with pytest.raises(holdfast.StoreTimeout, match="pool_size") as caught:
            await late
        assert isinstance(caught.value.__cause__, PoolTimeout)
        patient = asyncio.ensure_future(
            Calls(holdfast.open(server.url), mode).get_tuple(config("t0"))
        )
        assert await patient is not None
        conn.execute("COMMIT")
        await asyncio.gather(*busy)
        while (figures := saver.stats())["pool_idle"] < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert (figures["pool_size"], figures["pool_waiting"], figures["errors"]) == (2, 0, 1)
        await calls.close()
        assert saver.stats()["pool_size"] == 0


class Slowly(PostgresWire):
    """A wire on which no connection is made until it is allowed."""

    def __init__(self, port: int) -> None:
        self.count = 0
        """The connections that were asked for."""
        self.may_connect = threading.Event()
        super().__init__(port)

    def _serve(self, client: socket.socket) -> None:
        self.count += 1
        self.may_connect.wait()
        super()._serve(client)


async def test_a_pool_that_takes_long_to_connect_keeps_its_size(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who have waited longer than their patience go on waiting."""
    monkeypatch.setattr(clients, "_PATIENCE", 0.02)
    with holdfast.open(server.url) as saver:
        saver.setup()
    with Slowly(server.port) as wire:
        calls = Calls(holdfast.open(wire.url, pool_size=2, retry_budget=30), "sync")
        tasks = [asyncio.ensure_future(calls.get_tuple(config(f"t{n}"))) for n in range(8)]
        # Long enough for each to lose its patience several times.
        await asyncio.to_thread(time.sleep, 0.5)
        wire.may_connect.set()
        await asyncio.gather(*tasks)
        assert wire.count <= 2
        await calls.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_why_there_is_no_connection() -> None:
    """Not that its pool is exhausted: the connections of its parent are none of its own."""
    with PostgresServer() as server, holdfast.open(server.url, retry_budget=1) as saver:
        assert saver.get_tuple(config()) is None
        reads, writes = os.pipe()
        child = os.fork()
        if not child:
            signal.alarm(30)
            code = 1
            try:
                os.read(reads, 1)
                saver.get_tuple(config())
            except holdfast.StoreUnavailable:
                code = 3
            finally:
                os._exit(code)
        server.kill()
        os.write(writes, b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        os.close(reads)
        os.close(writes)


async def test_a_server_with_fewer_connections_than_the_pool_would_have(mode: str) -> None:
    options = {"max_connections": 6, "superuser_reserved_connections": 3}
    with PostgresServer(options) as server, eye(server.url) as conn:
        conn.execute("CREATE ROLE app LOGIN; GRANT ALL ON SCHEMA public TO app")
        url = server.url.replace("postgres@", "app@")
        calls = Calls(holdfast.open(url, pool_size=20, retry_budget=30), mode)
        await calls.setup()
        await asyncio.gather(*(calls.put(config(f"t{n}"), of(1), {}, {}) for n in range(40)))
        for number in range(40):
            assert (await calls.must_get(config(f"t{number}"))).checkpoint == of(1)
        await calls.close()
        await asyncio.to_thread(settle, server.url)
        mine = []
        with pytest.raises(psycopg.OperationalError, match="connection slots"):
            while True:
                mine.append(psycopg.connect(url))
        hasty = Calls(holdfast.open(url, retry_budget=0), mode)
        with pytest.raises(holdfast.StoreUnavailable, match="max_connections"):
            await hasty.get_tuple(config("t0"))
        for one in mine:
            one.close()
        await hasty.close()


async def test_a_short_budget_is_spent_on_many_attempts(mode: str) -> None:
    """A line that fails ten times in a row, at each request, is got through in two seconds."""
    failed: list[Trip] = []

    def meddle(trip: Trip) -> bytes:
        failed.append(trip)
        if len(failed) <= 10:
            raise Cut
        return trip.forward()

    with PostgresServer() as server, PostgresWire(server.port) as wire:
        calls = Calls(holdfast.open(wire.url, retry_budget=2, pool_size=1), mode)
        await calls.setup()
        wire.meddle = meddle
        stored = await calls.put(config(), of(1), {}, {})
        assert calls.saver.stats()["retries"] == 10
        failed.clear()
        assert (await calls.must_get(stored)).checkpoint == of(1)
        assert calls.saver.stats()["retries"] == 20
        await calls.close()
