"""The command line that all benchmarks share."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benches import report
from benches.report import Figure, Target
from benches.savers import PEERS


@dataclass(frozen=True)
class Options:
    """What every benchmark is told."""

    savers: Sequence[str] = tuple(PEERS)
    repetitions: int | None = None
    folder: Path | None = None
    workload: str = "chat"
    steps: int | None = None
    all: bool = False


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: its title, what measures it, and what it should reach."""

    title: str
    measure: Callable[[Options], Coroutine[Any, Any, list[Figure]]]
    targets: Sequence[Target]


def parser(description: str | None) -> argparse.ArgumentParser:
    """Make a parser that knows the shared options."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--savers", nargs="+", choices=PEERS, default=list(PEERS), metavar="NAME")
    made.add_argument("--repetitions", type=int, help="how often to repeat; medians are shown")
    made.add_argument("--folder", type=Path, help="where the database files go")
    made.add_argument("--json", type=Path, help="write the figures to this file, too")
    return made


def run(benchmarks: Sequence[Benchmark], arguments: argparse.ArgumentParser) -> None:
    """Run benchmarks as the command line says, and report."""
    given = vars(arguments.parse_args())
    json = given.pop("json")
    options = Options(**given)
    about = ", ".join(f"{name} {value}" for name, value in report.machine().items())
    print(f"Medians of wall time. {about}")
    figures, verdicts = [], []
    for benchmark in benchmarks:
        measured = asyncio.run(benchmark.measure(options))
        figures += measured
        verdicts += report.show(benchmark.title, measured, benchmark.targets)
    if json:
        report.save(json, figures, verdicts)
