"""Fetch all that a stored checkpoint refers to, and decode it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from langgraph.checkpoint.base import CheckpointTuple, writes_sort_key
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import TASKS

from holdfast._core import Core, IntegrityError, MissingChunk, Reader, Record, Write
from holdfast.backends.base import Chunks, GetRecord, Head, Row, StoredWrite, WritesOf
from holdfast.drive import Steps
from holdfast.errors import corrupted, reading
from holdfast.serde import loading
from holdfast.steps.place import Place
from holdfast.versions import next_version

T = TypeVar("T")
_SURROGATES = re.compile("[\ud800-\udfff]")


def complete(
    core: Core,
    reader: Reader,
    thread_id: str,
    missing: Callable[[], list[bytes]],
    *,
    alone: bool = False,
) -> Steps[None]:
    """Fetch chunks until none is missing; MissingChunk where the store has one no more.

    Args:
        alone: What those refer to that are missing at first is not wanted, unless it is missing
            then: they are bases, or the pages of a manifest.
    """
    asked: set[bytes] = set()
    while ids := missing():
        if asked.issuperset(ids):
            raise MissingChunk(f"chunk {ids[0].hex()} is missing")
        lacking = None if alone and not asked else partial(core.lacking, thread_id)
        asked.update(ids)
        # Many records may have one base.
        chunks = yield Chunks(thread_id, list(dict.fromkeys(ids)), lacking)
        reader.add(list(chunks.items()))


def read_manifests(
    core: Core, reader: Reader, thread_id: str, records: Sequence[Record]
) -> Steps[None]:
    """Fetch what tells the channels of records, without their values; MissingChunk as above."""

    def missing() -> list[bytes]:
        return [id for record in records for id in reader.missing(record, [])]

    yield from complete(core, reader, thread_id, missing, alone=True)


def unpacked(serde: SerializerProtocol, typed: tuple[str, bytes], name: str) -> Any:
    """What the serializer makes of bytes that holdfast itself looks at; IntegrityError where it
    makes nothing of them."""
    try:
        return serde.loads_typed(typed)
    except Exception as error:
        raise IntegrityError(
            f"the saver's serializer cannot read the {name} ({type(error).__name__}: {error}); "
            "was it stored with another one?"
        ) from error


@dataclass(slots=True)
class Opened:
    """What a row's bytes hold."""

    record: Record
    writes: list[tuple[str, Write]]
    is_whole: bool = False
    """Whether the reader is known to have all that they refer to."""


def open_row(reader: Reader, row: Row) -> Opened:
    """Open a row's bytes."""
    return Opened(reader.record(row.record), open_writes(reader, row.writes))


def missing_of_row(reader: Reader, opened: Opened) -> list[bytes]:
    """What a row refers to and the reader lacks."""
    missing = reader.missing(opened.record)
    if opened.writes:
        missing += reader.missing_writes([write for _, write in opened.writes])
    return missing


@dataclass(slots=True)
class Loaded:
    """A checkpoint with all its chunks at hand, not yet decoded."""

    row: Row
    reader: Reader
    record: Record
    checkpoint: dict[str, Any]
    """The checkpoint without its channels."""
    writes: list[tuple[str, Write]]
    sends: list[tuple[str, Write]]

    def decode(self, serde: SerializerProtocol, *, remember: bool = False) -> CheckpointTuple:
        """The tuple that LangGraph sees."""
        row, record = self.row, self.record
        place = Place(row.thread_id, row.checkpoint_ns, row.checkpoint_id)
        with reading(row.thread_id, row.checkpoint_ns, row.checkpoint_id):
            metadata, values, sends, pending = self.reader.load(
                record,
                [write for _, write in self.sends],
                [write for _, write in self.writes],
                loading(serde),
                row.checkpoint_ns if remember else None,
            )
            checkpoint: Any = dict(self.checkpoint)
            checkpoint.setdefault("channel_versions", record.versions())
            checkpoint.setdefault("versions_seen", record.versions_seen())
        checkpoint["channel_values"] = values
        if sends:
            versions = checkpoint["channel_versions"]
            values[TASKS] = sends
            versions[TASKS] = max(versions.values()) if versions else next_version(None)
        parent_id = record.parent_id
        return CheckpointTuple(
            config=place.config(row.checkpoint_id),
            checkpoint=checkpoint,
            metadata=metadata,
            parent_config=place.config(parent_id) if parent_id else None,
            pending_writes=[
                (task_id, write.channel, value)
                for (task_id, write), value in zip(self.writes, pending, strict=True)
            ],
        )


def open_writes(reader: Reader, stored: Sequence[StoredWrite]) -> list[tuple[str, Write]]:
    """Pending writes with their task ids, in the order in which LangGraph applies them."""
    opened = [(write, reader.write(write.data)) for write in stored]
    opened.sort(key=lambda pair: writes_sort_key(pair[1].task_path, pair[0].task_id, pair[0].idx))
    return [(write.task_id, opened_write) for write, opened_write in opened]


def predates_sends(record: Record, checkpoint: Mapping[str, Any]) -> bool:
    """Whether the checkpoint's tasks are still pending sends among its parent's writes."""
    version = checkpoint.get("v")
    return record.parent_id is not None and isinstance(version, int) and version < 4


def _check_id(checkpoint: Any, checkpoint_id: str) -> None:
    """A record vouches for itself, but not for where it stands."""
    held = checkpoint.get("id") if isinstance(checkpoint, dict) else None
    # Serializers do not keep lone surrogates.
    if isinstance(held, str) and held != checkpoint_id and not _SURROGATES.search(checkpoint_id):
        raise IntegrityError(f"its record is that of checkpoint {held!r}")


def _load(
    core: Core, serde: SerializerProtocol, row: Row, reader: Reader, opened: Opened
) -> Steps[Loaded]:
    """Fetch what a row refers to."""
    thread_id, record = row.thread_id, opened.record
    if not opened.is_whole:
        yield from complete(core, reader, thread_id, partial(missing_of_row, reader, opened))
    checkpoint = serde.loads_typed(reader.skeleton(record))
    _check_id(checkpoint, row.checkpoint_id)
    sends: list[tuple[str, Write]] = []
    if predates_sends(record, checkpoint):
        parent = (row.checkpoint_ns, record.parent_id or "")
        stored = (yield WritesOf(thread_id, [parent]))[parent]
        sends = [pair for pair in open_writes(reader, stored) if pair[1].channel == TASKS]

        written = [write for _, write in sends]
        yield from complete(core, reader, thread_id, partial(reader.missing_writes, written))
    return Loaded(row, reader, record, checkpoint, opened.writes, sends)


def load(
    core: Core,
    serde: SerializerProtocol,
    row: Row | None,
    reader: Reader | None = None,
    opened: Opened | None = None,
) -> Steps[Loaded | None]:
    """Fetch what a row refers to; the reader, if one is given, has what came along with it, and may
    have opened it. A chunk that is gone means that the checkpoint is gone or was replaced
    meanwhile; only one that is unchanged is corrupt."""
    while row is not None:
        with reading(row.thread_id, row.checkpoint_ns, row.checkpoint_id):
            try:
                if reader is None:
                    reader = core.reader(row.thread_id)
                    reader.add(list(row.chunks.items()))
                opened = opened or open_row(reader, row)
                return (yield from _load(core, serde, row, reader, opened))
            except MissingChunk as error:
                missing, reader, opened = error, None, None
        again = yield from head(core, row.thread_id, row.checkpoint_ns, row.checkpoint_id)
        if again is not None and again.record == row.record and again.writes == row.writes:
            raise corrupted(
                row.thread_id, row.checkpoint_ns, row.checkpoint_id, str(missing.args[0])
            ) from missing
        row = again
    return None


def head(
    core: Core, thread_id: str, checkpoint_ns: str, checkpoint_id: str | None
) -> Steps[Row | None]:
    """Read one checkpoint, or the latest one."""
    with reading(thread_id, checkpoint_ns, checkpoint_id):
        row: Row | None = yield Head(
            thread_id, checkpoint_ns, checkpoint_id, partial(core.lacking, thread_id)
        )
        return row


def read_record(
    core: Core,
    place: tuple[str, str, str],
    read: Callable[[Reader, bytes], Steps[T]],
    stored: bytes | None = None,
) -> Steps[T | None]:
    """Read something of a record, if it is there. As with `load`, a chunk that is gone is
    an error only while the record is as it was."""
    stored = (yield GetRecord(*place)) if stored is None else stored
    while stored is not None:
        with reading(*place):
            try:
                return (yield from read(core.reader(place[0]), stored))
            except MissingChunk as error:
                missing = error
        again = yield GetRecord(*place)
        if again == stored:
            raise corrupted(*place, str(missing.args[0])) from missing
        stored = again
    return None


def read_metadata(core: Core, serde: SerializerProtocol, row: Row) -> Steps[dict[str, Any] | None]:
    """A row's metadata; no round trip unless it is large. None if the row went meanwhile."""

    def read(reader: Reader, stored: bytes) -> Steps[dict[str, Any]]:
        record = reader.record(stored)
        yield from complete(core, reader, row.thread_id, lambda: reader.missing_metadata(record))
        metadata: dict[str, Any] = unpacked(serde, reader.metadata(record), "metadata")
        return metadata

    place = (row.thread_id, row.checkpoint_ns, row.checkpoint_id)
    return (yield from read_record(core, place, read, row.record))
