"""What a saver does with whole threads: list, remove, copy, expire, lease."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Sequence
from datetime import datetime
from typing import Any

from holdfast import steps
from holdfast.lease import ThreadLease, held_fence
from holdfast.lifecycle import Lifecycle
from holdfast.options import LONGEST_TTL
from holdfast.sweeper import Sweeper
from holdfast.threads import Swept, Thread


class AsyncThreads:
    """What `athreads` returns: `await` it for a list, or iterate over it with `async for`."""

    def __init__(self, iterate: Callable[[], AsyncIterator[Thread]]) -> None:
        self._iterate = iterate

    def __aiter__(self) -> AsyncIterator[Thread]:
        return self._iterate()

    def __await__(self) -> Generator[Any, None, list[Thread]]:
        return self._list().__await__()

    async def _list(self) -> list[Thread]:
        return [thread async for thread in self]


class Maintenance(Lifecycle):
    """What a saver does with whole threads."""

    def _now(self) -> float:
        return self._live.backend.clock()

    # --- looking ---

    def threads(
        self,
        prefix: str | None = None,
        *,
        unfinished: bool | None = None,
        idle_for: float | None = None,
        before: Thread | datetime | None = None,
        limit: int | None = None,
        sizes: bool = False,
    ) -> list[Thread]:
        """Threads that have checkpoints, last written first.

        Args:
            prefix: What their ids begin with.
            unfinished: Whether a node is due to run, or waits for a person.
            idle_for: Only those that were not written for so many seconds.
            before: Only those that were last written before this; or those that follow this one
                in the list, to go on where an earlier list ended.
            limit: How many at most.
            sizes: Whether to count the bytes of each: that reads all ids of its chunks.

        Raises:
            StoreUnavailable: The store cannot be reached.
        """
        listing = steps.ThreadListing.of(
            prefix, unfinished, idle_for, before, limit, sizes, self._now()
        )
        found: list[Thread] = []
        while not listing.is_done:
            found += self._run(steps.list_threads(self._live.core, self.serde, listing))
        return found

    def athreads(
        self,
        prefix: str | None = None,
        *,
        unfinished: bool | None = None,
        idle_for: float | None = None,
        before: Thread | datetime | None = None,
        limit: int | None = None,
        sizes: bool = False,
    ) -> AsyncThreads:
        """As `threads`: `await` the result for a list, or iterate over it with `async for`."""

        async def iterate() -> AsyncIterator[Thread]:
            listing = steps.ThreadListing.of(
                prefix, unfinished, idle_for, before, limit, sizes, self._now()
            )
            while not listing.is_done:
                page = await self._arun(steps.list_threads(self._live.core, self.serde, listing))
                for thread in page:
                    yield thread

        return AsyncThreads(iterate)

    # --- time ---

    def persist(self, thread_id: str) -> bool:
        """Have a thread never expire, whatever `ttl` those have who write to it: whether there is
        such a thread."""
        return self._run(steps.expire(str(thread_id), None))

    async def apersist(self, thread_id: str) -> bool:
        """As `persist`."""
        return await self._arun(steps.expire(str(thread_id), None))

    def expire(self, thread_id: str, ttl: float | None = None) -> bool:
        """Have a thread expire, also one that was persisted: whether there is such a thread.

        Args:
            thread_id: Its id.
            ttl: Seconds from now; the next write has the `ttl` of who writes. None for the
                saver's own `ttl`.

        Raises:
            ValueError: Neither says when.
        """
        return self._run(steps.expire(str(thread_id), self._ttl(ttl)))

    async def aexpire(self, thread_id: str, ttl: float | None = None) -> bool:
        """As `expire`."""
        return await self._arun(steps.expire(str(thread_id), self._ttl(ttl)))

    def _ttl(self, ttl: float | None) -> float:
        seconds = self._live.options.ttl if ttl is None else ttl
        if seconds is None or not 0 < seconds <= LONGEST_TTL:
            raise ValueError(
                "expire needs a number of seconds above 0: give it a ttl, or open the saver with "
                "one. To have a thread never expire there is persist."
            )
        return seconds

    def lease(self, thread_id: str, *, seconds: float = 60.0, wait: float = 0.0) -> ThreadLease:
        """The right to be a thread's only writer, under `with` or `async with`.

        What runs inside the block may write, in tasks and threads that it starts too, as
        LangGraph does; all others are refused with `LeaseLost`, and read as always.

        Args:
            thread_id: Its id; the thread need not be there.
            seconds: For which the lease lasts from each write on.
            wait: Seconds to wait while another has it.

        Raises:
            LeaseHeld: On entering, another has it.
        """
        return ThreadLease(self._live, str(thread_id), seconds, wait)

    # --- removing and copying ---

    def sweep(
        self,
        idle_for: float | None = None,
        *,
        keep_last: int | None = None,
        keep_interrupted: bool = True,
        dry_run: bool = False,
        progress: Callable[[Swept], None] | None = None,
    ) -> Swept:
        """Remove from the whole store what is no longer wanted: threads that have expired or
        are idle, old checkpoints, and chunks that nothing refers to.

        In small batches, so that nobody waits for long. What is written meanwhile is not lost,
        and several processes may sweep at once. Threads under a lease are left alone.

        Args:
            idle_for: Seconds; threads that were not written for so long go as a whole.
            keep_last: Checkpoints to keep in each namespace; None for the saver's own option.
            keep_interrupted: Whether idle threads stay whose run would go on: a node is due, or
                waits for a person.
            dry_run: Whether only to count.
            progress: Is called after each thread with what went so far.

        Returns:
            What went, or would have.

        Raises:
            StoreUnavailable: The store cannot be reached. What went until then is gone.
        """
        plan = self._plan(idle_for, keep_last, keep_interrupted, dry_run, progress)
        return self._run(steps.sweep(self._live.core, self.serde, plan))

    async def asweep(
        self,
        idle_for: float | None = None,
        *,
        keep_last: int | None = None,
        keep_interrupted: bool = True,
        dry_run: bool = False,
        progress: Callable[[Swept], None] | None = None,
    ) -> Swept:
        """As `sweep`."""
        plan = self._plan(idle_for, keep_last, keep_interrupted, dry_run, progress)
        return await self._arun(steps.sweep(self._live.core, self.serde, plan))

    def _plan(
        self,
        idle_for: float | None,
        keep_last: int | None,
        keep_interrupted: bool,
        dry_run: bool,
        progress: Callable[[Swept], None] | None,
    ) -> steps.SweepPlan:
        if keep_last is not None and keep_last < 1:
            raise ValueError("keep_last is a number of checkpoints, at least 1")
        if idle_for is not None and not idle_for >= 0:
            raise ValueError("idle_for is a number of seconds")
        return steps.SweepPlan(
            idle_for=idle_for,
            keep_last=self._live.options.keep_last if keep_last is None else keep_last,
            keep_interrupted=keep_interrupted,
            dry_run=dry_run,
            now=self._now(),
            progress=progress,
        )

    def sweeper(
        self,
        every: float = 3600.0,
        *,
        idle_for: float | None = None,
        keep_last: int | None = None,
        keep_interrupted: bool = True,
        progress: Callable[[Swept], None] | None = None,
    ) -> Sweeper:
        """Sweeps in the background for as long as the block runs: in a thread under `with`, in a
        task under `async with`. Several processes may do so on one store.

        Args:
            every: Seconds between the end of one sweep and the beginning of the next.
            idle_for: This and what follows, as for `sweep`.
        """
        what: dict[str, Any] = {
            "idle_for": idle_for,
            "keep_last": keep_last,
            "keep_interrupted": keep_interrupted,
        }
        # Raises at once what is wrong with them.
        self._plan(**what, dry_run=False, progress=progress)

        def sweep(told: Callable[[Swept], None]) -> Swept:
            return self.sweep(**what, progress=told)

        async def asweep(told: Callable[[Swept], None]) -> Swept:
            return await self.asweep(**what, progress=told)

        return Sweeper(every, sweep, asweep, progress)

    def delete_thread(self, thread_id: str) -> None:
        """Remove all of a thread: checkpoints, writes, chunks.

        A run that is under way cannot bring it back: its late writes are refused with
        `ThreadDeleted`, for a day. A run that begins now starts the thread anew.
        """
        self._run(steps.delete_thread(self._live.core, str(thread_id)))

    async def adelete_thread(self, thread_id: str) -> None:
        """As `delete_thread`."""
        await self._arun(steps.delete_thread(self._live.core, str(thread_id)))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints of runs, but for those that delta channels are rebuilt from.

        Raises:
            TypeError: `run_ids` is a str.
        """
        self._run(steps.delete_for_runs(self._live.core, self.serde, run_ids, self._now()))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `delete_for_runs`."""
        await self._arun(steps.delete_for_runs(self._live.core, self.serde, run_ids, self._now()))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread with its whole history.

        Raises:
            LeaseLost: Another is the target's only writer.
        """
        target = str(target_thread_id)
        fence = held_fence(self._live, target)
        self._run(steps.copy_thread(self._live.core, str(source_thread_id), target, fence=fence))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `copy_thread`."""
        target = str(target_thread_id)
        fence = held_fence(self._live, target)
        await self._arun(
            steps.copy_thread(self._live.core, str(source_thread_id), target, fence=fence)
        )

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep the latest checkpoint of each namespace (`keep_latest`), or none (`delete`).

        Checkpoints that a kept one's delta channels are rebuilt from stay as well.

        Raises:
            TypeError: `thread_ids` is a str.
            ValueError: The strategy is unknown.
        """
        self._run(steps.prune(self._live.core, self.serde, thread_ids, strategy, self._now()))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As `prune`."""
        await self._arun(
            steps.prune(self._live.core, self.serde, thread_ids, strategy, self._now())
        )
