"""Calls made in one tick of an event loop go out as one pipeline."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import redis.asyncio
from redis import exceptions

from holdfast.backends.redis.scripts import Command, merged, pack, reply_at

# Pipelines under way at the same time; who comes then waits and joins the next.
_PIPELINES = 4
# Commands and bytes of one pipeline: above, those who wait take another connection.
_LARGEST = 256
_BYTES = 1 << 20

_Call = tuple[Sequence[Command], "asyncio.Future[list[Any]]"]


class Coalescer:
    """Sends the commands of one event loop.

    Each call has its own replies: a failure of one is no failure of its neighbours, and a
    call that is cancelled takes nothing from them.

    Args:
        client: A client of the loop that runs now.
        timeout: Seconds for a pipeline; None leaves it to the client.
        together: Whether calls of one tick share a pipeline.
    """

    def __init__(
        self, client: redis.asyncio.Redis, timeout: float | None, *, together: bool = True
    ) -> None:
        # redis-py does not type what its own pipelines are made of.
        self._pool: Any = client.connection_pool
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Call] = deque()
        self._is_planned = False
        self._trips: set[asyncio.Task[None]] = set()
        self._together = together
        self._idle: list[Any] = []
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()

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
        while self._waiting and len(self._trips) < _PIPELINES:
            trip = self._loop.create_task(self._trip(self._next()))
            self._trips.add(trip)
            trip.add_done_callback(self._done)

    def _done(self, trip: asyncio.Task[None]) -> None:
        self._trips.discard(trip)
        if self._waiting and not self._is_planned:
            self._flush()

    def _next(self) -> list[_Call]:
        """The calls of the next pipeline: at least one."""
        calls = [self._waiting.popleft()]
        if not self._waiting or not self._together:
            return calls
        count, size = len(calls[0][0]), _size(calls[0][0])
        while self._waiting and count < _LARGEST and size < _BYTES:
            count += len(self._waiting[0][0])
            size += _size(self._waiting[0][0])
            calls.append(self._waiting.popleft())
        return calls

    async def _trip(self, calls: Sequence[_Call]) -> None:
        calls = [call for call in calls if not call[1].done()]  # cancelled before it was sent
        if not calls:
            return
        commands, places = merged([command for some, _ in calls for command in some])
        timer = None
        trip = asyncio.current_task()
        if trip is not None and self._timeout is not None:
            timer = self._loop.call_later(self._timeout, trip.cancel)
        try:
            replies = await self._exchange(commands)
        except asyncio.CancelledError:
            if timer is None or timer.when() > self._loop.time():
                _fail(calls, exceptions.ConnectionError("the event loop is closing"))
                raise
            _fail(calls, exceptions.TimeoutError(f"no reply within {self._timeout:g} s"))
        except (exceptions.RedisError, OSError) as error:
            _fail(calls, error)
        except BaseException as error:
            _fail(calls, error)
            raise
        else:
            start = 0
            for some, future in calls:
                if not future.done():
                    own = places[start : start + len(some)]
                    future.set_result([reply_at(replies, place) for place in own])
                start += len(some)
        finally:
            if timer is not None:
                timer.cancel()

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        # Not asked whether it still lives: that would cost more than the rare second attempt.
        connection = self._idle.pop() if self._idle else await self._pool.get_connection()
        self._connections.add(connection)
        is_whole = False
        try:
            await connection.send_packed_command(pack(connection, commands))
            replies: list[Any] = []
            for _ in commands:
                try:
                    replies.append(await connection.read_response(disable_decoding=True))
                except exceptions.ResponseError as error:
                    replies.append(error)
            is_whole = True
            return replies
        finally:
            if is_whole:
                self._idle.append(connection)
            else:
                # Replies that nobody will read must not meet the next call; and what ended
                # one connection has mostly ended all.
                await self._release([connection, *self._idle])

    async def _release(self, connections: Sequence[Any]) -> None:
        self._idle.clear()
        for connection in connections:
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)

    async def close(self) -> None:
        """End the trips under way, whose callers are told, and the connections."""
        for trip in self._trips:
            trip.cancel()
        await asyncio.gather(*self._trips, return_exceptions=True)
        await self._release([*self._idle])

    def abandon(self) -> None:
        """Close the connections of a loop that was closed before them.

        Nothing can be awaited there any more. What asyncio's transports would do on the
        loop's next turn is done here; where they are others, the garbage collector does it.
        """
        for connection in self._connections:
            transport = getattr(getattr(connection, "_writer", None), "transport", None)
            lost = getattr(transport, "_call_connection_lost", None)
            if transport is None or lost is None or transport.is_closing():
                continue
            with suppress(RuntimeError):  # the loop is closed
                transport.abort()
            lost(None)
            connection._close()


def _size(commands: Sequence[Command]) -> int:
    return sum(len(part) for command in commands for part in command if isinstance(part, bytes))


def _fail(calls: Sequence[_Call], error: BaseException) -> None:
    """Give each caller an error of its own: shared ones would gather tracebacks."""
    for _, future in calls:
        if not future.done():
            own = type(error)(*error.args) if isinstance(error, Exception) else error
            own.__cause__ = error.__cause__
            future.set_exception(own)
