"""What is written again and again, changed or not, has the bytes of what it is now."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from typing import Any

import pytest
from holdfast.serde import Serializer
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

OURS, THEIRS = Serializer(), JsonPlusSerializer()
TEXT = "what fills an element so that it is long enough to be remembered " * 4


def elements() -> list[Any]:
    """A conversation of every kind of element, each long enough to be remembered."""
    call = {"name": "look", "args": {"what": [TEXT, 1, 2.5, None, True]}, "id": "1"}
    return [
        HumanMessage(TEXT, id="h"),
        AIMessage(TEXT, id="a", tool_calls=[call], response_metadata={"tokens": {"in": 1000}}),
        ToolMessage(TEXT, tool_call_id="1", id="t", artifact=None),
        Document(TEXT, metadata={"page": 7}),
        HumanMessage(
            [{"type": "text", "text": TEXT}], additional_kwargs={"deep": [[{"er": TEXT}]]}
        ),
        {"role": "user", "content": TEXT, "tags": ["a", {"b": [1, 2]}]},
        [TEXT, [TEXT, {"k": TEXT}]],
        {"number": 10**6, "float": 0.5, "content": TEXT},
        *(HumanMessage(f"{number} {TEXT}") for number in range(4)),
    ]


def packed(value: Any) -> tuple[str, bytes]:
    """What a draft gets, where elements that are known are left out."""
    tag, data = OURS.pack_typed(value)
    assert len(data) == len(bytes(data))
    return tag, bytes(data)


WAYS: list[Callable[[Any], tuple[str, bytes]]] = [OURS.dumps_typed, packed]


def must_agree(value: Any, times: int = 3) -> None:
    """More than once: what is met for the first time is not yet remembered."""
    for _ in range(times):
        wanted = THEIRS.dumps_typed(value)
        for dump in WAYS:
            assert dump(value) == wanted


def set_extra(message: Any) -> None:
    message.surprise = "an extra field"


def unset(message: Any) -> None:
    message.__pydantic_fields_set__.clear()


def reorder(message: Any) -> None:
    fields = dict(message.__dict__)
    message.__dict__.clear()
    message.__dict__.update(reversed(fields.items()))


CHANGES: list[tuple[int, Callable[[Any], None]]] = [
    (0, lambda m: setattr(m, "content", m.content + "!")),
    (0, lambda m: setattr(m, "content", "".join(m.content))),
    (0, set_extra),
    (0, unset),
    (0, reorder),
    (0, lambda m: m.__dict__.pop("name")),
    (0, lambda m: m.additional_kwargs.update(new=1)),
    (1, lambda m: m.tool_calls[0]["args"]["what"].append("more")),
    (1, lambda m: m.tool_calls[0]["args"]["what"].__setitem__(1, 1000)),
    (1, lambda m: m.tool_calls.clear()),
    (1, lambda m: m.response_metadata["tokens"].update({"in": 1001})),
    (1, lambda m: m.response_metadata.__setitem__("tokens", [])),
    (2, lambda m: setattr(m, "artifact", object)),
    (2, lambda m: setattr(m, "status", "error")),
    (3, lambda d: d.metadata.update(page=8)),
    (3, lambda d: d.metadata.update(page=True)),
    (4, lambda m: m.content[0].update(text="other")),
    (4, lambda m: m.additional_kwargs["deep"][0][0].pop("er")),
    (5, lambda d: d["tags"][1]["b"].pop()),
    (5, lambda d: d.update({"content": d.pop("content")})),
    (5, lambda d: d.update({1: "a key that is no text"})),
    (6, lambda e: e[1].reverse()),
    (6, lambda e: e.__setitem__(0, TEXT.upper())),
    (7, lambda d: d.update(number=float(d["number"]))),
    (7, lambda d: d.update(float=-0.5)),
]


@pytest.mark.parametrize("dump", WAYS)
@pytest.mark.parametrize("at", range(len(CHANGES)))
def test_a_change_is_seen(at: int, dump: Callable[[Any], tuple[str, bytes]]) -> None:
    value = elements()
    must_agree(value)
    element, change = CHANGES[at]
    change(value[element])
    try:
        wanted = THEIRS.dumps_typed(value)
    except TypeError:
        with pytest.raises(TypeError):
            dump(value)
    else:
        assert dump(value) == wanted
        must_agree(value)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from("cdskr")), max_size=20))
def test_any_changes_are_seen(steps: list[tuple[int, str]]) -> None:
    value: Any = elements()
    must_agree(value)
    for number, kind in steps:
        if kind == "c":
            element, change = CHANGES[number % len(CHANGES)]
            try:
                change(value[element % len(value)])
            except (AttributeError, KeyError, IndexError, TypeError, ValueError):
                continue  # it is not there any more, or is another object
        elif kind == "d" and len(value) > 8:
            del value[number % len(value)]
        elif kind == "s":
            value.insert(number % len(value), value[number % len(value)])
        elif kind == "k":
            value = {"nested": value} if isinstance(value, list) and number % 9 == 0 else value
            if isinstance(value, dict):
                must_agree(value)
                value = value["nested"]
        else:
            value = value[::-1]
        try:
            wanted = THEIRS.dumps_typed(value)
        except TypeError:
            return
        for dump in WAYS:
            assert dump(value) == wanted


def test_what_comes_to_lie_in_an_old_place_is_not_taken_for_it() -> None:
    rng = random.Random(1)
    for number in range(200):
        value = [{"content": f"{number} {rng.random()} {TEXT}"} for _ in range(10)]
        must_agree(value)
        value = [{"content": f"{number} {rng.random()} {TEXT}"} for _ in range(10)]
        must_agree(value, times=1)
        del value
        gc.collect(0)


def test_what_is_written_within_a_write_is_right() -> None:
    class Odd:
        """Python runs for it, and writes another value meanwhile."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def model_dump(self) -> Any:
            must_agree(self.inner)
            self.inner[0].content += "!"
            return {"inner": "done"}

    inner = elements()
    value = [*elements(), Odd(inner), *elements()]
    for dump in WAYS * 2:
        ours = dump(value)
        assert ours == THEIRS.dumps_typed(value)


def test_more_than_is_remembered_is_still_right() -> None:
    value = [HumanMessage(f"{number} {TEXT * 20}") for number in range(6000)]
    must_agree(value, times=4)
    value[5999].content += "!"
    value[0].content += "!"
    must_agree(value, times=1)


def test_lists_of_all_lengths_in_turn() -> None:
    """Room is made for a list as the one before it took."""
    sizes = [(8, 200_000), (3000, 150), (8, 0), (500, 3000), (9, 150), (2000, 0)]
    lists = [[f"{number} " + "x" * size for number in range(count)] for count, size in sizes]
    for value in [*lists, *reversed(lists), {"a": lists[0], "b": lists[1], "c": [lists[3]]}]:
        must_agree(value)


@pytest.mark.parametrize("dump", WAYS)
def test_what_python_takes_away_during_a_comparison_is_not_touched(
    dump: Callable[[Any], tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    value = [{"text": TEXT, "message": HumanMessage(TEXT * 2), "more": TEXT} for _ in range(10)]
    must_agree(value)
    extra = HumanMessage.__pydantic_extra__

    def look(message: Any) -> Any:
        for one in value:
            one.clear()
        gc.collect(0)
        return extra.__get__(message, type(message))

    with monkeypatch.context() as patched:
        patched.setattr(HumanMessage, "__pydantic_extra__", property(look))
        dump(value)
    assert value == [{}] * 10
    must_agree(value)
