"""From a URL, a mapping or the environment to a saver."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from holdfast.backends.sqlite import MEMORY
from holdfast.errors import ConfigurationError
from holdfast.options import Options, is_true
from holdfast.saver import Saver
from holdfast.savers import MemorySaver, PostgresSaver, RedisSaver, SqliteSaver
from holdfast.urls import check_postgres_url, check_redis_url


def _memory(_: str, rest: str, **options: Any) -> Saver:
    if rest.strip("/"):
        raise ConfigurationError("memory:// takes no path")
    return MemorySaver(**options)


def _sqlite(_: str, rest: str, **options: Any) -> Saver:
    # As elsewhere: sqlite:///relative, sqlite:////absolute.
    host, _, path = rest.partition("/")
    if host:
        raise ConfigurationError(
            f"sqlite://{host}/… names a host; three slashes begin a relative path "
            "(sqlite:///state.db), four an absolute one"
        )
    return SqliteSaver(unquote(path) or MEMORY, **options)


def _redis(scheme: str, rest: str, **options: Any) -> Saver:
    # What is not an option of holdfast's is one of redis-py's connections.
    known = {"serde", "connection_args", *Options.names()}
    own = {name: value for name, value in options.items() if name in known}
    # As arguments, which nobody escapes and decodes again. An empty one is as if not given.
    others = {name: value for name, value in options.items() if name not in known and value != ""}
    own["connection_args"] = {**(own.get("connection_args") or {}), **others}
    return RedisSaver(f"{scheme}://{rest}", **own)


def _postgres(scheme: str, rest: str, **options: Any) -> Saver:
    if options.get("ssl") == "true":  # libpq's other word for it, in URLs alone
        del options["ssl"]
        options.setdefault("sslmode", "require")
    return PostgresSaver(f"{scheme}://{rest}", **options)


_SCHEMES: dict[str, Callable[..., Saver]] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "redis": _redis,
    "rediss": _redis,
    "unix": _redis,
    "postgresql": _postgres,
    "postgres": _postgres,
}
# The values of CHECKPOINTER_TYPE, and the URL that each means where no other is given.
_TYPES = {
    "memory": "memory://",
    "sqlite": "sqlite:///holdfast.db",
    "file": "sqlite:///holdfast.db",
    "redis": "redis://localhost:6379/0",
    "postgres": "postgresql://localhost/postgres",
}


def open(url: str | None = None, **options: Any) -> Saver:
    """A saver for the store that a URL names.

    Args:
        url: `redis://host:6379/0`, `rediss://…` (with TLS), `unix:///path`,
            `postgresql://user@host/database`, `sqlite:///relative.db`,
            `sqlite:////absolute.db`, `sqlite:///:memory:` or `memory://`; options may follow as a
            query (`?cache_bytes=0`), for Redis also those of redis-py's connections
            (`?socket_timeout=2`), for Postgres libpq's (`?sslmode=require`). Without a URL
            the environment decides: `HOLDFAST_URL`, else `CHECKPOINTER_TYPE` (memory,
            sqlite, file, redis or postgres) with `DATABASE_URL`. For Postgres
            `USE_POSTGRES_CHECKPOINTER=true` says the same as the type, `POSTGRES_DATABASE_URL`
            goes before `DATABASE_URL`, and `POSTGRES_POOL_SIZE` is `pool_size`.
        options: `serde`, and those of `holdfast.Options`; they win over the query.

    Returns:
        A saver to be used as it is, under `with`, or under `async with`. Nothing is
        opened before first use.

    Raises:
        ConfigurationError: The scheme or an option does not exist.
    """
    if url is None:
        url, given = _from_environment()
        options = {**given, **options}
    if not isinstance(url, str):
        raise ConfigurationError(f"the URL is text, not {type(url).__name__}")
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        named = f"{scheme!r}" if separator else "none"
        known = ", ".join(f"{known}://" for known in sorted(_SCHEMES))
        raise ConfigurationError(
            f"the URL's scheme is {named}; there are: {known}. A file is sqlite:///state.db; what "
            "names a driver, postgresql+psycopg://, is written without it, postgresql://"
        )
    if _SCHEMES[scheme] is _redis:
        check_redis_url(url)
    path, _, query = rest.partition("?")
    if _SCHEMES[scheme] is _postgres:
        check_postgres_url(url)
        query = query.replace("+", "%2B")  # of libpq's URLs, where it is no space
    in_url = dict(parse_qsl(query, keep_blank_values=True))
    return _SCHEMES[scheme](scheme, path, **{**in_url, **options})


def from_config(config: Mapping[str, Any]) -> Saver:
    """A saver from a mapping: `url`, and the options of `open`."""
    options = dict(config)
    return open(options.pop("url", None), **options)


def _from_environment() -> tuple[str, dict[str, Any]]:
    """The URL that the environment names, and options."""
    environ = os.environ
    if url := environ.get("HOLDFAST_URL"):
        return url, {}
    kind = environ.get("CHECKPOINTER_TYPE", "").lower()
    if not kind and (uses := environ.get("USE_POSTGRES_CHECKPOINTER")):
        kind = "postgres" if is_true("USE_POSTGRES_CHECKPOINTER", uses) else "memory"
    if not kind:
        raise ConfigurationError(
            "no URL was given: call holdfast.open(url), or set HOLDFAST_URL, "
            f"or CHECKPOINTER_TYPE to one of {', '.join(sorted(_TYPES))}"
        )
    if kind not in _TYPES:
        raise ConfigurationError(
            f"CHECKPOINTER_TYPE is {kind!r}; there are: {', '.join(sorted(_TYPES))}"
        )
    usual = _TYPES[kind]
    if kind == "memory":
        return usual, {}
    names = ["POSTGRES_DATABASE_URL", "DATABASE_URL"] if kind == "postgres" else ["DATABASE_URL"]
    given = [name for name in names if environ.get(name)]
    url = environ[given[0]] if given else usual
    opener = _SCHEMES.get(url.partition("://")[0])
    if opener is not None and opener is not _SCHEMES[usual.partition("://")[0]]:
        raise ConfigurationError(
            f"{given[0]} is of another store than the type says, which is {kind!r}: correct one "
            "of them, or set HOLDFAST_URL"
        )
    size = environ.get("POSTGRES_POOL_SIZE") if kind == "postgres" else None
    return url, {"pool_size": size} if size else {}
