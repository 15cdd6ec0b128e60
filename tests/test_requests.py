"""What a backend promises at each request, whoever asks: the one suite of every backend."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import holdfast
import pytest
from holdfast._core import references
from holdfast.backends import base
from holdfast.backends.base import Commit, Write, new_operation_id
from holdfast.drive import drive
from holdfast.steps.garbage import collect_garbage
from support.backends import Backend
from support.make import checkpoint_id, config, version
from support.requests import WORDS, Execute, Tap, anew, chunk_ids, made, put, state, write

NUL, ONES, ABSENT = b"\0" * 8, b"\xff" * 8, b"\x77" * 16


@pytest.fixture
def execute(saver: holdfast.Saver) -> Execute:
    return saver._live.backend.execute


@pytest.fixture
def tap(saver: holdfast.Saver, monkeypatch: pytest.MonkeyPatch) -> Tap:
    return Tap(saver, monkeypatch)


# --- I2, I3: the frontier


@pytest.mark.parametrize("is_there", [False, True], ids=["new thread", "old thread"])
@pytest.mark.parametrize("kind", [Commit, Write])
def test_a_frontier_that_lacks_something_stores_nothing(
    execute: Execute, kind: type, is_there: bool
) -> None:
    whole = made()
    if is_there:
        execute(made(number=9, value=WORDS[50:60]))
    before = state(execute)
    ids = [id for id, _ in whole.chunks]
    request = whole if kind is Commit else replace(write(), chunks=whole.chunks)
    lacking = anew(request, chunks=whole.chunks[1:], frontier=[ids[0], ABSENT])
    assert sorted(execute(lacking)) == sorted([ids[0], ABSENT])
    assert state(execute) == before
    assert sorted(execute(lacking)) == sorted([ids[0], ABSENT]), "remembered though not done"
    assert execute(anew(request)) == []
    assert execute(anew(request, chunks=[], frontier=ids)) == []
    assert execute(anew(request, chunks=[], frontier=[*ids, ids[0]])) == [], "named twice"


def test_what_is_sent_along_satisfies_the_frontier(execute: Execute) -> None:
    whole = made()
    assert execute(replace(whole, frontier=[id for id, _ in whole.chunks])) == []


def test_another_threads_chunk_does_not_satisfy_a_frontier(execute: Execute) -> None:
    whole = made("other")
    ids = [id for id, _ in whole.chunks]
    assert execute(whole) == []
    assert execute(anew(whole, thread_id="t", chunks=[], frontier=ids)) == ids
    assert state(execute) is None
    assert execute(base.Chunks("t", ids, list)) == {}


# --- I6: repeating


@pytest.mark.parametrize("kind", [Commit, Write])
def test_a_repeated_change_changes_nothing(execute: Execute, kind: type) -> None:
    first, other = made(), made(value=WORDS[60:90])
    writes = write(idx=-1), write(idx=-1, data=other.record)
    one, two = (first, other) if kind is Commit else writes
    for request in (one, one, two):
        assert execute(request) == []
    before = state(execute)
    assert repr(other.record) in repr(before)
    assert execute(one) == []
    assert state(execute) == before


def test_a_repeated_remove_changes_nothing(execute: Execute) -> None:
    for number in (1, 2):
        execute(made(number=number))
    epoch = execute(base.Census("t"))[0]
    remove = base.Remove("t", epoch, [("", checkpoint_id(1))], [], new_operation_id())
    assert execute(remove) is True
    execute(made())
    before = state(execute)
    assert execute(remove) is True
    assert state(execute) == before


def test_a_refused_remove_is_not_remembered_as_done(execute: Execute) -> None:
    execute(made())
    epoch = execute(base.Census("t"))[0]
    execute(write())
    remove = base.Remove("t", epoch, [("", checkpoint_id(1))], [], new_operation_id())
    before = state(execute)
    assert [execute(remove), execute(remove)] == [False, False]
    assert state(execute) == before


def test_operations_are_remembered_whatever_their_bytes(execute: Execute) -> None:
    rng = random.Random(1)
    ids = [rng.randbytes(8) for _ in range(180)]
    ids += [bytes(rng.choice(b"\0\xff%_'\\") for _ in range(8)) for _ in range(18)] + [NUL, ONES]
    rng.shuffle(ids)
    request, records = made(), [made().record, made(number=2).record]
    for at, id in enumerate(ids):
        now, never = records[at % 2], records[1 - at % 2]
        assert execute(replace(request, record=now, operation=id)) == []
        assert execute(base.GetRecord("t", "", checkpoint_id(1))) == now, (
            f"{id!r} was taken as done"
        )
        for known in ids[max(0, at - 31) : at + 1] if at % 16 == 15 else [id]:
            assert execute(replace(request, record=never, operation=known)) == []
        assert execute(base.GetRecord("t", "", checkpoint_id(1))) == now, "was done again"


# --- sweeping


@pytest.mark.parametrize("between", ["commit", "write", "another thread of this id", "nothing"])
def test_a_discard_is_refused_when_its_mark_is_old(execute: Execute, between: str) -> None:
    whole = made()
    execute(whole)
    epoch, _ = execute(base.Mark("t"))
    if between == "commit":
        execute(anew(whole))
    elif between == "write":
        execute(write())
    elif between != "nothing":
        execute(base.Forget("t", new_operation_id()))
        execute(anew(whole))
    ids = [id for id, _ in whole.chunks]
    assert execute(base.Discard("t", ids, epoch)) is (between == "nothing")
    assert len(execute(base.Chunks("t", ids, list))) == (0 if between == "nothing" else len(ids))


def alive(execute: Execute, thread: str = "t") -> set[bytes]:
    """What records and writes reach, recounted from the stored bytes alone."""
    _, rows, orphans = execute(base.Census(thread))
    places = [*((row.checkpoint_ns, row.checkpoint_id) for row in rows), *orphans]
    front = [row.record for row in rows]
    for some in execute(base.WritesOf(thread, places)).values():
        front += [one.data for one in some]
    found: set[bytes] = set()
    while front:
        ids = {id for data in front for _, id in references(data)[1]} - found
        found |= ids
        chunks = execute(base.Chunks(thread, list(ids), None))
        assert chunks.keys() == ids, "what is alive is missing"
        front = list(chunks.values())
    return found


def stored(execute: Execute, thread: str = "t") -> set[bytes]:
    return {id for id, _ in chunk_ids(execute, thread)}


def grown(saver: holdfast.Saver, count: int) -> None:
    """A thread whose checkpoints share some chunks and replace others; writes of their own."""
    for number in range(1, count + 1):
        put(saver, number, {"state": WORDS[: 5 * number], "last": WORDS[-number:][:3] * number})
        where = config("t", "", checkpoint_id(number))
        saver.put_writes(where, [("last", [f"{number} {word}" for word in WORDS[:30]])], "task")


def test_a_prune_leaves_what_is_alive_and_nothing_else(saver: holdfast.Saver) -> None:
    execute = saver._live.backend.execute
    grown(saver, 12)
    early = config("t", "", checkpoint_id(99))
    saver.put_writes(early, [("state", [f"early {word}" for word in WORDS])], "task")
    before = stored(execute)
    saver.prune(["t"])
    assert stored(execute) == alive(execute)
    assert len(stored(execute)) < len(before)
    assert drive(collect_garbage(saver._live.core, "t"), execute).chunks == 0


def test_a_put_within_a_sweep_loses_nothing(saver: holdfast.Saver, tap: Tap) -> None:
    grown(saver, 4)
    doomed = [("", checkpoint_id(number)) for number in (1, 2, 4)]
    tap.direct(base.Remove("t", None, doomed, [], new_operation_id()))
    was = stored(tap.direct)
    messages = {"state": WORDS[:20], "last": WORDS[-4:][:3] * 4}  # those of the last one removed
    done: list[int] = []

    def before(request: Any) -> None:
        if isinstance(request, base.Discard) and not done:
            done.append(1)
            sent = tap.count(lambda: put(saver, 9, messages, parent=None))
            assert sent == ["Commit"], "must be a put that counts on the chunks to be removed"
            assert not tap.seen[0].chunks or was.isdisjoint(id for id, _ in tap.seen[0].chunks)

    tap.before = before
    removed = drive(collect_garbage(saver._live.core, "t"), tap).chunks
    assert done
    assert removed
    assert stored(tap.direct) == alive(tap.direct)
    found = saver.get_tuple(config("t", "", checkpoint_id(9)))
    assert found is not None
    assert found.checkpoint["channel_values"] == messages


def test_a_sweep_removes_nothing_where_a_living_page_is_missing(saver: holdfast.Saver) -> None:
    execute = saver._live.backend.execute
    grown(saver, 12)
    execute(base.Remove("t", None, [("", checkpoint_id(5))], [], new_operation_id()))
    epoch, reached = execute(base.Mark("t"))
    page = next(id for level, id in sorted(reached) if level > 0)
    assert execute(base.Discard("t", [page], epoch))
    before = stored(execute)
    assert drive(collect_garbage(saver._live.core, "t"), execute).chunks == 0
    assert stored(execute) == before


def test_a_sweep_gives_up_under_constant_commits(saver: holdfast.Saver, tap: Tap) -> None:
    grown(saver, 4)
    doomed = [("", checkpoint_id(number)) for number in (1, 2, 4)]
    tap.direct(base.Remove("t", None, doomed, [], new_operation_id()))

    (some,) = tap.direct(base.WritesOf("t", [("", checkpoint_id(3))])).values()

    def before(request: Any) -> None:
        if isinstance(request, base.Discard):
            tap.direct(write(idx=-1, data=some[0].data))

    tap.before = before
    count = Counter(tap.count(lambda: drive(collect_garbage(saver._live.core, "t"), tap)))
    assert 1 < count["Discard"] <= 20
    assert count.total() < 200
    assert stored(tap.direct) > alive(tap.direct)


# --- reading, and writes without a checkpoint


def test_a_census_has_the_writes_without_a_checkpoint(execute: Execute) -> None:
    for request in (made(number=2), write(number=2), write(number=1), write(number=3, idx=-1)):
        execute(request)
    execute(anew(write(number=1), checkpoint_ns="sub"))
    _, rows, orphans = execute(base.Census("t"))
    assert [row.checkpoint_id for row in rows] == [checkpoint_id(2)]
    assert sorted(orphans) == [
        ("", checkpoint_id(1)),
        ("", checkpoint_id(3)),
        ("sub", checkpoint_id(1)),
    ]


def test_a_prune_removes_late_writes_and_keeps_early_ones(saver: holdfast.Saver) -> None:
    execute = saver._live.backend.execute
    grown(saver, 3)
    saver.prune(["t"])
    for number in (1, 7):
        saver.put_writes(config("t", "", checkpoint_id(number)), [("a", WORDS)], "late")
    saver.prune(["t"])
    assert execute(base.Census("t"))[2] == [("", checkpoint_id(7))]
    assert stored(execute) == alive(execute)


def test_ancestors_end_at_a_loop_of_parents(saver: holdfast.Saver) -> None:
    execute = saver._live.backend.execute
    for number, parent in ((1, 2), (2, 1)):
        put(saver, number, {"state": WORDS[:number]}, parent=checkpoint_id(parent))
    for start in (None, checkpoint_id(1)):
        rows = execute(base.Ancestors("t", "", start, 50))
        assert len(rows) <= 50
        assert {row.checkpoint_id for row in rows} == {checkpoint_id(1), checkpoint_id(2)}
    history = saver.get_delta_channel_history(config=config("t"), channels=["state", "never"])
    assert history["state"]["seed"] == WORDS[:1]
    assert history["never"] == {"writes": []}


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_pages_go_through_all_keys_from_the_greatest(execute: Execute, limit: int) -> None:
    rng = random.Random(limit)
    threads, spaces = ["a", "b", "A", "é", "\ud800", "a\0b"], ["", "sub", "sub:1", "\U0001f600"]
    keys = {(checkpoint_id(rng.randrange(9)), rng.choice(threads), rng.choice(spaces))
            for _ in range(60)}  # fmt: skip
    for id, thread, ns in keys:
        execute(anew(made(), thread_id=thread, checkpoint_ns=ns, checkpoint_id=id))
    found: list[tuple[str, str, str]] = []
    cursor = None
    while rows := execute(base.Page(None, None, None, None, cursor, limit)):
        assert len(rows) <= limit
        found += [(row.checkpoint_id, row.thread_id, row.checkpoint_ns) for row in rows]
        cursor = base.Cursor(found[-1][0], found[-1][1], found[-1][2])
    assert found == sorted(keys, reverse=True)


# --- a thread that goes between two round trips is not damaged


@pytest.mark.parametrize("nth", range(1, 6))
@pytest.mark.parametrize("kind", ["delta", "filter", "put"])
def test_a_thread_deleted_meanwhile_is_not_called_corrupt(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, nth: int
) -> None:
    saver = backend.open(tmp_path, cache_bytes=0)
    tap = Tap(saver, monkeypatch)
    values: dict[str, Any] = {f"channel {i} {i * 7919:x}": [i] * 9 for i in range(60)}
    metadata = {"what": "looked for", "more": WORDS[:9]}
    for number in range(1, 6):
        values["state"] = WORDS[: 10 * number]
        put(saver, number, values, metadata=metadata)
        where = config("t", "", checkpoint_id(number))
        saver.put_writes(where, [("delta", WORDS[number:60])], "task")
    deleted: list[bool] = []
    tap.once(nth, lambda: deleted.append(tap.direct(base.Forget("t", new_operation_id()))))
    if kind == "delta":
        found = saver.get_delta_channel_history(config=config("t"), channels=["delta"])
        assert len(found["delta"]["writes"]) in (0, 4)
    elif kind == "filter":
        assert len([*saver.list(config("t"), filter={"what": "looked for"})]) <= 5
    else:
        versions = dict.fromkeys(values, version(5))
        refused = False
        try:
            put(saver, 6, values, versions=versions, new={})
        except holdfast.ThreadDeleted:
            refused = True
        # Whenever it was deleted before the put was done.
        assert refused == bool(deleted)
        tap.before = lambda _: None
        last = saver.get_tuple(config("t", "", checkpoint_id(6)))
        assert (last is None) == refused
        if last is not None:
            assert last.checkpoint["channel_values"] == values
    saver.close()


# --- round trips and chunks, counted


def test_round_trips(backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saver = backend.open(tmp_path)
    tap = Tap(saver, monkeypatch)
    values = {"state": WORDS[:50], "kept": WORDS[50:]}

    def child(number: int) -> list[str]:
        versions = {"state": version(number), "kept": version(1)}
        new = {"state": version(number)}
        return tap.count(lambda: put(saver, number, values, versions=versions, new=new))

    def cold() -> None:
        """The saver as a new one on the store: without what it remembers."""
        saver._live.core = saver._live._new_core()

    saver.setup()
    assert tap.count(lambda: put(saver, 1, values)) == ["Commit"]
    assert child(2) == ["Commit"], "the parent is cached"
    cold()
    assert tap.count(lambda: saver.get_tuple(config())) == [*backend.head], "cold"
    assert tap.count(lambda: saver.get_tuple(config())) == ["Head"], "warm"
    assert child(3) == ["Commit"], "the parent was read"
    cold()
    assert child(4) == ["GetRecord", "Commit"], "the parent is not known"
    where = config("t", "", checkpoint_id(4))
    assert tap.count(lambda: saver.put_writes(where, [("a", WORDS)] * 5, "task")) == ["Write"]
    for number in range(5, 44):
        child(number)
        saver.put_writes(config("t", "", checkpoint_id(number)), [("d", WORDS[:9])], "task")
    cold()
    assert tap.count(lambda: [*saver.list(config(), limit=10)]) == ["Page", "Chunks"]
    cold()
    delta = tap.count(lambda: saver.get_delta_channel_history(config=config(), channels=["d"]))
    assert delta[0] == "Ancestors"
    assert len(delta) <= 3
    saver.close()


def test_chunks_sent(saver: holdfast.Saver, tap: Tap) -> None:
    messages = [f"message {i} {WORDS[i]}"[:500] for i in range(102)]

    def sent(*args: Any, **how: Any) -> int:
        assert tap.count(lambda: put(saver, *args, **how)) == ["Commit"]
        return len(tap.seen[0].chunks)

    assert sent(1, {"state": messages[:100]}) > 40
    assert sent(2, {"state": messages}) in (2, 3), "an append"
    assert sent(2, {"state": messages}) == 0, "the same again"
    versions = {"state": version(2)}
    parent = checkpoint_id(2)
    assert sent(3, {"state": messages}, parent=parent, versions=versions, new={}) == 0, "a fork"
