"""What a saver and its clones share, and what a fork does to it."""

from __future__ import annotations

import os
import threading
import time
import weakref
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

    def __deepcopy__(self, _: object) -> Live:
        # Of a graph that is copied with its saver: the store is one.
        return self

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

    def before_fork(self) -> None:
        self.backend.before_fork()

    def after_fork_in_parent(self) -> None:
        self.backend.after_fork_in_parent()

    def after_fork(self) -> None:
        # The parent's cache may be locked by a thread that the child does not have.
        self.core = self._new_core()
        self.backend.after_fork()


_alive: weakref.WeakSet[Live] = weakref.WeakSet()


class _Fork:
    """What a fork of the process does to all savers. One at a time."""

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._one = threading.Lock()
        self._lives: list[Live] = []

    def before(self) -> None:
        self._one.acquire()
        for live in list(_alive):
            self._lives.append(live)
            live.before_fork()

    def after_in_parent(self) -> None:
        lives, self._lives = self._lives, []
        for live in lives:
            live.after_fork_in_parent()
        self._one.release()

    def after_in_child(self) -> None:
        self._renew()
        for live in list(_alive):
            live.after_fork()


_fork = _Fork()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_fork.before,
        after_in_parent=_fork.after_in_parent,
        after_in_child=_fork.after_in_child,
    )
