"""Graphs of many channels: a record says what has changed since another, and is whole."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from holdfast._core import MANIFEST, references
from holdfast.backends.base import Chunks, Commit
from support.calls import Calls
from support.make import Thread, config, id_of, plain

WIDTH = 30
RUN = {"run_id": "r"}


def text(name: str, number: int) -> str:
    """Some 250 bytes, which no record holds."""
    return f"{name} {number} {number * 7919} " * 12


def channels() -> dict[str, str]:
    return {name: text(name, 0) for name in (f"channel {at:02}" for at in range(WIDTH))}


def named(commit: Commit) -> list[tuple[int, bytes]]:
    """What a commit's record refers to, with levels."""
    return references(commit.record)[1]


def noted(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests that a saver makes from now on."""
    seen: list[Any] = []
    backend = calls.saver._live.backend
    side = "execute" if calls.mode == "sync" else "aexecute"
    answer = getattr(backend, side)

    def note(request: Any) -> Any:
        seen.append(request)
        return answer(request)

    monkeypatch.setattr(backend, side, note)
    return seen


async def must_be_whole(calls: Calls, thread: Thread) -> None:
    """Every checkpoint holds what was put, in the order of its channels."""
    listed = {id_of(one.config): one for one in await calls.list(config())}
    assert listed.keys() == thread.expected.keys()
    for id, values in thread.expected.items():
        found = await calls.must_get(config(id=id))
        assert plain(found) == plain(listed[id])
        assert found.checkpoint["channel_values"] == values
        versions = found.checkpoint["channel_versions"]
        assert [*versions.items()] == [*thread.versions[id].items()]


async def test_every_checkpoint_is_whole(pair: tuple[Calls, Calls]) -> None:
    """Also where channels come, go, grow beyond what is shared, and where threads fork."""
    writer, cold = pair
    rng = random.Random(3)
    thread = Thread(writer)
    stored = [await thread.put(channels())]
    for number in range(1, 60):
        changed = {}
        for name in rng.sample([*channels()], 2):
            changed[name] = text(name, number) * rng.choice([1, 1, 1, 1, 30])
        if number % 9 == 0:
            changed[f"new {number}"] = text("new", number)
        drop = tuple(rng.sample([*channels().keys() - changed.keys()], number % 7 == 0))
        parent = rng.choice(stored) if number % 11 == 0 else stored[-1]
        seen = {f"node {at}": {f"channel {at:02}": number - number % (at + 1)} for at in range(20)}
        stored.append(await thread.put(changed, parent=parent, drop=drop, versions_seen=seen))
    await must_be_whole(writer, thread)
    await must_be_whole(cold, thread)
    # Read by one that knows nothing, the head is gone on with.
    thread.calls = cold
    await thread.put({"channel 03": "the last"})
    await must_be_whole(writer, thread)


@pytest.fixture
def requests(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    return noted(calls, monkeypatch)


async def test_a_step_sends_what_has_changed(calls: Calls, requests: list[Any]) -> None:
    """From the second step on that changes little: one chunk, and what was there is named once."""
    thread = Thread(calls)
    await thread.put(channels())
    for number in range(1, 9):
        await thread.put({f"channel {number:02}": text("x", number)})
    commits = [request for request in requests if isinstance(request, Commit)]
    assert [len(one.chunks) for one in commits] == [WIDTH, 2, *[1] * 7]
    assert [len(one.frontier) for one in commits] == [0, WIDTH - 1, *range(1, 8)]
    assert [sum(level >= MANIFEST for level, _ in named(one)) for one in commits] == [0, *[1] * 8]
    assert len({next(id for level, id in named(one) if level) for one in commits[1:]}) == 1


async def test_a_base_is_replaced_when_much_has_changed(calls: Calls, requests: list[Any]) -> None:
    thread = Thread(calls)
    await thread.put(channels())
    for number in range(1, 40):
        await thread.put({f"channel {number % WIDTH:02}": text("x", number)})
    bases = [
        [id for level, id in named(request) if level >= MANIFEST]
        for request in requests
        if isinstance(request, Commit)
    ]
    changes = sum(one != other for one, other in pairwise(bases[1:]))
    assert 3 <= changes <= 5
    # All at once: there is nothing to share.
    await thread.put({name: text(name, 99) for name in channels()})
    assert all(level < MANIFEST for level, _ in named(requests[-1]))
    await must_be_whole(calls, thread)


async def test_few_channels_stand_in_their_record(calls: Calls, requests: list[Any]) -> None:
    thread = Thread(calls)
    for number in range(5):
        await thread.put({"messages": [text("m", at) for at in range(9)], "step": number})
    for request in requests:
        assert all(level < MANIFEST for level, _ in named(request))


@pytest.mark.parametrize("is_cached", [True, False])
async def test_a_base_that_was_removed_is_not_told_by(
    pair: tuple[Calls, Calls], is_cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint that was put on is known here, and gone with all that it shared."""
    writer, other = pair
    thread = Thread(writer)
    requests = noted(writer, monkeypatch)
    first = await thread.put(channels())
    for number in range(3):
        await thread.put({"channel 07": text("x", number)}, metadata=RUN)
    values = dict(thread.expected[id_of(thread.head or {})])
    await other.delete_for_runs(["r"])
    await other.sweep()
    assert [id_of(one.config) for one in await other.list(config())] == [id_of(first)]
    if not is_cached:
        ids = [id for request in requests for id, _ in request.chunks]
        writer.saver._live.core.discard("t", ids)
    requests.clear()
    last = await thread.put({"channel 08": text("y", 1)})
    assert len(requests) == 2
    assert any(level >= MANIFEST for level, _ in named(requests[0]))
    assert any(level >= MANIFEST for level, _ in named(requests[-1])) == is_cached
    values["channel 08"] = text("y", 1)
    for calls in (writer, other):
        found = await calls.must_get(last)
        assert found.checkpoint["channel_values"] == values
    thread.calls = other
    await thread.put({"channel 09": "z"})
    await other.prune(["t"])
    await other.sweep()
    found = await writer.must_get(config())
    assert found.checkpoint["channel_values"] == {**values, "channel 09": "z"}


async def test_removing_what_was_told_by_the_same_base_leaves_the_rest_whole(
    calls: Calls,
) -> None:
    thread = Thread(calls)
    await thread.put(channels())
    for number in range(12):
        await thread.put({f"channel {number:02}": text("x", number)})
        if number % 4 == 3:
            await calls.prune(["t"])
            await calls.sweep()
            head = id_of(thread.head or {})
            thread.expected = {head: thread.expected[head]}
            await must_be_whole(calls, thread)
    await calls.copy_thread("t", "copy")
    await calls.delete_thread("t")
    found = await calls.must_get(config("copy"))
    assert found.checkpoint["channel_values"] == thread.expected[id_of(thread.head or {})]


WAYS: dict[str, tuple[Any, list[str]]] = {
    "threads": (lambda calls: calls.threads(), ["Threads"]),
    "list": (lambda calls: calls.list(config()), ["Page", "Chunks"]),
    "prune": (lambda calls: calls.prune(["t"]), ["Census", "Remove"]),
    "delete_for_runs": (
        lambda calls: calls.delete_for_runs(["r"]),
        ["RunThreads", "Census", "Remove"],
    ),
}


@pytest.mark.parametrize("way", WAYS)
async def test_what_reads_many_records_asks_for_the_bases_that_it_needs_at_once(
    pair: tuple[Calls, Calls], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, cold = pair
    thread = Thread(writer)
    await thread.put(channels())
    for number in range(1, 14):
        metadata = RUN if number % 3 == 0 else {}
        await thread.put({f"channel {number:02}": text("x", number)}, metadata=metadata)
    work, wanted = WAYS[way]
    requests = noted(cold, monkeypatch)
    found = await work(cold)
    for request in requests:
        if isinstance(request, Chunks):
            assert len(set(request.ids)) == len(request.ids)
    asked = [type(request).__name__ for request in requests]
    assert asked[: len(wanted)] == wanted
    if way == "list":
        assert asked == wanted
    if way == "threads":
        assert [one.error for one in found] == [None]
        assert (found[0].checkpoints, found[0].step) == (14, 14)
