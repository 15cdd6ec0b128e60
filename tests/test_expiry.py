"""Threads that expire: what a saver shows of them, who refreshes them, and who keeps them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.backends import Backend
from support.calls import Calls
from support.clock import LONG, Store, timed
from support.graphs import Runs, fan_out, on
from support.make import Thread, checkpoint_id, config, id_of
from support.uses import WORDS


class Savers:
    """Opens savers on one store whose time goes on as the test says."""

    def __init__(self, store: Store, mode: str) -> None:
        self.store = store
        self.mode = mode
        self.ttl = store.ttl
        self.later = store.later

    async def open(self, **options: Any) -> Calls:
        asked = await self.store.open(**options)
        return Calls(asked.saver, self.mode)


@pytest.fixture
async def savers(backend: Backend, mode: str, tmp_path: Path) -> AsyncIterator[Savers]:
    async with timed(backend, tmp_path, mode) as store:
        yield Savers(store, mode)


async def grown(calls: Calls, name: str = "t") -> Thread:
    """A thread of three checkpoints with writes, and one in another namespace."""
    thread = Thread(calls, name)
    for step in range(1, 4):
        stored = await thread.put({"d": WORDS[: step * 4]}, metadata={"run_id": f"run of {name}"})
        await calls.put_writes(stored, [("d", WORDS[step])], "task")
    await Thread(calls, name, "sub").put({"d": name})
    return thread


async def expires(calls: Calls, thread: str = "t") -> Any:
    """When the thread expires, as it is listed: that is no read that counts."""
    (found,) = [one for one in await calls.threads(thread) if one.thread_id == thread]
    return found.expires_at


async def remaining(calls: Calls, thread: str = "t") -> float:
    """Seconds from the thread's last write until it expires."""
    (found,) = await calls.threads(thread)
    assert found.expires_at is not None
    return (found.expires_at - found.updated_at).total_seconds()


def nearly(seconds: float) -> Any:
    """So many seconds, to the millisecond to which stores count."""
    return pytest.approx(seconds, abs=0.0015)


async def is_gone(calls: Calls, thread: str = "t") -> bool:
    """Whether no read shows anything of a thread; they must agree."""
    shown = [
        await calls.get_tuple(config(thread)) is not None,
        await calls.get_tuple(config(thread, "", checkpoint_id(1))) is not None,
        await calls.get_tuple(config(thread, "sub")) is not None,
        bool(await calls.list(config(thread))),
        bool(await calls.list(config(thread, None))),
        thread in [one.config["configurable"]["thread_id"] for one in await calls.list(None)],
        bool((await calls.history(config(thread, "", checkpoint_id(3)), ["d"]))["d"]["writes"]),
        thread in [one.thread_id for one in await calls.threads()],
    ]
    assert shown in ([False] * 8, [True] * 8)
    return not shown[0]


# --- what is seen


async def test_an_expired_thread_is_not_there_for_any_read(savers: Savers) -> None:
    keeps, passing = await savers.open(), await savers.open(ttl=savers.ttl)
    await grown(keeps, "kept")
    await grown(passing)
    await savers.later(savers.ttl)
    for calls in (passing, keeps, await savers.open()):
        assert await is_gone(calls)
        assert not await is_gone(calls, "kept")


async def test_until_then_it_is_there_whole(savers: Savers) -> None:
    calls = await savers.open(ttl=LONG)
    thread = await grown(calls)
    if savers.store.is_moved:
        await savers.later(LONG - 0.001)
    assert not await is_gone(calls)
    for found in await calls.list(config()):
        assert found.checkpoint["channel_values"] == thread.expected[id_of(found.config)]
    if savers.store.is_moved:
        await savers.later(0.001)
        assert await is_gone(calls), "to the millisecond"


async def test_changes_of_an_expired_thread_find_nothing(savers: Savers) -> None:
    calls = await savers.open(ttl=savers.ttl)
    await grown(calls)
    await savers.later(savers.ttl)
    await calls.copy_thread("t", "copy")
    await calls.prune(["t"])
    await calls.delete_for_runs(["run of t"])
    assert await calls.expire("t", LONG) is False
    assert await calls.persist("t") is False
    assert await calls.list(None) == []
    await calls.delete_thread("t")
    assert await is_gone(calls)


async def test_what_begins_after_it_has_nothing_of_it(savers: Savers) -> None:
    """Neither history nor writes nor chunks, also where the saver remembers them as stored."""
    calls = await savers.open(ttl=savers.ttl)
    await grown(calls)
    await savers.later(savers.ttl)
    lasting = await savers.open()
    for each in (calls, lasting):
        anew = Thread(each)
        await anew.put({"d": WORDS[:12]})
        (found,) = await each.list(config("t", None))
        assert found.checkpoint["channel_values"] == {"d": WORDS[:12]}
        assert (found.pending_writes, found.parent_config) == ([], None)
        (listed,) = await each.threads()
        assert (listed.checkpoints, listed.namespaces) == (1, [""])
        if each is calls:
            await savers.later(savers.ttl)


async def test_a_graph_runs_anew_on_an_expired_thread(savers: Savers) -> None:
    short, lasting = await savers.open(ttl=savers.ttl), await savers.open()
    runs = Runs(fan_out(lasting.saver), savers.mode)
    for _ in range(2):
        await runs.invoke({"other": [1]}, on("t"))
    assert (await runs.state(on("t"))).values["turn"] == 2
    assert await short.expire("t")
    await savers.later(savers.ttl)
    assert (await runs.state(on("t"))).values == {}
    done = await runs.invoke({"other": [5]}, on("t"))
    assert (done["turn"], done["other"]) == (1, [5, 1])
    assert len(await runs.history(on("t"))) == len(await lasting.list(config()))
    assert await expires(lasting) is None


# --- who refreshes it


async def test_every_write_gives_it_its_whole_time(savers: Savers) -> None:
    calls = await savers.open(ttl=LONG)
    thread = Thread(calls)
    last = None
    for _ in range(2):
        stored = await thread.put({"d": 1})
        assert await remaining(calls) == nearly(LONG)
        put_until = await expires(calls)
        assert last is None or put_until > last
        await savers.later(0.01)
        await calls.put_writes(stored, [("d", 1)], "task")
        assert await remaining(calls) == nearly(LONG)
        last = await expires(calls)
        assert last > put_until
        await savers.later(0.01)
    await calls.copy_thread("t", "copy")
    assert await remaining(calls, "copy") == nearly(LONG)


READS: dict[str, Any] = {
    "head": lambda calls: calls.get_tuple(config()),
    "checkpoint": lambda calls: calls.get_tuple(config("t", "", checkpoint_id(1))),
    "list": lambda calls: calls.list(config()),
    "history": lambda calls: calls.history(config(), ["d"]),
}
LOOKS: dict[str, Any] = {
    "list of all": lambda calls: calls.list(None),
    "threads": lambda calls: calls.threads(sizes=True),
    "sweep": lambda calls: calls.sweep(dry_run=True),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("refreshes", [True, False])
async def test_reads_of_a_thread_refresh_it_if_they_shall(
    savers: Savers, read: str, refreshes: bool
) -> None:
    calls = await savers.open(ttl=LONG, refresh_on_read=refreshes)
    await grown(calls)
    before = await expires(calls)
    await savers.later(0.01)
    await READS[read](calls)
    after = await expires(calls)
    assert (after - before >= timedelta(milliseconds=8)) == refreshes
    assert refreshes or after == before


@pytest.mark.parametrize("look", LOOKS)
async def test_looking_at_all_threads_refreshes_none(savers: Savers, look: str) -> None:
    calls = await savers.open(ttl=LONG, refresh_on_read=True)
    await grown(calls)
    before = await expires(calls)
    await savers.later(0.01)
    await LOOKS[look](calls)
    assert await expires(calls) == before


async def test_reads_never_have_a_thread_expire_that_does_not(savers: Savers) -> None:
    await grown(await savers.open())
    calls = await savers.open(ttl=LONG, refresh_on_read=True)
    for read in READS.values():
        await read(calls)
        assert await expires(calls) is None


async def test_a_thread_that_is_read_again_and_again_stays(savers: Savers) -> None:
    if not savers.store.is_moved:
        pytest.skip("a test that waits for a server cannot be sure to be in time")
    calls = await savers.open(ttl=LONG, refresh_on_read=True)
    await grown(calls)
    for read in [*READS.values()] * 2:
        await savers.later(LONG * 0.9)
        await read(calls)
    assert not await is_gone(calls)
    await savers.later(LONG)
    assert await is_gone(calls)


# --- who keeps it


async def test_a_persisted_thread_stays_whoever_writes(savers: Savers) -> None:
    calls = await savers.open(ttl=savers.ttl)
    thread = await grown(calls)
    kept = await savers.open(ttl=LONG, refresh_on_read=True)
    assert await kept.persist("t") is True
    for each in (calls, kept):
        thread.calls = each
        stored = await thread.put({"d": 1})
        await each.put_writes(stored, [("d", 1)], "task")
        await each.get_tuple(config())
        assert await expires(each) is None
    await savers.later(savers.ttl)
    assert not await is_gone(calls)


async def test_a_persisted_thread_expires_when_it_is_told_to(savers: Savers) -> None:
    calls = await savers.open(ttl=LONG)
    thread = await grown(calls)
    await calls.persist("t")
    assert await calls.expire("t", 3 * LONG) is True
    assert await remaining(calls) >= 3 * LONG - 0.0015
    await thread.put({"d": 1})
    assert await remaining(calls) == nearly(LONG), "and writes refresh it again"
    await calls.persist("t")
    assert await calls.expire("t") is True
    assert await remaining(calls) >= LONG - 0.0015, "by the saver's own ttl"
    assert await calls.expire("t", savers.ttl)
    await savers.later(savers.ttl)
    assert await is_gone(calls)


async def test_to_expire_there_must_be_a_time(savers: Savers) -> None:
    calls = await savers.open()
    await grown(calls)
    with pytest.raises(ValueError, match="persist"):
        await calls.expire("t")
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="number of seconds"):
            await calls.expire("t", wrong)
    assert await expires(calls) is None


async def test_a_thread_that_is_not_there_neither_expires_nor_persists(savers: Savers) -> None:
    calls = await savers.open(ttl=LONG)
    assert await calls.expire("t") is False
    assert await calls.persist("t") is False
    await grown(calls)
    assert await remaining(calls) == nearly(LONG), "nothing was remembered of it"
    await calls.persist("t")
    await calls.delete_thread("t")
    await grown(calls)
    assert await remaining(calls) == nearly(LONG), "nor of the thread before it"


async def test_a_copy_does_not_inherit_what_keeps_its_source(savers: Savers) -> None:
    calls = await savers.open(ttl=LONG)
    await grown(calls)
    await calls.persist("t")
    await calls.copy_thread("t", "copy")
    assert await remaining(calls, "copy") == nearly(LONG)
    await calls.persist("copy")
    await calls.copy_thread("t", "copy")
    assert await expires(calls, "copy") is None, "a target that was persisted stays so"


# --- another ttl


async def test_the_ttl_is_that_of_the_last_writer(savers: Savers) -> None:
    thread = await grown(await savers.open(ttl=LONG))
    for ttl in (LONG / 10, LONG * 10, None, LONG, None):
        thread.calls = await savers.open(ttl=ttl)
        assert thread.head is not None
        for write in (
            thread.put({"d": 1}),
            thread.calls.put_writes(thread.head, [("d", 1)], "other task"),
        ):
            await write
            if ttl is None:
                assert await expires(thread.calls) is None
            else:
                assert await remaining(thread.calls) == nearly(ttl)


async def test_a_saver_that_only_reads_does_not_lengthen_anothers_ttl(savers: Savers) -> None:
    await grown(await savers.open(ttl=savers.ttl))
    reader = await savers.open(ttl=LONG)
    await reader.get_tuple(config())
    await savers.later(savers.ttl)
    assert await is_gone(reader)
