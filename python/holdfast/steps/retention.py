"""Remove threads, runs and old checkpoints, and copy threads.

Removing is in two steps. First checkpoints go, with their writes; then `sweep` removes
the chunks that they leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import TASKS

from holdfast._core import Core, Reader, Record
from holdfast.backends.base import (
    Census,
    Copy,
    Forget,
    Remove,
    Row,
    RunThreads,
    WritesOf,
    new_operation_id,
)
from holdfast.drive import Steps
from holdfast.errors import CheckpointCorrupted, reading
from holdfast.steps.load import complete, predates_sends, read_metadata
from holdfast.steps.sweep import sweep_thread

_CONDITIONAL_ATTEMPTS = 5
_DELTA_COUNTERS = "counters_since_delta_snapshot"
_PRUNE_STRATEGIES = ("keep_latest", "delete")

_Key = tuple[str, str]


def delete_thread(core: Core, thread_id: str) -> Steps[None]:
    """Remove all of a thread: one round trip."""
    yield Forget(thread_id, new_operation_id())
    core.forget(thread_id)


def copy_thread(core: Core, source_thread_id: str, target_thread_id: str) -> Steps[None]:
    """Copy all of a thread, its whole history: one round trip."""
    yield Copy(source_thread_id, target_thread_id, new_operation_id())
    core.forget(target_thread_id)


def prune(
    core: Core, serde: SerializerProtocol, thread_ids: Sequence[str], strategy: str
) -> Steps[None]:
    """Remove whole threads, or all but the latest checkpoint of each namespace."""
    if isinstance(thread_ids, str):
        raise TypeError("thread_ids must be a sequence of thread ids, not a str")
    if strategy not in _PRUNE_STRATEGIES:
        raise ValueError(
            f"unknown prune strategy {strategy!r}, there are: {', '.join(_PRUNE_STRATEGIES)}"
        )
    for thread_id in map(str, thread_ids):
        if strategy == "delete":
            yield from delete_thread(core, thread_id)
        else:
            yield from _thin(core, serde, thread_id, _keep_latest)


def delete_for_runs(core: Core, serde: SerializerProtocol, run_ids: Sequence[str]) -> Steps[None]:
    """Remove the checkpoints of runs, in whatever thread and namespace they are."""
    runs = set(map(str, run_ids))
    if not runs:
        return
    threads: list[str] = yield RunThreads(sorted(runs))

    def keep(history: History) -> Steps[set[_Key]]:
        yield from ()
        return {key for key, item in history.items.items() if item.run_id not in runs}

    for thread_id in threads:
        yield from _thin(core, serde, thread_id, keep)


class Item:
    """A checkpoint of a thread, as far as retention looks at it."""

    def __init__(self, row: Row, record: Record, metadata: Mapping[str, Any]) -> None:
        self.row = row
        self.record = record
        self.metadata = metadata
        run_id = metadata.get("run_id")
        self.run_id = None if run_id is None else str(run_id)

    def parent_key(self) -> _Key | None:
        parent_id = self.record.parent_id
        return (self.row.checkpoint_ns, parent_id) if parent_id else None


class History:
    """All checkpoints of a thread, by namespace and id."""

    def __init__(
        self, core: Core, serde: SerializerProtocol, reader: Reader, items: dict[_Key, Item]
    ) -> None:
        self.core = core
        self.serde = serde
        self.reader = reader
        self.items = items

    def checkpoints(self, keys: Iterable[_Key]) -> Steps[dict[_Key, dict[str, Any]]]:
        """Checkpoints without their channels; no round trip unless they are large."""
        items = {key: self.items[key] for key in keys}
        if not items:
            return {}
        reader, records = self.reader, [item.record for item in items.values()]
        thread_id = next(iter(items.values())).row.thread_id

        def missing() -> list[bytes]:
            return [id for record in records for id in reader.missing_skeleton(record)]

        yield from complete(self.core, reader, thread_id, missing)
        return {
            key: self.serde.loads_typed(reader.skeleton(item.record)) for key, item in items.items()
        }

    def heads(self) -> dict[str, _Key]:
        """The greatest id of each namespace."""
        heads: dict[str, _Key] = {}
        for ns, checkpoint_id in sorted(self.items):
            heads[ns] = (ns, checkpoint_id)
        return heads

    def needed_for_delta(self, kept: Iterable[_Key]) -> set[_Key]:
        """Ancestors from which the delta channels of kept checkpoints are rebuilt."""
        delta: dict[str, set[str]] = {}
        for (ns, _), item in self.items.items():
            delta.setdefault(ns, set()).update(item.metadata.get(_DELTA_COUNTERS) or ())
        needed: set[_Key] = set()
        for key in kept:
            item = self.items[key]
            open_channels = delta[key[0]].intersection(item.record.versions())
            open_channels.difference_update(item.record.filled())
            walked = {key}
            while open_channels:
                parent = item.parent_key()
                if parent is None or parent in walked or parent not in self.items:
                    break
                walked.add(parent)
                needed.add(parent)
                item = self.items[parent]
                open_channels.difference_update(item.record.filled())
        return needed


def _history(core: Core, serde: SerializerProtocol, rows: Sequence[Row]) -> Steps[History]:
    thread_id = rows[0].thread_id
    reader = core.reader(thread_id)
    records = []
    for row in rows:
        with reading(row.thread_id, row.checkpoint_ns, row.checkpoint_id):
            records.append(reader.record(row.record))
    with reading(thread_id, "*", "*"):
        yield from complete(
            core,
            reader,
            thread_id,
            lambda: [id for record in records for id in reader.missing(record, [])],
        )
    items: dict[_Key, Item] = {}
    for row, record in zip(rows, records, strict=True):
        metadata = yield from read_metadata(core, serde, row)
        if metadata is None:
            continue  # removed meanwhile
        items[row.checkpoint_ns, row.checkpoint_id] = Item(row, record, metadata)
    return History(core, serde, reader, items)


def _keep_latest(history: History) -> Steps[set[_Key]]:
    """Each namespace's head, without the calls of subgraphs whose root checkpoint goes."""
    heads = history.heads()
    kept = set(heads.values())
    for ns, key in heads.items():
        # A call's namespace ends in its task id; that of a stateful subgraph does not.
        parents = history.items[key].metadata.get("parents") or {}
        if ":" in ns and any(
            (of, id) in history.items and heads.get(of) != (of, id) for of, id in parents.items()
        ):
            kept.discard(key)
    checkpoints = yield from history.checkpoints(kept)
    old = {
        key: history.items[key].parent_key()
        for key, checkpoint in checkpoints.items()
        if predates_sends(history.items[key].record, checkpoint)
    }
    parents_of_old = [parent for parent in old.values() if parent in history.items]
    if parents_of_old:
        thread_id = history.items[parents_of_old[0]].row.thread_id
        writes = yield WritesOf(thread_id, [parent for parent in parents_of_old if parent])
        for key, stored in writes.items():
            if any(history.reader.write(write.data).channel == TASKS for write in stored):
                kept.add(key)
    return kept


def _thin(
    core: Core,
    serde: SerializerProtocol,
    thread_id: str,
    choose: Callable[[History], Steps[set[_Key]]],
) -> Steps[None]:
    """Remove the checkpoints that `choose` does not keep and no kept one is rebuilt from."""
    last = None
    for attempt in range(_CONDITIONAL_ATTEMPTS + 1):
        with reading(thread_id, "*", "*"):
            epoch, rows, orphans = yield Census(thread_id)
        if not rows:
            return
        try:
            history = yield from _history(core, serde, rows)
            with reading(thread_id, "*", "*"):
                kept = yield from choose(history)
        except CheckpointCorrupted:
            if epoch == last or attempt == _CONDITIONAL_ATTEMPTS:
                raise
            last = epoch  # perhaps another removed it meanwhile: look again
            continue
        kept |= history.needed_for_delta(kept)
        doomed = [key for key in history.items if key not in kept]
        # Writes to a checkpoint that is gone; those to one yet to come have a greater id.
        heads = history.heads()
        doomed += [key for key in orphans if key[0] in heads and key < heads[key[0]]]
        if not doomed:
            return
        replaced = [
            (*key, item.row.record, core.with_parent(item.row.record, None))
            for key, item in history.items.items()
            if key in kept and item.parent_key() not in kept and item.parent_key() is not None
        ]
        # Under constant writing no census stays current. What came since is not among the
        # doomed, and a record is replaced only if it is as it was read.
        condition = epoch if attempt < _CONDITIONAL_ATTEMPTS else None
        if (yield Remove(thread_id, condition, doomed, replaced, new_operation_id())):
            break
    yield from sweep_thread(core, thread_id)
