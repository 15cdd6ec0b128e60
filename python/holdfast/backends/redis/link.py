"""A connection from which replies go straight to whom they are for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import hiredis
from redis import exceptions

from holdfast.backends.eras import Era
from holdfast.backends.redis.errors import Farewell, heed
from holdfast.backends.redis.scripts import Command

Calls = Iterable[tuple[Sequence[Command], "asyncio.Future[list[Any]]"]]
Places = Sequence[tuple[int, "int | None"]]


class Trip:
    """A pipeline under way: its calls, the replies so far, how many there will be, where each
    command's is among them unless they are in turns, and the loop's time when it began."""

    __slots__ = ("begun", "calls", "count", "places", "replies")

    def __init__(self, calls: Calls, count: int, places: Places | None, begun: float) -> None:
        self.calls = calls
        self.count = count
        self.places = places
        self.begun = begun
        self.replies: list[Any] = []


class Link(asyncio.Protocol):
    """One connection that redis-py opened, one pipeline at a time.

    redis-py connects, speaks TLS and proves who it is; from then on its streams would cost
    more than the server's work: replies are read here as they come.

    Args:
        connection: A connected connection of redis-py's.
        era: In which it was begun; ends with the answer of a server that is not the primary.
        done: Called with each pipeline whose replies are complete, and this link.
        lost: Called when the connection has ended, with the pipeline under way if any.
    """

    def __init__(
        self,
        connection: Any,
        era: Era,
        done: Callable[[Link, Trip], None],
        lost: Callable[[Link, Trip | None, Exception], None],
    ) -> None:
        writer = connection._writer
        if writer is None or writer.transport.is_closing():
            raise exceptions.ConnectionError("the connection was lost while it was made")
        self.connection = connection
        self.era = era
        self._done = done
        self._lost = lost
        self.trip: Trip | None = None
        self._reader = hiredis.Reader(
            # Not a method of this object: the reader would keep it for ever.
            replyError=partial(_refusal, era),
            protocolError=exceptions.InvalidResponse,
        )
        self._failure: Exception | None = None
        self._is_lost = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = writer.transport
        self._theirs = self._transport.get_protocol()
        self._transport.set_protocol(self)
        self._take_over(connection._reader)

    def _take_over(self, stream: Any) -> None:
        """Heed what came before the protocol was changed: a server that has no place for
        another client says so and ends the connection, and nobody would say it again."""
        self._reader.feed(bytes(stream._buffer))
        try:
            if (said := self._reader.gets(False)) is not False:
                self._failure = Farewell(str(said))
        except exceptions.InvalidResponse as error:
            self._failure = error
        if self._failure is not None or stream._eof or stream.exception() is not None:
            self._loop.call_soon(self._end)

    def _end(self) -> None:
        self._transport.abort()
        # A transport that was lost before this took over tells nobody a second time.
        self._loop.call_soon(self.connection_lost, None)

    def send(self, trip: Trip, packed: bytes) -> None:
        """Send a pipeline; `done` or `lost` is called in the end."""
        self.trip = trip
        self._transport.write(packed)

    def fail(self, error: Exception) -> None:
        """End the connection; whoever waits for a reply gets `error`."""
        self._failure = error
        self._end()
        self.connection._close()

    # --- asyncio calls these ---

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets(False)) is not False:
                if isinstance(reply, hiredis.PushNotification):
                    continue
                if self.trip is None:
                    # What comes without having been asked for is the server's farewell.
                    self._failure = self._failure or Farewell(str(reply))
                else:
                    self.trip.replies.append(reply)
                    if len(self.trip.replies) == self.trip.count:
                        trip, self.trip = self.trip, None
                        self._done(self, trip)
        except exceptions.InvalidResponse as error:
            self.fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        trip, self.trip = self.trip, None
        error = self._failure or exc or exceptions.ConnectionError("the server closed it")
        with suppress(RuntimeError):  # the loop is closed
            self._theirs.connection_lost(exc)
        self.connection._close()
        self._lost(self, trip, error)

    def abandon(self) -> None:
        """Close a connection whose loop was closed before it.

        Nothing can be awaited there any more. What asyncio's transports would do on the
        loop's next turn is done here; where they are others, the garbage collector does it.
        """
        end = getattr(self._transport, "_call_connection_lost", None)
        if end is not None and not self._transport.is_closing():
            with suppress(RuntimeError):  # the loop is closed
                self._transport.abort()
            end(None)


def _refusal(era: Era, text: str) -> exceptions.ResponseError:
    """The error that a server replied, which may end the era of its connection."""
    error = exceptions.ResponseError(text)
    heed(error, era)
    return error
