"""Channel versions, as LangGraph's own savers count them."""

from __future__ import annotations

import random


def next_version(current: str | int | None) -> str:
    """The version after `current`: a count of 32 digits and a random part.

    Without the random part two forks would give different values the same version.
    """
    if current is None:
        count = 0
    elif isinstance(current, int):
        count = current
    else:
        count = int(current.split(".")[0])
    return f"{count + 1:032}.{random.random():016}"  # noqa: S311
