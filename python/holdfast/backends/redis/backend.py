"""Requests as round trips to Redis, tried again while there is hope."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from redis.exceptions import RedisError

from holdfast.backends.attempts import Attempts
from holdfast.backends.base import Backend, Check, Request
from holdfast.backends.last_records import LastRecords
from holdfast.backends.redis.changes import Changes
from holdfast.backends.redis.check import check, eviction_warning, section
from holdfast.backends.redis.clients import Clients
from holdfast.backends.redis.errors import (
    failure_among,
    is_lost,
    is_unknown_script,
    kind_of,
    raised,
)
from holdfast.backends.redis.names import LAYOUT, Names
from holdfast.backends.redis.reads import Reads
from holdfast.backends.redis.scripts import Command, Tolerant, Trips, with_source
from holdfast.drive import adrive, drive
from holdfast.errors import ConfigurationError, StoreWarning
from holdfast.options import Options

T = TypeVar("T")

# Seconds for which an operation is remembered beyond those in which it may be repeated.
_SLACK = 3

_inherited: list[Any] = []
"""Connections of a parent process: to collect them here would end them there."""


# Neither a connection that was dropped while it was idle nor a script that was never sent says
# anything about the server.
_FREE = {"lost": 1, "unknown script": 1}


def _name_of(failure: Exception) -> str:
    """Its name among the free ones."""
    if is_unknown_script(failure):
        return "unknown script"
    return "lost" if is_lost(failure) else ""


class Pause(float):
    """Seconds to wait before the next attempt."""


IO: TypeAlias = Generator["Sequence[Command] | Pause", Any, T]
"""What is left to do for a side: send commands, or wait."""


class RedisBackend(Backend):
    """Keeps threads in the keys below one prefix.

    Args:
        clients: Where round trips are made.
        options: `prefix` and `retry_budget` are heeded here.
    """

    def __init__(self, clients: Clients, options: Options) -> None:
        self._clients = clients
        self._options = options
        self._names = Names(options.prefix)
        keep = int(options.retry_budget) + _SLACK
        last = LastRecords()
        self._answers = {
            **Reads(self._names, last).answers,
            **Changes(self._names, last, keep).answers,
        }
        self._answers[Check] = lambda _: check(self._names)
        self._is_set_up = False
        self._retries = 0

    def setup(self) -> None:
        drive(self._made(self._setup(), None), self._io)

    async def asetup(self) -> None:
        await adrive(self._made(self._setup(), None), self._aio)

    def execute(self, request: Request) -> Any:
        return drive(self._answer(request), self._io)

    async def aexecute(self, request: Request) -> Any:
        return await adrive(self._answer(request), self._aio)

    def stats(self) -> Mapping[str, int]:
        return {"retries": self._retries}

    def close(self) -> None:
        self._clients.close()

    async def aclose(self) -> None:
        await self._clients.aclose()

    def abandon(self) -> None:
        self._clients.close()

    def after_fork(self) -> None:
        _inherited.append(self._clients.drop())

    # --- the only two calls that differ ---

    def _io(self, wanted: Sequence[Command] | Pause) -> Any:
        if isinstance(wanted, Pause):
            return time.sleep(wanted)
        return self._clients.send(wanted)

    async def _aio(self, wanted: Sequence[Command] | Pause) -> Any:
        if isinstance(wanted, Pause):
            return await asyncio.sleep(wanted)
        return await self._clients.asend(wanted)

    # --- what both share ---

    def _answer(self, request: Request) -> IO[Any]:
        if not self._is_set_up:
            yield from self._made(self._setup(), request)
        return (yield from self._made(self._answers[type(request)](request), request))

    def _made(self, trips: Trips[T], request: Request | None) -> IO[T]:
        """Make round trips, each tried again while its failure may pass."""
        try:
            commands = next(trips)
            while True:
                replies = yield from self._attempted(commands, request)
                commands = trips.send(replies)
        except StopIteration as end:
            result: T = end.value
            return result

    def _attempted(self, commands: Sequence[Command], request: Request | None) -> IO[list[Any]]:
        attempts = None
        begun = time.monotonic()
        while True:
            try:
                replies: list[Any] = yield commands
            except (RedisError, OSError, UnicodeError) as error:  # the last: a host's name
                failure: Exception = error
            else:
                found = failure_among(replies, tolerant=isinstance(commands, Tolerant))
                if found is None:
                    return replies
                failure = found
            if attempts is None:
                attempts = Attempts(self._options.retry_budget, begun, _FREE)
            pause = attempts.pause(kind_of(failure).passes, _name_of(failure))
            if pause is None:
                where = self._describe(request)
                raise raised(failure, where, attempts.count, attempts.seconds) from failure
            self._retries += 1
            if is_unknown_script(failure):
                with_sources = [with_source(command) for command in commands]
                is_tolerant = isinstance(commands, Tolerant)
                commands = Tolerant(with_sources) if is_tolerant else with_sources
            yield Pause(pause)

    def _describe(self, request: Request | None) -> str:
        # A copy fails on the thread that it would change.
        thread_id = getattr(request, "thread_id", getattr(request, "target_thread_id", None))
        where = self._clients.where
        return where if thread_id is None else f"{where}, thread {thread_id!r}"

    def _setup(self) -> Trips[None]:
        """See that the keys below the prefix are ours, and that the server keeps them.

        A server that refuses to write, because it is full for example, can still be read.
        """
        layout = b"%d %d" % (LAYOUT, LAYOUT)
        key = self._names.format
        written, held = yield Tolerant([("SET", key, layout, "NX"), ("GET", key)])
        if held is None and isinstance(written, Exception) and kind_of(written).reads:
            return  # an empty prefix; whoever comes next tries again
        if isinstance(held, Exception):
            raise raised(held, self._clients.where, 1, 0) from held
        if held is None and isinstance(written, Exception):
            raise raised(written, self._clients.where, 1, 0) from written
        lowest = (held or b"").split()[1:]
        if len(lowest) != 1 or not lowest[0].isdigit() or int(lowest[0]) > LAYOUT:
            raise ConfigurationError(
                f"Redis, {self._clients.where}: the keys below the prefix "
                f"{self._options.prefix!r} have the layout {held!r}, this version of holdfast "
                f"reads {layout!r}. Upgrade holdfast, or choose another prefix."
            )
        (memory,) = yield Tolerant([("INFO", "memory")])
        warning = eviction_warning(section(memory))
        if warning is not None and not self._is_set_up:
            warnings.warn(f"Redis, {self._clients.where}: {warning}", StoreWarning, stacklevel=2)
        self._is_set_up = True
