"""Requests as round trips to Postgres, tried again while there is hope."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

from holdfast.backends.attempts import Attempts
from holdfast.backends.base import Backend, Check, Missing, Request, Write
from holdfast.backends.last_records import LastRecords
from holdfast.backends.postgres.changes import Changes
from holdfast.backends.postgres.check import check
from holdfast.backends.postgres.clients import Clients
from holdfast.backends.postgres.coalesce import WriteLines
from holdfast.backends.postgres.errors import is_lost, kind_of, raised
from holdfast.backends.postgres.reads import Reads
from holdfast.backends.postgres.setup import set_up
from holdfast.backends.postgres.statements import Refusable, Statement, Statements, Trips
from holdfast.backends.postgres.tables import Tables
from holdfast.drive import adrive, drive
from holdfast.options import Options

T = TypeVar("T")

# Seconds for which an operation is remembered beyond those in which it may be repeated.
_SLACK = 3

_inherited: list[Any] = []
"""Connections of a parent process: to collect them here would end them there."""


class Pause(float):
    """Seconds to wait before the next attempt."""


IO: TypeAlias = Generator["Sequence[Statement] | Pause", Any, T]
"""What is left to do for a side: send statements, or wait."""


class PostgresBackend(Backend):
    """Keeps threads in the tables of one prefix.

    Args:
        clients: Where round trips are made.
        options: `table` and `retry_budget` are heeded here.
    """

    shows_state = True

    def __init__(self, clients: Clients, options: Options) -> None:
        self._clients = clients
        self._options = options
        self.tables = Tables(options.table)
        statements = Statements(self.tables, int(options.retry_budget) + _SLACK)
        last = LastRecords()
        self._changes = Changes(statements, last)
        self._answers = {**Reads(statements, last).answers, **self._changes.answers}
        self._answers[Check] = lambda _: check(self.tables)
        self._is_set_up = False
        self._retries = 0
        self._lines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, WriteLines] = (
            weakref.WeakKeyDictionary()
        )

    def setup(self) -> None:
        drive(self._made(set_up(self.tables, self._clients.where), None), self._io)
        self._is_set_up = True

    async def asetup(self) -> None:
        await adrive(self._made(set_up(self.tables, self._clients.where), None), self._aio)
        self._is_set_up = True

    def execute(self, request: Request) -> Any:
        if not self._is_set_up:
            self.setup()
        return drive(self._made(self._answers[type(request)](request), request), self._io)

    async def aexecute(self, request: Request) -> Any:
        if not self._is_set_up:
            await self.asetup()
        if isinstance(request, Write):
            return await self._line().send(request)
        return await adrive(self._made(self._answers[type(request)](request), request), self._aio)

    def _line(self) -> WriteLines:
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            line = self._lines[loop] = WriteLines(self._store_writes)
        return line

    async def _store_writes(self, requests: Sequence[Write]) -> Missing:
        return await adrive(self._made(self._changes.write(requests), requests[0]), self._aio)

    def stats(self) -> Mapping[str, int]:
        return {**self._clients.stats(), "retries": self._retries}

    def close(self) -> None:
        self._clients.close()

    async def aclose(self) -> None:
        await self._clients.aclose()

    def abandon(self) -> None:
        self._clients.abandon()

    def after_fork(self) -> None:
        _inherited.append(self._clients.drop())
        self._lines = weakref.WeakKeyDictionary()

    # --- the only two calls that differ ---

    def _io(self, wanted: Sequence[Statement] | Pause) -> Any:
        if isinstance(wanted, Pause):
            return time.sleep(wanted)
        return self._clients.send(wanted)

    async def _aio(self, wanted: Sequence[Statement] | Pause) -> Any:
        if isinstance(wanted, Pause):
            return await asyncio.sleep(wanted)
        return await self._clients.asend(wanted)

    # --- what both share ---

    def _made(self, trips: Trips[T], request: Request | None) -> IO[T]:
        """Make round trips, each tried again while its failure may pass."""
        try:
            statements = next(trips)
            while True:
                replies = yield from self._attempted(statements, request)
                statements = trips.send(replies)
        except StopIteration as end:
            result: T = end.value
            return result

    def _attempted(self, statements: Sequence[Statement], request: Request | None) -> IO[list[Any]]:
        attempts = None
        begun = time.monotonic()
        while True:
            try:
                replies: list[Any] = yield statements
            except (psycopg.Error, PoolTimeout, PoolClosed, OSError) as error:
                failure: Exception = error
            else:
                return replies
            if attempts is None:
                # Each connection of the pool may have been dropped while it was idle.
                free = {"lost": self._clients.size + 1}
                attempts = Attempts(self._options.retry_budget, begun, free)
            kind = kind_of(failure)
            pause = attempts.pause(kind.passes, "lost" if is_lost(failure) else "")
            if pause is None:
                where = self._describe(request)
                raise raised(failure, where, attempts.count, attempts.seconds) from failure
            self._retries += 1
            if isinstance(statements[0], Refusable) and statements[0].ahead is not None:
                statements = [statements[0].ahead, *statements]
            yield Pause(pause)

    def _describe(self, request: Request | None) -> str:
        # A copy fails on the thread that it would change.
        thread_id = getattr(request, "thread_id", getattr(request, "target_thread_id", None))
        where = self._clients.where
        return where if thread_id is None else f"{where}, thread {thread_id!r}"
