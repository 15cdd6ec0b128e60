"""Puts beside prunes, sweeps and `keep_last` of other processes: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import multiprocessing
from pathlib import Path
from typing import Any

import holdfast
import pytest
from support import racers
from support.backends import BACKENDS, SHARED
from support.faults import SOAK, seeded
from support.recount import recount

# In nine tests, with three writers each: 324,000 in all.
PAIRS = 12_000 if SOAK else 300
"""Puts of each writer, each with its writes, and each read back."""
WRITERS = 3
_METHODS = multiprocessing.get_all_start_methods()
_context: Any = multiprocessing.get_context("forkserver" if "forkserver" in _METHODS else "spawn")


@pytest.mark.timeout(4 * 3600 if SOAK else 300)
@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize(
    "removers", [["prune"], ["sweep", "sweep"], ["idle", "sweep"]], ids="-".join
)
def test_puts_race_what_other_processes_remove(
    name: str, removers: list[str], tmp_path: Path
) -> None:
    url, rng = BACKENDS[name].url(tmp_path), seeded()
    with holdfast.open(url) as saver:
        saver.setup()
    # A prune keeps one; with `keep_last` the writers remove, too.
    kept = 1 if "prune" in removers else racers.KEPT
    stop, told = _context.Event(), _context.Queue()
    writing = [
        _context.Process(
            target=racers.put_and_read, args=(url, str(number), PAIRS // WRITERS, kept, told)
        )
        for number in range(WRITERS)
    ]
    removing = [
        _context.Process(target=racers.remove_until, args=(url, how, rng.randrange(99), stop, told))
        for how in removers
    ]
    for process in [*removing, *writing]:
        process.start()
    try:
        for process in writing:
            process.join()
    finally:
        stop.set()
        heard = [told.get(timeout=60) for process in writing if process.exitcode == 0]
        for process in removing:
            process.join(60)
    heard += [told.get(timeout=60) for process in removing if process.exitcode == 0]
    print(f"{PAIRS} pairs on {name} beside {removers}: {heard}")
    assert [process.exitcode for process in [*writing, *removing]] == [0] * (
        WRITERS + len(removing)
    )
    gone = sum(one[1] for one in heard if len(one) == 2)
    removed = sum(one[2] for one in heard if len(one) == 3)
    assert gone > PAIRS / 30, "what was written was removed while more was written"
    assert removed > 0
    with holdfast.open(url) as saver:
        saver.sweep(keep_last=kept)
        counted = recount(saver)  # raises where something lacks
        assert counted.garbage == 0
        assert (
            counted.checkpoints - sum(one.checkpoints for one in saver.threads("idle"))
            == WRITERS * kept
        )


async def test_the_check_of_these_tests_notices_what_is_lost(tmp_path: Path) -> None:
    """A remover that removes one too many."""
    url = BACKENDS["sqlite"].url(tmp_path)
    with pytest.raises(AssertionError, match="acknowledged"):
        await asyncio.to_thread(_lose_one, url)


def _lose_one(url: str) -> None:
    with holdfast.open(url) as other:
        told = multiprocessing.Queue()
        check = racers._check

        def careless(saver: Any, place: Any, name: str, number: int) -> None:
            if number == 7:
                other.delete_thread(racers.thread_of(name))
            check(saver, place, name, number)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(racers, "_check", careless)
            racers.put_and_read(url, "0", 9, 1, told)
