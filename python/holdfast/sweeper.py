"""Sweep again and again in the background."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TypeAlias

from typing_extensions import Self

from holdfast.errors import HoldfastError
from holdfast.threads import Swept

Progress: TypeAlias = Callable[[Swept], None]

_logger = logging.getLogger(__name__)


class _Stopped(Exception):
    """The sweep that is under way is to end."""

    def __init__(self, swept: Swept) -> None:
        super().__init__()
        self.swept = swept


class Sweeper:
    """Sweeps a saver's store every so often until it is left: in a thread where it was entered with
    `with`, in a task where with `async with`. Several processes may do so on one store.

    A sweep that fails is logged, and tried again the next time. What is not holdfast's error ends
    it: that is logged, and raised where it is left.

    Args:
        every: Seconds between the end of one sweep and the beginning of the next; up to a tenth
            more, so that several sweepers do not keep step.
        sweep: Sweeps once, and tells after each thread what went so far.
        asweep: As `sweep`.
        progress: Is told the same.
    """

    def __init__(
        self,
        every: float,
        sweep: Callable[[Progress], Swept],
        asweep: Callable[[Progress], Awaitable[Swept]],
        progress: Progress | None,
    ) -> None:
        if not every > 0:
            raise ValueError("every is a number of seconds above 0")
        self._every = every
        self._sweep = sweep
        self._asweep = asweep
        self._progress = progress
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended: Exception | None = None
        self.sweeps = 0
        """How many sweeps were made."""
        self.failures = 0
        """How many failed."""
        self.swept = Swept()
        """What they removed in all."""

    def __enter__(self) -> Self:
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, name="holdfast-sweeper", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._raise()

    async def __aenter__(self) -> Self:
        self._stopped.clear()
        self._task = asyncio.create_task(self._arun(), name="holdfast-sweeper")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait([task])
        self._raise()

    def _raise(self) -> None:
        """Raise what has ended it, once."""
        ended, self._ended = self._ended, None
        if ended is not None:
            raise ended

    def _run(self) -> None:
        while True:
            try:
                self._count(self._sweep(self._told))
            except HoldfastError as failure:
                self._fail(failure)
            except _Stopped as stopped:
                self.swept += stopped.swept
                return
            except Exception as error:  # noqa: BLE001 - whoever leaves it gets it
                self._end(error)
                return
            if self._stopped.wait(self._pause()):
                return

    async def _arun(self) -> None:
        while True:
            try:
                self._count(await self._asweep(self._told))
            except HoldfastError as failure:
                self._fail(failure)
            except Exception as error:  # noqa: BLE001 - whoever leaves it gets it
                self._end(error)
                return
            await asyncio.sleep(self._pause())

    def _told(self, swept: Swept) -> None:
        if self._progress is not None:
            self._progress(swept)
        if self._stopped.is_set():
            raise _Stopped(swept)

    def _pause(self) -> float:
        return self._every * random.uniform(1, 1.1)  # noqa: S311 - not a secret

    def _count(self, swept: Swept) -> None:
        self.sweeps += 1
        self.swept += swept

    def _end(self, error: Exception) -> None:
        self._ended = error
        _logger.error("the sweeper has ended, nobody sweeps any more: %r", error)

    def _fail(self, failure: HoldfastError) -> None:
        self.failures += 1
        _logger.warning("the sweep failed, the next one tries again: %s", failure)
