"""What the ids of checkpoints say of their time."""

from __future__ import annotations

import time
from uuid import UUID

import pytest
from holdfast.ids import made
from hypothesis import example, given
from hypothesis import strategies as st
from langgraph.checkpoint.base.id import uuid6

# RFC 9562, appendices A.5 and A.6: both of February 22, 2022, 19:22:22 UTC.
MOMENT = 1_645_557_742_000
FOURTH = "919108f7-52d1-4320-9bac-f847db4148a8"


def by_uuid(id: str) -> int:
    """The same from Python's own class: the greatest timestamp that it knows of."""
    try:
        uuid = UUID(id)
    except ValueError:
        return 0
    if uuid.version == 6:
        ticks = (uuid.int >> 80) << 12 | (uuid.int >> 64) & 0xFFF
        return max((ticks - 0x01B21DD213814000) // 10_000, 0)
    return uuid.int >> 80 if uuid.version == 7 else 0


@pytest.mark.parametrize(
    "id", ["1EC9414C-232A-6B00-B3C8-9F6BDECED846", "017F22E2-79B0-7CC3-98C4-DC0C0C07398F"]
)
def test_the_examples_of_the_standard(id: str) -> None:
    assert made(id) == made(id.lower()) == MOMENT


def test_ids_of_langgraph_say_when_they_were_made() -> None:
    before = time.time_ns() // 1_000_000
    assert before - 1 <= made(str(uuid6())) <= time.time_ns() // 1_000_000 + 1


@pytest.mark.parametrize("id", ["", "1", "a" * 32, "g" * 32, "-" * 36, FOURTH, "\0" * 32])
def test_others_do_not(id: str) -> None:
    assert made(id) == 0


@given(st.one_of(st.uuids().map(str), st.uuids(version=1).map(str), st.text()))
@example("ffffffff-ffff-6fff-bfff-ffffffffffff")
@example("00000000-0000-6000-8000-000000000000")
@example("ffffffff-ffff-7fff-bfff-ffffffffffff")
@example("00000000-0000-6000-0000-000000000000")
@example("00000000-0000-6000-c000-000000000000")
def test_what_is_read_is_what_a_uuid_says(id: str) -> None:
    assert made(id) == by_uuid(id)


@given(st.integers(0, 2**128 - 1), st.sampled_from([6, 7]))
def test_also_of_those_with_a_time(number: int, version: int) -> None:
    bare = number & ~(0xF << 76) & ~(0b11 << 62)
    id = str(UUID(int=bare | version << 76 | 0b10 << 62))
    assert made(id) == by_uuid(id) >= 0
