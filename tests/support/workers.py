"""What other processes do in the tests; a spawned process imports this module by name."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any, Protocol

import holdfast

from support.calls import Calls
from support.make import checkpoint, checkpoint_id, config, version


def prune_until(url: str, thread: str, ready: Event, stop: Event) -> None:
    """Prune a thread again and again."""
    with holdfast.open(url) as saver:
        saver.prune([thread])
        ready.set()
        while not stop.is_set():
            saver.prune([thread])


def put_chain(url: str, thread: str, name: str, count: int) -> None:
    """Put a chain of `count` checkpoints on the namespace `name`, and check each."""
    with holdfast.open(url) as saver:
        put_and_check(saver, thread, name, count)


def put_and_check(saver: holdfast.Saver, thread: str, name: str, count: int) -> None:
    parent = config(thread, name)
    for number in range(1, count + 1):
        made = chained(name, number)
        parent = saver.put(parent, made, {"step": number}, made["channel_versions"])
        saver.put_writes(parent, [("state", [name, number])], "task")
        check_chained(saver, parent, name, number)


def chained(name: str, number: int) -> Any:
    messages = [f"{name} {i} " * 60 for i in range(number % 20 + 1)]
    return checkpoint(number, {"state": messages}, {"state": version(number)})


def check_chained(saver: holdfast.Saver, place: Any, name: str, number: int) -> None:
    found = saver.get_tuple(place)
    assert found is not None
    assert found.checkpoint == chained(name, number)
    assert found.pending_writes == [("task", "state", [name, number])]


def write_after_fork(saver: holdfast.Saver, name: str) -> None:
    """Use a saver that came with the fork, on both sides."""
    put_and_check(saver, "t", name, 20)

    async def on_a_loop() -> None:
        made = checkpoint(99, {"state": name})
        stored = await saver.aput(config("t", name), made, {}, made["channel_versions"])
        found = await saver.aget_tuple(stored)
        assert found is not None
        assert found.checkpoint == made

    asyncio.run(on_a_loop())
    assert saver.get_tuple(config("t", name, checkpoint_id(20))) is not None


# --- a life that is cut short


def content(id: str) -> list[str]:
    """What the checkpoint `id` of a life holds: long lists that share, and short ones."""
    life, step = map(int, id.split("-"))
    return [f"life {life} message {i} " * 30 for i in range(1 + step * 7 % 30)]


def deeds(seed: int) -> Iterator[tuple[str, str]]:
    """An endless sequence of what to do and to which checkpoint."""
    rng = random.Random(seed)
    life, step = 0, 0
    while True:
        deed = rng.choices(["put", "write", "prune", "delete"], [10, 5, 3, 0.5])[0]
        if deed == "put" or not step:
            step += 1
            yield "put", f"{life:04}-{step:06}"
        else:
            yield deed, f"{life:04}-{step:06}"
            if deed == "delete":
                life, step = life + 1, 0


class Listener(Protocol):
    """Who is told what is done: the end of a pipe, for example."""

    def send(self, event: tuple[str, str, str], /) -> None: ...


async def work(calls: Calls, thread: str, seed: int, told: Listener) -> None:
    """Do `deeds` without end, telling before and after each."""
    head: Any = config(thread)
    told.send(("ready", "", ""))
    for number, (deed, id) in enumerate(deeds(seed)):
        told.send(("begin", deed, id))
        if deed == "put":
            made = checkpoint(id, {"state": content(id)}, {"state": version(number)})
            metadata: Any = {"step": number, "run_id": f"{thread}, run {number % 5}"}
            head = await calls.put(head, made, metadata, made["channel_versions"])
        elif deed == "write":
            await calls.put_writes(head, [("a", content(id)), ("b", number)], f"task {number}")
        elif deed == "prune":
            await calls.prune([thread])
        else:
            await calls.delete_thread(thread)
            head = config(thread)
        told.send(("done", deed, id if deed != "write" else f"{id}/task {number}"))


def live(url: str, thread: str, seed: int, told: Connection, mode: str) -> None:
    """Do `deeds` until killed."""
    asyncio.run(work(Calls(holdfast.open(url), mode), thread, seed, told))


# --- without the right to write


def try_as_nobody(url: str, told: Connection) -> None:
    """Use a store as a user that may only read it, and tell what was raised."""
    with holdfast.open("memory://") as warm:  # what is imported late is imported here
        put_and_check(warm, "t", "", 1)
    with holdfast.open(url) as saver:
        if os.geteuid() == 0:
            os.setuid(65534)
        for attempt in (
            lambda: saver.put(config("u"), checkpoint(1), {}, {}),
            lambda: saver.get_tuple(config("nobody")),
        ):
            try:
                told.send(repr(attempt()))
            except holdfast.HoldfastError as error:
                told.send(f"{type(error).__name__}: {error}")
