"""Requests that change what is stored. What each must guarantee is said with it.

None is changed once it is made. Those of each superstep are not frozen: making them would take five
times as long.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from holdfast.backends.requests.reads import StoredWrite

OPERATION_ID_BYTES = 8


def new_operation_id() -> bytes:
    """A random id for a mutation, under which the thread remembers that it was done."""
    return os.urandom(OPERATION_ID_BYTES)


TOMBSTONE_SECONDS = 86_400
"""For how long a store remembers that a thread was deleted."""


@dataclass(slots=True)
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


@dataclass(frozen=True, slots=True)
class Fence:
    """The lease under which a change is made.

    Attributes:
        token: What the store gave out with the lease.
        seconds: The lease lasts that much longer from each change on.
    """

    token: int
    seconds: float


@dataclass(slots=True)
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


@dataclass(slots=True)
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


@dataclass(slots=True)
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

    False, and nothing done, when an epoch is given and the thread's has moved; or, where no
    tombstone is left either, somebody holds the lease: so a sweep tidies up. With a tombstone the
    store remembers the deletion for `TOMBSTONE_SECONDS`, also of a thread that is not there; a
    repeated operation then changes nothing, also when the thread has begun anew since. Where a
    reply can be lost, neither does a repeat of one by which a checkpoint had come shortly before.
    Without, nothing is noted: a tombstone of an earlier deletion stays for its time, and so does a
    lease.
    """

    thread_id: str
    operation: bytes
    epoch: int | None = None
    leaves_tombstone: bool = True

    @property
    def is_tidying(self) -> bool:
        """Whether a lease hinders it."""
        return self.epoch is not None and not self.leaves_tombstone


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
class Discard:
    """Remove chunks → `bool`; False, and nothing done, when the epoch has moved."""

    thread_id: str
    ids: Sequence[bytes]
    epoch: int
