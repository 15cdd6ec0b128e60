"""A hundred writes at the same time on one checkpoint, as a fan-out with `Send` makes them."""

from __future__ import annotations

import asyncio
import gc
from collections import defaultdict

from langchain_core.messages import AIMessage

from benches.harness import (
    TASK,
    Mismatch,
    Run,
    Timer,
    begin,
    choose,
    do_superstep,
    rotations,
    writes_of,
)
from benches.options import Benchmark, Options, parser, run
from benches.report import Figure, Target, milliseconds
from benches.savers import HOLDFAST_POSTGRES, HOLDFAST_REDIS, HOLDFAST_SQLITE, Peer, Saver
from benches.words import Writer
from benches.workloads import chat

TASKS = 100
ROUNDS = 5
MEASURE = f"{TASKS} aput_writes"


async def fan_out(saver: Saver, done: Run, writer: Writer) -> float:
    """Write from a hundred tasks to the newest checkpoint, compare, and give the seconds."""
    config = done.head.config
    messages = [AIMessage(writer.text(500), id=writer.uuid()) for _ in range(TASKS)]
    writes = [(writer.uuid(), "messages", [message]) for message in messages]
    seconds: list[float] = []
    with Timer(seconds):
        await asyncio.gather(
            *(
                saver.aput_writes(config, [(channel, value)], task)
                for task, channel, value in writes
            )
        )
    found = await saver.aget_tuple(config)
    if found is None or writes_of(found) != sorted(done.head.writes + writes, key=TASK):
        raise Mismatch("the writes read are not those that were put")
    return seconds[0]


async def measure_once(peer: Peer, options: Options, seed: int) -> list[float]:
    """Fan out from each checkpoint of a short chat."""
    writer = Writer(seed)
    workload = chat(ROUNDS)
    seconds = []
    gc.collect()
    with peer.place(options.folder) as place:
        async with peer.open(place.location) as saver:
            done = begin(saver, workload)
            for step, superstep in enumerate(workload.supersteps):
                await do_superstep(saver, done, superstep, step)
                seconds.append(await fan_out(saver, done, writer))
    return seconds


async def measure(options: Options) -> list[Figure]:
    """Measure every saver in turn, several times."""
    collected: dict[str, list[float]] = defaultdict(list)
    peers = choose(options.savers)
    for number, peer in enumerate(rotations(peers, options.repetitions or 3)):
        collected[peer.name] += await measure_once(peer, options, number)
    return [
        Figure("fan-out", saver, MEASURE, milliseconds(seconds), "ms")
        for saver, seconds in collected.items()
    ]


BENCHMARK = Benchmark(
    f"{TASKS} concurrent aput_writes",
    measure,
    (
        Target(MEASURE, HOLDFAST_SQLITE, 10),
        Target(MEASURE, HOLDFAST_REDIS, 8),
        Target(MEASURE, HOLDFAST_POSTGRES, 15),
    ),
)

if __name__ == "__main__":
    run([BENCHMARK], parser(__doc__))
