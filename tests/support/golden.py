"""Threads that are the same in every run, to be kept in a file for each format version.

When the format changes on purpose, raise its version in the core, then make the file of the
new version and commit it beside the old ones, which must stay readable for ever:

    cd tests && python -m support.golden data/format-4.db

Where only the shape changes, which earlier versions of the core read as well (where trees are cut,
what stands in a record), the format stays: keep the old file under another name, as
`format-2-long-pages.db`, and make the new one.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast import SqliteSaver
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from support.make import checkpoint, checkpoint_id, config, version

PLAIN = ("zstd", "none", "untyped", "wide")
"""Threads whose bytes depend on no class of LangChain, which gains fields at times."""
THREADS = (*PLAIN, "messages")
FIRST = {"wide": 4}
"""The first format that a thread is kept in, where that is not 1."""
SPECIAL = {"__error__": -1, "__interrupt__": -3, "__resume__": -4}


def threads_of(format: int) -> list[str]:
    """The threads that are kept in that format."""
    return [thread for thread in THREADS if FIRST.get(thread, 1) <= format]


class Untyped:
    """A serde of the kind without types; LangGraph gives its bytes a tag of its own."""

    def dumps(self, value: Any) -> bytes:
        return json.dumps(value, sort_keys=True).encode()

    def loads(self, data: bytes) -> Any:
        return json.loads(data)


@dataclass(frozen=True)
class Step:
    """A checkpoint, and the writes that it gets: task, path, channel and value."""

    ns: str
    number: int
    parent: int | None
    values: dict[str, Any]
    versions: dict[str, str]
    changed: tuple[str, ...]
    metadata: dict[str, Any]
    writes: list[tuple[str, str, list[tuple[str, Any]]]] = field(default_factory=list)
    is_wide: bool = False
    """Whether each channel has a node of its own that has seen it."""


def text(length: int) -> str:
    """Text that is long, not random, and has no period."""
    words, number = [], 1
    while sum(map(len, words)) < length:
        number = number * 1103515245 % 2147483647
        words.append(f"{'golden' if number % 3 else 'word'} {number % 97} ")
    return "".join(words)[:length]


def messages() -> list[BaseMessage]:
    """One message of each class."""
    call = {"name": "look", "args": {"a": 1, "b": [None, 2.5]}, "id": "call 1", "type": "tool_call"}
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    return [
        SystemMessage("be brief", id="1"),
        HumanMessage([{"type": "text", "text": "hello"}], id="2", name="somebody"),
        AIMessage("", id="3", tool_calls=[call], usage_metadata=usage),
        ToolMessage("found", id="4", tool_call_id="call 1", artifact={"bytes": b"\x00\xff"}),
        FunctionMessage("done", id="5", name="function"),
        ChatMessage("as a role", id="6", role="critic"),
        AIMessageChunk("part", id="7"),
        RemoveMessage("2"),
        *(AIMessage(text(300), id=f"more {number}") for number in range(12)),
    ]


def steps(thread: str) -> Iterator[Step]:
    """What is put on a thread, in order."""
    kind = {"source": "loop", "step": 1, "parents": {}, "what": ["é", 1, 2.5, None, True]}
    if thread == "messages":
        values: dict[str, Any] = {"messages": messages()[:9]}
        versions = {"messages": version(1)}
        yield Step("", 1, None, values, versions, ("messages",), kind)
        writes = [("task", "path", [("messages", messages()[9:12])])]
        grown, now = {"messages": messages()}, {"messages": version(2)}
        yield Step("", 2, 1, grown, now, ("messages",), kind, writes)
        return
    if thread == "wide":
        yield from wide(kind)
        return
    channels = {f"channel {number:02}": [number, f"value {number}"] for number in range(60)}
    length = 100_000 if thread == "zstd" else 12_000
    items = [{"id": f"item {number}", "text": text(200 + number)} for number in range(40)]
    values = {**channels, "text": text(length), "items": items[:30], "empty": [], "none": None}
    versions = {name: version(1) for name in [*values, "without a value"]}
    if thread == "untyped":
        values["text"], values["items"] = text(400), items[:3]
    first = tuple(versions)
    large = {**kind, "large": text(3000)}
    yield Step("", 1, None, values, versions, first, {**kind, "run_id": f"run of {thread}"})
    values, versions = {**values, "items": items}, {**versions, "items": version(2)}
    special = [("__error__", "failed"), ("__interrupt__", [{"value": text(300), "id": "i"}])]
    writes = [
        ("task a", "~1", [("items", items[30:]), ("text", "short"), ("text", "again")]),
        ("task b", "", [*special, ("__resume__", [1, None])]),
    ]
    yield Step("", 2, 1, values, versions, ("items",), large, writes)
    yield Step("", 3, 2, values, versions, (), {**kind, "source": "fork"})
    for ns in ("sub:1", "sub:1|inner:2"):
        inner = {"own": [ns, text(900)], "items": items}
        marks = {name: version(1) for name in inner}
        yield Step(ns, 1, None, inner, marks, tuple(inner), {**kind, "parents": {"": "x"}})


def wide(kind: dict[str, Any]) -> Iterator[Step]:
    """Many channels, of which few change at a time; one comes, one goes, and at last all change."""
    values: dict[str, Any] = {f"channel {number:02}": text(150 + number) for number in range(24)}
    versions = dict.fromkeys(values, version(1))
    run = {**kind, "run_id": "run of wide"}
    yield Step("", 1, None, values, versions, tuple(versions), run, is_wide=True)
    for number in range(2, 8):
        changed = {f"channel {number:02}": text(300 + number), "long": text(5000 + number)}
        if number == 3:
            changed["channel 30"] = "new"
        values = {**values, **changed}
        new = dict.fromkeys(changed, version(number))
        if number == 4:
            del values["channel 00"]
            new["channel 00"] = version(number)
        versions = {**versions, **new}
        yield Step("", number, number - 1, values, versions, tuple(new), kind, is_wide=True)
    versions = dict.fromkeys(values, version(8))
    values = {name: text(10) for name in values}
    yield Step("", 8, 7, values, versions, tuple(versions), kind, is_wide=True)


def made(step: Step) -> Any:
    """The checkpoint of a step."""
    seen: dict[str, Any] = {"node": dict(step.versions), "__input__": {}}
    if step.is_wide:
        seen = {f"node of {name}": {name: one} for name, one in step.versions.items()}
    return checkpoint(step.number, step.values, step.versions, versions_seen=seen)


def expected(thread: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What a thread must read back as, in the form of `support.make.plain`."""
    found = {}
    for step in steps(thread):
        id = checkpoint_id(step.number)
        whole = made(step)
        values = whole.pop("channel_values")
        found[step.ns, id] = {
            "thread": thread,
            "ns": step.ns,
            "id": id,
            "checkpoint": whole,
            "values": values,
            "metadata": step.metadata,
            "parent": step.parent and checkpoint_id(step.parent),
            "writes": in_order(step),
        }
    return found


def in_order(step: Step) -> list[tuple[str, str, Any]]:
    """The writes of a step by path, task and index, those of special channels first."""
    found = [
        (path, task, SPECIAL.get(channel, position), channel, value)
        for task, path, pairs in step.writes
        for position, (channel, value) in enumerate(pairs)
    ]
    found.sort(key=lambda write: write[:3])
    return [(task, channel, value) for _, task, _, channel, value in found]


def saver_for(thread: str, path: Path) -> SqliteSaver:
    """A saver as the thread wants it."""
    serde: Any = Untyped() if thread == "untyped" else None
    return SqliteSaver(path, serde=serde, compression="none" if thread == "none" else "zstd")


def write(path: Path) -> None:
    """Make a file: small, in one piece, and without what differs between runs."""
    for thread in THREADS:
        with closing(saver_for(thread, path)) as saver:
            for step in steps(thread):
                parent = step.parent and checkpoint_id(step.parent)
                new = {name: step.versions[name] for name in step.changed}
                where = saver.put(config(thread, step.ns, parent), made(step), step.metadata, new)
                for task, task_path, pairs in step.writes:
                    saver.put_writes(where, pairs, task, task_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            "UPDATE holdfast_threads "
            "SET epoch = key, created_at = 0, updated_at = 0, minute = 0, operations = x''"
        )
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA page_size = 1024")
        connection.execute("VACUUM")


def stored(path: Path) -> dict[str, dict[tuple[Any, ...], bytes]]:
    """The bytes of the plain threads, by table and key."""
    tables = {
        "checkpoints": ("record", "thread_id, checkpoint_ns, checkpoint_id, parent_id"),
        "writes": ("data", "thread_id, checkpoint_ns, checkpoint_id, task_id, idx"),
        "blobs": ("data", "thread_id, id"),
    }
    found: dict[str, dict[tuple[Any, ...], bytes]] = {}
    marks = ", ".join("?" * len(PLAIN))
    with closing(sqlite3.connect(path)) as connection:
        for table, (column, keys) in tables.items():
            rows = connection.execute(
                f"SELECT {column}, {keys} FROM holdfast_{table} "
                f"JOIN holdfast_threads ON key = thread WHERE thread_id IN ({marks})",
                PLAIN,
            )
            found[table] = {tuple(key): data for data, *key in rows}
    return found


if __name__ == "__main__":
    write(Path(sys.argv[1]))
