"""The index of ids that the server keeps: in Python's order, each id once, whenever it came."""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import holdfast
import pytest
import redis
from hypothesis import example, given
from hypothesis import strategies as st
from support.calls import Calls
from support.make import checkpoint, checkpoint_id, config, id_of
from support.redis import eye
from support.redis_server import RedisServer

WORDS = [
    "a",
    "B",
    "b",
    "A",
    "z",
    "Z",
    "_",
    "-",
    "~",
    "10",
    "9",
    "a b",
    "ab",
    "a-b",
    "a.b",
    "\u00e9",
]
WORDS += ["e", "f", "\u00c9", "e\u0301", "\u00df", "ss", "\u4e2d", "\U0001f600", "\ufb01", "fi"]
IDS = st.text(
    alphabet=[*"abAB_-.0 ", "\u00e9", "\ue000", "\U0001f600", "\ud800"], min_size=1, max_size=4
)


def put(saver: holdfast.Saver, id: str, thread: str = "t", ns: str = "", step: int = 0) -> None:
    where = config(thread, ns)
    saver.put(where, checkpoint(id, {"a": id.encode("utf-8", "surrogatepass")}), {"step": step}, {})


def listed(saver: holdfast.Saver, where: Any = None, **how: Any) -> list[str]:
    return [id_of(one.config) for one in saver.list(where or config(), **how)]


def index(client: redis.Redis, thread: str = "t") -> list[str]:
    stored: Any = client.lrange(f"holdfast:idx:{thread}", 0, -1)
    return [id.decode("utf-8", "surrogatepass") for id in stored]


# --- order


@given(
    ids=st.lists(IDS, min_size=1, max_size=25),
    bounds=st.lists(IDS, max_size=4),
    limit=st.integers(1, 5),
)
@example(ids=["b", "a", "c", "a", "b"], bounds=["a", "b", "c", "", "d"], limit=1)
def test_ids_stand_in_order_however_they_came(
    server: RedisServer, ids: list[str], bounds: list[str], limit: int
) -> None:
    with eye(server.url) as client, holdfast.open(server.url) as saver:
        client.flushall()
        for step, id in enumerate(ids):
            put(saver, id, step=step)
            assert index(client) == sorted({*ids[: step + 1]}), "a late id, or one that came again"
        order = sorted({*ids}, reverse=True)
        assert listed(saver) == order
        for bound in [*bounds, *ids[:3]]:
            before = config("t", "", bound)
            expected = [id for id in order if id < bound] if bound else order
            assert listed(saver, before=before) == expected
            assert listed(saver, before=before, limit=limit) == expected[:limit]
        head = saver.get_tuple(config())
        assert head is not None
        assert id_of(head.config) == order[0]
        last = {id: step for step, id in enumerate(ids)}
        assert {id_of(one.config): one.metadata["step"] for one in saver.list(config())} == last


def test_a_long_index_is_searched_as_a_scan_would(server: RedisServer, client: redis.Redis) -> None:
    rng = random.Random(5)
    numbers = rng.sample(range(3000), 1000)
    ids = [checkpoint_id(number) for number in numbers]
    with holdfast.open(server.url) as saver:

        async def fill() -> None:
            async def one(id: str) -> None:
                await saver.aput(config(), checkpoint(id), {}, {})

            await asyncio.gather(*map(one, ids))

        asyncio.run(fill())
        assert index(client) == sorted(ids)
        order = sorted(ids, reverse=True)
        for number in (0, 1, 2999, 3000, *rng.sample(range(3000), 40)):
            bound = checkpoint_id(number)
            expected = [id for id in order if id < bound]
            assert listed(saver, before=config("t", "", bound), limit=7) == expected[:7]
        assert listed(saver, before=config("t", "", checkpoint_id(1500))) == [
            id for id in order if id < checkpoint_id(1500)
        ]
        exact = config("t", None, order[3])
        assert listed(saver, exact) == [order[3]]
        assert listed(saver, exact, before=config("t", "", order[3])) == []


@given(places=st.lists(st.tuples(st.sampled_from(["", "a", "a:b", "\u00e9"]), IDS), max_size=30))
def test_pages_of_several_namespaces_are_one_order(
    server: RedisServer, places: list[tuple[str, str]]
) -> None:
    """Newest first over all of a thread, and over all threads, page by page."""
    with eye(server.url) as client, holdfast.open(server.url) as saver:
        client.flushall()
        for number, (ns, id) in enumerate(places):
            put(saver, id, f"t{number % 3}", ns)
        kept = {(f"t{number % 3}", ns, id) for number, (ns, id) in enumerate(places)}
        for thread in ("t0", "t1", "t2", None):
            where = None if thread is None else config(thread, None)
            found = [one.config["configurable"] for one in saver.list(where)]
            ids = [one["checkpoint_id"] for one in found]
            assert ids == sorted(ids, reverse=True)
            seen = [(one["thread_id"], one["checkpoint_ns"], one["checkpoint_id"]) for one in found]
            assert len(seen) == len({*seen})
            assert {*seen} == {place for place in kept if thread in (None, place[0])}


@given(ids=st.lists(IDS, min_size=1, max_size=12, unique=True), data=st.data())
def test_what_is_copied_or_removed_leaves_the_order(
    server: RedisServer, ids: list[str], data: st.DataObject
) -> None:
    there = data.draw(st.lists(st.sampled_from(ids), unique=True))
    runs = data.draw(st.lists(st.sampled_from(ids), unique=True))
    with eye(server.url) as client, holdfast.open(server.url) as saver:
        client.flushall()
        for id in ids:
            made = checkpoint(id, {"a": 1})
            saver.put(config(), made, {"run_id": "gone" if id in runs else "kept"}, {})
        for id in there:
            put(saver, f"{id}2", "u")
        saver.copy_thread("t", "u")
        assert index(client, "u") == sorted({*ids, *(f"{id}2" for id in there)})
        saver.copy_thread("t", "u")
        assert index(client, "u") == sorted({*ids, *(f"{id}2" for id in there)})
        saver.delete_for_runs(["gone"])  # of the copy too
        assert index(client) == sorted({*ids} - {*runs})
        kept = sorted({*ids, *(f"{id}2" for id in there)} - {*runs})
        assert index(client, "u") == kept
        saver.prune(["u"])
        assert index(client, "u") == kept[-1:]


# --- the server's language


@pytest.fixture(scope="module")
def speaks_english(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that compares text as people do, not as bytes."""
    folder = tmp_path_factory.mktemp("locales")
    command = ["localedef", "-i", "en_US", "-f", "UTF-8", str(folder / "en_US.UTF-8")]
    patch = pytest.MonkeyPatch()
    try:
        subprocess.run(command, capture_output=True, check=False, timeout=60)
        if Path(folder / "en_US.UTF-8").exists():
            patch.setenv("LOCPATH", str(folder))
    except FileNotFoundError:
        pass  # perhaps the system has it
    patch.setenv("LC_ALL", "en_US.UTF-8")
    with RedisServer() as server:
        patch.undo()
        with eye(server.url) as client:
            if not client.eval("return 'a' < 'B'", 0):
                pytest.skip("there is no locale en_US.UTF-8, and no localedef to make it")
        yield server


async def test_a_server_of_another_language_has_the_same_order(
    speaks_english: RedisServer, mode: str
) -> None:
    rng = random.Random(3)
    with eye(speaks_english.url) as client:
        client.flushall()
        calls = Calls(holdfast.open(speaks_english.url), mode)
        for number in range(5):
            some = [f"{word}{number}" for word in WORDS]
            rng.shuffle(some)
            for id in [*some, *some[:5]]:
                await calls.put(config(), checkpoint(id, {"a": id}), {}, {})
        ids = sorted(f"{word}{number}" for word in WORDS for number in range(5))
        assert index(client) == ids
        assert await calls.ids(config()) == ids[::-1]
        assert (await calls.must_get(config())).checkpoint["id"] == ids[-1]
        for bound in [*WORDS, *ids[::7]]:
            expected = [id for id in reversed(ids) if id < bound]
            assert await calls.ids(config(), before=config("t", "", bound)) == expected
        for ns in ("b", "A", "\u00e9", ""):
            await calls.put(config("n", ns), checkpoint("1", {"a": ns}), {}, {})
        found = await calls.list(config("n", None))
        assert sorted(one.config["configurable"]["checkpoint_ns"] for one in found) == sorted(
            ["b", "A", "\u00e9", ""]
        )
        await calls.copy_thread("t", "u")
        assert index(client, "u") == ids
        await calls.close()
