"""Many graphs at once on one event loop and one saver: supersteps per second."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from benches.bench_graph import NO_SAVER, build, check
from benches.harness import Mismatch, choose, rotations, thread_config
from benches.options import Benchmark, Options, parser, run
from benches.report import Figure
from benches.savers import HOLDFAST_REDIS, Peer, Saver
from benches.workloads import messages

GRAPHS, SUPERSTEPS = 64, 10
MEASURE = "supersteps"
ALONE = "holdfast redis, uncoalesced"


@dataclass(frozen=True)
class Entrant:
    """A saver, and how it is set up."""

    name: str
    peer: Peer
    coalesce: bool = True


def entrants(savers: list[Peer]) -> list[Entrant]:
    """The chosen savers; holdfast on Redis a second time, sending each call on its own."""
    made = [Entrant(peer.name, peer) for peer in savers]
    made += [Entrant(ALONE, peer, False) for peer in savers if peer.name == HOLDFAST_REDIS]
    return made


async def run_graphs(saver: Saver | None) -> float:
    """Run all graphs side by side; give the supersteps per second."""
    script = messages(2 * SUPERSTEPS)
    graph = build(script, saver)
    configs: list[Any] = [thread_config(f"session {number}") for number in range(GRAPHS)]
    gc.collect()
    start = time.perf_counter()
    results = await asyncio.gather(*(graph.ainvoke({"messages": []}, config) for config in configs))
    seconds = time.perf_counter() - start
    if any(result["messages"] != script for result in results):
        raise Mismatch("a graph did not make the messages of the script")
    if saver is not None:
        for config in configs:
            await check(graph, config, script)
    return GRAPHS * SUPERSTEPS / seconds


async def measure_once(entrant: Entrant, options: Options) -> float:
    """Run the graphs once, on a new place."""
    with entrant.peer.place(options.folder) as place:
        async with entrant.peer.open(place.location) as saver:
            if not entrant.coalesce:
                clients = saver._live.backend._clients  # type: ignore[attr-defined]
                assert clients.together
                clients.together = False
            return await run_graphs(saver)


async def measure(options: Options) -> list[Figure]:
    """Run the graphs without a saver and with each in turn, several times."""
    collected: dict[str, list[float]] = defaultdict(list)
    await run_graphs(None)  # warms up LangGraph's own imports and caches
    collected[NO_SAVER].append(await run_graphs(None))
    for entrant in rotations(entrants(choose(options.savers)), options.repetitions or 3):
        collected[entrant.name].append(await measure_once(entrant, options))
    case = f"{GRAPHS} graphs of {SUPERSTEPS} supersteps"
    return [
        Figure(case, name, MEASURE, statistics.median(rates), "/s")
        for name, rates in collected.items()
    ]


BENCHMARK = Benchmark(f"{GRAPHS} graphs at once on one loop", measure, ())

if __name__ == "__main__":
    run([BENCHMARK], parser(__doc__))
