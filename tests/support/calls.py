"""One way to call a saver, whichever of its two sides answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import Any

import holdfast
from holdfast.lease import ThreadLease
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)

MODES = ("sync", "async")


class Calls:
    """The saver's methods as coroutines: its `a…` side, or its plain side in a thread."""

    def __init__(self, saver: holdfast.Saver, mode: str) -> None:
        self.saver = saver
        self.mode = mode

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self.mode == "async":
            return await getattr(self.saver, f"a{method}")(*args, **kwargs)
        return await asyncio.to_thread(getattr(self.saver, method), *args, **kwargs)

    async def setup(self) -> None:
        await self.call("setup")

    async def close(self) -> None:
        await self.call("close")

    async def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await self.call("get_tuple", config)

    async def must_get(self, config: RunnableConfig) -> CheckpointTuple:
        found = await self.get_tuple(config)
        assert found is not None, f"no checkpoint at {config['configurable']}"
        return found

    async def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return await self.call("put", config, checkpoint, metadata, new_versions)

    async def put_writes(
        self,
        config: RunnableConfig,
        writes: Iterable[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        await self.call("put_writes", config, writes, task_id, task_path)

    async def list(self, config: RunnableConfig | None, **how: Any) -> list[CheckpointTuple]:
        if self.mode == "async":
            return [found async for found in self.saver.alist(config, **how)]
        return await asyncio.to_thread(lambda: [*self.saver.list(config, **how)])

    async def ids(self, config: RunnableConfig | None, **how: Any) -> list[str]:
        """The ids that `list` gives, in its order."""
        found = await self.list(config, **how)
        return [one.config["configurable"]["checkpoint_id"] for one in found]

    def listing(self, config: RunnableConfig | None) -> Listing:
        """A listing to take one checkpoint after the other from."""
        return Listing(self, config)

    async def delete_thread(self, thread_id: str) -> None:
        await self.call("delete_thread", thread_id)

    async def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        await self.call("delete_for_runs", run_ids)

    async def copy_thread(self, source: str, target: str) -> None:
        await self.call("copy_thread", source, target)

    async def prune(self, thread_ids: Sequence[str], **how: Any) -> None:
        await self.call("prune", thread_ids, **how)

    async def threads(self, *args: Any, **how: Any) -> list[holdfast.Thread]:
        return await self.call("threads", *args, **how)

    async def sweep(self, *args: Any, **how: Any) -> holdfast.Swept:
        return await self.call("sweep", *args, **how)

    async def persist(self, thread_id: str) -> bool:
        return await self.call("persist", thread_id)

    async def expire(self, thread_id: str, ttl: float | None = None) -> bool:
        return await self.call("expire", thread_id, ttl)

    @asynccontextmanager
    async def lease(self, thread_id: str, **how: Any) -> AsyncIterator[ThreadLease]:
        """The lease of a thread, for what is called inside the block."""
        lease = self.saver.lease(thread_id, **how)
        if self.mode == "async":
            async with lease:
                yield lease
            return
        await in_thread(lease.__enter__)
        try:
            yield lease
        finally:
            await in_thread(lease.__exit__, None, None, None)

    async def renew(self, lease: ThreadLease) -> None:
        if self.mode == "async":
            await lease.arenew()
        else:
            await asyncio.to_thread(lease.renew)

    async def history(
        self, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return await self.call("get_delta_channel_history", config=config, channels=channels)

    async def walked(
        self, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """The same history by the base class's own walk over `get_tuple`: the oracle."""
        if self.mode == "async":
            walk = BaseCheckpointSaver.aget_delta_channel_history
            return await walk(self.saver, config=config, channels=channels)
        walk_sync = BaseCheckpointSaver.get_delta_channel_history
        return await asyncio.to_thread(walk_sync, self.saver, config=config, channels=channels)


async def in_thread(work: Callable[..., Any], *args: Any) -> Any:
    """Work in a thread as if it were called here: also what it does to the context stays."""
    context = copy_context()
    result = await asyncio.to_thread(context.run, work, *args)
    for variable, value in context.items():
        variable.set(value)
    return result


class Listing:
    """What `list` iterates over, one step at a time."""

    def __init__(self, calls: Calls, config: RunnableConfig | None) -> None:
        self._mode = calls.mode
        listed: Any = calls.saver.alist if calls.mode == "async" else calls.saver.list
        self._listed = listed(config)

    async def take(self) -> CheckpointTuple:
        if self._mode == "async":
            return await anext(self._listed)
        return await asyncio.to_thread(next, self._listed)

    async def close(self) -> None:
        if self._mode == "async":
            await self._listed.aclose()
        else:
            await asyncio.to_thread(self._listed.close)
