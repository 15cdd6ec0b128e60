"""Runs a workload on a saver, times each call and compares everything read with what was put."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from operator import itemgetter
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.base.id import uuid6

from benches.savers import PEERS, Peer, Saver
from benches.workloads import Superstep, Workload

T = TypeVar("T")

THREAD = "bench"
READ_EVERY = 10
"""The head is read and compared after each so many supersteps."""


TASK = itemgetter(0)
"""Sorts writes by their task; within a task they stay in the order given."""


class Mismatch(AssertionError):
    """What was read is not what was put: the benchmark is worth nothing."""


@dataclass(frozen=True)
class Record:
    """One checkpoint as it was put."""

    config: RunnableConfig
    checkpoint: Checkpoint
    metadata: CheckpointMetadata
    parent: str | None
    writes: list[tuple[str, str, Any]]


@dataclass
class Run:
    """What was put on one thread, and how long each call took, in seconds."""

    thread: str = THREAD
    records: list[Record] = field(default_factory=list)
    puts: list[float] = field(default_factory=list)
    writes: list[float] = field(default_factory=list)
    versions: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def head(self) -> Record:
        """The newest checkpoint."""
        return self.records[-1]


class Timer:
    """Adds the time that a `with` block takes to a list."""

    def __init__(self, seconds: list[float]) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def thread_config(thread: str = THREAD) -> RunnableConfig:
    """Give the config that names the root namespace of a thread."""
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}


def begin(saver: Saver, workload: Workload) -> Run:
    """Give a run on which every channel of the workload that should has a version."""
    first = saver.get_next_version(None, None)
    return Run(versions=dict.fromkeys(workload.channels, first))


def make_checkpoint(saver: Saver, run: Run, superstep: Superstep, step: int) -> Checkpoint:
    """Make the superstep's checkpoint, with versions as Pregel gives them."""
    for node, triggers in superstep.ran.items():
        seen = {channel: run.versions[channel] for channel in triggers if channel in run.versions}
        run.seen[node] = run.seen.get(node, {}) | seen
    version = saver.get_next_version(max(run.versions.values(), default=None), None)
    run.versions = run.versions | dict.fromkeys(superstep.updated, version)
    moment = datetime(2024, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=step)
    return Checkpoint(
        v=4,
        id=str(uuid6(clock_seq=step)),
        ts=moment.isoformat(),
        channel_values=superstep.values,
        channel_versions=dict(run.versions),
        versions_seen={node: dict(seen) for node, seen in run.seen.items()},
        updated_channels=sorted(superstep.updated),
    )


async def do_superstep(saver: Saver, run: Run, superstep: Superstep, step: int) -> None:
    """Put one checkpoint and the writes of its tasks, and note what must come back."""
    parent = run.head.checkpoint["id"] if run.records else None
    config = run.head.config if run.records else thread_config(run.thread)
    checkpoint = make_checkpoint(saver, run, superstep, step)
    metadata: CheckpointMetadata = {"source": "loop", "step": step, "parents": {}}
    new_versions = {name: run.versions[name] for name in superstep.updated}
    with Timer(run.puts):
        config = await saver.aput(config, checkpoint, metadata, new_versions)
    written = []
    for task, writes in superstep.writes.items():
        with Timer(run.writes):
            await saver.aput_writes(config, writes, task, "")
        written += [(task, channel, value) for channel, value in writes]
    written.sort(key=TASK)
    run.records.append(Record(config, checkpoint, metadata, parent, written))


async def run_workload(saver: Saver, workload: Workload) -> Run:
    """Put the whole workload; every tenth superstep the head is read and compared."""
    run = begin(saver, workload)
    for step, superstep in enumerate(workload.supersteps):
        await do_superstep(saver, run, superstep, step)
        if step % READ_EVERY == READ_EVERY - 1:
            compare(await saver.aget_tuple(thread_config()), run.head)
    return run


def compare(found: CheckpointTuple | None, record: Record) -> None:
    """Raise Mismatch unless the tuple is the record in every respect."""
    if found is None:
        raise Mismatch("the checkpoint was not found")
    parent = found.parent_config and found.parent_config["configurable"]["checkpoint_id"]
    wanted = record.checkpoint
    pairs: list[tuple[str, Any, Any]] = [
        (name, found.checkpoint.get(name), wanted.get(name)) for name in wanted
    ]
    pairs += [
        ("parent", parent, record.parent),
        ("metadata", found.metadata, record.metadata),
        ("writes", writes_of(found), record.writes),
    ]
    for what, read, put in pairs:
        if read != put:
            raise Mismatch(f"checkpoint {wanted['id']}: {what} differs from what was put")


def writes_of(found: CheckpointTuple) -> list[tuple[str, str, Any]]:
    """Give the pending writes by task: some savers give them as they came."""
    return sorted((tuple(each) for each in found.pending_writes or ()), key=TASK)


async def compare_all(saver: Saver, run: Run) -> None:
    """Read the thread's every checkpoint and compare it with what was put."""
    left = list(run.records)
    async for found in saver.alist(thread_config(run.thread)):
        if not left:
            raise Mismatch("there are more checkpoints than were put")
        compare(found, left.pop())
    if left:
        raise Mismatch(f"{len(left)} checkpoints are missing")


def choose(names: Sequence[str]) -> list[Peer]:
    """Give the savers of these names."""
    return [PEERS[name] for name in names]


def rotations(savers: list[T], repetitions: int) -> Iterator[T]:
    """Give all savers as often as asked, another one first each time: none is always last."""
    for number in range(repetitions):
        first = number % len(savers)
        yield from savers[first:] + savers[:first]
