"""Whatever ids and values a tenant chooses, it reaches its own rows and nobody else's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import holdfast
import pytest
from holdfast._core import level
from hypothesis import given
from hypothesis import strategies as st
from support.calls import Calls
from support.make import Thread, checkpoint, config
from support.postgres import Connection, dump, eye, table_of, tables
from support.postgres_audit import is_empty
from support.postgres_server import postgres_url
from support.uses import WORDS

LONE = "\ud800"
NAMES = [
    *(
        "",
        " ",
        "'",
        "''",
        '"',
        '""',
        "\\",
        "\\'",
        "%",
        "%%",
        "%s",
        "%(a)s",
        "$1",
        "$$",
        "$do$",
        "?",
    ),
    *("{threads}", "{", "}", "--", "/*", "a;b", "'; DROP TABLE x; --", "' OR 'a' = 'a", "NULL"),
    *("null", "None", "0", "-1", "E'a'", "U&'\\0041'", "\n", "\r\n", "\t", "\0", "a\0", "a\0b"),
    *("a", "b", "A", "a ", " a", "a%", "a_", "\x01", "\x01\x01", "\x01\x02", "\x7f"),
    *("\u00e9", "e\u0301", "\U0001f600", LONE, "\udfff", f"{LONE}\udc00", f"a{LONE}", "\ue000"),
    *("\ud7ff", "\ud7ff\x01", "\ud7ff\x02", "\ufffd", "\U0010ffff", "\u0801", "x" * 800, "x" * 799),
]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return postgres_url(tmp_path)


@pytest.fixture
def conn(url: str) -> Iterator[Connection]:
    with eye(url) as conn:
        yield conn


@pytest.fixture
async def calls(url: str, mode: str) -> AsyncIterator[Calls]:
    calls = Calls(holdfast.open(url, compression="none"), mode)
    yield calls
    await calls.close()


def value_of(*names: str) -> dict[str, Any]:
    """A value that says whose it is; in ASCII, as the serializer refuses lone surrogates."""
    return {"state": [*map(ascii, names), *WORDS[:3]]}


async def put(calls: Calls, thread: str, ns: str = "", id: str = "1", **metadata: Any) -> Any:
    made = checkpoint(id, value_of(thread, ns, id))
    where = config(thread, ns)
    stored = await calls.put(where, made, metadata, made["channel_versions"])  # type: ignore[arg-type]
    await calls.put_writes(stored, [("state", ascii((thread, ns, id)))], "task")
    return stored


async def is_own(calls: Calls, thread: str, ns: str = "", id: str = "1") -> None:
    found = await calls.must_get(config(thread, ns, id))
    assert found.checkpoint["channel_values"] == value_of(thread, ns, id)
    assert found.pending_writes == [("task", "state", ascii((thread, ns, id)))]


def living(conn: Connection, url: str) -> dict[str, list[dict[str, Any]]]:
    """All rows but tombstones."""
    rows = dump(conn, url)
    rows["threads"] = [row for row in rows["threads"] if row["created_at"] is not None]
    return rows


# --- ids


async def test_threads_of_any_name_are_apart(calls: Calls, conn: Connection, url: str) -> None:
    for name in NAMES:
        await put(calls, name)
    listed = [one.config["configurable"]["thread_id"] for one in await calls.list(None)]
    assert sorted(listed) == sorted(NAMES)
    for name in NAMES:
        await is_own(calls, name)
        assert await calls.ids(config(name, None)) == ["1"]
    before = living(conn, url)
    for number, name in enumerate(NAMES, 1):
        await calls.delete_thread(name)
        after = living(conn, url)
        assert tables(conn, url)["threads"] == len(NAMES), "a tombstone for each"
        assert len(after["threads"]) == len(NAMES) - number
        for table, rows in after.items():
            assert all(row in before[table] for row in rows)
        gone = {table: len(rows) - len(after[table]) for table, rows in before.items()}
        assert (gone["threads"], gone["checkpoints"], gone["writes"]) == (1, 1, 1)
        before = after
        assert await calls.get_tuple(config(name)) is None
    assert is_empty(conn, url)


async def test_namespaces_of_any_name_are_apart(calls: Calls, conn: Connection, url: str) -> None:
    for name in NAMES:
        await put(calls, "a", name)
    listed = await calls.list(config("a", None))
    assert {one.config["configurable"]["checkpoint_ns"] for one in listed} == {*NAMES}
    for name in NAMES:
        await is_own(calls, "a", name)
        assert len(await calls.list(config("a", name))) == 1
    await calls.copy_thread("a", "a:b")
    await calls.delete_thread("a")
    for name in NAMES:
        found = await calls.must_get(config("a:b", name, "1"))
        assert found.checkpoint["channel_values"] == value_of("a", name, "1")
    await calls.delete_thread("a:b")
    assert is_empty(conn, url)


async def test_checkpoints_of_any_name_are_apart(calls: Calls, conn: Connection, url: str) -> None:
    names = [name for name in NAMES if name]
    for name in names:
        await put(calls, "a", "", name)
    assert await calls.ids(config("a")) == sorted(names, reverse=True)
    assert await calls.ids(config("a"), before=config("a", "", "a")) == [
        name for name in sorted(names, reverse=True) if name < "a"
    ]
    for name in names:
        await is_own(calls, "a", "", name)
    await calls.delete_thread("a")
    assert is_empty(conn, url)


async def test_tasks_and_channels_of_any_name_are_apart(calls: Calls) -> None:
    made = checkpoint(1, {name: ascii(name) for name in NAMES})
    stored = await calls.put(config(), made, {}, made["channel_versions"])
    for name in NAMES:
        await calls.put_writes(stored, [(name, ascii(name))], name)
        await calls.put_writes(stored, [(name, "again")], name)
    found = await calls.must_get(stored)
    assert found.checkpoint["channel_values"] == made["channel_values"]
    assert found.pending_writes is not None
    assert sorted(found.pending_writes) == sorted((name, name, ascii(name)) for name in NAMES)


async def test_runs_of_any_name_are_apart(calls: Calls, conn: Connection, url: str) -> None:
    # LangGraph takes NUL out of metadata, and its serializer refuses surrogates there.
    names = [
        name for name in NAMES if name and "\0" not in name and not set(name) & {LONE, "\udfff"}
    ]
    for number, name in enumerate(names):
        await put(calls, f"t{number}", run_id=name)
    for number, name in enumerate(names):
        await calls.delete_for_runs([name])
        assert await calls.get_tuple(config(f"t{number}")) is None
        assert len(await calls.list(None)) == len(names) - number - 1
    assert is_empty(conn, url)


LONG = "".join(chr(0x4E00 + number * 7919 % 20000) for number in range(2000))


@pytest.mark.parametrize("which", ["thread", "ns", "id"])
async def test_ids_that_are_too_long_are_told_at_once(
    calls: Calls, conn: Connection, url: str, which: str
) -> None:
    """Keys of an index: those that are a little shorter are taken."""
    long = {"thread": "t", "ns": "", "id": "1"} | {which: LONG}
    made = checkpoint(long["id"], {"a": 1})
    with pytest.raises(holdfast.ConfigurationError, match="shorter"):
        await calls.put(config(long["thread"], long["ns"]), made, {}, made["channel_versions"])
    assert calls.saver.stats()["retries"] == 0
    assert is_empty(conn, url)
    short = {name: id[:700] for name, id in long.items()}
    made["id"] = short["id"]
    await calls.put(config(short["thread"], short["ns"]), made, {}, made["channel_versions"])
    found = await calls.must_get(config(short["thread"], short["ns"], short["id"]))
    assert found.checkpoint == made


PARTS = st.text(alphabet=[*"'\\%$1a;", "\0", "\x01", "\n", LONE, "\ud7ff"], max_size=5)
PLACES = st.lists(st.tuples(PARTS, PARTS, PARTS.filter(bool)), min_size=2, max_size=6, unique=True)


@given(places=PLACES)
async def test_no_two_places_are_one(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[str, str, str]]
) -> None:
    url = postgres_url(tmp_path_factory.getbasetemp() / "places")
    async with holdfast.open(url) as saver:
        calls = Calls(saver, "async")
        for place in places:
            await put(calls, *place)
        for place in places:
            await is_own(calls, *place)
        listed = [one.config["configurable"] for one in await calls.list(None)]
        assert sorted((w["thread_id"], w["checkpoint_ns"], w["checkpoint_id"]) for w in listed) == (
            sorted(places)
        )
        for thread in {place[0] for place in places}:
            await calls.delete_thread(thread)
        assert await calls.list(None) == []


# --- values


async def chat(calls: Calls, thread: str, length: int = 60) -> Thread:
    made = Thread(calls, thread)
    for number in range(length - 3, length):
        await made.put({"state": WORDS[:number]})
    return made


async def is_whole(calls: Calls, thread: Thread) -> None:
    for id, values in thread.expected.items():
        found = await calls.must_get(config(thread.thread, "", id))
        assert found.checkpoint["channel_values"] == values


def pieces(conn: Connection, url: str, thread: str) -> dict[bytes, bytes]:
    table = table_of(url)
    found = conn.execute(
        f"SELECT id, data FROM {table}_blobs WHERE thread = "
        f"(SELECT key FROM {table}_threads WHERE thread_id = %s)",
        [thread],
    ).fetchall()
    stored = {bytes(id): bytes(data) for id, data in found}
    assert any(level(data[:2]) > 0 for data in stored.values()), "there are no pages"
    return stored


@pytest.mark.parametrize("whose", ["another's", "its own"])
async def test_values_that_look_like_what_is_stored_are_values(
    url: str, calls: Calls, conn: Connection, whose: str
) -> None:
    """Pages, leaves and records, with their envelopes and without: any end of their bytes."""
    victim = await chat(calls, "victim")
    stored = pieces(conn, url, "victim")
    rows = conn.execute(f"SELECT record FROM {table_of(url)}_checkpoints").fetchall()
    records = [bytes(record) for (record,) in rows]
    forged = [data[cut:] for data in (*stored.values(), *records) for cut in range(0, 24, 3)]
    forged += [bytes([first]) + data for data in stored.values() for first in (0, 1, 4, 255)]
    tenant = victim if whose == "its own" else Thread(calls, "tenant")
    for start in range(0, len(forged), 200):
        some = forged[start : start + 200]
        await tenant.put({f"{start} {number}": data for number, data in enumerate(some)})
        await tenant.put({"all": some, "text": [data.hex() for data in some[:20]]})
    assert tenant.head is not None
    await calls.put_writes(tenant.head, [("a", data) for data in forged[:50]], "task")
    pages = {id for id, data in stored.items() if level(data[:2]) > 0}
    now = pieces(conn, url, "victim")
    if whose == "another's":
        assert now == stored
        assert not pages & pieces(conn, url, "tenant").keys(), "a value passes for a page"
    else:
        assert {id: now[id] for id in stored} == stored
    cold = Calls(holdfast.open(url, cache_bytes=0), calls.mode)
    await is_whole(cold, tenant)
    await is_whole(cold, victim)
    assert [w[2] for w in (await cold.must_get(tenant.head)).pending_writes or []] == forged[:50]
    await cold.prune([tenant.thread])
    found = await cold.must_get(tenant.head)
    assert found.checkpoint["channel_values"] == tenant.expected[found.checkpoint["id"]]
    if whose == "another's":
        await cold.delete_thread("tenant")
        assert pieces(conn, url, "victim") == stored
        await is_whole(cold, victim)
    await cold.close()


async def test_equal_values_of_two_threads_are_two(
    calls: Calls, conn: Connection, url: str
) -> None:
    first, second = await chat(calls, "first"), await chat(calls, "second")
    shared = pieces(conn, url, "first").keys() & pieces(conn, url, "second").keys()
    assert len(shared) > 50
    before = pieces(conn, url, "second")
    await calls.delete_thread("first")
    assert pieces(conn, url, "second") == before
    await calls.saver.aclose()
    await is_whole(calls, second)
    assert await calls.get_tuple(config("first")) is None
    assert first.expected.keys() == second.expected.keys()
