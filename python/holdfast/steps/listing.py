"""Read a history page by page, newest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.base import SerializerProtocol

from holdfast._core import Core, Reader
from holdfast.backends.base import Chunks, Cursor, Page, Row
from holdfast.drive import Steps
from holdfast.errors import reading
from holdfast.steps.load import Loaded, load, read_metadata

_FIRST_PAGE = 16
_LARGEST_PAGE = 128


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
    with reading(listing.thread_id or "*", listing.checkpoint_ns or "*", listing.checkpoint_id):
        rows: list[Row] = yield Page(
            listing.thread_id,
            listing.checkpoint_ns,
            listing.checkpoint_id,
            listing.before,
            listing.cursor,
            listing.page,
            listing.filter,
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
        if metadata is not None and all(
            metadata.get(key) == value for key, value in wanted.items()
        ):
            matching.append(row)
    return matching


def _prefetch(core: Core, rows: Sequence[Row]) -> Steps[dict[str, Reader]]:
    """Fetch what a page refers to: one round trip for each thread on it."""
    readers: dict[str, Reader] = {}
    for thread_id in {row.thread_id for row in rows}:
        readers[thread_id] = reader = core.reader(thread_id)
        of_thread = [row for row in rows if row.thread_id == thread_id]
        for row in of_thread:
            with reading(row.thread_id, row.checkpoint_ns, row.checkpoint_id):
                reader.add(list(row.chunks.items()))
        ids = {id for row in of_thread for id in _unread(reader, row)}
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
