"""Event loops seen from a thread beside them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from holdfast.errors import ConfigurationError

T = TypeVar("T")

# Seconds after which a thread that waits for an event loop sees whether it still runs.
_PATIENCE = 0.2


class LoopEnded(ConnectionError):
    """The event loop that was to do the work has ended."""


class Owner:
    """The event loop that something given belongs to: that which runs when it is given, else the
    first that uses it; and when that has ended, the next.

    Args:
        what: What was given, for messages.
        other: What could be given besides, or in its place, with these words.
    """

    def __init__(self, what: str, other: str) -> None:
        self._what = what
        self._other = other
        running = running_loop()
        self._loop = None if running is None else weakref.ref(running)

    def is_elsewhere(self) -> bool:
        """Whether its loop runs, and is not the running one; which it is from now on otherwise."""
        running = asyncio.get_running_loop()
        owner = self._loop() if self._loop else None
        if owner is running:
            return False
        if owner is not None and owner.is_running():
            return True
        self._loop = weakref.ref(running)
        return False

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Have the work done on the loop, and wait for it in this thread.

        Raises:
            ConfigurationError: The loop does not run, or runs in this very thread.
            LoopEnded: It ended before the work did.
        """
        loop = self._loop() if self._loop else None
        if loop is None or not loop.is_running():
            raise ConfigurationError(
                f"only {self._what} was given, and its event loop is not running: use the saver "
                f"from async code, or give {self._other}"
            )
        if running_loop() is loop:
            raise ConfigurationError(
                f"a sync method was called on the event loop of {self._what}, which would wait "
                f"for itself: await the method with an a before its name, or give {self._other}"
            )
        coming = asyncio.run_coroutine_threadsafe(work(), loop)
        while True:
            try:
                return coming.result(_PATIENCE)
            except concurrent.futures.TimeoutError:
                if coming.done():
                    return coming.result()  # which may be such an error itself
                if loop.is_running():
                    continue
                raise LoopEnded(f"the event loop of {self._what} has ended") from None
            except concurrent.futures.CancelledError:
                raise LoopEnded(f"the event loop of {self._what} is ending") from None


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
