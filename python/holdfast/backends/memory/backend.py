"""Requests as look-ups in dictionaries, one at a time."""

from __future__ import annotations

import threading
from typing import Any

from holdfast.backends.base import Backend, Request
from holdfast.backends.memory.changes import Changes
from holdfast.backends.memory.reads import Reads
from holdfast.backends.memory.state import State
from holdfast.backends.memory.threads import Threads
from holdfast.options import Options


class MemoryBackend(Backend):
    """Keeps threads in dictionaries, each request under one lock.

    Args:
        options: `ttl` and `refresh_on_read` are heeded here.
    """

    def __init__(self, options: Options) -> None:
        self._state = State(self._now, options.ttl, refreshes=options.refresh_on_read)
        self._answers = {
            **Reads(self._state).answers,
            **Changes(self._state).answers,
            **Threads(self._state).answers,
        }
        self._lock = threading.Lock()

    def _now(self) -> float:
        """By the clock that is set when it is asked."""
        return self.clock()

    def setup(self) -> None:
        pass

    async def asetup(self) -> None:
        pass

    def execute(self, request: Request) -> Any:
        with self._lock:
            return self._answers[type(request)](request)

    async def aexecute(self, request: Request) -> Any:
        return self.execute(request)

    def close(self) -> None:
        pass

    async def aclose(self) -> None:
        pass

    def abandon(self) -> None:
        pass

    def after_fork(self) -> None:
        self._lock = threading.Lock()
