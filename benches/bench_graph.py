"""A whole graph: what a saver adds to each superstep of a node that appends two messages."""

from __future__ import annotations

import gc
import statistics
import time
from collections import defaultdict
from typing import Annotated, Any, Literal

from langchain_core.messages import AnyMessage, BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

from benches.harness import Mismatch, choose, rotations, thread_config
from benches.options import Benchmark, Options, parser, run
from benches.report import Figure, Target
from benches.savers import (
    HOLDFAST_POSTGRES,
    HOLDFAST_REDIS,
    HOLDFAST_SQLITE,
    OFFICIAL_MEMORY,
    OFFICIAL_POSTGRES,
    OFFICIAL_SQLITE,
    Saver,
)
from benches.workloads import messages

SUPERSTEPS = 100
NO_SAVER = "LangGraph alone"
Durability = Literal["async", "sync"]
DURABILITIES: tuple[Durability, ...] = ("async", "sync")
Nodes = Literal["async", "blocking"]
"""Of coroutine functions, or of functions that LangGraph runs in threads: a saver and these threads
then wait for each other's hold of the interpreter."""
NODES: tuple[Nodes, ...] = ("async", "blocking")


class State(TypedDict):
    """The state of the graph: the messages so far."""

    messages: Annotated[list[AnyMessage], add_messages]


def build(script: list[BaseMessage], saver: Saver | None, nodes: Nodes = "blocking") -> Any:
    """Build a graph whose one node appends the script's next two messages until it is used up."""

    def talk(state: State) -> dict[str, Any]:
        done = len(state["messages"])
        return {"messages": script[done : done + 2]}

    def route(state: State) -> str:
        return "talk" if len(state["messages"]) < len(script) else END

    async def atalk(state: State) -> dict[str, Any]:
        return talk(state)

    async def aroute(state: State) -> str:
        return route(state)

    builder = StateGraph(State)
    builder.add_node("talk", atalk if nodes == "async" else talk)
    builder.add_edge(START, "talk")
    builder.add_conditional_edges("talk", aroute if nodes == "async" else route, ["talk", END])
    return builder.compile(checkpointer=saver)


async def run_graph(saver: Saver | None, durability: Durability, nodes: Nodes) -> float:
    """Give the seconds that a superstep takes, after checking what the saver holds."""
    script = messages(2 * SUPERSTEPS)
    graph = build(script, saver, nodes)
    config: RunnableConfig = {**thread_config(), "recursion_limit": SUPERSTEPS + 10}
    chosen = {"durability": durability} if saver else {}
    gc.collect()
    start = time.perf_counter()
    result = await graph.ainvoke({"messages": []}, config, **chosen)
    seconds = (time.perf_counter() - start) / SUPERSTEPS
    if result["messages"] != script:
        raise Mismatch("the graph did not make the messages of the script")
    if saver is not None:
        await check(graph, config, script)
    return seconds


async def check(graph: Any, config: RunnableConfig, script: list[BaseMessage]) -> None:
    """Compare the head, and every checkpoint that the run left, with the script."""
    head = await graph.aget_state(config)
    if head.values["messages"] != script:
        raise Mismatch("the messages of the head differ")
    count = 0
    async for state in graph.aget_state_history(config):
        count += 1
        held = state.values.get("messages", [])
        if held != script[: 2 * max(state.metadata["step"], 0)]:
            raise Mismatch(f"the messages of step {state.metadata['step']} differ")
    if count != len(script) // 2 + 2:
        raise Mismatch(f"{count} checkpoints, not {len(script) // 2 + 2}")


async def measure(options: Options) -> list[Figure]:
    """Run the graphs without a saver and with each in turn; give the median difference."""
    collected: dict[tuple[Nodes, str, Durability], list[float]] = defaultdict(list)
    alone: dict[Nodes, list[float]] = defaultdict(list)
    peers = choose(options.savers)
    for nodes in NODES:  # warms up LangGraph's own imports and caches
        await run_graph(None, "async", nodes)
    for peer in rotations(peers, options.repetitions or 5):
        for nodes in NODES:
            without = await run_graph(None, "async", nodes)
            alone[nodes].append(without)
            for durability in DURABILITIES:
                with peer.place(options.folder) as place:
                    async with peer.open(place.location) as saver:
                        added = await run_graph(saver, durability, nodes) - without
                collected[nodes, peer.name, durability].append(added)
    figures = []
    for nodes in NODES:
        case = f"graph of {SUPERSTEPS} supersteps, {nodes} nodes"
        value = statistics.median(alone[nodes]) * 1000
        figures.append(Figure(case, NO_SAVER, "per superstep", value, "ms"))
        for (of, saver_name, durability), seconds in collected.items():
            if of == nodes:
                value = statistics.median(seconds) * 1000
                figures.append(Figure(case, saver_name, f"added, {durability}", value, "ms"))
    return figures


BENCHMARK = Benchmark(
    "A whole graph, ainvoke: time added per superstep",
    measure,
    tuple(
        Target(f"added, {each}", saver, at_most, against)
        for saver, at_most, against in (
            (HOLDFAST_SQLITE, 1 / 3, OFFICIAL_SQLITE),
            (HOLDFAST_REDIS, 1, OFFICIAL_MEMORY),
            (HOLDFAST_POSTGRES, 1 / 4, OFFICIAL_POSTGRES),
        )
        for each in DURABILITIES
    ),
)

if __name__ == "__main__":
    run([BENCHMARK], parser(__doc__))
