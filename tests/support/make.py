"""Checkpoints to put, as Pregel would make them, and a plain form of what is read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointTuple
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from support.calls import Calls


def checkpoint_id(number: int) -> str:
    """Ids of the form that LangGraph makes, in the order of their numbers."""
    return f"1f000000-0000-6000-8000-{number:012d}"


def config(thread: Any = "t", ns: str | None = "", id: str | None = None) -> RunnableConfig:
    """Where a checkpoint is, or where its child goes; `ns=None` leaves the namespace out."""
    where: dict[str, Any] = {"thread_id": thread}
    if ns is not None:
        where["checkpoint_ns"] = ns
    if id is not None:
        where["checkpoint_id"] = id
    return {"configurable": where}


def version(number: int) -> str:
    """A channel version that is the same in every run."""
    return f"{number:032}.{0.5:016}"


def checkpoint(
    id: str | int,
    values: Mapping[str, Any] | None = None,
    versions: ChannelVersions | None = None,
    **others: Any,
) -> Checkpoint:
    """A checkpoint of today's form; every value has version 1 unless told."""
    values = dict(values or {})
    return {
        "v": 4,
        "id": checkpoint_id(id) if isinstance(id, int) else id,
        "ts": "2025-01-01T00:00:00+00:00",
        "channel_values": values,
        "channel_versions": {name: version(1) for name in values} if versions is None else versions,
        "versions_seen": {},
        "updated_channels": None,
        **others,
    }


def id_of(config: RunnableConfig) -> str:
    return config["configurable"]["checkpoint_id"]


class Thread:
    """Puts checkpoints on one namespace of a thread as Pregel does: only what changed is new."""

    def __init__(self, calls: Calls, thread: Any = "t", ns: str = "") -> None:
        self.calls = calls
        self.thread = thread
        self.ns = ns
        self.count = 0
        self.head: RunnableConfig | None = None
        self.expected: dict[str, dict[str, Any]] = {}
        """What each checkpoint holds, by id."""
        self.versions: dict[str | None, ChannelVersions] = {None: {}}
        """Its channels' versions, in order."""

    async def put(
        self,
        changed: Mapping[str, Any] | None = None,
        *,
        parent: RunnableConfig | str | None = "head",
        id: str | None = None,
        drop: tuple[str, ...] = (),
        metadata: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> RunnableConfig:
        """Put a child of `parent` with new values for `changed`; `drop` empties channels."""
        changed = dict(changed or {})
        over = self.head if parent == "head" else parent
        assert not isinstance(over, str)
        self.count += 1
        number = self.count
        above = id_of(over) if over else None
        new = {name: version(number) for name in (*changed, *drop)}
        versions = {**self.versions[above], **new}
        values = {**self.expected.get(above or "", {}), **changed}
        for name in drop:
            values.pop(name, None)
        name = id or checkpoint_id(number)
        stored = await self.calls.put(
            config(self.thread, self.ns, above),
            checkpoint(name, values, versions, **others),
            {"source": "loop", "step": number, "parents": {}, **(metadata or {})},
            new,
        )
        self.versions[name] = versions
        self.expected[name] = values
        self.head = stored
        return stored


def plain(found: CheckpointTuple) -> dict[str, Any]:
    """A tuple as comparable data, without what savers may word differently."""
    parent = found.parent_config
    where = found.config["configurable"]
    return {
        "thread": str(where["thread_id"]),
        "ns": where.get("checkpoint_ns", ""),
        "id": where["checkpoint_id"],
        "checkpoint": {k: v for k, v in found.checkpoint.items() if k != "channel_values"},
        "values": found.checkpoint["channel_values"],
        "metadata": dict(found.metadata),
        "parent": parent and parent["configurable"]["checkpoint_id"],
        "writes": [tuple(write) for write in found.pending_writes or []],
    }


async def snapshot(calls: Calls, where: RunnableConfig | None) -> dict[tuple[str, str], Any]:
    """Everything that `list` shows, by namespace and id."""
    found = [plain(one) for one in await calls.list(where)]
    shown = {(one["ns"], one["id"]): one for one in found}
    assert len(shown) == len(found), "a checkpoint is listed twice"
    return shown


def through_serde(value: Any) -> Any:
    """The value as LangGraph's own serializer gives it back."""
    serde = JsonPlusSerializer()
    return serde.loads_typed(serde.dumps_typed(value))


def same_bytes(left: Any, right: Any) -> bool:
    """Equality that tells 1 from True and takes NaN for NaN, by the serialized form."""
    serde = JsonPlusSerializer()
    return serde.dumps_typed(left) == serde.dumps_typed(right)
