"""Bytes stored for each byte of information, over several workloads."""

from __future__ import annotations

from pathlib import Path

from benches.harness import choose, compare_all, run_workload, scratch
from benches.options import Benchmark, Options, parser, run
from benches.report import Figure, Target
from benches.savers import HOLDFAST_SQLITE, OFFICIAL_SQLITE, Peer, stored_bytes
from benches.workloads import WORKLOADS, Workload, unique_bytes

UNIQUE, STORED, RATIO = "unique", "stored", "stored ÷ unique"

CASES = (("chat", 200), ("chat", 1000), ("chat_dicts", 200), ("chat_nested", 200), ("wide", 200))
SHORT = 200
"""Supersteps that the official saver is run with; beyond, only when asked: it writes 700 MB."""


async def measure_case(peer: Peer, workload: Workload, folder: Path | None) -> int:
    """Put a workload, compare all of it, close, and give the size of what is left on disk."""
    with scratch(folder) as path:
        async with peer.open(path) as saver:
            done = await run_workload(saver, workload)
        stored = stored_bytes(path)
        async with peer.open(path) as saver:
            await compare_all(saver, done)
    return stored


async def measure(options: Options) -> list[Figure]:
    """Run every workload once on every saver that writes to a file."""
    figures = []
    for name, steps in CASES:
        for peer in choose(options.savers):
            skipped = peer.name == OFFICIAL_SQLITE and steps > SHORT and not options.all
            if skipped or not peer.on_file:
                continue
            workload = WORKLOADS[name](steps)
            unique = unique_bytes(workload)
            stored = await measure_case(peer, workload, options.folder)
            figures += [
                Figure(workload.name, peer.name, UNIQUE, unique, "bytes"),
                Figure(workload.name, peer.name, STORED, stored, "bytes"),
                Figure(workload.name, peer.name, RATIO, stored / unique, "x"),
            ]
    return figures


BENCHMARK = Benchmark(
    "Bytes stored for each byte of information",
    measure,
    (
        Target(RATIO, HOLDFAST_SQLITE, 2.0, case="chat(200)"),
        Target(RATIO, HOLDFAST_SQLITE, 2.5, case="chat(1000)"),
        Target(RATIO, HOLDFAST_SQLITE, 2.0, case="chat_dicts(200)"),
        Target(RATIO, HOLDFAST_SQLITE, 2.0, case="chat_nested(200)"),
        Target(RATIO, HOLDFAST_SQLITE, 3.0, case="wide(200)"),
    ),
)

if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument(
        "--all", action="store_true", help="the official saver at 1,000 supersteps, too"
    )
    run([BENCHMARK], arguments)
