"""Remove from the whole store what is no longer wanted, thread by thread, in small batches."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from langgraph.checkpoint.serde.base import SerializerProtocol

from holdfast._core import Core
from holdfast.backends.base import (
    TOMBSTONE_SECONDS,
    Census,
    Forget,
    Row,
    Visit,
    Visited,
    Weigh,
    WritesOf,
    new_operation_id,
)
from holdfast.drive import Steps
from holdfast.errors import CheckpointCorrupted, FormatTooNew, corrupted, reading
from holdfast.steps.garbage import collect_garbage, garbage_beside
from holdfast.steps.head import read_standing
from holdfast.steps.keep import keep_all, keep_last
from holdfast.steps.retention import ABANDONED, ATTEMPTS, Thinning, carry_out, plan_thinning
from holdfast.threads import Swept

_logger = logging.getLogger(__name__)

_PAGE = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sweep removes besides expired threads and garbage.

    Attributes:
        idle_for: Threads that were not written for so many seconds.
        keep_last: All but so many checkpoints of each namespace.
        keep_interrupted: Whether idle threads stay in which a run would go on.
        dry_run: Only counts.
        now: Seconds since 1970.
        progress: Is told after each thread what was removed so far.
    """

    idle_for: float | None
    keep_last: int | None
    keep_interrupted: bool
    dry_run: bool
    now: float
    progress: Callable[[Swept], None] | None


def sweep(core: Core, serde: SerializerProtocol, plan: Plan) -> Steps[Swept]:
    """Visit all threads."""
    swept = Swept()
    cursor = None
    while True:
        visited, cursor = yield Visit(cursor, _PAGE)
        for one in visited:
            try:
                swept += yield from _sweep_thread(core, serde, plan, one)
            except (CheckpointCorrupted, FormatTooNew) as error:
                # The others are not to wait until somebody has mended it.
                _logger.warning("sweep: left as it is: %s", error)
                swept += Swept(unreadable=1)
            if plan.progress is not None:
                plan.progress(swept)
        if cursor is None:
            return swept


def _sweep_thread(core: Core, serde: SerializerProtocol, plan: Plan, one: Visited) -> Steps[Swept]:
    if one.damage is not None:
        raise corrupted(one.thread_id, "*", "*", one.damage)
    idle = plan.now - one.updated / 1000
    if one.is_leased:
        return Swept()  # somebody works with it
    if one.is_deleted:
        if idle >= TOMBSTONE_SECONDS and not plan.dry_run:
            yield _forget(one)
        return Swept()
    if one.is_expired:
        return (yield from _remove(core, plan, one))
    if plan.idle_for is not None and idle >= plan.idle_for:
        head = yield from _head(one.thread_id)
        if not (plan.keep_interrupted and head and (yield from _waits(core, serde, head))):
            return (yield from _remove(core, plan, one))
    swept = yield from _thin(core, serde, plan, one.thread_id)
    if swept is None:
        return (yield from _remove(core, plan, one)) if idle >= ABANDONED else Swept()
    return swept


def _forget(one: Visited) -> Forget:
    return Forget(one.thread_id, new_operation_id(), one.epoch, leaves_tombstone=False)


def _remove(core: Core, plan: Plan, one: Visited) -> Steps[Swept]:
    """Remove a thread, unless it was written since it was visited."""
    with reading(one.thread_id, "*", "*"):
        checkpoints, size = yield Weigh(one.thread_id)
    if not plan.dry_run:
        if not (yield _forget(one)):
            return Swept()
        core.forget(one.thread_id)
    return Swept(1, checkpoints, size)


def _head(thread_id: str) -> Steps[Row | None]:
    """The latest checkpoint of the root, or of the first namespace, with its writes."""
    with reading(thread_id, "*", "*"):
        _, rows, _ = yield Census(thread_id)
        if not rows:
            return None
        ns = min(row.checkpoint_ns for row in rows)
        head: Row = max(
            (row for row in rows if row.checkpoint_ns == ns), key=lambda row: row.checkpoint_id
        )
        place = (ns, head.checkpoint_id)
        writes = yield WritesOf(thread_id, [place])
        return replace(head, writes=writes[place])


def _waits(core: Core, serde: SerializerProtocol, head: Row) -> Steps[bool]:
    """Whether a run would go on here; also where it is written right now."""
    with reading(head.thread_id, head.checkpoint_ns, head.checkpoint_id):
        standing = yield from read_standing(core, serde, head)
    return standing is None or standing.is_unfinished


def _thin(core: Core, serde: SerializerProtocol, plan: Plan, thread_id: str) -> Steps[Swept | None]:
    """Remove old checkpoints, writes whose checkpoint is gone, and garbage. None where the thread
    has no checkpoints."""
    choose = keep_all if plan.keep_last is None else keep_last(plan.keep_last)
    for attempt in range(ATTEMPTS):
        planned = yield from plan_thinning(core, serde, thread_id, choose, attempt, now=plan.now)
        if planned is None:
            return None
        swept = yield from _counted(core, planned)
        if plan.dry_run:
            stored = yield from _stored_beside(planned)
            garbage = yield from garbage_beside(thread_id, stored)
            return swept + Swept(bytes=garbage)
        if (yield from carry_out(core, planned)):
            break
    else:
        return Swept()
    collected = yield from collect_garbage(core, thread_id)
    return swept + Swept(bytes=collected.bytes)


def _counted(core: Core, planned: Thinning) -> Steps[Swept]:
    """What goes with a thread's old checkpoints, but for garbage."""
    if not planned.removed:
        return Swept()
    items = planned.history.items
    size = sum(len(items[key].row.record) for key in planned.doomed)
    size += sum(len(old) - len(new) for old, new in planned.orphaned(core).values())
    writes = yield WritesOf(planned.thread_id, planned.removed)
    size += sum(len(write.data) for some in writes.values() for write in some)
    return Swept(checkpoints=len(planned.doomed), bytes=size)


def _stored_beside(planned: Thinning) -> Steps[list[bytes]]:
    """The records and writes that stay."""
    places = [*planned.kept, *planned.late]
    writes = yield WritesOf(planned.thread_id, places)
    stored = [planned.history.items[key].row.record for key in planned.kept]
    return stored + [write.data for some in writes.values() for write in some]
