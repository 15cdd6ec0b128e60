"""The connection that changes, and its transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

from holdfast.backends.base import Commit, Request, Write
from holdfast.backends.sqlite.connections import Source
from holdfast.backends.sqlite.errors import translate
from holdfast.backends.sqlite.jobs import Job
from holdfast.backends.sqlite.reclaim import RECLAIM, Reclaim, Reclaimer
from holdfast.backends.sqlite.tables import LAYOUT, Tables
from holdfast.errors import FormatTooNew

# Requests that one transaction answers before others are let in.
_LARGEST_GROUP = 500

Answer: TypeAlias = Callable[[sqlite3.Cursor, "Request | Reclaim"], Any]
"""Answers a request in the transaction that is under way."""


class Writer:
    """One connection, opened when it is needed. Its caller sees to it that nobody else uses it.

    Args:
        source: Opens it.
        tables: Are there before the first transaction.
        reclaimer: Has time of its own in each transaction.
    """

    def __init__(self, source: Source, tables: Tables, reclaimer: Reclaimer) -> None:
        self._source = source
        self._tables = tables
        self._reclaimer = reclaimer
        self._reset(None)

    def _reset(self, connection: sqlite3.Connection | None) -> None:
        self.connection = connection
        self.has_tables = False
        """Whether it has seen to the tables."""
        self._is_joined = False
        self._is_reserved = False

    def release(self) -> None:
        """Close it; the next transaction opens another."""
        connection, self.connection = self.connection, None
        if connection is not None:
            self._source.release(connection)
        self._reset(None)

    def after_fork(self) -> None:
        """Go on in a child with what it may use of its parent's."""
        self._reset(self._source.after_fork(self.connection))

    def transact(self, jobs: list[Job], answer: Answer, join: Callable[[], list[Job]]) -> None:
        """Answer requests in one transaction: all flushed together, each failing alone.

        Args:
            jobs: The requests.
            answer: Answers one.
            join: Adds those who came while the others were answered to `jobs`; who they are.
        """
        if self.connection is None and all(job.request is RECLAIM for job in jobs):
            return  # closed meanwhile: the next one goes on with it
        with translate(self._source.name, jobs[0].request if len(jobs) == 1 else None):
            connection = self._opened()
            if jobs[0].request is None and len(jobs) == 1:
                return
            if not self._is_reserved:
                self._source.reserve(connection)
                self._is_reserved = True
            cursor = connection.cursor()
            cursor.row_factory = None
            self._reclaimer.renew()
            try:
                self._begin(connection, cursor)
                if len(jobs) > 1:
                    for job in jobs:
                        self._answer_apart(cursor, job, answer)
                elif not self._answer(cursor, jobs[0], answer):
                    self._abandon(connection)
                    return
                while len(jobs) < _LARGEST_GROUP and (late := join()):
                    for job in late:
                        self._answer_apart(cursor, job, answer)
                self._commit(connection, cursor)
            except BaseException:
                self._abandon(connection)
                raise

    def _answer(self, cursor: sqlite3.Cursor, job: Job, answer: Answer) -> bool:
        """Answer a request; False where what it did is not to be kept."""
        request = job.request
        if request is None:
            return True
        job.reply = answer(cursor, request)
        lacks_chunks = isinstance(request, (Commit, Write)) and job.reply
        return not lacks_chunks

    def _answer_apart(self, cursor: sqlite3.Cursor, job: Job, answer: Answer) -> None:
        """Answer a request so that its failure leaves its neighbours alone."""
        cursor.execute("SAVEPOINT request")
        is_kept = False
        try:
            with translate(self._source.name, job.request):
                is_kept = self._answer(cursor, job, answer)
        except Exception as error:  # its caller gets it, its neighbours go on
            if not cursor.connection.in_transaction:
                raise  # SQLite rolled all of it back, for want of room for example
            job.error = error
        if not is_kept:
            cursor.execute("ROLLBACK TO request")
        cursor.execute("RELEASE request")

    def _opened(self) -> sqlite3.Connection:
        """The connection, its tables there."""
        if self.connection is None:
            self.connection = self._source.open()
        if not self.has_tables:
            self._create(self.connection)
            self.has_tables = True
        return self.connection

    def _create(self, connection: sqlite3.Connection) -> None:
        """See to the tables; without a lock where they are there."""
        cursor = connection.cursor()
        cursor.row_factory = None
        if self._found_layout(cursor) == LAYOUT:
            return
        self._begin(connection, cursor)
        try:
            if self._found_layout(cursor) != LAYOUT:  # nobody was faster
                self._tables.create(cursor)
            self._commit(connection, cursor)
        except BaseException:
            self._abandon(connection)
            raise

    def _found_layout(self, cursor: sqlite3.Cursor) -> int | None:
        """The layout of the tables, None where there are none.

        Raises:
            FormatTooNew: It is newer than this version's.
        """
        found = self._tables.stored_layout(cursor)
        if found is not None and found > LAYOUT:
            raise FormatTooNew(
                f"{self._source.name}: tables of layout {found}, this version of "
                f"holdfast reads up to {LAYOUT}. Upgrade holdfast to use them."
            )
        return found

    def _begin(self, connection: sqlite3.Connection, cursor: sqlite3.Cursor) -> None:
        # A given connection may be in a transaction: by its settings, or its owner's own,
        # which must not be lost when a request of ours is taken back.
        self._is_joined = connection.in_transaction
        cursor.execute("SAVEPOINT holdfast" if self._is_joined else "BEGIN IMMEDIATE")

    def _commit(self, connection: sqlite3.Connection, cursor: sqlite3.Cursor) -> None:
        if getattr(connection, "autocommit", None) is False:
            connection.commit()
        else:
            cursor.execute("COMMIT")

    def _abandon(self, connection: sqlite3.Connection) -> None:
        # The error that led here is the one to report.
        with suppress(sqlite3.Error):
            if self._is_joined:
                connection.execute("ROLLBACK TO holdfast")
                connection.execute("RELEASE holdfast")
            elif connection.in_transaction:
                connection.execute("ROLLBACK")
