"""The saver that LangGraph calls: one object for sync and async.

Each method is two lines: its steps, and the driver that runs them.
"""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

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
from typing_extensions import Self

from holdfast import steps
from holdfast._core import Core
from holdfast.backends.base import Backend, Finding, Request
from holdfast.drive import Steps, adrive, drive
from holdfast.errors import HoldfastError
from holdfast.options import Options
from holdfast.serde import Serializer
from holdfast.versions import next_version

T = TypeVar("T")


class Live:
    """What a saver and its clones share: the backend, and the cache of its process."""

    def __init__(self, backend: Backend, options: Options) -> None:
        self.backend = backend
        self._options = options
        self.core = self._new_core()
        self.requests = self.errors = 0
        self.seconds = 0.0
        _alive.add(self)
        weakref.finalize(self, backend.abandon)

    def _new_core(self) -> Core:
        return Core(cache_bytes=self._options.cache_bytes, compression=self._options.compression)

    def execute(self, request: Request) -> Any:
        """Have a request answered, and count it."""
        begun = time.perf_counter()
        try:
            return self.backend.execute(request)
        except HoldfastError:
            self.errors += 1
            raise
        finally:
            self.requests += 1
            self.seconds += time.perf_counter() - begun

    async def aexecute(self, request: Request) -> Any:
        """As `execute`."""
        begun = time.perf_counter()
        try:
            return await self.backend.aexecute(request)
        except HoldfastError:
            self.errors += 1
            raise
        finally:
            self.requests += 1
            self.seconds += time.perf_counter() - begun

    def after_fork(self) -> None:
        # The parent's cache may be locked by a thread that the child does not have.
        self.core = self._new_core()
        self.backend.after_fork()


_alive: weakref.WeakSet[Live] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for live in list(_alive):
        live.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class Setup:
    """What `setup()` returns: done already outside a running loop, to be awaited inside one."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            backend.setup()

    def __await__(self) -> Generator[Any, None, None]:
        return self._backend.asetup().__await__()


class Saver(BaseCheckpointSaver[str]):
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

    def _run(self, wanted: Steps[T]) -> T:
        return drive(wanted, self._live.execute)

    async def _arun(self, wanted: Steps[T]) -> T:
        return await adrive(wanted, self._live.aexecute)

    # --- life ---

    def setup(self) -> Setup:
        """Create what the store lacks. Idempotent, and implied by first use.

        Outside a running event loop the work is done on return; inside one, when the
        result is awaited, or at first use.

        Raises:
            StoreUnavailable: The store cannot be reached or written.
        """
        return Setup(self._live.backend)

    initialize = setup

    async def asetup(self) -> None:
        """As `setup`."""
        await self._live.backend.asetup()

    def check(self) -> Sequence[Finding]:
        """Look at how the store keeps what it is given; what to do is said with each finding.

        Raises:
            StoreUnavailable: The store cannot be reached.
        """
        return self._run(steps.check())

    async def acheck(self) -> Sequence[Finding]:
        """As `check`."""
        return await self._arun(steps.check())

    def stats(self) -> dict[str, float]:
        """Figures since the saver was made, for monitoring: no round trip.

        Returns:
            `requests` (round trips that were asked of the store), `seconds` (that they took in
            all), `errors` (that were raised), `cache_bytes`; with Redis and Postgres `retries`
            (round trips that were tried again); with Postgres `pool_size`, `pool_idle` and
            `pool_waiting` (connections that are open, connections that nobody uses, and callers
            that wait for one).
        """
        live = self._live
        return {
            "requests": live.requests,
            "seconds": live.seconds,
            "errors": live.errors,
            "cache_bytes": live.core.cache_bytes,
            **live.backend.stats(),
        }

    async def astats(self) -> dict[str, float]:
        """As `stats`."""
        return self.stats()

    def close(self) -> None:
        """Release what the saver opened. Idempotent; a later call opens it again."""
        self._live.backend.close()

    async def aclose(self) -> None:
        """As `close`."""
        await self._live.backend.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

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
        """
        return self._run(
            steps.put(
                self._live.core,
                self.serde,
                config,
                checkpoint,
                metadata,
                new_versions,
                shows_state=self._live.backend.shows_state,
            )
        )

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`. The values are taken at the time of the call."""
        return await self._arun(
            steps.put(
                self._live.core,
                self.serde,
                config,
                checkpoint,
                metadata,
                new_versions,
                shows_state=self._live.backend.shows_state,
            )
        )

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store the pending writes of a task. A regular write that exists stays as it is."""
        self._run(steps.put_writes(self._live.core, self.serde, config, writes, task_id, task_path))

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """As `put_writes`."""
        await self._arun(
            steps.put_writes(self._live.core, self.serde, config, writes, task_id, task_path)
        )

    def get_next_version(self, current: str | None, channel: None) -> str:
        """The version after `current`; an int is accepted too."""
        return next_version(current)

    # --- removing and copying ---

    def delete_thread(self, thread_id: str) -> None:
        """Remove all of a thread: checkpoints, writes, chunks."""
        self._run(steps.delete_thread(self._live.core, str(thread_id)))

    async def adelete_thread(self, thread_id: str) -> None:
        """As `delete_thread`."""
        await self._arun(steps.delete_thread(self._live.core, str(thread_id)))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints of runs, but for those that delta channels are rebuilt from."""
        self._run(steps.delete_for_runs(self._live.core, self.serde, run_ids))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `delete_for_runs`."""
        await self._arun(steps.delete_for_runs(self._live.core, self.serde, run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread with its whole history."""
        self._run(steps.copy_thread(self._live.core, str(source_thread_id), str(target_thread_id)))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `copy_thread`."""
        await self._arun(
            steps.copy_thread(self._live.core, str(source_thread_id), str(target_thread_id))
        )

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep the latest checkpoint of each namespace (`keep_latest`), or none (`delete`).

        Checkpoints that a kept one's delta channels are rebuilt from stay as well.

        Raises:
            TypeError: `thread_ids` is a str.
            ValueError: The strategy is unknown.
        """
        self._run(steps.prune(self._live.core, self.serde, thread_ids, strategy))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As `prune`."""
        await self._arun(steps.prune(self._live.core, self.serde, thread_ids, strategy))
