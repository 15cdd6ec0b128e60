"""What happens in which round trip, when a saver reads or writes.

Generators that yield a request for each round trip and are sent its reply. They know no
client and await nothing; `drive` runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
    get_checkpoint_metadata,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import TASKS

from holdfast._core import Core, Draft, MissingChunk, Reader, Record
from holdfast._core import Write as CoreWrite
from holdfast.backends.base import (
    Ancestors,
    Chunks,
    Commit,
    Cursor,
    GetRecord,
    Head,
    Missing,
    Page,
    Request,
    Row,
    StoredWrite,
    Write,
    WritesOf,
    new_operation_id,
)
from holdfast.drive import Steps
from holdfast.errors import StoreUnavailable, corrupted, reading
from holdfast.versions import next_version

T = TypeVar("T")

_CHANNEL_KEYS = ("channel_values", "channel_versions", "versions_seen")
# A commit that loses this many races against sweeps has a store that loses chunks.
_COMMIT_ATTEMPTS = 8
_FIRST_PAGE = 16
_LARGEST_PAGE = 128
_FIRST_ANCESTORS = 64
_MORE_ANCESTORS = 2048


@dataclass(frozen=True, slots=True)
class Place:
    """Which checkpoint a config names."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str | None

    @classmethod
    def of(cls, config: RunnableConfig) -> Place:
        """Read a config as LangGraph does: a missing namespace is the root."""
        configurable = config["configurable"]
        return cls(
            str(configurable["thread_id"]),
            configurable.get("checkpoint_ns") or "",
            configurable.get("checkpoint_id") or None,
        )

    def config(self, checkpoint_id: str) -> RunnableConfig:
        return {
            "configurable": {
                "thread_id": self.thread_id,
                "checkpoint_ns": self.checkpoint_ns,
                "checkpoint_id": checkpoint_id,
            }
        }


# --- writing ---


def dumps(serde: SerializerProtocol, channel: str, value: Any) -> tuple[str, bytes]:
    """What the serializer makes of a channel's value; its TypeError names the channel."""
    try:
        return serde.dumps_typed(value)
    except TypeError as error:
        raise TypeError(f"channel {channel!r} cannot be stored: {error}") from error


def _are_regular(versions: Any) -> bool:
    """Whether versions are what LangGraph makes them: text, small integers or floats."""
    return isinstance(versions, dict) and all(
        type(channel) is str
        and (
            type(version) in (str, float) or (type(version) is int and -(2**63) <= version < 2**63)
        )
        for channel, version in versions.items()
    )


def put(
    core: Core,
    serde: SerializerProtocol,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
) -> Steps[RunnableConfig]:
    """Store a checkpoint: one round trip, and one before it where the parent is not known here."""
    place = Place.of(config)
    checkpoint_id = checkpoint["id"]
    values: dict[str, Any] = checkpoint.get("channel_values") or {}
    versions: dict[str, Any] = checkpoint.get("channel_versions") or {}
    seen: dict[str, Any] = checkpoint.get("versions_seen") or {}
    merged = get_checkpoint_metadata(config, metadata)
    skeleton = {key: value for key, value in checkpoint.items() if key not in _CHANNEL_KEYS}
    if not _are_regular(versions):
        skeleton["channel_versions"] = versions
        versions = {}
    if not all(type(node) is str and _are_regular(of) for node, of in seen.items()):
        skeleton["versions_seen"] = seen
        seen = {}

    encoded = {
        channel: dumps(serde, channel, values[channel])
        for channel in new_versions
        if channel in values
    }
    for channel, value in values.items():
        if channel not in versions and channel not in encoded:
            encoded[channel] = dumps(serde, channel, value)
    typed_skeleton = dumps(serde, "(checkpoint)", skeleton)
    typed_metadata = dumps(serde, "(metadata)", merged)

    kept = [channel for channel in versions if channel not in new_versions]
    parent = None
    if kept and place.checkpoint_id is not None:
        parent = yield from _parent(core, place.thread_id, place.checkpoint_ns, place.checkpoint_id)
    held = {c for c in kept if parent is not None and parent.holds(c, versions[c])}
    for channel in kept:
        if channel not in held and channel in values:
            encoded[channel] = dumps(serde, channel, values[channel])

    def plan(keep: set[str]) -> Draft:
        channels: list[tuple[str, Any, Any]] = [
            (channel, version, True if channel in keep else encoded.get(channel))
            for channel, version in versions.items()
        ]
        channels += [(c, None, typed) for c, typed in encoded.items() if c not in versions]
        return core.draft_checkpoint(
            place.thread_id,
            place.checkpoint_ns,
            checkpoint_id,
            place.checkpoint_id,
            typed_metadata,
            typed_skeleton,
            channels,
            list(seen.items()),
            parent,
        )

    def replan() -> Draft:
        # The parent's chunks are gone with the parent; what it held is given again. Such a
        # channel has no new version, so its value is still the one of the time of the call.
        for channel in held:
            if channel in values:
                encoded[channel] = dumps(serde, channel, values[channel])
        return plan(held - encoded.keys())

    run_id = merged.get("run_id")
    with reading(place.thread_id, place.checkpoint_ns, place.checkpoint_id):
        draft = plan(held)

    def request(draft: Draft, operation: bytes) -> Commit:
        return Commit(
            place.thread_id,
            place.checkpoint_ns,
            checkpoint_id,
            place.checkpoint_id,
            run_id if isinstance(run_id, str) else None,
            draft.sealed[0],
            draft.chunks,
            draft.frontier,
            operation,
        )

    yield from _commit(place, draft, request, replan)
    return place.config(checkpoint_id)


def put_writes(
    core: Core,
    serde: SerializerProtocol,
    config: RunnableConfig,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
) -> Steps[None]:
    """Store the pending writes of a task: one round trip."""
    place = Place.of(config)
    checkpoint_id: str = config["configurable"]["checkpoint_id"]
    # Within a batch the last write to a special index wins, as it does across batches.
    by_idx = {
        WRITES_IDX_MAP.get(channel, position): (channel, task_path, dumps(serde, channel, value))
        for position, (channel, value) in enumerate(writes)
    }
    if not by_idx:
        return

    def plan() -> Draft:
        return core.draft_writes(place.thread_id, list(by_idx.values()))

    def request(draft: Draft, operation: bytes) -> Write:
        stored = [
            StoredWrite(task_id, idx, data) for idx, data in zip(by_idx, draft.sealed, strict=True)
        ]
        return Write(
            place.thread_id,
            place.checkpoint_ns,
            checkpoint_id,
            stored,
            draft.chunks,
            draft.frontier,
            operation,
        )

    yield from _commit(place, plan(), request, plan)


def _commit(
    place: Place,
    draft: Draft,
    request: Callable[[Draft, bytes], Commit | Write],
    replan: Callable[[], Draft],
) -> Steps[None]:
    """Send a draft until the store has all that it refers to."""
    missing: Missing = []
    for _ in range(_COMMIT_ATTEMPTS):
        missing = yield request(draft, new_operation_id())
        if not missing:
            draft.acknowledge()
            return
        if draft.resend(missing):
            draft = replan()
    raise StoreUnavailable(
        f"thread {place.thread_id!r}, namespace {place.checkpoint_ns!r}: the store lacks "
        f"{len(missing)} chunks that this commit refers to, also after they were sent again. "
        "Nothing was stored. If the parent checkpoint was removed meanwhile, start from one "
        "that exists; otherwise check the store for lost data."
    )


def _parent(core: Core, thread_id: str, checkpoint_ns: str, parent_id: str) -> Steps[Record | None]:
    """The record of a parent, from the cache or the store, its manifest read."""
    record = core.cached_record(thread_id, checkpoint_ns, parent_id)
    if record is not None:
        return record
    stored = yield GetRecord(thread_id, checkpoint_ns, parent_id)
    if stored is None:
        return None
    reader = core.reader(thread_id)
    with reading(thread_id, checkpoint_ns, parent_id):
        record = reader.record(stored)
        opened = record
        yield from complete(core, reader, thread_id, lambda: reader.missing(opened, []))
        reader.remember(record, checkpoint_ns, parent_id)
    return record


# --- reading ---


def complete(
    core: Core, reader: Reader, thread_id: str, missing: Callable[[], list[bytes]]
) -> Steps[None]:
    """Fetch chunks until none is missing; MissingChunk where the store has one no more."""
    asked: set[bytes] = set()
    while ids := missing():
        if asked.issuperset(ids):
            raise MissingChunk(f"chunk {ids[0].hex()} is missing", ids[0])
        asked.update(ids)
        chunks = yield Chunks(thread_id, ids, partial(core.lacking, thread_id))
        reader.add(list(chunks.items()))


def _missing_of_row(reader: Reader, record: Record, writes: Sequence[CoreWrite]) -> list[bytes]:
    missing = reader.missing(record)
    for write in writes:
        missing += reader.missing_write(write)
    return missing


@dataclass(slots=True)
class Loaded:
    """A checkpoint with all its chunks at hand, not yet decoded."""

    row: Row
    reader: Reader
    record: Record
    writes: list[tuple[str, CoreWrite]]
    sends: list[tuple[str, CoreWrite]]

    def decode(self, serde: SerializerProtocol, *, remember: bool = False) -> CheckpointTuple:
        """The tuple that LangGraph sees."""
        row, reader, record = self.row, self.reader, self.record
        loads = serde.loads_typed
        place = Place(row.thread_id, row.checkpoint_ns, row.checkpoint_id)
        with reading(row.thread_id, row.checkpoint_ns, row.checkpoint_id):
            namespace = row.checkpoint_ns if remember else None
            typed = reader.values(record, None, namespace)
            checkpoint = loads(reader.skeleton(record))
            metadata = loads(reader.metadata(record))
            pending = [
                (task_id, write.channel, reader.write_value(write))
                for task_id, write in self.writes
            ]
            sends = [reader.write_value(write) for _, write in self.sends]
            checkpoint.setdefault("channel_versions", record.versions())
            checkpoint.setdefault("versions_seen", record.versions_seen())
        checkpoint["channel_values"] = {channel: loads(value) for channel, value in typed}
        if sends:
            versions = checkpoint["channel_versions"]
            checkpoint["channel_values"][TASKS] = [loads(value) for value in sends]
            versions[TASKS] = max(versions.values()) if versions else next_version(None)
        parent_id = record.parent_id
        return CheckpointTuple(
            config=place.config(row.checkpoint_id),
            checkpoint=checkpoint,
            metadata=metadata,
            parent_config=place.config(parent_id) if parent_id else None,
            pending_writes=[
                (task_id, channel, loads(value)) for task_id, channel, value in pending
            ],
        )


def _open_writes(reader: Reader, stored: Sequence[StoredWrite]) -> list[tuple[str, CoreWrite]]:
    """Pending writes with their task ids, in the order in which LangGraph applies them."""
    opened = [(write, reader.write(write.data)) for write in stored]
    opened.sort(key=lambda pair: writes_sort_key(pair[1].task_path, pair[0].task_id, pair[0].idx))
    return [(write.task_id, opened_write) for write, opened_write in opened]


def _predates_sends(serde: SerializerProtocol, reader: Reader, record: Record) -> bool:
    """Whether the checkpoint's tasks are still pending sends among its parent's writes."""
    if record.parent_id is None:
        return False
    version = serde.loads_typed(reader.skeleton(record)).get("v")
    return isinstance(version, int) and version < 4


def _load(core: Core, serde: SerializerProtocol, row: Row, reader: Reader) -> Steps[Loaded]:
    """Fetch what a row refers to."""
    thread_id = row.thread_id
    reader.add(list(row.chunks.items()))
    record = reader.record(row.record)
    writes = _open_writes(reader, row.writes)
    opened = [write for _, write in writes]
    yield from complete(core, reader, thread_id, lambda: _missing_of_row(reader, record, opened))
    sends: list[tuple[str, CoreWrite]] = []
    if _predates_sends(serde, reader, record):
        parent = (row.checkpoint_ns, record.parent_id or "")
        stored = (yield WritesOf(thread_id, [parent]))[parent]
        sends = [pair for pair in _open_writes(reader, stored) if pair[1].channel == TASKS]

        def missing() -> list[bytes]:
            return [id for _, write in sends for id in reader.missing_write(write)]

        yield from complete(core, reader, thread_id, missing)
    return Loaded(row, reader, record, writes, sends)


def load(
    core: Core, serde: SerializerProtocol, row: Row | None, reader: Reader | None = None
) -> Steps[Loaded | None]:
    """Fetch what a row refers to. A chunk that is gone means that the checkpoint is gone
    or was replaced meanwhile; only one that is unchanged is corrupt."""
    while row is not None:
        with reading(row.thread_id, row.checkpoint_ns, row.checkpoint_id):
            try:
                reader = reader or core.reader(row.thread_id)
                return (yield from _load(core, serde, row, reader))
            except MissingChunk as error:
                missing, reader = error, None
        again = yield from _head(core, row.thread_id, row.checkpoint_ns, row.checkpoint_id)
        if again is not None and again.record == row.record and again.writes == row.writes:
            raise corrupted(
                row.thread_id, row.checkpoint_ns, row.checkpoint_id, str(missing.args[0])
            ) from missing
        row = again
    return None


def _head(
    core: Core, thread_id: str, checkpoint_ns: str, checkpoint_id: str | None
) -> Steps[Row | None]:
    with reading(thread_id, checkpoint_ns, checkpoint_id):
        row: Row | None = yield Head(
            thread_id, checkpoint_ns, checkpoint_id, partial(core.lacking, thread_id)
        )
        return row


def get_tuple(
    core: Core, serde: SerializerProtocol, config: RunnableConfig
) -> Steps[CheckpointTuple | None]:
    """Read a checkpoint: one round trip, two where the store cannot follow references."""
    place = Place.of(config)
    row = yield from _head(core, place.thread_id, place.checkpoint_ns, place.checkpoint_id)
    loaded = yield from load(core, serde, row)
    if loaded is None:
        return None
    found = loaded.decode(serde, remember=True)
    loaded.reader.remember(loaded.record, loaded.row.checkpoint_ns, loaded.row.checkpoint_id)
    return found


@dataclass(slots=True)
class Listing:
    """What `list` asks for, and how far it has come."""

    thread_id: str | None
    checkpoint_ns: str | None
    checkpoint_id: str | None
    filter: Mapping[str, Any]
    before: str | None
    limit: int | None
    page: int
    cursor: Cursor | None = None
    is_done: bool = False

    @classmethod
    def of(
        cls,
        config: RunnableConfig | None,
        filter: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> Listing:
        configurable: dict[str, Any] = config["configurable"] if config else {}
        thread_id = configurable.get("thread_id")
        page = _FIRST_PAGE if limit is None or filter else min(max(limit, 1), _LARGEST_PAGE)
        return cls(
            thread_id=None if thread_id is None else str(thread_id),
            checkpoint_ns=configurable.get("checkpoint_ns"),
            checkpoint_id=configurable.get("checkpoint_id") or None,
            filter=filter or {},
            before=(before["configurable"].get("checkpoint_id") or None) if before else None,
            limit=limit,
            page=page,
            is_done=limit is not None and limit <= 0,
        )


def list_page(core: Core, serde: SerializerProtocol, listing: Listing) -> Steps[list[Loaded]]:
    """The next page of `list`. Nothing is held open between pages."""
    rows: list[Row] = yield Page(
        listing.thread_id,
        listing.checkpoint_ns,
        listing.checkpoint_id,
        listing.before,
        listing.cursor,
        listing.page,
    )
    listing.is_done = len(rows) < listing.page
    if rows:
        last = rows[-1]
        listing.cursor = Cursor(last.checkpoint_id, last.thread_id, last.checkpoint_ns)
    listing.page = min(listing.page * 4, _LARGEST_PAGE)
    page: list[Loaded] = []
    matching = yield from _matching(core, serde, rows, listing.filter)
    readers = yield from _prefetch(core, matching)
    for row in matching:
        loaded = yield from load(core, serde, row, readers[row.thread_id])
        if loaded is not None:
            page.append(loaded)
            if listing.limit is not None and len(page) == listing.limit:
                listing.is_done = True
                break
    if listing.limit is not None:
        listing.limit -= len(page)
    return page


def _matching(
    core: Core, serde: SerializerProtocol, rows: Sequence[Row], wanted: Mapping[str, Any]
) -> Steps[list[Row]]:
    """The rows whose metadata holds what is wanted."""
    if not wanted:
        return list(rows)
    matching = []
    for row in rows:
        metadata = yield from read_metadata(core, serde, row)
        if all(metadata.get(key) == value for key, value in wanted.items()):
            matching.append(row)
    return matching


def read_metadata(core: Core, serde: SerializerProtocol, row: Row) -> Steps[dict[str, Any]]:
    """A row's metadata; no round trip unless it is large."""
    with reading(row.thread_id, row.checkpoint_ns, row.checkpoint_id):
        reader = core.reader(row.thread_id)
        record = reader.record(row.record)
        yield from complete(core, reader, row.thread_id, lambda: reader.missing_metadata(record))
        metadata: dict[str, Any] = serde.loads_typed(reader.metadata(record))
        return metadata


def _prefetch(core: Core, rows: Sequence[Row]) -> Steps[dict[str, Reader]]:
    """Fetch what a page refers to: one round trip for each thread on it."""
    readers: dict[str, Reader] = {}
    for thread_id in {row.thread_id for row in rows}:
        readers[thread_id] = reader = core.reader(thread_id)
        ids = {id for row in rows if row.thread_id == thread_id for id in _unread(reader, row)}
        if ids:
            with reading(thread_id, "*", "*"):
                chunks = yield Chunks(thread_id, list(ids), partial(core.lacking, thread_id))
                reader.add(list(chunks.items()))
    return readers


def _unread(reader: Reader, row: Row) -> Iterator[bytes]:
    with reading(row.thread_id, row.checkpoint_ns, row.checkpoint_id):
        yield from reader.missing(reader.record(row.record))
        for write in row.writes:
            yield from reader.missing_write(reader.write(write.data))


def get_delta_channel_history(
    core: Core, serde: SerializerProtocol, config: RunnableConfig, channels: Sequence[str]
) -> Steps[Mapping[str, DeltaChannelHistory]]:
    """Walk the parents for the writes to channels that store no value at each step.

    One round trip for some 64 ancestors, one more for each 2048 beyond, and one for the
    values.
    """
    if not channels:
        return {}
    place = Place.of(config)
    reader = core.reader(place.thread_id)
    collected: dict[str, list[tuple[str, CoreWrite]]] = {channel: [] for channel in channels}
    seeds: dict[str, Record] = {}
    remaining = set(channels)
    seen: set[str] = set()
    start, limit = place.checkpoint_id, _FIRST_ANCESTORS
    is_target = True
    while remaining:
        rows: list[Row] = yield Ancestors(place.thread_id, place.checkpoint_ns, start, limit)
        with reading(place.thread_id, place.checkpoint_ns, place.checkpoint_id):
            records = [reader.record(row.record) for row in rows]

            def manifests(records: Sequence[Record] = records) -> list[bytes]:
                return [id for record in records for id in reader.missing(record, [])]

            yield from complete(core, reader, place.thread_id, manifests)
        fresh = False
        for row, record in zip(rows, records, strict=True):
            if row.checkpoint_id in seen or not remaining:
                continue
            fresh = True
            seen.add(row.checkpoint_id)
            if is_target:
                is_target = False
                continue
            with reading(row.thread_id, row.checkpoint_ns, row.checkpoint_id):
                writes = _open_writes(reader, row.writes)
            for task_id, write in reversed(writes):
                if write.channel in remaining:
                    collected[write.channel].append((task_id, write))
            for channel in remaining.intersection(record.filled()):
                seeds[channel] = record
                remaining.discard(channel)
        # A loop of parents, which only damage can make, brings nothing new.
        if len(rows) < limit or not fresh:
            break
        start, limit = rows[-1].checkpoint_id, _MORE_ANCESTORS

    def missing() -> list[bytes]:
        ids = [
            id for pairs in collected.values() for _, w in pairs for id in reader.missing_write(w)
        ]
        for channel, record in seeds.items():
            ids += reader.missing(record, [channel])
        return ids

    history: dict[str, DeltaChannelHistory] = {}
    with reading(place.thread_id, place.checkpoint_ns, place.checkpoint_id):
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
