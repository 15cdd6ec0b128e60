"""Remove the chunks of a thread that no record and no write reaches.

In batches, parents before children, each batch only while no other commit came between.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from holdfast._core import Core, children, references
from holdfast.backends.base import ChunkIds, Chunks, Discard, Mark
from holdfast.drive import Steps
from holdfast.errors import reading

BATCH = 1000
_ID_BYTES = 16
# So often other commits may come between before the rest is left to the next sweep.
_LOST_RACES = 20


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stored chunk: its level, and its size in bytes."""

    level: int
    size: int


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection did.

    Attributes:
        chunks: How many were removed.
        bytes: That they had.
        living: Chunks that are left.
    """

    chunks: int
    bytes: int
    living: int


def collect_garbage(core: Core, thread_id: str) -> Steps[Collected]:
    """Remove the chunks of a thread that nothing refers to."""
    alive: set[bytes] = set()
    epoch = yield from _mark(core, thread_id, alive)
    if epoch is None:
        return Collected(0, 0, 0)
    chunks = yield from stored_chunks(thread_id)
    sizes = {
        id: chunk.size for id, chunk in chunks.items() if id not in alive and len(id) == _ID_BYTES
    }
    # Parents first: what a stored page lists is stored at every moment.
    garbage = sorted(sizes, key=lambda id: -chunks[id].level)
    removed = size = lost = 0
    while garbage and epoch is not None and lost < _LOST_RACES:
        batch = garbage[:BATCH]
        if (yield Discard(thread_id, batch, epoch)):
            core.discard(thread_id, batch)
            removed += len(batch)
            size += sum(sizes[id] for id in batch)
            del garbage[:BATCH]
        else:
            lost += 1
            epoch = yield from _mark(core, thread_id, alive)
            garbage = [id for id in garbage if id not in alive]
    return Collected(removed, size, len(chunks) - len(sizes))


def garbage_beside(thread_id: str, stored: Iterable[bytes]) -> Steps[int]:
    """Bytes of the chunks that would be garbage if these records and writes were all there are."""
    with reading(thread_id, "*", "*"):
        front = {reference for data in stored for reference in references(data)[1]}
    alive = yield from _reached(thread_id, front)
    if alive is None:
        return 0
    chunks = yield from stored_chunks(thread_id)
    return sum(chunk.size for id, chunk in chunks.items() if id not in alive)


def stored_chunks(thread_id: str) -> Steps[dict[bytes, Chunk]]:
    """All chunks of a thread."""
    chunks: dict[bytes, Chunk] = {}
    cursor = None
    while True:
        with reading(thread_id, "*", "*"):
            page, cursor = yield ChunkIds(thread_id, cursor, BATCH)
        chunks.update((id, Chunk(level, size)) for id, level, size in page)
        if cursor is None:
            return chunks


def _mark(core: Core, thread_id: str, alive: set[bytes]) -> Steps[int | None]:
    """Add to `alive` all that the thread's records and writes reach; the epoch of that.

    None where a living page is missing, also when looked for again: then nothing is
    removed, so that nothing that a repair could use is lost.
    """
    last = None
    for _ in range(_LOST_RACES):
        with reading(thread_id, "*", "*"):
            epoch, front = yield Mark(thread_id)
        reached = yield from _reached(thread_id, front)
        if reached is not None:
            alive |= reached
            return int(epoch)
        if epoch == last:
            break
        last = epoch
    return None


def _reached(thread_id: str, front: set[tuple[int, bytes]]) -> Steps[set[bytes] | None]:
    """All chunks that are reached from these; None where a page is missing."""
    reached: set[bytes] = set()
    while front:
        fresh = {(level, id) for level, id in front if id not in reached}
        reached.update(id for _, id in fresh)
        pages = yield from read_pages(thread_id, [id for level, id in fresh if level > 0])
        if pages is None:
            return None
        with reading(thread_id, "*", "*"):
            front = {child for id, page in pages.items() for child in children(id, page)}
    return reached


def read_pages(thread_id: str, ids: list[bytes]) -> Steps[dict[bytes, bytes] | None]:
    """The bytes of pages; None where one is missing."""
    pages: dict[bytes, bytes] = {}
    for start in range(0, len(ids), BATCH):
        batch = ids[start : start + BATCH]
        with reading(thread_id, "*", "*"):
            chunks = yield Chunks(thread_id, batch, None)
        if len(chunks) < len(batch):
            return None
        pages |= chunks
    return pages
