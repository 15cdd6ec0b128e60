"""What the fault suites share: seeds, rounds, work beside a test, and a look at what is held."""

from __future__ import annotations

import itertools
import math
import mmap
import os
import random
import statistics
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SOAK = bool(os.environ.get("HOLDFAST_SOAK"))
ROUNDS = 300 if SOAK else 30


def seeded() -> random.Random:
    """A generator whose seed is printed: pytest shows it where a test fails."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}, {ROUNDS} rounds")
    return random.Random(seed)


def rounds(ends: Counter[str], *kinds: str) -> Iterator[int]:
    """The rounds of a test that counts how each ended: some more, until each kind has come."""
    for number in itertools.count():
        if number >= ROUNDS and all(ends[kind] for kind in kinds):
            return
        yield number


@contextmanager
def again_and_again(work: Callable[[], object], most: float = math.inf) -> Iterator[list[int]]:
    """Work without a pause in another thread; how often it was done is the item."""
    count, errors, stop = [0], [], threading.Event()

    def repeat() -> None:
        try:
            while not stop.is_set() and count[0] < most:
                work()
                count[0] += 1
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield count
    finally:
        stop.set()
        thread.join()
    if errors:
        raise errors[0]


class Flat:
    """Sees that what a process and its server hold does not grow from round to round.

    Args:
        server: Gives the server's connections, and its memory.
    """

    def __init__(self, server: Callable[[], tuple[int, int]]) -> None:
        self._server = server
        self._seen: list[tuple[int, ...]] = []

    def look(self) -> None:
        """Remember what is held now, at a point that comes again in each round."""
        status = Path("/proc/self/statm")
        resident = int(status.read_text().split()[1]) * mmap.PAGESIZE if status.exists() else 0
        files = len([*Path("/dev/fd").iterdir()])
        connections, memory = self._server()
        self._seen.append((files, connections, resident, memory))

    def check(self, *, memory: bool = SOAK) -> None:
        """Compare the last third with the one before. Few rounds say nothing of memory."""
        third = len(self._seen) // 3
        before, after = (
            [statistics.median(column) for column in zip(*some, strict=True)]
            for some in (self._seen[third : 2 * third], self._seen[-third:])
        )
        print(f"files, connections, memory here and there: {before}, then {after}")
        room = (3, 3, 8 << 20, 1 << 18) if memory else (3, 3)
        for most, less, more in zip(room, before, after, strict=False):
            assert more <= less + most
