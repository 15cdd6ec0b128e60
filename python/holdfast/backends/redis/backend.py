"""Requests as round trips to Redis."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from redis.exceptions import RedisError

from holdfast.backends.base import Check, Request
from holdfast.backends.last_records import LastRecords
from holdfast.backends.redis.changes import Changes
from holdfast.backends.redis.changing import Changing
from holdfast.backends.redis.check import check, eviction_warning, section
from holdfast.backends.redis.clients import Clients
from holdfast.backends.redis.errors import (
    failure_among,
    is_lost,
    is_unknown_script,
    kind_of,
    raised,
)
from holdfast.backends.redis.lifetimes import Lifetimes
from holdfast.backends.redis.listing import Listing
from holdfast.backends.redis.names import LAYOUT, Names
from holdfast.backends.redis.reads import Reads
from holdfast.backends.redis.removals import Removals
from holdfast.backends.redis.scripts import Afterwards, Command, Tolerant, Trips, with_source
from holdfast.backends.remote import IO, RemoteBackend
from holdfast.drive import adrive, drive
from holdfast.errors import ConfigurationError, StoreWarning
from holdfast.options import Options

# Neither a connection that was dropped while it was idle nor a script that was never sent says
# anything about the server.
_FREE = {"lost": 1, "unknown script": 1}


class RedisBackend(RemoteBackend):
    """Keeps threads in the keys below one prefix.

    Args:
        clients: Where round trips are made.
        options: `prefix`, `retry_budget`, `ttl` and `refresh_on_read` are heeded here.
    """

    _errors = (RedisError, OSError, UnicodeError)  # the last: a host's name
    _free = _FREE

    def __init__(self, clients: Clients, options: Options) -> None:
        super().__init__(clients, options)
        self._names = Names(options.prefix)
        last = LastRecords()
        changing = Changing(self._names, self._keep, options.ttl)
        reads = Reads(self._names, last, changing, refreshes=options.refresh_on_read)
        self._answers = {
            **reads.answers,
            **Listing(self._names, changing).answers,
            **Changes(self._names, last, changing).answers,
            **Removals(self._names, changing).answers,
            **Lifetimes(self._names, changing).answers,
        }
        self._answers[Check] = lambda _: check(self._names)
        self._is_set_up = False

    def setup(self) -> None:
        drive(self._made(self._setup(), None), self._io)

    async def asetup(self) -> None:
        await adrive(self._made(self._setup(), None), self._aio)

    def execute(self, request: Request) -> Any:
        return drive(self._answer(request), self._io)

    async def aexecute(self, request: Request) -> Any:
        return await adrive(self._answer(request), self._aio)

    def _answer(self, request: Request) -> IO[Any]:
        if not self._is_set_up:
            yield from self._made(self._setup(), request)
        return (yield from self._made(self._answers[type(request)](request), request))

    def _attempted(self, sent: Sequence[Command], request: Request | None) -> IO[Any]:
        if not isinstance(sent, Afterwards):
            return (yield from super()._attempted(sent, request))
        again: Sequence[Command] = sent
        while True:
            try:
                replies = yield again
            except self._errors:
                return None
            failure = failure_among(replies, tolerant=False)
            if failure is None:
                return replies
            if again is not sent or not is_unknown_script(failure):
                return None
            again = self._again(sent, failure)

    def _judged(self, failure: Exception) -> tuple[bool, str]:
        lost = "lost" if is_lost(failure) else ""
        return kind_of(failure).passes, "unknown script" if is_unknown_script(failure) else lost

    def _raised(self, failure: Exception, where: str, attempts: int, seconds: float) -> Exception:
        return raised(failure, where, attempts, seconds)

    def _failure_among(self, replies: Sequence[Any], sent: Sequence[Command]) -> Exception | None:
        return failure_among(replies, tolerant=isinstance(sent, Tolerant))

    def _again(self, sent: Sequence[Command], failure: Exception) -> Sequence[Command]:
        if not is_unknown_script(failure):
            return sent
        with_sources = [with_source(command) for command in sent]
        return Tolerant(with_sources) if isinstance(sent, Tolerant) else with_sources

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
