"""What is done in a transaction of the user's: it is his to repeat, and may be taken back.

How it stands is noted while nobody else uses the connection: a moment later a statement of another
thread's may be under way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

Connection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]

_MARK = "_holdfast_within"


class Within(list[Any]):
    """The replies of a round trip in such a transaction."""


def told(connection: Connection, replies: list[Any]) -> list[Any]:
    """Replies that tell whether they are such."""
    return Within(replies) if _is_in_transaction(connection) else replies


@contextmanager
def telling(connection: Connection) -> Iterator[None]:
    """Have a failure tell whether it was in such a transaction."""
    try:
        yield
    except Exception as error:
        vars(error)[_MARK] = _is_in_transaction(connection)
        raise


def is_within(outcome: list[Any] | Exception) -> bool:
    """Whether replies or a failure were in such a transaction."""
    if isinstance(outcome, Exception):
        return bool(vars(outcome).get(_MARK))
    return isinstance(outcome, Within)


def _is_in_transaction(connection: Connection) -> bool:
    return connection.pgconn.transaction_status != TransactionStatus.IDLE
