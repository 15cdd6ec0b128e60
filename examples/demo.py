"""The demo: an agent stops for approval, its process exits, others resume it and fork its past."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
import uuid
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from script import FORK_AT, OTHER_QUESTION, QUESTIONS, REPORT_FILE
from stores import MEASURED, OFFICIAL, store_file, stored_bytes

HERE = Path(__file__).parent
PHASES = ("ask", "resume", "travel")

console = Console(highlight=False)


class Failed(Exception):
    """Something did not come out as it should; the message says what."""


def expect(holds: bool, what: str) -> None:
    """Tell that something was checked, or fail."""
    if not holds:
        raise Failed(what)
    console.print(f"  [green]✓[/] {what}")


def say(who: str, text: str) -> None:
    """Show what somebody said, the lines after the first one indented below it."""
    body = textwrap.indent(text, " " * 9).lstrip()
    console.print(f"  [bold]{who:5}[/]  {escape(body)}", soft_wrap=True)


def run_phase(phase: str, store: str, thread: str, folder: Path) -> dict[str, Any]:
    """Run one phase in a process of its own and give what it saw."""
    out = folder / f"{phase}.json"
    command = [sys.executable, str(HERE / "worker.py"), phase, "--store", store]
    command += ["--thread", thread, "--folder", str(folder), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.stderr:
        console.print(escape(done.stderr))
    if done.returncode != 0:
        raise Failed(f"the process of phase {phase!r} ended with status {done.returncode}")
    seen: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return seen


def tell_asking(seen: dict[str, Any]) -> None:
    """Show the beginning of the conversation and where it stopped."""
    for question, answer in seen["answers"][:2]:
        say("user", question)
        say("agent", answer)
    console.print(f"  … and {len(seen['answers']) - 2} questions more")
    expect(
        all("not documented" not in answer for _, answer in seen["answers"]),
        f"all {len(QUESTIONS)} answers quote the documentation that was found",
    )
    expect(seen["end"]["next"] == ["approval"], "the agent stopped at the approval step")
    say("agent", seen["end"]["interrupts"][0]["question"])
    console.print(f"  Process {seen['pid']} has exited. Nothing of the agent is left in memory.")


def tell_resuming(asked: dict[str, Any], seen: dict[str, Any], folder: Path) -> None:
    """Check that the second process found what the first one left."""
    expect(seen["pid"] != asked["pid"], f"process {seen['pid']} is another process")
    count = seen["found"]["messages"]
    equal = seen["found"] == asked["end"] and seen["found"]["fingerprint"] == asked["in_memory"]
    expect(equal, f"it found all {count} messages, equal in every field to those left behind")
    report = (folder / REPORT_FILE).read_text(encoding="utf-8")
    expect(report.count("Q: ") == len(QUESTIONS), f"approved, it saved {REPORT_FILE} and went on")
    expect(seen["end"]["next"] == [], "the run is finished")
    say("agent", seen["end"]["last"])


def tell_travelling(resumed: dict[str, Any], seen: dict[str, Any]) -> None:
    """Check that the past was changed on a branch of its own."""
    console.print(f"  Back to question {FORK_AT + 1}: “{escape(seen['asked'])}”")
    console.print(f"  Asked instead: “{escape(OTHER_QUESTION.text)}”")
    expect(seen["fork_has"] == [True, False], "the fork holds the new question, not the old one")
    say("agent", seen["end"]["last"])
    expect(
        seen["old_end"] == resumed["end"],
        f"the first branch is still there with its {seen['old_end']['messages']} messages; "
        f"the fork has {seen['end']['messages']}",
    )


def milliseconds(runs: list[dict[str, Any]], method: str) -> float:
    """Give the median time of a method over all the processes of a run."""
    return statistics.median(each for run in runs for each in run["samples"][method]) * 1000


def result_table(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]], sizes: tuple[int | None, int]
) -> Table:
    """Put both runs side by side."""
    table = Table(title="The same run on both savers", title_justify="left")
    table.add_column("")
    for name in ("holdfast", "official SQLite saver", "official ÷ holdfast"):
        table.add_column(name, justify="right")
    for what in ("checkpoints", "messages"):
        table.add_row(f"{what} kept", f"{ours[-1][what]:,}", f"{theirs[-1][what]:,}", "")
    mine, official = sizes
    if mine is None:
        table.add_row("bytes stored", "on the server", f"{official:,}", "")
    else:
        ratio = f"{official / mine:.1f}" if mine else ""
        table.add_row("bytes stored", f"{mine:,}", f"{official:,}", ratio)
    for method in MEASURED:
        fast, slow = milliseconds(ours, method), milliseconds(theirs, method)
        table.add_row(f"{method}, median", f"{fast:.2f} ms", f"{slow:.2f} ms", f"{slow / fast:.1f}")
    return table


def demonstrate(folder: Path, store: str) -> None:
    """Run the three processes on holdfast, telling what happens, then on the official saver."""
    path = store_file(store)
    before = stored_bytes(path) if path else 0
    thread = f"demo-{uuid.uuid4()}"
    shown = re.sub("//[^/]*@", "//…@", store)  # a URL may hold a password
    console.print(f"Store: {escape(shown)}\n", soft_wrap=True)

    console.print("[bold]1. A process runs the agent until it needs approval[/]")
    asked = run_phase("ask", store, thread, folder)
    tell_asking(asked)
    console.print("\n[bold]2. A second process resumes it[/]")
    resumed = run_phase("resume", store, thread, folder)
    tell_resuming(asked, resumed, folder)
    console.print("\n[bold]3. A third process travels back in time and forks[/]")
    travelled = run_phase("travel", store, thread, folder)
    tell_travelling(resumed, travelled)
    ours = [asked, resumed, travelled]
    size = stored_bytes(path) - before if path else None

    console.print("\n[bold]4. The very same run with LangGraph's official SQLite saver[/]")
    official = folder / "official.db"
    theirs = [run_phase(each, f"{OFFICIAL}{official}", thread, folder) for each in PHASES]
    expect(
        all(
            mine["end"]["fingerprint"] == other["end"]["fingerprint"]
            for mine, other in zip(ours, theirs, strict=True)
        )
        and travelled["checkpoints"] == theirs[-1]["checkpoints"],
        "both savers hold the same conversations and as many checkpoints\n",
    )
    console.print(result_table(ours, theirs, (size, stored_bytes(official))))


def main() -> int:
    """Run the demo; the exit status is 0 only if every check held."""
    given = os.environ.get("HOLDFAST_URL")
    if given is not None and given.startswith("memory:"):
        console.print("HOLDFAST_URL: memory:// ends with its process; this demo needs a store.")
        return 2
    folder = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
    store = given or f"sqlite:///{folder / 'holdfast.db'}"
    try:
        demonstrate(folder, store)
    except Failed as failure:
        console.print(f"  [red]✗ failed:[/] {escape(str(failure))}")
        console.print(f"  What there is, is in {folder}", soft_wrap=True)
        return 1
    shutil.rmtree(folder)
    if given is None:
        console.print("The files are removed. To keep them: HOLDFAST_URL=sqlite:///demo.db")
    return 0


if __name__ == "__main__":
    sys.exit(main())
