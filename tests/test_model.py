"""Sequences of operations beside LangGraph's own in-memory saver, where both agree."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME
from support.backends import Backend
from support.calls import Calls
from support.make import checkpoint, config, id_of, plain, version
from support.values import INTEGERS

CHANNELS = ["a", "b", "c"]
STILL = [f"still {number:02}" for number in range(24)]
"""Channels of a wide graph, of which few change at a time."""
PLACES = st.tuples(st.sampled_from(["t", "u", "v"]), st.sampled_from(["", "sub:1"]))


class Oracle(InMemorySaver):
    """The official saver, with what it lacks in its plainest form."""

    def _forget(self, thread: str, ns: str, id: str) -> None:
        del self.storage[thread][ns][id]
        self.writes.pop((thread, ns, id), None)
        for other, (stored, metadata, parent) in self.storage[thread][ns].items():
            if parent == id:
                self.storage[thread][ns][other] = (stored, metadata, None)

    def prune(self, thread_ids: Any, *, strategy: str = "keep_latest") -> None:
        for thread in thread_ids:
            if strategy == "delete":
                self.delete_thread(thread)
                continue
            for ns, found in [*self.storage.get(thread, {}).items()]:
                for id in sorted(found)[:-1]:
                    self._forget(thread, ns, id)

    def delete_for_runs(self, run_ids: Any) -> None:
        for found in [*self.list(None)]:
            if found.metadata.get("run_id") in run_ids:
                where = found.config["configurable"]
                self._forget(where["thread_id"], where["checkpoint_ns"], where["checkpoint_id"])

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        for found in [*self.list(config(source_thread_id, None))]:
            where = found.config["configurable"]
            ns, id = where["checkpoint_ns"], where["checkpoint_id"]
            self.storage[target_thread_id][ns][id] = self.storage[source_thread_id][ns][id]
        for key in [key for key in self.writes if key[0] == source_thread_id]:
            self.writes[(target_thread_id, *key[1:])] = dict(self.writes[key])
        for blob in [key for key in self.blobs if key[0] == source_thread_id]:
            self.blobs[(target_thread_id, *blob[1:])] = self.blobs[blob]


class Beside(RuleBasedStateMachine):
    """Does everything to a saver and to the oracle, and compares all that can be seen."""

    backend: Backend
    mode: str
    still: Sequence[str] = ()
    stored = Bundle("stored")

    @initialize()
    def open(self) -> None:
        self.stack = ExitStack()
        folder = self.stack.enter_context(TemporaryDirectory())
        loop = asyncio.new_event_loop()
        self.stack.callback(loop.close)
        self.run = loop.run_until_complete
        self.stack.callback(lambda: self.run(loop.shutdown_default_executor()))
        self.calls = Calls(self.backend.open(Path(folder)), self.mode)
        self.stack.callback(lambda: self.run(self.calls.close()))
        self.oracle = Oracle()
        self.count = 0
        self.versions: dict[tuple[str, str, str | None], dict[str, str]] = {}
        self.touched: set[str] = set()

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()

    def alive(self, where: Any) -> bool:
        return self.oracle.get_tuple(where) is not None

    def _put(
        self, place: tuple[str, str], parent: Any, id: str, changed: Any, drop: Any, run: str
    ) -> Any:
        above = id_of(parent) if parent else None
        self.count += 1
        new = {name: version(self.count) for name in {*changed, *drop}}
        versions = {**self.versions.get((*place, above), {}), **new}
        values = {name: value for name, value in changed.items() if name not in drop}
        seen = {f"node of {name}": {name: versions[name]} for name in self.still}
        made = checkpoint(id, values, versions, versions_seen=seen)
        where = config(*place, above)
        metadata: Any = {"step": self.count, "run_id": run}
        stored = self.run(self.calls.put(where, made, metadata, new))
        assert stored == self.oracle.put(where, made, metadata, new)
        self.versions[(*place, id)] = versions
        return stored

    @rule(
        target=stored,
        place=PLACES,
        changed=st.dictionaries(
            st.sampled_from(CHANNELS), st.lists(st.text(max_size=300)), max_size=3
        ),
        run=st.sampled_from(["r1", "r2", "r3"]),
        id=st.integers(0, 30),
    )
    def put_root(self, place: Any, changed: Any, run: str, id: int) -> Any:
        still = {name: f"{name} {id} " * 20 for name in self.still}
        return self._put(place, None, f"{id:02}", {**changed, **still}, (), run)

    @rule(
        target=stored,
        parent=stored,
        changed=st.dictionaries(st.sampled_from(CHANNELS), INTEGERS | st.text(), max_size=3),
        drop=st.sets(st.sampled_from(CHANNELS), max_size=1),
        run=st.sampled_from(["r1", "r2", "r3"]),
        id=st.integers(31, 99),
        stirred=st.sets(st.sampled_from(STILL), max_size=3),
    )
    def put_child(
        self, parent: Any, changed: Any, drop: Any, run: str, id: int, stirred: set[str]
    ) -> Any:
        where = parent["configurable"]
        place = (where["thread_id"], where["checkpoint_ns"])
        if not self.alive(parent) or self.alive(config(*place, f"{id:02}")):
            return parent
        stirring = {name: f"{name} {id}" for name in sorted(stirred.intersection(self.still))}
        return self._put(place, parent, f"{id:02}", {**changed, **stirring}, drop, run)

    @rule(
        where=stored,
        writes=st.lists(
            st.tuples(st.sampled_from([*CHANNELS, ERROR, INTERRUPT, RESUME]), INTEGERS),
            max_size=4,
        ),
        task=st.sampled_from(["x", "y", "é"]),
        path=st.sampled_from(["", "~1", "~10"]),
    )
    def put_writes(self, where: Any, writes: Any, task: str, path: str) -> None:
        if self.alive(where):
            # a task has one path in its life
            self.run(self.calls.put_writes(where, writes, task, path + task))
            self.oracle.put_writes(where, writes, task, path + task)

    @rule(thread=st.sampled_from(["t", "u", "v"]))
    def delete(self, thread: str) -> None:
        self.run(self.calls.delete_thread(thread))
        self.oracle.delete_thread(thread)
        self.versions = {key: one for key, one in self.versions.items() if key[0] != thread}

    @rule(threads=st.lists(st.sampled_from(["t", "u", "v", "nobody"]), unique=True))
    def prune(self, threads: list[str]) -> None:
        self.run(self.calls.prune(threads))
        self.oracle.prune(threads)

    @rule(runs=st.lists(st.sampled_from(["r1", "r2", "unknown"]), max_size=2))
    def delete_for_runs(self, runs: list[str]) -> None:
        self.run(self.calls.delete_for_runs(runs))
        self.oracle.delete_for_runs(runs)

    @rule(source=st.sampled_from(["t", "u", "v"]))
    def copy_and_look(self, source: str) -> None:
        """A copy holds what its source does; it goes again, to keep the rest small."""
        self.run(self.calls.copy_thread(source, f"copy of {source}"))
        self.oracle.copy_thread(source, f"copy of {source}")
        self.look()
        self.run(self.calls.delete_thread(f"copy of {source}"))
        self.oracle.delete_thread(f"copy of {source}")

    @invariant()
    def look(self) -> None:
        if not hasattr(self, "oracle"):
            return
        listed = self.run(self.calls.list(None))
        ids = [id_of(found.config) for found in listed]
        assert ids == sorted(ids, reverse=True)
        expected = seen(self.oracle.list(None))
        assert seen(listed) == expected
        for thread, ns in {place[:2] for place in expected}:
            head = max(id for *place, id in expected if place == [thread, ns])
            found = self.run(self.calls.get_tuple(config(thread, ns)))
            assert id_of(found.config) == head
        for place, one in expected.items():
            found = self.run(self.calls.get_tuple(config(*place)))
            assert {**plain(found), "parent": one["parent"]} == one


def seen(found: Iterable[CheckpointTuple]) -> dict[tuple[str, str, str], Any]:
    """What was listed, by place; a parent that is not there any more is none."""
    listed = [plain(one) for one in found]
    by_place = {(one["thread"], one["ns"], one["id"]): one for one in listed}
    assert len(by_place) == len(listed), "a checkpoint is listed twice"
    for one in listed:
        if (one["thread"], one["ns"], one["parent"]) not in by_place:
            one["parent"] = None
    return by_place


@pytest.mark.parametrize("still", [(), STILL], ids=["narrow", "wide"])
def test_any_sequence_of_operations_does_what_the_official_saver_does(
    backend: Backend, mode: str, still: Sequence[str]
) -> None:
    machine = type("Beside", (Beside,), {"backend": backend, "mode": mode, "still": still})
    examples = max(10, settings.default.max_examples // 2)  # type: ignore[union-attr]
    how = settings(max_examples=examples, stateful_step_count=25)
    run_state_machine_as_test(machine, settings=how)
