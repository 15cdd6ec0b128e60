"""Columns for people: what a checkpoint shows, that it never stands in the way, what it hides."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import holdfast
import pytest
from hypothesis import given
from langgraph.checkpoint.base import empty_checkpoint, get_checkpoint_metadata
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, StateGraph
from psycopg.rows import dict_row
from support.calls import Calls
from support.graphs import on
from support.make import checkpoint, checkpoint_id, config, same_bytes, through_serde, version
from support.postgres import Connection, dump, eye, table_of
from support.postgres_server import postgres_url
from support.values import STATES
from typing_extensions import TypedDict


@pytest.fixture
def url(tmp_path: Path) -> str:
    return postgres_url(tmp_path)


@pytest.fixture
def conn(url: str) -> Iterator[Connection]:
    with eye(url, row_factory=dict_row) as conn:
        yield conn


@pytest.fixture
def saver(url: str) -> Iterator[holdfast.Saver]:
    with holdfast.open(url) as saver:
        yield saver


def row(conn: Connection, url: str, id: int | str = 1, thread: str = "t") -> dict[str, Any]:
    id = checkpoint_id(id) if isinstance(id, int) else id
    found = conn.execute(
        f"SELECT *, octet_length(state::text) AS size FROM {table_of(url)}_checkpoints "
        "WHERE thread_id = %s AND checkpoint_id = %s",
        [thread, id],
    ).fetchone()
    assert found is not None
    return found


def put(saver: holdfast.Saver, values: dict[str, Any], number: int = 1, **metadata: Any) -> Any:
    made = checkpoint(number, values)
    parent = checkpoint_id(number - 1) if number > 1 else None
    return saver.put(config("t", "", parent), made, metadata, made["channel_versions"])  # type: ignore[arg-type]


# --- what is shown


def test_a_checkpoint_is_shown(saver: holdfast.Saver, conn: Connection, url: str) -> None:
    values = {"name": "Zoë \U0001f600", "count": 3, "list": [1, {"a": None}], "yes": True, "x": 1.5}
    put(saver, values, source="loop", step=1)
    put(saver, {**values, "bytes": b"", "branch:to:next": None}, 2, step=2, run_id="r")
    first, second = row(conn, url, 1), row(conn, url, 2)
    assert first["state"] == {
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, 1),
    }
    assert first["metadata"] == {"source": "loop", "step": 1}
    assert (first["parent_id"], first["next_node"]) == (None, None)
    assert second["parent_id"] == checkpoint_id(1)
    assert second["next_node"] == "next"
    assert second["state"]["channel_values"] == values, "neither bytes nor triggers"
    assert second["state"]["channel_versions"].keys() == {*values, "bytes", "branch:to:next"}
    assert second["metadata"] == {"step": 2, "run_id": "r"}
    assert first["created_at"] <= second["created_at"]
    assert first["created_at"].tzinfo is not None


def test_only_what_was_updated_is_said_to_be(
    saver: holdfast.Saver, conn: Connection, url: str
) -> None:
    put(saver, {"a": 1, "b": 2})
    made = checkpoint(2, {"a": 1, "b": 3}, {"a": version(1), "b": version(12)})
    saver.put(config("t", "", checkpoint_id(1)), made, {}, {"b": version(12)})
    state = row(conn, url, 2)["state"]
    assert state["channel_versions"] == {"b": 12}
    assert state["channel_values"] == {"a": 1, "b": 3}


def test_a_graph_can_be_asked_about(saver: holdfast.Saver, conn: Connection, url: str) -> None:
    class State(TypedDict):
        topic: str
        note: str

    builder = StateGraph(State)
    builder.add_node("write", lambda state: {"note": f"on {state['topic']}"})
    builder.add_node("send", lambda state: {})
    builder.add_edge(START, "write")
    builder.add_edge("write", "send")
    graph = builder.compile(checkpointer=saver, interrupt_before=["send"])
    for topic in ("bees", "trees"):
        graph.invoke({"topic": topic, "note": ""}, on(topic, user="me"))
    found = conn.execute(
        "SELECT DISTINCT ON (thread_id) thread_id, next_node, "
        "state #>> '{channel_values,note}' AS note, metadata ->> 'user' AS who "
        f"FROM {table_of(url)}_checkpoints ORDER BY thread_id, checkpoint_id DESC"
    ).fetchall()
    assert found == [
        {"thread_id": topic, "next_node": "send", "note": f"on {topic}", "who": "me"}
        for topic in ("bees", "trees")
    ]


@pytest.mark.parametrize("kind", ["text", "list", "dict"])
@pytest.mark.parametrize("count", [1, 3, 20, 2000])
@pytest.mark.parametrize("length", [10, 900, 5000])
def test_a_row_stays_small(
    saver: holdfast.Saver, conn: Connection, url: str, count: int, length: int, kind: str
) -> None:
    """A kilobyte for a value, eight for a row, also with the spaces that JSONB puts in."""
    value: Any = "\u00e9" * (length // 2)
    if kind == "list":
        value = [1] * (length // 2)
    elif kind == "dict":
        value = {str(number): 1 for number in range(length // 8)}
    values = {f"channel {number}": value for number in range(count)}
    put(saver, values, text="x" * length * 10)
    found = row(conn, url)
    shown = found["state"]["channel_values"]
    assert found["size"] < 8192
    assert all(values[name] == value for name, value in shown.items())
    if length > 1024:
        assert shown == {}
    elif count * length < 900:
        assert shown == values
    elif count * length > 10_000:
        assert 0 < len(shown) < count
    assert found["metadata"] is None or length < 1000


def test_what_was_updated_is_shown_before_the_others(
    saver: holdfast.Saver, conn: Connection, url: str
) -> None:
    old = {f"a{number}": "x" * 500 for number in range(30)}
    put(saver, old)
    new = {f"z{number}": "y" * 500 for number in range(5)}
    made = checkpoint(2, {**old, **new})
    saver.put(config("t", "", checkpoint_id(1)), made, {}, dict.fromkeys(new, version(1)))
    state = row(conn, url, 2)["state"]
    assert state["channel_values"] == new
    assert state["channel_versions"] == dict.fromkeys(new, 1)


# --- what cannot be shown

ODD: dict[str, Any] = {
    "NUL": "a\0b",
    "NaN": math.nan,
    "endless": math.inf,
    "1e400": float("1e400"),
    "minus nought": -0.0,
    "huge": 2**64 - 1,
    "least": -(2**63),
    "tuple": (1, 2),
    "set": {1},
    "bytes": b"\0\xff",
    "keys": {1: 2},
    "NUL key": {"\0": 1},
    "deep": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]],
    "escape": '\\u0000 "\\',
    "a \0 name": 1,
    "long " * 500: 1,
}


@pytest.mark.parametrize("name", ODD)
async def test_no_value_stands_in_the_way(url: str, conn: Connection, name: str, mode: str) -> None:
    value = ODD[name]
    calls = Calls(holdfast.open(url), mode)
    made = checkpoint(1, {name: value, "beside": "it"})
    stored = await calls.put(config(), made, {"odd": value}, made["channel_versions"])  # type: ignore[typeddict-unknown-key]
    await calls.put_writes(stored, [(name, value)], "task")
    cold = Calls(holdfast.open(url, cache_bytes=0), mode)
    found = await cold.must_get(stored)
    assert same_bytes(found.checkpoint["channel_values"], {name: value, "beside": "it"})
    assert found.pending_writes is not None
    assert same_bytes(found.pending_writes[0][2], value)
    # LangGraph itself takes NUL out of a text in metadata.
    expected = get_checkpoint_metadata(config(), {"odd": value})  # type: ignore[typeddict-unknown-key]
    assert same_bytes(found.metadata, expected)
    shown = row(conn, url)
    assert shown["state"]["channel_values"]["beside"] == "it"
    # Said as it is, or not at all.
    if name in shown["state"]["channel_values"]:
        assert name in ("least", "escape")
        assert shown["state"]["channel_values"][name] == value
        assert shown["metadata"] == expected
    else:
        assert shown["state"]["channel_values"].keys() == {"beside"}
    await calls.close()
    await cold.close()


@pytest.mark.parametrize("where", ["value", "name", "metadata", "version"])
def test_lone_surrogates_do_not_fail_more_than_the_serializer(
    saver: holdfast.Saver, conn: Connection, url: str, where: str
) -> None:
    lone = "a\ud800"
    values = {lone if where == "name" else "a": [lone] if where == "value" else 1}
    versions = dict.fromkeys(values, lone if where == "version" else version(1))
    metadata: Any = {"a": lone} if where == "metadata" else {}
    made = checkpoint(1, values, versions)
    stored = saver.put(config(), made, metadata, versions)
    found = saver.get_tuple(stored)
    assert found is not None
    expected = {name: through_serde(value) for name, value in values.items()}
    assert found.checkpoint["channel_values"] == expected
    assert row(conn, url)["state"] is not None


@given(value=STATES)
def test_any_value_can_be_put(tmp_path_factory: Any, value: Any) -> None:
    url = postgres_url(tmp_path_factory.getbasetemp())
    with holdfast.open(url) as saver:
        stored = put(saver, {"state": value}, metadata=value)
        found = saver.get_tuple(stored)
        assert found is not None
        assert same_bytes(found.checkpoint["channel_values"], through_serde({"state": value}))
        saver.delete_thread("t")


def test_a_checkpoint_without_anything(saver: holdfast.Saver, conn: Connection, url: str) -> None:
    made = empty_checkpoint()
    saver.put(config(), made, {}, {})
    found = row(conn, url, made["id"])
    assert found["state"] == {"channel_values": {}, "channel_versions": {}}
    assert (found["metadata"], found["next_node"]) == ({}, None)


# --- what is hidden


class Foreign(JsonPlusSerializer):
    pass


def _encrypted() -> EncryptedSerializer:
    serializer = EncryptedSerializer.from_pycryptodome_aes(key=b"k" * 16)
    # The first use imports the rest of the package: not on an event loop.
    serializer.loads_typed(serializer.dumps_typed(""))
    return serializer


ENCRYPTED = _encrypted()
SERIALIZERS: dict[str, Any] = {
    "encrypted": lambda: ENCRYPTED,
    "foreign": Foreign,
}


@pytest.mark.parametrize("kind", SERIALIZERS)
async def test_a_serializer_that_may_hide_things_shows_nothing(
    url: str, conn: Connection, kind: str, mode: str
) -> None:
    secret = "vexed-Z9-Quagmire"
    calls = Calls(holdfast.open(url, serde=SERIALIZERS[kind]()), mode)
    made = checkpoint(1, {"branch:to:next": None, "secret": secret})
    metadata: Any = {"secret": secret, "step": 1}
    stored = await calls.put(config(), made, metadata, made["channel_versions"])
    await calls.put_writes(stored, [("secret", secret)], "task")
    found = row(conn, url)
    assert (found["state"], found["next_node"], found["metadata"]) == (None, None, None)
    assert [one.metadata for one in await calls.list(None, filter={"secret": secret})] == [metadata]
    assert await calls.list(None, filter={"secret": "other"}) == []
    await calls.copy_thread("t", "u")
    assert row(conn, url, thread="u")["metadata"] is None
    if kind == "encrypted":
        with eye(url) as plain:
            rows = str(dump(plain, url))
        assert "checkpoint_id" in rows
        assert secret not in rows
    await calls.close()


def test_a_serializer_that_is_assigned_later_counts(
    saver: holdfast.Saver, conn: Connection, url: str
) -> None:
    saver.serde = Foreign()
    put(saver, {"a": 1})
    assert row(conn, url)["state"] is None
    with holdfast.open(url, serde=JsonPlusSerializer()) as plain:
        put(plain, {"a": 1}, 2)
    assert row(conn, url, 2)["state"]["channel_values"] == {"a": 1}
