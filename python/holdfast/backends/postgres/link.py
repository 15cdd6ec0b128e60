"""A connection of one event loop, on which round trips are made."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.pq import ConnStatus
from psycopg.waiting import Ready, Wait

from holdfast.backends.postgres.errors import Silence
from holdfast.backends.postgres.statement import Statement
from holdfast.backends.postgres.stopping import stop
from holdfast.backends.postgres.trip import Session, Waits

_logger = logging.getLogger(__name__)

# Seconds that a cancelled caller waits for the server to be told, and again for it to stop.
_STOPPING = 5.0
# Seconds after which the server is told again: it ignores what comes while it reads the next
# message of a trip, as between the parsing of a statement and its execution.
_AGAIN = 0.05
# Seconds after a trip in which its connection is taken to be still there.
_A_MOMENT = 0.1


class Link:
    """One connection that psycopg opened, one round trip at a time.

    The loop listens to its socket all the time: psycopg would begin and end that with each trip,
    and resume it ten times a second.

    Args:
        session: On a connection of the running loop.
        timeout: Seconds without a sign of life from the server; 0 for no end.
    """

    def __init__(self, session: Session, timeout: float) -> None:
        self.session = session
        self._pgconn = session.connection.pgconn
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._trip: Waits | None = None
        self._reply: asyncio.Future[list[Any]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self._is_writing = False
        self._socket: int = self._pgconn.socket
        self._loop.add_reader(self._socket, self._on_input)

    @property
    def is_alive(self) -> bool:
        """Whether it is still there, and to be used, as far as is seen without a trip. A moment
        after the last one it is not looked at: should it be gone, the next is made again."""
        is_recent = self._loop.time() - self._heard < _A_MOMENT
        is_there = self._socket >= 0 and (is_recent or self.session.is_alive)
        return is_there and not self.session.is_left

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._socket < 0

    async def exchange(self, statements: Sequence[Statement]) -> list[Any]:
        """The rows that each statement gives: all of them one transaction.

        A caller that is cancelled has the server stop; nothing is under way afterwards.
        """
        reply: asyncio.Future[list[Any]] = self._loop.create_future()
        self._reply = reply
        self._trip = self.session.trip(statements)
        if self._timeout and self._timer is None:
            self._timer = self._loop.call_later(self._timeout, self._on_time)
        self._step(None)
        try:
            return await reply
        except asyncio.CancelledError:
            if self._trip is not None:
                await self._stop()
            raise

    async def _stop(self) -> None:
        """Have the server stop what is under way, and wait for the end of that."""
        ended: asyncio.Future[list[Any]] = self._loop.create_future()
        self._reply = ended
        try:
            deadline = self._loop.time() + _STOPPING
            while not ended.done() and self._loop.time() < deadline:
                await self.session.connection.cancel_safe(timeout=_STOPPING)
                await asyncio.wait([ended], timeout=_AGAIN)
        except psycopg.Error as error:
            _logger.warning("Postgres: a call that was cancelled cannot be stopped: %s", error)
        finally:
            if self._trip is not None:
                self._trip.close()
                self.close()
                self._end(Silence("it was given up"))
            if ended.done() and not ended.cancelled():
                ended.exception()  # of which nobody is to hear

    def _step(self, ready: Ready | None) -> None:
        """Go on as far as that is possible without waiting."""
        trip: Any = self._trip
        self._heard = self._loop.time()
        try:
            wanted = trip.send(ready)
        except StopIteration as end:
            self._end(end.value)
        except Exception as error:  # noqa: BLE001 - the caller gets it
            self._end(error)
        except BaseException:
            self.close()
            self._end(psycopg.OperationalError("it was interrupted"))
            raise
        else:
            self._write(bool(wanted & Wait.W))

    def _write(self, wanted: bool) -> None:
        """Have the loop tell when more can be sent, or no more."""
        if wanted != self._is_writing:
            self._is_writing = wanted
            if wanted:
                self._loop.add_writer(self._socket, self._step, Ready.W)
            else:
                self._loop.remove_writer(self._socket)

    def _end(self, reply: list[Any] | Exception) -> None:
        self._trip = None
        self._write(False)
        waiting, self._reply = self._reply, None
        if waiting is not None and not waiting.done():
            if isinstance(reply, Exception):
                waiting.set_exception(reply)
            else:
                waiting.set_result(reply)
        if self._pgconn.status != ConnStatus.OK:
            self.close()

    def _on_input(self) -> None:
        if self._trip is not None:
            self._step(Ready.R)
        else:
            # What comes without having been asked for is the server's farewell. Where it is but a
            # notice, another connection costs little.
            self.close()

    def _on_time(self) -> None:
        # One timer for all trips: most end long before, and it is set anew no more than once in the
        # time that it takes.
        self._timer = None
        if self._trip is None:
            return
        left = self._heard + self._timeout - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._on_time)
        else:
            self._trip.close()
            stop(self._pgconn)
            self.close()
            self._end(Silence(f"no reply within {self._timeout:g} s"))

    def close(self) -> None:
        """End the connection; it can be done again, and when the loop is closed."""
        if self._socket >= 0:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.remove_reader(self._socket)
                self._write(False)
            self._socket = -1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pgconn.finish()
