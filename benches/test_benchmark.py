"""Puts and reads of a chat's head on each saver, for `pytest-benchmark` to time and compare."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benches.harness import Run, compare, do_superstep, run_workload, thread_config
from benches.savers import PEERS, Saver
from benches.workloads import chat

STEPS, ROUNDS = 200, 20


class Head:
    """A saver that holds all but the last rounds of a chat, driven from synchronous code."""

    def __init__(self, loop: asyncio.AbstractEventLoop, saver: Saver) -> None:
        self.run_until_complete = loop.run_until_complete
        self.saver = saver
        workload = chat(STEPS + ROUNDS)
        self.left = workload.supersteps[STEPS:]
        del workload.supersteps[STEPS:]
        self.run: Run = self.run_until_complete(run_workload(saver, workload))

    def put(self) -> None:
        """Put the next superstep: a checkpoint and its writes."""
        step = len(self.run.records)
        self.run_until_complete(do_superstep(self.saver, self.run, self.left.pop(0), step))

    def get(self) -> Any:
        """Read the head."""
        return self.run_until_complete(self.saver.aget_tuple(thread_config()))


@pytest.fixture(params=PEERS)
def head(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Head]:
    """Give each saver with its chat."""
    peer = PEERS[request.param]
    loop = asyncio.new_event_loop()
    with peer.place(tmp_path) as place:
        opened = peer.open(place.location)
        saver = loop.run_until_complete(opened.__aenter__())
        try:
            yield Head(loop, saver)
        finally:
            loop.run_until_complete(opened.__aexit__(None, None, None))
            loop.close()


@pytest.mark.benchmark(group=f"put at {2 * STEPS} messages")
def test_put(benchmark: Any, head: Head) -> None:
    """Put a checkpoint and its writes onto a long chat."""
    benchmark.pedantic(head.put, rounds=ROUNDS)
    compare(head.get(), head.run.head)


@pytest.mark.benchmark(group=f"get at {2 * STEPS} messages")
def test_get(benchmark: Any, head: Head) -> None:
    """Read the head of a long chat."""
    found = benchmark.pedantic(head.get, rounds=ROUNDS, warmup_rounds=1)
    compare(found, head.run.head)
