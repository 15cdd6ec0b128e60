"""List threads, last written first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from langgraph.checkpoint.serde.base import SerializerProtocol

from holdfast._core import Core, references
from holdfast.backends.base import Census, Expire, ThreadRow, Threads, Weigh, WritesOf
from holdfast.drive import Steps
from holdfast.errors import CheckpointCorrupted, FormatTooNew, corrupted, reading
from holdfast.steps.garbage import read_pages, stored_chunks
from holdfast.steps.head import Standing, read_standing
from holdfast.threads import Thread, to_datetime, to_milliseconds

_LARGEST_PAGE = 100


@dataclass(slots=True)
class ThreadListing:
    """What `threads` asks for, and how far it has come."""

    prefix: str
    unfinished: bool | None
    until: int | None
    after: tuple[int, str] | None
    limit: int | None
    sizes: bool
    is_done: bool = False

    @classmethod
    def of(
        cls,
        prefix: str | None,
        unfinished: bool | None,
        idle_for: float | None,
        before: Thread | datetime | None,
        limit: int | None,
        sizes: bool,
        now: float,
    ) -> ThreadListing:
        after = None
        if isinstance(before, Thread):
            after = to_milliseconds(before.updated_at), before.thread_id
        elif before is not None:
            after = to_milliseconds(before), ""
        return cls(
            prefix=prefix or "",
            unfinished=unfinished,
            until=None if idle_for is None else int((now - idle_for) * 1000),
            after=after,
            limit=limit,
            sizes=sizes,
            is_done=limit is not None and limit <= 0,
        )


def list_threads(
    core: Core, serde: SerializerProtocol, listing: ThreadListing
) -> Steps[list[Thread]]:
    """The next page: one round trip, and some more for each thread with sizes."""
    wanted = _LARGEST_PAGE
    if listing.limit is not None and listing.unfinished is None:
        wanted = min(listing.limit, wanted)
    rows: list[ThreadRow] = yield Threads(wanted, listing.after, listing.until, listing.prefix)
    listing.is_done = len(rows) < wanted
    page: list[Thread] = []
    for row in rows:
        listing.after = row.updated, row.thread_id
        thread = yield from _thread(core, serde, row, listing)
        if thread is None:
            continue
        page.append(thread)
        if len(page) == listing.limit:
            listing.is_done = True
            break
    if listing.limit is not None:
        listing.limit -= len(page)
    return page


def _thread(
    core: Core, serde: SerializerProtocol, row: ThreadRow, listing: ThreadListing
) -> Steps[Thread | None]:
    """A thread as it is listed; None if it is not wanted, or went meanwhile."""
    stored = unshared = error = None
    try:
        if row.damage is not None:
            raise corrupted(row.thread_id, "*", "*", row.damage)
        standing = yield from read_standing(core, serde, row.head)
    except (CheckpointCorrupted, FormatTooNew) as unreadable:
        # The others are listed all the same.
        standing, error = Standing(None, [], False), str(unreadable)
    if standing is None:
        return None
    if listing.unfinished is not None and (error or standing.is_unfinished != listing.unfinished):
        return None
    if listing.sizes:
        try:
            with reading(row.thread_id, "*", "*"):
                _, stored = yield Weigh(row.thread_id)
            unshared = None if error else (yield from _unshared_bytes(row.thread_id))
        except (CheckpointCorrupted, FormatTooNew) as unreadable:
            error = error or str(unreadable)
    return Thread(
        thread_id=row.thread_id,
        namespaces=sorted(row.namespaces),
        checkpoints=sum(row.namespaces.values()),
        created_at=to_datetime(row.created),
        updated_at=to_datetime(row.updated),
        expires_at=None if row.expires is None else to_datetime(row.expires),
        step=standing.step,
        next=standing.next,
        interrupted=standing.interrupted,
        bytes=stored,
        unshared_bytes=unshared,
        error=error,
    )


def _unshared_bytes(thread_id: str) -> Steps[int]:
    """Bytes of a thread if each record and write had all that it reaches for itself."""
    with reading(thread_id, "*", "*"):
        _, rows, orphans = yield Census(thread_id)
        places = [(row.checkpoint_ns, row.checkpoint_id) for row in rows] + orphans
        writes = yield WritesOf(thread_id, places)
        stored = [row.record for row in rows]
        stored += [write.data for some in writes.values() for write in some]
        chunks = yield from stored_chunks(thread_id)
        ids = [id for id, chunk in chunks.items() if chunk.level > 0]
        pages = (yield from read_pages(thread_id, ids)) or {}
        # Children first: a page's level is above those of all that it lists.
        weights = {id: chunk.size for id, chunk in chunks.items()}
        for id in sorted(pages, key=lambda id: chunks[id].level):
            weights[id] += _weight(pages[id], weights)
        return sum(len(data) + _weight(data, weights) for data in stored)


def _weight(stored: bytes, weights: dict[bytes, int]) -> int:
    # What went meanwhile weighs nothing.
    return sum(weights.get(id, 0) for _, id in references(stored)[1])


def expire(thread_id: str, ttl: float | None) -> Steps[bool]:
    """Have a thread expire, or persist with None: whether there is one."""
    found: bool = yield Expire(thread_id, ttl)
    return found
