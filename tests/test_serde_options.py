"""The serializer's options, events and copies; threads, re-entrance; no Python while it runs."""

from __future__ import annotations

import copy
import gc
import json
import os
import pickle
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ormsgpack
import pytest
from holdfast._core import Codec
from holdfast.serde import _CLASSES, Serializer
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from pydantic import BaseModel, SecretStr, field_validator
from support.serde_values import OURS, UPSTREAM, Data, Model, Shade, Strict, call, describe

TESTS = Path(__file__).parent


class Reenters(BaseModel):
    """Decodes and encodes while it is built."""

    packed: bytes

    @field_validator("packed")
    @classmethod
    def again(cls, packed: bytes) -> bytes:
        assert OURS.loads_typed(("msgpack", packed)) == UPSTREAM.loads_typed(("msgpack", packed))
        assert OURS.dumps_typed(chat(4)) is not None
        return packed


def chat(count: int) -> list[BaseMessage]:
    """Messages as an agent with a tool makes them."""
    made: list[BaseMessage] = []
    for number in range(count):
        kind, id_ = number % 4, str(uuid.UUID(int=number))
        about = {"model_name": "scripted-1", "finish_reason": "stop"}
        if kind == 0:
            made.append(HumanMessage(f"question {number} " * 20, id=id_))
        elif kind == 1:
            calls = [
                {"name": "search", "args": {"query": id_, "limit": number}, "id": f"c{number}"}
            ]
            usage = {"input_tokens": number, "output_tokens": 2, "total_tokens": number + 2}
            made.append(
                AIMessage(
                    "",
                    id=id_,
                    tool_calls=calls,
                    usage_metadata=usage,  # type: ignore[arg-type]
                    response_metadata=about,
                )
            )
        elif kind == 2:
            made.append(ToolMessage("found " * 50, tool_call_id=f"c{number - 1}", name="s", id=id_))
        else:
            made.append(AIMessage("answer " * 40, id=id_, response_metadata=about))
    return made


ORDINARY: dict[str, Any] = {
    "data": [Data(1), {"a": Data(Data(2))}, Data(3)],
    "model": [Model(value=[Strict(name="n", inner=Model())]), Strict(name="m")],
    "enum": {"one": Shade.DARK, "two": [Shade.PAIR, Shade.DARK]},
    "in arguments": HumanMessage("x", additional_kwargs={"a": Shade.DARK, "b": SecretStr("s")}),
    "in an artifact": ToolMessage("x", tool_call_id="c", artifact=[Shade.DARK, {"k": Shade.PAIR}]),
    "in a parsed message": AIMessage(
        "x", additional_kwargs={"tool_calls": [], "more": Shade.DARK}, response_metadata={"a": 1}
    ),
    "in a snapshot": _DeltaSnapshot(
        [Data(1), HumanMessage("x", additional_kwargs={"e": Shade.DARK})]
    ),
    "beside a tuple key": [Data(1), {(1, 2): Data(2)}],
    "beside deep lists": [Data(1), json.loads("[" * 120 + "]" * 120), Data(2)],
    "chat": chat(8),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "all": {"allowed_msgpack_modules": True},
    "strict": {"allowed_msgpack_modules": None},
    "empty": {"allowed_msgpack_modules": ()},
    "some": {"allowed_msgpack_modules": [Data, ("support.serde_values", "Shade")]},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("which", ORDINARY)
def test_events_and_warnings(which: str, options: str) -> None:
    typed = UPSTREAM.dumps_typed(ORDINARY[which])
    theirs = JsonPlusSerializer(**OPTIONS[options])
    ours = Serializer(**OPTIONS[options])
    for _ in range(2):
        assert (
            call(ours.loads_typed, typed).everything()
            == call(theirs.loads_typed, typed).everything()
        )


@pytest.mark.parametrize("which", ["model", "enum", "in an artifact"])
def test_events_of_the_first_of_a_shape(which: str) -> None:
    """A first object may be made twice to compare, but is read once."""
    typed = UPSTREAM.dumps_typed(ORDINARY[which])
    codec = Codec(_CLASSES)
    theirs = call(UPSTREAM.loads_typed, typed)
    ours = call(lambda typed: codec.decode(typed[1], OURS._unpack_ext_hook, None), typed)
    assert ours.everything() == theirs.everything()


def test_with_msgpack_allowlist() -> None:
    typed = UPSTREAM.dumps_typed([Data(1), Shade.DARK, Model()])
    theirs, ours = (kind(allowed_msgpack_modules=None) for kind in (JsonPlusSerializer, Serializer))
    for extra in ([Data], [Data, Model], [("support.serde_values", "Shade")], []):
        wider, widened = (one.with_msgpack_allowlist(extra) for one in (ours, theirs))
        assert type(wider) is Serializer
        assert (wider is ours) == (widened is theirs)
        assert call(wider.loads_typed, typed).everything() == (
            call(widened.loads_typed, typed).everything()
        )
        assert call(ours.loads_typed, typed).events == call(theirs.loads_typed, typed).events


def test_copies() -> None:
    strict = Serializer(allowed_msgpack_modules=[Data], pickle_fallback=True)
    typed = UPSTREAM.dumps_typed([Data(1), Shade.DARK])
    copied = copy.copy(strict)
    assert type(copied) is Serializer
    assert copied.dumps_typed(3 + 4j) == ("pickle", pickle.dumps(3 + 4j))
    assert call(copied.loads_typed, typed).everything() == (
        call(strict.loads_typed, typed).everything()
    )


def test_strict_by_environment() -> None:
    program = """
from holdfast.serde import Serializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from support.serde_values import Data, Shade, call
from langchain_core.messages import HumanMessage
typed = JsonPlusSerializer().dumps_typed([Data(1), Shade.DARK, HumanMessage("x")])
ours, theirs = call(Serializer().loads_typed, typed), call(JsonPlusSerializer().loads_typed, typed)
assert ours.everything() == theirs.everything()
assert [event["kind"] for event in ours.events] == ["msgpack_blocked"] * 2
assert type(ours.value[0]) is dict and type(ours.value[2]) is HumanMessage
"""
    environment = {**os.environ, "LANGGRAPH_STRICT_MSGPACK": "true"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=TESTS,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_custom_hook() -> None:
    def heard(kind: type[JsonPlusSerializer]) -> tuple[Any, Any]:
        calls: list[tuple[int, bytes]] = []

        def hook(code: int, data: bytes) -> Any:
            calls.append((code, data))
            return ormsgpack.unpackb(data, ext_hook=hook, option=ormsgpack.OPT_NON_STR_KEYS)

        value = kind(__unpack_ext_hook__=hook).loads_typed(UPSTREAM.dumps_typed(chat(5)))
        return describe(value), calls

    assert heard(Serializer) == heard(JsonPlusSerializer)


@pytest.mark.parametrize("value", [3 + 4j, [chat(2), 2**70], {"a": object}, {1j: 2}], ids=repr)
def test_pickle_fallback(value: Any) -> None:
    ours, theirs = (kind(pickle_fallback=True) for kind in (Serializer, JsonPlusSerializer))
    assert call(ours.dumps_typed, value).result() == call(theirs.dumps_typed, value).result()
    typed = theirs.dumps_typed(value)
    assert typed[0] == "pickle"
    assert describe(ours.loads_typed(typed)) == describe(theirs.loads_typed(typed))
    assert call(OURS.loads_typed, typed).result() == call(UPSTREAM.loads_typed, typed).result()
    assert call(OURS.dumps_typed, value).result() == call(UPSTREAM.dumps_typed, value).result()


def test_encrypted() -> None:
    ours, theirs = (
        EncryptedSerializer.from_pycryptodome_aes(serde=serde, key=b"k" * 16)
        for serde in (OURS, UPSTREAM)
    )
    for value in (chat(4), None, b"b", {"a": 1}):
        for writer, reader in ((ours, theirs), (theirs, ours)):
            typed = writer.dumps_typed(value)
            assert typed[0] == UPSTREAM.dumps_typed(value)[0] + "+aes"
            expected = UPSTREAM.loads_typed(UPSTREAM.dumps_typed(value))
            assert describe(reader.loads_typed(typed)) == describe(expected)


@pytest.mark.parametrize("allowed", [None, True, [("support.serde_values", "Data")]])
def test_json(allowed: Any) -> None:
    for path in (["support.serde_values", "Data"], ["langchain_core", "messages", "human", "X"]):
        value = {"lc": 2, "type": "constructor", "id": path, "kwargs": {"value": 1}}
        typed = ("json", json.dumps([value, {"a": 1}]).encode())
        ours, theirs = (
            call(kind(allowed_json_modules=allowed).loads_typed, typed)
            for kind in (Serializer, JsonPlusSerializer)
        )
        assert ours.everything() == theirs.everything()


@pytest.fixture
def eager_switches() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("eager_switches")
def test_threads_that_learn_at_once() -> None:
    values = [chat(4), ORDINARY["in an artifact"], [Data(1), *chat(2)], {"a": {"b": [chat(3)]}}]
    expected = [UPSTREAM.dumps_typed(value)[1] for value in values]
    described = [describe(UPSTREAM.loads_typed(("msgpack", packed))) for packed in expected]
    for _ in range(5):
        codec = Codec(_CLASSES)
        barrier = threading.Barrier(8)

        def work(number: int, codec: Codec = codec, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            for step in range(20):
                at = (number + step) % len(values)
                assert codec.encode(values[at]) == expected[at]
                value = codec.decode(expected[at], OURS._unpack_ext_hook, None)
                assert describe(value) == described[at]

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))


def test_reentrance() -> None:
    packed = UPSTREAM.dumps_typed([chat(4), {"a": Shade.DARK}])[1]
    value = [chat(1), {"key": Reenters(packed=packed)}, {"key": chat(3)}]
    typed = OURS.dumps_typed(value)
    assert typed == UPSTREAM.dumps_typed(value)
    assert describe(OURS.loads_typed(typed)) == describe(UPSTREAM.loads_typed(typed))


def profiled(work: Callable[[Any], Any], argument: Any) -> list[str]:
    """The Python functions that are entered meanwhile."""
    entered: list[str] = []

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            entered.append(frame.f_code.co_name)

    gc.disable()
    sys.setprofile(note)
    try:
        work(argument)
    finally:
        sys.setprofile(None)
        gc.enable()
    return entered


def check_quiet() -> None:
    value = {"messages": chat(12), "step": 3, "more": [1.5, None, True, "x", b"b", -7]}
    for _ in range(2):
        typed = OURS.dumps_typed(value)
        OURS.loads_typed(typed)
    assert profiled(OURS.dumps_typed, value) == ["dumps_typed"]
    assert profiled(OURS.loads_typed, typed) == ["loads_typed"]


def test_no_python_for_a_chat() -> None:
    check_quiet()
    assert len(profiled(UPSTREAM.loads_typed, UPSTREAM.dumps_typed(chat(1)))) > 3


ODD_FIRST = """
import test_serde_options as options
for message in options.chat(4):
    about = dict(message.response_metadata or {}, score=1.0)
    odd = message.model_copy(update={"response_metadata": about})
    {change}
    options.OURS.loads_typed(options.OURS.dumps_typed(odd))
    usual = message.model_copy(update={"response_metadata": about | {"score": 2.0}})
    typed = options.OURS.dumps_typed(usual)
    options.OURS.loads_typed(typed)
    assert options.profiled(options.OURS.dumps_typed, usual) == ["dumps_typed"], message
    assert options.profiled(options.OURS.loads_typed, typed) == ["loads_typed"], message
"""


@pytest.mark.parametrize(
    "change",
    ["pass", "about['score'] = float('nan')", "odd.__dict__['id'] = odd.__dict__.pop('id')"],
    ids=["usual", "nan", "moved"],
)
def test_an_odd_first_object_does_not_slow_those_after_it(change: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ODD_FIRST.replace("{change}", change)],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
