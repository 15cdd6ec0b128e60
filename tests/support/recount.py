"""A store counted from scratch: by its records, writes and chunks themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import holdfast
from holdfast._core import references
from holdfast.backends import base


@dataclass(frozen=True)
class Counted:
    """What is stored."""

    checkpoints: int = 0
    writes: int = 0
    chunks: int = 0
    namespaces: int = 0
    bytes: int = 0
    """Of records, writes and chunks, as they are stored."""
    garbage: int = 0
    """Chunks that nothing refers to."""
    unshared: int = 0
    """Bytes if each record and each write had all that it reaches for itself."""

    def __add__(self, other: Counted) -> Counted:
        names = self.__dataclass_fields__
        return Counted(*(getattr(self, name) + getattr(other, name) for name in names))


def visited(saver: holdfast.Saver) -> list[str]:
    """The ids of all threads of which something is stored."""
    execute, cursor = saver._live.backend.execute, None
    found: dict[str, None] = {}
    while True:
        page, cursor = execute(base.Visit(cursor, 10))
        found.update((one.thread_id, None) for one in page if not one.is_deleted)
        if cursor is None:
            return [*found]


def recount(saver: holdfast.Saver, *threads: str) -> Counted:
    """These threads, or all.

    Raises:
        AssertionError: Something is referred to that is not there.
    """
    execute = saver._live.backend.execute
    counted = [_thread(execute, thread) for thread in threads or visited(saver)]
    return sum(counted, Counted())


def _thread(execute: Callable[[Any], Any], thread: str) -> Counted:
    _, rows, orphans = execute(base.Census(thread))
    places = [*((row.checkpoint_ns, row.checkpoint_id) for row in rows), *orphans]
    writes = execute(base.WritesOf(thread, places))
    written = [one.data for some in writes.values() for one in some]
    stored = [*(row.record for row in rows), *written]
    chunks: dict[bytes, bytes] = {}
    cursor = None
    while True:
        page, cursor = execute(base.ChunkIds(thread, cursor, 100))
        chunks |= execute(base.Chunks(thread, [id for id, _, _ in page], None))
        if cursor is None:
            break
    alive: set[bytes] = set()

    def whole(data: bytes) -> int:
        size = len(data)
        for _, id in references(data)[1]:
            assert id in chunks, f"thread {thread!r} lacks a chunk"
            alive.add(id)
            size += whole(chunks[id])
        return size

    unshared = sum(map(whole, stored))
    return Counted(
        checkpoints=len(rows),
        writes=len(written),
        chunks=len(chunks),
        namespaces=len({ns for ns, _ in places}),
        bytes=sum(map(len, stored)) + sum(map(len, chunks.values())),
        garbage=len(chunks.keys() - alive),
        unshared=unshared,
    )
