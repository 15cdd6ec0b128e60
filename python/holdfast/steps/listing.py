"""Read a history page by page, newest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.base import SerializerProtocol

from holdfast._core import Core, CoreError, Reader
from holdfast.backends.base import Chunks, Cursor, Page, Row
from holdfast.drive import Steps
from holdfast.errors import CheckpointCorrupted, FormatTooNew, reading
from holdfast.steps.load import (
    Loaded,
    Opened,
    load,
    missing_of_row,
    open_row,
    read_metadata,
)
from holdfast.steps.place import named_thread

_FIRST_PAGE = 16
_LARGEST_PAGE = 128
_UNREADABLE = (CheckpointCorrupted, FormatTooNew)


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
        has_thread = "thread_id" in configurable
        page = _FIRST_PAGE if limit is None or filter else min(max(limit, 1), _LARGEST_PAGE)
        return cls(
            thread_id=named_thread(configurable["thread_id"]) if has_thread else None,
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
        listing.cursor = _cursor_at(rows[-1])
    listing.page = min(listing.page * 4, _LARGEST_PAGE)
    page: list[Loaded] = []
    matching = yield from _matching(core, serde, rows, listing.filter)
    prefetched = yield from _prefetch(core, matching)
    for row, (reader, opened) in zip(matching, prefetched, strict=True):
        try:
            loaded = yield from load(core, serde, row, reader, opened)
        except _UNREADABLE:
            if not page:
                raise
            # What is in front of it is given first; the next page begins with it.
            listing.cursor = _cursor_at(page[-1].row)
            listing.is_done = False
            break
        if loaded is not None:
            page.append(loaded)
            if listing.limit is not None and len(page) == listing.limit:
                listing.is_done = True
                break
    if listing.limit is not None:
        listing.limit -= len(page)
    return page


def _cursor_at(row: Row) -> Cursor:
    return Cursor(row.checkpoint_id, row.thread_id, row.checkpoint_ns)


def _matching(
    core: Core, serde: SerializerProtocol, rows: Sequence[Row], wanted: Mapping[str, Any]
) -> Steps[list[Row]]:
    """The rows whose metadata holds what is wanted, or cannot be read: loading them says why."""
    if not wanted:
        return list(rows)
    matching = []
    for row in rows:
        try:
            metadata = yield from read_metadata(core, serde, row)
        except _UNREADABLE:
            matching.append(row)
            continue
        if metadata is not None and all(
            metadata.get(key) == value for key, value in wanted.items()
        ):
            matching.append(row)
    return matching


def _prefetch(core: Core, rows: Sequence[Row]) -> Steps[list[tuple[Reader, Opened | None]]]:
    """Open a page, and fetch what it refers to: one round trip for each thread on it. What is
    damaged is left out: loading the row that needs it says so."""
    readers = {thread_id: core.reader(thread_id) for thread_id in {row.thread_id for row in rows}}
    unread: dict[str, set[bytes]] = {thread_id: set() for thread_id in readers}
    for row in rows:
        _add_whole(readers[row.thread_id], row.chunks)
    opened = [_opened(readers[row.thread_id], row, unread[row.thread_id]) for row in rows]
    for thread_id, ids in unread.items():
        if ids:
            chunks = yield Chunks(thread_id, list(ids), partial(core.lacking, thread_id))
            _add_whole(readers[thread_id], chunks)
    return [(readers[row.thread_id], one) for row, one in zip(rows, opened, strict=True)]


def _add_whole(reader: Reader, chunks: Mapping[bytes, bytes]) -> None:
    """Add chunks, without those that are damaged."""
    if not chunks:
        return
    try:
        reader.add(list(chunks.items()))
    except CoreError:
        for chunk in chunks.items():
            with suppress(CoreError):
                reader.add([chunk])


def _opened(reader: Reader, row: Row, unread: set[bytes]) -> Opened | None:
    """A row as it was opened, and into `unread` what it refers to and the reader lacks; None where
    it is damaged."""
    try:
        opened = open_row(reader, row)
        ids = missing_of_row(reader, opened)
    except CoreError:
        return None
    opened.is_whole = not ids
    unread.update(ids)
    return opened
