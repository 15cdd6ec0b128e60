"""What a reader loads in one call is what the serializer makes of each value by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import holdfast
import pytest
from holdfast._core import Core, Reader, Record, Write
from holdfast.serde import Serializer, loading
from hypothesis import example, given
from hypothesis import strategies as st
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from support.make import checkpoint, config
from support.serde_values import UPSTREAM, VALUES, Data, Model, Shade, call

Typed = tuple[str, bytes]


class Own(Serializer):
    """Reads in a way of its own."""

    def loads_typed(self, data: Typed) -> Any:
        return [data[0], super().loads_typed(data)]


class Writes(Serializer):
    """Writes in a way of its own, and reads as holdfast does."""

    def dumps_typed(self, obj: Any) -> Typed:
        return super().dumps_typed(obj)


SERIALIZERS: dict[str, Callable[[], SerializerProtocol]] = {
    "default": Serializer,
    "strict": lambda: Serializer(allowed_msgpack_modules=None),
    "some": lambda: Serializer(allowed_msgpack_modules=[Data]),
    "pickle": lambda: Serializer(pickle_fallback=True),
    "hook": lambda: Serializer(__unpack_ext_hook__=lambda code, data: (code, data)),
    "copied": lambda: Serializer(allowed_msgpack_modules=None).with_msgpack_allowlist([Data]),
    "own": Own,
    "writes": Writes,
    "upstream": JsonPlusSerializer,
}


def stored(typed: list[Typed]) -> tuple[Reader, Record, list[Write]]:
    """A checkpoint with these as its metadata, its channels, and as many writes."""
    core = Core(cache_bytes=0, compression="zstd")
    channels: Any = [(f"channel {at}", 1, each) for at, each in enumerate(typed)]
    draft = core.draft_checkpoint("t", "", "c", None, typed[0], typed[0], channels, [], None)
    beside = core.draft_writes("t", [("channel", "", each) for each in typed])
    reader = core.reader("t")
    reader.add([*draft.chunks, *beside.chunks])
    record = reader.record(draft.sealed[0])
    assert not reader.missing(record)
    writes = [reader.write(sealed) for sealed in beside.sealed]
    assert not reader.missing_writes(writes)
    return reader, record, writes


def alike(serde: SerializerProtocol, typed: list[Typed]) -> None:
    """Both ways give the same objects, errors, events and warnings."""
    reader, record, writes = stored(typed)
    typed = [each for _, each in reader.values(record)]

    def one_by_one(loads: Any) -> Any:
        return (
            loads(typed[0]),
            {f"channel {at}": loads(each) for at, each in enumerate(typed)},
            [loads(each) for each in typed[:1]],
            [loads(each) for each in typed[1:]],
        )

    def at_once(serde: Any) -> Any:
        return reader.load(record, writes[:1], writes[1:], loading(serde))

    assert call(at_once, serde).everything() == call(one_by_one, serde.loads_typed).everything()


@pytest.mark.parametrize("which", SERIALIZERS)
@given(values=st.lists(VALUES, min_size=1, max_size=6))
@example(values=[{"step": 1}, None, b"bytes", bytearray(b"x"), [1.5, "é"], Data(1), "x" * 3_000])
@example(values=[[Data(1), Model(value=Shade.DARK)], Shade.PAIR])
def test_any_values(which: str, values: list[Any]) -> None:
    typed = []
    for value in values:
        try:
            typed.append(UPSTREAM.dumps_typed(value))
        except Exception:  # noqa: BLE001 - what cannot be written is not read
            typed.append(("null", b""))
    alike(SERIALIZERS[which](), typed)


@pytest.mark.parametrize("which", SERIALIZERS)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["msgpack", "json", "null", "bytes", "bytearray", "odd"]),
            st.binary(max_size=150),
        ),
        min_size=1,
        max_size=4,
    )
)
@example([("msgpack", b"\x80"), ("msgpack", b"\xc1"), ("msgpack", b"\x01\x02")])
@example([("pickle", b"\x80\x04K\x01.")])
@example([("json", b'{"a": 1}'), ("odd+cipher", b"")])
def test_any_bytes(which: str, typed: list[Typed]) -> None:
    alike(SERIALIZERS[which](), typed)


def test_a_method_that_was_replaced_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    serde = Serializer()
    with holdfast.open("memory://", serde=serde) as saver:
        stored = saver.put(config(), checkpoint(1, {"a": 1}), {"step": 1}, {})
        asked: list[Typed] = []

        def loads_typed(data: Typed) -> Any:
            asked.append(data)
            return Serializer.loads_typed(serde, data)

        monkeypatch.setattr(serde, "loads_typed", loads_typed)
        found = saver.get_tuple(stored)
        assert found is not None
        assert found.checkpoint["channel_values"] == {"a": 1}
        assert ("msgpack", b"\x01") in asked
        monkeypatch.undo()
        monkeypatch.setattr(Serializer, "loads_typed", lambda self, data: {"v": 4, "is": data})
        found = saver.get_tuple(stored)
        assert found is not None
        assert found.checkpoint["channel_values"] == {"a": {"v": 4, "is": ("msgpack", b"\x01")}}
