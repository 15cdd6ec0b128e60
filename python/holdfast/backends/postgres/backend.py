"""Requests as round trips to Postgres."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg
from psycopg.errors import ReadOnlySqlTransaction, UntranslatableCharacter
from psycopg_pool import PoolClosed, PoolTimeout

from holdfast.backends.base import Check, Commit, Page, Request, Write
from holdfast.backends.last_records import LastRecords
from holdfast.backends.postgres.changes import Changes
from holdfast.backends.postgres.check import check
from holdfast.backends.postgres.clients import Clients
from holdfast.backends.postgres.coalesce import ChangeLines
from holdfast.backends.postgres.errors import is_lost, kind_of, raised
from holdfast.backends.postgres.reads import Reads
from holdfast.backends.postgres.removals import Removals
from holdfast.backends.postgres.setup import make_ready, set_up
from holdfast.backends.postgres.statement import Refusable, Statement
from holdfast.backends.postgres.statements import Statements
from holdfast.backends.postgres.tables import Tables
from holdfast.backends.postgres.threads import Threads
from holdfast.backends.postgres.within import is_within
from holdfast.backends.remote import IO, RemoteBackend
from holdfast.drive import adrive, drive
from holdfast.errors import ConfigurationError
from holdfast.options import Options


class PostgresBackend(RemoteBackend):
    """Keeps threads in the tables of one prefix.

    Args:
        clients: Where round trips are made.
        options: `table`, `ttl`, `refresh_on_read` and `retry_budget` are heeded here.
    """

    shows_state = True
    _errors = (psycopg.Error, PoolTimeout, PoolClosed, OSError, UnicodeError)

    def __init__(self, clients: Clients, options: Options) -> None:
        super().__init__(clients, options)
        # Each connection of the pool may have been dropped while it was idle.
        self._free = {"lost": clients.size + 1}
        self._figures = clients.stats
        self._is_ready = clients.is_ready
        self.tables = Tables(options.table)
        statements = self._statements = Statements(self.tables, self._keep)
        last = LastRecords()
        self._changes = Changes(statements, last, options.ttl)
        self._answers = {
            **Reads(statements, last, options.ttl if options.refresh_on_read else None).answers,
            **self._changes.answers,
            **Removals(statements, self._changes.note_deleted).answers,
            **Threads(statements).answers,
        }
        self._answers[Check] = lambda _: check(self.tables)
        self._may_move = clients.may_move
        self._is_set_up = self._may_be_undone = False
        self._forget_lines()

    def _forget_lines(self) -> None:
        self._lines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, ChangeLines] = (
            weakref.WeakKeyDictionary()
        )
        # The one that was used last: mostly there is but one loop.
        self._last_line: tuple[Callable[[], object], ChangeLines] = (
            lambda: None,
            self._new_line(),
        )

    def _new_line(self) -> ChangeLines:
        return ChangeLines(self._aanswer, self._is_ready)

    def setup(self) -> None:
        self._set_up()
        drive(self._made(make_ready(self._statements.of_a_superstep), None), self._io)

    async def asetup(self) -> None:
        await self._aset_up()
        await adrive(self._made(make_ready(self._statements.of_a_superstep), None), self._aio)

    def _set_up(self) -> None:
        wanted = self._made(set_up(self.tables, self._clients.where), None)
        self._note(*drive(wanted, self._io))

    async def _aset_up(self) -> None:
        wanted = self._made(set_up(self.tables, self._clients.where), None)
        self._note(*await adrive(wanted, self._aio))

    def _note(self, was_made: bool, within: bool) -> None:
        """The tables are there; in a transaction of the user's, which may take them back, perhaps
        for now."""
        self._may_be_undone = within and (was_made or self._may_be_undone)
        self._is_set_up = not self._may_be_undone

    def execute(self, request: Request) -> Any:
        if not self._is_set_up:
            self._set_up()
        try:
            return drive(self._answer([request]), self._io)
        except ConfigurationError as error:
            plain = _without_hints([request], error)
        return drive(self._answer(plain), self._io)

    async def aexecute(self, request: Request) -> Any:
        if not self._is_set_up:
            await self._aset_up()
        if isinstance(request, (Commit, Write)):
            return await self._line().send(request)
        return await self._aanswer([request])

    def _answer(self, requests: Sequence[Any]) -> IO[Any]:
        """The answer to a request, or to changes that are made at once."""
        first = requests[0]
        is_change = isinstance(first, (Commit, Write))
        answer = self._changes.change(requests) if is_change else self._answers[type(first)](first)
        return self._made(answer, first)

    async def _aanswer(self, requests: Sequence[Any]) -> Any:
        try:
            return await adrive(self._answer(requests), self._aio)
        except ConfigurationError as error:
            plain = _without_hints(requests, error)
        return await adrive(self._answer(plain), self._aio)

    def _line(self) -> ChangeLines:
        loop = asyncio.get_running_loop()
        known, line = self._last_line
        if known() is loop:
            return line
        found = self._lines.get(loop)
        if found is None:
            found = self._lines[loop] = self._new_line()
        self._last_line = weakref.ref(loop), found
        return found

    def stats(self) -> Mapping[str, int]:
        return {**self._figures(), **super().stats()}

    def after_fork(self) -> None:
        super().after_fork()
        self._forget_lines()

    def _judged(self, failure: Exception) -> tuple[bool, str]:
        # What fails in a transaction fails there again: its user has to repeat all of it. So does
        # what a server refuses that will not be another.
        stays = isinstance(failure, ReadOnlySqlTransaction) and not self._may_move
        passes = kind_of(failure).passes and not stays and not is_within(failure)
        return passes, "lost" if is_lost(failure) else ""

    def _raised(self, failure: Exception, where: str, attempts: int, seconds: float) -> Exception:
        return raised(failure, where, attempts, seconds)

    def _again(self, sent: Sequence[Statement], failure: Exception) -> Sequence[Statement]:
        if isinstance(sent[0], Refusable) and sent[0].again is not None:
            return sent[0].again(sent[0])
        return sent


def _without_hints(requests: Sequence[Any], error: ConfigurationError) -> list[Any]:
    """Requests without what a checkpoint shows to people and what narrows a list down, for a
    database whose encoding lacks some of their characters. Neither decides what is read.

    Raises:
        ConfigurationError: It is another error, or there is no such thing in them.
    """
    if isinstance(error.__cause__, (UntranslatableCharacter, UnicodeError)):
        plain = [_plain(one) for one in requests]
        if plain != list(requests):
            return plain
    raise error


def _plain(request: Any) -> Any:
    if isinstance(request, Commit):
        return replace(request, summary=None)
    return replace(request, filter={}) if isinstance(request, Page) else request
