"""A writer that is killed leaves everything it acknowledged whole, and the store usable."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from pathlib import Path
from typing import Any

import holdfast
import pytest
from support.backends import BACKENDS, SHARED
from support.make import checkpoint, config
from support.workers import content, live

ROUNDS = 200 if os.environ.get("HOLDFAST_SOAK") else 10


def cut_short(url: str, thread: str, rng: random.Random) -> list[tuple[str, str, str]]:
    """Let a process live for a random while, kill it, and give back what it told."""
    spawn = multiprocessing.get_context("spawn")
    heard, told = spawn.Pipe(duplex=False)
    process = spawn.Process(target=live, args=(url, thread, rng.randrange(10**6), told))
    process.start()
    told.close()
    events: list[tuple[str, str, str]] = []
    last = rng.randrange(2, 160)
    try:
        while len(events) < last:
            assert heard.poll(60), "the writer is silent"
            events.append(heard.recv())
        time.sleep(rng.random() * 0.004)  # the middle of whatever it does next
    finally:
        process.kill()
        process.join()
    try:
        while heard.poll():
            events.append(heard.recv())
    except EOFError:
        pass
    heard.close()
    return events


def check(saver: holdfast.Saver, thread: str, events: list[tuple[str, str, str]]) -> None:
    """What is stored is what was acknowledged, and at most the deed that was cut short."""
    alive: dict[str, set[str]] = {}
    begun = ("", "", "")
    for event in events:
        state, deed, id = event
        if state == "begin":
            begun = event
            continue
        begun = ("", "", "")
        if deed == "put":
            alive.setdefault(id, set())
        elif deed == "write":
            id, task = id.split("/")
            alive[id].add(task)
        elif deed == "prune":
            alive = {id: alive[id] for id in [max(alive)]}
        elif deed == "delete":
            alive = {}
    _, deed, id = begun
    found: dict[str, set[str]] = {}
    for one in saver.list(config(thread)):
        name = one.checkpoint["id"]
        assert one.checkpoint["channel_values"] == {"state": content(name)}
        tasks: dict[str, list[Any]] = {}
        for task, channel, value in one.pending_writes or []:
            tasks.setdefault(task, []).append((channel, value))
        for task, writes in tasks.items():
            assert writes == [("a", content(name)), ("b", int(task.split()[1]))]
        found[name] = set(tasks)
        again = saver.get_tuple(one.config)
        assert again is not None
        assert again.checkpoint == one.checkpoint
    if deed == "put":
        assert found in (alive, {**alive, id: set()})
    elif deed == "write":
        assert {**found, id: alive[id]} == alive
        assert len(found[id] - alive[id]) <= 1
        assert alive[id] <= found[id]
    elif deed == "prune":
        head = max(alive)
        assert found.items() <= alive.items()
        assert found[head] == alive[head]
    elif deed == "delete":
        assert found in (alive, {})
    else:
        assert found == alive


@pytest.mark.timeout(60 + 10 * ROUNDS)
@pytest.mark.parametrize("name", SHARED)
def test_a_killed_writer_leaves_what_it_acknowledged(name: str, tmp_path: Path) -> None:
    url = BACKENDS[name].url(tmp_path)
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}, {ROUNDS} rounds")
    rng = random.Random(seed)
    lives = {}
    for number in range(ROUNDS):
        thread = f"round {number}"
        lives[thread] = cut_short(url, thread, rng)
        with holdfast.open(url) as saver:
            check(saver, thread, lives[thread])
            saver.put(config(f"after {number}"), checkpoint(1), {}, {})
    with holdfast.open(url) as saver:
        for thread, events in lives.items():
            check(saver, thread, events)
            saver.prune([thread])
            assert len([*saver.list(config(thread))]) <= 1
