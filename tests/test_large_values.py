"""Large values: what is long is done beside the event loop, and in pieces that stores take."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import pytest
from support.backends import Backend
from support.calls import Calls
from support.make import checkpoint, config, version


class Watched:
    """A core that notes which threads plan commits."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self.threads: list[int] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("draft_"):
            self.threads.append(threading.get_ident())
        return getattr(self._core, name)


@pytest.mark.parametrize("size", [1000, 1_000_000], ids=["small", "large"])
async def test_a_large_value_is_split_beside_the_event_loop(
    backend: Backend, tmp_path: Path, size: int
) -> None:
    words = [random.Random(number).randbytes(500).hex() for number in range(size // 1000)]
    async with backend.open(tmp_path) as saver:
        watched = saver._live.core = Watched(saver._live.core)  # type: ignore[assignment]
        one = checkpoint(1, {"state": words}, {"state": version(1)})
        stored = await saver.aput(config(), one, {}, one["channel_versions"])
        await saver.aput_writes(stored, [("state", words)], "task")
        assert len(watched.threads) == 2
        is_beside = {thread != threading.get_ident() for thread in watched.threads}
        assert is_beside == {size > 256 << 10}


async def test_a_state_of_ten_megabytes_comes_back(calls: Calls) -> None:
    rng = random.Random(1)
    state = {
        "messages": [f"{number} {rng.randbytes(350).hex()}" for number in range(12_000)],
        "document": rng.randbytes(1_500_000),
    }
    versions = dict.fromkeys(state, version(1))
    stored = await calls.put(config(), checkpoint(1, state, versions), {}, versions)
    state["messages"].append("one more")
    versions = {"messages": version(2), "document": version(1)}
    grown = checkpoint(2, state, versions)
    stored = await calls.put(stored, grown, {}, {"messages": version(2)})
    await calls.put_writes(stored, [("messages", state["messages"][:5000])], "task")
    found = await calls.get_tuple(config())
    assert found is not None
    assert found.checkpoint == grown
    assert found.pending_writes == [("task", "messages", state["messages"][:5000])]
