"""A connection of one event loop, on which round trips are made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from psycopg.pq import ConnStatus
from psycopg.waiting import Ready, Wait

from holdfast.backends.postgres.errors import Silence
from holdfast.backends.postgres.statements import Statement
from holdfast.backends.postgres.trip import Session, Waits


class Link:
    """One connection that psycopg opened, one round trip at a time.

    The loop listens to its socket all the time: psycopg would begin and end that with each trip,
    and resume it ten times a second. Where a caller is cancelled the trip goes on to its end.

    Args:
        session: On a connection of the running loop.
        timeout: Seconds for a reply; 0 for no end.
    """

    def __init__(self, session: Session, timeout: float) -> None:
        self.session = session
        self._pgconn = session.connection.pgconn
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._trip: Waits | None = None
        self._reply: asyncio.Future[list[Any]] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._is_writing = False
        self.when_free: Callable[[], None] | None = None
        """Called at the end of the trip that is under way."""
        self._socket = self._pgconn.socket
        self._loop.add_reader(self._socket, self._on_input)

    @property
    def is_busy(self) -> bool:
        """Whether a trip is under way."""
        return self._trip is not None

    @property
    def is_alive(self) -> bool:
        """Whether it is still there, as far as is seen without a trip."""
        return self._socket >= 0 and self.session.is_alive

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._socket < 0

    async def exchange(self, statements: Sequence[Statement]) -> list[Any]:
        """The rows that each statement gives: all of them one transaction."""
        self._reply = self._loop.create_future()
        self._trip = self.session.trip(statements)
        if self._timeout:
            self._timer = self._loop.call_later(self._timeout, self._on_silence)
        self._step(None)
        return await self._reply

    def _step(self, ready: Ready | None) -> None:
        """Go on as far as that is possible without waiting."""
        trip = self._trip
        assert trip is not None  # noqa: S101
        try:
            wanted = trip.send(ready)  # type: ignore[arg-type]
        except StopIteration as end:
            self._end(end.value)
        except Exception as error:  # noqa: BLE001 - the caller gets it
            self._end(error)
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
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._reply.done():
            if isinstance(reply, Exception):
                self._reply.set_exception(reply)
            else:
                self._reply.set_result(reply)
        if self._pgconn.status != ConnStatus.OK:
            self.close()
        then, self.when_free = self.when_free, None
        if then is not None:
            then()

    def _on_input(self) -> None:
        if self._trip is not None:
            self._step(Ready.R)
        else:
            # What comes without having been asked for is the server's farewell. Where it is but a
            # notice, another connection costs little.
            self.close()

    def _on_silence(self) -> None:
        if self._trip is not None:
            self._trip.close()
            self.close()
            self._end(Silence(f"no reply within {self._timeout:g} s"))

    def close(self) -> None:
        """End the connection; it can be done again, and when the loop is closed."""
        if self._socket >= 0:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.remove_reader(self._socket)
                self._write(False)
            self._socket = -1
        self._pgconn.finish()
