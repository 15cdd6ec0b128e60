"""Values for the serializer's tests, and ways to compare what two serializers make of them."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import ipaddress
import logging
import pathlib
import re
import struct
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from holdfast import serde
from holdfast._core import Codec
from holdfast.serde import Serializer
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde import jsonplus
from langgraph.checkpoint.serde.event_hooks import register_serde_event_listener
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.store.base import Item
from langgraph.types import Command, Interrupt, Send
from pydantic import BaseModel, ConfigDict, PrivateAttr, SecretStr

UPSTREAM = jsonplus.JsonPlusSerializer()
OURS = Serializer()


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


class Raw(bytes):
    pass


class Mapped(dict[Any, Any]):
    pass


class Listed(list[Any]):
    pass


class Paired(tuple[Any, ...]):
    __slots__ = ()


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2**40


class Color(str, enum.Enum):
    RED = "red"


class Shade(enum.Enum):
    DARK = "dark"
    PAIR = (1, 2)


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Data:
    value: Any
    other: int = 3


@dataclasses.dataclass(eq=False)
class Unequal:
    value: Any = None


class Refuses:
    """Neither compared nor shown."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    def __repr__(self) -> str:
        raise RuntimeError("shown")

    __hash__ = None  # type: ignore[assignment]


class Model(BaseModel):
    model_config = ConfigDict(extra="allow")
    value: Any = None
    number: int = 1
    _secret: int = PrivateAttr(default=7)


class Strict(BaseModel):
    name: str
    inner: Model | None = None


class OwnHuman(HumanMessage):
    mood: str = "calm"


class OwnAI(AIMessage):
    pass


EDGES = [
    sign * (1 << bits) + step
    for bits in (5, 7, 8, 15, 16, 31, 32, 53, 63, 64, 70)
    for sign in (1, -1)
    for step in (-1, 0, 1)
]
NANS = [
    struct.unpack(">d", bytes.fromhex(bits))[0] for bits in ("7ff8000000000001", "fff8" + 12 * "0")
]
INTEGERS = st.one_of(
    st.integers(-200, 200), st.integers(-(2**63), 2**64 - 1), st.sampled_from(EDGES)
)
FLOATS = st.one_of(st.floats(), st.sampled_from([*NANS, -0.0, float("inf"), 1e300]))
LENGTHS = st.sampled_from([1, 14, 15, 16, 17, 31, 32, 33, 255, 256, 257, 65535, 65536])
TEXT = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(codec=None), max_size=6),  # with lone surrogates
    st.sampled_from(["", "\0", "\ud800", "a\udfffb", "é" * 16, "\U0001f600"]),
    st.builds(lambda char, length: char * length, st.sampled_from("xé"), LENGTHS),
)
BYTES = st.one_of(
    st.binary(max_size=20),
    st.builds(bytes, LENGTHS),
    st.builds(bytearray, st.binary(max_size=9)),
    st.builds(memoryview, st.binary(max_size=9)),
)
SCALARS = st.one_of(st.none(), st.booleans(), INTEGERS, FLOATS, TEXT, BYTES)
PLAIN_KEYS = st.one_of(TEXT, st.sampled_from(["id", "type", "content"]))
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), INTEGERS, FLOATS, TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(PLAIN_KEYS, inner, max_size=5)
    ),
    max_leaves=10,
)
NATURAL = st.integers(0, 2**31)
ZONES = st.sampled_from(
    [None, dt.timezone.utc, dt.timezone(dt.timedelta(hours=-5, minutes=30)), ZoneInfo("Asia/Tokyo")]
)
OBJECTS = st.one_of(
    st.datetimes(timezones=ZONES),
    st.dates(),
    st.times(timezones=st.sampled_from([None, dt.timezone.utc])),
    st.timedeltas(),
    ZONES,
    st.uuids(),
    st.decimals(),
    st.builds(Text, TEXT),
    st.builds(Number, INTEGERS),
    st.builds(Real, FLOATS),
    st.builds(Raw, st.binary(max_size=5)),
    st.ip_addresses(),
    st.builds(SecretStr, TEXT),
    st.builds(pathlib.Path, st.sampled_from(["", "/", "a/b", "/tmp/x y"])),
    st.sampled_from(
        [
            Level.LOW,
            Level.HIGH,
            Color.RED,
            Shade.DARK,
            Shade.PAIR,
            pathlib.PurePosixPath("a"),
            ipaddress.ip_network("10.0.0.0/8"),
            ipaddress.ip_interface("::1/64"),
            re.compile("a+", re.IGNORECASE),
            re.compile(b"b"),
            np.arange(6).reshape(2, 3),
            np.arange(6).reshape(2, 3).T,
            np.zeros((0, 2)),
            np.arange(10)[::3],
            np.array(5, dtype=">i2"),
            np.array(["a", "bc"]),
            np.array([object()]),
            np.float64(1.5),
            np.int32(7),
            np.str_("numpy"),
            ValueError("odd", 1),
            KeyboardInterrupt(),
            3 + 4j,
            range(3),
            ...,
            object,
            len,
            Item(
                namespace=("a", "b"),
                key="k",
                value={"v": 1},
                created_at=dt.datetime(2024, 1, 2, tzinfo=dt.timezone.utc),
                updated_at=dt.datetime(2024, 1, 2, tzinfo=dt.timezone.utc),
            ),
            HumanMessage("hi", id="h"),
            AIMessage("", tool_calls=[{"name": "n", "args": {"a": [1]}, "id": "c"}]),
            OwnHuman("hi", mood="loud"),
        ]
    ),
)
HASHABLE = st.one_of(
    st.none(),
    st.booleans(),
    INTEGERS,
    FLOATS,
    TEXT,
    st.binary(max_size=5),
    st.datetimes(timezones=ZONES),
    st.dates(),
    st.times(),
    st.uuids(),
    st.decimals(allow_nan=False),
    st.sampled_from([Level.LOW, Color.RED, Shade.DARK, Shade.PAIR, Number(3), Text("key")]),
    st.tuples(st.integers(0, 3), st.text(max_size=2)),
    st.tuples(st.tuples(st.none()), st.floats(allow_nan=False)),
    st.frozensets(st.integers(0, 3), max_size=2),
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, max_size=5)
    texts = st.dictionaries(TEXT, inner, max_size=5)
    dicts = st.one_of(texts, st.dictionaries(HASHABLE, inner, max_size=4))
    sets = st.sets(HASHABLE, max_size=4)
    return st.one_of(
        lists,
        dicts,
        st.builds(tuple, lists),
        st.builds(Listed, lists),
        st.builds(Paired, lists),
        st.builds(Mapped, dicts),
        st.builds(collections.OrderedDict, dicts),
        st.builds(lambda items: collections.defaultdict(list, items), dicts),
        st.builds(collections.deque, lists, st.sampled_from([None, 3])),
        sets,
        st.builds(frozenset, sets),
        st.builds(Point, inner, inner),
        st.builds(Data, inner),
        st.builds(Unequal, inner),
        st.builds(Model, value=inner, more=inner),
        st.builds(lambda value: Model.model_construct(value=value, number=value), inner),
        st.builds(lambda value: Strict(name="s", inner=Model(value=value)), inner),
        st.builds(Send, st.just("node"), inner),
        st.builds(lambda value: Interrupt(value=value, id="i"), inner),
        st.builds(lambda value: Command(update=value, goto=[Send("n", value)]), inner),
        st.builds(_DeltaSnapshot, inner),
        st.builds(lambda value: HumanMessage("hi", additional_kwargs={"k": value}), inner),
    )


VALUES = st.recursive(st.one_of(SCALARS, OBJECTS), _containers, max_leaves=12)


def nested(depth: int, wrap: Callable[[Any], Any], value: Any = None) -> Any:
    """A value in so many containers."""
    for _ in range(depth):
        value = wrap(value)
    return value


def describe(value: Any) -> Any:
    """All of a value that must be equal: types, order, bits of floats, state of models."""
    kind = type(value)
    if isinstance(value, enum.Enum):
        return kind, value.name
    if isinstance(value, float):
        return kind, struct.pack(">d", value)
    if isinstance(value, np.ndarray):
        return (
            kind,
            value.dtype.str,
            value.shape,
            value.strides,
            value.flags.writeable,
            value.tobytes(),
        )
    if isinstance(value, Mapping):
        return kind, [(describe(key), describe(item)) for key, item in value.items()]
    if isinstance(value, collections.deque):
        return kind, value.maxlen, [describe(item) for item in value]
    if isinstance(value, (list, tuple)):
        return kind, [describe(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return kind, sorted(repr(describe(item)) for item in value)
    if isinstance(value, BaseModel):
        return (
            kind,
            describe(value.__dict__),
            sorted(value.model_fields_set),
            describe(value.__pydantic_extra__),
            describe(value.__pydantic_private__),
        )
    if isinstance(value, BaseException):
        return kind, describe(value.args)
    if isinstance(value, (Item, Send)):
        return kind, [describe(getattr(value, name)) for name in kind.__slots__]
    if isinstance(value, (str, bytes, bytearray, int, type(None), uuid.UUID, Decimal)):
        return kind, str(value) if isinstance(value, Decimal) else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return kind, [(f.name, describe(getattr(value, f.name))) for f in dataclasses.fields(value)]
    if hasattr(value, "__dict__") and not isinstance(value, (type, pathlib.PurePath)):
        return kind, describe(vars(value))
    return kind, repr(value)


@dataclasses.dataclass
class Outcome:
    """What became of a call, and what was said meanwhile."""

    value: Any = None
    failure: tuple[type[BaseException], str] | None = None
    events: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    logs: list[str] = dataclasses.field(default_factory=list)
    warned: list[tuple[type[Warning], str]] = dataclasses.field(default_factory=list)

    def result(self) -> tuple[Any, Any]:
        """What must be the same for any value."""
        return self.failure, describe(self.value)

    def everything(self) -> tuple[Any, ...]:
        """What must be the same for ordinary values."""
        return (*self.result(), self.events, self.logs, self.warned)


@contextmanager
def _heard(outcome: Outcome) -> Iterator[None]:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            outcome.logs.append(record.getMessage())

    for seen in (
        jsonplus._warned_unregistered_types,
        jsonplus._warned_blocked_types,
        jsonplus._warned_unreconstructable_types,
    ):
        seen.clear()
    handler = Handler()
    jsonplus.logger.addHandler(handler)
    stop = register_serde_event_listener(lambda event: outcome.events.append(dict(event)))
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        stop()
        jsonplus.logger.removeHandler(handler)
    outcome.warned = [(each.category, str(each.message)) for each in caught]


def call(work: Callable[[Any], Any], argument: Any) -> Outcome:
    """Call, and note what became of it."""
    outcome = Outcome()
    with _heard(outcome):
        try:
            outcome.value = work(argument)
        except BaseException as failure:  # noqa: BLE001 - whatever it is, both must raise it
            outcome.failure = (type(failure), str(failure))
    return outcome


def check(value: Any, *, ordinary: bool = True) -> None:
    """Both serializers make the same bytes of a value, and the same value of the bytes."""
    theirs, ours = call(UPSTREAM.dumps_typed, value), call(OURS.dumps_typed, value)
    assert ours.result() == theirs.result()
    assert set(ours.warned) == set(theirs.warned)
    if theirs.failure is None:
        check_bytes(theirs.value, ordinary=ordinary)


def check_bytes(typed: tuple[str, bytes], *, ordinary: bool = False) -> None:
    """Both serializers make the same of these bytes, unless upstream would crash over them."""
    data = typed[-1] if typed else None
    if serde._BELIEVES_LENGTHS and isinstance(data, bytes) and Codec.overstates(data):
        return
    theirs, ours = call(UPSTREAM.loads_typed, typed), call(OURS.loads_typed, typed)
    if ordinary:
        assert ours.everything() == theirs.everything()
    else:
        assert ours.result() == theirs.result()
