"""Redis' errors: which are worth another attempt, and what the others mean, with the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from redis import exceptions

from holdfast.backends.eras import Era
from holdfast.errors import (
    ConfigurationError,
    HoldfastError,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a failure is raised as, its remedy, and whether it may pass."""

    error: type[HoldfastError]
    remedy: str
    passes: bool = True
    reads: bool = False
    """Whether it is said of changes alone: what only reads or removes still works."""
    moves: bool = False
    """Whether the address may lead to another server by now, which is asked anew."""


_UNREACHABLE = Kind(
    StoreUnavailable,
    "Check that the server runs, that host and port are right, and that nothing between "
    "closes the connection.",
)
_SILENT = Kind(
    StoreTimeout,
    "The server did not answer in time: look for slow commands (SLOWLOG GET), swapping, or a "
    "network that drops packets; raise socket_timeout or retry_budget if it is only far away.",
)
_REFUSED = Kind(
    ConfigurationError,
    "Check user and password in the URL, and that the user is on.",
    passes=False,
)
_BY_CODE: dict[str, Kind] = {
    "NOSCRIPT": Kind(StoreUnavailable, "Scripts are flushed faster than they can be sent."),
    "LOADING": Kind(
        StoreUnavailable, "The server is still loading its data: wait for it.", moves=True
    ),
    "READONLY": Kind(
        StoreUnavailable,
        "This server is a replica: name the primary, or let a failover finish.",
        reads=True,
        moves=True,
    ),
    "MASTERDOWN": Kind(
        StoreUnavailable,
        "This server is a replica that has lost its primary: name the primary, or restore the "
        "link.",
        moves=True,
    ),
    "OOM": Kind(
        StoreFull,
        "The server is out of memory, nothing of the request was stored and what was stored "
        "before is sound. Raise maxmemory, or delete or prune threads: both work on a full "
        "server.",
        reads=True,
    ),
    "BUSY": Kind(
        StoreTimeout,
        "Another client's script keeps the server busy: SCRIPT KILL ends it if it has not "
        "written yet.",
    ),
    "MISCONF": Kind(
        StoreUnavailable,
        "The server cannot save to its disk and refuses to write: free disk space or mend its "
        "directory's rights.",
        reads=True,
    ),
    "NOREPLICAS": Kind(
        StoreUnavailable,
        "The server has fewer replicas than min-replicas-to-write asks for.",
        reads=True,
        moves=True,
    ),
    "MAXCONNECTIONS": Kind(
        StoreUnavailable,
        "All connections that the client's pool may open are in use: raise max_connections.",
    ),
    "CLUSTERDOWN": Kind(StoreUnavailable, "The cluster is down: look at CLUSTER INFO."),
    "TRYAGAIN": Kind(StoreUnavailable, "The cluster is moving slots: wait for it."),
    "MOVED": Kind(
        ConfigurationError,
        "This server is a node of a Redis Cluster, which is not supported yet: name a server "
        "that is not part of one.",
        passes=False,
    ),
    "CROSSSLOT": Kind(
        ConfigurationError,
        "This server is a node of a Redis Cluster, which is not supported yet: name a server "
        "that is not part of one.",
        passes=False,
    ),
    "NOAUTH": Kind(
        ConfigurationError,
        "The server asks for a password: give one in the URL, redis://user:password@host.",
        passes=False,
    ),
    "WRONGPASS": _REFUSED,
    "NOPERM": Kind(
        ConfigurationError,
        "The user lacks a right: docs/redis.md lists the commands and keys that it needs.",
        passes=False,
    ),
    "WRONGTYPE": Kind(
        ConfigurationError,
        "Another program keeps keys below this prefix: choose a prefix of holdfast's own.",
        passes=False,
    ),
}
_NO_PLACE = Kind(
    StoreUnavailable,
    "The server takes no more clients: raise maxclients, or find who keeps connections open.",
)
_NO_PLACE_TEXT = "max number of clients reached"
_NO_DATABASE = Kind(
    ConfigurationError,
    "Name a database that the server has: redis.conf says how many there are (databases).",
    passes=False,
)
# What has no code: a reply begins with it where others have theirs.
_BY_TEXT = {
    _NO_PLACE_TEXT: _NO_PLACE,
    "DB index is out of range": _NO_DATABASE,
    "The user executing the script can't": _BY_CODE["NOPERM"],
    "ACL failure in script": _BY_CODE["NOPERM"],
}
# What Redis puts before the error of a command that a script called, 6.2 with a minus behind it:
# the script and the line where it was called, and those where the script raised it again.
_BEFORE = re.compile(
    r"(ERR )?(Error running script \(call to \w+\): )?(@?user_script: ?\d+: )*-?(ERR )?"
)
_OTHER = Kind(
    StoreUnavailable,
    "Check that the server is Redis 6.2 or newer, or Valkey, and that no proxy between forbids "
    "EVALSHA.",
    passes=False,
)
_CODE_OF_CLASS: dict[type[Exception], str] = {
    exceptions.NoScriptError: "NOSCRIPT",
    exceptions.BusyLoadingError: "LOADING",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.TryAgainError: "TRYAGAIN",
    exceptions.AskError: "MOVED",
    exceptions.ClusterCrossSlotError: "CROSSSLOT",
    exceptions.MaxConnectionsError: "MAXCONNECTIONS",
    exceptions.AuthenticationError: "WRONGPASS",
    exceptions.AuthorizationError: "WRONGPASS",
}


class Farewell(exceptions.ConnectionError):
    """What a server said before it ended a connection, as it would reply it."""


def kind_of(error: Exception) -> Kind:
    """What a failure means. redis-py takes the code off some messages and makes classes of them."""
    for known, code in _CODE_OF_CLASS.items():
        if isinstance(error, known):
            return _BY_CODE[code]
    if isinstance(error, (exceptions.TimeoutError, TimeoutError)):
        return _SILENT
    # Other texts hold names of hosts and files, which may look like a code.
    said = isinstance(error, (exceptions.ResponseError, Farewell))
    kind = _kind_of_reply(str(error)) if said else None
    if kind is not None:
        return kind
    if isinstance(error, (exceptions.ConnectionError, OSError)):
        return _NO_PLACE if str(error) == _NO_PLACE_TEXT else _UNREACHABLE
    return _OTHER


def _kind_of_reply(text: str) -> Kind | None:
    """What an error that the server replied means, by its code; None if it is not in the table."""
    before = _BEFORE.match(text)
    rest = text[before.end() :] if before else text
    for known, kind in _BY_TEXT.items():
        if rest.startswith(known):
            return kind
    code, *_ = rest.split(maxsplit=1) or [""]
    return _BY_CODE.get(code)


def failure_among(replies: Iterable[Any], *, tolerant: bool) -> Exception | None:
    """The first error among replies; of tolerated ones, the first for which all has to wait."""
    for reply in replies:
        if isinstance(reply, Exception):
            kind = kind_of(reply)
            if not tolerant or (kind.passes and not kind.reads):
                return reply
    return None


def heed(error: Exception, era: Era) -> None:
    """End the era of a connection whose server says that it is not the primary."""
    if kind_of(error).moves:
        era.end()


def is_unknown_script(error: Exception) -> bool:
    """Whether the server only lacks the script's source."""
    return kind_of(error) is _BY_CODE["NOSCRIPT"]


def is_lost(error: Exception) -> bool:
    """Whether the connection was lost, as opposed to an answer that says no."""
    return isinstance(error, (exceptions.ConnectionError, OSError)) and not isinstance(
        error, (exceptions.BusyLoadingError, exceptions.TimeoutError)
    )


def raised(error: Exception, where: str, attempts: int, seconds: float) -> HoldfastError:
    """The error for the caller; the driver's own becomes its cause."""
    kind = kind_of(error)
    tried = f" ({attempts} attempts in {seconds:.1f} s, see retry_budget)" if attempts > 1 else ""
    # The message of redis-py names host and port, never a password.
    message = str(error).rstrip(".") or type(error).__name__
    return kind.error(f"Redis, {where}: {message}{tried}. {kind.remedy}")
