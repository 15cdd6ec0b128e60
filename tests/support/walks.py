"""A graph of many steps, to be disturbed while it runs, and what is told of it afterwards."""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Callable
from typing import Annotated, Any

import holdfast
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from support.graphs import Runs, on

TURNS = 26
"""Of two supersteps each."""
BEGIN: Any = {"turn": 0, "items": []}


def walk(saver: holdfast.Saver, at: Callable[[int], None] = lambda _: None) -> Any:
    """A graph of two supersteps a turn: one task, then two. `at` is called in each turn."""

    class State(TypedDict):
        turn: int
        items: Annotated[list[str], operator.add]

    def turn(state: State) -> dict[str, Any]:
        at(state["turn"])
        return {"turn": state["turn"] + 1, "items": [f"turn {state['turn']} " * 40]}

    def left(state: State) -> dict[str, Any]:
        return {"items": [f"left {state['turn']}"]}

    def right(state: State) -> dict[str, Any]:
        return {"items": [f"right {state['turn']} " * 40]}

    builder = StateGraph(State)
    for node in (turn, left, right):
        builder.add_node(node.__name__, node)
    builder.add_edge(START, "turn")
    builder.add_edge("turn", "left")
    builder.add_edge("turn", "right")
    builder.add_conditional_edges("left", lambda state: "turn" if state["turn"] < TURNS else END)
    return builder.compile(checkpointer=saver)


def config(thread: str) -> Any:
    return {**on(thread), "recursion_limit": 1000}


async def story(runs: Runs, thread: str) -> list[Any]:
    """All that can be seen of a run, but for times and ids."""
    return [
        (one.values, one.next, one.metadata, [(task.name, task.result) for task in one.tasks])
        for one in await runs.history(config(thread))
    ]


async def told_undisturbed(mode: str) -> list[Any]:
    """What is told of a run that nobody disturbs."""
    runs = Runs(walk(holdfast.open("memory://")), mode)
    await runs.invoke(BEGIN, config("t"))
    told = await story(runs, "t")
    assert len(told) > 50
    return told


def await_writes(saver: holdfast.Saver, thread: str) -> None:
    """Wait until the writes of the last superstep are stored: LangGraph begins the next one before,
    and who ends the store then may end it between the two tasks."""
    for _ in range(1000):
        _, before = saver.list(config(thread), limit=2)
        if len({task for task, _, _ in before.pending_writes or ()}) == 2:
            return
        time.sleep(0.01)
    raise AssertionError("the writes of the last superstep are not stored")


class Once:
    """Does its work in the middle of a graph, for the first time that it comes by."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work: Callable[[], None] | None = work
        self._after: list[threading.Thread] = []

    def __call__(self, turn: int) -> None:
        work = self._work
        if turn == TURNS // 2 and work is not None:
            self._work = None
            work()

    def later(self, seconds: float, work: Callable[[], None]) -> None:
        """Work after some seconds, while the graph goes on."""
        self._after.append(threading.Timer(seconds, work))
        self._after[-1].start()

    def join(self) -> None:
        for one in self._after:
            one.join()
