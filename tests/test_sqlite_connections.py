"""SQLite's connections: given ones, those in memory, URLs, closing, interrupts, many processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import holdfast
import pytest
from holdfast import SqliteSaver
from holdfast.backends.base import Commit, new_operation_id
from support.make import checkpoint, checkpoint_id, config, version
from support.workers import put_and_check

WORDS = [f"{i * 7919 % 1000003:x} " * 60 for i in range(40)]
SPAWN = multiprocessing.get_context("spawn")
FACTORIES: dict[str, Callable[[sqlite3.Connection], None]] = {
    "plain": lambda _: None,
    "Row": lambda connection: setattr(connection, "row_factory", sqlite3.Row),
    "set": lambda connection: setattr(connection, "row_factory", lambda _, row: {*row}),
    "bytes": lambda connection: setattr(connection, "text_factory", bytes),
    "bytearray": lambda connection: setattr(connection, "text_factory", bytearray),
}
SETTINGS: list[dict[str, Any]] = [{"isolation_level": level} for level in (None, "", "IMMEDIATE")]
if sys.version_info >= (3, 12):
    SETTINGS += [{"autocommit": True}, {"autocommit": False}]


def lacking() -> Commit:
    """A commit that is refused, for a chunk that is nowhere."""
    names = ("t", "", checkpoint_id(77), None, None)
    return Commit(*names, b"record", [], [b"\x77" * 16], new_operation_id())


def put(saver: holdfast.Saver, number: int = 1, thread: str = "t") -> Any:
    values = {"state": WORDS[:number]}
    made = checkpoint(number, values, {"state": version(number)})
    parent = checkpoint_id(number - 1) if number > 1 else None
    return saver.put(config(thread, "", parent), made, {"step": number}, made["channel_versions"])


def use(saver: holdfast.Saver) -> None:
    """Call what there is to call, and check what comes back."""
    for number in (1, 2):
        where = put(saver, number)
        saver.put_writes(where, [("state", WORDS[number]), ("__error__", "no")], "task", "path")
    for found in (saver.get_tuple(config()), saver.get_tuple(where), *saver.list(None, limit=1)):
        assert found is not None
        assert found.checkpoint["channel_values"] == {"state": WORDS[:2]}
        assert found.pending_writes is not None
        assert [value for _, _, value in found.pending_writes] == ["no", WORDS[2]]
    history = saver.get_delta_channel_history(config=where, channels=["state"])
    assert history["state"]["writes"] == [("task", "state", WORDS[1])]
    saver.copy_thread("t", "copy")
    saver.prune(["copy"])
    assert len([*saver.list(config("copy"))]) == 1
    saver.delete_thread("copy")
    assert [found.metadata["step"] for found in saver.list(None)] == [2, 1]


# --- given connections of sqlite3


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("factory", FACTORIES)
def test_a_given_connection_may_have_any_settings(
    tmp_path: Path, settings: dict[str, Any], factory: str
) -> None:
    with closing(sqlite3.connect(tmp_path / "db", check_same_thread=False, **settings)) as given:
        FACTORIES[factory](given)
        use(SqliteSaver(given))
    with closing(SqliteSaver(tmp_path / "db")) as saver:
        assert len([*saver.list(config())]) == 2, "was not committed"


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("fails", ["refused", "raises"])
def test_an_owners_rows_survive_what_fails_and_go_with_what_succeeds(
    tmp_path: Path, settings: dict[str, Any], fails: str
) -> None:
    path = tmp_path / "db"
    with closing(sqlite3.connect(path, **settings)) as given, closing(sqlite3.connect(path)) as eye:
        given.execute("CREATE TABLE mine (a)")
        given.commit()
        saver = SqliteSaver(given)
        put(saver)
        if not given.in_transaction:
            given.execute("BEGIN")
        given.execute("INSERT INTO mine VALUES (1)")
        execute = saver._live.backend.execute
        if fails == "refused":
            assert execute(lacking()) == [b"\x77" * 16]
        else:
            broken: Any = lacking()
            object.__setattr__(broken, "frontier", [])
            object.__setattr__(broken, "chunks", [(b"id", b"chunk"), (b"id 2", object())])
            with pytest.raises(holdfast.StoreUnavailable):
                execute(broken)
        assert given.execute("SELECT a FROM mine").fetchall() == [(1,)]
        assert given.in_transaction
        assert eye.execute("SELECT a FROM mine").fetchall() == [], "committed by a failure"
        put(saver, 2)
        assert eye.execute("SELECT a FROM mine").fetchall() == [(1,)]
        assert [found.metadata["step"] for found in saver.list(config())] == [2, 1]


def test_a_closed_connection_is_unavailable(tmp_path: Path) -> None:
    given = sqlite3.connect(tmp_path / "db")
    saver = SqliteSaver(given)
    put(saver)
    given.close()
    for attempt in (lambda: put(saver, 2), lambda: saver.get_tuple(config())):
        with pytest.raises(holdfast.StoreUnavailable, match="closed"):
            attempt()


# --- names


@pytest.mark.parametrize("name", [":memory:", "", "file::memory:", "file:x?mode=memory"])
def test_a_database_in_memory_serves_threads_and_loops(name: str) -> None:
    with closing(SqliteSaver(name)) as saver, ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(put_and_check, saver, "t", f"{n}", 20) for n in range(4)]
        for job in jobs:
            job.result()
        assert len([*saver.list(config("t", None))]) == 80
        assert asyncio.run(saver.aget_tuple(config("t", "1"))) is not None


ESCAPES = [("a#b.db", "a#b.db"), ("a%20b.db", "a b.db"), ("a%3Fb%23.db", "a?b#.db")]


@pytest.mark.parametrize(("escaped", "name"), ESCAPES)
def test_escapes_in_a_url_name_the_file_and_leave_the_options(
    tmp_path: Path, escaped: str, name: str
) -> None:
    with holdfast.open(f"sqlite:///{tmp_path}/{escaped}?table=mine&cache_bytes=1") as saver:
        put(saver)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with closing(sqlite3.connect(tmp_path / name)) as connection:
        assert connection.execute("SELECT count(*) FROM mine_checkpoints").fetchone() == (1,)


# --- closing


@pytest.mark.parametrize("how", ["close", "aclose"])
@pytest.mark.parametrize("yields", [0, 1, 5, 30])
async def test_closing_beside_fifty_puts_loses_none(tmp_path: Path, yields: int, how: str) -> None:
    saver = SqliteSaver(tmp_path / "db")

    async def one(number: int) -> str:
        made = checkpoint(number, {"state": WORDS[:number]})
        stored = await saver.aput(config(), made, {}, made["channel_versions"])
        return stored["configurable"]["checkpoint_id"]

    async def end() -> None:
        for _ in range(yields):
            await asyncio.sleep(0)
        await (saver.aclose() if how == "aclose" else asyncio.to_thread(saver.close))

    results = await asyncio.gather(*map(one, range(50)), end(), return_exceptions=True)
    failed = [result for result in results if isinstance(result, BaseException)]
    assert all(isinstance(error, holdfast.HoldfastError) for error in failed), failed
    await saver.aclose()
    async with SqliteSaver(tmp_path / "db") as again:
        there = {found.config["configurable"]["checkpoint_id"] async for found in again.alist(None)}
    assert there >= {result for result in results if isinstance(result, str)}


def test_a_saver_that_nobody_closed_leaves_nothing(tmp_path: Path) -> None:
    code = f"""
import asyncio, gc, sys, threading
sys.path.insert(0, {str(Path(__file__).parent)!r})
from holdfast import SqliteSaver
from support.make import checkpoint, config
def use():
    saver = SqliteSaver({str(tmp_path / "db")!r})
    saver.put(config(), checkpoint(1, {{"a": 1}}), {{}}, {{}})
    assert saver.get_tuple(config())
    asyncio.run(saver.aget_tuple(config()))
    return saver
use()
gc.collect()
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(30)
print(threading.active_count())
kept = use()
"""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


# --- interrupts


@pytest.fixture(params=["with the others", "before the others"])
def interrupted(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A saver whose next transaction is interrupted, with those who came meanwhile or alone."""
    with closing(SqliteSaver(tmp_path / "db")) as saver:
        saver.setup()
        backend: Any = saver._live.backend
        transact = backend._writer.transact
        begun, go_on = threading.Event(), threading.Event()

        def once(jobs: list[Any], *_: Any) -> None:
            monkeypatch.setattr(backend._writer, "transact", transact)
            begun.set()
            go_on.wait(30)
            if request.param == "with the others":
                backend._join(jobs)
            raise KeyboardInterrupt

        monkeypatch.setattr(backend._writer, "transact", once)
        yield saver, begun, go_on, backend


def test_an_interrupted_writer_tells_nobody_of_success(
    interrupted: Any, request: pytest.FixtureRequest
) -> None:
    saver, begun, go_on, backend = interrupted
    with ThreadPoolExecutor(4) as pool:
        leader = pool.submit(put, saver, 1, "leader")
        begun.wait(30)
        others = [pool.submit(put, saver, 1, f"other {n}") for n in range(3)]
        while len(backend._waiting) < 3:
            go_on.wait(0.001)
        go_on.set()
        with pytest.raises(KeyboardInterrupt):
            leader.result(30)
        failures = [other.exception(30) for other in others]
    are_hit = "with" in request.node.name
    assert all(isinstance(one, holdfast.StoreUnavailable) is are_hit for one in failures)
    assert len([*saver.list(None)]) == (0 if are_hit else 3)
    saver.prune([f"other {number}" for number in range(3)], strategy="delete")
    use(saver)


async def test_an_interrupted_thread_of_the_backend_is_replaced(interrupted: Any) -> None:
    saver, begun, go_on, backend = interrupted
    first = asyncio.create_task(saver.adelete_thread("t"))
    await asyncio.to_thread(begun.wait, 30)
    late = asyncio.create_task(saver.adelete_thread("t"))
    await asyncio.sleep(0)
    assert len(backend._waiting) == 1
    go_on.set()
    with pytest.raises(holdfast.StoreUnavailable, match="interrupted"):
        await asyncio.wait_for(first, 30)
    await asyncio.wait([late], timeout=3)
    is_answered = late.done()
    await asyncio.to_thread(use, saver)  # a calling thread answers those who still wait
    await asyncio.gather(late, return_exceptions=True)
    assert is_answered


# --- several processes


def begin_at_once(path: str, barrier: Any, name: str) -> None:
    with closing(SqliteSaver(path)) as saver:
        barrier.wait(60)
        put_and_check(saver, "t", name, 5)


def test_processes_may_open_a_new_file_at_the_same_moment(tmp_path: Path) -> None:
    barrier, names = SPAWN.Barrier(3), ["a", "b", "c"]
    path = str(tmp_path / "db")
    processes = [SPAWN.Process(target=begin_at_once, args=(path, barrier, n)) for n in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with closing(SqliteSaver(tmp_path / "db")) as saver:
        assert len([*saver.list(config("t", None))]) == 15


def test_reading_needs_no_lock_on_writing(tmp_path: Path) -> None:
    with closing(SqliteSaver(tmp_path / "db")) as saver:
        put(saver)
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with closing(SqliteSaver(tmp_path / "db", retry_budget=0)) as saver:
            assert saver.get_tuple(config()) is not None
            assert len([*saver.list(None)]) == 1
            with pytest.raises(holdfast.StoreTimeout):
                put(saver, 2)
        other.execute("ROLLBACK")


def test_a_busy_moment_leaves_a_new_connection_its_cache(tmp_path: Path) -> None:
    with closing(SqliteSaver(tmp_path / "db")) as saver:
        put(saver)
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with closing(SqliteSaver(tmp_path / "db", retry_budget=0)) as saver:
            with pytest.raises(holdfast.StoreTimeout):
                put(saver, 2)
            other.execute("ROLLBACK")
            put(saver, 2)
            backend: Any = saver._live.backend
            usual = other.execute("PRAGMA cache_size").fetchone()
            assert backend._writer.connection.execute("PRAGMA cache_size").fetchone() == usual
