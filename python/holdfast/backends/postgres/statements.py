"""Statements: read from `sql/`, with the names of tables put in."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeAlias, TypeVar

from holdfast.backends.postgres.tables import Tables

T = TypeVar("T")

_PLACE = re.compile(r"\{(\w+)(?::((?:[^{}]|\{\w+\})*))?\}")
_COMMENT = re.compile(r"^\s*--.*\n", re.MULTILINE)
# Operations that a row remembers that is put or written again, 8 bytes each.
_REMEMBERED = 8 * 31


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with its values, in the order of their numbers."""

    sql: bytes
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusable(Statement):
    """A statement that refuses, by dividing by zero, to do what it cannot do wholly. Refused is
    then the reply, not an error."""

    ahead: Statement | None = None
    """Goes before it when it is sent again: the first attempt may still be under way, and what it
    does is seen by a statement that begins when it has ended."""


REFUSED = "refused"
"""The reply of a statement that refused."""

Rows: TypeAlias = list[tuple[Any, ...]]
Trips: TypeAlias = Generator[Sequence[Statement], list[Any], T]
"""Yields the statements of one round trip, which are one transaction, and is sent their rows."""


class Statements:
    """The statements on the tables of one prefix.

    Args:
        tables: The tables.
        keep: Seconds for which an operation is remembered at least.
    """

    def __init__(self, tables: Tables, keep: int) -> None:
        self.names: Mapping[str, str] = {
            **tables.names,
            "remembered": str(_REMEMBERED),
            "keep": str(keep),
        }
        self.head = self._named("head")
        self.chunks = self._named("chunks")
        self.ancestors = self._named("ancestors")
        self.writes_of = self._named("writes_of")
        self.census = self._named("census")
        self.mark = self._named("mark")
        self.commit = self._named("commit")
        self.write = self._named("write")
        self.missing = self._named("missing")
        self.lock = self._named("lock")
        self.claim = self._named("claim")
        self.forget = self._named("forget")
        self.remove = self._named("remove")
        self.tidy = self._named("tidy")
        self.discard = self._named("discard")
        self.copy = self._named("copy")

    def _named(self, name: str) -> bytes:
        return self.filled(_SQL[name])

    def page(self, conditions: str, limit: str) -> bytes:
        """page.sql over the given conditions."""
        return self.filled(_SQL["page"], conditions=conditions, limit=limit)

    def filled(self, text: str, **more: str) -> bytes:
        """Text with its places filled: `{threads}` with a name, `{references:expression}` and
        `{remember:expression}` with references.sql and remember.sql over the expression."""

        def fill(found: re.Match[str]) -> str:
            name, expression = found[1], found[2]
            if name == "references":
                return _SQL[name].replace("{data}", expression).strip()
            if name == "remember":
                known = {"operations": expression, "keep": self.names["keep"]}
                return _PLACE.sub(lambda one: known[one[1]], _SQL[name]).strip()
            return more[name] if name in more else self.names[name]

        return _PLACE.sub(fill, text).encode()


# Read at once, when nobody waits for it: a saver may be made on an event loop.
_SQL = {
    file.name.removesuffix(".sql"): _COMMENT.sub("", file.read_text("utf-8"))
    for file in files(__package__).joinpath("sql").iterdir()
}
