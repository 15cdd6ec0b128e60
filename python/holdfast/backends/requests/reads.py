"""Requests that read what is stored, and their replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Lacking: TypeAlias = Callable[[Sequence[bytes]], list[bytes]]
"""Given chunk ids, those that the caller does not have."""


@dataclass(slots=True)
class StoredWrite:
    """A pending write as it is stored, under its task and index."""

    task_id: str
    idx: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Row:
    """A checkpoint as it is stored, with its pending writes."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    record: bytes
    writes: Sequence[StoredWrite] = ()
    chunks: dict[bytes, bytes] = field(default_factory=dict)
    """Chunks that came along in the same round trip."""


@dataclass(frozen=True, slots=True)
class Head:
    """Read one checkpoint, or the one with the greatest id → `Row | None`.

    What the record and the writes refer to comes along, as far as the store can follow
    references in one round trip.
    """

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str | None
    lacking: Lacking


@dataclass(frozen=True, slots=True)
class GetRecord:
    """Read the bytes of one record → `bytes | None`."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str


@dataclass(frozen=True, slots=True)
class Chunks:
    """Read chunks → `dict` of those that exist, and of what they refer to if that is free.

    Without `lacking`, what they refer to is not wanted.
    """

    thread_id: str
    ids: Sequence[bytes]
    lacking: Lacking | None


@dataclass(frozen=True, slots=True)
class WritesOf:
    """Read the pending writes of checkpoints → `dict[(ns, id), Sequence[StoredWrite]]`."""

    thread_id: str
    places: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page of history ended."""

    checkpoint_id: str
    thread_id: str
    checkpoint_ns: str


@dataclass(frozen=True, slots=True)
class Page:
    """Read checkpoints with their writes, greatest id first, after `cursor` → `list[Row]`."""

    thread_id: str | None
    checkpoint_ns: str | None
    checkpoint_id: str | None
    before: str | None
    cursor: Cursor | None
    limit: int
    filter: Mapping[str, Any] = field(default_factory=dict)
    """What the caller looks for in the metadata. A store that can may leave out rows that do
    not have it; the caller looks at those that come."""


@dataclass(frozen=True, slots=True)
class Ancestors:
    """Read a checkpoint (None: the head) and its parents, at most `limit` → `list[Row]`."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str | None
    limit: int


@dataclass(frozen=True, slots=True)
class RunThreads:
    """Threads that these runs touched → `list[str]`; a hint, to be verified on use."""

    run_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Census:
    """All records of a thread, without writes, and the places of writes that have no record
    → `(epoch, list[Row], list[(ns, id)])`."""

    thread_id: str


@dataclass(frozen=True, slots=True)
class Mark:
    """What records and writes of a thread refer to → `(epoch, set[(level, id)])`."""

    thread_id: str


@dataclass(frozen=True, slots=True)
class ChunkIds:
    """Ids, levels and sizes (bytes as stored) of about `limit` chunks, from where `cursor` says
    → `(list[(id, level, size)], cursor)`; the cursor is None at the end.

    Every chunk that is there all the time comes at least once, perhaps more than once.
    """

    thread_id: str
    cursor: bytes | None
    limit: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that `check` looked at.

    Attributes:
        what: Its name: "persistence", "eviction", "round trip" and so on.
        is_fine: None where it could not be found out.
        value: What was found.
        remedy: What to do; empty where there is nothing to do.
    """

    what: str
    is_fine: bool | None
    value: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """Look at how the store keeps what it is given → `list[Finding]`."""
