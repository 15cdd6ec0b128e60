"""What a checkpoint shows to people and queries, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from holdfast._core import json
from holdfast.backends.base import Summary
from holdfast.serde import Serializer
from holdfast.steps.due import TRIGGER, due_nodes

# Bytes of JSON: of one value, of all that were updated, and of all before the others are left out.
# With versions and names a state stays below 8 kB.
_LONGEST_VALUE = 1 << 10
_LONGEST_UPDATED = 5 << 10
_SHORT_STATE = 1 << 10
_LONGEST_LIST = 1 << 10
_LONGEST_METADATA = 8 << 10


def summary(
    serde: SerializerProtocol,
    checkpoint: Mapping[str, Any],
    metadata: Mapping[str, Any],
    new_versions: Mapping[str, Any],
) -> Summary:
    """The summary of a checkpoint; empty where the serializer may be there to hide things."""
    if type(serde) not in (Serializer, JsonPlusSerializer):
        return Summary()
    values: Mapping[str, Any] = checkpoint.get("channel_values") or {}
    versions: Mapping[str, Any] = checkpoint.get("channel_versions") or {}
    seen: Mapping[str, Any] = checkpoint.get("versions_seen") or {}
    due = ", ".join(due_nodes(values, versions, seen))
    return Summary(
        state=_state(values, new_versions),
        next_node=due if due and json(due, _LONGEST_LIST) is not None else None,
        metadata=json(dict(metadata), _LONGEST_METADATA),
    )


def _state(values: Mapping[str, Any], new_versions: Mapping[str, Any]) -> str:
    """`channel_values` that JSON holds faithfully, those that were updated first; and
    `channel_versions` of what was updated, of which LangGraph's are cut to the number in front."""
    shown: list[str] = []
    size = 0
    # A trigger's value says nothing, and next_node says what it triggers.
    telling = [channel for channel in values if not channel.startswith(TRIGGER)]
    updated = [channel for channel in telling if channel in new_versions]
    others = [channel for channel in telling if channel not in new_versions]
    for channels, room in ((updated, _LONGEST_UPDATED), (others, _SHORT_STATE)):
        for channel in channels:
            entry = _entry(channel, values[channel], min(_LONGEST_VALUE, room - size))
            if entry is not None:
                shown.append(entry)
                # JSONB is shown with a space behind each of these.
                size += len(entry.encode()) + entry.count(",") + entry.count(":")
    updates = json({name: _short(one) for name, one in new_versions.items()}, _LONGEST_LIST)
    return f'{{"channel_values":{{{",".join(shown)}}},"channel_versions":{updates or "{}"}}}'


def _entry(channel: str, value: Any, longest: int) -> str | None:
    if longest <= 0:
        return None
    name = json(channel, longest)
    text = json(value, longest)
    return None if name is None or text is None else f"{name}:{text}"


def _short(version: Any) -> Any:
    """The number that LangGraph's versions begin with, `<32 digits>.<random digits>`."""
    if type(version) is str:
        number, dot, _ = version.partition(".")
        if dot and len(number) == 32 and number.isascii() and number.isdigit():
            return int(number)
    return version
