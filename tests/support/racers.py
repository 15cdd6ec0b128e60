"""Processes that put, prune and sweep on one store at once; a new process imports this by name."""

from __future__ import annotations

import random
from multiprocessing.synchronize import Event
from typing import Any

import holdfast

from support.make import checkpoint, config, id_of, version

THREADS = 3
KEPT = 2
"""Checkpoints that every remover leaves in each namespace, but for `prune`, which leaves one."""


def thread_of(name: str) -> str:
    """Several writers share a thread, each in a namespace of its own."""
    return f"thread {int(name) % THREADS}"


def state_of(name: str, number: int) -> dict[str, Any]:
    """A list that shares most with the one before, and a value that comes again and again."""
    items = [f"{name} {number // 40} {i} " * 40 for i in range(number % 40 + 1)]
    return {"items": items, "again": [f"{name} {number % 3} " * 90], "stays": f"{name} " * 200}


def put_and_read(url: str, name: str, pairs: int, kept: int, told: Any) -> None:
    """Put a chain, and read back after each what must still be there; tell how it went."""
    thread, ns = thread_of(name), f"writer {name}"
    # Where the removers keep as many, every other writer leaves all of the removing to them.
    options = {"keep_last": kept} if kept > 1 and int(name) % 2 else {}
    with holdfast.open(url, **options) as saver:
        head: Any = config(thread, ns)
        chain: list[tuple[Any, int]] = []
        versions: dict[str, str] = {}
        gone = 0
        for number in range(1, pairs + 1):
            state = state_of(name, number)
            new = {"items": version(number), "again": version(number)}
            if number == 1:
                new["stays"] = version(1)
            versions = {**versions, **new}
            head = saver.put(head, checkpoint(number, state, versions), {"step": number}, new)
            saver.put_writes(head, [("items", [name, number])], "task")
            chain = [*chain[-4:], (head, number)]
            for place, of in chain[-kept:]:
                _check(saver, place, name, of)
            gone += sum(saver.get_tuple(place) is None for place, _ in chain[:-kept])
            if number % 50 == 0:
                found = saver.get_tuple(config(thread, ns))
                assert found is not None
                assert found.checkpoint["id"] == id_of(head)
    with holdfast.open(url) as cold:
        for place, number in chain[-kept:]:
            _check(cold, place, name, number)
    told.put((name, gone))


def _check(saver: holdfast.Saver, place: Any, name: str, number: int) -> None:
    found = saver.get_tuple(place)
    assert found is not None, f"writer {name}: checkpoint {number} was acknowledged, and is gone"
    assert found.checkpoint["channel_values"] == state_of(name, number)
    assert found.pending_writes == [("task", "items", [name, number])]


def remove_until(url: str, how: str, seed: int, stop: Event, told: Any) -> None:
    """Prune or sweep again and again; tell how much went."""
    rng = random.Random(seed)
    removed = rounds = 0
    with holdfast.open(url) as saver:
        while not (rounds and stop.is_set()):
            rounds += 1
            if how == "prune":
                before = sum(one.checkpoints for one in saver.threads())
                saver.prune([f"thread {number}" for number in range(THREADS)])
                removed += before > sum(one.checkpoints for one in saver.threads())
            elif how == "sweep":
                removed += saver.sweep(keep_last=KEPT).checkpoints
            else:  # idle threads, of which there are none but those that this one makes
                saver.put(config(f"idle {rng.random()}"), checkpoint(1, {"d": [how] * 9}), {}, {})
                removed += saver.sweep(idle_for=30, keep_last=KEPT).bytes
    told.put((how, rounds, removed))
