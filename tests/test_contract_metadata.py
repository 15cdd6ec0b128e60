"""The saver contract, part two: metadata and serializers."""

from __future__ import annotations

import copy
import dataclasses
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import holdfast
import pytest
from holdfast.serde import Serializer
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from support.backends import Backend, opened
from support.calls import Calls
from support.make import checkpoint, config, version

# --- metadata


async def stored_metadata(calls: Calls, where: dict[str, Any], metadata: Any) -> dict[str, Any]:
    stored = await calls.put({**config(), **where}, checkpoint(1), metadata, {})  # type: ignore[typeddict-item]
    return dict((await calls.must_get(stored)).metadata)


async def test_metadata_wins_over_the_configs_metadata_and_that_over_configurable(
    calls: Calls,
) -> None:
    where = {
        "metadata": {"all": "config", "two": "config", "mine": "config"},
        "configurable": {
            **config()["configurable"],
            **{"all": "configurable", "two": "configurable", "only": "configurable"},
        },
    }
    assert await stored_metadata(calls, where, {"step": 1, "all": "metadata"}) == {
        "step": 1,
        "all": "metadata",
        "two": "config",
        "mine": "config",
        "only": "configurable",
    }


async def test_only_plain_values_are_merged(calls: Calls) -> None:
    merged = {"text": "x", "int": 1, "float": 1.5, "bool": False}
    where = {"metadata": {**merged, "list": [1], "dict": {}, "none": None, "bytes": b"x"}}
    assert await stored_metadata(calls, where, {"step": 1}) == {"step": 1, **merged}


async def test_langgraphs_own_keys_are_not_merged(calls: Calls) -> None:
    own = {
        "thread_id": "x",
        "checkpoint_id": "x",
        "checkpoint_ns": "x",
        "checkpoint_map": "x",
        "langgraph_step": 1,
        "langgraph_node": "x",
        "langgraph_triggers": "x",
        "langgraph_path": "x",
        "langgraph_checkpoint_ns": "x",
        "__pregel_task_id": "x",
    }
    assert await stored_metadata(calls, {"metadata": own}, {"step": 1}) == {"step": 1}


async def test_nul_goes_from_top_level_text_only(calls: Calls) -> None:
    where = {"metadata": {"merged": "a\x00b"}}
    metadata = {"step": 1, "top": "a\x00b", "nested": {"deep": ["a\x00b"], "k\x00": 1}}
    assert await stored_metadata(calls, where, metadata) == {
        "step": 1,
        "top": "ab",
        "merged": "ab",
        "nested": {"deep": ["a\x00b"], "k\x00": 1},
    }


async def test_metadata_keeps_its_values(calls: Calls) -> None:
    metadata = {
        "step": -2,
        "source": "update",
        "parents": {"": "1", "sub:1": "2"},
        "none": None,
        "mixed": [1, 2.5, True, None, {"a": ["é😀"]}],
        "counters_since_delta_snapshot": {"m": [1, 2]},
        "key with : % { }": "x",
    }
    assert await stored_metadata(calls, {}, metadata) == metadata


# --- serializers


class Recording(JsonPlusSerializer):
    """Tells when it is used."""

    def __init__(self) -> None:
        super().__init__()
        self.dumped: list[Any] = []
        self.loaded: list[Any] = []

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        self.dumped.append(obj)
        return super().dumps_typed(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        value = super().loads_typed(data)
        self.loaded.append(value)
        return value


async def put_one(calls: Calls, values: dict[str, Any], number: int = 1) -> None:
    made = checkpoint(number, values)
    stored = await calls.put(config(), made, {"step": 1}, made["channel_versions"])
    await calls.put_writes(stored, list(values.items()), "task")


async def values_of(calls: Calls) -> Any:
    """The head's values, which its writes must equal."""
    found = await calls.must_get(config())
    values = found.checkpoint["channel_values"]
    assert {channel: value for _, channel, value in found.pending_writes or []} == values
    return values


async def test_a_serde_assigned_later_is_used_by_every_call(calls: Calls) -> None:
    await put_one(calls, {"a": "before"})
    serde = Recording()
    calls.saver.serde = serde
    assert await values_of(calls) == {"a": "before"}
    assert serde.loaded.count("before") == 2
    await put_one(calls, {"a": "after"}, 2)
    assert serde.dumped.count("after") == 2
    assert await values_of(calls) == {"a": "after"}


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


async def test_an_encrypted_serde_assigned_later_is_honoured(calls: Calls, tmp_path: Path) -> None:
    await put_one(calls, {"a": "open"})
    calls.saver.serde = EncryptedSerializer.from_pycryptodome_aes(key=b"k" * 16)
    assert await values_of(calls) == {"a": "open"}
    secret = "b4rely-r3peating-s3cret"
    await put_one(calls, {"a": secret}, 2)
    assert await values_of(calls) == {"a": secret}
    assert not any(secret.encode() in content for content in contents(tmp_path))
    calls.saver.serde = EncryptedSerializer.from_pycryptodome_aes(key=b"x" * 16)
    with pytest.raises(Exception, match=r".") as caught:
        await calls.get_tuple(config())
    assert isinstance(caught.value, (ValueError, holdfast.HoldfastError))


async def test_the_same_value_under_two_serdes_is_stored_twice(calls: Calls) -> None:
    """What one serializer wrote is never taken for what another would write."""
    value = ["the same value " * 50]
    await put_one(calls, {"a": value})
    calls.saver.serde = EncryptedSerializer.from_pycryptodome_aes(key=b"k" * 16)
    await put_one(calls, {"a": value}, 2)
    calls.saver.serde = JsonPlusSerializer()
    with pytest.raises(Exception, match=r"aes"):
        await calls.get_tuple(config())


@pytest.mark.parametrize("is_reversed", [False, True], ids=["theirs first", "ours first"])
async def test_either_serializer_reads_what_the_other_wrote(
    calls: Calls, is_reversed: bool
) -> None:
    messages = [HumanMessage(f"{number} " * 200, id=str(number)) for number in range(20)]
    value = [*messages, {"at": datetime(2024, 1, 1, tzinfo=timezone.utc), "tags": {"a", "b"}}]
    serdes = [JsonPlusSerializer(), Serializer()]
    writes, reads = reversed(serdes) if is_reversed else serdes
    calls.saver.serde = writes
    await put_one(calls, {"a": value})
    calls.saver.serde = reads
    assert await values_of(calls) == {"a": value}
    await put_one(calls, {"a": value[:10]}, 2)
    calls.saver.serde = writes
    assert await values_of(calls) == {"a": value[:10]}


async def test_pickle_is_used_where_it_is_allowed(
    backend: Backend, mode: str, tmp_path: Path
) -> None:
    serde = JsonPlusSerializer(pickle_fallback=True)
    async with opened(backend, tmp_path, mode, serde=serde) as calls:
        await put_one(calls, {"a": 1 + 2j, "b": {"deep": 3j}})
        assert await values_of(calls) == {"a": 1 + 2j, "b": {"deep": 3j}}


class OnlyBytes:
    """A serializer of the older kind, which gives no type."""

    def dumps(self, obj: Any) -> bytes:
        return b"mine:" + json.dumps(obj).encode()

    def loads(self, data: bytes) -> Any:
        assert data.startswith(b"mine:")
        return json.loads(data.removeprefix(b"mine:"))


async def test_a_serde_without_types_works(backend: Backend, mode: str, tmp_path: Path) -> None:
    async with opened(backend, tmp_path, mode, serde=OnlyBytes()) as calls:
        await put_one(calls, {"a": [1, None], "b": "x" * 100_000})
        made = checkpoint(2, {"a": [2]}, {"a": version(2), "b": version(1)})
        await calls.put((await calls.must_get(config())).config, made, {}, {"a": version(2)})
        found = await calls.must_get(config())
        assert found.checkpoint["channel_values"] == {"a": [2], "b": "x" * 100_000}


@dataclasses.dataclass
class Ours:
    number: int


async def test_with_allowlist_is_a_clone_on_the_same_store(
    backend: Backend, mode: str, tmp_path: Path
) -> None:
    serde = JsonPlusSerializer(allowed_msgpack_modules=None)
    async with opened(backend, tmp_path, mode, serde=serde) as calls:
        clone = calls.saver.with_allowlist([(Ours.__module__, "Ours")])
        assert clone is not calls.saver
        assert isinstance(clone, holdfast.Saver)
        wide = Calls(clone, mode)
        await put_one(wide, {"a": Ours(1)})
        assert await values_of(wide) == {"a": Ours(1)}
        assert await values_of(calls) == {"a": {"number": 1}}, "the original stays strict"
        await put_one(calls, {"a": Ours(2)}, 2)
        assert await values_of(wide) == {"a": Ours(2)}


async def test_a_deep_copy_is_on_the_same_store(calls: Calls) -> None:
    """As of a graph that is copied with its saver."""
    copied = Calls(copy.deepcopy(calls.saver), calls.mode)
    await put_one(copied, {"a": 1})
    assert await values_of(calls) == {"a": 1}


# --- values that cannot be stored


class Unknown:
    """Nothing that a serializer knows."""


async def test_a_value_that_cannot_be_serialized_names_its_channel_and_stores_nothing(
    calls: Calls,
) -> None:
    bad = checkpoint(1, {"fine": ["x" * 1000], "culprit": [Unknown()], "other": 1})
    with pytest.raises(TypeError, match="culprit"):
        await calls.put(config(), bad, {"step": 1}, bad["channel_versions"])
    assert await calls.get_tuple(config()) is None
    assert await calls.ids(None) == []
    await put_one(calls, {"fine": ["x" * 1000], "culprit": "now well"})
    assert await values_of(calls) == {"fine": ["x" * 1000], "culprit": "now well"}


async def test_a_failed_put_leaves_an_earlier_put_of_the_id_as_it_was(calls: Calls) -> None:
    await put_one(calls, {"a": 1})
    bad = checkpoint(1, {"a": Unknown()})
    with pytest.raises(TypeError, match=r"['\"`]a['\"`]"):
        await calls.put(config(), bad, {"step": 2}, bad["channel_versions"])
    assert await values_of(calls) == {"a": 1}


async def test_a_write_that_cannot_be_serialized_names_its_channel_and_stores_nothing(
    calls: Calls,
) -> None:
    stored = await calls.put(config(), checkpoint(1), {}, {})
    with pytest.raises(TypeError, match="culprit"):
        await calls.put_writes(stored, [("fine", 1), ("culprit", Unknown())], "task")
    assert (await calls.must_get(stored)).pending_writes == []
