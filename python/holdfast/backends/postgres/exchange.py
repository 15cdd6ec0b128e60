"""One round trip over a connection that its user gave, blocking or awaiting.

It is made with psycopg's cursors: he may be in a transaction or a pipeline of his own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import AsyncRawCursor, RawCursor, postgres
from psycopg.errors import DivisionByZero
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row

from holdfast.backends.postgres.statement import REFUSED, Prepared, Statement, may_refuse

_TEXT = postgres.types["text"].oid
# Of SQL_ASCII, as psycopg names it.
_UNKNOWN = "ascii"


def exchange(connection: psycopg.Connection[Any], statements: Sequence[Statement]) -> list[Any]:
    """The rows that each statement gives that is run: all of them one transaction, within that of
    the connection if it is in one."""
    # Which statements such a connection keeps, psycopg decides.
    statements = [one for one in statements if not isinstance(one, Prepared)]
    if not statements:
        return []
    try:
        if is_idle(connection):
            return _run(connection, statements)
        with connection.transaction():
            return _run(connection, statements)
    except DivisionByZero:
        if may_refuse(statements):
            return [REFUSED]
        raise


async def aexchange(
    connection: psycopg.AsyncConnection[Any], statements: Sequence[Statement]
) -> list[Any]:
    """As `exchange`."""
    statements = [one for one in statements if not isinstance(one, Prepared)]
    if not statements:
        return []
    try:
        if is_idle(connection):
            return await _arun(connection, statements)
        async with connection.transaction():
            return await _arun(connection, statements)
    except DivisionByZero:
        if may_refuse(statements):
            return [REFUSED]
        raise


def is_idle(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Whether what is sent now is a transaction by itself."""
    status = connection.pgconn.transaction_status
    return connection.autocommit and status == TransactionStatus.IDLE


def _is_pipelined(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Whether its user's pipeline is open, which knows no reply until it is synchronised: the end
    of one inside of it does that."""
    return connection.pgconn.pipeline_status != PipelineStatus.OFF


def _run(connection: psycopg.Connection[Any], statements: Sequence[Statement]) -> list[Any]:
    if len(statements) == 1 and not _is_pipelined(connection):
        cursor = RawCursor(connection, row_factory=tuple_row)
        cursor.execute(statements[0].sql, statements[0].values, binary=True)
        return [_texts(cursor, cursor.fetchall()) if cursor.description else []]
    cursors = []
    # Until the pipeline ends, its statements are one transaction.
    with connection.pipeline():
        for statement in statements:
            cursor = RawCursor(connection, row_factory=tuple_row)
            cursor.execute(statement.sql, statement.values, binary=True)
            cursors.append(cursor)
    return [_texts(one, one.fetchall()) if one.description else [] for one in cursors]


async def _arun(
    connection: psycopg.AsyncConnection[Any], statements: Sequence[Statement]
) -> list[Any]:
    if len(statements) == 1 and not _is_pipelined(connection):
        cursor = AsyncRawCursor(connection, row_factory=tuple_row)
        await cursor.execute(statements[0].sql, statements[0].values, binary=True)
        return [_texts(cursor, await cursor.fetchall()) if cursor.description else []]
    cursors = []
    async with connection.pipeline():
        for statement in statements:
            cursor = AsyncRawCursor(connection, row_factory=tuple_row)
            await cursor.execute(statement.sql, statement.values, binary=True)
            cursors.append(cursor)
    return [_texts(one, await one.fetchall()) if one.description else [] for one in cursors]


def _texts(cursor: Any, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows with text where psycopg gives bytes: of a connection in SQL_ASCII, which leaves open
    what they say. We wrote UTF-8."""
    if cursor.connection.info.encoding != _UNKNOWN:
        return rows
    is_text = [column.type_code == _TEXT for column in cursor.description]
    return [
        tuple(
            cell.decode() if of_text and isinstance(cell, bytes) else cell
            for cell, of_text in zip(row, is_text, strict=True)
        )
        for row in rows
    ]
