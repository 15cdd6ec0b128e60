"""Requests that remove something, as statements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.backends.base import Discard, Forget, Remove
from holdfast.backends.postgres.columns import ByteArrays, Texts, to_column
from holdfast.backends.postgres.statement import Statement, Trips
from holdfast.backends.postgres.statements import Statements

Reply = Trips[Any]


class Removals:
    """Answers requests.

    Args:
        statements: On the tables.
        note_deleted: Is told which threads were deleted, as a column holds them.
    """

    def __init__(self, statements: Statements, note_deleted: Callable[[str], None]) -> None:
        self._statements = statements
        self._note_deleted = note_deleted
        self.answers: dict[type, Callable[[Any], Reply]] = {
            Forget: self._forget,
            Remove: self._remove,
            Discard: self._discard,
        }

    def _forget(self, request: Forget) -> Trips[bool]:
        values = (
            to_column(request.thread_id),
            request.operation,
            None if request.epoch is None else str(request.epoch),
            request.leaves_tombstone,
        )
        forget = Statement(self._statements.forget, values)
        bury = Statement(self._statements.bury)
        _, rows, _ = yield [self._statements.claiming(values[0]), forget, bury]
        self._note_deleted(values[0])
        is_done: bool = rows[0][0]
        return is_done

    def _remove(self, request: Remove) -> Trips[bool]:
        thread_id = to_column(request.thread_id)
        remove = Statement(
            self._statements.remove,
            (
                thread_id,
                request.epoch,
                request.operation,
                Texts(to_column(ns) for ns, _ in request.checkpoints),
                Texts(to_column(id) for _, id in request.checkpoints),
                Texts(to_column(ns) for ns, _, _, _ in request.replaced),
                Texts(to_column(id) for _, id, _, _ in request.replaced),
                ByteArrays([old for _, _, old, _ in request.replaced]),
                ByteArrays([new for _, _, _, new in request.replaced]),
            ),
        )
        tidy = Statement(self._statements.tidy, (thread_id,))
        _, rows, _ = yield [self._statements.locking(thread_id), remove, tidy]
        return all(is_done for (is_done,) in rows)

    def _discard(self, request: Discard) -> Trips[bool]:
        values = (to_column(request.thread_id), request.epoch, ByteArrays(request.ids))
        (rows,) = yield [Statement(self._statements.discard, values)]
        is_done: bool = rows[0][0]
        return is_done
