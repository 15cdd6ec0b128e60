"""Objects of every type that upstream's hook knows: the same bytes, objects, failures, events."""

from __future__ import annotations

import datetime
import gc
import random
import sys
import uuid
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from holdfast import serde
from holdfast._core import Codec
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.serde import _msgpack
from support import serde_typed as typed
from support.serde_typed import KEYS, SOUND, TYPED, any_value
from support.serde_values import (
    OURS,
    PLAIN,
    UPSTREAM,
    Color,
    Data,
    Level,
    Point,
    Shade,
    call,
    check,
    describe,
    nested,
)


def names(values: list[Any]) -> list[str]:
    return [f"{number} {type(value).__name__}" for number, value in enumerate(values)]


def is_usual(value: Any) -> bool:
    """Whether upstream is heard once only: failing values are tried again from the outside."""
    return call(UPSTREAM.dumps_typed, value).failure is None


@pytest.mark.parametrize("value", TYPED, ids=names(TYPED))
def test_typed_object(value: Any) -> None:
    # The first of a class is treated differently from those after it.
    for _ in range(3):
        for whole in (value, [value, value], {"k": value, "l": [value, None]}, {"a": (value,)}):
            check(whole, ordinary=is_usual(whole))
        check(Data(value), ordinary=is_usual(value))
        check([Point(value, 1), typed.Frozen(value)], ordinary=is_usual(value))


@pytest.mark.parametrize("value", TYPED, ids=names(TYPED))
def test_typed_object_in_a_set(value: Any) -> None:
    try:
        whole = [{value}, frozenset([value]), {1: {value}}]
    except (TypeError, ValueError):
        return
    check(whole, ordinary=False)
    check(whole, ordinary=False)


@pytest.mark.parametrize("key", KEYS, ids=names(KEYS))
def test_typed_key(key: Any) -> None:
    for _ in range(2):
        for whole in (
            {key: 1},
            {"a": 1, key: [2], "b": Data({key: 1})},
            [{"x": {key: 2, "y": 3}}, 5],
            {(1, key): 1, "behind": Shade.DARK},
        ):
            check(whole, ordinary=is_usual(whole))


@given(st.sampled_from(SOUND), st.sampled_from(SOUND), PLAIN)
def test_typed_objects_among_others(one: Any, other: Any, plain: Any) -> None:
    check([plain, one, {"a": [other, plain], 1: one}, Data({"b": other})])


@pytest.mark.parametrize("seed", range(20))
def test_many_values(seed: int) -> None:
    """Twenty at a time: a thousand for each seed."""
    chance = random.Random(seed)
    for _ in range(50):
        values = [any_value(chance) for _ in range(20)]
        packed = UPSTREAM.dumps_typed(values)
        assert OURS.dumps_typed(values) == packed
        assert describe(OURS.loads_typed(packed)) == describe(UPSTREAM.loads_typed(packed))


@pytest.mark.parametrize("depth", [1, 30, 49, 97, 98, 99, 100, 101, 110])
@pytest.mark.parametrize(
    "wrap",
    [
        Data,
        lambda value: [Data(value)],
        lambda value: Point(value, 1),
        lambda value: typed.Model(value=value),
        lambda value: typed.Old(value=value),
        lambda value: deque([value]),
        lambda value: frozenset([value]),
        lambda value: typed.Send("n", {"a": value}),
        lambda value: {"k": (typed.Interrupt(value=value, id="i"), 1)},
    ],
    ids=["data", "list", "tuple", "model", "old", "deque", "set", "send", "interrupt"],
)
def test_limit_of_depth(wrap: Any, depth: int) -> None:
    whole = nested(depth, wrap)
    theirs, ours = call(UPSTREAM.dumps_typed, whole), call(OURS.dumps_typed, whole)
    assert (ours.failure, ours.value) == (theirs.failure, theirs.value)
    if theirs.failure is None:
        theirs, ours = (call(each.loads_typed, theirs.value) for each in (UPSTREAM, OURS))
        assert (ours.failure, repr(ours.value)) == (theirs.failure, repr(theirs.value))
        assert ours.events == theirs.events


REFUSED: list[Any] = [
    typed.Checked,
    typed.Data,
    uuid.UUID,
    datetime.datetime,
    datetime.time,
    datetime.timezone,
    Path,
    typed.ZoneInfo,
    typed.decimal.Decimal,
    deque,
    set,
    typed.Send,
    typed.Interrupt,
    typed.Command,
]
ARGUMENTS: list[Any] = [
    *(None, 0, -1, 13, 2**63, 1.5, "", "x", "2020-01-01", "0" * 32, "0" * 31 + "é", "g" * 32),
    *("UTC", "../x", b"x", [], [1], [[1]], [1, 2], [1, 2, 3], ["n", 1, 5], [b"x", []]),
    *({}, {"a": 13}, {"value": 1}, {1: 2}, {"hour": 25}, {"tzinfo": 1}, [[], {}], [{}], Shade.DARK),
]


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("code", range(6))
def test_what_a_class_may_refuse(kind: Any, code: int) -> None:
    """The payload itself, and one warning."""
    for argument in ARGUMENTS:
        for tail in ([], ["fromisoformat"], ["fromtimestamp"]):
            parts = [kind.__module__, kind.__name__, argument, *tail]
            payload = UPSTREAM.dumps_typed(parts)[1]
            whole = typed.ormsgpack.packb([typed.ormsgpack.Ext(code, payload), 1])
            theirs, ours = (call(each.loads_typed, ("msgpack", whole)) for each in (UPSTREAM, OURS))
            assert ours.everything() == theirs.everything(), (code, argument, tail)


def test_what_stands_under_a_name_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """As libraries that freeze the time do it."""

    class Later(datetime.datetime):
        pass

    packed = UPSTREAM.dumps_typed([datetime.datetime(2020, 1, 1), uuid.UUID(int=1), {1}])
    OURS.loads_typed(packed)
    monkeypatch.setattr(datetime, "datetime", Later)
    monkeypatch.setattr(uuid, "UUID", typed.SubUUID)
    assert [type(each) for each in OURS.loads_typed(packed)] == [Later, typed.SubUUID, set]
    monkeypatch.undo()
    monkeypatch.setattr(_msgpack, "SAFE_MSGPACK_TYPES", frozenset())
    theirs, ours = (call(each.loads_typed, packed) for each in (UPSTREAM, OURS))
    assert ours.everything() == theirs.everything()
    assert len(ours.events) == 2


QUIET: list[Any] = [
    *(Level.HIGH, Color.RED, Shade.PAIR, typed.Flags.B, Data([1]), typed.Frozen({1}), Point(1, 2)),
    *(typed.Slotted(1), typed.Inheriting(1), *typed.SENDS, typed.Command(update=[1])),
    *(uuid.UUID(int=9), typed.decimal.Decimal("1.50"), {1, 2}, frozenset("a"), deque([1], 3)),
    *(datetime.datetime(2020, 1, 1, tzinfo=typed.BERLIN), datetime.date(2020, 1, 2)),
    *(datetime.time(1, 2, tzinfo=datetime.timezone.utc), datetime.timedelta(1, 2, 3)),
    *(Path("/a/b"), typed.BERLIN, typed.re.compile("x"), np.arange(5), np.zeros((2, 3)).T),
    *({1: "a", None: 2, (1, "b"): 3, Level.LOW: 4, 1.5: 5, b"c": 6}, typed.Text("t")),
    *(typed.Number(3), typed.Listed([1]), typed.Mapped(a=1), memoryview(b"x"), bytearray(b"y")),
]


@pytest.mark.parametrize("value", QUIET, ids=names(QUIET))
def test_no_python_while_encoding(value: Any) -> None:
    """Once its class is known."""
    whole = [value, {"k": value}]
    for _ in range(2):
        OURS.dumps_typed(whole)
    entered: list[str] = []

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            entered.append(frame.f_code.co_name)

    gc.disable()
    sys.setprofile(note)
    try:
        OURS.dumps_typed(whole)
    finally:
        sys.setprofile(None)
        gc.enable()
    allowed = ["_msgpack_enc"] if isinstance(value, memoryview) else []
    assert [name for name in entered if name not in allowed] == ["dumps_typed"]


def test_classes_that_come_and_go() -> None:
    """A new class may stand where one was that is gone."""
    for number in range(3000):
        made = type("Made", (), {"__module__": f"m{number}", "__annotations__": {"a": int}})
        made = typed.dataclasses.dataclass(made)
        whole = [made(number), made(number)]
        assert OURS.dumps_typed(whole) == UPSTREAM.dumps_typed(whole)
        del made, whole
        if number % 500 == 0:
            gc.collect()


@pytest.mark.parametrize("value", TYPED, ids=names(TYPED))
def test_the_first_object_of_a_class(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for whole in ([value], {"a": value, "b": [value]}, [{"k": Data(value)}]):
        monkeypatch.setattr(serde, "_codec", Codec(serde._CLASSES))
        check(whole, ordinary=False)
