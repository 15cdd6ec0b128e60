"""Latency of each call, and bytes stored, over one workload on one thread."""

from __future__ import annotations

import gc
from collections import defaultdict

from benches.harness import (
    Timer,
    choose,
    compare,
    compare_all,
    rotations,
    run_workload,
    thread_config,
)
from benches.options import Benchmark, Options, parser, run
from benches.places import Place
from benches.report import Figure, Target, milliseconds
from benches.savers import (
    HOLDFAST_POSTGRES,
    HOLDFAST_REDIS,
    HOLDFAST_SQLITE,
    OFFICIAL_MEMORY,
    OFFICIAL_POSTGRES,
    OFFICIAL_SQLITE,
    VALKEY,
    Peer,
)
from benches.workloads import WORKLOADS, unique_bytes

LISTED = 10
FIRST, LAST = "aput first 20", "aput last 20"
WRITES, WARM, COLD = "aput_writes", "aget_tuple", "open + aget_tuple"
LIST, STORED, RATIO = f"alist(limit={LISTED})", "stored", "stored ÷ unique"

EDGE = 20
"""Puts counted as the first ones and as the last ones."""
READS, COLD_READS, LISTS = 20, 5, 5

Samples = dict[str, list[float]]


async def measure_once(peer: Peer, place: Place, options: Options, steps: int) -> Samples:
    """Run the workload once, on a new place and with new objects."""
    workload = WORKLOADS[options.workload](steps)
    samples: Samples = defaultdict(list)
    gc.collect()
    async with peer.open(place.location) as saver:
        done = await run_workload(saver, workload)
        for _ in range(READS):
            with Timer(samples[WARM]):
                found = await saver.aget_tuple(thread_config())
            compare(found, done.head)
        for _ in range(LISTS):
            with Timer(samples[LIST]):
                listed = [each async for each in saver.alist(thread_config(), limit=LISTED)]
            for each, record in zip(listed, done.records[: -LISTED - 1 : -1], strict=True):
                compare(each, record)
        await compare_all(saver, done)
    samples[FIRST] = done.puts[:EDGE]
    samples[LAST] = done.puts[-EDGE:]
    samples[WRITES] = done.writes
    if peer.keeps:
        samples[STORED] = [place.stored_bytes()]
        for _ in range(COLD_READS):
            with Timer(samples[COLD]):
                async with peer.open(place.location) as saver:
                    found = await saver.aget_tuple(thread_config())
            compare(found, done.head)
        async with peer.open(place.location) as saver:
            await compare_all(saver, done)
    return samples


async def measure(options: Options) -> list[Figure]:
    """Run the workload on every saver in turn, several times."""
    steps = options.steps or 200
    collected: dict[str, Samples] = {name: defaultdict(list) for name in options.savers}
    for peer in rotations(choose(options.savers), options.repetitions or 3):
        with peer.place(options.folder) as place:
            samples = await measure_once(peer, place, options, steps)
        for name, values in samples.items():
            collected[peer.name][name] += values
    workload = WORKLOADS[options.workload](steps)
    unique = unique_bytes(workload)
    figures = []
    for saver, samples in collected.items():
        for name in (FIRST, LAST, WRITES, WARM, COLD, LIST):
            if samples[name]:
                value = milliseconds(samples[name])
                figures.append(Figure(workload.name, saver, name, value, "ms"))
        if samples[STORED]:
            stored = max(samples[STORED])
            figures.append(Figure(workload.name, saver, STORED, stored, "bytes"))
            figures.append(Figure(workload.name, saver, RATIO, stored / unique, "x"))
    return figures


BENCHMARK = Benchmark(
    "Each call of the saver",
    measure,
    (
        Target(FIRST, HOLDFAST_SQLITE, 1, OFFICIAL_SQLITE),
        Target(LAST, HOLDFAST_SQLITE, 1 / 3, OFFICIAL_SQLITE),
        Target(WARM, HOLDFAST_SQLITE, 1 / 3, OFFICIAL_SQLITE),
        Target(FIRST, HOLDFAST_REDIS, 1, VALKEY),
        Target(LAST, HOLDFAST_REDIS, 1 / 5, VALKEY),
        Target(LAST, HOLDFAST_REDIS, 1, OFFICIAL_MEMORY),
        Target(WARM, HOLDFAST_REDIS, 1 / 5, VALKEY),
        Target(WARM, HOLDFAST_REDIS, 1, OFFICIAL_MEMORY),
        Target(FIRST, HOLDFAST_POSTGRES, 1, OFFICIAL_POSTGRES),
        Target(LAST, HOLDFAST_POSTGRES, 1 / 6, OFFICIAL_POSTGRES),
        Target(WARM, HOLDFAST_POSTGRES, 1 / 6, OFFICIAL_POSTGRES),
        Target(LAST, HOLDFAST_SQLITE, 1.0, case="chat(1000)"),
        Target(LAST, HOLDFAST_REDIS, 1.0, case="chat(1000)"),
        *(
            target
            for saver in (HOLDFAST_SQLITE, HOLDFAST_REDIS, HOLDFAST_POSTGRES)
            for target in (
                Target(RATIO, saver, 2.0, case="chat(200)"),
                Target(RATIO, saver, 2.5, case="chat(1000)"),
            )
        ),
    ),
)

if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("--workload", choices=WORKLOADS, default="chat")
    arguments.add_argument("--steps", type=int, help="supersteps, 200 by default")
    run([BENCHMARK], arguments)
