"""Read what channels are rebuilt from that store no value at each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import DeltaChannelHistory, PendingWrite
from langgraph.checkpoint.serde.base import SerializerProtocol

from holdfast._core import Core, MissingChunk, Record, Write
from holdfast.backends.base import Ancestors, Row
from holdfast.drive import Steps
from holdfast.errors import reading
from holdfast.steps.load import complete, open_writes, read_manifests
from holdfast.steps.place import Place

_FIRST_ANCESTORS = 64
_MORE_ANCESTORS = 2048
_ATTEMPTS = 3


def get_delta_channel_history(
    core: Core, serde: SerializerProtocol, config: RunnableConfig, channels: Sequence[str]
) -> Steps[Mapping[str, DeltaChannelHistory]]:
    """Walk the parents for the writes to channels that store no value at each step.

    One round trip for some 64 ancestors, one more for each 2048 beyond, one for the values;
    and with each of them one for the bases of manifests, or two for those that are trees.
    """
    if not channels:
        return {}
    place = Place.of(config)
    attempts = 0
    while True:
        with reading(place.thread_id, place.checkpoint_ns, place.checkpoint_id):
            try:
                return (yield from _walk(core, serde, place, channels))
            except MissingChunk:
                # An ancestor that goes meanwhile takes its chunks along: look again.
                attempts += 1
                if attempts == _ATTEMPTS:
                    raise


def _walk(
    core: Core, serde: SerializerProtocol, place: Place, channels: Sequence[str]
) -> Steps[Mapping[str, DeltaChannelHistory]]:
    reader = core.reader(place.thread_id)
    collected: dict[str, list[tuple[str, Write]]] = {channel: [] for channel in channels}
    seeds: dict[str, Record] = {}
    remaining = set(channels)
    seen: set[str] = set()
    start, limit = place.checkpoint_id, _FIRST_ANCESTORS
    is_target = True
    older: str | None = None
    versioned: set[str] = set()
    while remaining:
        rows: list[Row] = yield Ancestors(place.thread_id, place.checkpoint_ns, start, limit)
        records = [reader.record(row.record) for row in rows]
        yield from read_manifests(core, reader, place.thread_id, records)
        fresh = False
        for row, record in zip(rows, records, strict=True):
            if row.checkpoint_id in seen or not remaining:
                continue
            if not is_target and row.checkpoint_id != older:
                # The store's own note of the parent is damaged: the record's has a checksum.
                break
            fresh = True
            seen.add(row.checkpoint_id)
            older = record.parent_id
            if is_target:
                is_target = False
                versioned = remaining.intersection(record.versions())
                continue
            writes = open_writes(reader, row.writes)
            for task_id, write in reversed(writes):
                if write.channel in remaining:
                    collected[write.channel].append((task_id, write))
            for channel in remaining.intersection(record.filled()):
                seeds[channel] = record
                remaining.discard(channel)
        # A loop of parents, which only damage can make, brings nothing new.
        if len(rows) < limit or not fresh:
            if older and older not in seen and versioned & remaining:
                raise MissingChunk(f"its ancestor {older!r} is gone, which it is rebuilt from")
            break
        start, limit = rows[-1].checkpoint_id, _MORE_ANCESTORS

    def missing() -> list[bytes]:
        ids = reader.missing_writes([w for pairs in collected.values() for _, w in pairs])
        for channel, record in seeds.items():
            ids += reader.missing(record, [channel])
        return ids

    history: dict[str, DeltaChannelHistory] = {}
    yield from complete(core, reader, place.thread_id, missing)
    for channel in channels:
        writes_of: list[PendingWrite] = [
            (task_id, channel, serde.loads_typed(reader.write_value(write)))
            for task_id, write in reversed(collected[channel])
        ]
        history[channel] = {"writes": writes_of}
        if channel in seeds:
            ((_, typed),) = reader.values(seeds[channel], [channel])
            history[channel]["seed"] = serde.loads_typed(typed)

    return history
