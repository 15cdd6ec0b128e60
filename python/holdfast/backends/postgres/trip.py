"""One round trip over a connection of holdfast's own, as libpq makes it.

psycopg's cursors look anew at each value of each statement, and give statements names that another
client may have given to others. What is sent here is of few types, and a name is made of the text.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, TypeAlias

import psycopg
from psycopg import errors
from psycopg.adapt import Transformer
from psycopg.pq import ConnStatus, ExecStatus, Format, PipelineStatus, TransactionStatus
from psycopg.waiting import Ready, Wait

from holdfast.backends.eras import Era
from holdfast.backends.postgres.columns import ByteArrays, Numbers, Texts, encoding_of
from holdfast.backends.postgres.errors import kind_of
from holdfast.backends.postgres.statement import REFUSED, Prepared, Statement, may_refuse

_logger = logging.getLogger(__name__)

Connection: TypeAlias = "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]"
Waits: TypeAlias = Generator[Wait, Ready, Any]
"""What psycopg's own generators are: yields what it waits for, and is sent what is ready."""


_ARRAYS = (ByteArrays, Texts, Numbers)
_NUMBERS = (bool, int, float)
_KNOWN = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK, ExecStatus.FATAL_ERROR)
# A proxy gives each transaction whatever connection is free: what was prepared may not be there, or
# be there already.
_ELSEWHERE = ("26000", "42P05")
_NOT_KEPT = (
    "Postgres: something between client and server (PgBouncer?) does not keep prepared statements. "
    "The saver goes on without, which costs the server a plan for each statement: open it with "
    "prepared_statements=False."
)


class Preparing:
    """Whether statements are prepared on the server, for all connections of a saver.

    Args:
        is_on: Until it turns out that they are not kept.
    """

    def __init__(self, is_on: bool) -> None:
        self.is_on = is_on

    def give_up(self) -> None:
        """Do without, and say so once."""
        if self.is_on:
            self.is_on = False
            _logger.warning(_NOT_KEPT)


class Session:
    """What is known of a connection, which nobody else uses, and which is in no transaction.

    Args:
        connection: As psycopg made it.
        preparing: Whether statements are prepared on the server.
        era: In which it was begun; ends with the answer of a server that is not the primary.
    """

    def __init__(self, connection: Connection, preparing: Preparing, era: Era) -> None:
        self.connection: Any = connection
        self._pgconn = connection.pgconn
        self._preparing = preparing
        self._era = era
        self._prepared: set[bytes] = set()
        self._encoding = encoding_of(connection)
        self._loaders = Transformer(connection)

    @property
    def is_left(self) -> bool:
        """Whether it leads to a server that is not the primary."""
        return self._era.is_over

    @property
    def is_alive(self) -> bool:
        """Whether it is still there after having been idle, as far as is seen without a trip."""
        try:
            # What the server said before, and then that it has hung up.
            for _ in range(2):
                self._pgconn.consume_input()
        except psycopg.OperationalError:
            return False
        return bool(self._pgconn.status == ConnStatus.OK)

    @property
    def is_whole(self) -> bool:
        """Whether another trip can be made."""
        return bool(
            not self._era.is_over
            and self._pgconn.transaction_status == TransactionStatus.IDLE
            and self._pgconn.pipeline_status == PipelineStatus.OFF
        )

    def trip(self, statements: Sequence[Statement]) -> Waits:
        """Run statements as one transaction; the rows that each gives that is run, as a list."""
        prepares = self._preparing.is_on
        failed, results = yield from self._run(statements, prepares)
        if failed is not None and prepares:
            error = errors.error_from_result(failed, encoding=self._encoding)
            if error.sqlstate in _ELSEWHERE:
                self._preparing.give_up()
                failed, results = yield from self._run(statements, prepares=False)
        if failed is None:
            return [self._rows_of(result) for result in results]
        error = errors.error_from_result(failed, encoding=self._encoding)
        if isinstance(error, errors.DivisionByZero) and may_refuse(statements):
            return [REFUSED]
        if kind_of(error).moves:
            self._era.end()
        raise error

    def _run(self, statements: Sequence[Statement], prepares: bool) -> Waits:
        """The first failure, or None and the result of each statement."""
        pgconn = self._pgconn
        names = self._unprepared(statements) if prepares else {}
        sent = [
            (statement, *_dumped(statement.values, self._encoding))
            for statement in statements
            if not isinstance(statement, Prepared)
        ]
        if not sent and not names:
            return None, []
        if len(sent) == 1 and not names:
            self._send(*sent[0], prepares)
            results = yield from self._replies(is_pipelined=False)
            return _failure(results), results
        pgconn.enter_pipeline_mode()
        for name, sql in names.items():
            pgconn.send_prepare(name, sql)
        for one in sent:
            self._send(*one, prepares)
        pgconn.pipeline_sync()
        results = yield from self._replies(is_pipelined=True)
        if pgconn.status == ConnStatus.OK:
            pgconn.exit_pipeline_mode()
        # Those that were prepared stay, also where what followed failed.
        for name, result in zip(names, results, strict=False):
            if result.status == ExecStatus.COMMAND_OK:
                self._prepared.add(name)
        return _failure(results), results[len(names) :]

    def _unprepared(self, statements: Sequence[Statement]) -> dict[bytes, bytes]:
        """Name → text of what is still to be prepared."""
        names = {_name(statement.sql): statement.sql for statement in statements}
        return {name: sql for name, sql in names.items() if name not in self._prepared}

    def _send(
        self,
        statement: Statement,
        values: list[bytes | None],
        formats: list[Format],
        prepares: bool,
    ) -> None:
        if prepares:
            self._pgconn.send_query_prepared(
                _name(statement.sql), values, formats, result_format=Format.BINARY
            )
        else:
            self._pgconn.send_query_params(
                statement.sql, values, param_formats=formats, result_format=Format.BINARY
            )

    def _replies(self, *, is_pipelined: bool) -> Waits:
        """The results of what was sent, without those that only say that others failed."""
        pgconn = self._pgconn
        results: list[Any] = []
        try:
            while pgconn.flush():
                # A server that does not get rid of what it says reads no more.
                ready = yield Wait.RW
                if ready and ready & Ready.R:
                    pgconn.consume_input()
            while True:
                while pgconn.is_busy():
                    if (yield Wait.R):
                        pgconn.consume_input()
                result = pgconn.get_result()
                if result is None:  # behind those of each statement
                    if not is_pipelined or pgconn.status != ConnStatus.OK:
                        return results
                elif result.status == ExecStatus.PIPELINE_SYNC:
                    return results
                elif result.status in _KNOWN:
                    results.append(result)
                elif result.status != ExecStatus.PIPELINE_ABORTED:
                    raise psycopg.NotSupportedError(f"a reply of status {result.status}")
        except psycopg.OperationalError:
            # What the server said before it hung up tells more.
            if _failure(results) is None:
                raise
            return results

    def _rows_of(self, result: Any) -> list[tuple[Any, ...]]:
        if result.status != ExecStatus.TUPLES_OK:
            return []
        self._loaders.set_pgresult(result)
        rows: list[tuple[Any, ...]] = self._loaders.load_rows(0, result.ntuples, tuple)
        return rows


def _failure(results: Sequence[Any]) -> Any:
    """The first result that is an error."""
    return next((one for one in results if one.status == ExecStatus.FATAL_ERROR), None)


@lru_cache(maxsize=512)
def _name(sql: bytes) -> bytes:
    """A statement's name on the server: another client's of that name is the same statement."""
    return b"holdfast_" + blake2b(sql, digest_size=12).hexdigest().encode()


def _dumped(values: Sequence[Any], encoding: str) -> tuple[list[bytes | None], list[Format]]:
    """Values as they are sent, and how each is written. Postgres finds out their types from where
    they stand."""
    dumped: list[bytes | None] = []
    formats: list[Format] = []
    for value in values:
        kind = type(value)
        format = Format.TEXT
        if value is None:
            dumped.append(None)
        elif kind is bytes:
            format = Format.BINARY
            dumped.append(value)
        elif kind in _ARRAYS:
            format = Format.BINARY
            dumped.append(value.dumped(encoding))
        elif kind in _NUMBERS:
            dumped.append(str(value).encode())
        else:  # a class of the user's own may say otherwise what it is as text
            dumped.append(str.encode(value, encoding))
        formats.append(format)
    return dumped, formats
