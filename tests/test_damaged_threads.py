"""Listings and sweeps go on where a thread cannot be read."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import holdfast
import pytest
from holdfast.errors import CheckpointCorrupted, FormatTooNew
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from support.backends import BACKENDS, opened
from support.damage import execute
from support.graphs import Runs, delta, fan_out, on
from support.make import checkpoint, config, id_of, version

OTHERS = ["a", "z"]
DAMAGES = {
    "cut": ("CAST(substr(record, 1, length(record) - 1) AS BLOB)", CheckpointCorrupted),
    "newer": ("CAST(x'f0' || substr(record, 2) AS BLOB)", FormatTooNew),
}


@pytest.mark.parametrize("dry_run", [False, True], ids=["sweep", "dry run"])
@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_thread_that_cannot_be_read_is_left_and_named(
    mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str, dry_run: bool
) -> None:
    backend = BACKENDS["sqlite"]
    async with opened(backend, tmp_path, mode) as calls:
        for name in [*OTHERS, "hurt"]:
            head = config(name)
            for number in range(1, 4):
                versions = {"state": version(number)}
                one = checkpoint(number, {"state": [f"{name} {number} " * 90]}, versions)
                head = await calls.put(head, one, {}, versions)
    hurt, error = DAMAGES[damage]
    execute(
        tmp_path / "state.db",
        f"UPDATE holdfast_checkpoints SET record = {hurt} WHERE thread = "
        "(SELECT key FROM holdfast_threads WHERE thread_id = 'hurt')",
    )
    async with opened(backend, tmp_path, mode) as calls:
        with caplog.at_level(logging.WARNING, "holdfast"):
            swept = await calls.sweep(keep_last=1, dry_run=dry_run)
        assert (swept.unreadable, swept.checkpoints, swept.threads) == (1, 4, 0)
        assert "'hurt'" in caplog.text
        for name in OTHERS:
            assert len(await calls.list(config(name))) == (3 if dry_run else 1)
        listed = {thread.thread_id: thread for thread in await calls.threads(sizes=True)}
        assert {name: thread.error is None for name, thread in listed.items()} == {
            "a": True,
            "hurt": False,
            "z": True,
        }
        assert "'hurt'" in (listed["hurt"].error or "")
        assert listed["hurt"].bytes
        assert "hurt" not in [one.thread_id for one in await calls.threads(unfinished=False)]
        with pytest.raises(error):
            await calls.get_tuple(config("hurt"))


class Other(JsonPlusSerializer):
    """Writes and reads bytes of its own alone."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        tag, data = super().dumps_typed(obj)
        return f"other {tag}", data

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        tag, packed = data
        if not tag.startswith("other "):
            raise ValueError(f"not mine: {tag}")
        return super().loads_typed((tag.removeprefix("other "), packed))


def test_what_another_serializer_wrote_is_left_and_named(
    saver: holdfast.Saver, caplog: pytest.LogCaptureFixture
) -> None:
    saver.put(config("theirs"), checkpoint(1, {"state": 1}), {"step": 1}, {"state": version(1)})
    saver.serde = Other()
    saver.put(config("mine"), checkpoint(1, {"state": 1}), {"step": 1}, {"state": version(1)})
    with caplog.at_level(logging.WARNING, "holdfast"):
        assert saver.sweep(keep_last=1).unreadable == 1
    assert "'theirs'" in caplog.text
    assert "not mine: msgpack" in caplog.text
    assert {one.thread_id for one in saver.threads() if one.error} == {"theirs"}


def test_a_put_that_is_stored_does_not_fail_where_old_ones_cannot_be_trimmed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    with holdfast.open(url, keep_last=1) as saver:
        saver.put(config(), checkpoint(1, {"state": 1}), {}, {"state": version(1)})
    with holdfast.open(url, keep_last=1, serde=Other()) as saver:
        with caplog.at_level(logging.WARNING, "holdfast"):
            stored = saver.put(config(), checkpoint(2, {"state": 2}), {}, {"state": version(2)})
        assert "keep_last" in caplog.text
        found = saver.get_tuple(stored)
        assert found is not None
        assert found.checkpoint["channel_values"] == {"state": 2}


def one_row(path: Path, query: str, value: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return [*connection.execute(query, [value]).fetchone()]


async def test_a_lost_ancestor_of_a_delta_channel_is_told_and_can_be_put_back(
    mode: str, tmp_path: Path
) -> None:
    """Pruning meanwhile keeps what is behind the gap."""
    backend, path = BACKENDS["sqlite"], tmp_path / "state.db"
    async with opened(backend, tmp_path, mode) as calls:
        runs = Runs(fan_out(calls.saver, delta(1000)), mode)
        for turn in range(3):
            await runs.invoke({"items": [f"input {turn}"]}, on("t"))
        whole = (await runs.state(on("t"))).values
        ids = [id_of(one.config) for one in await calls.list(config())]
    lost = ids[len(ids) // 2]
    row = one_row(path, "SELECT * FROM holdfast_checkpoints WHERE checkpoint_id = ?", lost)
    execute(path, "DELETE FROM holdfast_checkpoints WHERE checkpoint_id = ?", [lost])
    async with opened(backend, tmp_path, mode) as calls:
        runs = Runs(fan_out(calls.saver, delta(1000)), mode)
        with pytest.raises(CheckpointCorrupted, match=lost):
            await runs.state(on("t"))
        await calls.prune(["t"])
        assert len(await calls.ids(config())) == len(ids) - 1
    places = ", ".join("?" * len(row))
    execute(path, f"INSERT INTO holdfast_checkpoints VALUES ({places})", row)
    async with opened(backend, tmp_path, mode) as calls:
        runs = Runs(fan_out(calls.saver, delta(1000)), mode)
        assert (await runs.state(on("t"))).values == whole
