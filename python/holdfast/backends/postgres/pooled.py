"""The connections of psycopg's pool, for threads."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import psycopg

from holdfast.backends.eras import Era
from holdfast.backends.postgres.errors import Silence, connecting
from holdfast.backends.postgres.statement import Statement
from holdfast.backends.postgres.stopping import stop
from holdfast.backends.postgres.trip import Preparing, Session
from holdfast.errors import for_another


class Pooled(psycopg.Connection[Any]):
    """A connection on which round trips are made. Each pool has a subclass of its own."""

    reply_timeout: ClassVar[float]
    """Seconds without a sign of life from the server; 0 for no end."""
    preparing: ClassVar[Preparing]
    """Whether statements are prepared on the server."""
    era: ClassVar[Era]
    """In which they are begun."""
    made: ClassVar[WeakValueDictionary[int, Pooled]]
    """All that are there."""
    refused: ClassVar[tuple[float, Exception] | None] = None
    """When one could not be made the last time, by `time.monotonic`, and why: the pool tells nobody
    who waits."""
    session: Session

    @classmethod
    def connect(cls, *args: Any, **how: Any) -> Any:
        try:
            connection = cls._connected(*args, **how)
        except Exception as error:
            # A copy: the traceback of what is raised leads to the pool.
            cls.refused = time.monotonic(), for_another(error)
            raise
        cls.made[id(connection)] = connection
        return connection

    @classmethod
    def _connected(cls, *args: Any, **how: Any) -> Any:
        with connecting():
            connection = super().connect(*args, **how)
        try:
            connection.session = Session(connection, cls.preparing, cls.era)
        except BaseException:
            connection.close()
            raise
        return connection

    def exchange(self, statements: Sequence[Statement]) -> list[Any]:
        """The rows that each statement gives: all of them one transaction."""
        try:
            rows: list[Any] = self.wait(self.session.trip(statements))
        except Silence:
            stop(self.pgconn)
            raise
        return rows

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **how: Any) -> Any:
        if self.reply_timeout:
            gen = _limited(gen, self.reply_timeout)
        return super().wait(gen, *args, **how)


def _limited(replies: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
    """A generator that psycopg resumes ten times a second also when nothing is ready, as long as
    that may be so."""
    deadline = time.monotonic() + seconds
    try:
        wanted = next(replies)
        while True:
            ready = yield wanted
            if ready:
                deadline = time.monotonic() + seconds
            elif time.monotonic() > deadline:
                raise Silence(f"no reply within {seconds:g} s")
            wanted = replies.send(ready)
    except StopIteration as end:
        return end.value
    finally:
        replies.close()
