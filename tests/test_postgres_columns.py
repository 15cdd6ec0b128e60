"""What stands in a column: ids as text that Postgres takes, and JSON that says what is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import holdfast._core
import psycopg
import pytest
from holdfast.backends.postgres.columns import ByteArrays, from_column, to_column
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.types.json import Jsonb
from support.postgres import Connection, eye
from support.postgres_server import shared_postgres

LONGEST = 1 << 20
ODD = "\0\x01\x02\ud7fe\ud7ff\ud800\ud801\udbff\udc00\udfff\ue000a\u0801\U0010ffff"
IDS = st.text(st.one_of(st.sampled_from(ODD), st.characters()), max_size=12)


@pytest.fixture(scope="module")
def conn() -> Iterator[Connection]:
    with eye(shared_postgres()) as conn:
        yield conn


# --- ids


def test_each_character_comes_back_and_keeps_its_place() -> None:
    """All of Unicode, with what no UTF-8 can say."""
    written = [to_column(chr(point)) for point in range(0x110000)]
    for point, column in enumerate(written):
        assert from_column(column) == chr(point)
        column.encode()
    assert written == sorted(written)
    changed = {point for point, column in enumerate(written) if column != chr(point)}
    assert changed == {0, 1, 0xD7FF, *range(0xD800, 0xE000)}


@given(IDS)
def test_an_id_comes_back(id: str) -> None:
    column = to_column(id)
    assert from_column(column) == id
    assert "\0" not in column
    column.encode()


@given(IDS, IDS)
@example("\0", "\x01")
@example("\ud7ff", "\ud800")
@example("\ud7ffa", "\ud800")
@example("a\0", "a")
@example("\ud800\udc00", "\U00010000")
def test_ids_keep_their_order(one: str, other: str) -> None:
    assert (to_column(one) < to_column(other)) == (one < other)
    assert (to_column(one) == to_column(other)) == (one == other)


def test_the_server_has_the_same_order(conn: Connection) -> None:
    ids = [f"{start}{end}" for start in ODD for end in ("", *ODD)]
    found = conn.execute(
        'SELECT id FROM unnest(%s::text[]) AS id ORDER BY id COLLATE "C"',
        [[to_column(id) for id in ids]],
    )
    assert [from_column(id) for (id,) in found] == sorted(ids)


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_arrays_of_bytes_arrive(conn: Connection, pieces: list[bytes]) -> None:
    cursor = psycopg.RawCursor(conn)
    (found,) = cursor.execute("SELECT $1::bytea[]", [ByteArrays(pieces)]).fetchone() or ()
    assert found == pieces


# --- JSON

TEXT = st.text(st.one_of(st.sampled_from('\0"\\/\n\x1f\x7f\u2028\ud800'), st.characters()))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([0.0, -0.0, 1e16, 1e15, 1e22, 5e-324, 1e-7, 2.0**53, 1.7e308, math.inf]),
    TEXT,
)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(TEXT, inner, max_size=5)),
    max_leaves=12,
)
FOREIGN = st.one_of(
    st.binary(max_size=3),
    st.tuples(st.integers()),
    st.sets(st.integers(), max_size=2),
    st.dictionaries(st.integers(), st.none(), min_size=1, max_size=2),
    st.complex_numbers(),
)


def is_faithful(value: Any) -> bool:
    """Whether JSON in Postgres says the same as the value."""
    if type(value) is str:
        return "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)
    if type(value) is int:
        return -(2**63) <= value < 2**63
    if type(value) is float:
        return 1e-15 <= abs(value) < 1e17 or (value == 0 and math.copysign(1, value) > 0)
    if type(value) is list:
        return all(map(is_faithful, value))
    if type(value) is dict:
        return all(type(key) is str for key in value) and all(
            is_faithful(part) for pair in value.items() for part in pair
        )
    return value is None or type(value) is bool


def same(one: Any, other: Any) -> bool:
    """Equal, and of equal types all the way down."""
    return repr(one) == repr(other)


@given(st.one_of(PLAIN, st.lists(st.one_of(PLAIN, FOREIGN), max_size=3), FOREIGN))
def test_json_says_what_the_value_says_or_nothing(value: Any) -> None:
    text = holdfast._core.json(value, LONGEST)
    assert (text is not None) == is_faithful(value)
    if text is not None:
        assert same(json.loads(text), value)
        compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        assert same(json.loads(compact), json.loads(text))


@given(value=PLAIN)
@example(value={"a": [1e22, 1e16, 123456789012345678, -1.5e-300, '\u2028\x7f\\"']})
def test_a_jsonb_column_gives_back_what_it_was_given(conn: Connection, value: Any) -> None:
    """But for the order of keys, and floats that are whole, which it shows as whole numbers."""
    text = holdfast._core.json(value, LONGEST)
    if text is None:
        return
    found = conn.execute("SELECT %s::jsonb, %s::jsonb = %s", [text, text, Jsonb(value)]).fetchone()
    assert found is not None
    assert found[1]
    assert is_shown(value, found[0])


def is_shown(value: Any, shown: Any) -> bool:
    if isinstance(value, dict):
        return value.keys() == shown.keys() and all(
            is_shown(value[key], shown[key]) for key in value
        )
    if isinstance(value, list):
        return len(value) == len(shown) and all(map(is_shown, value, shown))
    return value == (float(shown) if isinstance(value, float) else shown)


class Text(str):
    pass


class Number(int):
    pass


@pytest.mark.parametrize("value", [Text("a"), Number(1), (1,), [Text("a")], {Text("a"): 1}])
def test_what_is_of_another_type_is_not_said(value: Any) -> None:
    assert holdfast._core.json(value, LONGEST) is None


@given(PLAIN, st.integers(0, 60))
def test_what_is_too_long_is_not_said(value: Any, longest: int) -> None:
    whole = holdfast._core.json(value, LONGEST)
    if whole is not None:
        fits = len(whole.encode()) <= longest
        assert holdfast._core.json(value, longest) == (whole if fits else None)


def test_what_is_too_deep_is_not_said() -> None:
    """Also where it has no end."""
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    endless: list[Any] = []
    endless.append(endless)
    assert holdfast._core.json(deep, LONGEST) is None
    assert holdfast._core.json(endless, LONGEST) is None
    assert holdfast._core.json([[[1]]], LONGEST) == "[[[1]]]"
