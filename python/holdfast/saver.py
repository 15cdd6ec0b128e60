"""The saver that LangGraph calls: one object for sync and async.

Each method is two lines: its steps, and the driver that runs them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from holdfast import steps
from holdfast.backends.base import Backend, Fence
from holdfast.drive import Steps
from holdfast.lease import held_fence, under_its_lease
from holdfast.live import Live
from holdfast.maintenance import Maintenance
from holdfast.options import Options
from holdfast.serde import Serializer
from holdfast.versions import next_version


class Saver(Maintenance, BaseCheckpointSaver[str]):
    """A checkpoint saver that stores each message once and each checkpoint whole.

    Use it as LangGraph's own savers, from sync and async code alike, and from several
    threads, event loops and processes at once. As a context manager, sync or async, it
    closes what it opened.

    Args:
        backend: The store.
        options: What `holdfast.open` takes; see `holdfast.Options`.
        serde: LangGraph's serializer protocol; may be assigned later.
    """

    serde: SerializerProtocol = Serializer()

    def __init__(
        self, backend: Backend, options: Options, *, serde: SerializerProtocol | None = None
    ) -> None:
        super().__init__(serde=serde)
        self._live = Live(backend, options)

    # --- reading ---

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that `config` names, or the latest one; None if there is none.

        Raises:
            CheckpointCorrupted: Its stored bytes are damaged or missing.
            StoreUnavailable: The store cannot be reached.
        """
        return self._run(steps.get_tuple(self._live.core, self.serde, config))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        return await self._arun(steps.get_tuple(self._live.core, self.serde, config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, newest first; see LangGraph's contract for the arguments.

        Nothing is held open between items: an abandoned iterator leaks nothing.
        """
        listing = steps.Listing.of(config, filter, before, limit)
        while not listing.is_done:
            page = self._run(steps.list_page(self._live.core, self.serde, listing))
            for loaded in page:
                yield loaded.decode(self.serde)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As `list`."""
        listing = steps.Listing.of(config, filter, before, limit)
        while not listing.is_done:
            page = await self._arun(steps.list_page(self._live.core, self.serde, listing))
            for loaded in page:
                yield loaded.decode(self.serde)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What each channel's value is rebuilt from, in a bounded number of round trips."""
        return self._run(
            steps.get_delta_channel_history(self._live.core, self.serde, config, channels)
        )

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As `get_delta_channel_history`."""
        return await self._arun(
            steps.get_delta_channel_history(self._live.core, self.serde, config, channels)
        )

    # --- writing ---

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, whole or not at all; the config that names it.

        Raises:
            TypeError: The serializer refuses a value; names its channel. Nothing is stored.
            StoreUnavailable: The store cannot be reached or written.
            StoreFull: The store has no room. Nothing is stored.
            ThreadDeleted: The thread was deleted since the run began. Nothing is stored.
            CheckpointRemoved: The parent is gone, and channels are rebuilt from it. Nothing is
                stored.
            LeaseLost: Another is the thread's only writer. Nothing is stored.
        """
        return self._run(self._put(config, checkpoint, metadata, new_versions))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`. The values are taken when it is first awaited, or its task first runs."""
        return await self._arun(self._put(config, checkpoint, metadata, new_versions))

    def _put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Steps[RunnableConfig]:
        live = self._live
        return steps.put(
            live.core,
            self.serde,
            config,
            checkpoint,
            metadata,
            new_versions,
            shows_state=live.backend.shows_state,
            fence=self._fence(config),
            trim=live.trim,
        )

    def _fence(self, config: RunnableConfig) -> Fence | None:
        return held_fence(self._live, str(config["configurable"]["thread_id"]))

    @under_its_lease
    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store the pending writes of a task. A regular write that exists stays as it is.

        Raises:
            As `put`.
        """
        self._run(self._put_writes(config, writes, task_id, task_path))

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """As `put_writes`."""
        await self._arun(self._put_writes(config, writes, task_id, task_path))

    def _put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
    ) -> Steps[None]:
        return steps.put_writes(
            self._live.core,
            self.serde,
            config,
            writes,
            task_id,
            task_path,
            fence=self._fence(config),
        )

    def get_next_version(self, current: str | None, channel: None) -> str:
        """The version after `current`; an int is accepted too."""
        return next_version(current)
