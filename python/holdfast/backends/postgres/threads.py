"""Requests on threads as such: their expiry, their lease, and what is there of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.backends import base
from holdfast.backends.base import (
    Expire,
    Lease,
    Release,
    Row,
    ThreadRow,
    Visit,
    Visited,
    Weigh,
    new_operation_id,
)
from holdfast.backends.postgres.columns import from_column, to_column
from holdfast.backends.postgres.pending import Entry, folded
from holdfast.backends.postgres.statement import Statement, Trips
from holdfast.backends.postgres.statements import Statements, first_epoch

Reply = Trips[Any]
_MINUTE = 60_000


class Threads:
    """Answers requests.

    Args:
        statements: On the tables.
    """

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._release = statements.filled(
            "UPDATE {threads} SET lease_until = NULL "
            "WHERE thread_id = $1 AND lease_token = $2::bigint"
        )
        self._left = statements.filled(
            "SELECT extract(epoch FROM lease_until - statement_timestamp())::float8 "
            "FROM {threads} WHERE thread_id = $1 AND lease_until > statement_timestamp()"
        )
        self._visit_first = statements.visit("true", "$1")
        self._visit_next = statements.visit("thread_id > $2", "$1")
        self.answers: dict[type, Callable[[Any], Reply]] = {
            Expire: self._expire,
            Lease: self._lease,
            Release: self._end_lease,
            base.Threads: self._threads,
            Visit: self._visit,
            Weigh: self._weigh,
        }

    def _expire(self, request: Expire) -> Trips[bool]:
        ttl = None if request.ttl is None else str(request.ttl)
        values = (to_column(request.thread_id), ttl)
        (rows,) = yield [Statement(self._statements.expire, values)]
        return bool(rows)

    def _lease(self, request: Lease) -> Trips[tuple[int | None, float]]:
        thread_id = to_column(request.thread_id)
        if request.token is not None:
            prolonging = (thread_id, str(request.token), str(request.seconds))
            (rows,) = yield [Statement(self._statements.prolong, prolonging)]
            return (request.token, request.seconds) if rows else (None, 0.0)
        # What it is taken by: a repeat, whose first reply was lost, does not find itself.
        taking = (thread_id, first_epoch(), new_operation_id(), str(request.seconds))
        take = Statement(self._statements.lease, taking)
        while True:
            taken, left = yield [take, Statement(self._left, (thread_id,))]
            if taken:
                return taken[0][0], request.seconds
            if left:  # otherwise it has run out between the two
                return None, left[0][0]

    def _end_lease(self, request: Release) -> Trips[None]:
        yield [Statement(self._release, (to_column(request.thread_id), str(request.token)))]

    def _threads(self, request: base.Threads) -> Trips[list[ThreadRow]]:
        conditions, values = _conditions(request)
        statement = self._statements.threads(conditions, f"${len(values) + 1}")
        (rows,) = yield [Statement(statement, (*values, request.limit))]
        found: dict[str, tuple[int, int, int, int | None]] = {}
        spaces: dict[str, dict[str, int]] = {}
        heads: dict[str, tuple[str, str, bytes]] = {}
        logs: dict[str, list[Entry]] = {}
        chunks: dict[str, dict[bytes, bytes]] = {}
        for kind, thread_id, ns, number, created, updated, expires, name, idx, data in rows:
            if kind == "thread":
                found[thread_id] = number, created, updated, expires
            elif kind == "space":
                spaces.setdefault(thread_id, {})[ns] = number
            elif kind == "record":
                heads[thread_id] = from_column(ns), from_column(name), data
            elif kind == "chunk":
                chunks.setdefault(thread_id, {})[bytes.fromhex(name)] = data
            else:
                logs.setdefault(thread_id, []).append((number, name, idx, data))
        order = sorted(found, key=lambda one: (found[one][2], from_column(one)), reverse=True)
        return [
            ThreadRow(
                from_column(thread_id),
                *found[thread_id],
                {from_column(ns): count for ns, count in sorted(spaces[thread_id].items())},
                Row(
                    from_column(thread_id),
                    *heads[thread_id],
                    folded(logs.get(thread_id, ())),
                    chunks.get(thread_id, {}),
                ),
            )
            for thread_id in order
        ]

    def _visit(self, request: Visit) -> Trips[tuple[list[Visited], bytes | None]]:
        if request.cursor is None:
            statement = Statement(self._visit_first, (request.limit,))
        else:
            statement = Statement(self._visit_next, (request.limit, request.cursor.decode()))
        (rows,) = yield [statement]
        visited = [Visited(from_column(thread_id), *known) for thread_id, *known in rows]
        return visited, rows[-1][0].encode() if len(rows) == request.limit else None

    def _weigh(self, request: Weigh) -> Trips[tuple[int, int]]:
        (rows,) = yield [Statement(self._statements.weigh, (to_column(request.thread_id),))]
        checkpoints = size = 0
        logs: dict[tuple[str, str], list[Entry]] = {}
        for ns, id, number, task_id, idx, data, *counted in rows:
            if data is None:
                checkpoints += counted[0]
                size += counted[1]
            else:
                logs.setdefault((ns, id), []).append((number, task_id, idx, data))
        # Of the log what is read of it.
        size += sum(len(one.data) for log in logs.values() for one in folded(log))
        return checkpoints, size


def _conditions(request: base.Threads) -> tuple[str, list[Any]]:
    """What the threads of a listing fulfil, and the values that this is said with."""
    values: list[Any] = []

    def value(one: Any) -> str:
        values.append(str(one))
        return f"${len(values)}"

    conditions = ["true"]
    latest = [one for one in (request.until, request.after and request.after[0]) if one is not None]
    if latest:
        # The minute is what the index knows.
        conditions.append(f"updated_minute <= {value(min(latest) // _MINUTE)}::bigint")
    if request.until is not None:
        conditions.append(f"{{milliseconds:updated_at}} <= {value(request.until)}::bigint")
    if request.after is not None:
        updated, thread_id = request.after
        place = f"{value(updated)}::bigint, {value(to_column(thread_id))}"
        conditions.append(f"({{milliseconds:updated_at}}, thread_id) < ({place})")
    if request.prefix:
        conditions.append(f"starts_with(thread_id, {value(to_column(request.prefix))})")
    return " AND ".join(conditions), values
