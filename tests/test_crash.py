"""A writer that is killed leaves everything it acknowledged whole, and the store usable."""

from __future__ import annotations

import os
import random
from pathlib import Path

import holdfast
import pytest
from support.backends import BACKENDS, SHARED
from support.calls import MODES
from support.lives import Event, check, cut_short
from support.make import checkpoint, config

ROUNDS = 300 if os.environ.get("HOLDFAST_SOAK") else 30


@pytest.mark.timeout(60 + 10 * ROUNDS)
@pytest.mark.parametrize("name", SHARED)
def test_a_killed_writer_leaves_what_it_acknowledged(name: str, tmp_path: Path) -> None:
    url = BACKENDS[name].url(tmp_path)
    seed = random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    lives: dict[str, list[Event]] = {}
    cut = 0
    for number in range(ROUNDS):
        thread = f"round {number}"
        lives[thread] = cut_short(url, thread, rng, MODES[number % 2])
        cut += lives[thread][-1][0] == "begin"
        BACKENDS[name].settle(url)
        with holdfast.open(url) as saver:
            check(saver, thread, lives[thread])
            saver.put(config(f"after {number}"), checkpoint(1), {}, {})
    print(f"seed {seed}, {ROUNDS} rounds, {cut} killed within a deed")
    assert cut
    with holdfast.open(url) as saver:
        for thread, events in lives.items():
            check(saver, thread, events)
            saver.prune([thread])
            assert len([*saver.list(config(thread))]) <= 1
