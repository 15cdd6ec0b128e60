"""Lives that are cut short: what they told, and what must be stored of it."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import holdfast

from support.calls import Calls
from support.make import config
from support.workers import content, live, work

Event = tuple[str, str, str]
"""How far a deed is ("begin", "done"), the deed, and what it is done to."""

_METHODS = multiprocessing.get_all_start_methods()
_context: Any = multiprocessing.get_context("forkserver" if "forkserver" in _METHODS else "spawn")
if "forkserver" in _METHODS:
    _context.set_forkserver_preload(
        ["support.workers", "holdfast.backends.redis", "holdfast.backends.postgres"]
    )


# --- in a process of its own


def start(url: str, thread: str, seed: int, mode: str = "sync") -> tuple[BaseProcess, Connection]:
    """A process that lives on a thread of a store, and where it is heard."""
    heard, told = _context.Pipe(duplex=False)
    process = _context.Process(target=live, args=(url, thread, seed, told, mode))
    process.start()
    told.close()
    return process, heard


def rest(heard: Connection) -> list[Event]:
    """What a process that is dead told last."""
    events: list[Event] = []
    with suppress(EOFError):
        while heard.poll():
            events.append(heard.recv())
    heard.close()
    return events


def cut_short(url: str, thread: str, rng: random.Random, mode: str = "sync") -> list[Event]:
    """Let a process live for a random while, kill it, and give back what it told."""
    process, heard = start(url, thread, rng.randrange(10**6), mode)
    events: list[Event] = []
    last = rng.randrange(2, 160)
    try:
        while len(events) < last:
            assert heard.poll(60), "the writer is silent"
            events.append(heard.recv())
        time.sleep(rng.random() * 0.004)  # the middle of whatever it does next
    finally:
        process.kill()
        process.join()
    return events + rest(heard)


# --- in this process


class Over(BaseException):
    """A life that ends as it was told to, between two deeds."""


class Diary:
    """What a life in this process tells; it ends after the deed during which `is_over` is set."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.is_over = False

    def send(self, event: Event) -> None:
        self.events.append(event)
        if self.is_over and event[0] == "done":
            raise Over


def lead(saver: holdfast.Saver, mode: str, thread: str, seed: int, diary: Diary) -> None:
    """Live on a saver, on an event loop of its own, until the diary says that it is over."""
    with suppress(Over):
        asyncio.run(work(Calls(saver, mode), thread, seed, diary))


# --- afterwards


def check(saver: holdfast.Saver, thread: str, events: Sequence[Event]) -> None:
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
        assert name not in found, "listed twice"
        assert name < min(found, default="~"), "out of order"
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
