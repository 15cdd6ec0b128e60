"""The connections of one event loop.

psycopg's asynchronous pool works with tasks in the background: a loop that is closed without a word
leaves them, and their connections, behind. Here nothing is under way but what callers wait for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable

from psycopg_pool import PoolTimeout

from holdfast.backends.postgres.errors import connecting
from holdfast.backends.postgres.link import Link


class LoopConnections:
    """Connections that are made as they are needed, and closed with their loop, or before.

    Args:
        connect: Makes a connection on the running loop.
        size: How many there are at most.
        patience: Seconds that a caller waits for one.
    """

    def __init__(self, connect: Callable[[], Awaitable[Link]], size: int, patience: float) -> None:
        self._connect = connect
        self._size = size
        self._patience = patience
        self._open: set[Link] = set()
        self._coming = 0
        self._idle: list[Link] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.is_closed = False
        self._life = self._until_closed()

    async def begin(self) -> None:
        """Have the running loop close the connections when it ends."""
        # asyncio closes the generators of a loop before the loop itself.
        await anext(self._life)

    async def _until_closed(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self.close()

    async def aclose(self) -> None:
        await self._life.aclose()

    @property
    def size(self) -> int:
        """Connections that are open; asked from other threads, too."""
        return sum(not link.is_closed for link in self._open.copy())

    @property
    def idle(self) -> int:
        """Connections that nobody uses."""
        return sum(not link.is_closed for link in self._idle.copy())

    @property
    def waiting(self) -> int:
        """Callers that wait for a connection."""
        return len(self._waiting)

    @property
    def is_ready(self) -> bool:
        """Whether `take` gives a connection at once."""
        return bool(self._idle) and self._idle[-1].is_alive

    async def take(self) -> Link:
        """A connection for the caller alone.

        Raises:
            PoolTimeout: All were in use for too long.
            Unreached: One could not be made.
        """
        while True:
            while self._idle:
                link = self._idle.pop()
                if link.is_alive:
                    return link
                self._drop(link)
            if self.is_closed or len(self._open) + self._coming < self._size:
                return await self._made()
            await self._turn()

    async def _made(self) -> Link:
        self._coming += 1
        try:
            with connecting():
                link = await self._connect()
        except BaseException:
            self._wake()
            raise
        finally:
            self._coming -= 1
        self._open.add(link)
        return link

    async def _turn(self) -> None:
        """Wait until a connection may be free."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            # Not wait_for, which in Python 3.11 may take a cancellation for the turn.
            if not (await asyncio.wait([turn], timeout=self._patience))[0]:
                raise PoolTimeout(f"no connection was free for {self._patience:g} s")
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._wake()  # the turn is another's
            raise
        finally:
            if turn in self._waiting:
                self._waiting.remove(turn)

    def give(self, link: Link) -> None:
        """Give back a connection that was taken."""
        if link.session.is_whole and not self.is_closed:
            self._idle.append(link)
        else:
            self._drop(link)
        self._wake()

    def _drop(self, link: Link) -> None:
        self._open.discard(link)
        link.close()

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def close(self) -> None:
        """Close the connections that nobody uses; the others when they are given back. Whoever
        comes later, in the last moments of the loop, has one for a single call."""
        self.is_closed = True
        for link in self._idle:
            self._drop(link)
        self._idle.clear()

    def abandon(self) -> None:
        """Close all connections of a loop that was closed before them."""
        self.is_closed = True
        for link in list(self._open):
            self._drop(link)
        self._idle.clear()
