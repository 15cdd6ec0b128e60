"""Which nodes of a graph are due to run, as far as a checkpoint alone says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph.checkpoint.serde.types import TASKS

_START = "__start__"
TRIGGER = "branch:to:"
"""What the names of channels begin with that only trigger a node."""
JOIN = "join:"
"""What the names of channels begin with that wait for several nodes."""
_NO_NODES = ("__input__", "__interrupt__")


def due_nodes(
    values: Mapping[str, Any], versions: Mapping[str, Any], seen: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Names of the nodes to run next, each once.

    As Pregel has it (`prepare_next_tasks`): the nodes that a pending `Send` names, and those with
    a trigger channel that is filled and newer than what they saw. What triggers a node that never
    ran is in the graph alone; but of the channels that a `StateGraph` makes the name says it.

    Args:
        values: Of the channels that have one.
        versions: Of the channels.
        seen: Node → channel → the version that the node saw last.
    """
    due: dict[str, None] = {}
    sends = values.get(TASKS)
    if isinstance(sends, (list, tuple)):
        due.update(dict.fromkeys(name for send in sends if (name := getattr(send, "node", None))))
    # In a graph of functions no node has the name of its channel.
    started = {node for node, channels in seen.items() if _START in channels} - {*_NO_NODES, _START}
    for channel in values:
        node = None if channel == _START and started else _named(channel)
        if node and _is_new(channel, versions, seen.get(node, {})) and _is_open(channel, values):
            due[node] = None
    for node, channels in seen.items():
        if node not in _NO_NODES and any(
            channel in values and _is_new(channel, versions, channels) and _is_open(channel, values)
            for channel in channels
        ):
            due[node] = None
    return list(due)


def _named(channel: str) -> str | None:
    """The node that a channel's name says that it triggers."""
    if channel == _START:
        return _START
    if channel.startswith(TRIGGER):
        return channel[len(TRIGGER) :]
    if channel.startswith(JOIN):
        return channel.rpartition(":")[2]
    return None


def _is_new(channel: str, versions: Mapping[str, Any], seen: Mapping[str, Any]) -> bool:
    version = versions.get(channel)
    if version is None:
        return False
    last = seen.get(channel)
    # Versions of another type cannot be compared: LangGraph would fail, here it is only shown.
    return last is None or (type(last) is type(version) and version > last)


def _is_open(channel: str, values: Mapping[str, Any]) -> bool:
    """Whether a channel that joins branches, `join:a+b:c`, has heard of all of them."""
    if not channel.startswith(JOIN):
        return True
    names = channel[len(JOIN) :].rpartition(":")[0]
    heard = values[channel]
    return isinstance(heard, (set, frozenset)) and len("+".join(map(str, heard))) == len(names)
