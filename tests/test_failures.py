"""What goes wrong is told by what it is, on what, and with the remedy; never as "not found"."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import holdfast
import pytest
from support.backends import Backend
from support.calls import MODES, Calls
from support.make import Thread, checkpoint, checkpoint_id, config, id_of
from support.workers import try_as_nobody

MESSAGES = [f"message {i} " + f"{i * 7919 % 1000003:x} " * 60 for i in range(200)]

# --- configuration


@pytest.mark.parametrize("url", ["mongodb://localhost", "state.db", "", "sqlite", "://"])
def test_an_unknown_scheme_lists_those_that_exist(url: str) -> None:
    with pytest.raises(holdfast.ConfigurationError, match=r"memory.*sqlite"):
        holdfast.open(url)


@pytest.mark.parametrize("url", ["memory://", "sqlite:///x.db"])
def test_an_unknown_option_lists_those_that_exist(url: str) -> None:
    with pytest.raises(holdfast.ConfigurationError, match=r"cache_size.*cache_bytes.*compression"):
        holdfast.open(url, cache_size=1)


@pytest.mark.parametrize(
    "options",
    [{"compression": "lzma"}, {"cache_bytes": "much"}, {"cache_bytes": -1}, {"retry_budget": -1}],
    ids=str,
)
def test_an_impossible_value_names_its_option(options: dict[str, Any]) -> None:
    with pytest.raises(holdfast.ConfigurationError, match=next(iter(options))):
        holdfast.open("memory://", **options)


def test_errors_share_one_base() -> None:
    for name in (
        "StoreUnavailable",
        "StoreFull",
        "StoreTimeout",
        "CheckpointCorrupted",
        "ThreadDeleted",
        "FormatTooNew",
        "ConfigurationError",
    ):
        assert issubclass(getattr(holdfast, name), holdfast.HoldfastError)


# --- a store that cannot be opened or written


async def refused(path: Path, mode: str) -> list[str]:
    """The messages with which a store at this path is refused by every kind of call."""
    messages = []
    calls = Calls(holdfast.open(f"sqlite:///{path}", retry_budget=0.5), mode)
    for attempt in (
        lambda: calls.get_tuple(config()),
        lambda: calls.list(config()),
        lambda: calls.put(config(), checkpoint(1), {}, {}),
        lambda: calls.put_writes(config("t", "", checkpoint_id(1)), [("a", 1)], "task"),
        calls.setup,
    ):
        with pytest.raises(holdfast.StoreUnavailable) as caught:
            await attempt()
        assert isinstance(caught.value.__cause__, (sqlite3.Error, OSError))
        messages.append(str(caught.value))
    await calls.close()
    return messages


@pytest.mark.parametrize("place", ["no/such/folder/state.db", "a file/state.db", "a folder"])
async def test_a_path_that_cannot_be_a_database(tmp_path: Path, mode: str, place: str) -> None:
    (tmp_path / "a file").write_text("no folder")
    (tmp_path / "a folder").mkdir()
    for message in await refused(tmp_path / place, mode):
        assert str(tmp_path / place) in message
        assert "director" in message, "the remedy"


@pytest.mark.parametrize("content", [b"not a database " * 1000, b"\xff" * 5000])
async def test_a_file_that_is_no_database(tmp_path: Path, mode: str, content: bytes) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(content)
    for message in await refused(path, mode):
        assert str(path) in message
    assert path.read_bytes() == content, "another program's file was changed"


def test_a_store_that_may_only_be_read_says_so() -> None:
    folder = Path(tempfile.mkdtemp(prefix="holdfast-test-"))  # a user without rights reaches it
    try:
        url = f"sqlite:///{folder}/state.db"
        with holdfast.open(url) as saver:
            saver.put(config(), checkpoint(1), {}, {})
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)
        spawn = multiprocessing.get_context("spawn")
        heard, told = spawn.Pipe(duplex=False)
        process = spawn.Process(target=try_as_nobody, args=(url, told))
        process.start()
        told.close()
        try:
            for _ in range(2):
                assert heard.poll(60)
                message = heard.recv()
                assert message.startswith("StoreUnavailable: ")
                assert "write" in message, "the remedy"
        finally:
            process.join(60)
            heard.close()
        assert process.exitcode == 0
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_given_connection_that_is_closed_says_so(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "state.db", check_same_thread=False)
    saver = holdfast.SqliteSaver(connection)
    saver.put(config(), checkpoint(1), {}, {})
    connection.close()
    with pytest.raises(holdfast.StoreUnavailable, match="closed"):
        saver.get_tuple(config())
    with pytest.raises(holdfast.StoreUnavailable, match="closed"):
        saver.put(config(), checkpoint(2), {}, {})


# --- a store that is busy


@pytest.fixture
async def impatient(mode: str, tmp_path: Path) -> Any:
    """A saver on SQLite that gives up soon, with one checkpoint."""
    calls = Calls(holdfast.open(f"sqlite:///{tmp_path}/state.db", retry_budget=0.2), mode)
    await Thread(calls).put({"a": 1})
    yield calls
    await calls.close()


async def test_a_lock_held_for_too_long_is_a_timeout(impatient: Calls, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for attempt in (
            lambda: impatient.put(config("u"), checkpoint(1), {}, {}),
            lambda: impatient.put_writes(config("t", "", checkpoint_id(1)), [("a", 1)], "task"),
            lambda: impatient.delete_thread("t"),
        ):
            with pytest.raises(holdfast.StoreTimeout, match="retry_budget"):
                await attempt()
        found = await impatient.must_get(config())
        assert found.checkpoint["channel_values"] == {"a": 1}, "reading does not wait for writers"
        other.execute("ROLLBACK")
    assert await impatient.get_tuple(config("u")) is None
    await impatient.put(config("u"), checkpoint(1), {}, {})
    assert await impatient.get_tuple(config("u")) is not None


async def test_a_lock_held_for_less_is_waited_for(tmp_path: Path, mode: str) -> None:
    calls = Calls(holdfast.open(f"sqlite:///{tmp_path}/state.db", retry_budget=60), mode)
    await Thread(calls).put({"a": 1})
    with closing(
        sqlite3.connect(tmp_path / "state.db", isolation_level=None, check_same_thread=False)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        put = asyncio.create_task(calls.put(config("u"), checkpoint(1), {}, {}))
        done, _ = await asyncio.wait([put], timeout=0.3)
        assert not done
        other.execute("ROLLBACK")
        await put
    assert await calls.get_tuple(config("u")) is not None
    await calls.close()


async def test_a_store_that_failed_for_a_while_is_used_again(
    impatient: Calls, tmp_path: Path
) -> None:
    """A failed read or write leaves nothing behind that fails later ones."""
    await impatient.get_tuple(config())
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
        found = other.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        tables = [name for (name,) in found if not name.startswith("sqlite_")]
        for name in tables:
            other.execute(f'ALTER TABLE "{name}" RENAME TO "away {name}"')
        for _ in range(12):
            with pytest.raises(holdfast.HoldfastError):
                await impatient.get_tuple(config())
            with pytest.raises(holdfast.HoldfastError):
                await impatient.put(config(), checkpoint(2), {}, {})
        for name in tables:
            other.execute(f'ALTER TABLE "away {name}" RENAME TO "{name}"')
    for _ in range(12):
        found = await impatient.must_get(config())
        assert found.checkpoint["channel_values"] == {"a": 1}
    await impatient.put(config(), checkpoint(2), {}, {})
    assert await impatient.ids(config()) == [checkpoint_id(2), checkpoint_id(1)]


# --- a store that is full


async def fill(calls: Calls, thread: Thread) -> None:
    """Put until the store is full; what was put before must be there."""
    with pytest.raises(holdfast.StoreFull, match=r"space|room|full") as caught:
        for number in range(5000):
            new = [f"{number} {message}" for message in MESSAGES]
            await thread.put({"state": new})
            assert thread.head is not None
            await calls.put_writes(thread.head, [("state", number)], "task")
    assert isinstance(caught.value.__cause__, sqlite3.Error)
    await check(calls, thread)


async def check(calls: Calls, thread: Thread) -> None:
    listed = {id_of(found.config): found for found in await calls.list(config(thread.thread))}
    assert listed.keys() == thread.expected.keys()
    for id, expected in thread.expected.items():
        assert listed[id].checkpoint["channel_values"] == expected
        found = await calls.must_get(config(thread.thread, "", id))
        assert found.checkpoint["channel_values"] == expected


@pytest.mark.parametrize("mode", MODES)
async def test_a_full_database_refuses_and_stays_sound(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path, check_same_thread=False)) as connection:
        calls = Calls(holdfast.SqliteSaver(connection), mode)
        thread = Thread(calls)
        await thread.put({"state": MESSAGES, "fixed": 1})
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 60}")
        await fill(calls, thread)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.execute("PRAGMA max_page_count = 1000000")
        await thread.put({"state": MESSAGES[::-1]})
        await check(calls, thread)
        await calls.close()
    async_or_not = Calls(holdfast.open(f"sqlite:///{path}"), mode)
    await check(async_or_not, thread)
    await async_or_not.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_refuses_and_leaves_the_file_sound(small_disk: Path, mode: str) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(1 << 20))
    path = small_disk / "state.db"
    calls = Calls(holdfast.open(f"sqlite:///{path}"), mode)
    thread = Thread(calls)
    await fill(calls, thread)
    cold = Calls(holdfast.open(f"sqlite:///{path}"), mode)
    await check(cold, thread)
    await cold.close()
    filler.unlink()
    await thread.put({"state": MESSAGES[::-1]})
    await check(calls, thread)
    await calls.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# --- cancelling


@pytest.mark.parametrize("what", ["put", "put_writes", "both"])
async def test_cancelling_leaves_all_or_nothing(
    backend: Backend, tmp_path: Path, what: str
) -> None:
    calls = Calls(backend.open(tmp_path), "async")
    root = await calls.put(config(), checkpoint(0), {}, {})
    finished = 0
    places = {}
    for number in range(1, 41):
        made = checkpoint(number, {"state": MESSAGES[: number * 5], "number": number})
        place = config("t", "", checkpoint_id(number))
        writes = [("state", MESSAGES[number]), ("number", number)]
        if what == "put_writes":
            await calls.put(root, made, {"step": number}, made["channel_versions"])
        task = asyncio.create_task(
            calls.put_writes(place, writes, "task")
            if what == "put_writes"
            else calls.put(root, made, {"step": number}, made["channel_versions"])  # type: ignore[arg-type]
        )
        beside = [
            asyncio.create_task(calls.put_writes(root, [("beside", number)], f"{number:03} {i}"))
            for i in range(3 if what == "both" else 0)
        ]
        for _ in range(number % 20):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
            finished += 1
        await asyncio.gather(*beside)
        places[number] = (place, made, writes, task.cancelled())
    for place, made, writes, cancelled in places.values():
        found = await calls.get_tuple(place)
        if what == "put_writes":
            assert found is not None
            expected = [("task", *write) for write in writes]
            assert found.pending_writes in ([expected] if not cancelled else [[], expected])
        else:
            assert found is not None or cancelled
            assert found is None or found.checkpoint == made
    if what == "both":
        written = (await calls.must_get(root)).pending_writes
        assert written is not None
        assert len(written) == 120, "a neighbour of a cancelled call was lost"
    again = checkpoint(99, {"state": MESSAGES})
    stored = await calls.put(root, again, {"step": 99}, again["channel_versions"])
    assert (await calls.must_get(stored)).checkpoint == again
    await calls.close()
