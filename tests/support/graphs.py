"""Small real graphs, and one way to run them on either side of a saver."""

import asyncio
import operator
from collections.abc import Sequence
from typing import Annotated, Any

from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, StateSnapshot, interrupt
from typing_extensions import TypedDict


class Runs:
    """A compiled graph's methods as coroutines, on the side that `mode` names."""

    def __init__(self, graph: Any, mode: str) -> None:
        self.graph = graph
        self.mode = mode

    async def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self.mode == "async":
            return await getattr(self.graph, f"a{method}")(*args, **kwargs)
        return await asyncio.to_thread(getattr(self.graph, method), *args, **kwargs)

    async def invoke(self, value: Any, config: RunnableConfig, **how: Any) -> Any:
        return await self._call("invoke", value, config, **how)

    async def state(self, config: RunnableConfig, **how: Any) -> StateSnapshot:
        return await self._call("get_state", config, **how)

    async def update(self, config: RunnableConfig, values: Any, **how: Any) -> RunnableConfig:
        return await self._call("update_state", config, values, **how)

    async def history(self, config: RunnableConfig, **how: Any) -> list[StateSnapshot]:
        if self.mode == "async":
            return [one async for one in self.graph.aget_state_history(config, **how)]
        return await asyncio.to_thread(lambda: [*self.graph.get_state_history(config, **how)])


def on(thread: str, **metadata: Any) -> RunnableConfig:
    """The config of a graph's run on a thread."""
    return {"configurable": {"thread_id": thread}, "metadata": metadata}


def joined(state: list[Any], writes: Sequence[Any]) -> list[Any]:
    """A reducer in the form that DeltaChannel wants; order shows in its result."""
    result = list(state)
    for write in writes:
        result.extend(write if isinstance(write, list) else [write])
    return result


def fan_out(checkpointer: Any, channel: Any = operator.add, width: int = 3) -> Any:
    """Each turn echoes its input, fans out to `width` tasks and gathers what they write."""

    class State(TypedDict):
        turn: int
        items: Annotated[list, channel]
        other: Annotated[list, operator.add]

    def begin(state: State) -> dict[str, Any]:
        turn = state.get("turn", 0) + 1
        return {"turn": turn, "items": [f"begin {turn}"], "other": [turn]}

    def spread(state: State) -> list[Send]:
        return [Send("worker", {"turn": state["turn"], "number": n}) for n in range(width)]

    def worker(task: dict[str, Any]) -> dict[str, Any]:
        return {"items": [f"worker {task['turn']}.{task['number']}"]}

    def end(state: State) -> dict[str, Any]:
        return {"items": [f"end {state['turn']} after {len(state['items'])}"]}

    builder = StateGraph(State)
    builder.add_node("begin", begin)
    builder.add_node("worker", worker)
    builder.add_node("end", end)
    builder.add_edge(START, "begin")
    builder.add_conditional_edges("begin", spread, ["worker"])
    builder.add_edge("worker", "end")
    builder.add_edge("end", END)
    return builder.compile(checkpointer=checkpointer)


def delta(snapshot_frequency: int = 1000) -> DeltaChannel[Any]:
    return DeltaChannel(joined, snapshot_frequency=snapshot_frequency)


def last(count: int) -> Any:
    """A reducer that keeps the last items of a list, so that a state does not grow."""
    return lambda left, right: [*left, *right][-count:]


def asking(checkpointer: Any, **how: Any) -> Any:
    """Writes, asks twice in one node, writes what it heard."""

    class State(TypedDict):
        words: Annotated[list[str], operator.add]

    def write(state: State) -> dict[str, Any]:
        return {"words": [f"draft {len(state.get('words', []))}"]}

    def ask(state: State) -> dict[str, Any]:
        return {"words": [interrupt("first?"), interrupt("second?")]}

    def publish(state: State) -> dict[str, Any]:
        return {"words": ["published"]}

    builder = StateGraph(State)
    for node in (write, ask, publish):
        builder.add_node(node.__name__, node)
    builder.add_edge(START, "write")
    builder.add_edge("write", "ask")
    builder.add_edge("ask", "publish")
    builder.add_edge("publish", END)
    return builder.compile(checkpointer=checkpointer, **how)


def with_subgraphs(checkpointer: Any) -> Any:
    """A turn calls two subgraphs: one begins anew each time, one remembers how often it ran."""

    class Inner(TypedDict):
        turn: int
        runs: Annotated[int, operator.add]
        ran: int
        items: Annotated[list[str], last(10)]

    class Outer(TypedDict):
        turn: int
        ran: int
        items: Annotated[list[str], last(10)]

    def run(state: Inner) -> dict[str, Any]:
        return {"runs": 1}

    def tell(state: Inner) -> dict[str, Any]:
        ran = state["runs"]
        return {"ran": ran, "items": [f"turn {state['turn']}, run {ran}, " * 5]}

    def inner(checkpointer: Any) -> Any:
        builder = StateGraph(Inner).add_node("run", run).add_node("tell", tell)
        builder.add_edge(START, "run").add_edge("run", "tell")
        return builder.compile(checkpointer=checkpointer)

    def begin(state: Outer) -> dict[str, Any]:
        return {"turn": state.get("turn", 0) + 1}

    builder = StateGraph(Outer).add_node("begin", begin)
    builder.add_node("forgets", inner(None)).add_node("remembers", inner(True))
    builder.add_edge(START, "begin").add_edge("begin", "forgets")
    builder.add_edge("forgets", "remembers").add_edge("remembers", END)
    return builder.compile(checkpointer=checkpointer)
