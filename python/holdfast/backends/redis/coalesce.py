"""Calls made in one tick of an event loop go out as one pipeline."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import redis.asyncio
from redis import exceptions

from holdfast.backends.eras import Era, Eras
from holdfast.backends.redis.errors import heed
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


class Coalescer(ABC):
    """Sends the commands of one event loop: those of one tick as one pipeline.

    Each call has its own replies: a failure of one is no failure of its neighbours, and a
    call that is cancelled takes nothing from them.

    Args:
        client: A client of the loop that runs now.
        together: Whether calls of one tick share a pipeline.
    """

    def __init__(self, client: redis.asyncio.Redis, *, together: bool = True) -> None:
        # redis-py does not type what its own pipelines are made of.
        self._pool: Any = client.connection_pool
        self._loop = asyncio.get_running_loop()
        self._together = together
        self._most: int = min(_CONNECTIONS, self._pool.max_connections)
        self._waiting: deque[_Call] = deque()
        self._is_planned = False
        self._is_closed = False

    def send(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """The replies to commands; an error that the server replied stands in its place.

        Raises:
            redis.ConnectionError, redis.TimeoutError, OSError: No reply came.
        """
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self._waiting.append((commands, future))
        if self._is_closed:
            self._fail_waiting(_closed())
        elif not self._is_planned:
            self._is_planned = True
            self._loop.call_soon(self._flush)
        return future

    @abstractmethod
    def _flush(self) -> None:
        """Send what waits, as far as connections are free."""

    async def close(self) -> None:
        """End what is under way and what was opened. Callers are told, and try again: on
        connections that are opened for them."""
        self._is_closed = True
        self._fail_waiting(_closed())
        await self._close()

    @abstractmethod
    async def _close(self) -> None:
        """End the connections."""

    async def _connected(self) -> Any:
        """A connection from the pool."""
        try:
            return await self._pool.get_connection()
        except exceptions.RedisError:
            raise
        except BaseException:  # as in `clients.exchange`
            await self._pool.disconnect(inuse_connections=False)
            raise

    def _next(self) -> tuple[Trip, list[Command]] | None:
        """The next pipeline and its commands; None where nobody waits any more."""
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
        if not calls:
            return None
        commands = [command for some, _ in calls for command in some]
        sent, places = merged(commands) if len(commands) > 1 else (commands, None)
        return Trip(calls, len(sent), places, self._loop.time()), sent

    def _fail_waiting(self, error: BaseException) -> None:
        waiting, self._waiting = self._waiting, deque()
        fail(waiting, error)


class Links(Coalescer):
    """Sends over connections of its own, of which it reads the replies itself.

    Args:
        timeout: Seconds for a pipeline; None for no end.
        eras: Those of the connections.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        timeout: float | None,
        eras: Eras,
        *,
        together: bool = True,
    ) -> None:
        super().__init__(client, together=together)
        self._timeout = timeout
        self._eras = eras
        self._idle: list[Link] = []
        self._links: set[Link] = set()
        self._closed = asyncio.Event()
        self._closed.set()
        self._opening: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._watch: asyncio.TimerHandle | None = None

    def _flush(self) -> None:
        self._is_planned = False
        while self._waiting:
            if self._idle:
                link = self._idle.pop()
                if link.era.is_over:
                    self._leave(link)
                else:
                    self._go(link)
                continue
            if len(self._links) + len(self._opening) < self._most:
                task = self._loop.create_task(self._open())
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)
            break

    async def _open(self) -> None:
        era = self._eras.now
        try:
            connection = await asyncio.wait_for(self._connected(), self._timeout)
            try:
                link = Link(connection, era, self._arrived, self._lost)
            except BaseException:
                await connection.disconnect(nowait=True)
                await self._pool.release(connection)
                raise
        except asyncio.TimeoutError:
            self._fail_waiting(exceptions.TimeoutError(f"no connection in {self._timeout} s"))
        except asyncio.CancelledError:
            self._fail_waiting(exceptions.ConnectionError("the event loop is closing"))
            raise
        except Exception as error:  # noqa: BLE001 - each waiting caller gets it
            self._fail_waiting(error)
        else:
            self._links.add(link)
            self._closed.clear()
            if self._is_closed:  # which a connection that was just made does not hear
                link.fail(_closed())
            else:
                self._idle.append(link)
                self._flush()

    def _leave(self, link: Link) -> None:
        """End a connection whose era is over."""
        link.fail(exceptions.ConnectionError("it leads to a server that is not the primary"))

    def _go(self, link: Link) -> None:
        """Send the next pipeline."""
        following = self._next()
        if following is None:
            self._idle.append(link)
            return
        trip, commands = following
        link.send(trip, pack(commands))
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

    def _arrived(self, link: Link, trip: Trip) -> None:
        settle(trip)
        if link.era.is_over:
            self._leave(link)
        else:
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
            fail(trip.calls, error)
        if not self._loop.is_closed():
            task = self._loop.create_task(self._pool.release(link.connection))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            if self._waiting:
                self._flush()

    async def _close(self) -> None:
        for task in self._opening:
            task.cancel()
        for link in list(self._links):
            link.fail(_closed())
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


class Loans(Coalescer):
    """Sends over connections that somebody else's pool lends for one pipeline at a time."""

    def __init__(self, client: redis.asyncio.Redis, *, together: bool = True) -> None:
        super().__init__(client, together=together)
        self._trips: set[asyncio.Task[None]] = set()

    def _flush(self) -> None:
        self._is_planned = False
        while self._waiting and len(self._trips) < self._most:
            following = self._next()
            if following is None:
                break
            task = self._loop.create_task(self._exchange(*following))
            self._trips.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._trips.discard(task)
        if self._waiting and not self._loop.is_closed():
            self._flush()

    async def _exchange(self, trip: Trip, commands: Sequence[Command]) -> None:
        connection, era = None, Era()
        try:
            connection = await self._connected()
            await connection.send_packed_command([pack(commands)])
            while len(trip.replies) < trip.count:
                try:
                    trip.replies.append(await connection.read_response(disable_decoding=True))
                except exceptions.ResponseError as error:
                    trip.replies.append(error)
                    heed(error, era)
        except asyncio.CancelledError:
            fail(trip.calls, exceptions.ConnectionError("the event loop is closing"))
            raise
        except Exception as error:  # noqa: BLE001 - each caller gets it
            fail(trip.calls, error)
        else:
            settle(trip)
        finally:
            if connection is not None:
                if len(trip.replies) < trip.count or era.is_over:
                    # Replies that nobody will read must not meet the next call.
                    await connection.disconnect(nowait=True)
                await self._pool.release(connection)

    async def _close(self) -> None:
        for task in self._trips:
            task.cancel()
        await asyncio.gather(*self._trips, return_exceptions=True)


def _closed() -> Exception:
    return exceptions.ConnectionError("the saver was closed meanwhile")


def settle(trip: Trip) -> None:
    """Give each caller its replies."""
    replies, start = trip.replies, 0
    for commands, future in trip.calls:
        end = start + len(commands)
        if not future.done():
            if trip.places is None:
                future.set_result(replies[start:end])
            else:
                future.set_result([reply_at(replies, at) for at in trip.places[start:end]])
        start = end


def fail(calls: Calls, error: BaseException) -> None:
    """Give each caller the error; one of its own if it can be made: shared ones gather
    tracebacks."""
    for _, future in calls:
        if not future.done():
            own = error
            if isinstance(error, (exceptions.RedisError, OSError)):
                # Not every subclass can be made from its arguments.
                with suppress(Exception):
                    own = type(error)(*error.args)
                    own.__cause__ = error.__cause__
            future.set_exception(own)


def _size(commands: Sequence[Command]) -> int:
    return sum(len(part) for command in commands for part in command if isinstance(part, bytes))
