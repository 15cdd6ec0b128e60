"""Values and edits of values, for properties that must hold for any."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

INTEGERS = st.integers(-(2**63), 2**64 - 1)
TEXT = st.text(max_size=40)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    INTEGERS,
    st.floats(),
    TEXT,
    st.binary(max_size=40),
    # long enough for a leaf of its own, and for one that is cut inside
    st.builds(lambda text, times: (text or "x") * times, TEXT, st.sampled_from([20, 400, 9_000])),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=8), st.dictionaries(st.one_of(TEXT, INTEGERS), inner, max_size=8)
    ),
    max_leaves=25,
)
MESSAGES = st.builds(
    lambda number, length: {"id": f"message {number}", "content": f"word {number} " * length},
    st.integers(0, 10_000),
    st.integers(1, 120),
)
ITEMS = st.one_of(MESSAGES, VALUES)
STATES = st.one_of(
    VALUES, st.lists(MESSAGES, max_size=40), st.fixed_dictionaries({"messages": st.lists(MESSAGES)})
)


def containers(value: Any) -> list[Any]:
    """Every list and dict in a value, itself first."""
    found: list[Any] = []
    if isinstance(value, (list, dict)):
        found.append(value)
        for inner in value if isinstance(value, list) else value.values():
            found += containers(inner)
    return found


@st.composite
def edited(draw: st.DrawFn, value: Any) -> Any:
    """The value after one edit somewhere inside it; the value given stays as it is."""
    value = copy.deepcopy(value)
    found = containers(value)
    if not found or draw(st.integers(0, 19)) == 0:
        return draw(STATES)
    place = draw(st.sampled_from(found))
    if isinstance(place, dict):
        keys = list(place)
        if keys and draw(st.booleans()):
            key = draw(st.sampled_from(keys))
            if draw(st.booleans()):
                del place[key]
            else:
                place[key] = draw(ITEMS)
        else:
            place[draw(TEXT)] = draw(ITEMS)
        return value
    edit = draw(
        st.sampled_from(["append", "append", "extend", "insert", "delete", "replace", "cut"])
    )
    at = draw(st.integers(0, len(place)))
    if edit == "append":
        place.append(draw(ITEMS))
    elif edit == "extend":
        place.extend(draw(st.lists(ITEMS, max_size=30)))
    elif edit == "insert":
        place.insert(at, draw(ITEMS))
    elif edit == "cut":
        del place[at:]
    elif at < len(place) and edit == "delete":
        del place[at]
    elif at < len(place):
        place[at] = draw(ITEMS)
    return value
