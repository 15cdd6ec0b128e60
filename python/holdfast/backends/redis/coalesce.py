"""Calls made in one tick of an event loop go out as one pipeline."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import redis.asyncio
from redis import exceptions

from holdfast.backends.redis.link import Calls, Link, Trip
from holdfast.backends.redis.scripts import Command, merged, pack, reply_at

# Connections, and so pipelines under way at a time; who comes then joins the next one.
_CONNECTIONS = 4
# Commands and bytes of one pipeline: above, those who wait take another connection.
_LARGEST = 256
_BYTES = 1 << 20
# How often within the timeout it is looked for silent connections.
_LOOKS = 8

_Call = tuple[Sequence[Command], "asyncio.Future[list[Any]]"]


class Coalescer:
    """Sends the commands of one event loop.

    Each call has its own replies: a failure of one is no failure of its neighbours, and a
    call that is cancelled takes nothing from them.

    Args:
        client: A client of the loop that runs now.
        timeout: Seconds for a pipeline; None for no end.
        together: Whether calls of one tick share a pipeline.
    """

    def __init__(
        self, client: redis.asyncio.Redis, timeout: float | None, *, together: bool = True
    ) -> None:
        # redis-py does not type what its own pipelines are made of.
        self._pool: Any = client.connection_pool
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._together = together
        self._waiting: deque[_Call] = deque()
        self._is_planned = False
        self._idle: list[Link] = []
        self._links: set[Link] = set()
        self._closed = asyncio.Event()
        self._closed.set()
        self._opening: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._watch: asyncio.TimerHandle | None = None

    def send(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """The replies to commands; an error that the server replied stands in its place.

        Raises:
            redis.ConnectionError, redis.TimeoutError, OSError: No reply came.
        """
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self._waiting.append((commands, future))
        if not self._is_planned:
            self._is_planned = True
            self._loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        self._is_planned = False
        while self._waiting:
            if self._idle:
                self._go(self._idle.pop())
                continue
            if len(self._links) + len(self._opening) < _CONNECTIONS:
                task = self._loop.create_task(self._open())
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)
            break

    async def _open(self) -> None:
        try:
            connection = await asyncio.wait_for(self._pool.get_connection(), self._timeout)
        except asyncio.TimeoutError:
            self._fail_waiting(exceptions.TimeoutError(f"no connection in {self._timeout:g} s"))
        except asyncio.CancelledError:
            self._fail_waiting(exceptions.ConnectionError("the event loop is closing"))
            raise
        except Exception as error:  # noqa: BLE001 - each waiting caller gets it
            self._fail_waiting(error)
        else:
            link = Link(connection, self._arrived, self._lost)
            self._links.add(link)
            self._closed.clear()
            self._idle.append(link)
            self._flush()

    def _fail_waiting(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, deque()
        _fail(waiting, error)

    def _go(self, link: Link) -> None:
        """Send the next pipeline."""
        calls = self._next()
        if not calls:
            self._idle.append(link)
            return
        commands = [command for some, _ in calls for command in some]
        sent, places = merged(commands) if len(commands) > 1 else (commands, None)
        link.send(Trip(calls, len(sent), places, self._loop.time()), pack(sent))
        if self._timeout is not None and self._watch is None:
            self._watch = self._loop.call_later(self._timeout / _LOOKS, self._look)

    def _look(self) -> None:
        """End the connections that are silent for too long. One timer for all: a timer for
        each pipeline would cost as much as sending it."""
        self._watch = None
        if self._timeout is None:
            return
        now = self._loop.time()
        error = exceptions.TimeoutError(f"no reply within {self._timeout:g} s")
        for link in list(self._links):
            if link.trip is not None:
                if now - link.trip.begun >= self._timeout:
                    link.fail(error)
                elif self._watch is None:
                    self._watch = self._loop.call_later(self._timeout / _LOOKS, self._look)

    def _next(self) -> list[_Call]:
        """The calls of the next pipeline."""
        calls: list[_Call] = []
        count = size = 0
        while self._waiting and count < _LARGEST and size < _BYTES:
            call = self._waiting.popleft()
            if call[1].done():
                continue  # cancelled before it was sent
            calls.append(call)
            if not self._together:
                break
            if self._waiting:
                count += len(call[0])
                size += _size(call[0])
        return calls

    def _arrived(self, link: Link, trip: Trip) -> None:
        replies, start = trip.replies, 0
        for commands, future in trip.calls:
            end = start + len(commands)
            if not future.done():
                if trip.places is None:
                    future.set_result(replies[start:end])
                else:
                    future.set_result([reply_at(replies, at) for at in trip.places[start:end]])
            start = end
        self._idle.append(link)
        if self._waiting:
            self._flush()

    def _lost(self, link: Link, trip: Trip | None, error: Exception) -> None:
        self._links.discard(link)
        if not self._links:
            self._closed.set()
        if link in self._idle:
            self._idle.remove(link)
        if trip is not None:
            _fail(trip.calls, error)
        if not self._loop.is_closed():
            task = self._loop.create_task(self._pool.release(link.connection))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            if self._waiting:
                self._flush()

    async def close(self) -> None:
        """End the trips under way, whose callers are told, and the connections."""
        for task in self._opening:
            task.cancel()
        for link in list(self._links):
            link.fail(exceptions.ConnectionError("the saver was closed"))
        await asyncio.gather(*self._opening, return_exceptions=True)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        await self._closed.wait()
        await asyncio.gather(*self._closing, return_exceptions=True)

    def abandon(self) -> None:
        """Close the connections of a loop that was closed before them."""
        for link in list(self._links):
            link.abandon()


def _size(commands: Sequence[Command]) -> int:
    return sum(len(part) for command in commands for part in command if isinstance(part, bytes))


def _fail(calls: Calls, error: Exception) -> None:
    """Give each caller an error of its own: shared ones would gather tracebacks."""
    for _, future in calls:
        if not future.done():
            own = type(error)(*error.args)
            own.__cause__ = error.__cause__
            future.set_exception(own)
