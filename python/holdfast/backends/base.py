"""The requests that a backend answers, a round trip each, and their replies.

A backend knows ids, bytes and references between stored objects; it knows neither
msgpack nor any type of LangGraph. What it must guarantee is said at each request.
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from holdfast._core import references

Lacking: TypeAlias = Callable[[Sequence[bytes]], list[bytes]]
"""Given chunk ids, those that the caller does not have."""


OPERATION_ID_BYTES = 8


def new_operation_id() -> bytes:
    """A random id for a mutation, under which the thread remembers that it was done."""
    return secrets.token_bytes(OPERATION_ID_BYTES)


@dataclass(frozen=True, slots=True)
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
class Summary:
    """What a checkpoint shows to people and queries, for stores with columns for it. Nothing
    that is read here comes from it.

    Attributes:
        state: JSON of the channels, as far as JSON can say it.
        next_node: The nodes that are due to run; None where there are none.
        metadata: JSON of the metadata; None where JSON would not say the same.
    """

    state: str | None = None
    next_node: str | None = None
    metadata: str | None = None


TOMBSTONE_SECONDS = 86_400
"""For how long a store remembers that a thread was deleted."""


@dataclass(frozen=True, slots=True)
class Fence:
    """The lease under which a change is made.

    Attributes:
        token: What the store gave out with the lease.
        seconds: The lease lasts that much longer from each change on.
    """

    token: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Predecessor:
    """A checkpoint on which another builds.

    Attributes:
        made: When it was made, in milliseconds since 1970 and rounded down; 0 where its id does
            not say it.
        is_parent: Whether it is the parent, which is stored before its children; not so the
            checkpoint of another namespace from which a subgraph was called.
        is_needed: Whether it is a parent that must be there: channels are rebuilt from it.
    """

    checkpoint_ns: str
    checkpoint_id: str
    made: int
    is_parent: bool
    is_needed: bool = False

    @property
    def rank(self) -> int:
        """2 for a parent that is needed, 1 for another parent, else 0."""
        return self.is_parent + self.is_needed


@dataclass(frozen=True, slots=True)
class Commit:
    """Store a checkpoint → `Missing`, empty when it is done.

    In one atomic step: the chunks, the proof that every id of the frontier is there,
    the record, the epoch, the thread's expiry. Missing chunks are named and nothing is
    stored. A repeated operation changes nothing, and is not refused.

    A thread that has expired is as if it were not there: what is left of it goes, and the
    commit begins the thread anew.

    Raises:
        ThreadDeleted: The thread was deleted within `TOMBSTONE_SECONDS`, and one of
            `follows` is not stored and either was made before that, or is the parent while
            the thread has not begun anew. Nothing is stored.
        CheckpointRemoved: One of `follows` that is needed is not stored. Nothing is stored.
        LeaseLost: The fence's token is not the thread's present one, or there is no fence
            and another holds the lease. Nothing is stored. A change without a fence after
            the lease has run out ends it.
    """

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_id: str | None
    run_id: str | None
    record: bytes
    chunks: Sequence[tuple[bytes, bytes]]
    frontier: Sequence[bytes]
    operation: bytes
    summary: Summary | None = None
    follows: Sequence[Predecessor] = ()
    fence: Fence | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """Store pending writes → `Missing`, as `Commit`.

    A write of idx ≥ 0 that exists stays as it is; one of idx < 0 is replaced.

    Attributes:
        made: When its checkpoint was made, in milliseconds since 1970 and rounded up: the first
            writes of a run may come before its first checkpoint, and nothing shows them without;
            0 where the checkpoint's id does not say it.

    Raises:
        ThreadDeleted: The thread was deleted within `TOMBSTONE_SECONDS`, and the checkpoint
            was made before that and is not stored.
        LeaseLost: As with `Commit`.
    """

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    writes: Sequence[StoredWrite]
    chunks: Sequence[tuple[bytes, bytes]]
    frontier: Sequence[bytes]
    operation: bytes
    made: int = 0
    fence: Fence | None = None


Missing: TypeAlias = list[bytes]


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove all of a thread, also of one that has expired → `bool`.

    False, and nothing done, when an epoch is given and the thread's has moved. With a
    tombstone the store remembers the deletion for `TOMBSTONE_SECONDS`, also of a thread that is
    not there; a repeated operation then changes nothing, also when the thread has begun anew
    since. Where a reply can be lost, neither does a repeat of one by which a checkpoint had come
    shortly before. Without, nothing is noted: a tombstone of an earlier deletion stays for its
    time, and so does a lease.
    """

    thread_id: str
    operation: bytes
    epoch: int | None = None
    leaves_tombstone: bool = True


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy all of a thread to another, in one atomic step → `None`.

    The target's expiry is that of a thread that is written now; a tombstone of the target does
    not hinder it.

    Raises:
        LeaseLost: As with `Commit`, on the target.
    """

    source_thread_id: str
    target_thread_id: str
    operation: bytes
    fence: Fence | None = None


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
class Remove:
    """Remove checkpoints with their writes, and replace records → `bool`.

    False, and nothing done, when the epoch has moved. A record is replaced by one
    without a parent, and only while it is as it was read: namespace, id, old bytes, new
    bytes. A thread of which nothing remains is removed.
    """

    thread_id: str
    epoch: int | None
    checkpoints: Sequence[tuple[str, str]]
    replaced: Sequence[tuple[str, str, bytes, bytes]]
    operation: bytes


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
class Discard:
    """Remove chunks → `bool`; False, and nothing done, when the epoch has moved."""

    thread_id: str
    ids: Sequence[bytes]
    epoch: int


@dataclass(frozen=True, slots=True)
class Expire:
    """Have a thread expire `ttl` seconds from now, or with None never, whatever ttl those
    have who write to it later → `bool`; False where there is no such thread."""

    thread_id: str
    ttl: float | None


@dataclass(frozen=True, slots=True)
class Lease:
    """Take the lease of a thread, which need not be there, or with a token prolong it
    → `(token, seconds)`: the token, None where another has it, and how long it lasts.

    Each who takes a lease gets a greater token than all before. To prolong a lease that has
    run out is possible as long as nobody else has taken it or written meanwhile; otherwise the
    reply is (None, 0).
    """

    thread_id: str
    seconds: float
    token: int | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """Give a lease back → `None`. Nothing is done with a token that is no more the present."""

    thread_id: str
    token: int


@dataclass(frozen=True, slots=True)
class ThreadRow:
    """A thread as a listing shows it.

    Attributes:
        epoch: At that moment.
        created: When its first write came, in milliseconds since 1970.
        updated: When its last write came.
        expires: When it expires; None for never.
        namespaces: Its namespaces, with the number of checkpoints in each.
        head: The root namespace's latest checkpoint with its writes; without a root that of the
            first namespace.
    """

    thread_id: str
    epoch: int
    created: int
    updated: int
    expires: int | None
    namespaces: Mapping[str, int]
    head: Row


@dataclass(frozen=True, slots=True)
class Threads:
    """Read threads that have checkpoints, last written first, then greatest id first
    → `list[ThreadRow]`; fewer than `limit` only at the end.

    Attributes:
        after: Time of the last write (ms) and id of the thread after which to go on.
        until: Only those that were last written at or before this (ms).
        prefix: What their ids begin with.
    """

    limit: int
    after: tuple[int, str] | None = None
    until: int | None = None
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Visited:
    """A thread that a sweep comes by.

    Attributes:
        updated: When its last write came, in milliseconds since 1970; of a deleted one, when it
            was deleted; now, if there is but a lease.
        is_expired: It is invisible, and to be removed.
        is_deleted: A tombstone or a lease is all there is.
        is_leased: Somebody holds its lease.
    """

    thread_id: str
    epoch: int
    updated: int
    is_expired: bool
    is_deleted: bool
    is_leased: bool


@dataclass(frozen=True, slots=True)
class Visit:
    """All threads in an order of the store's own, about `limit` from where `cursor` says
    → `(list[Visited], cursor)`; the cursor is None at the end.

    Every thread that is there all the time comes at least once: also those without checkpoints,
    expired ones that the store does not remove by itself, and tombstones.
    """

    cursor: bytes | None
    limit: int


@dataclass(frozen=True, slots=True)
class Weigh:
    """Count a thread, also an expired one → `(checkpoints, bytes)`: its checkpoints, and the
    bytes of its records, pending writes and chunks as they are stored, without names."""

    thread_id: str


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


Request: TypeAlias = (
    Head
    | GetRecord
    | Chunks
    | WritesOf
    | Page
    | Ancestors
    | Commit
    | Write
    | Forget
    | Copy
    | RunThreads
    | Census
    | Remove
    | Mark
    | ChunkIds
    | Discard
    | Expire
    | Lease
    | Release
    | Threads
    | Visit
    | Weigh
    | Check
)


class Backend(ABC):
    """A store. One object serves threads, event loops and processes after a fork.

    With the option `ttl`, each `Commit`, `Write` and `Copy` has the thread expire so many seconds
    after it; without, none expires that was written last by it. With `refresh_on_read` a `Head`, an
    `Ancestors` and a `Page` of one thread do so too, in the same round trip, where the thread
    expires at all. An expired thread is at once as if it were not there, for every request but
    `Forget`, `Visit` and `Weigh`.
    """

    shows_state = False
    """Whether a commit's summary is stored."""

    clock: Callable[[], float] = staticmethod(time.time)
    """Seconds since 1970, for stores that have no clock of their own."""

    @abstractmethod
    def setup(self) -> None:
        """Create what is missing. Idempotent, and implied by first use."""

    @abstractmethod
    async def asetup(self) -> None:
        """As `setup`."""

    @abstractmethod
    def execute(self, request: Request) -> Any:
        """Answer a request, blocking."""

    @abstractmethod
    async def aexecute(self, request: Request) -> Any:
        """Answer a request without blocking the event loop."""

    def stats(self) -> Mapping[str, int]:
        """Figures of its own: `retries`, and those of its pool, if it has one."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """Release what was opened. Idempotent."""

    @abstractmethod
    async def aclose(self) -> None:
        """As `close`."""

    @abstractmethod
    def abandon(self) -> None:
        """As `close`, when nobody uses the backend any more; never waits for a thread."""

    @abstractmethod
    def after_fork(self) -> None:
        """In a forked child: drop what the parent opened, unused and unclosed."""


def follow(
    stored: Iterable[bytes],
    lacking: Lacking,
    fetch: Callable[[Sequence[bytes]], dict[bytes, bytes]],
) -> dict[bytes, bytes]:
    """Everything that stored objects refer to, directly or not, and the caller lacks.

    For stores that can look up chunks without a round trip each.
    """
    found: dict[bytes, bytes] = {}
    front = list(stored)
    known: set[bytes] = set()
    while front:
        ids = {id for data in front for _, id in references(data)[1]} - known
        known |= ids
        fetched = fetch(lacking(list(ids)))
        found |= fetched
        front = list(fetched.values())
    return found
