"""A look at a Postgres store from beside it: every row has its place, none lacks."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from holdfast._core import Core

from support.audit import Thread, chunks_of
from support.postgres import Connection, dump, tables

OPERATION = 8
"""Bytes of an operation's id."""


def audit(conn: Connection, url: str) -> dict[str, Thread]:
    """All threads, as of one moment.

    Raises:
        AssertionError: Something is half there, or lies around.
    """
    found = dump(conn, url)
    names: dict[int, str] = {row["key"]: row["thread_id"] for row in found["threads"]}
    rows: dict[str, dict[str, list[Any]]] = {
        table: defaultdict(list) for table in ("checkpoints", "writes", "blobs")
    }
    for table, of in rows.items():
        for row in found[table]:
            name = row["thread_id"] if table == "checkpoints" else names.get(row["thread"])
            assert name in names.values(), f"{table}: a row of no thread"
            of[name].append(row)
    for row in found["threads"] + found["checkpoints"]:
        assert len(row["operations"]) % OPERATION == 0
    for row in found["threads"]:
        if row["created_at"] is None:
            _ended(row, [one for table in rows for one in rows[table].pop(row["thread_id"], [])])
    living = {row["thread_id"] for row in found["threads"] if row["created_at"] is not None}
    return {name: _thread(name, *(rows[table][name] for table in rows)) for name in living}


def _ended(row: Any, others: list[Any]) -> None:
    assert not others, "something is left of a thread that was deleted"
    assert row["deleted_at"] or row["lease_token"], "a row that says nothing"
    assert (row["expires_at"], row["is_persistent"]) == (None, False)


def _thread(name: str, checkpoints: list[Any], writes: list[Any], blobs: list[Any]) -> Thread:
    assert checkpoints or writes, "a thread of which nothing is left is not there"
    thread = Thread()
    reader = Core(cache_bytes=0, compression="none").reader(name)
    for row in checkpoints:
        thread.ids.setdefault(row["checkpoint_ns"], []).append(row["checkpoint_id"])
        record = reader.record(row["record"])
        assert (record.parent_id or None) == row["parent_id"], "two parents"
        if row["metadata"] is not None:
            assert row["metadata"].get("run_id") == row["run_id"], "a run does not lead here"
    for ids in thread.ids.values():
        ids.sort()
    places = {(row["checkpoint_ns"], row["checkpoint_id"]) for row in writes}
    there = {(row["checkpoint_ns"], row["checkpoint_id"]) for row in checkpoints}
    thread.orphans = sorted(places - there)
    chunks = {row["id"]: row["data"] for row in blobs}
    assert all(chunks.values()), "a chunk that was only looked for is there"
    stored = [row["record"] for row in checkpoints] + [row["data"] for row in writes]
    thread.garbage = chunks.keys() - chunks_of(stored, lambda ids: [*map(chunks.get, ids)])
    return thread


def is_empty(conn: Connection, url: str) -> bool:
    """Whether not one row is left, but for tombstones and that which says the layout."""
    counts = tables(conn, url)
    threads = counts.pop("threads")
    tombstones = sum(
        row["created_at"] is None and row["deleted_at"] is not None
        for row in dump(conn, url)["threads"]
    )
    return counts.pop("layout") == 1 and threads == tombstones and set(counts.values()) == {0}
