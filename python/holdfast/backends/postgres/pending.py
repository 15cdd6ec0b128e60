"""The log of pending writes: what stands in its rows, and what of it is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import TypeAlias

from holdfast._core import FormatError, IntegrityError, bundled, unbundled
from holdfast.backends.base import StoredWrite
from holdfast.backends.postgres.columns import from_column

Entry: TypeAlias = "tuple[int, str, int | None, bytes]"
"""A row: number, task, None, and writes with their indexes; of layout 2 index and write."""


def rows_of(writes: Sequence[StoredWrite]) -> Iterator[tuple[str, bytes]]:
    """Tasks, and what stands in the row of each: the writes of a call take one, or a few."""
    for task_id, of_task in groupby(writes, attrgetter("task_id")):
        for data in bundled([(write.idx, write.data) for write in of_task]):
            yield task_id, data


def folded(log: Sequence[Entry]) -> list[StoredWrite]:
    """The pending writes that a log leaves: of a regular index the first one, of a special
    (negative) one the last. A row that is damaged stands as one write behind them: whoever wants to
    read that finds out, who only counts goes on."""
    writes: dict[tuple[str, int], bytes] = {}
    unread: list[StoredWrite] = []
    for _, task_id, index, stored in sorted(log, key=itemgetter(0)):
        try:
            found = unbundled(stored) if index is None else [(index, stored)]
        except (IntegrityError, FormatError):
            unread.append(StoredWrite(from_column(task_id), 0, stored))
            continue
        for idx, data in found:
            if idx < 0 or (task_id, idx) not in writes:
                writes[task_id, idx] = data
    read = [StoredWrite(from_column(task_id), idx, data) for (task_id, idx), data in writes.items()]
    return read + unread
