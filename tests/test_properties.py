"""What must hold for any value, any edit of it, and any id."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.backends import Backend, opened
from support.calls import Calls
from support.make import Thread, checkpoint, checkpoint_id, config, id_of, same_bytes, through_serde
from support.values import STATES, VALUES, edited


@pytest.fixture
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A new folder for each example."""
    return lambda: tmp_path_factory.mktemp("store")


# --- values


@given(data=st.data())
async def test_any_sequence_of_edits_reads_back_at_every_step(
    backend: Backend, mode: str, folders: Any, data: st.DataObject
) -> None:
    folder = folders()
    async with opened(backend, folder, mode) as calls:
        thread = Thread(calls)
        value = data.draw(STATES)
        for _ in range(data.draw(st.integers(1, 8))):
            beside = data.draw(VALUES)
            stored = await thread.put({"state": value, "beside": beside})
            await calls.put_writes(stored, [("state", value)], "task")
            await check(calls, thread, [stored])
            value = data.draw(edited(value))
        await check(calls, thread, [config("t", "", id) for id in thread.expected])
        if not backend.one_saver:
            async with opened(backend, folder, mode) as cold:
                await check(cold, thread, [config("t", "", id) for id in thread.expected])


async def check(calls: Calls, thread: Thread, places: list[Any]) -> None:
    """Each of these checkpoints holds what was put there."""
    listed = {id_of(found.config): found for found in await calls.list(config(thread.thread))}
    for place in places:
        for found in (await calls.must_get(place), listed[id_of(place)]):
            expected = thread.expected[id_of(place)]
            assert same_bytes(found.checkpoint["channel_values"], through_serde(expected))
            assert found.pending_writes is not None
            assert same_bytes(found.pending_writes[0][2], through_serde(expected["state"]))


@given(data=st.data())
async def test_forks_prunes_and_copies_leave_the_values_of_what_stays(
    backend: Backend, mode: str, folders: Any, data: st.DataObject
) -> None:
    folder = folders()
    async with opened(backend, folder, mode) as calls:
        thread = Thread(calls)
        places: list[Any] = []
        for _ in range(data.draw(st.integers(2, 10))):
            action = data.draw(st.sampled_from(["put", "put", "put", "fork", "prune", "copy"]))
            parent = data.draw(st.sampled_from(places)) if places else None
            if action == "prune" and places:
                await calls.prune(["t"])
                places = [max(places, key=id_of)]
            elif action == "copy":
                await calls.copy_thread("t", "copy")
                await calls.delete_thread("copy")
            else:
                over = parent if action == "fork" else thread.head
                above = thread.expected[id_of(over)]["state"] if over else data.draw(STATES)
                stored = await thread.put({"state": data.draw(edited(above))}, parent=over)
                await calls.put_writes(
                    stored, [("state", thread.expected[id_of(stored)]["state"])], "x"
                )
                places.append(stored)
                thread.head = max(places, key=id_of)
        await check(calls, thread, places)
        if not backend.one_saver:
            async with opened(backend, folder, mode) as cold:
                await check(cold, thread, places)


# --- ids

IDS = st.one_of(
    st.text(alphabet="ab:%{}/|\x00.-_0", max_size=8),
    st.text(max_size=30),
    st.sampled_from(
        ["%00", "%3A", "a:b", "a", "b:c", ":", "::", "{t}", "é", "e\u0301", "😀", "'", '"']
    ),
    st.builds(lambda text: text * 300, st.text(min_size=1, max_size=10)),
)
NAMES = IDS.filter(bool)


@given(
    places=st.lists(st.tuples(NAMES, IDS, NAMES), min_size=1, max_size=8, unique=True),
    tasks=st.lists(st.tuples(IDS, IDS), min_size=1, max_size=3, unique_by=lambda pair: pair[0]),
)
@example(places=[("a:b", "", "c"), ("a", "", "b:c"), ("a", "b", "c")], tasks=[("a:b", "c")])
@example(places=[("a", "b:c", "d"), ("a:b", "c", "d"), ("a", "b", "c:d")], tasks=[("", "")])
@example(
    places=[("%3A", "", "x"), (":", "", "x"), ("a\x00", "", "x"), ("a", "", "x")], tasks=[("t", "")]
)
@example(
    places=[("t", "", "x"), ("t", "%00", "x"), ("T", "", "x"), ("t ", "", "x")], tasks=[("t", "")]
)
@example(
    places=[("é", "", "x"), ("e\u0301", "", "x"), ("t" * 5000, "n" * 5000, "i" * 5000)],
    tasks=[("t", "")],
)
async def test_every_place_is_its_own(
    backend: Backend, mode: str, folders: Any, places: list[Any], tasks: list[Any]
) -> None:
    """Ids of any text, also text that means something to a store, never meet."""
    async with opened(backend, folders(), mode) as calls:
        for thread, ns, id in places:
            made = checkpoint(id, {"place": [thread, ns, id]})
            stored = await calls.put(config(thread, ns), made, {}, made["channel_versions"])
            assert stored == config(thread, ns, id)
            for task, path in tasks:
                await calls.put_writes(stored, [("place", [thread, ns, id, task])], task, path)
        for thread, ns, id in places:
            found = await calls.must_get(config(thread, ns, id))
            assert found.checkpoint["id"] == id
            assert found.checkpoint["channel_values"] == {"place": [thread, ns, id]}
            order = sorted(tasks, key=lambda pair: (pair[1], pair[0]))
            writes = [(task, "place", [thread, ns, id, task]) for task, _ in order]
            assert found.pending_writes == writes
            ids = sorted((p[2] for p in places if p[:2] == (thread, ns)), reverse=True)
            assert await calls.ids(config(thread, ns)) == ids
        everywhere = [
            (f.config["configurable"], f.checkpoint["id"]) for f in await calls.list(None)
        ]
        seen = [(where["thread_id"], where["checkpoint_ns"], id) for where, id in everywhere]
        assert sorted(seen) == sorted(places)
        gone = places[0][0]
        await calls.delete_thread(gone)
        left = [
            (f.config["configurable"]["thread_id"], f.checkpoint["id"])
            for f in await calls.list(None)
        ]
        assert sorted(left) == sorted((t, id) for t, _, id in places if t != gone)


@pytest.mark.parametrize("thread", ["a\ud800b", "\udc00", "\ud83d\ude00"], ids=ascii)
async def test_a_thread_id_may_hold_lone_surrogates(calls: Calls, thread: str) -> None:
    others = ["a?b", "a\ufffdb", "\ufffd", "?", "😀"]
    for name in (thread, *others):
        made = checkpoint(1, {"name": ascii(name)})
        await calls.put(config(name), made, {}, made["channel_versions"])
    for name in (thread, *others):
        found = await calls.must_get(config(name))
        assert found.checkpoint["channel_values"] == {"name": ascii(name)}
        assert found.config["configurable"]["thread_id"] == name
    await calls.delete_thread(thread)
    assert await calls.get_tuple(config(thread)) is None
    assert len(await calls.list(None)) == len(others)


@given(names=st.lists(NAMES, min_size=2, max_size=4, unique=True))
async def test_copies_and_prunes_go_by_the_exact_id(
    backend: Backend, mode: str, folders: Any, names: list[str]
) -> None:
    async with opened(backend, folders(), mode) as calls:
        source, target, *others = names
        for name in (source, *others):
            for number in (1, 2):
                made = checkpoint(number, {"name": [name, number]})
                await calls.put(config(name), made, {}, made["channel_versions"])
        await calls.copy_thread(source, target)
        await calls.prune([source])
        assert await calls.ids(config(source)) == [checkpoint_id(2)]
        for name in (target, *others):
            assert await calls.ids(config(name)) == [checkpoint_id(2), checkpoint_id(1)]
        found = await calls.must_get(config(target))
        assert found.checkpoint["channel_values"] == {"name": [source, 2]}


@given(runs=st.lists(NAMES, min_size=1, max_size=4, unique=True), data=st.data())
async def test_runs_go_by_the_exact_id(
    backend: Backend, mode: str, folders: Any, runs: list[str], data: st.DataObject
) -> None:
    gone = data.draw(st.lists(st.sampled_from(runs), unique=True))
    # a NUL is stripped from metadata, so two such ids could become one
    runs = [run.replace("\x00", "") for run in runs]
    gone = [run.replace("\x00", "") for run in gone]
    async with opened(backend, folders(), mode) as calls:
        for number, run in enumerate(runs):
            metadata: Any = {"run_id": run}
            await calls.put(config(f"t{number}"), checkpoint(number), metadata, {})
        await calls.delete_for_runs(gone)
        left = [found.metadata["run_id"] for found in await calls.list(None)]
        assert left == [run for run in reversed(runs) if run not in gone]
