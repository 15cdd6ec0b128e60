"""Whatever ids and values a tenant chooses, it reaches its own keys and nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import holdfast
import pytest
import redis
from holdfast._core import Keys, level
from hypothesis import given
from hypothesis import strategies as st
from support.audit import is_tombstone, standing
from support.calls import Calls
from support.damage import manners
from support.make import Thread, checkpoint, checkpoint_id, config
from support.redis import dump, eye, keys
from support.redis_server import RedisServer
from support.relay import Relay
from support.uses import WORDS, put_one

LONE = "\ud800"
IDS = [
    *(
        "",
        " ",
        ":",
        "::",
        "%",
        "%%",
        "{",
        "}",
        "{}",
        "*",
        "?",
        "[a]",
        "\\",
        "/",
        "\n",
        "\0",
        "\r\n",
    ),
    *("a", "b", "a:b", "a:b:c", "b:c", "{a}", "{a:b}", "a*", "a?", "a\0", "a\nb", "A"),
    *("%00", "%3A", "%3a", "%25", "a%3Ab", "a%253Ab", "%7Ba%7D", "%", "%0"),
    *("meta:a", "idx:a", "blob:a", "checkpoint:a", "writes:a", "threads", "format", "run:r"),
    *("holdfast:meta:a", "life", "epoch", "ns:", "w:1:a", "ops:0", "None", "0", "-1"),
    *("\u00e9", "e\u0301", "\U0001f600", LONE, "\udfff", f"{LONE}\udc00", f"a{LONE}", "\ue000"),
    *("x" * 10_000, "x" * 9_999, ":" * 10_000),
]
NAMES = list(dict.fromkeys(IDS))


@pytest.fixture
async def calls(server: RedisServer, client: redis.Redis, mode: str) -> AsyncIterator[Calls]:
    calls = Calls(holdfast.open(server.url, compression="none"), mode)
    yield calls
    await calls.close()


def value_of(*names: str) -> dict[str, Any]:
    """A value that says whose it is; in ASCII, as the serializer replaces lone surrogates."""
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


# --- ids


async def test_threads_of_any_name_are_apart(calls: Calls, client: redis.Redis) -> None:
    for name in NAMES:
        await put(calls, name)
    listed = [one.config["configurable"]["thread_id"] for one in await calls.list(None)]
    assert sorted(listed) == sorted(NAMES)
    for name in NAMES:
        await is_own(calls, name)
        assert await calls.ids(config(name, None)) == ["1"]
    left = set(NAMES)
    for name in NAMES:
        before = dump(client)
        registered = set(client.zrange("holdfast:threads", 0, -1))
        await calls.delete_thread(name)
        after = dump(client)
        before.pop(b"holdfast:threads")
        after.pop(b"holdfast:threads")
        tombstone = Keys("holdfast").meta(name)
        assert is_tombstone(client, tombstone)
        del before[tombstone], after[tombstone]
        gone = before.keys() - after.keys()
        assert len(gone) == 4, "blob, idx, checkpoint and writes of the one"
        assert after == {key: before[key] for key in before.keys() - gone}
        assert registered == set(client.zrange("holdfast:threads", 0, -1))
        left.discard(name)
        assert await calls.get_tuple(config(name)) is None
    assert standing(client) == [b"holdfast:format"]


async def test_namespaces_of_any_name_are_apart(calls: Calls, client: redis.Redis) -> None:
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
        found_copy = await calls.must_get(config("a:b", name, "1"))
        assert found_copy.checkpoint["channel_values"] == value_of("a", name, "1")
    await calls.delete_thread("a:b")
    assert standing(client) == [b"holdfast:format"]


async def test_checkpoints_of_any_name_are_apart(calls: Calls, client: redis.Redis) -> None:
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
    assert standing(client) == [b"holdfast:format"]


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


async def test_runs_of_any_name_are_apart(calls: Calls, client: redis.Redis) -> None:
    names = [name for name in NAMES if "\0" not in name and name.isprintable()]
    for number, name in enumerate(names):
        await put(calls, f"t{number}", run_id=name)
    for number, name in enumerate(names):
        await calls.delete_for_runs([name])
        assert await calls.get_tuple(config(f"t{number}")) is None
        assert len(await calls.list(None)) == len(names) - number - 1
    assert standing(client) == [b"holdfast:format"]


async def test_ids_may_be_long(calls: Calls, client: redis.Redis) -> None:
    long = "long" * 50_000
    thread, ns, id, run = f"t{long}", f"n{long}", f"i{long}", f"r{long}"
    await put(calls, thread, ns, id, run_id=run)
    await calls.put_writes(config(thread, ns, id), [(f"c{long}", 1)], f"k{long}")
    await calls.put_writes(config(thread, ns, f"{id} to come"), [("state", 2)], "task")
    found = await calls.must_get(config(thread, ns))
    assert found.checkpoint["channel_values"] == value_of(thread, ns, id)
    assert (f"k{long}", f"c{long}", 1) in (found.pending_writes or [])
    assert await calls.ids(config(thread, None), before=config(thread, ns, f"{id}x")) == [id]
    await calls.copy_thread(thread, f"{thread} copy")
    assert await calls.ids(None) == [id, id]
    await calls.delete_for_runs([run])
    assert await calls.list(None) == []
    for name in (thread, f"{thread} copy"):
        await calls.delete_thread(name)
    assert standing(client) == [b"holdfast:format"]


@pytest.mark.parametrize("letter", ["x", "\u00e9"])
async def test_a_parents_id_that_is_too_long_is_refused_before_anything_is_sent(
    server: RedisServer, client: redis.Redis, letter: str, mode: str
) -> None:
    most = 65_535 // len(letter.encode())
    made = checkpoint("2", {"large": [word * 40 for word in WORDS]})
    with Relay(server.port) as relay:
        calls = Calls(holdfast.open(relay.url), mode)
        await calls.setup()
        relay.take()
        above = config("t", "", letter * (most + 1))
        with pytest.raises(holdfast.ConfigurationError, match=r"65535.*shorter"):
            await calls.put(above, made, {}, made["channel_versions"])
        assert relay.take() == (0, 0)
        above = config("t", "", letter * most)
        await calls.put(above, made, {}, made["channel_versions"])
        found = await calls.must_get(config("t"))
        assert found.checkpoint == made
        assert found.parent_config == above
        await calls.close()


PARTS = st.text(alphabet=[*":%{}*", "0", "3", "A", "a", "\0", "\n", LONE], max_size=5)
PLACES = st.lists(st.tuples(PARTS, PARTS, PARTS.filter(bool)), min_size=2, max_size=8, unique=True)


@given(places=PLACES)
def test_no_two_places_are_one(server: RedisServer, places: list[tuple[str, str, str]]) -> None:
    with eye(server.url) as client, holdfast.open(server.url) as saver:
        client.flushall()

        async def check() -> None:
            calls = Calls(saver, "async")
            for place in places:
                await put(calls, *place)
            for place in places:
                await is_own(calls, *place)
            listed = [one.config["configurable"] for one in await calls.list(None)]
            assert sorted(
                (w["thread_id"], w["checkpoint_ns"], w["checkpoint_id"]) for w in listed
            ) == (sorted(places))
            gone, _, _ = places[0]
            await calls.delete_thread(gone)
            for place in places:
                if place[0] != gone:
                    await is_own(calls, *place)
                else:
                    assert await calls.get_tuple(config(*place)) is None
            await calls.saver.aclose()

        asyncio.run(check())


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


def stored_pieces(client: redis.Redis, thread: str) -> dict[bytes, bytes]:
    pieces: dict[bytes, bytes] = client.hgetall(f"holdfast:blob:{thread}")  # type: ignore[assignment]
    assert any(level(data[:2]) > 0 for data in pieces.values()), "there are no pages"
    return pieces


@pytest.mark.parametrize("whose", ["another's", "its own"])
async def test_values_that_look_like_what_is_stored_are_values(
    server: RedisServer, calls: Calls, client: redis.Redis, whose: str
) -> None:
    """Pages, leaves and records, with their envelopes and without: any end of their bytes."""
    victim = await chat(calls, "victim")
    pieces = stored_pieces(client, "victim")
    records = [client.get(key) for key in keys(client) if b":checkpoint:" in key]
    forged = [data[cut:] for data in (*pieces.values(), *records) for cut in range(24)]  # type: ignore[index]
    forged += [bytes([first]) + data for data in pieces.values() for first in (0, 1, 2, 255)]
    tenant = victim if whose == "its own" else Thread(calls, "tenant")
    others = {key: data for key, data in dump(client).items() if b"victim" in key}
    for start in range(0, len(forged), 200):
        some = forged[start : start + 200]
        await tenant.put({f"{start} {number}": data for number, data in enumerate(some)})
        await tenant.put({"all": some, "text": [data.hex() for data in some[:20]]})
    assert tenant.head is not None
    await calls.put_writes(tenant.head, [("a", data) for data in forged[:50]], "task")
    pages = {id for id, data in pieces.items() if level(data[:2]) > 0}
    if whose == "another's":
        assert {key: data for key, data in dump(client).items() if b"victim" in key} == others
        assert not pages & stored_pieces(client, "tenant").keys(), "a value passes for a page"
    else:
        now = stored_pieces(client, "victim")
        assert {id: now[id] for id in pieces} == pieces
    cold = Calls(holdfast.open(server.url, cache_bytes=0), calls.mode)
    await is_whole(cold, tenant)
    await is_whole(cold, victim)
    assert [w[2] for w in (await cold.must_get(tenant.head)).pending_writes or []] == forged[:50]
    await cold.prune([tenant.thread])
    found = await cold.must_get(tenant.head)
    assert found.checkpoint["channel_values"] == tenant.expected[found.checkpoint["id"]]
    if whose == "another's":
        await is_whole(cold, victim)
        await cold.delete_thread("tenant")
        assert {key: data for key, data in dump(client).items() if b"victim" in key} == others
        await is_whole(cold, victim)
    await cold.close()


async def test_equal_values_of_two_threads_are_two(calls: Calls, client: redis.Redis) -> None:
    first, second = await chat(calls, "first"), await chat(calls, "second")
    shared = stored_pieces(client, "first").keys() & stored_pieces(client, "second").keys()
    assert len(shared) > 50
    before = {key: data for key, data in dump(client).items() if b"second" in key}
    await calls.delete_thread("first")
    assert {key: data for key, data in dump(client).items() if b"second" in key} == before
    await calls.saver.aclose()
    await is_whole(calls, second)
    assert await calls.get_tuple(config("first")) is None
    assert first.expected.keys() == second.expected.keys()


# --- damage


async def test_a_list_names_where_a_chunk_is_damaged(
    server: RedisServer, calls: Calls, client: redis.Redis
) -> None:
    thread = await chat(calls, "t")
    assert thread.head is not None
    await calls.put_writes(thread.head, [("other", [f"{n} {n * 7919}" for n in range(900)])], "x")
    chunks: Any = client.hgetall("holdfast:blob:t")
    for id, whole in chunks.items():
        client.hset("holdfast:blob:t", id, whole[:-1] + bytes([whole[-1] ^ 1]))
    cold = Calls(holdfast.open(server.url), calls.mode)
    with pytest.raises(holdfast.CheckpointCorrupted, match="checkpoint"):
        await cold.list(config())
    await cold.close()


async def test_damage_stays_where_it_is(calls: Calls, client: redis.Redis) -> None:
    """Also for the saver that came across it."""
    thread = await chat(calls, "t")
    *good, bad = thread.expected
    key = f"holdfast:checkpoint:t:{bad}"
    whole: Any = client.get(key)
    record = whole.index(len(good[-1]).to_bytes(2, "big")) + 2 + len(good[-1])
    forms = [whole[:record] + damaged for _, damaged in manners(whole[record:])]
    for damaged in [*forms, whole[:4], whole[:5], whole[: record - 1]]:
        client.set(key, damaged)
        for where in (config("t", "", bad), config("t")):
            try:
                found = await calls.must_get(where)
                assert found.checkpoint["channel_values"] == thread.expected[bad]
            except (holdfast.CheckpointCorrupted, holdfast.FormatTooNew) as error:
                assert bad in str(error) or "latest" in str(error)
        for id in good:
            found = await calls.must_get(config("t", "", id))
            assert found.checkpoint["channel_values"] == thread.expected[id]
    client.set(key, whole)
    await is_whole(calls, thread)


def test_a_lost_record_is_told_from_one_that_never_was(
    server: RedisServer, client: redis.Redis
) -> None:
    with holdfast.open(server.url) as saver:
        put_one(saver, number=1)
        put_one(saver, number=2)
        client.delete(f"holdfast:checkpoint:t:{checkpoint_id(2)}")
        for where in (config(), config("t", "", checkpoint_id(2))):
            with pytest.raises(holdfast.CheckpointCorrupted, match="eviction"):
                saver.get_tuple(where)
        with pytest.raises(holdfast.CheckpointCorrupted, match="eviction"):
            list(saver.list(config()))
        assert saver.get_tuple(config("t", "", checkpoint_id(1))) is not None
        assert saver.get_tuple(config("t", "", checkpoint_id(3))) is None
        put_one(saver, number=2)
        assert len([*saver.list(config())]) == 2
