"""What is looked at in a URL before a part of it can come to stand in an error."""

from __future__ import annotations

import re
from urllib.parse import unquote

from holdfast.errors import ConfigurationError

# Options whose values may have an @ in a URL of Postgres.
_WITH_AT = ("user", "password", "dbname", "host", "options", "application_name", "table")


def check_redis_url(url: str) -> None:
    """Refuse a URL in which a part of a password may have come to lie elsewhere.

    Raises:
        ConfigurationError: Says nothing of the URL itself.
    """
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    authority, _, path = place.partition("/")
    # redis-py takes any other for database 0.
    database = unquote(path).replace("/", "")
    # Not decoded: an @ that was escaped belongs where it is.
    options = [option.partition("=")[::2] for option in query.split("&") if option]
    if (
        (authority and "@" in path)
        or (scheme != "unix" and database and not database.isdecimal())
        or "#" in rest
        or any(not re.fullmatch("[a-z_]+", name) or "@" in value for name, value in options)
    ):
        raise unreadable()


def check_postgres_url(url: str) -> None:
    """As `check_redis_url`, for a URL of Postgres.

    Raises:
        ConfigurationError: Says nothing of the URL itself.
    """
    _, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    authority, _, path = place.partition("/")
    options = [option.partition("=")[::2] for option in query.split("&") if option]
    # Where a password was cut off by its own ?, the @ behind it is in the query.
    is_cut = ":" in place and "@" not in authority
    if (
        (authority and "@" in path)
        or any(not re.fullmatch("[a-z_]+", name) for name, _ in options)
        or any("@" in value and (is_cut or name not in _WITH_AT) for name, value in options)
    ):
        raise unreadable_postgres()


def unreadable() -> ConfigurationError:
    """The error for a URL that cannot be understood."""
    return ConfigurationError(
        "the URL of Redis cannot be read: it is redis://user:password@host:port/db, where db is a "
        "number, rediss://… or unix:///path; escape /, :, @, ? and # in the password with %"
    )


def unreadable_postgres() -> ConfigurationError:
    """As `unreadable`."""
    return ConfigurationError(
        "the URL of Postgres cannot be read: it is "
        "postgresql://user:password@host:port/database?parameter=value with parameters of libpq; "
        "escape /, :, @, ? and # in the password with %"
    )
