"""Objects of every kind that upstream's hook knows, and of classes that only look like them."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import ipaddress
import pathlib
import random
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import ormsgpack
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Command, Interrupt, RetryPolicy, Send
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr
from pydantic import v1 as pydantic_v1

from support.serde_values import (
    UPSTREAM,
    Color,
    Data,
    Level,
    Listed,
    Mapped,
    Model,
    Number,
    Paired,
    Point,
    Raw,
    Real,
    Shade,
    Strict,
    Text,
    Unequal,
    call,
)


class Flags(enum.Flag):
    A = 1
    B = 2


class Bits(enum.IntFlag):
    A = 1
    B = 2


class Day(dt.date, enum.Enum):
    FIRST = (2020, 1, 1)


class OwnValue(enum.Enum):
    A = 1

    @property
    def value(self) -> str:
        return "own"


class OddMeta(enum.EnumMeta):
    pass


class OddNumber(int, enum.Enum, metaclass=OddMeta):
    FIVE = 5


class OddEnum(enum.Enum, metaclass=OddMeta):
    FIVE = 5


class NamedLikeMethods(enum.Enum):
    dict = 1
    model_dump = 2


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: Any
    b: Any = None


@dataclasses.dataclass(slots=True)
class Slotted:
    a: Any
    b: int = 2


@dataclasses.dataclass
class Inheriting(Data):
    more: Any = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Unset:
    a: int
    b: int = dataclasses.field(init=False)


@dataclasses.dataclass
class Checked:
    a: int

    def __post_init__(self) -> None:
        if self.a == 13:
            raise ValueError("unlucky")


@dataclasses.dataclass
class LikeSend:
    node: str
    arg: Any


@dataclasses.dataclass
class FieldDict:
    dict: Any = None


@dataclasses.dataclass
class MethodDict:
    a: int = 1

    def dict(self) -> dict[str, int]:
        return {"x": self.a}


@dataclasses.dataclass
class Answers:
    """Any question for an attribute reaches it."""

    a: int = 1

    def __getattr__(self, name: str) -> Any:
        if name == "model_dump":
            return lambda: {"z": 1}
        raise AttributeError(name)


@dataclasses.dataclass
class Disguised:
    a: int = 1

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return Data


@dataclasses.dataclass
class Computed:
    a: int = 1

    @property
    def b(self) -> int:
        return self.a + 1


Computed.__dataclass_fields__["b"] = dataclasses.fields(Data)[1]
Computed.__dataclass_fields__["b"].name = "other"
Computed.other = property(lambda self: self.a + 5)  # type: ignore[attr-defined]


class Triple(NamedTuple):
    a: int
    b: Any = "x"
    c: Any = None


class SubPoint(Point):
    extra = 1


class OwnAsDict(Point):
    def _asdict(self) -> dict[str, Any]:
        return {"own": 1}


class OwnIter(Point):
    def __iter__(self) -> Iterator[Any]:
        return iter((9, 8))


class SubUUID(uuid.UUID):
    pass


class SubDecimal(decimal.Decimal):
    pass


class SubSet(set[Any]):
    pass


class SubDeque(collections.deque[Any]):
    pass


class SubDateTime(dt.datetime):
    pass


class SubDate(dt.date):
    pass


class SubDelta(dt.timedelta):
    pass


class SubPath(type(pathlib.Path())):  # type: ignore[misc]
    pass


class SubZone(ZoneInfo):
    pass


class OwnZone(dt.tzinfo):
    def utcoffset(self, _: Any) -> dt.timedelta:
        return dt.timedelta(hours=1)

    def dst(self, _: Any) -> None:
        return None

    def tzname(self, _: Any) -> str:
        return "own"


class Aliased(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    value: Any = Field(default=None, alias="Value")
    secret: SecretStr = SecretStr("s")
    _hidden: int = PrivateAttr(default=3)


class Old(pydantic_v1.BaseModel):
    value: Any = None
    inner: Any = None


class OldRefusing(pydantic_v1.BaseModel):
    value: int = 1

    @pydantic_v1.validator("value")
    def check(cls, value: int) -> int:
        raise ValueError("refused")


BERLIN = ZoneInfo("Europe/Berlin")
SENDS: list[Any] = [Send("n", {"a": [1]}), Send("n", 1, timeout=5), Interrupt(value=[1], id="x")]
ENUMS: list[Any] = [
    *(Level.LOW, Color.RED, Shade.PAIR, Flags.A, Flags.A | Flags.B, Flags(0), Bits.A | Bits.B),
    *(Day.FIRST, OwnValue.A, OddNumber.FIVE, OddEnum.FIVE, *NamedLikeMethods),
]
MOMENTS: list[Any] = [
    dt.datetime(2020, 1, 1, 1, 2, 3, 4),
    dt.datetime(2020, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
    dt.datetime(2020, 10, 25, 2, 30, tzinfo=BERLIN),
    dt.datetime(2020, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-1, seconds=3))),
    dt.datetime(2020, 1, 1, tzinfo=OwnZone()),
    dt.date(1, 1, 1),
    dt.date.max,
    dt.time(1, 2, 3, 4, tzinfo=dt.timezone.utc, fold=1),
    dt.time(1, tzinfo=OwnZone()),
    dt.time(23, 59),
    dt.timedelta(days=-1, microseconds=5),
    dt.timezone(dt.timedelta(hours=1), "named"),
    dt.timezone.utc,
    *(ZoneInfo("UTC"), ZoneInfo.no_cache("Asia/Tokyo"), SubZone("UTC"), OwnZone()),
    *(SubDateTime(2020, 1, 1), SubDate(2020, 1, 1), SubDelta(1)),
]
ARRAYS: list[Any] = [
    *(np.arange(3), np.zeros((2, 3), order="F"), np.array(1.5), np.zeros((0,)), np.zeros((0, 2))),
    *(np.arange(24).reshape(2, 3, 4)[:, ::2], np.array([True, False]), np.array([1 + 2j])),
    *(np.array(["2020"], dtype="M8[D]"), np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])),
    *(np.array([object()]), np.ma.array([1, 2]), np.array(["a", "bc"]), np.array([b"x"])),
    *(np.arange(4, dtype=">i2"), np.float32(1), np.bool_(True), np.float64(2.5), np.int32(7)),
]
DATA: list[Any] = [
    *(Frozen(1), Frozen((1, {2})), Slotted([1]), Inheriting(1, 2, [3]), Unset(1), Checked(1)),
    *(LikeSend("n", [1]), FieldDict(), FieldDict(len), MethodDict(), Answers(), Disguised()),
    *(Computed(), Unequal(), RetryPolicy(), Data(Data(b"x"))),
    *(Triple(1), Triple(1, Point(2, [Data(1)])), SubPoint(1, 2), OwnAsDict(1, 2), OwnIter(1, 2)),
    *(Aliased(value=1), Aliased(Value={1}), Model(a=1, b=Shade.DARK), Strict(name="s")),
    *(Old(value=1), Old(inner=Old(value=[2])), OldRefusing.construct(value=1)),
]
OTHERS: list[Any] = [
    *(uuid.UUID(int=5), uuid.UUID(int=2**128 - 1), SubUUID(int=5)),
    *(decimal.Decimal("NaN"), decimal.Decimal("1E+5"), decimal.Decimal("-0.10"), SubDecimal("1")),
    *(SubSet({1}), SubDeque([1]), collections.deque([1, 2], 3), frozenset([1, (2, 3)])),
    *(pathlib.Path(), pathlib.Path("/"), pathlib.Path("/a//b/../c"), SubPath("a/b")),
    *(pathlib.PurePath("a"), re.compile("a(?P<x>b)", re.I | re.X), re.compile(b"x")),
    *(ipaddress.ip_address("::1"), ipaddress.ip_network("10.0.0.0/8"), SecretStr("s")),
    *(fractions.Fraction(1, 2), memoryview(b"abc"), memoryview(b"abcdef")[::2], bytearray(b"x")),
    *(memoryview(np.arange(6).reshape(2, 3)), _DeltaSnapshot([1]), Exception("odd", 1)),
    *(ormsgpack.Ext(5, b"abc"), ormsgpack.Ext(77, b""), ormsgpack.Ext(0, b"\xff")),
    *(Command(goto=[Send("a", 1)], update={"x": 1}, resume={1: 2}), Command()),
]
TYPED = [*SENDS, *ENUMS, *MOMENTS, *ARRAYS, *DATA, *OTHERS]
KEYS: list[Any] = [
    *(each for each in (*ENUMS, *MOMENTS) if each.__hash__),
    *(uuid.UUID(int=1), SubUUID(int=3), memoryview(b"ab"), (1, (Level.LOW, uuid.UUID(int=1)))),
    *((dt.date(2020, 1, 1), "x", "\ud800"), Text("\ud800"), Text("t"), Number(2**63)),
    *(Number(2**70), Real(1.0), Raw(b"x"), Point(1, 2), frozenset(), 1j, decimal.Decimal(1)),
    *(pathlib.Path("a"), Data, None, True, 1.5, b"x", float("nan"), "\ud800", 2**64),
    *(np.int64(3), np.float64(2.5), np.str_("x"), (None, True, b"", 2**64 - 1)),
]
"""What may stand as a key in a dict, taken by upstream or not."""


def is_taken(value: Any) -> bool:
    """Whether upstream writes a value, and reads it again."""
    typed = call(UPSTREAM.dumps_typed, value)
    return typed.failure is None and call(UPSTREAM.loads_typed, typed.value).failure is None


SOUND = [each for each in TYPED if is_taken([each]) and not isinstance(each, memoryview)]
"""What upstream takes, so that many of them stand in one value."""


def any_value(chance: random.Random, depth: int = 3) -> Any:
    """Some value that upstream takes."""
    if depth == 0 or chance.random() < 0.4:
        return chance.choice(LEAVES)(chance)
    inner = [any_value(chance, depth - 1) for _ in range(chance.randrange(4))]
    return chance.choice(WRAPS)(inner)


def _text(chance: random.Random) -> str:
    return "".join(chance.choices("aé日😀\0\ud800 xyz", k=chance.choice([0, 1, 3, 15, 16, 31, 40])))


LEAVES: list[Callable[[random.Random], Any]] = [
    lambda chance: chance.choice(SOUND),
    lambda chance: chance.choice(SOUND),
    _text,
    lambda chance: chance.choice([None, True, False]),
    lambda chance: chance.getrandbits(chance.choice([1, 7, 8, 16, 32, 63, 64])),
    lambda chance: -chance.getrandbits(chance.choice([1, 5, 8, 16, 32, 63])),
    lambda chance: chance.uniform(-1e9, 1e9),
    lambda chance: chance.randbytes(chance.choice([0, 1, 5, 300])),
    lambda chance: Text(_text(chance)),
    lambda chance: dt.datetime.fromtimestamp(chance.randrange(2**31), BERLIN),
    lambda chance: dt.timedelta(chance.randrange(-999, 999), chance.randrange(86400)),
    lambda chance: uuid.UUID(int=chance.getrandbits(128)),
    lambda chance: decimal.Decimal(chance.randrange(10**9)).scaleb(-3),
    lambda chance: set(chance.sample(range(100), 5)),
    lambda chance: pathlib.Path(*chance.choices("abc/", k=3)),
]
_PLAIN_KEYS = ("a", "日", "key", 1, -2, 1.5, None, True, b"k", (1, "x"), Level.LOW, Color.RED)
WRAPS: list[Callable[[list[Any]], Any]] = [
    *(list, tuple, Listed, Paired, collections.deque, _DeltaSnapshot),
    lambda inner: dict(zip(_PLAIN_KEYS[len(inner) :], inner, strict=False)),
    lambda inner: Mapped(enumerate(inner)),
    lambda inner: collections.OrderedDict(zip("xyz", inner, strict=False)),
    Data,
    lambda inner: Frozen(inner, inner),
    lambda inner: Slotted({"k": inner}),
    lambda inner: Triple(1, *inner[:2]),
    lambda inner: Send("n", inner),
    lambda inner: Interrupt(value=inner, id="i"),
    lambda inner: Command(update=inner),
    lambda inner: Model(value=inner),
    lambda inner: Old(value=inner),
]
WRAPS.remove(Paired)
