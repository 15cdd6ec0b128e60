"""Redis: a server without room keeps what it took, and takes more once there is room again."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import holdfast
from redis import Redis
from support.audit import audit
from support.calls import Calls
from support.make import checkpoint, config
from support.redis_server import RedisServer

MESSAGES = [f"message {i} {i * 7919 % 1000003:x} " * 40 for i in range(60)]
NEW = checkpoint(1, {"state": ["there is room again"] * 50})


async def test_a_server_that_fills_up_keeps_what_it_took(mode: str) -> None:
    """All of it is whole, for whoever reads it. A thread that is deleted makes room for another."""
    taken: dict[str, list[Any]] = {}

    async def fill(worker: int) -> None:
        """Threads of three checkpoints with writes, until there is no room."""
        for number in range(10_000):
            thread = f"{worker} {number}"
            taken[thread] = []
            for step in range(1, 4):
                made = checkpoint(step, {"state": [f"{thread} {step} {line}" for line in MESSAGES]})
                stored = await calls.put(config(thread), made, {}, made["channel_versions"])
                taken[thread].append([made, None])
                await calls.put_writes(stored, [("state", made["channel_values"]["state"])], "task")
                taken[thread][-1][1] = [("task", "state", made["channel_values"]["state"])]

    async def are_whole(readers: Calls, threads: Collection[str]) -> None:
        for thread in threads:
            found = {one.checkpoint["id"]: one for one in await readers.list(config(thread))}
            for made, writes in taken[thread]:
                one = found.pop(made["id"])
                assert one.checkpoint == made
                assert (one.pending_writes or []) == (writes or [])
            assert not found, "what was refused is there"

    with RedisServer({"maxmemory": "6mb"}) as server:
        calls = Calls(holdfast.open(server.url, retry_budget=0), mode)
        fills = asyncio.gather(*(fill(worker) for worker in range(3)), return_exceptions=True)
        assert {type(error) for error in await fills} == {holdfast.StoreFull}
        assert len(taken) > 6
        cold = Calls(holdfast.open(server.url, cache_bytes=0), mode)
        for readers in (calls, cold):
            await are_whole(readers, taken)
        with Redis.from_url(server.url) as client:
            assert client.info()["used_memory"] > 6 << 20
            assert audit(client).keys() == {thread for thread in taken if taken[thread]}
        gone, kept = sorted(taken)[::2], sorted(taken)[1::2]
        for thread in gone:
            await calls.delete_thread(thread)
            assert await cold.get_tuple(config(thread)) is None
        await are_whole(cold, kept)
        await calls.put(config("new"), NEW, {}, {})
        assert (await cold.must_get(config("new"))).checkpoint == NEW
        await calls.close()
        await cold.close()
