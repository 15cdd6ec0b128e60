"""Messages and documents: every class, every field, as constructed and as meddled with."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from holdfast import serde
from holdfast._core import Codec
from hypothesis import given
from hypothesis import strategies as st
from langchain_core import messages as lc
from langchain_core.documents import Document
from support.serde_values import (
    OBJECTS,
    OURS,
    PLAIN,
    TEXT,
    UPSTREAM,
    VALUES,
    Data,
    Model,
    OwnAI,
    OwnHuman,
    Refuses,
    Shade,
    Text,
    Unequal,
    check,
)

MODULE = "langchain_core.messages"
CLASSES = [
    lc.HumanMessage,
    lc.AIMessage,
    lc.SystemMessage,
    lc.ToolMessage,
    lc.ChatMessage,
    lc.FunctionMessage,
    lc.HumanMessageChunk,
    lc.AIMessageChunk,
    lc.SystemMessageChunk,
    lc.ToolMessageChunk,
    lc.ChatMessageChunk,
    lc.FunctionMessageChunk,
    OwnHuman,
    OwnAI,
]
BLOCKS = st.one_of(
    TEXT,
    st.dictionaries(TEXT, PLAIN, max_size=3),
    st.builds(lambda text: {"type": "text", "text": text}, TEXT),
    st.just({"type": "tool_use", "id": "1", "name": "n", "input": {"a": 1}}),
)
CONTENTS = st.one_of(TEXT, st.lists(BLOCKS, max_size=3), st.lists(BLOCKS, max_size=3).map(tuple))
OPENAI_CALLS = st.lists(
    st.builds(
        lambda name, arguments: {
            "id": "call",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        },
        TEXT,
        st.sampled_from(["{}", '{"a": 1}', "{", "[]", ""]),
    ),
    max_size=2,
)
KWARGS = st.one_of(
    st.dictionaries(TEXT, PLAIN, max_size=3),
    st.dictionaries(TEXT, VALUES, max_size=2),
    st.builds(lambda calls: {"tool_calls": calls}, st.one_of(OPENAI_CALLS, PLAIN)),
    st.dictionaries(st.one_of(st.integers(), st.none()), PLAIN, max_size=2),
)


@st.composite
def shuffled(draw: st.DrawFn, items: dict[str, Any]) -> dict[str, Any]:
    """The same dict in another order, perhaps with a key more, less or of another type."""
    keys = draw(st.permutations(list(items)))
    table = {key: items[key] for key in keys}
    change = draw(st.integers(0, 11))
    if change == 0:
        table[draw(TEXT)] = draw(PLAIN)
    elif change == 1 and table:
        del table[draw(st.sampled_from(keys))]
    elif change == 2 and table:
        table[draw(st.sampled_from(keys))] = draw(VALUES)
    return table


ARGS = st.one_of(
    st.dictionaries(TEXT, PLAIN, max_size=3), st.dictionaries(TEXT, VALUES, max_size=1)
)
CALL_IDS = st.one_of(st.none(), TEXT)
TOOL_CALLS = st.lists(
    st.builds(
        lambda name, args, id_: {"name": name, "args": args, "id": id_, "type": "tool_call"},
        TEXT,
        ARGS,
        CALL_IDS,
    ).flatmap(shuffled),
    max_size=3,
)
INVALID_CALLS = st.lists(
    st.just(
        {"name": "n", "args": "{", "id": "1", "error": None, "type": "invalid_tool_call"}
    ).flatmap(shuffled),
    max_size=2,
)
COUNTS = st.one_of(st.integers(0, 2**40), st.sampled_from([1.0, 2.5, True, "3", -1, 2**63]))
DETAILS = st.fixed_dictionaries(
    {},
    optional={"audio": COUNTS, "cache_read": COUNTS, "cache_creation": COUNTS, "reasoning": COUNTS},
).flatmap(shuffled)
USAGE = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {"input_tokens": COUNTS, "output_tokens": COUNTS, "total_tokens": COUNTS},
        optional={"input_token_details": DETAILS, "output_token_details": DETAILS},
    ).flatmap(shuffled),
)
IDS = st.one_of(st.none(), TEXT, st.integers(), st.uuids().map(str), st.builds(Text, TEXT))
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "content": CONTENTS,
    "additional_kwargs": KWARGS,
    "response_metadata": KWARGS,
    "name": st.one_of(st.none(), TEXT),
    "id": IDS,
    "tool_calls": TOOL_CALLS,
    "invalid_tool_calls": INVALID_CALLS,
    "usage_metadata": USAGE,
    "artifact": VALUES,
    "status": st.sampled_from(["success", "error", "other"]),
    "tool_call_id": st.one_of(TEXT, st.uuids(), st.integers()),
    "role": TEXT,
    "foo": VALUES,
    "type": st.sampled_from(["ai", "human", "tool", "odd"]),
}
LIKELY = ("content", "name", "id", "usage_metadata", "tool_calls", "artifact")
NEEDED = {"content": "x", "tool_call_id": "c", "role": "r", "name": "n"}


@st.composite
def messages(draw: st.DrawFn) -> Any:
    """A message as its class makes it, or without its validators."""
    kind = draw(st.sampled_from(CLASSES))
    chosen = draw(st.lists(st.sampled_from([*FIELDS, *LIKELY]), max_size=5, unique=True))
    fields = {name: draw(FIELDS[name]) for name in chosen}
    known = set(kind.model_fields)
    fields = {name: value for name, value in fields.items() if name in known or name == "foo"}
    for name, value in NEEDED.items():
        if name in known and (name != "name" or kind.model_fields[name].is_required()):
            fields.setdefault(name, value)
    if draw(st.integers(0, 9)) == 0:
        return kind.model_construct(**fields)
    try:
        return kind(**fields)
    except Exception:  # noqa: BLE001 - what the class refuses may be set later
        return kind.model_construct(**fields)


@st.composite
def meddled(draw: st.DrawFn) -> Any:
    """A message changed after it was made."""
    message = draw(messages())
    for _ in range(draw(st.integers(1, 3))):
        table = message.__dict__
        change = draw(st.integers(0, 6))
        name = draw(st.sampled_from(list(table) or ["content"]))
        if change <= 1:
            setattr(message, name, draw(st.one_of(FIELDS.get(name, PLAIN), VALUES)))
        elif change == 2:
            table[name] = table.pop(name, None)  # moved to the end
        elif change == 3:
            table.pop(name, None)
        elif change == 4:
            table[draw(TEXT)] = draw(PLAIN)
        elif change == 5:
            extra = dict(message.__pydantic_extra__ or {}, more=draw(VALUES))
            object.__setattr__(message, "__pydantic_extra__", extra)
        else:
            message = copy.copy(message)
    return message


DOCUMENTS = st.builds(
    lambda text, metadata, id_: Document(text, metadata=metadata, id=id_),
    TEXT,
    st.one_of(st.dictionaries(TEXT, PLAIN, max_size=3), st.dictionaries(TEXT, VALUES, max_size=2)),
    st.one_of(st.none(), TEXT, st.integers()),
)


@given(messages())
def test_messages(message: Any) -> None:
    check(message)
    check(message)  # now that its shape is known


@given(meddled())
def test_meddled_messages(message: Any) -> None:
    check(message)


@given(DOCUMENTS)
def test_documents(document: Any) -> None:
    check([document, {"d": document}])


@given(st.lists(st.one_of(messages(), meddled(), DOCUMENTS), max_size=5))
def test_lists_of_messages(several: list[Any]) -> None:
    check({"messages": several})


@given(OBJECTS)
def test_artifacts(artifact: Any) -> None:
    for status in ("success", "error"):
        check(lc.ToolMessage("x", tool_call_id="c", artifact=artifact, status=status))
        check(lc.ToolMessage("x", tool_call_id="c", artifact=[{"a": artifact}], name=status))


ORDERS: dict[str, tuple[Any, Any]] = {
    "usage": (
        {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        {"total_tokens": 3, "output_tokens": 2, "input_tokens": 1},
    ),
    "tool call": (
        [{"name": "n", "args": {}, "id": "1", "type": "tool_call"}],
        [{"type": "tool_call", "id": "1", "args": {}, "name": "n"}],
    ),
}


@pytest.mark.parametrize("which", ORDERS)
def test_order_of_keys_set_after_construction(which: str) -> None:
    """Validation brings a TypedDict's keys into its own order, so a load does too."""
    field = "usage_metadata" if which == "usage" else "tool_calls"
    for value in (*ORDERS[which], *reversed(ORDERS[which])):
        message = lc.AIMessage("x")
        setattr(message, field, value)
        check(message)


@pytest.mark.parametrize(("field", "value"), [("content", 5), ("id", 5), ("name", True)])
def test_warnings_of_a_message_set_to_something_odd(field: str, value: Any) -> None:
    check(lc.HumanMessage("x", id="1", name="n"))
    message = lc.HumanMessage("x", id="1", name="n")
    setattr(message, field, value)
    check(message)


def test_a_message_whose_fields_were_reordered() -> None:
    check(lc.HumanMessage("x"))
    message = lc.HumanMessage("x")
    message.__dict__["content"] = message.__dict__.pop("content")
    check(message)


# With a codec of its own: what it learned comes from these objects alone.
ARTIFACTS = {
    "array": np.arange(3),
    "array in a list": [np.arange(3)],
    "refuses": Refuses(),
    "unequal": Unequal(),
    "enum": Shade.DARK,
    "model": Model(value={1}),
    "data": Data(1),
    "nan": float("nan"),
    "message": lc.HumanMessage("in"),
    "set": {1, 2},
    "bytes": b"b",
}


def fresh(kind: str) -> list[Any]:
    """Messages of one shape: a hostile one first, then usual ones."""
    if kind in ARTIFACTS:
        first: Any = lc.ToolMessage("x", tool_call_id="c", artifact=ARTIFACTS[kind])
        return [first, lc.ToolMessage("x", tool_call_id="c", artifact="usual"), first]
    usual = lc.AIMessage("x", id="1", response_metadata={"a": 1.0})
    odd = lc.AIMessage("x", id="1", response_metadata={"a": 1.0})
    if kind == "moved":
        odd.__dict__["content"] = odd.__dict__.pop("content")
    elif kind == "warns":
        odd.content = 5  # type: ignore[assignment]
    elif kind == "parsed":
        calls = [{"id": "1", "type": "function", "function": {"name": "n", "arguments": "{}"}}]
        odd.additional_kwargs = {"tool_calls": calls}
        usual.additional_kwargs = {"tool_call": calls}
    elif kind == "nan metadata":
        odd.response_metadata = {"a": float("nan")}
    elif kind in ORDERS:
        field = "usage_metadata" if kind == "usage" else "tool_calls"
        for message, value in zip((usual, odd), ORDERS[kind], strict=True):
            setattr(message, field, value)
    return [odd, usual, odd]


HOSTILE = [*ARTIFACTS, "moved", "warns", "parsed", "nan metadata", *ORDERS]


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("kind", HOSTILE)
def test_what_the_first_object_of_a_shape_teaches(
    kind: str, backwards: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serde, "_codec", Codec(serde._CLASSES))
    several = fresh(kind)
    for message in several[1:] + several[:1] if backwards else several:
        check(message)


@pytest.mark.parametrize("kind", CLASSES)
def test_both_directions(kind: Any) -> None:
    known = {name: value for name, value in NEEDED.items() if name in kind.model_fields}
    message = kind(**known, response_metadata={"a": [1]})
    for writer, reader in ((OURS, UPSTREAM), (UPSTREAM, OURS)):
        read = reader.loads_typed(writer.dumps_typed([message]))
        assert read == [message]
        assert type(read[0]) is kind
