"""Remove the chunks of a thread that no record and no write reaches.

In batches, parents before children, each batch only while no other commit came between.
"""

from __future__ import annotations

from holdfast._core import Core, references
from holdfast.backends.base import ChunkIds, Chunks, Discard, Mark
from holdfast.drive import Steps
from holdfast.errors import reading

_BATCH = 1000
# So often other commits may come between before the rest is left to the next sweep.
_LOST_RACES = 20


def sweep_thread(core: Core, thread_id: str) -> Steps[int]:
    """Remove the chunks of a thread that nothing refers to; how many they were."""
    alive: set[bytes] = set()
    epoch = yield from _mark(core, thread_id, alive)
    levels: dict[bytes, int] = {}
    cursor = None
    while epoch is not None:
        with reading(thread_id, "*", "*"):
            page, cursor = yield ChunkIds(thread_id, cursor, _BATCH)
        levels.update((id, level) for id, level, _ in page if id not in alive)
        if cursor is None:
            break
    # Parents first: what a stored page lists is stored at every moment.
    garbage = sorted(levels, key=lambda id: -levels[id])
    removed = lost = 0
    while garbage and epoch is not None and lost < _LOST_RACES:
        batch = garbage[:_BATCH]
        if (yield Discard(thread_id, batch, epoch)):
            core.discard(thread_id, batch)
            removed += len(batch)
            del garbage[:_BATCH]
        else:
            lost += 1
            epoch = yield from _mark(core, thread_id, alive)
            garbage = [id for id in garbage if id not in alive]
    return removed


def _mark(core: Core, thread_id: str, alive: set[bytes]) -> Steps[int | None]:
    """Add to `alive` all that the thread's records and writes reach; the epoch of that.

    None where a living page is missing, also when looked for again: then nothing is
    removed, so that nothing that a repair could use is lost.
    """
    last = None
    for _ in range(_LOST_RACES):
        with reading(thread_id, "*", "*"):
            epoch, front = yield Mark(thread_id)
        reached: set[bytes] = set()
        is_whole = True
        while front and is_whole:
            fresh = {(level, id) for level, id in front if id not in reached}
            reached.update(id for _, id in fresh)
            nodes = [id for level, id in fresh if level > 0]
            front = set()
            for start in range(0, len(nodes), _BATCH):
                batch = nodes[start : start + _BATCH]
                with reading(thread_id, "*", "*"):
                    chunks = yield Chunks(thread_id, batch, None)
                    is_whole = is_whole and len(chunks) == len(batch)
                    for data in chunks.values():
                        front.update(references(data)[1])
        if is_whole:
            alive |= reached
            return int(epoch)
        if epoch == last:
            break
        last = epoch
    return None
