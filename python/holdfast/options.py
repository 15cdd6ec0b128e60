"""The options of a saver, under the same names for every store."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from holdfast.errors import ConfigurationError

LONGEST_TTL = 100 * 366 * 86_400
"""Seconds, a hundred years: beyond, stores count wrong."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `holdfast.open` takes beside the URL.

    Attributes:
        cache_bytes: Bytes of chunks, last values and records kept in this process's memory; some
            20 MB for the codec and the newest records of threads are not counted in it.
        compression: "zstd", kept for a chunk only where it saves, or "none".
        retry_budget: Seconds for which a busy or lost store is retried.
        ttl: Seconds after its last write at which a thread expires; None for never.
        refresh_on_read: Whether reads of a thread count like writes for `ttl`.
        keep_last: Checkpoints kept in each namespace; None for all.
        prefix: What the names of all keys begin with (Redis).
        table: Prefix of the names of tables (SQL stores).
        pool_size: Connections at a time (Postgres), for threads, and for each event loop.
        prepared_statements: Postgres: whether statements are prepared on the server. Off for
            PgBouncer in transaction mode before its version 1.21.
        reply_timeout: Seconds that Postgres may be silent in a reply; 0 for no end.
        synchronous: SQLite: "full" (a commit survives a power cut) or "normal" (it
            survives a crash of the process).
    """

    cache_bytes: int = 64 << 20
    compression: str = "zstd"
    retry_budget: float = 10.0
    ttl: float | None = None
    refresh_on_read: bool = False
    keep_last: int | None = None
    prefix: str = "holdfast"
    table: str = "holdfast"
    pool_size: int = 5
    prepared_statements: bool = True
    reply_timeout: float = 30.0
    synchronous: str = "full"

    def __post_init__(self) -> None:
        if self.cache_bytes < 0:
            raise ConfigurationError("cache_bytes is a number of bytes, 0 for no cache")
        if self.compression not in ("zstd", "none"):
            raise ConfigurationError(f"compression is 'zstd' or 'none', not {self.compression!r}")
        if not 0 <= self.retry_budget < math.inf:
            raise ConfigurationError("retry_budget is a number of seconds")
        if self.ttl is not None and not 0 < self.ttl <= LONGEST_TTL:
            raise ConfigurationError(
                "ttl is a number of seconds above 0 and at most a hundred years, None for no expiry"
            )
        if self.refresh_on_read and self.ttl is None:
            raise ConfigurationError("refresh_on_read needs a ttl")
        if self.keep_last is not None and self.keep_last < 1:
            raise ConfigurationError("keep_last is a number of checkpoints, at least 1")
        if not self.prefix:
            raise ConfigurationError("prefix is what the names of keys begin with, not nothing")
        if not self.table or "\0" in self.table:
            raise ConfigurationError("table is a name without NUL")
        if self.pool_size < 1:
            raise ConfigurationError("pool_size is a number of connections, at least 1")
        if not 0 <= self.reply_timeout < math.inf:
            raise ConfigurationError("reply_timeout is a number of seconds, 0 for no end")
        if self.synchronous.lower() not in ("full", "normal"):
            raise ConfigurationError(f"synchronous is 'full' or 'normal', not {self.synchronous!r}")

    @classmethod
    def names(cls) -> list[str]:
        """The names of all options."""
        return [field.name for field in fields(cls)]

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Options:
        """Options by name; text is read as the type that the option has.

        Raises:
            ConfigurationError: An option does not exist, or has an impossible value.
        """
        known: dict[str, Any] = {field.name: type(field.default) for field in fields(cls)}
        known |= _OPTIONAL
        unknown = sorted(options.keys() - known.keys())
        if unknown:
            raise ConfigurationError(
                f"unknown option {', '.join(map(repr, unknown))}; "
                f"there are: serde, {', '.join(sorted(known))}"
            )
        options = _with_plain_ttl(options)
        values: dict[str, Any] = {}
        for name, value in options.items():
            if value is None:  # as if it was not given
                continue
            try:
                values[name] = _READERS[known[name]](value)
            except (TypeError, ValueError) as error:
                raise ConfigurationError(
                    f"option {name} is of type {known[name].__name__}, not {value!r}"
                ) from error
        return cls(**values)


_OPTIONAL = {"ttl": float, "keep_last": int}


def _with_plain_ttl(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with `ttl` in seconds, also where it was given as LangGraph's Redis saver takes it:
    `{"default_ttl": minutes, "refresh_on_read": bool}`.

    Raises:
        ConfigurationError: The mapping has other keys, or no number.
    """
    ttl = options.get("ttl")
    if not isinstance(ttl, Mapping):
        return dict(options)
    unknown = sorted(set(map(str, ttl)) - {"default_ttl", "refresh_on_read"})
    if unknown:
        raise ConfigurationError(
            f"ttl has no {', '.join(map(repr, unknown))}; there are: default_ttl, in minutes, and "
            "refresh_on_read; or give a number of seconds"
        )
    minutes = ttl.get("default_ttl")
    refreshes = {"refresh_on_read": ttl["refresh_on_read"]} if "refresh_on_read" in ttl else {}
    try:
        seconds = None if minutes is None else 60 * float(minutes)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"default_ttl is a number of minutes, not {minutes!r}") from error
    if seconds is None:
        refreshes = {}
    return {**refreshes, **options, "ttl": seconds}


def _text(value: Any) -> str:
    """Text.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _whole(value: Any) -> int:
    """A whole number, also as a URL says it.

    Raises:
        ValueError: It is none.
    """
    number = int(value)
    if not isinstance(value, str) and number != value:
        raise ValueError(value)
    return number


def _boolean(value: Any) -> bool:
    """True or false, also as a URL says it.

    Raises:
        ValueError: It says neither.
    """
    if isinstance(value, bool):
        return value
    said = str(value).lower()
    if said in ("true", "yes", "on", "1"):
        return True
    if said in ("false", "no", "off", "0"):
        return False
    raise ValueError(value)


def is_true(name: str, value: str) -> bool:
    """What a variable of the environment says.

    Raises:
        ConfigurationError: Neither true nor false.
    """
    try:
        return _boolean(value)
    except ValueError as error:
        raise ConfigurationError(f"{name} is true or false, not {value!r}") from error


_READERS: dict[type, Callable[[Any], Any]] = {
    str: _text,
    int: _whole,
    float: float,
    bool: _boolean,
}
