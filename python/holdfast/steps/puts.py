"""Store checkpoints and pending writes: what is sent, and sent again where the store lacks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from holdfast._core import Core, Draft, Reader, Record
from holdfast.backends.base import (
    Commit,
    Fence,
    Missing,
    Predecessor,
    StoredWrite,
    Write,
    new_operation_id,
)
from holdfast.drive import Steps, Work
from holdfast.errors import StoreUnavailable, reading
from holdfast.ids import made
from holdfast.serde import Serializer
from holdfast.steps.history import DELTA_COUNTERS, parents_of
from holdfast.steps.load import read_manifests, read_record
from holdfast.steps.place import Place
from holdfast.steps.summary import summary
from holdfast.steps.trim import Trim

_T = TypeVar("_T")

_CHANNEL_KEYS = ("channel_values", "channel_versions", "versions_seen")
# Bytes that are split, hashed and compressed, or only found to be known, in a few milliseconds:
# more are left to a thread.
_SHORT = 256 << 10
_LONG = 4 << 20
# As holdfast has it: whoever puts another in its place wants that to be called.
_DUMPS_TYPED = Serializer.dumps_typed
# A commit that loses this many races against sweeps has a store that loses chunks.
_COMMIT_ATTEMPTS = 8


def put(
    core: Core,
    serde: SerializerProtocol,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
    *,
    shows_state: bool = False,
    fence: Fence | None = None,
    trim: Trim | None = None,
) -> Steps[RunnableConfig]:
    """Store a checkpoint: one round trip, and one before it where the parent is not known here, and
    some more where its record does not hold all of its manifest. With `trim` some more after it
    when older ones have to go."""
    place = Place.of(config)
    checkpoint_id = checkpoint["id"]
    values: dict[str, Any] = checkpoint.get("channel_values") or {}
    skeleton, versions, seen = _split(checkpoint)
    merged = get_checkpoint_metadata(config, metadata)
    shown = summary(serde, checkpoint, merged, new_versions) if shows_state else None

    dumps = _packing(serde)
    encoded = {
        channel: _dumps(dumps, channel, values[channel])
        for channel in new_versions
        if channel in values
    }
    for channel, value in values.items():
        if channel not in versions and channel not in encoded:
            encoded[channel] = _dumps(dumps, channel, value)
    typed_skeleton = _dumps(serde.dumps_typed, "(checkpoint)", skeleton)
    typed_metadata = _dumps(serde.dumps_typed, "(metadata)", merged)

    kept = [channel for channel in versions if channel not in new_versions]
    parent = None
    if place.checkpoint_id is not None:
        parent = core.cached_record(place.thread_id, place.checkpoint_ns, place.checkpoint_id)
    # Then so are its values, as likely as not, and little is new.
    is_parent_cached = parent is not None
    held = {c for c in kept if parent is not None and parent.holds(c, versions[c])}
    # Before the first round trip: later a value may be another.
    for channel in kept:
        if channel not in held and channel in values:
            encoded[channel] = _dumps(dumps, channel, values[channel])
    if parent is None and kept and place.checkpoint_id is not None:
        parent = yield from _parent(core, place.thread_id, place.checkpoint_ns, place.checkpoint_id)
        held = {c for c in kept if parent is not None and parent.holds(c, versions[c])}

    def plan(keep: set[str], *, may_be_based: bool = True) -> Draft:
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
            may_be_based=may_be_based,
        )

    def replan() -> Draft:
        # The parent's chunks are gone, from the store and from the cache; what it held is
        # given again. Without a new version LangGraph takes such a value for unchanged.
        for channel in held:
            if channel in values:
                encoded[channel] = _dumps(dumps, channel, values[channel])
        return plan(held - encoded.keys(), may_be_based=False)

    run_id = merged.get("run_id")
    follows = _predecessors(place, merged, _has_open_channel(merged, versions, values))

    def request(draft: Draft, operation: bytes) -> Commit:
        return Commit(
            place.thread_id,
            place.checkpoint_ns,
            checkpoint_id,
            place.checkpoint_id,
            None if run_id is None else str(run_id),
            draft.sealed[0],
            draft.chunks,
            draft.frontier,
            operation,
            shown,
            follows,
            fence,
        )

    size = sum(len(data) for _, data in encoded.values())
    is_long = size > (_LONG if is_parent_cached else _SHORT)
    sent = yield from _commit(place, is_long, lambda: plan(held), request, replan)
    if trim is not None:
        yield from trim.after_put(core, serde, place.thread_id, place.checkpoint_ns, sent)
    return place.config(checkpoint_id)


def put_writes(
    core: Core,
    serde: SerializerProtocol,
    config: RunnableConfig,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
    *,
    fence: Fence | None = None,
) -> Steps[None]:
    """Store the pending writes of a task: one round trip."""
    place = Place.of(config)
    checkpoint_id: str = config["configurable"]["checkpoint_id"]
    dumps = serde.dumps_typed
    # Within a batch the last write to a special index wins, as it does across batches.
    by_idx = {
        WRITES_IDX_MAP.get(channel, position): (channel, task_path, _dumps(dumps, channel, value))
        for position, (channel, value) in enumerate(writes)
    }
    if not by_idx:
        return
    begun = made(checkpoint_id)

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
            begun and begun + 1,
            fence,
        )

    size = sum(len(data) for *_, (_, data) in by_idx.values())
    yield from _commit(place, size > _SHORT, plan, request, plan)


def _has_open_channel(
    metadata: Mapping[str, Any], versions: Mapping[str, Any], values: Mapping[str, Any]
) -> bool:
    """Whether a delta channel has no value here, and is rebuilt from what came before."""
    counters = metadata.get(DELTA_COUNTERS) or ()
    return any(channel in versions and channel not in values for channel in counters)


def _predecessors(
    place: Place, metadata: Mapping[str, Any], needs_parent: bool
) -> list[Predecessor]:
    """The checkpoints on which one builds: its parent; the first of a subgraph's call builds on
    those that it was called from."""
    if place.checkpoint_id is not None:
        parent_id = place.checkpoint_id
        return [Predecessor(place.checkpoint_ns, parent_id, made(parent_id), True, needs_parent)]
    return [
        Predecessor(ns, id, made(id), is_parent=False)
        for ns, id in parents_of(metadata).items()
        if ns != place.checkpoint_ns
    ]


def _commit(
    place: Place,
    is_long: bool,
    plan: Callable[[], Draft],
    request: Callable[[Draft, bytes], Commit | Write],
    replan: Callable[[], Draft],
) -> Steps[int]:
    """Send a draft until the store has all that it refers to; how many chunks were sent."""
    missing: Missing = []
    with reading(place.thread_id, place.checkpoint_ns, place.checkpoint_id):
        draft = (yield Work(plan)) if is_long else plan()
        # One for all attempts: none that is late does what another has done.
        operation = new_operation_id()
        for _ in range(_COMMIT_ATTEMPTS):
            sent = request(draft, operation)
            missing = yield sent
            if not missing:
                draft.acknowledge()
                return len(sent.chunks)
            if draft.resend(missing):
                draft = replan()
    raise StoreUnavailable(
        f"thread {place.thread_id!r}, namespace {place.checkpoint_ns!r}: the store lacks "
        f"{len(missing)} chunks that this commit refers to, also after they were sent again. "
        "Nothing was stored. If the parent checkpoint was removed meanwhile, start from one "
        "that exists; otherwise check the store for lost data."
    )


def _parent(core: Core, thread_id: str, checkpoint_ns: str, parent_id: str) -> Steps[Record | None]:
    """The record of a parent from the store, its manifest read; None where there is none."""

    def read(reader: Reader, stored: bytes) -> Steps[Record]:
        record = reader.record(stored)
        yield from read_manifests(core, reader, thread_id, [record])
        reader.remember(record, checkpoint_ns, parent_id)
        return record

    return (yield from read_record(core, (thread_id, checkpoint_ns, parent_id), read))


def _packing(serde: SerializerProtocol) -> Callable[[Any], tuple[str, Any]]:
    """What makes the bytes of a channel's value: the serializer's own method if it has another."""
    dumps = serde.dumps_typed
    if isinstance(serde, Serializer) and getattr(dumps, "__func__", None) is _DUMPS_TYPED:
        return serde.pack_typed
    return dumps


def _dumps(dumps: Callable[[Any], tuple[str, _T]], channel: str, value: Any) -> tuple[str, _T]:
    """What the serializer makes of a channel's value; its TypeError names the channel."""
    try:
        return dumps(value)
    except TypeError as error:
        raise TypeError(f"channel {channel!r} cannot be stored: {error}") from error


def _split(
    checkpoint: Checkpoint,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, dict[str, Any]]]:
    """A checkpoint without its channels, and the versions that the record holds for it."""
    skeleton = {key: value for key, value in checkpoint.items() if key not in _CHANNEL_KEYS}
    versions: dict[str, Any] = checkpoint.get("channel_versions") or {}
    seen: dict[str, Any] = checkpoint.get("versions_seen") or {}
    if not _are_regular(versions):
        skeleton["channel_versions"] = versions
        versions = {}
    if not all(type(node) is str and _are_regular(of) for node, of in seen.items()):
        skeleton["versions_seen"] = seen
        seen = {}
    return skeleton, versions, seen


def _are_regular(versions: Any) -> bool:
    """Whether versions are what LangGraph makes them: text, small integers or floats."""
    return isinstance(versions, dict) and all(
        type(channel) is str
        and (
            type(version) in (str, float) or (type(version) is int and -(2**63) <= version < 2**63)
        )
        for channel, version in versions.items()
    )
