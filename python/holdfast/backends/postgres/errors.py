"""Postgres' errors: which are worth another attempt, and what the others mean, with the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from holdfast.errors import (
    ConfigurationError,
    HoldfastError,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
)


class Silence(psycopg.OperationalError):
    """No reply came in time; the connection was given up."""


class Unreached(psycopg.OperationalError):
    """A connection could not be made; the cause says why."""


@contextmanager
def connecting() -> Iterator[None]:
    """Tell what fails while a connection is made from the loss of one."""
    try:
        yield
    except (psycopg.OperationalError, OSError) as error:
        # The connection that was not made, for those who look: it has the password.
        if "_pgconn" in vars(error):
            vars(error)["_pgconn"] = None
        raise Unreached(str(error)) from error


@dataclass(frozen=True, slots=True)
class Kind:
    """What a failure is raised as, its remedy, and whether it may pass."""

    error: type[HoldfastError]
    remedy: str
    passes: bool = True
    moves: bool = False
    """Whether the address may lead to another server by now, which is asked anew."""


_UNREACHABLE = Kind(
    StoreUnavailable,
    "Check that the server runs, that host and port are right, and that nothing between "
    "closes the connection.",
)
_SILENT = Kind(
    StoreTimeout,
    "The server did not answer in time: look for locks and slow statements in pg_stat_activity, "
    "or raise reply_timeout if it is only busy.",
)
_EXHAUSTED = Kind(
    StoreTimeout,
    "All connections of the pool were in use for too long: raise pool_size, or look for slow "
    "statements in pg_stat_activity.",
)
_CLOSED = Kind(
    StoreUnavailable,
    "The connection or pool that was given to the saver is not open: open it (pool.open()), and "
    "keep it open for as long as the saver is used.",
    passes=False,
)
_DENIED = Kind(
    ConfigurationError,
    "Check user and password in the URL, and pg_hba.conf.",
    passes=False,
)
_IMPOSSIBLE = Kind(
    ConfigurationError,
    "Correct the parameter in the URL, or where else it was given.",
    passes=False,
)
_BETWEEN = Kind(
    ConfigurationError,
    "Something between client and server (PgBouncer?) does not keep prepared statements or "
    "settings: open the saver with prepared_statements=False.",
    passes=False,
)
_AGAIN = Kind(
    StoreUnavailable,
    "Other transactions came between again and again: look at what else changes these tables. In "
    "a transaction of your own, roll it back and repeat it.",
)
_RESTARTING = Kind(StoreUnavailable, "The server is starting, stopping or recovering: wait for it.")
_NO_ROOM = Kind(
    StoreFull,
    "Nothing of the request was stored, what was stored before is sound. Free disk space, or "
    "delete or prune threads and run VACUUM.",
    passes=False,
)
_NO_TABLES = Kind(
    ConfigurationError,
    "Call saver.setup() with a user who may create tables, or run the statements of "
    "saver.ddl(); then check that table names the same prefix and schema.",
    passes=False,
)
_NO_RIGHT = Kind(
    ConfigurationError,
    "Grant the user SELECT, INSERT, UPDATE and DELETE on holdfast's tables. To have them made "
    "by another user, run the statements of saver.ddl(); tables of an older version are brought "
    "up to date by saver.setup(), called by their owner.",
    passes=False,
)
_SEQUENCE = Kind(
    ConfigurationError,
    "Nothing was stored: the sequences of holdfast's tables are behind their rows, as after "
    "logical replication, which does not carry them. Set them with setval(), as "
    "docs/postgres.md says.",
    passes=False,
)
_OTHER = Kind(
    StoreUnavailable,
    "Check that the server is PostgreSQL 12 or newer, and that nobody else changed the tables.",
    passes=False,
)
# By SQLSTATE, the longest that fits: https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_STATE: dict[str, Kind] = {
    "08": _UNREACHABLE,
    "57P01": _RESTARTING,
    "57P02": _RESTARTING,
    "57P03": replace(_RESTARTING, moves=True),
    "57P05": _UNREACHABLE,
    "57014": _SILENT,
    "55P03": _SILENT,
    "25P03": _UNREACHABLE,
    "25P02": Kind(
        StoreUnavailable,
        "The transaction that the connection is in has failed: roll it back, and repeat it.",
        passes=False,
    ),
    "40": _AGAIN,
    "53100": _NO_ROOM,
    "53200": Kind(StoreUnavailable, "The server is out of memory: look at its settings."),
    "53300": Kind(
        StoreUnavailable,
        "The server takes no more connections: raise max_connections, lower pool_size, or put "
        "PgBouncer between and open the saver with prepared_statements=False.",
    ),
    "25006": Kind(
        StoreUnavailable,
        "This server is a standby, or was made read-only: name the primary "
        "(target_session_attrs=read-write), or let a failover finish.",
        moves=True,
    ),
    "28": _DENIED,
    "3D000": Kind(
        ConfigurationError,
        "There is no such database on the server: create it, or name another one in the URL.",
        passes=False,
    ),
    "3F000": _NO_TABLES,
    "42P01": _NO_TABLES,
    "42703": _NO_TABLES,
    "42501": _NO_RIGHT,
    "54000": Kind(
        ConfigurationError,
        "Ids of threads, namespaces, checkpoints and tasks are keys of an index, which takes "
        "2,600 bytes of them together: use shorter ones.",
        passes=False,
    ),
    "23505": _SEQUENCE,
    "26000": _BETWEEN,
    "42P05": _BETWEEN,
    "22P05": Kind(
        ConfigurationError,
        "The encoding of the database, or of a connection that was given, does not have all "
        "characters: use a database with ENCODING 'UTF8' and a connection with that "
        "client_encoding.",
        passes=False,
    ),
    "XX001": Kind(
        StoreUnavailable,
        "The server found damaged data: restore a backup, after a look at its log.",
        passes=False,
    ),
}
# PgBouncer has this code for much that passes; Postgres says it of a prepared statement of another
# client that has the name of ours.
_PROTOCOL_VIOLATION = "08P01"
_ELSEWHERE = re.compile("bind message (supplies|has) ")
# libpq gives no code for what goes wrong while it connects: the first that is found counts.
_BY_TEXT: tuple[tuple[re.Pattern[str], Kind], ...] = tuple(
    (re.compile(text), kind)
    for text, kind in (
        (
            "authentication failed|no password supplied|no pg_hba.conf entry|"
            'not permitted to log in|role ".*" does not exist|permission denied for database',
            _DENIED,
        ),
        (
            r"invalid (\w+ )?value|invalid port number|bad value for|"
            "unrecognized configuration parameter|codec not available in Python|"
            "does not support SSL, but SSL was required|channel binding|"
            "authentication method requirement|definition of service",
            _IMPOSSIBLE,
        ),
        ("unsupported startup parameter|command-line options", _BETWEEN),
        ('database ".*" does not exist', _BY_STATE["3D000"]),
        (
            "too many clients|too many connections for|remaining connection slots",
            _BY_STATE["53300"],
        ),
        ("starting up|shutting down|recovery mode", _RESTARTING),
    )
)
_OF_THE_POOL: tuple[tuple[type[Exception], Kind], ...] = (
    (Silence, _SILENT),
    (PoolTimeout, _EXHAUSTED),
    (TooManyRequests, _EXHAUSTED),
    (PoolClosed, _CLOSED),
)


def kind_of(error: Exception) -> Kind:
    """What a failure means."""
    for kind_of_error, kind in _OF_THE_POOL:
        if isinstance(error, kind_of_error):
            return kind
    if isinstance(error, UnicodeError):
        return _BY_STATE["22P05"]
    state = getattr(error, "sqlstate", None)
    if state == _PROTOCOL_VIOLATION and _ELSEWHERE.search(str(error)):
        return _BETWEEN
    if state:
        fitting = (_BY_STATE.get(state[:length]) for length in range(len(state), 1, -1))
        return next((kind for kind in fitting if kind is not None), _OTHER)
    message = str(error)
    found = next((kind for text, kind in _BY_TEXT if text.search(message)), None)
    if found is not None and isinstance(error, psycopg.Error):
        return found
    return _UNREACHABLE if _is_of_the_connection(error) else _OTHER


def is_lost(error: Exception) -> bool:
    """Whether the connection was lost, as opposed to an answer that says no."""
    if isinstance(error, (PoolTimeout, TooManyRequests, PoolClosed, Silence, Unreached)):
        return False
    state = getattr(error, "sqlstate", None)
    if state is not None:
        return state[:2] == "08" or state in ("57P01", "57P02", "57P05", "25P03")
    return _is_of_the_connection(error)


def _is_of_the_connection(error: Exception) -> bool:
    """Of an error without a code, whether it is the connection's."""
    # Of the class without a name of its own is what libpq says of bytes that are no reply.
    is_garbage = type(error) is psycopg.DatabaseError
    return is_garbage or isinstance(error, (psycopg.OperationalError, OSError))


def raised(error: Exception, where: str, attempts: int, seconds: float) -> HoldfastError:
    """The error for the caller; the driver's own becomes its cause."""
    kind = kind_of(error)
    tried = f" ({attempts} attempts in {seconds:.1f} s, see retry_budget)" if attempts > 1 else ""
    message = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return kind.error(f"Postgres, {where}: {message}{tried}. {kind.remedy}")
