"""Requests on threads as such: how long they live, who may write, which there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.backends.requests.reads import Row


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
        head: The root namespace's latest checkpoint with its writes, and with the chunks that its
            record refers to for what is not a value; without a root that of the first namespace.
        damage: What is wrong, where not all of this can be told.
    """

    thread_id: str
    epoch: int
    created: int
    updated: int
    expires: int | None
    namespaces: Mapping[str, int]
    head: Row
    damage: str | None = None


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
        damage: What is wrong, where not all of this can be told.
    """

    thread_id: str
    epoch: int
    updated: int
    is_expired: bool
    is_deleted: bool
    is_leased: bool
    damage: str | None = None


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
    bytes of its records, pending writes and chunks as the store gives them, without names."""

    thread_id: str
