"""A draft of what was packed is the draft of its bytes, whatever was left out of it."""

from __future__ import annotations

from typing import Any

import pytest
from holdfast import MemorySaver, serde
from holdfast._core import Codec, Core, Draft
from holdfast.serde import Serializer
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.base import empty_checkpoint

SERDE = Serializer()
EMPTY = ("msgpack", b"\x80")


def draft(core: Core, number: int, messages: tuple[str, Any]) -> Draft:
    channels = [("messages", str(number), messages)]
    id, parent = f"{number:09}", f"{number - 1:09}" if number else None
    return core.draft_checkpoint("t", "", id, parent, EMPTY, EMPTY, channels, [], None)


def must_be_the_same(one: Draft, other: Draft) -> None:
    assert one.sealed == other.sealed
    assert one.chunks == other.chunks
    assert one.frontier == other.frontier


def text(number: int, size: int) -> dict[str, Any]:
    return {"number": number, "text": f"{number}" * size}


SIZES = st.one_of(
    st.integers(1, 400), st.integers(1000, 3000), st.sampled_from([8_100, 9_000, 70_000])
)


@given(st.lists(SIZES, min_size=8, max_size=30), st.lists(st.integers(0, 30), max_size=6))
def test_a_draft_is_the_same(sizes: list[int], places: list[int]) -> None:
    """Also where lists change at any place, and where the cache has what came before or nothing."""
    elements = [text(number, size) for number, size in enumerate(sizes)]
    packing, dumping = (Core(cache_bytes=1 << 20, compression="zstd") for _ in range(2))
    for number, place in enumerate([*places, 0, 0, 0]):
        elements = [*elements[:place], text(number, 300), *elements[place:]]
        one = draft(packing, number, SERDE.pack_typed(elements))
        other = draft(dumping, number, SERDE.dumps_typed(elements))
        must_be_the_same(one, other)
        if number % 3 < 2:
            one.acknowledge()
            other.acknowledge()


@pytest.fixture
def _new_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has met nothing."""
    monkeypatch.setattr(serde, "_codec", Codec(serde._CLASSES))


@pytest.mark.usefixtures("_new_codec")
def test_what_is_known_is_left_out() -> None:
    """From the third time on: what is met for the first time is not yet remembered."""
    elements: list[Any] = [text(number, 300) for number in range(20)]
    lengths = set()
    for known in (0, 0, 20):
        packed = SERDE.pack_typed(elements)[1]
        assert not isinstance(packed, bytes)
        assert packed.left_out == known
        lengths.add(len(packed))
    assert lengths == {len(SERDE.dumps_typed(elements)[1])}
    # What a cut does not make a leaf of its own is written, and what is deeper.
    for others in ([text(number, 100) for number in range(20)], [text(0, 9_000)] * 9, [elements]):
        for _ in range(4):
            packed = SERDE.pack_typed(others)[1]
            assert not isinstance(packed, bytes)
            assert packed.left_out == 0


@pytest.mark.usefixtures("_new_codec")
def test_what_is_missing_is_sent_from_what_was_left_out() -> None:
    """The bytes are those of the time of the call."""
    elements: list[Any] = [text(number, 300) for number in range(20)]
    for _ in range(3):
        typed = SERDE.pack_typed(elements)
    assert not isinstance(typed[1], bytes)
    assert typed[1].left_out == len(elements)
    core = Core(cache_bytes=1 << 20, compression="none")
    first = draft(core, 0, typed)
    first.acknowledge()
    second = draft(core, 1, typed)
    assert not second.chunks
    elements[0]["text"] = "changed"
    del elements[:]
    assert not second.resend([id for id, _ in first.chunks])
    assert dict(second.chunks) == dict(first.chunks)


@pytest.mark.parametrize("other", ["x", "y"])
def test_what_is_kept_is_sent_again_whatever_another_channel_held(other: str) -> None:
    """The other one's last value has pages in common with it, which its new value has no more."""

    def value(name: str) -> tuple[str, bytes]:
        return SERDE.dumps_typed(
            [{"at": f"{name}{n}", "text": f"{name}{n} " * 80} for n in range(40)]
        )

    core = Core(cache_bytes=1 << 20, compression="none")

    def drafted(id: str, parent_id: str | None, *values: Any) -> Draft:
        parent = None if parent_id is None else core.cached_record("t", "", parent_id)
        channels = [(name, str(len(id)), one) for name, one in zip("ab", values, strict=True)]
        return core.draft_checkpoint("t", "", id, parent_id, EMPTY, EMPTY, channels, [], parent)

    first = drafted("1", None, value("x"), value(other))
    kept = dict(first.chunks)
    first.acknowledge()
    second = drafted("22", "1", True, value("z"))
    lost = [id for id in second.frontier if id in kept]
    assert lost
    assert not second.resend(lost)
    sent = dict(second.chunks)
    assert not set(second.frontier) - sent.keys()
    assert sum(id in sent for id in kept) >= 40


@pytest.mark.parametrize("place", ["subclass", "instance", "class"])
def test_a_serializer_with_a_method_of_its_own_is_asked(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Own(Serializer):
        def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
            return own_dumps(self, obj)

    dumps_typed = Serializer.dumps_typed

    def own_dumps(self: Serializer, obj: Any) -> tuple[str, bytes]:
        asked.append(obj)
        return dumps_typed(self, obj)

    chosen: Serializer = Own()
    if place != "subclass":
        own, chosen = chosen, Serializer()
        if place == "instance":
            monkeypatch.setattr(chosen, "dumps_typed", own.dumps_typed)
        else:
            monkeypatch.setattr(Serializer, "dumps_typed", lambda _, obj: own_dumps(own, obj))
    with MemorySaver(serde=chosen) as saver:
        checkpoint = {
            **empty_checkpoint(),
            "channel_values": {"messages": ["hello"]},
            "channel_versions": {"messages": "1"},
        }
        config = {"configurable": {"thread_id": "1", "checkpoint_ns": ""}}
        saver.put(config, checkpoint, {}, {"messages": "1"})
    assert ["hello"] in asked
