"""All checkpoints of a thread, as far as it matters which of them are kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from langgraph.checkpoint.serde.base import SerializerProtocol

from holdfast._core import Core, Reader, Record
from holdfast.backends.base import Row
from holdfast.drive import Steps
from holdfast.errors import reading
from holdfast.steps.load import (
    complete,
    predates_sends,
    read_manifests,
    read_metadata,
    unpacked,
)

DELTA_COUNTERS = "counters_since_delta_snapshot"
"""In the metadata: how long ago each delta channel stored its value."""

Key: TypeAlias = tuple[str, str]
"""Namespace and id of a checkpoint."""


def parents_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The checkpoints of other namespaces that a subgraph was called from, by namespace."""
    parents = metadata.get("parents")
    if not isinstance(parents, Mapping):
        return {}
    return {ns: id for ns, id in parents.items() if type(ns) is str and type(id) is str}


class Item:
    """A checkpoint of a thread, as far as retention looks at it."""

    def __init__(self, row: Row, record: Record, metadata: Mapping[str, Any]) -> None:
        self.row = row
        self.record = record
        self.metadata = metadata
        run_id = metadata.get("run_id")
        self.run_id = None if run_id is None else str(run_id)
        self.predates_sends: bool | None = None
        """Whether its tasks are pending sends of its parent; None while that was not looked at."""

    def parents(self) -> dict[str, str]:
        """As `parents_of`."""
        return parents_of(self.metadata)

    def parent_key(self) -> Key | None:
        parent_id = self.record.parent_id
        return (self.row.checkpoint_ns, parent_id) if parent_id else None


class History:
    """All checkpoints of a thread, by namespace and id."""

    def __init__(
        self,
        core: Core,
        serde: SerializerProtocol,
        thread_id: str,
        reader: Reader,
        items: dict[Key, Item],
    ) -> None:
        self.core = core
        self.thread_id = thread_id
        self.serde = serde
        self.reader = reader
        self.items = items

    def before_sends(self, keys: Iterable[Key]) -> Steps[list[Item]]:
        """Those whose tasks are still pending sends among their parent's writes; no round trip
        unless a checkpoint is large."""
        items = [self.items[key] for key in keys]
        unread = [item for item in items if item.predates_sends is None]
        if unread:
            reader, records = self.reader, [item.record for item in unread]

            def missing() -> list[bytes]:
                return [id for record in records for id in reader.missing_skeleton(record)]

            yield from complete(self.core, reader, self.thread_id, missing)
            for item in unread:
                row = item.row
                with reading(row.thread_id, row.checkpoint_ns, row.checkpoint_id):
                    checkpoint = unpacked(self.serde, reader.skeleton(item.record), "checkpoint")
                item.predates_sends = predates_sends(item.record, checkpoint)
        return [item for item in items if item.predates_sends]

    @property
    def has_delta_channels(self) -> bool:
        """Whether checkpoints may need those before them."""
        return any(item.metadata.get(DELTA_COUNTERS) for item in self.items.values())

    def heads(self) -> dict[str, Key]:
        """The greatest id of each namespace."""
        heads: dict[str, Key] = {}
        for ns, checkpoint_id in sorted(self.items):
            heads[ns] = (ns, checkpoint_id)
        return heads

    def needed_for_delta(self, kept: Iterable[Key]) -> set[Key]:
        """Ancestors from which the delta channels of kept checkpoints are rebuilt. Where one of
        them is gone, all that there is of the namespace: when that is mended it is needed."""
        if not self.has_delta_channels:
            return set()
        delta: dict[str, set[str]] = {}
        for (ns, _), item in self.items.items():
            delta.setdefault(ns, set()).update(item.metadata.get(DELTA_COUNTERS) or ())
        needed: set[Key] = set()
        for key in kept:
            item = self.items[key]
            open_channels = delta[key[0]].intersection(item.record.versions())
            open_channels.difference_update(item.record.filled())
            walked = {key}
            while open_channels:
                parent = item.parent_key()
                if parent is None or parent in walked:
                    break
                if parent not in self.items:
                    needed.update(other for other in self.items if other[0] == key[0])
                    break
                walked.add(parent)
                needed.add(parent)
                item = self.items[parent]
                open_channels.difference_update(item.record.filled())
        return needed


def read_history(
    core: Core, serde: SerializerProtocol, rows: Sequence[Row], known: Mapping[Key, Item]
) -> Steps[History]:
    """The history of a thread from all its rows: no round trip unless something is large, or there
    are delta channels, which need the manifests.

    Args:
        known: Checkpoints that were read before; those that are as they were are not read again.
    """
    thread_id = rows[0].thread_id
    reader = core.reader(thread_id)
    items: dict[Key, Item] = {}
    unread: list[tuple[Row, Record]] = []
    for row in rows:
        key = (row.checkpoint_ns, row.checkpoint_id)
        if key in known and known[key].row.record == row.record:
            items[key] = known[key]
            continue
        with reading(row.thread_id, row.checkpoint_ns, row.checkpoint_id):
            unread.append((row, reader.record(row.record)))
    for row, record in unread:
        metadata = yield from read_metadata(core, serde, row)
        if metadata is not None:  # otherwise it was removed meanwhile
            items[row.checkpoint_ns, row.checkpoint_id] = Item(row, record, metadata)
    history = History(core, serde, thread_id, reader, items)
    if history.has_delta_channels:
        records = [item.record for item in items.values()]
        with reading(thread_id, "*", "*"):
            yield from read_manifests(core, reader, thread_id, records)
    return history
