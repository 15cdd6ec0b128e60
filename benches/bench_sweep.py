"""A sweep of 100,000 dead chunks, and how long another client waits for a request meanwhile."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from langgraph.checkpoint.base.id import uuid6

from benches.harness import Mismatch, choose, thread_config
from benches.options import Benchmark, Options, parser, run
from benches.places import Place
from benches.report import Figure, milliseconds
from benches.savers import HOLDFAST, Peer, Saver, open_holdfast
from benches.words import Writer

CHUNKS = 100_000
LEAF_BYTES = 300
"""Above what shares a chunk with its neighbours."""
SECONDS_BEFORE = 2.0
CASE = f"{CHUNKS} dead chunks"


async def put_state(saver: Saver, parent: Any, values: list[str], step: int) -> Any:
    """Put a checkpoint with one list."""
    version = f"{step:032}.0"
    checkpoint: Any = {
        "v": 4,
        "id": str(uuid6(clock_seq=step)),
        "ts": "2024-01-01T00:00:00+00:00",
        "channel_values": {"state": values},
        "channel_versions": {"state": version},
        "versions_seen": {},
        "updated_channels": ["state"],
    }
    metadata: Any = {"source": "loop", "step": step, "parents": {}}
    return await saver.aput(parent, checkpoint, metadata, {"state": version})


async def watch(name: str, location: str, pipe: Connection) -> None:
    """Put small checkpoints one after the other until told to stop, and send how long each took."""
    seconds: list[float] = []
    async with open_holdfast(name, location) as saver:
        config: Any = thread_config("another")
        step = 0
        while not pipe.poll():
            begun = time.perf_counter()
            config = await put_state(saver, config, [f"value {step}"], step)
            found = await saver.aget_tuple(thread_config("another"))
            seconds.append(time.perf_counter() - begun)
            if found is None or found.checkpoint["channel_values"]["state"] != [f"value {step}"]:
                raise Mismatch("the other client read something else than it put")
            step += 1
            if step == 1:
                pipe.send("begun")
    pipe.send(seconds)


def run_watch(name: str, location: str, pipe: Connection) -> None:
    asyncio.run(watch(name, location, pipe))


@contextmanager
def watched(name: str, location: str) -> Iterator[list[float]]:
    """Another process puts and gets meanwhile; the seconds of each pair are there in the end."""
    seconds: list[float] = []
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=run_watch, args=(name, location, there), daemon=True
    )
    process.start()
    here.recv()
    yield seconds
    here.send("stop")
    seconds += here.recv()
    process.join()


async def measure_once(peer: Peer, place: Place) -> list[Figure]:
    """Make garbage of a large state, sweep it, and see that nothing else went."""
    writer = Writer(1)
    text = writer.text(LEAF_BYTES * 1000)
    large = [f"{n:08} {text[n % 99_000 : n % 99_000 + LEAF_BYTES]}" for n in range(CHUNKS)]
    async with open_holdfast(peer.name, place.location) as saver:
        config = await put_state(saver, thread_config(), large, 1)
        del large
        await put_state(saver, config, ["small"], 2)
        with watched(peer.name, place.location) as alone:
            await asyncio.sleep(SECONDS_BEFORE)
        with watched(peer.name, place.location) as beside:
            begun = time.perf_counter()
            swept = await saver.asweep(keep_last=1)
            seconds = time.perf_counter() - begun
        if swept.checkpoints < 1 or swept.bytes < CHUNKS * LEAF_BYTES // 4:
            raise Mismatch(f"the sweep removed {swept}")
        found = await saver.aget_tuple(thread_config())
        if found is None or found.checkpoint["channel_values"]["state"] != ["small"]:
            raise Mismatch("the sweep took what was to stay")
        await saver.asweep(keep_last=1)  # of what the other put meanwhile
        if (await saver.asweep(keep_last=1, dry_run=True)).bytes:
            raise Mismatch("the sweep left garbage")
    return [
        Figure(CASE, peer.name, "sweep", seconds * 1000, "ms"),
        Figure(CASE, peer.name, "other's aput + aget_tuple, alone", milliseconds(alone), "ms"),
        Figure(CASE, peer.name, "longest alone", max(alone) * 1000, "ms"),
        Figure(CASE, peer.name, "during the sweep", milliseconds(beside), "ms"),
        Figure(CASE, peer.name, "longest during the sweep", max(beside) * 1000, "ms"),
    ]


async def measure(options: Options) -> list[Figure]:
    """Measure each of holdfast's savers that others can be on at the same time."""
    figures = []
    for peer in choose(options.savers):
        if peer.name in HOLDFAST and peer.keeps:
            with peer.place(options.folder) as place:
                figures += await measure_once(peer, place)
    return figures


BENCHMARK = Benchmark("A sweep beside another client", measure, ())

if __name__ == "__main__":
    run([BENCHMARK], parser(__doc__))
