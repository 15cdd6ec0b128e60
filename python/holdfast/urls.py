"""What is looked at in a URL before a part of it can come to stand in an error."""

from __future__ import annotations

import re

from holdfast.errors import ConfigurationError


def check_redis_url(url: str) -> None:
    """Refuse a URL in which a part of a password may have come to lie elsewhere.

    Raises:
        ConfigurationError: Says nothing of the URL itself.
    """
    _, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    authority, _, path = place.partition("/")
    # Not decoded: an @ that was escaped belongs where it is.
    options = [option.partition("=")[::2] for option in query.split("&") if option]
    if (
        (authority and "@" in path)
        or "#" in rest
        or any(not re.fullmatch("[a-z_]+", name) or "@" in value for name, value in options)
    ):
        raise unreadable()


def unreadable() -> ConfigurationError:
    """The error for a URL that cannot be understood."""
    return ConfigurationError(
        "the URL of Redis cannot be read: it is redis://user:password@host:port/db, rediss://… "
        "or unix:///path; escape /, :, @, ? and # in the password with %"
    )
