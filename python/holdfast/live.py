"""What a saver and its clones share, and what a fork does to it."""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections.abc import Generator
from typing import Any

from holdfast._core import Core
from holdfast.backends.base import Backend, Request
from holdfast.errors import HoldfastError
from holdfast.options import Options
from holdfast.steps import Trim


class Live:
    """What a saver and its clones share: the backend, and the cache of its process."""

    def __init__(self, backend: Backend, options: Options) -> None:
        self.backend = backend
        self.options = options
        self.core = self._new_core()
        self.trim = None if options.keep_last is None else Trim(options.keep_last)
        self.requests = self.errors = 0
        self.seconds = 0.0
        _alive.add(self)
        weakref.finalize(self, backend.abandon)

    def _new_core(self) -> Core:
        return Core(cache_bytes=self.options.cache_bytes, compression=self.options.compression)

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
