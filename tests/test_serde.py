"""The serializer beside `JsonPlusSerializer`: the same bytes, objects, failures, warnings."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from support.serde_values import (
    EDGES,
    HASHABLE,
    NANS,
    OBJECTS,
    OURS,
    PLAIN,
    UPSTREAM,
    VALUES,
    Color,
    Level,
    Mapped,
    Number,
    Shade,
    Text,
    call,
    check,
    nested,
)

TESTS = Path(__file__).parent


@given(VALUES)
def test_any_value(value: Any) -> None:
    check(value, ordinary=False)


@given(PLAIN)
@example([NANS, -0.0, math.inf])
@example(["\ud800", {"\udfff": "\0"}])
def test_plain_values(value: Any) -> None:
    check(value)


@given(OBJECTS, OBJECTS)
def test_objects_among_plain_values(one: Any, other: Any) -> None:
    check([one, {"a": other, "b": [None, one]}])


@given(st.dictionaries(HASHABLE, st.integers(0, 9), max_size=5))
def test_keys_of_dicts(value: dict[Any, Any]) -> None:
    check({"before": 1, "inner": value, "after": [value]}, ordinary=False)


@pytest.mark.parametrize("value", EDGES)
def test_edges_of_integers(value: int) -> None:
    check([value])
    check({"a": value, value: "b"}, ordinary=False)


@pytest.mark.parametrize("length", [0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536])
def test_edges_of_lengths(length: int) -> None:
    check([1] * length)
    check((None,) * length)
    check({str(number): number for number in range(length)})
    check(["x" * length, b"x" * length, bytearray(length)])
    check(HumanMessage("x" * length))


@pytest.mark.parametrize("bits", [0x7FF8_0000_0000_0000, 0x7FF0_0000_0000_0001, (1 << 64) - 1])
def test_bits_of_nan(bits: int) -> None:
    check([struct.unpack(">d", struct.pack(">Q", bits))[0]])


@pytest.mark.parametrize(
    "key",
    [
        *(1, True, 1.5, math.nan, None, b"k", (1, (2, b"")), Level.HIGH, Color.RED, Shade.PAIR),
        *(Number(3), Text("t"), "\ud800", frozenset({1}), Path("a"), object, 2**64),
    ],
    ids=repr,
)
def test_one_key(key: Any) -> None:
    check({key: 1}, ordinary=False)
    check([{"a": 1, key: {"b": [key]}}], ordinary=False)


@pytest.mark.parametrize("key", ["first", 1, True, 1.0, b"1", None])
def test_keys_that_become_equal(key: Any) -> None:
    check({"1": 1, Text("1"): 2, "first": 3, key: 4})


@pytest.mark.parametrize("depth", [49, 50, 51, 99, 100, 101, 252, 253, 254, 255, 256, 300])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda value: [value],
        lambda value: (value,),
        lambda value: {"k": value},
        lambda value: {1: value},
        lambda value: OrderedDict(k=value),
        lambda value: [{"a": (value, 1)}],
    ],
    ids=["list", "tuple", "dict", "int key", "subclass", "mixed"],
)
def test_limit_of_depth(depth: int, wrap: Any) -> None:
    check_deep(nested(depth, wrap))


@pytest.mark.parametrize("outer", [1, 50, 90, 100])
@pytest.mark.parametrize("inner", [150, 200, 253])
def test_limit_of_depth_through_other_objects(outer: int, inner: int) -> None:
    """What upstream is asked to encode inside counts from the outermost level."""
    deep = nested(inner, lambda value: [value])
    for middle in ({1: deep}, OrderedDict(a=deep), Mapped(a=deep), _DeltaSnapshot(deep)):
        check_deep(nested(outer, lambda value: [value], middle))


def check_deep(value: Any) -> None:
    theirs, ours = call(UPSTREAM.dumps_typed, value), call(OURS.dumps_typed, value)
    assert (ours.failure, ours.value) == (theirs.failure, theirs.value)
    if theirs.failure is None:
        theirs, ours = (call(s.loads_typed, theirs.value) for s in (UPSTREAM, OURS))
        assert (ours.failure, repr(ours.value)) == (theirs.failure, repr(theirs.value))


@pytest.mark.parametrize("depth", [1, 30, 90])
@pytest.mark.parametrize(
    "wrap",
    [
        _DeltaSnapshot,
        lambda value: {value} if value is None else frozenset([1]),
        lambda value: HumanMessage("x", additional_kwargs={"inner": value}),
        lambda value: [_DeltaSnapshot({"a": value})],
    ],
    ids=["snapshot", "set", "message", "mixed"],
)
def test_extension_objects_inside_each_other(depth: int, wrap: Any) -> None:
    check_deep(nested(depth, wrap))


def test_cycles() -> None:
    ring: list[Any] = []
    ring.append(ring)
    table: dict[Any, Any] = {}
    table["self"] = {1: table}
    message = HumanMessage("x")
    message.additional_kwargs["self"] = [message.additional_kwargs]
    for value in (ring, table, message, [1, ring], [{1: ring}]):
        theirs, ours = call(UPSTREAM.dumps_typed, value), call(OURS.dumps_typed, value)
        assert theirs.failure is not None
        assert ours.failure == theirs.failure


@pytest.mark.parametrize(
    "value", [None, b"", b"a", bytearray(b"b"), memoryview(b"c"), "", 0, [], {}, (), np.arange(3)]
)
def test_tags_of_whole_values(value: Any) -> None:
    check(value)
    ours, theirs = OURS.dumps_typed(value), UPSTREAM.dumps_typed(value)
    assert ours == theirs
    assert [type(part) for part in ours] == [type(part) for part in theirs]


class Meddler:
    """Changes a container when it is dumped."""

    def __init__(self, container: Any, change: Any) -> None:
        self.container, self.change = container, change

    def model_dump(self) -> dict[str, Any]:
        self.change(self.container)
        return {}


@pytest.mark.parametrize("count", [0, 1, 3, 10])
@pytest.mark.parametrize("change", [dict.clear, dict.popitem, "add", "swap", "replace"])
def test_dict_changed_while_encoded(count: int, change: Any) -> None:
    def add(table: dict[Any, Any]) -> None:
        table[f"new {len(table)}"] = 1

    def swap(table: dict[Any, Any]) -> None:
        table["new"] = table.popitem()

    def replace(table: dict[Any, Any]) -> None:
        table.update(dict.fromkeys(table, 5))

    work = {"add": add, "swap": swap, "replace": replace}.get(change, change)

    def made(work: Any) -> dict[Any, Any]:
        table: dict[Any, Any] = {}
        table.update(first=1, meddler=Meddler(table, work))
        table.update({str(number): [number] for number in range(count)})
        return table

    # Upstream writes what it meets, and a header that may not fit; ours is what was there.
    expected = UPSTREAM.dumps_typed(made(lambda _: None))
    assert OURS.dumps_typed(made(work)) == expected


CHANGING_LISTS = """
from holdfast.serde import Serializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

class Meddler:
    def __init__(self, items, change):
        self.items, self.change = items, change
    def model_dump(self):
        self.change(self.items)
        return {}

def made(change, make=list):
    items = [1]
    items += [Meddler(items, change), *map(str, range(50)), {"a": items}]
    items[-1] = 7
    return {"k": items}

for change in (
    lambda items: items.append(5),
    lambda items: items.extend(range(10_000)),
    lambda items: items.__setitem__(3, [5]),
    list.reverse,
    # Here upstream reads freed memory: ours must not, nor ask upstream to.
    list.clear,
    list.pop,
    lambda items: items.__delitem__(slice(2, 40)),
):
    expected = JsonPlusSerializer().dumps_typed(made(lambda items: None))
    assert Serializer().dumps_typed(made(change)) == expected
print("survived")
"""


def test_list_changed_while_encoded() -> None:
    done = run(CHANGING_LISTS)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "survived\n"


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a new process."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(
        command, cwd=TESTS, capture_output=True, text=True, timeout=100, check=False
    )
