"""A put at the two ends: of one message, beside a bare round trip, and onto 2,000 messages."""

from __future__ import annotations

import gc
from collections import defaultdict
from contextlib import AsyncExitStack

from redis.asyncio import Redis

from benches.harness import Run, Timer, begin, choose, compare_all, do_superstep, rotations
from benches.options import Benchmark, Options, parser, run
from benches.places import Place
from benches.report import Figure, Target, milliseconds
from benches.savers import HOLDFAST_REDIS, HOLDFAST_SQLITE, Peer, Saver
from benches.workloads import Superstep, Workload, chat, messages

SHORT, LONG = "one message", "2,000 messages"
FIRST, NEXT, TRIP = "aput, new thread", "aput, next", "GET by redis-py"
FIRST_RATIO, NEXT_RATIO, PUT = "new thread ÷ GET", "next ÷ GET", "aput"

THREADS = 200
PUTS = 20

Samples = dict[tuple[str, str], list[float]]


def one_message() -> Workload:
    """Two supersteps whose state is one message, each time another one."""
    return Workload(
        SHORT,
        [
            Superstep(
                values={"messages": [message], "branch:to:agent": None},
                updated=("messages", "branch:to:agent"),
                ran={},
                writes={},
                news=[message],
            )
            for message in messages(2)
        ],
    )


async def measure_short(saver: Saver, client: Redis | None, samples: Samples) -> None:
    """Put on new threads; with a client, each put has a bare round trip before it."""
    runs = []
    for number in range(THREADS):
        workload = one_message()
        done = begin(saver, workload)
        done.thread = f"thread {number}"
        for step, superstep in enumerate(workload.supersteps):
            if client is not None:
                with Timer(samples[SHORT, TRIP]):
                    await client.get("small")
            await do_superstep(saver, done, superstep, step)
        runs.append(done)
    for done in runs:
        await compare_all(saver, done)
        samples[SHORT, FIRST].append(done.puts[0])
        samples[SHORT, NEXT].append(done.puts[1])


async def measure_long(saver: Saver, samples: Samples) -> None:
    """Put a chat up to 2,000 messages, two more each time."""
    workload = chat(1000)
    done: Run = begin(saver, workload)
    for step, superstep in enumerate(workload.supersteps[-PUTS - 1 :]):
        await do_superstep(saver, done, superstep, step)
    await compare_all(saver, done)
    samples[LONG, PUT] += done.puts[1:]


async def measure_once(peer: Peer, place: Place, samples: Samples) -> None:
    """Measure both ends on one place."""
    gc.collect()
    async with AsyncExitStack() as stack:
        client = None
        if place.location.startswith("redis:"):
            client = await stack.enter_async_context(Redis.from_url(place.location))
            await client.set("small", b"value")
        saver = await stack.enter_async_context(peer.open(place.location))
        await measure_short(saver, client, samples)
        await measure_long(saver, samples)


async def measure(options: Options) -> list[Figure]:
    """Measure every saver in turn, several times."""
    collected: dict[str, Samples] = {name: defaultdict(list) for name in options.savers}
    for peer in rotations(choose(options.savers), options.repetitions or 3):
        with peer.place(options.folder) as place:
            await measure_once(peer, place, collected[peer.name])
    figures = []
    for saver, samples in collected.items():
        value = {key: milliseconds(seconds) for key, seconds in samples.items()}
        figures += [Figure(case, saver, name, ms, "ms") for (case, name), ms in value.items()]
        if trip := value.get((SHORT, TRIP)):
            for name, ratio in ((FIRST, FIRST_RATIO), (NEXT, NEXT_RATIO)):
                figures.append(Figure(SHORT, saver, ratio, value[SHORT, name] / trip, "x"))
    return figures


BENCHMARK = Benchmark(
    "A put of one message, and onto 2,000",
    measure,
    (
        Target(FIRST_RATIO, HOLDFAST_REDIS, 1.5),
        Target(NEXT_RATIO, HOLDFAST_REDIS, 1.5),
        Target(PUT, HOLDFAST_SQLITE, 1.0),
        Target(PUT, HOLDFAST_REDIS, 1.0),
    ),
)

if __name__ == "__main__":
    run([BENCHMARK], parser(__doc__))
