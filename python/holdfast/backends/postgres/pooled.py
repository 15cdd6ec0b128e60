"""The connections of psycopg's pool, for threads."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from functools import cached_property
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import psycopg

from holdfast.backends.postgres.errors import Silence
from holdfast.backends.postgres.statements import Statement
from holdfast.backends.postgres.trip import Session


class Pooled(psycopg.Connection[Any]):
    """A connection on which round trips are made. Each pool has a subclass of its own."""

    reply_timeout: ClassVar[float]
    """Seconds for a reply; 0 for no end."""
    prepares: ClassVar[bool]
    """Whether statements are prepared on the server."""
    made: ClassVar[WeakValueDictionary[int, Pooled]]
    """All that are there."""

    @classmethod
    def connect(cls, *args: Any, **how: Any) -> Any:
        connection = super().connect(*args, **how)
        cls.made[id(connection)] = connection
        return connection

    @cached_property
    def session(self) -> Session:
        """What is known of it."""
        return Session(self, self.prepares)

    def exchange(self, statements: Sequence[Statement]) -> list[Any]:
        """The rows that each statement gives: all of them one transaction."""
        rows: list[Any] = self.wait(self.session.trip(statements))
        return rows

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **how: Any) -> Any:
        if self.reply_timeout:
            gen = _limited(gen, self.reply_timeout)
        return super().wait(gen, *args, **how)


def _limited(replies: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
    """A generator of psycopg's, which is resumed ten times a second, as long as it may take."""
    deadline = time.monotonic() + seconds
    try:
        wanted = next(replies)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                raise Silence(f"no reply within {seconds:g} s")
            wanted = replies.send(ready)
    except StopIteration as end:
        return end.value
    finally:
        replies.close()
