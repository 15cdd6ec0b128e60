"""Statements: read from `sql/`, with the names of tables put in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TypeAlias

from holdfast.backends.base import TOMBSTONE_SECONDS
from holdfast.backends.postgres.statement import Statement
from holdfast.backends.postgres.tables import Tables

_PLACE = re.compile(r"\{(\w+)(?::((?:[^{}]|\{\w+\})*))?\}")
_SECTION = re.compile(r"^-- IF ([\w ]+)\n(.*?)^-- END\n", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"\$([a-z_]+)")
_COMMENT = re.compile(r"^\s*--(?! IF | END).*\n", re.MULTILINE)
# Operations that a row remembers that is put or written again, 8 bytes each.
_REMEMBERED = 8 * 31
# Stands for `{expression}` while the places around it are filled.
_EXPRESSION = "\0"


Changing: TypeAlias = dict[tuple[bool, bool], bytes]
"""A statement that changes a thread, by whether that is under a fence, and whether the thread has
begun anew after a deletion, so that it looks for what the change follows. They are four because
each part of a statement costs at each call, also where nothing comes of it."""

ENTERING = ("thread", "epoch", "seconds")
"""The first values of each statement that changes a thread, by their numbers in what these share:
its id, its epoch if it begins, seconds until it expires or None."""
CHUNKS = ("chunk_ids", "chunks", "required")
"""In change.sql: chunks, and the ids of those that must be there."""
COMMIT = (
    "parent_namespaces",
    "parents",
    "parents_made",
    "ranks",
    "namespace",
    "checkpoint",
    "parent",
    "record",
    "operation",
    "run",
    "state",
    "next_node",
    "metadata",
)
"""In change.sql, of a checkpoint: arrays of what it builds on, then the row."""
WRITE = (
    "write_namespaces",
    "write_checkpoints",
    "made",
    "tasks",
    "writes",
    "write_operations",
)
"""In change.sql, of pending writes: arrays, with a place for each row. When the checkpoints were
made; with the first row of each call its operation, with the others nothing."""


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
            "tombstone": str(TOMBSTONE_SECONDS),
            # Of a row of the threads, where nothing is waited for.
            "unexpired": "(expires_at IS NULL OR expires_at > statement_timestamp())",
            # Who held a lease that has run out may go on with it.
            "leased": "lease_until > statement_timestamp() "
            f"- interval '{TOMBSTONE_SECONDS} seconds'",
        }
        self.head = self._named("head")
        self.chunks = self._named("chunks")
        self.ancestors = self._named("ancestors")
        self.writes_of = self._named("writes_of")
        self.census = self._named("census")
        self.mark = self._named("mark")
        self.commit = self._changing(*_change("commit"))
        self.write = self._changing(*_change("write"))
        self.commit_with_writes = self._changing(*_change("commit", "write"))
        self.copy = self._changing(_SQL["copy"], 6)
        self.missing = self._named("missing")
        self.lock = self._named("lock")
        self.claim = self._named("claim")
        self.settle = self._named("settle")
        self.written = self._named("written")
        self.forget = self._named("forget")
        self.bury = self._named("bury")
        self.remove = self._named("remove")
        self.tidy = self._named("tidy")
        self.discard = self._named("discard")
        self.touch = self._named("touch")
        self.expire = self._named("expire")
        self.lease = self._named("lease")
        self.prolong = self._named("prolong")
        self.weigh = self._named("weigh")

    @property
    def of_a_superstep(self) -> Sequence[bytes]:
        """What each run of a graph sends, in most cases."""
        commits = (self.write, self.commit, self.commit_with_writes)
        return [self.head, *(variants[False, False] for variants in commits)]

    def _named(self, name: str) -> bytes:
        return self.filled(_SQL[name])

    def _changing(self, sql: str, fence: int) -> Changing:
        """A change as its variants; the fence's token is the value of that number, and its seconds
        are the next."""
        without = {
            "begins": "",
            "held": "t.lease_until IS NULL OR t.lease_until <= clock_timestamp()",
            "leased_until": "NULL",
        }
        fenced = {
            # A lease stands in a row.
            "begins": f"WHERE EXISTS (SELECT FROM {self.names['threads']} WHERE thread_id = $1)",
            "held": f"t.lease_until IS NOT NULL AND t.lease_token = ${fence}::bigint",
            "leased_until": f"clock_timestamp() + ${fence + 1}::float8 * interval '1 second'",
        }
        tombstone = "clock_timestamp() - interval '{tombstone} seconds'"
        living = f"(t.deleted_at IS NULL OR t.deleted_at <= {tombstone})"
        undeleted = {False: living, True: "NOT {deleted} AND NOT {orphaned}"}
        anew = without
        if "predecessor AS" in sql:
            # A parent that is needed stands under a row.
            needs_none = "NOT EXISTS (SELECT FROM predecessor WHERE is_parent > 1)"
            anew = without | {"begins": f"{fenced['begins']} OR {needs_none}"}
        return {
            (is_fenced, is_anew): self.filled(
                sql,
                **(fenced if is_fenced else anew if is_anew else without),
                undeleted=self.filled(undeleted[is_anew]).decode(),
            )
            for is_fenced in (False, True)
            for is_anew in (False, True)
        }

    def locking(self, thread_id: str) -> Statement:
        """Keeps others from changing a thread, as a column holds it, until the transaction ends."""
        return Statement(self.lock, (thread_id,))

    def claiming(self, thread_id: str) -> Statement:
        """As `locking`, also on a thread that is not there yet."""
        return Statement(self.claim, (thread_id, first_epoch()))

    def page(self, conditions: str, limit: str) -> bytes:
        """page.sql over the given conditions."""
        filled = self.filled(conditions).decode()
        return self.filled(_SQL["page"], conditions=filled, limit=limit)

    def threads(self, conditions: str, limit: str) -> bytes:
        """threads.sql over the given conditions."""
        filled = self.filled(conditions).decode()
        return self.filled(_SQL["threads"], conditions=filled, limit=limit)

    def visit(self, condition: str, limit: str) -> bytes:
        """visit.sql over the given condition."""
        return self.filled(_SQL["visit"], condition=condition, limit=limit)

    def filled(self, text: str, **more: str) -> bytes:
        """Text with its places filled: `{threads}` with a name or what was given for it,
        `{deleted}` with deleted.sql, `{references:expression}` with references.sql over the
        expression."""

        def fill(found: re.Match[str]) -> str:
            name, expression = found[1], found[2]
            if expression is not None:
                return (
                    _PLACE.sub(fill, _SQL[name])
                    .strip()
                    .replace(_EXPRESSION, _PLACE.sub(fill, expression))
                )
            if name == "expression":
                return _EXPRESSION
            if name in more or name in self.names:
                return more.get(name, self.names.get(name, ""))
            return _PLACE.sub(fill, _SQL[name]).strip()

        return _PLACE.sub(fill, text).encode()


def first_epoch() -> int:
    """Of a thread that begins."""
    # Not from zero: a mark made of an earlier thread of this id must not fit the next one.
    return int.from_bytes(os.urandom(6), "big")


def _change(*parts: str) -> tuple[str, int]:
    """change.sql with the sections for these parts, its values numbered, and the number of the
    fence's first."""
    sql = _SECTION.sub(
        lambda found: found[2] if set(found[1].split()) <= set(parts) else "", _SQL["change"]
    )
    names = [*ENTERING, *CHUNKS]
    for part, values in (("commit", COMMIT), ("write", WRITE)):
        names += values if part in parts else ()
    return _NAMED.sub(lambda found: f"${names.index(found[1]) + 1}", sql), len(names) + 1


# Read at once, when nobody waits for it: a saver may be made on an event loop.
_SQL = {
    file.name.removesuffix(".sql"): _COMMENT.sub("", file.read_text("utf-8"))
    for file in files(__package__).joinpath("sql").iterdir()
}
