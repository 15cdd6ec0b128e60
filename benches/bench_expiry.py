"""A put onto a long history, with a ttl and without: what expiry costs must not grow with it."""

from __future__ import annotations

import gc
from collections import defaultdict

from benches.harness import begin, choose, compare_all, do_superstep, rotations
from benches.options import Benchmark, Options, parser, run
from benches.report import Figure, Target, milliseconds
from benches.savers import HOLDFAST, Peer, open_holdfast
from benches.workloads import Superstep, Workload, messages

CHECKPOINTS = 2_000
LAST = 200
TTL = 86_400
PLAIN, WITH_TTL = "aput", f"aput with ttl={TTL}"
RATIO = "with ttl ÷ without"
CASE = f"the last {LAST} of {CHECKPOINTS} checkpoints"


def history() -> Workload:
    """Supersteps whose state is one message, each time another one."""
    return Workload(
        CASE,
        [
            Superstep(
                values={"messages": [message], "branch:to:agent": None},
                updated=("messages", "branch:to:agent"),
                ran={},
                writes={},
                news=[message],
            )
            for message in messages(CHECKPOINTS)
        ],
    )


async def measure_once(peer: Peer, options: Options, ttl: int | None) -> list[float]:
    """Put them all, compare them all, and give the seconds of the last."""
    workload = history()
    gc.collect()
    with peer.place(options.folder) as place:
        given = {} if ttl is None else {"ttl": ttl}
        async with open_holdfast(peer.name, place.location, **given) as saver:
            done = begin(saver, workload)
            for step, superstep in enumerate(workload.supersteps):
                await do_superstep(saver, done, superstep, step)
            await compare_all(saver, done)
    return done.puts[-LAST:]


async def measure(options: Options) -> list[Figure]:
    """Measure each of holdfast's savers, in turns with a ttl and without."""
    peers = [peer for peer in choose(options.savers) if peer.name in HOLDFAST]
    pairs = [(peer, ttl) for peer in peers for ttl in (None, TTL)]
    seconds: dict[tuple[str, int | None], list[float]] = defaultdict(list)
    for peer, ttl in rotations(pairs, options.repetitions or 2) if pairs else ():
        seconds[peer.name, ttl] += await measure_once(peer, options, ttl)
    figures = []
    for peer in peers:
        plain, with_ttl = (milliseconds(seconds[peer.name, ttl]) for ttl in (None, TTL))
        figures += [
            Figure(CASE, peer.name, PLAIN, plain, "ms"),
            Figure(CASE, peer.name, WITH_TTL, with_ttl, "ms"),
            Figure(CASE, peer.name, RATIO, with_ttl / plain, "x"),
        ]
    return figures


BENCHMARK = Benchmark(
    "Expiry on a long history", measure, [Target(RATIO, name, 1.5) for name in HOLDFAST]
)

if __name__ == "__main__":
    run([BENCHMARK], parser(__doc__))
