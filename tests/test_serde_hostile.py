"""Bytes that no serializer wrote: what upstream makes of them, or its failure, never a crash."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import ormsgpack
import pytest
from holdfast import serde
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import _msgpack_enc
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from support.serde_values import OURS, UPSTREAM, VALUES, Data, Shade, call, check_bytes, describe

USAGE = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
MESSAGES: list[Any] = [
    HumanMessage(["a", {"type": "text", "text": "b"}], id="1"),
    AIMessage(
        "é" * 40,
        id="2",
        tool_calls=[{"name": "n", "args": {"a": [1, 2.5]}, "id": "c"}],
        usage_metadata={**USAGE, "input_token_details": {"cache_read": 1}},  # type: ignore[arg-type]
        response_metadata={"a": None},
    ),
    ToolMessage("x", tool_call_id="c", artifact={"d": Shade.DARK, "s": {1}}),
    Document("text", metadata={"k": [1]}),
]
VALUE = [*MESSAGES, _DeltaSnapshot([1, MESSAGES[0]]), Data((1, 2)), {"a": -1, 2: b"b", None: 1e9}]
PACKED = UPSTREAM.dumps_typed(VALUE)[1]
# Before the shapes are learned and after it.
OURS.loads_typed(("msgpack", PACKED))
CODES = range(-2, 9)
# Releases before 1.13 believe a container's length, and crash where there is no memory.
BELIEVES_LENGTHS = tuple(map(int, ormsgpack.__version__.split(".")[:2])) < (1, 13)


def packed(*parts: Any) -> bytes:
    """Bytes as they are, other values packed, one behind the other."""
    return b"".join(part if isinstance(part, bytes) else _msgpack_enc(part) for part in parts)


def ext(code: int, payload: bytes) -> bytes:
    return b"\xc9" + len(payload).to_bytes(4, "big") + (code & 0xFF).to_bytes(1, "big") + payload


def record(message: Any, fields: bytes, *, head: bytes = b"\x94", tail: bytes = b"\xa1m") -> bytes:
    """The bytes of a model of this message's class, with these fields."""
    kind = type(message)
    return ext(5, packed(head, kind.__module__, kind.__name__, fields, tail))


def fields(message: Any, **changes: Any) -> bytes:
    return packed({**message.model_dump(), **changes})


def test_truncated_at_each_offset() -> None:
    for end in range(len(PACKED)):
        check_bytes(("msgpack", PACKED[:end]))


@pytest.mark.parametrize("mask", [0x01, 0x10, 0x40, 0x80, 0xFF])
def test_each_byte_changed(mask: int) -> None:
    for at in range(len(PACKED)):
        changed = bytearray(PACKED)
        changed[at] ^= mask
        check_bytes(("msgpack", bytes(changed)))


@given(st.data())
def test_changed_bytes_of_any_value(data: st.DataObject) -> None:
    typed = call(UPSTREAM.dumps_typed, data.draw(VALUES))
    if typed.failure is not None:
        return
    tag, whole = typed.value
    changed = bytearray(whole or b"\0")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed)))
        length = data.draw(st.integers(0, 4))
        changed[at : at + length] = data.draw(st.binary(max_size=4))
    check_bytes((tag, bytes(changed)))


@given(st.binary(max_size=60))
def test_random_bytes(data: bytes) -> None:
    check_bytes(("msgpack", data))
    for code in CODES:
        check_bytes(("msgpack", ext(code, data)))


@pytest.mark.parametrize("first", range(256))
def test_each_first_byte(first: int) -> None:
    if BELIEVES_LENGTHS and first in {0xDD, 0xDF}:
        pytest.skip("this release of ormsgpack crashes")
    for rest in (b"", b"\0", b"\0" * 9, b"\xff" * 9, b"\x01\x05\xc0", b"\xa1a" * 9):
        marker = bytes([first]) + rest
        for whole in (marker, b"\x91" + marker, b"\x81" + marker + b"\xc0", b"\x81\xa1k" + marker):
            check_bytes(("msgpack", whole))
            check_bytes(("msgpack", ext(7, whole)))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
class TestRecords:
    def test_trailing_bytes(self, message: Any) -> None:
        for tail in (b"", b"\xa1m\xc0", b"\xc1", b"\xa1\xff", b"\x81\x81\x01\x01\x01", b"\xc0"):
            check_bytes(("msgpack", record(message, fields(message), tail=tail)))
        for tail in (
            b"\x91" * 2000 + b"\xc0",
            ext(0, b"\xff"),
            ext(0, packed(["os", "getpid", []])),
        ):
            check_bytes(("msgpack", record(message, fields(message), tail=tail)), ordinary=True)
        check_bytes(("msgpack", record(message, fields(message)) + b"\xc0"))

    def test_number_of_elements(self, message: Any) -> None:
        for head, tail in ((b"\x93", b""), (b"\x95", b"\xa1m\xc0"), (b"\xdc\0\4", b"\xa1m")):
            check_bytes(("msgpack", record(message, fields(message), head=head, tail=tail)))

    def test_method(self, message: Any) -> None:
        for method in ("model_validate", "", 5, None, ["model_validate_json"], {"a": 1}):
            check_bytes(("msgpack", record(message, fields(message), tail=packed(method))))

    def test_order_of_fields(self, message: Any) -> None:
        table = message.model_dump()
        for name in table:
            moved = {key: value for key, value in table.items() if key != name}
            check_bytes(("msgpack", record(message, packed({name: table[name], **moved}))))
            check_bytes(("msgpack", record(message, packed({**moved, name: table[name]}))))
            check_bytes(("msgpack", record(message, packed(moved))))

    def test_unknown_fields(self, message: Any) -> None:
        for name in ("foo", "__class__", "self", "", "\0"):
            check_bytes(("msgpack", record(message, fields(message, **{name: 1}))))

    @pytest.mark.parametrize(
        "value", [None, 5, "x", [], {}, [5], {"a": 1}, {5: 6}, b"x", 1.5], ids=repr
    )
    def test_values_of_fields(self, message: Any, value: Any) -> None:
        for name in message.model_dump():
            check_bytes(("msgpack", record(message, fields(message, **{name: value}))))

    def test_duplicate_fields(self, message: Any) -> None:
        table = message.model_dump()
        pairs = b"".join(packed(name, table[name]) for name in table)
        first = next(iter(table))
        for count, extra in ((0, b""), (1, packed(first, "again")), (1, packed("type", "x"))):
            head = b"\xde" + (len(table) + count).to_bytes(2, "big")
            check_bytes(("msgpack", record(message, head + pairs + extra)))
        last = packed(list(table)[-1], table[list(table)[-1]])
        twice = pairs[: -len(last)] + packed(first, "again")
        check_bytes(("msgpack", record(message, b"\xde\0" + bytes([len(table)]) + twice)))

    def test_names_that_are_no_text(self, message: Any) -> None:
        for name in message.model_dump():
            text, body = ormsgpack.packb(name), name.encode()
            size = bytes([len(body)])
            for other in (b"\xc4", b"\xd9", b"\xc7"):
                key = other + size + (b"\x05" if other == b"\xc7" else b"") + body
                changed = fields(message).replace(text, key, 1)
                check_bytes(("msgpack", record(message, changed)))

    def test_class_names(self, message: Any) -> None:
        kind = type(message)
        for module, name in (
            (kind.__module__, "BaseMessage"),
            (kind.__module__, "Missing"),
            ("langchain_core.messages", kind.__name__),
            (kind.__module__.encode(), kind.__name__),
            (kind.__module__, kind.__name__.encode()),
            (None, kind.__name__),
        ):
            whole = b"\x94" + ormsgpack.packb(module) + ormsgpack.packb(name) + fields(message)
            check_bytes(("msgpack", ext(5, whole + b"\xa1m")))
            check_bytes(("msgpack", ext(4, whole + b"\xa1m")))


def test_lengths_that_upstream_believes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Releases of ormsgpack before 1.13 would crash."""
    monkeypatch.setattr(serde, "_BELIEVES_LENGTHS", True)
    for lying in (b"\xdd\xff\xff\xff\xff\xc0", b"\x91\xdd\x7f\xff\xff\xff\x01"):
        for whole in (lying, ext(0, packed(b"\x93", "builtins", "set", lying)), ext(7, lying)):
            with pytest.raises(ValueError, match="unexpected end of file"):
                OURS.loads_typed(("msgpack", whole))
    assert describe(OURS.loads_typed(("msgpack", PACKED))) == (
        describe(UPSTREAM.loads_typed(("msgpack", PACKED)))
    )


def test_duplicate_keys() -> None:
    for keys in ([b"\xa1a", b"\xd9\x01a"], [b"\x01", b"\xc3"], [b"\x01", b"\xcb?\xf0" + b"\0" * 6]):
        for order in (keys, keys[::-1]):
            check_bytes(("msgpack", b"\x82" + order[0] + b"\x07" + order[1] + b"\x08"))


@pytest.mark.parametrize(
    "tag", ["msgpack", "json", "null", "bytes", "bytearray", "pickle", "x", ""]
)
def test_tags_and_kinds_of_data(tag: str) -> None:
    for data in (b"", b"\xc0", bytearray(b"\x91\xc0"), memoryview(b"\x91\xc0"), "\x01", None, 5):
        check_bytes((tag, data))  # type: ignore[arg-type]
    for odd in (None, (tag,), (tag, b"\xc0", 1), [tag, b"\xc0"]):
        check_bytes(odd)  # type: ignore[arg-type]


LOADER = """
import json, resource, sys
from holdfast.serde import Serializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

def ext(codes):
    # From the inside out, without copying the whole at each level.
    size, parts = 1, [b"\\xc0"]
    for code in codes:
        parts.append(b"\\xc9" + size.to_bytes(4, "big") + bytes([code]))
        size += 6
    return b"".join(reversed(parts))

kind = sys.argv[1]
makers = {
    "arrays": lambda count: b"\\x91" * count + b"\\xc0",
    "maps": lambda count: b"\\x81\\x00" * count + b"\\xc0",
    "map keys": lambda count: b"\\x81" * count + b"\\xc0" * (count + 1),
    "snapshots": lambda count: ext([7] * count),
    "models": lambda count: ext([5] * count),
    "mixed": lambda count: ext([0, 1, 2, 3, 4, 5, 6, 7] * (count // 8)),
    "long arrays": lambda count: b"\\xdd\\xff\\xff\\xff\\xff" * 100 + b"\\xc0" * count,
    "long maps": lambda count: b"\\xdf\\xff\\xff\\xff\\xff\\x00" * 100 + b"\\xc0" * count,
    "long text": lambda count: b"\\x91\\xdb\\xff\\xff\\xff\\xff" + b"a" * count,
    "many arrays": lambda count: b"\\xdd\\xff\\xff\\xff\\x00" * count,
}
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
for count in map(int, sys.argv[2:]):
    data = makers[kind](count)
    if "many" in kind or "long" in kind:
        # What it takes is bounded by a multiple of the input, whatever the lengths say.
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        limit = used + 64 * len(data) + (256 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    for serializer in (Serializer(), JsonPlusSerializer()):
        try:
            value, failure = serializer.loads_typed(("msgpack", data)), None
        except Exception as error:
            value, failure = None, [type(error).__name__, str(error)]
        print(json.dumps([failure, type(value).__name__]), flush=True)
"""


SHALLOW = (90, 100, 101, 102, 900, 1021, 1022, 1023)


@pytest.mark.parametrize("counts", [SHALLOW, (100_000,), (10_000_000,)], ids=lambda each: each[-1])
@pytest.mark.parametrize(
    "kind",
    [
        *("arrays", "maps", "map keys", "snapshots", "models", "mixed"),
        *("long arrays", "long maps", "long text", "many arrays"),
    ],
)
def test_deep_and_lying(kind: str, counts: tuple[int, ...]) -> None:
    if counts[0] > 100_000 and not kind.startswith("long"):
        pytest.skip("nothing new beyond 100,000 levels")
    if BELIEVES_LENGTHS and kind in {"long arrays", "long maps", "many arrays"}:
        pytest.skip("this release of ormsgpack crashes")
    done = subprocess.run(
        [sys.executable, "-c", LOADER, kind, *map(str, counts)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for count, ours, theirs in zip(counts, lines[::2], lines[1::2], strict=True):
        if count < 500 or kind not in {"snapshots", "models", "mixed"}:
            # Beyond, Python's own limit decides, which depends on the depth of the caller.
            assert ours == theirs, count
