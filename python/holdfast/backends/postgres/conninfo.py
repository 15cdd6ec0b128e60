"""What a URL or a string says of a server, as libpq reads it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from holdfast.errors import ConfigurationError
from holdfast.options import Options
from holdfast.urls import check_postgres_url, unreadable_postgres

# Seconds for a connection, unless the URL says other ones.
_CONNECT_TIMEOUT = 10


def parsed(conninfo: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a URL, or of a string, and more of them.

    Raises:
        ConfigurationError: It cannot be read, or has a name that nobody knows.
    """
    _check_names(conninfo, arguments)
    known = _parsed(conninfo, arguments)
    if known is None:
        raise unreadable_postgres()
    return known


def _check_names(conninfo: str, arguments: Mapping[str, Any]) -> None:
    """Refuse options that nobody has, or that nobody heeds where they stand."""
    if named := re.match(r"postgres(ql)?\+\w+://", conninfo):
        raise ConfigurationError(
            f"the URL begins with {named[0]}, which names a driver: write postgresql:// instead"
        )
    if conninfo.startswith(("postgresql://", "postgres://")):
        check_postgres_url(conninfo)
        query = conninfo.partition("?")[2]
        for name in {option.partition("=")[0] for option in query.split("&")}:
            if name == "serde" or name in Options.names():
                raise ConfigurationError(
                    f"{name} is an option of holdfast, not of libpq: give it as an argument, "
                    f"PostgresSaver(url, {name}=...), or use holdfast.open(url), which reads it "
                    "from the URL"
                )
    names = [option.keyword.decode() for option in pq.Conninfo.get_defaults()]
    unknown = sorted(arguments.keys() - set(names))
    if unknown:
        raise ConfigurationError(
            f"unknown option {', '.join(map(repr, unknown))}; there are: serde, "
            f"{', '.join(sorted(Options.names()))}; and libpq's: {', '.join(sorted(names))}"
        )


def _parsed(conninfo: str, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """The parameters; None where they cannot be read. Why may show a part of the password, also as
    the context of what is raised there."""
    try:
        known = conninfo_to_dict(conninfo, **arguments)
    except psycopg.ProgrammingError:
        return None
    if str(known.get("client_encoding", "")).upper() == "SQL_ASCII":
        raise ConfigurationError(
            "client_encoding is SQL_ASCII, which leaves open what characters bytes are: leave it "
            "out, also for a database of that encoding"
        )
    # What of a password was not escaped ends up beside it.
    if "@" in str(known.get("host", "")) or not re.fullmatch("[0-9,]*", str(known.get("port", ""))):
        return None
    # Otherwise it is the database's, which may not have all characters.
    return {
        "client_encoding": "utf8",
        "connect_timeout": _CONNECT_TIMEOUT,
        "application_name": "holdfast",
        **known,
    }


def address(known: Mapping[str, Any]) -> str:
    """A server's name for messages, from what libpq is given."""

    def of(name: str, variable: str, default: str) -> str:
        return str(known.get(name) or os.environ.get(variable) or default)

    user = of("user", "PGUSER", "")
    database = of("dbname", "PGDATABASE", user or "that of the user")
    host = of("host", "PGHOST", "localhost")
    return f"{host}:{of('port', 'PGPORT', '5432')}, database {database}"
