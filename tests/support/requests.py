"""Requests as a saver makes them, and a look at what it sends and what is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import holdfast
import pytest
from holdfast import steps
from holdfast._core import Core
from holdfast.backends import base
from holdfast.backends.base import Commit, Predecessor, StoredWrite, Write, new_operation_id
from holdfast.serde import Serializer

from support.make import checkpoint, checkpoint_id, config, version
from support.uses import WORDS

Execute = Callable[[Any], Any]

ABSENT = b"\x77" * 16
"""The id of a chunk that is never stored."""


def made(thread: str = "t", number: int = 1, value: Any = WORDS[:40], ns: str = "") -> Commit:
    """The commit of a root checkpoint with all its chunks, as a saver without a cache sends it."""
    core = Core(cache_bytes=0, compression="zstd")
    versions = {"state": version(number)}
    one = checkpoint(number, {"state": value}, versions)
    request = next(
        steps.put(core, Serializer(), config(thread, ns), one, {"run_id": "r"}, versions)
    )
    assert isinstance(request, Commit)
    assert request.chunks
    return request


def write(thread: str = "t", idx: int = 0, data: bytes = b"", number: int = 1) -> Write:
    stored = [StoredWrite("task", idx, data or made().record)]
    return Write(thread, "", checkpoint_id(number), stored, [], [], new_operation_id())


def anew(request: Any, **changes: Any) -> Any:
    return replace(request, operation=new_operation_id(), **changes)


def parent(number: int, made: int = 0, ns: str = "") -> Predecessor:
    """The parent, made at that millisecond."""
    return Predecessor(ns, checkpoint_id(number), made, is_parent=True)


def caller(number: int, made: int = 0, ns: str = "") -> Predecessor:
    """The checkpoint from which a subgraph was called, made at that millisecond."""
    return Predecessor(ns, checkpoint_id(number), made, is_parent=False)


def child(number: int, *follows: Predecessor, thread: str = "t") -> Commit:
    """The commit of a checkpoint that builds on these."""
    return building(made(thread, number), *follows)


def building(request: Commit, *follows: Predecessor) -> Commit:
    """A commit of the same that builds on these checkpoints."""
    parents = [one.checkpoint_id for one in follows if one.is_parent]
    built: Commit = anew(request, parent_id=parents[0] if parents else None, follows=follows)
    return built


def forget(thread: str = "t", **how: Any) -> base.Forget:
    """The removal of a thread, with a tombstone unless told."""
    return base.Forget(thread, new_operation_id(), **how)


CHANGES: dict[str, Callable[[], Any]] = {
    "Commit": lambda: made(number=2),
    "Write": lambda: write(idx=3),
    "Copy": lambda: base.Copy("source", "t", new_operation_id()),
}
"""What writes to thread t, a new request at each call."""

COUNTING: dict[str, Callable[[], Any]] = {
    "Head": lambda: base.Head("t", "", None, list),
    "Head of a checkpoint": lambda: base.Head("t", "", checkpoint_id(1), list),
    "Page of a thread": lambda: base.Page("t", None, None, None, None, 10),
    "Ancestors": lambda: base.Ancestors("t", "", None, 10),
}
"""The reads of thread t that may put off its expiry."""


def changes(fence: base.Fence | None = None) -> list[Any]:
    """A new request of each kind of `CHANGES`, under the fence."""
    return [replace(change(), fence=fence) for change in CHANGES.values()]


def chunk_ids(execute: Execute, thread: str = "t") -> list[tuple[bytes, int]]:
    """Ids and levels of all stored chunks, in order."""
    found: dict[bytes, int] = {}
    cursor = None
    while True:
        page, cursor = execute(base.ChunkIds(thread, cursor, 1000))
        found.update((id, level) for id, level, _ in page)
        if cursor is None:
            return sorted(found.items())


def state(execute: Execute, thread: str = "t") -> Any:
    """All of a thread; its epoch too, where there is one."""
    epoch, rows, orphans = execute(base.Census(thread))
    places = [*((row.checkpoint_ns, row.checkpoint_id) for row in rows), *orphans]
    writes = execute(base.WritesOf(thread, sorted(places)))
    chunks = chunk_ids(execute, thread)
    runs = execute(base.RunThreads(["r"])).count(thread)
    records = sorted((row.checkpoint_ns, row.checkpoint_id, row.record) for row in rows)
    if not (records or orphans or chunks or runs):
        return None
    return epoch, records, {place: [*some] for place, some in writes.items()}, chunks, runs


def put(saver: holdfast.Saver, number: int, values: dict[str, Any], **how: Any) -> Any:
    """A child of the checkpoint before, with new versions of all values unless told."""
    parent = how.get("parent", checkpoint_id(number - 1) if number > 1 else None)
    versions = how.get("versions", dict.fromkeys(values, version(number)))
    new = how.get("new", versions)
    one = checkpoint(number, values, versions)
    thread = how.get("thread", "t")
    return saver.put(config(thread, "", parent), one, how.get("metadata", {}), new)


class Tap:
    """Sees a saver's requests, and may do something before one is answered."""

    def __init__(self, saver: holdfast.Saver, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[Any] = []
        self.before: Callable[[Any], None] = lambda _: None
        self.direct = saver._live.backend.execute
        monkeypatch.setattr(saver._live.backend, "execute", self)

    def __call__(self, request: Any) -> Any:
        self.seen.append(request)
        self.before(request)
        return self.direct(request)

    def count(self, work: Callable[[], Any]) -> list[str]:
        """The kinds of requests that the work makes."""
        self.seen.clear()
        work()
        return [type(request).__name__ for request in self.seen]

    def once(self, nth: int, work: Callable[[], Any]) -> None:
        """Work before the nth request from now on is answered."""
        self.seen.clear()

        def before(_: Any) -> None:
            if len(self.seen) == nth:
                self.before = lambda _: None
                work()

        self.before = before
