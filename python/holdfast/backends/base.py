"""What a backend is, and the requests that it answers, gathered from `requests/`."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from holdfast._core import MANIFEST, CoreError, references, referred
from holdfast.backends.requests.changes import (
    OPERATION_ID_BYTES,
    TOMBSTONE_SECONDS,
    Commit,
    Copy,
    Discard,
    Fence,
    Forget,
    Missing,
    Predecessor,
    Remove,
    Summary,
    Write,
    new_operation_id,
)
from holdfast.backends.requests.reads import (
    Ancestors,
    Census,
    Check,
    ChunkIds,
    Chunks,
    Cursor,
    Finding,
    GetRecord,
    Head,
    Lacking,
    Mark,
    Page,
    Row,
    RunThreads,
    StoredWrite,
    WritesOf,
)
from holdfast.backends.requests.threads import (
    Expire,
    Lease,
    Release,
    ThreadRow,
    Threads,
    Visit,
    Visited,
    Weigh,
)

__all__ = [
    "OPERATION_ID_BYTES",
    "TOMBSTONE_SECONDS",
    "Ancestors",
    "Backend",
    "Census",
    "Check",
    "ChunkIds",
    "Chunks",
    "Commit",
    "Copy",
    "Cursor",
    "Discard",
    "Expire",
    "Fence",
    "Finding",
    "Forget",
    "GetRecord",
    "Head",
    "Lacking",
    "Lease",
    "Mark",
    "Missing",
    "Page",
    "Predecessor",
    "Release",
    "Remove",
    "Request",
    "Row",
    "RunThreads",
    "StoredWrite",
    "Summary",
    "ThreadRow",
    "Threads",
    "Visit",
    "Visited",
    "Weigh",
    "Write",
    "WritesOf",
    "follow",
    "manifest_ids",
    "new_operation_id",
]

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
    """Seconds since 1970: by it sweeps and listings tell what is idle, and stores without a clock
    of their own what has expired."""

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

    def before_fork(self) -> None:  # noqa: B027 - most have nothing to do
        """In a process that is about to be forked: close what a child must not have, and keep the
        other threads out until `after_fork_in_parent`."""

    def after_fork_in_parent(self) -> None:  # noqa: B027
        """In a process that was forked: go on."""

    @abstractmethod
    def after_fork(self) -> None:
        """In a forked child: drop what the parent opened, unused and unclosed."""


def manifest_ids(record: bytes) -> list[bytes]:
    """The chunks that a record refers to for what is not a value; none where it is damaged, which
    who reads it finds."""
    try:
        named = references(record)[1]
    except CoreError:
        return []
    return [id for level, id in named if level >= MANIFEST]


def follow(
    stored: Iterable[bytes],
    lacking: Lacking,
    fetch: Callable[[Sequence[bytes]], dict[bytes, bytes]],
) -> dict[bytes, bytes]:
    """Everything that stored objects refer to, directly or not, and the caller lacks.

    For stores that can look up chunks without a round trip each.
    """
    found: dict[bytes, bytes] = {}
    known: set[bytes] = set()
    ids = referred(list(stored))
    while ids:
        known.update(ids)
        fetched = fetch(lacking(ids))
        found |= fetched
        ids = [id for id in referred(list(fetched.values())) if id not in known]
    return found
