"""Bytes stored for each byte of information, over several workloads."""

from __future__ import annotations

from pathlib import Path

from benches.harness import choose, compare_all, run_workload
from benches.options import Benchmark, Options, parser, run
from benches.report import Figure, Target
from benches.savers import (
    HOLDFAST_POSTGRES,
    HOLDFAST_REDIS,
    HOLDFAST_SQLITE,
    OFFICIAL_POSTGRES,
    OFFICIAL_SQLITE,
    VALKEY,
    Peer,
)
from benches.workloads import WORKLOADS, Workload, unique_bytes

UNIQUE, STORED, RATIO = "unique", "stored", "stored ÷ unique"
TABLES = "tables ÷ unique"
"""Postgres' tables as it says their size, without their indexes."""

CASES = (
    ("chat", 200, 2.0),
    ("chat", 1000, 2.5),
    ("chat_dicts", 200, 2.0),
    ("chat_nested", 200, 2.0),
    ("wide", 200, 3.0),
)
"""Workload, supersteps, and how many bytes may be stored for each byte of information."""
SHORT, BULKY = 200, (OFFICIAL_SQLITE, VALKEY, OFFICIAL_POSTGRES)
"""Savers that are run with more supersteps only when asked: they store 700 MB and more."""


async def measure_case(
    peer: Peer, workload: Workload, folder: Path | None
) -> tuple[int, int | None]:
    """Put a workload, compare all of it, close, and give the size of what is left, and of its
    tables alone."""
    with peer.place(folder) as place:
        async with peer.open(place.location) as saver:
            done = await run_workload(saver, workload)
        stored = place.stored_bytes()
        tables = place.table_bytes() if place.table_bytes else None
        async with peer.open(place.location) as saver:
            await compare_all(saver, done)
    return stored, tables


async def measure(options: Options) -> list[Figure]:
    """Run every workload once on every saver whose data outlive it."""
    figures = []
    for name, steps, _ in CASES:
        for peer in choose(options.savers):
            skipped = peer.name in BULKY and steps > SHORT and not options.all
            if skipped or not peer.keeps:
                continue
            workload = WORKLOADS[name](steps)
            unique = unique_bytes(workload)
            stored, tables = await measure_case(peer, workload, options.folder)
            figures += [
                Figure(workload.name, peer.name, UNIQUE, unique, "bytes"),
                Figure(workload.name, peer.name, STORED, stored, "bytes"),
                Figure(workload.name, peer.name, RATIO, stored / unique, "x"),
            ]
            if tables is not None:
                figures.append(Figure(workload.name, peer.name, TABLES, tables / unique, "x"))
    return figures


BENCHMARK = Benchmark(
    "Bytes stored for each byte of information",
    measure,
    tuple(
        Target(figure, saver, at_most, case=f"{name}({steps})")
        for figure, saver in (
            (RATIO, HOLDFAST_SQLITE),
            (RATIO, HOLDFAST_REDIS),
            (RATIO, HOLDFAST_POSTGRES),
            (TABLES, HOLDFAST_POSTGRES),
        )
        for name, steps, at_most in CASES
    ),
)

if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument(
        "--all", action="store_true", help="other savers at 1,000 supersteps, too"
    )
    run([BENCHMARK], arguments)
