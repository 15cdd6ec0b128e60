"""A sweep and a writer of one store: nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import holdfast
import pytest
from holdfast.backends import base
from langgraph.checkpoint.base.id import uuid6
from support.backends import Backend
from support.calls import Calls
from support.clock import timed
from support.make import Thread, checkpoint, checkpoint_id, config, version
from support.recount import recount
from support.requests import Tap
from support.uses import WORDS

SWEEPS: dict[str, dict[str, Any]] = {
    "idle": {"idle_for": 50, "keep_interrupted": False},
    "finished": {"idle_for": 50},
    "thinned": {"keep_last": 1},
    "garbage": {},
}
HEAD, BEFORE = (config("t", "", checkpoint_id(number)) for number in (6, 5))
VALUES = {"d": WORDS[18:40], "same": WORDS[:3]}


class Race:
    """A thread, a sweep, and a change before the nth request of the sweep."""

    def __init__(self, swept: Calls, writer: Calls, change: str) -> None:
        self.swept = swept.saver
        self.writer = writer
        self.change = change
        self.is_done = False

    def grow(self) -> Thread:
        """A new thread with garbage."""
        execute = self.swept._live.backend.execute
        execute(base.Forget("t", base.new_operation_id(), leaves_tombstone=False))
        thread = Thread(Calls(self.writer.saver, "sync"))

        async def put() -> None:
            for step in range(6):
                await thread.put({"d": WORDS[step * 4 : step * 9 + 9], "same": VALUES["same"]})

        asyncio.run(put())
        gone = [("", checkpoint_id(number)) for number in (1, 2)]
        execute(base.Remove("t", None, gone, [], base.new_operation_id()))
        self.is_done = False
        return thread

    def __call__(self) -> None:
        self.is_done = True
        if self.change == "write":
            self.writer.saver.put_writes(HEAD, [("d", WORDS[:8])], "late")
            return
        # "same" has the version that it has in the parent: its bytes are counted on.
        over, number = (BEFORE, 5) if self.change == "fork" else (HEAD, 6)
        versions = {"d": version(99), "same": version(number)}
        made = checkpoint(7, VALUES, versions)
        self.writer.saver.put(over, made, {"step": 7}, {"d": version(99)})

    def check(self, thread: Thread) -> None:
        """What was acknowledged is there, whole, and so is all that is left."""
        recount(self.swept)  # raises where something lacks
        for saver in (self.swept, self.writer.saver):
            if self.change == "write":
                if saver.get_tuple(HEAD) is None:  # the writes wait for their checkpoint
                    saver.put(config(), checkpoint(6, VALUES), {}, {})
                found = saver.get_tuple(HEAD)
                assert found is not None
                assert found.pending_writes == [("late", "d", WORDS[:8])]
            else:
                found = saver.get_tuple(config())
                assert found is not None
                assert found.checkpoint["id"] == checkpoint_id(7)
                assert found.checkpoint["channel_values"] == VALUES
            for each in saver.list(config()):
                expected = thread.expected.get(each.checkpoint["id"], VALUES)
                assert each.checkpoint["channel_values"] in (expected, VALUES)


@pytest.mark.parametrize("kind", SWEEPS)
@pytest.mark.parametrize("change", ["put", "write", "fork"])
@pytest.mark.parametrize("writers", ["the same saver", "another saver"])
async def test_what_comes_between_any_two_requests_of_a_sweep_is_not_lost(
    backend: Backend,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    change: str,
    writers: str,
) -> None:
    async with timed(backend, tmp_path, "sync") as store:
        swept = Calls((await store.open()).saver, "sync")
        writer = swept
        if writers == "another saver":
            writer = Calls((await store.open()).saver, "sync")
        race = Race(swept, writer, change)
        is_idle = "idle_for" in SWEEPS[kind]
        if not store.is_moved:
            # All that is seen is idle, also what is written now: so it comes after the visit.
            clock = swept.saver._live.backend.clock
            monkeypatch.setattr(swept.saver._live.backend, "clock", lambda: clock() + 100)
        first = nth = 2 if is_idle and not store.is_moved else 1

        def once(nth: int) -> None:
            with monkeypatch.context() as patch:
                tap = Tap(swept.saver, patch)
                tap.once(nth, race)
                swept.saver.sweep(**SWEEPS[kind])

        while True:
            thread = await asyncio.to_thread(race.grow)
            if store.is_moved:
                await store.later(100)
            await asyncio.to_thread(once, nth)
            if not race.is_done:
                break
            await asyncio.to_thread(race.check, thread)
            nth += 1
            assert nth < 100
        assert nth - first >= 3, "it was between several requests"


TIDY: dict[str, Any] = {
    "sweep": lambda saver: saver.sweep(),
    "sweep keep_last": lambda saver: saver.sweep(keep_last=1),
    "prune": lambda saver: saver.prune(["t"]),
    "delete_for_runs": lambda saver: saver.delete_for_runs(["r"]),
}


@pytest.mark.parametrize("kind", TIDY)
def test_writes_wait_for_a_checkpoint_that_is_older_than_the_head(
    saver: holdfast.Saver, kind: str
) -> None:
    """Two runs share a thread: one has stored the writes, the other a newer checkpoint."""
    mine, theirs = str(uuid6()), str(uuid6())
    saver.put(config(), checkpoint(1), {"run_id": "r"}, {})
    saver.put_writes(config("t", "", mine), [("d", "mine")], "task")
    saver.put(config(), checkpoint(theirs), {}, {})
    TIDY[kind](saver)
    saver.put(config(), checkpoint(mine), {}, {})
    found = saver.get_tuple(config("t", "", mine))
    assert found is not None
    assert found.pending_writes == [("task", "d", "mine")]


def test_writes_to_what_keep_last_has_removed_go_with_the_next_that_does(
    backend: Backend, tmp_path: Path
) -> None:
    with backend.open(tmp_path, keep_last=2) as saver:
        for number in (1, 2, 3):
            saver.put(config(), checkpoint(number), {}, {})
        mine = config("t", "", f"{checkpoint_id(3)[:-1]}2.5")  # on its way, and would be kept
        for where in (config("t", "", checkpoint_id(1)), mine):
            saver.put_writes(where, [("d", "late")], "task")
        saver.put(config(), checkpoint(4), {}, {})
        _, _, orphans = saver._live.backend.execute(base.Census("t"))
        assert orphans == [("", mine["configurable"]["checkpoint_id"])]


def test_a_checkpoint_that_comes_under_constant_writing_stays(
    saver: holdfast.Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the sweep does not mind changes any more, just when that of lost writes comes."""
    for number in (1, 3):
        saver.put(config(), checkpoint(number), {}, {})
    saver.put_writes(config("t", "", checkpoint_id(2)), [("d", "early")], "task")
    tap = Tap(saver, monkeypatch)
    removals = 0

    def between(request: Any) -> None:
        nonlocal removals
        if isinstance(request, base.Remove):
            removals += 1
            if request.epoch is not None:
                head = config("t", "", checkpoint_id(3))
                saver.put_writes(head, [("d", removals)], f"task {removals}")
            else:
                saver.put(config(), checkpoint(2), {}, {})

    tap.before = between
    saver.sweep(keep_last=1)
    assert removals > 1
    found = saver.get_tuple(config("t", "", checkpoint_id(2)))
    assert found is not None
    assert found.pending_writes == [("task", "d", "early")]
    assert saver.get_tuple(config("t", "", checkpoint_id(1))) is None


def test_a_lease_that_is_taken_during_a_sweep_keeps_the_thread(
    saver: holdfast.Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = saver._live.backend
    saver.put(config(), checkpoint(1), {}, {})
    clock = backend.clock
    monkeypatch.setattr(backend, "clock", lambda: clock() + 100)
    idle = {"idle_for": 50, "keep_interrupted": False}
    with monkeypatch.context() as patch:
        lease = base.Lease("t", 1000)
        Tap(saver, patch).once(2, lambda: backend.execute(lease))
        assert saver.sweep(**idle).threads == 0
    assert saver.get_tuple(config()) is not None
