"""One writer at a time with grouped commits, and readers apart.

Changes that wait at the same moment become one transaction, each in a savepoint of its
own, so that they share one flush to disk and fail alone. Whoever comes first does the
work of all: a calling thread, or for event loops a thread of the backend's own.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeGuard

from holdfast.backends.base import (
    Ancestors,
    Backend,
    Discard,
    Forget,
    Head,
    Page,
    Request,
    Visit,
)
from holdfast.backends.sqlite.changes import Changes
from holdfast.backends.sqlite.connections import Source, inherited
from holdfast.backends.sqlite.errors import translate
from holdfast.backends.sqlite.jobs import Job, interrupted
from holdfast.backends.sqlite.listings import Listings
from holdfast.backends.sqlite.reads import Reads
from holdfast.backends.sqlite.reclaim import PAUSE_SECONDS, RECLAIM, Reclaim, Reclaimer, Turn
from holdfast.backends.sqlite.tables import Tables
from holdfast.backends.sqlite.threads import ThreadRows
from holdfast.backends.sqlite.writer import Writer
from holdfast.drive import adrive, drive
from holdfast.errors import StoreFull, StoreTimeout, StoreUnavailable, for_another
from holdfast.options import Options

_logger = logging.getLogger(__name__)

_READERS = 4
# Chunks whose deletion takes some milliseconds.
_LARGE_BATCH = 250
# Requests after which what lies under dead keys is deleted. Not `Remove`: each put of a saver with
# `keep_last` makes one, and is not to wait for what others deleted.
_RECLAIMING = (Forget, Visit)
# What the store may say of a batch that comes after the answer: the next one goes on with it. A
# damaged file is not among them, nobody would go on.
_LEFT_TO_THE_NEXT = (StoreFull, StoreTimeout, StoreUnavailable)


class SqliteBackend(Backend):
    """Keeps threads in tables of one SQLite database."""

    def __init__(self, source: Source, options: Options) -> None:
        self._source = source
        self._tables = Tables(options.table)
        self._reclaimer = Reclaimer(self._tables)
        self._thread_rows = ThreadRows(self._tables, self._reclaimer, options.ttl)
        self._changes = Changes(self._tables, self._thread_rows, self._reclaimer).answers
        reads = Reads(self._tables)
        listings = Listings(self._tables, self._reclaimer, reads.writes_at, reads.fetch)
        self._reads = reads.answers | listings.answers
        self._refreshes = options.refresh_on_read
        self._writer = Writer(source, self._tables, self._reclaimer)
        self._reset()

    def _reset(self) -> None:
        self._waiting: deque[Job] = deque()
        self._leading = threading.Lock()
        self._pooling = threading.Lock()
        self._returned = threading.Condition(self._pooling)
        self._lent = 0
        self._is_forking = False
        self._readers: list[sqlite3.Connection] = []
        self._executor: ThreadPoolExecutor | None = None
        self._is_led = False
        self._turn = Turn()

    # --- the interface ---

    def setup(self) -> None:
        self._change(Job(None))

    async def asetup(self) -> None:
        await self._achange(None)

    def execute(self, request: Request) -> Any:
        reply = self.answer(request)
        if _is_large_batch(request):
            time.sleep(PAUSE_SECONDS)
        drive(self.rest_of(request), self._answer_later)
        return reply

    async def aexecute(self, request: Request) -> Any:
        reply = await self._aanswer(request)
        if _is_large_batch(request):
            await asyncio.sleep(PAUSE_SECONDS)
        await adrive(self.rest_of(request), self._aanswer_later)
        return reply

    def rest_of(self, request: Request) -> Generator[Reclaim, None, None]:
        """What is to follow the answer to a request, each after a pause in which others come.

        One caller at a time does it, for all, so that nobody waits who deletes little.
        """
        if not isinstance(request, _RECLAIMING):
            return
        turn, me = self._turn, object()
        # Looked at again after the turn: meanwhile another may have left more, and gone.
        while self._leaves_more() and turn.take(me):
            try:
                while self._leaves_more() and turn.take(me):
                    yield RECLAIM
            except _LEFT_TO_THE_NEXT as error:
                # The request was answered: what it was for is done.
                _logger.warning(
                    "reclaiming: %s What is left of removed threads stays in the file until the "
                    "next removal or sweep.",
                    error,
                )
                return
            finally:
                turn.give_back(me)

    def _leaves_more(self) -> bool:
        return self._reclaimer.has_dead and self._writer.connection is not None

    def _answer_later(self, request: Reclaim) -> None:
        time.sleep(PAUSE_SECONDS)
        self.answer(request)

    async def _aanswer_later(self, request: Reclaim) -> None:
        await asyncio.sleep(PAUSE_SECONDS)
        await self._aanswer(request)

    def answer(self, request: Request | Reclaim) -> Any:
        """Answer a request, in one transaction."""
        if self._is_read(request):
            return self._read(request)
        return self._change(Job(request))

    async def _aanswer(self, request: Request | Reclaim) -> Any:
        if self._is_read(request):
            loop = asyncio.get_running_loop()
            with self._pooling:
                reply = self._threads().submit(self._read, request)
            return await asyncio.wrap_future(reply, loop=loop)
        return await self._achange(request)

    def _is_read(self, request: Request | Reclaim) -> TypeGuard[Request]:
        """Whether a connection that does not write answers it."""
        return (
            type(request) in self._reads
            and not self._source.is_shared
            and not (self._refreshes and _refreshed(request))
        )

    def close(self) -> None:
        with self._pooling:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True)
        with self._leading, self._pooling:
            self._release()

    def abandon(self) -> None:
        # Called by the garbage collector, perhaps in the midst of a thread of ours: what that
        # thread still uses it will drop by itself.
        if not self._leading.acquire(blocking=False):
            return
        if self._pooling.acquire(blocking=False):
            if self._executor is not None:
                self._executor.shutdown(wait=False)
                self._executor = None
            self._release()
            self._pooling.release()
        self._leading.release()

    def _release(self) -> None:
        for connection in self._readers:
            connection.close()
        self._readers = []
        self._writer.release()

    async def aclose(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.close)

    def before_fork(self) -> None:
        # SQLite notes in the process's memory which locks it has on a file, and in a child believes
        # to have those of its parent, on connections of its own too: it would write into a log that
        # the parent removes (https://sqlite.org/howtocorrupt.html, 2.6). So it inherits none.
        self._leading.acquire()
        self._pooling.acquire()
        self._is_forking = True
        while self._lent:
            self._returned.wait()
        if not self._source.is_shared:
            self._release()

    def after_fork_in_parent(self) -> None:
        self._is_forking = False
        self._returned.notify_all()
        self._pooling.release()
        self._leading.release()

    def after_fork(self) -> None:
        inherited.append((self._writer.connection, self._readers, self._executor))
        self._writer.after_fork()
        self._reset()

    # --- reading ---

    def _read(self, request: Request) -> Any:
        if not self._writer.has_tables:
            self._change(Job(None))
        with translate(self._source.name, request):
            connection = self._lend()
            is_whole = False
            try:
                cursor = connection.cursor()
                cursor.execute("BEGIN")
                reply = self._reads[type(request)](cursor, request, self.clock())
                cursor.execute("COMMIT")
                is_whole = True
            finally:
                self._take_back(connection, is_whole)
            return reply

    def _lend(self) -> sqlite3.Connection:
        """A connection to read with."""
        with self._pooling:
            while self._is_forking:
                self._returned.wait()
            self._lent += 1
            if self._readers:
                return self._readers.pop()
        try:
            return self._source.open()
        except BaseException:
            self._take_back(None, False)
            raise

    def _take_back(self, connection: sqlite3.Connection | None, is_whole: bool) -> None:
        """Keep a connection for the next read, if it is whole and there is room."""
        with self._pooling:
            has_room = self._writer.has_tables and len(self._readers) < 2 * _READERS
            if connection is not None:
                if is_whole and has_room and not self._is_forking:
                    self._readers.append(connection)
                else:
                    connection.close()
            self._lent -= 1
            if self._is_forking:
                self._returned.notify_all()

    def _threads(self) -> ThreadPoolExecutor:
        """The backend's own threads; `_pooling` is held, so that `close` misses none."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(
                max_workers=1 + _READERS, thread_name_prefix="holdfast-sqlite"
            )
        return self._executor

    # --- changing ---

    def _change(self, job: Job) -> Any:
        """Wait in line; whoever holds the lead works off the whole line."""
        with self._pooling:
            self._waiting.append(job)
        with self._leading:
            if not job.done:
                self._work_off()
        return job.outcome()

    async def _achange(self, request: Request | Reclaim | None) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        with self._pooling:
            self._waiting.append(Job(request, future))
            if not self._is_led:
                self._threads().submit(self._lead)
                self._is_led = True
        return await future

    def _lead(self) -> None:
        """Work off the line in a thread of the backend's own."""
        goes_on = True
        while goes_on:
            try:
                with self._leading:
                    self._work_off()
            except BaseException:
                with self._pooling:
                    self._is_led = bool(self._waiting)
                    if self._is_led:
                        self._threads().submit(self._lead)
                raise
            with self._pooling:
                goes_on = self._is_led = bool(self._waiting)

    def _work_off(self) -> None:
        jobs: list[Job] = []
        try:
            if self._join(jobs):
                self._writer.transact(jobs, self._answer, lambda: self._join(jobs))
        except Exception as error:  # noqa: BLE001 - each waiting caller gets it
            for job in jobs:
                job.error = job.error or for_another(error)
        except BaseException:
            for job in jobs:
                job.error = job.error or interrupted()
            raise
        finally:
            for job in jobs:
                job.finish()

    def _join(self, jobs: list[Job]) -> list[Job]:
        """Add those who wait now to `jobs`; who they are."""
        with self._pooling:
            late = list(self._waiting)
            jobs.extend(late)
            self._waiting.clear()
        return late

    def _answer(self, cursor: sqlite3.Cursor, request: Request | Reclaim) -> Any:
        """Answer a request in the transaction that is under way."""
        now = self.clock()
        if self._refreshes and (thread_id := _refreshed(request)) is not None:
            self._thread_rows.refresh(cursor, thread_id, now)
        answer = self._reads.get(type(request)) or self._changes[type(request)]
        return answer(cursor, request, now)


def _refreshed(request: Any) -> str | None:
    """The thread that is read, where the read may count for its expiry."""
    return request.thread_id if isinstance(request, (Head, Page, Ancestors)) else None


def _is_large_batch(request: Request) -> bool:
    """Whether others shall be let in before the next batch: a sweep sends one after the other."""
    return isinstance(request, Discard) and len(request.ids) >= _LARGE_BATCH
