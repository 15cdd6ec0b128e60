"""The garbage collector does not run while a value is built, and nobody sees that."""

from __future__ import annotations

import gc
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.types import Send
from pydantic import BaseModel, field_validator
from support.serde_values import OURS, UPSTREAM

SEEN: list[bool] = []
THEN: list[Callable[[], None]] = []


class Looks(BaseModel):
    """Looks at the collector while it is built."""

    number: int

    @field_validator("number")
    @classmethod
    def look(cls, number: int) -> int:
        SEEN.append(gc.isenabled())
        for work in THEN:
            work()
        return number


class Fails(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def fail(cls, number: int) -> int:
        SEEN.append(gc.isenabled())
        raise ValueError(number)


@pytest.fixture(params=[True, False], ids=["on", "off"])
def is_on(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether the application has the collector on."""
    (gc.enable if request.param else gc.disable)()
    SEEN.clear()
    THEN.clear()
    yield request.param
    gc.enable()


VALUES: dict[str, Any] = {
    "messages": [HumanMessage(f"m{n}", id=str(n)) for n in range(200)],
    "plain": [{"a": [n]} for n in range(2000)],
    "calls": [uuid.UUID(int=5), Decimal("1.5"), datetime.now(timezone.utc), {1, 2}, Send("a", [1])],
}


@pytest.mark.parametrize("what", VALUES)
def test_it_is_afterwards_as_before(is_on: bool, what: str) -> None:
    typed = UPSTREAM.dumps_typed(VALUES[what])
    assert OURS.loads_typed(typed) == VALUES[what]
    assert gc.isenabled() is is_on


@pytest.mark.parametrize("cut", [1, 100, -1])
def test_so_it_is_behind_an_error(is_on: bool, cut: int) -> None:
    tag, data = UPSTREAM.dumps_typed(VALUES["messages"])
    with pytest.raises(ValueError):
        OURS.loads_typed((tag, data[:cut]))
    assert gc.isenabled() is is_on


def test_a_class_that_is_called_sees_no_difference(is_on: bool) -> None:
    typed = UPSTREAM.dumps_typed([[1], Looks(number=1), {"k": [Looks(number=2)]}])
    SEEN.clear()
    assert OURS.loads_typed(typed) == [[1], Looks(number=1), {"k": [Looks(number=2)]}]
    assert set(SEEN) == {is_on}
    assert gc.isenabled() is is_on


@pytest.mark.filterwarnings("ignore")
def test_so_does_one_that_refuses(is_on: bool) -> None:
    typed = UPSTREAM.dumps_typed([Fails.model_construct(number=1), [2]])
    OURS.loads_typed(typed)
    assert set(SEEN) == {is_on}
    assert gc.isenabled() is is_on


def test_what_a_class_does_to_it_stays(is_on: bool) -> None:
    typed = UPSTREAM.dumps_typed([Looks(number=1), [1], Looks(number=2)])
    SEEN.clear()
    THEN.append(gc.disable if is_on else gc.enable)
    OURS.loads_typed(typed)
    assert SEEN[0] is is_on
    assert set(SEEN[1:]) == {not is_on}
    assert gc.isenabled() is not is_on


def test_a_long_value_is_looked_through_once_at_most() -> None:
    """By Python's own thresholds it would be some times for each 700 containers."""
    started: list[int] = []

    def note(phase: str, about: dict[str, int]) -> None:
        if phase == "start":
            started.append(about["generation"])

    typed = UPSTREAM.dumps_typed([HumanMessage(f"m{n}", id=str(n)) for n in range(4000)])
    OURS.loads_typed(typed)
    gc.collect()
    gc.callbacks.append(note)
    try:
        found = OURS.loads_typed(typed)
    finally:
        gc.callbacks.remove(note)
    assert len(found) == 4000
    assert len(started) <= 1
