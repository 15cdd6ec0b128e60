"""What is sent to Postgres: SQL with its values, and how that is repeated or refused."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Statement:
    """SQL with its values, in the order of their numbers."""

    sql: bytes
    values: tuple[Any, ...] = ()


@dataclass(slots=True)
class Refusable(Statement):
    """A statement that refuses, by dividing by zero, to do what it cannot do wholly. Refused is
    then the reply, not an error."""

    again: Callable[[Statement], Sequence[Statement]] | None = None
    """Makes what is sent in its place when it is sent again: the first attempt may still be under
    way, before it or behind it."""


@dataclass(slots=True)
class Prepared(Statement):
    """A statement that is only made ready, where the connection keeps it. It has no reply."""


def may_refuse(statements: Sequence[Statement]) -> bool:
    """Whether a division by zero is the refusal of one of these."""
    return any(isinstance(one, Refusable) for one in statements)


REFUSED = "refused"
"""The reply of a statement that refused."""

Trips: TypeAlias = Generator[Sequence[Statement], list[Any], T]
"""Yields the statements of one round trip, which are one transaction, and is sent their rows."""
