"""Remove threads, runs and old checkpoints, and copy threads.

Removing is in two steps. First checkpoints go, with their writes; then `garbage` removes
the chunks that they leave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from langgraph.checkpoint.serde.base import SerializerProtocol

from holdfast._core import Core
from holdfast.backends.base import (
    TOMBSTONE_SECONDS,
    Census,
    Copy,
    Fence,
    Forget,
    Remove,
    RunThreads,
    new_operation_id,
)
from holdfast.drive import Steps
from holdfast.errors import CheckpointCorrupted, StoreTimeout, reading
from holdfast.ids import made
from holdfast.steps.garbage import collect_garbage
from holdfast.steps.history import History, Item, Key, read_history
from holdfast.steps.keep import CALL, Choice, keep_latest, keep_other_runs

# So often another may change a thread between a look at it and the removal, and so often that is
# a reason to look again where it need not be.
ATTEMPTS = 50
_CONDITIONAL_ATTEMPTS = 5
# Seconds: writes without a checkpoint are there before it, or, after that long, without it.
ABANDONED = TOMBSTONE_SECONDS
_PRUNE_STRATEGIES = ("keep_latest", "delete")
_NOTHING: Mapping[Key, Item] = {}


def delete_thread(core: Core, thread_id: str) -> Steps[None]:
    """Remove all of a thread, and remember that it was deleted: one round trip."""
    yield Forget(thread_id, new_operation_id())
    core.forget(thread_id)


def copy_thread(
    core: Core, source_thread_id: str, target_thread_id: str, *, fence: Fence | None = None
) -> Steps[None]:
    """Copy all of a thread, its whole history: one round trip."""
    yield Copy(source_thread_id, target_thread_id, new_operation_id(), fence)
    core.forget(target_thread_id)


def prune(
    core: Core, serde: SerializerProtocol, thread_ids: Sequence[str], strategy: str, now: float
) -> Steps[None]:
    """Remove whole threads, or all but the latest checkpoint of each namespace."""
    if isinstance(thread_ids, str):
        raise TypeError("thread_ids must be a sequence of thread ids, not a str")
    if strategy not in _PRUNE_STRATEGIES:
        raise ValueError(
            f"unknown prune strategy {strategy!r}, there are: {', '.join(_PRUNE_STRATEGIES)}"
        )
    for thread_id in map(str, thread_ids):
        if strategy == "delete":
            yield from delete_thread(core, thread_id)
        else:
            yield from _thin_and_collect(core, serde, thread_id, keep_latest, now)


def delete_for_runs(
    core: Core, serde: SerializerProtocol, run_ids: Sequence[str], now: float
) -> Steps[None]:
    """Remove the checkpoints of runs, in whatever thread and namespace they are."""
    if isinstance(run_ids, str):
        raise TypeError("run_ids must be a sequence of run ids, not a str")
    runs = set(map(str, run_ids))
    if not runs:
        return
    threads: list[str] = yield RunThreads(sorted(runs))
    for thread_id in threads:
        yield from _thin_and_collect(core, serde, thread_id, keep_other_runs(runs), now)


def _thin_and_collect(
    core: Core, serde: SerializerProtocol, thread_id: str, choose: Choice, now: float
) -> Steps[None]:
    done = yield from thin(core, serde, thread_id, choose, now=now)
    if done is not None and done.removed:
        yield from collect_garbage(core, thread_id)


@dataclass(frozen=True, slots=True)
class Thinning:
    """What is to be removed of a thread, as it was read.

    Attributes:
        epoch: At the time of reading.
        history: All checkpoints.
        kept: Those that stay.
        doomed: Those that go.
        orphans: Places of writes whose checkpoint is gone, which go as well.
        late: Places of writes whose checkpoint may be yet to come.
        is_conditional: Whether it goes only from the thread as it was read.
    """

    epoch: int
    history: History
    kept: set[Key]
    doomed: list[Key]
    orphans: list[Key]
    late: list[Key]
    is_conditional: bool

    @property
    def thread_id(self) -> str:
        return self.history.thread_id

    @property
    def removed(self) -> list[Key]:
        """All places that go."""
        return self.doomed + self.orphans

    def orphaned(self, core: Core) -> dict[Key, tuple[bytes, bytes]]:
        """Kept checkpoints whose parent does not stay: their records, with and without it."""
        found: dict[Key, tuple[bytes, bytes]] = {}
        for key in self.kept:
            item = self.history.items[key]
            parent = item.parent_key()
            if parent is not None and parent not in self.kept:
                found[key] = item.row.record, core.with_parent(item.row.record, None)
        return found


def plan_thinning(
    core: Core,
    serde: SerializerProtocol,
    thread_id: str,
    choose: Choice,
    attempt: int,
    known: Mapping[Key, Item] = _NOTHING,
    now: float | None = None,
) -> Steps[Thinning | None]:
    """What goes when only what `choose` keeps stays, and what that is rebuilt from. None where
    the thread has no checkpoints. Of checkpoints that are known only the bytes are looked at.

    Under constant writing no plan stays current. So that of a late attempt may be carried out all
    the same: what came since is not among what goes, and a record is replaced only if it is as it
    was read. Not so with delta channels, since what came may be rebuilt from what goes; nor with
    writes without a checkpoint, since that may have come.

    Args:
        attempt: How many plans were not carried out, because the thread had changed.
        now: Seconds since 1970: writes to a checkpoint that was made long before, and is not
            there, go too. None where only the latest are kept, after each put: those go whose
            checkpoint would go as well.
    """
    last = None
    while True:
        with reading(thread_id, "*", "*"):
            epoch, rows, orphans = yield Census(thread_id)
        if not rows:
            return None
        try:
            history = yield from read_history(core, serde, rows, known)
            with reading(thread_id, "*", "*"):
                kept = yield from choose(history)
        except CheckpointCorrupted:
            if epoch == last:
                raise
            last = epoch  # perhaps another removed it meanwhile: look again
            continue
        kept |= history.needed_for_delta(kept)
        is_conditional = attempt < _CONDITIONAL_ATTEMPTS or history.has_delta_channels
        doomed = [key for key in history.items if key not in kept]
        gone: list[Key] = []
        if is_conditional:
            heads = history.heads()
            before = 0.0 if now is None else (now - ABANDONED) * 1000
            # A checkpoint that is yet to come mostly has a greater id than the head, but where two
            # runs share a thread.
            gone = [
                key
                for key in orphans
                if key[0] in heads
                and key < heads[key[0]]
                and (_would_go(key, doomed) if now is None else made(key[1]) < before)
            ]
        return Thinning(
            epoch,
            history,
            kept,
            doomed,
            gone,
            [key for key in orphans if key not in gone],
            is_conditional,
        )


def _would_go(place: Key, doomed: Sequence[Key]) -> bool:
    """Whether a checkpoint would go at once if it came, because a newer one of its namespace goes;
    or no other run can bring it, because the namespace is that of one run's call."""
    return CALL in place[0] or any(place[0] == key[0] and place < key for key in doomed)


def thin(
    core: Core,
    serde: SerializerProtocol,
    thread_id: str,
    choose: Choice,
    known: Mapping[Key, Item] = _NOTHING,
    now: float | None = None,
) -> Steps[Thinning | None]:
    """Remove the checkpoints that `choose` does not keep and no kept one is rebuilt from; what was
    done, None where the thread has no checkpoints. Their chunks stay for now.

    Raises:
        StoreTimeout: The thread changed each time between the look at it and the removal.
    """
    for attempt in range(ATTEMPTS):
        plan = yield from plan_thinning(core, serde, thread_id, choose, attempt, known, now)
        if plan is None:
            return None
        if (yield from carry_out(core, plan)):
            return plan
    raise StoreTimeout(
        f"thread {thread_id!r} changed {ATTEMPTS} times while its old checkpoints were to be "
        "removed: nothing of it was removed. Repeat this when less is written to it."
    )


def carry_out(core: Core, plan: Thinning) -> Steps[bool]:
    """Remove what a plan says: no round trip if that is nothing. False, and nothing done, when
    the thread has changed since it was read, and the plan minds that."""
    if not plan.removed:
        return True
    done: bool = yield Remove(
        plan.thread_id,
        plan.epoch if plan.is_conditional else None,
        plan.removed,
        [(*key, old, new) for key, (old, new) in plan.orphaned(core).items()],
        new_operation_id(),
    )
    return done
