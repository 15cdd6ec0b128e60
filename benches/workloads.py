"""What the benchmarks store: the channel values and the writes of every superstep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from benches.words import Writer

Writes = list[tuple[str, Any]]

SEED = 20240229
VERSION = f"{1:032}.{0.1234567890123456:016}"
"""A version string as long as those that savers make."""

NODES, FIELDS = 30, 20
"""The wide graph's nodes, each with a trigger channel, and its other channels: 50 in all."""


@dataclass(frozen=True)
class Superstep:
    """What one superstep leaves behind."""

    values: dict[str, Any]
    """Every channel's value after it."""
    updated: tuple[str, ...]
    """The channels that get a new version."""
    ran: dict[str, tuple[str, ...]]
    """The nodes that ran, each with the channels that triggered it."""
    writes: dict[str, Writes]
    """What each task writes: by task id, channels and values."""
    news: list[Any]
    """The values that were not there before; their packed bytes are unique information."""


@dataclass(frozen=True)
class Workload:
    """A named sequence of supersteps on one thread. Make a new one for every run."""

    name: str
    supersteps: list[Superstep]
    counts_versions: bool = False
    """Whether changed versions count as unique information, too."""
    channels: tuple[str, ...] = field(default=())
    """Channels that have a version from the start."""


def messages(count: int, seed: int = SEED) -> list[BaseMessage]:
    """Make messages as an agent with a tool does: a repeating four, about 714 bytes each packed."""
    writer = Writer(seed)
    made: list[BaseMessage] = []
    call_id = ""
    for number in range(count):
        kind = number % 4
        if kind == 0:
            made.append(HumanMessage(writer.text(400), id=writer.uuid()))
        elif kind == 1:
            call_id = f"call_{writer.uuid().replace('-', '')[:24]}"
            args = {"query": writer.text(60), "limit": writer.random.randint(1, 20)}
            sent, received = writer.random.randint(500, 9000), writer.random.randint(20, 90)
            made.append(
                AIMessage(
                    "",
                    id=writer.uuid(),
                    tool_calls=[{"name": "search_docs", "args": args, "id": call_id}],
                    usage_metadata={
                        "input_tokens": sent,
                        "output_tokens": received,
                        "total_tokens": sent + received,
                    },
                    response_metadata={"model_name": "scripted-1", "finish_reason": "tool_calls"},
                )
            )
        elif kind == 2:
            text = writer.text(800)
            made.append(
                ToolMessage(text, tool_call_id=call_id, name="search_docs", id=writer.uuid())
            )
        else:
            about = {"model_name": "scripted-1", "finish_reason": "stop"}
            made.append(AIMessage(writer.text(500), id=writer.uuid(), response_metadata=about))
    return made


def _conversation(
    name: str,
    all_messages: list[Any],
    channel: str,
    state: Callable[[int, list[Any]], Any],
    extra_news: Callable[[int], list[Any]],
) -> Workload:
    """Append two messages a superstep; `state` makes the channel's value of the list so far."""
    ids = Writer(SEED + 1)
    supersteps = []
    for step in range(len(all_messages) // 2):
        new = all_messages[2 * step : 2 * step + 2]
        value = state(step, all_messages[: 2 * step + 2])
        supersteps.append(
            Superstep(
                values={channel: value, "branch:to:agent": None},
                updated=(channel, "branch:to:agent"),
                ran={"agent": ("branch:to:agent",)},
                writes={ids.uuid(): [(channel, new), ("branch:to:agent", None)]},
                news=new + extra_news(step),
            )
        )
    return Workload(name, supersteps)


def chat(steps: int) -> Workload:
    """A chat: the whole list of LangChain messages in one channel, two more each superstep."""
    made = messages(2 * steps)
    return _conversation(f"chat({steps})", made, "messages", lambda _, so_far: so_far, lambda _: [])


def chat_dicts(steps: int) -> Workload:
    """The same chat with plain dicts instead of message objects."""
    made = [each.model_dump() for each in messages(2 * steps)]
    return _conversation(
        f"chat_dicts({steps})", made, "messages", lambda _, so_far: so_far, lambda _: []
    )


def chat_nested(steps: int) -> Workload:
    """The same chat one level down, beside a summary that changes every tenth superstep."""
    writer = Writer(SEED + 2)
    summaries = [writer.text(300) for _ in range(steps // 10 + 1)]

    def state(step: int, so_far: list[Any]) -> dict[str, Any]:
        return {"messages": so_far, "summary": summaries[step // 10], "step": step}

    return _conversation(
        f"chat_nested({steps})",
        messages(2 * steps),
        "state",
        state,
        lambda step: [step] if step % 10 else [step, summaries[step // 10]],
    )


def wide(steps: int) -> Workload:
    """A graph of 30 nodes and 50 channels: two values of about 500 bytes change a superstep.

    As Pregel does, the trigger channel of a node that ran is emptied, and that of the node to run
    next is set: both get a new version.
    """
    writer = Writer(SEED + 3)
    fields = [f"field_{number:02}" for number in range(FIELDS)]
    nodes = [f"node_{number:02}" for number in range(NODES)]
    values: dict[str, Any] = {}
    running = [nodes[0]]
    supersteps = []
    for step in range(steps):
        changed = {
            name: {"title": writer.text(60), "text": writer.text(400), "score": step / 7}
            for name in writer.random.sample(fields, 2)
        }
        upcoming = writer.random.sample(nodes, writer.random.choice((1, 2)))
        triggers = {f"branch:to:{node}": None for node in upcoming}
        emptied = [f"branch:to:{node}" for node in running]
        values = {k: v for k, v in (values | changed).items() if k not in emptied} | triggers
        written: Writes = [*changed.items(), *triggers.items()]
        supersteps.append(
            Superstep(
                values=values,
                updated=tuple(dict.fromkeys((*changed, *emptied, *triggers))),
                ran={node: (f"branch:to:{node}",) for node in running},
                # The first task writes every other item, the second one, if any, the rest.
                writes={
                    writer.uuid(): written[number :: len(running)] for number in range(len(running))
                },
                news=list(changed.values()),
            )
        )
        running = upcoming
    channels = (*fields, *(f"branch:to:{node}" for node in nodes))
    return Workload(f"wide({steps})", supersteps, counts_versions=True, channels=channels)


WORKLOADS: dict[str, Callable[[int], Workload]] = {
    each.__name__: each for each in (chat, chat_dicts, chat_nested, wide)
}


def unique_bytes(workload: Workload) -> int:
    """Count the packed bytes of everything that is new, each once.

    For a workload that counts versions, the changed entries of `channel_versions` and
    `versions_seen` are among them: a name, and a version string, or a name for each node.
    """
    pack = JsonPlusSerializer().dumps_typed
    total = 0
    for superstep in workload.supersteps:
        news = list(superstep.news)
        if workload.counts_versions:
            for channel in superstep.updated:
                news += [channel, VERSION]
            for node, triggers in superstep.ran.items():
                news.append(node)
                for channel in triggers:
                    news += [channel, VERSION]
        total += sum(len(pack(each)[1]) for each in news)
    return total
