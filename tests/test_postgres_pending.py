"""The log of pending writes: what stands in its rows, and what happens where one is damaged."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from holdfast._core import references, unbundled
from holdfast.backends.base import StoredWrite
from holdfast.backends.postgres.pending import folded, rows_of
from holdfast.errors import CheckpointCorrupted, FormatTooNew
from hypothesis import given
from hypothesis import strategies as st
from support.backends import BACKENDS, opened
from support.calls import Calls
from support.make import checkpoint, checkpoint_id, config, version
from support.postgres import Connection, eye, table_of
from support.postgres_server import postgres_url

THREADS = ("a", "hurt", "z")
DAMAGES = {
    "cut": ("substring(data FOR length(data) - 1)", CheckpointCorrupted),
    "cut to its head": ("substring(data FOR 4)", CheckpointCorrupted),
    "empty": ("''", CheckpointCorrupted),
    "another index": ("set_byte(data, length(data) - 20, 3)", CheckpointCorrupted),
    "newer": ("'\\xf0'::bytea || substring(data FROM 2)", FormatTooNew),
}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return postgres_url(tmp_path)


@pytest.fixture
def conn(url: str) -> Iterator[Connection]:
    with eye(url) as conn:
        yield conn


@pytest.fixture
async def calls(mode: str, tmp_path: Path) -> AsyncIterator[Calls]:
    """Three threads of two checkpoints, all with writes."""
    async with opened(BACKENDS["postgres"], tmp_path, mode) as calls:
        for thread in THREADS:
            head = config(thread)
            for number in (1, 2):
                versions = {"state": version(number)}
                one = checkpoint(number, {"state": [f"{thread} {number} " * 90]}, versions)
                head = await calls.put(head, one, {}, versions)
                await calls.put_writes(head, [("state", ["x" * 300]), ("other", number)], "task")
        yield calls


def test_the_writes_of_a_call_are_one_row(calls: Calls, conn: Connection, url: str) -> None:
    rows = conn.execute(f"SELECT idx, data FROM {table_of(url)}_writes").fetchall()
    assert len(rows) == 2 * len(THREADS)
    for idx, data in rows:
        assert idx is None
        assert [index for index, _ in unbundled(data)] == [0, 1]
        assert references(data)[1] == references(unbundled(data)[0][1])[1] != []


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damage_is_named_and_stands_in_nobody_elses_way(
    calls: Calls, conn: Connection, url: str, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    hurt, error = DAMAGES[damage]
    conn.execute(
        f"UPDATE {table_of(url)}_writes SET data = {hurt} WHERE checkpoint_id = %s AND thread = "
        f"(SELECT key FROM {table_of(url)}_threads WHERE thread_id = 'hurt')",
        [checkpoint_id(2)],
    )
    named = f"thread 'hurt'.*checkpoint '{checkpoint_id(2)}'"
    with pytest.raises(error, match=named):
        await calls.get_tuple(config("hurt"))
    with pytest.raises(error, match=named):
        await calls.list(config("hurt"))
    earlier = await calls.must_get(config("hurt", "", checkpoint_id(1)))
    assert [value for _, _, value in earlier.pending_writes or []] == [["x" * 300], 1]
    for other in ("a", "z"):
        assert len(await calls.list(config(other))) == 2
    listed = {one.thread_id: one for one in await calls.threads(sizes=True)}
    assert {name for name, one in listed.items() if one.error} == {"hurt"}
    assert listed["hurt"].bytes
    with caplog.at_level(logging.WARNING, "holdfast"):
        swept = await calls.sweep(keep_last=1, dry_run=True)
    assert swept.checkpoints >= 2
    assert (await calls.sweep(keep_last=1)).checkpoints >= 2
    swept = await calls.sweep(idle_for=0)
    assert (swept.threads, swept.unreadable) == (2, 1), "whether a run would go on is not known"
    assert (await calls.sweep(idle_for=0, keep_interrupted=False)).threads == 1
    assert await calls.threads() == []


WRITES = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([-4, -1, 0, 1, 2])), max_size=6)


@given(st.lists(WRITES, max_size=6))
def test_what_is_left_is_what_a_table_of_places_would_hold(
    batches: list[list[tuple[str, int]]],
) -> None:
    """Of a regular index the first write, of a special one the last: also within a call."""
    numbers = count()
    log: list[Any] = []
    held: dict[tuple[str, int], bytes] = {}
    for batch in batches:
        writes = [StoredWrite(task, idx, f"{next(numbers)}".encode()) for task, idx in batch]
        for write in writes:
            if write.idx < 0 or (write.task_id, write.idx) not in held:
                held[write.task_id, write.idx] = write.data
        log += [(next(numbers), task, None, data) for task, data in rows_of(writes)]
    found = {(one.task_id, one.idx): one.data for one in folded(log[::-1])}
    assert found == held
