"""Figures, the targets they are held against, and how both are shown."""

from __future__ import annotations

import json
import os
import platform
import re
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.support.servers import find_program

PACKAGES = (
    "holdfast",
    "langgraph",
    "langgraph-checkpoint",
    "langgraph-checkpoint-sqlite",
    "langgraph-checkpoint-aws",
    "langgraph-checkpoint-postgres",
    "redis",
    "hiredis",
    "psycopg",
    "psycopg-pool",
)


@dataclass(frozen=True)
class Figure:
    """One measured number."""

    case: str
    saver: str
    measure: str
    value: float
    unit: str

    def shown(self) -> str:
        """Give the number with its unit, as people read it."""
        if self.unit == "bytes":
            return f"{self.value / 1e6:.2f} MB"
        if self.unit == "/s":
            return f"{self.value:.0f} /s"
        return f"{self.value:.3g} {self.unit}"


@dataclass(frozen=True)
class Target:
    """What a saver should reach: at most so much, or at most so many times another saver."""

    measure: str
    saver: str
    at_most: float
    against: str | None = None
    case: str | None = None

    def verdicts(self, figures: Iterable[Figure]) -> list[Verdict]:
        """Judge every case that has the figures."""
        found = {(each.case, each.saver): each for each in figures if each.measure == self.measure}
        verdicts = []
        for (case, saver), figure in found.items():
            if saver != self.saver or self.case not in (None, case):
                continue
            if self.against is None:
                text = f"{figure.shown()}, at most {self.at_most:.3g} {figure.unit}"
                reached = figure.value
            else:
                other = found.get((case, self.against))
                if other is None:
                    continue
                reached = figure.value / other.value
                text = (
                    f"{figure.shown()} is {reached:.2f} times {self.against}'s {other.shown()}, "
                    f"at most {self.at_most:.2f} times"
                )
            name = f"{case}: {self.measure}, {saver}"
            verdicts.append(Verdict(name, text, reached, self.at_most, reached <= self.at_most))
        return verdicts


@dataclass(frozen=True)
class Verdict:
    """A target beside what was reached."""

    name: str
    text: str
    reached: float
    at_most: float
    met: bool


def milliseconds(seconds: Iterable[float]) -> float:
    """Give the median, in milliseconds."""
    return statistics.median(seconds) * 1000


def machine() -> dict[str, object]:
    """Describe where the figures come from."""
    versions: dict[str, str] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "sqlite": sqlite3.sqlite_version,
        "redis-server": server_version("redis-server", r"v=(\S+)"),
        "postgres": server_version("postgres", r"(\d\S*)"),
        **versions,
    }


def server_version(name: str, pattern: str) -> str:
    """Give the version of a server that the benchmarks start."""
    program = find_program(name)
    if program is None:
        return "not installed"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    found = re.search(pattern, said.stdout)
    return found[1] if found else said.stdout.strip()


def table(figures: Sequence[Figure]) -> str:
    """Show one case: a row for each saver, a column for each measure."""
    savers = list(dict.fromkeys(each.saver for each in figures))
    measures = list(dict.fromkeys(each.measure for each in figures))
    shown = {(each.saver, each.measure): each.shown() for each in figures}
    rows = [["", *measures]]
    rows += [[saver, *(shown.get((saver, each), "-") for each in measures)] for saver in savers]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def judge(figures: Sequence[Figure], targets: Iterable[Target]) -> list[Verdict]:
    """Hold the figures against the targets."""
    return [verdict for target in targets for verdict in target.verdicts(figures)]


def show(title: str, figures: Sequence[Figure], targets: Iterable[Target]) -> list[Verdict]:
    """Print a benchmark's tables, then its targets, met or missed."""
    print(f"\n## {title}")
    for case in dict.fromkeys(each.case for each in figures):
        print(f"\n{case}\n{table([each for each in figures if each.case == case])}")
    verdicts = judge(figures, targets)
    if verdicts:
        print()
    for verdict in verdicts:
        print(f"{'met   ' if verdict.met else 'MISSED'}  {verdict.name}: {verdict.text}")
    sys.stdout.flush()
    return verdicts


def save(path: Path, figures: Sequence[Figure], verdicts: Sequence[Verdict]) -> None:
    """Write everything as JSON."""
    everything = {
        "machine": machine(),
        "figures": [asdict(each) for each in figures],
        "targets": [asdict(each) for each in verdicts],
    }
    path.write_text(json.dumps(everything, indent=1, ensure_ascii=False), encoding="utf-8")
