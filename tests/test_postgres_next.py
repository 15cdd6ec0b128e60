"""The nodes that are due, told from a checkpoint alone: LangGraph's own `next` is the oracle."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import holdfast
import pytest
from holdfast.steps.due import due_nodes
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from support.graphs import fan_out, on
from support.postgres import Connection, eye, table_of
from support.postgres_server import postgres_url
from typing_extensions import TypedDict


class State(TypedDict):
    items: Annotated[list, operator.add]


Builder = Callable[[Any], Any]


def step(name: str) -> Callable[[State], dict[str, Any]]:
    return lambda state: {"items": [name]}


def built(saver: Any, nodes: str, edges: list[tuple[Any, str]], **how: Any) -> Any:
    builder = StateGraph(State)
    for name in nodes.split():
        builder.add_node(name, step(name))
    for start, end in edges:
        builder.add_edge(start, end)
    return builder.compile(checkpointer=saver, **how)


def linear(saver: Any, **how: Any) -> Any:
    edges: Any = [(START, "a"), ("a", "b"), ("b", "c"), ("c", END)]
    return built(saver, "a b c", edges, **how)


def branching(saver: Any) -> Any:
    """One of two, by the state; and a turn back."""
    builder = StateGraph(State)
    for name in ("a", "left", "right"):
        builder.add_node(name, step(name))
    builder.add_edge(START, "a")
    builder.add_conditional_edges(
        "a", lambda state: "left" if len(state["items"]) < 5 else "right", ["left", "right"]
    )
    builder.add_edge("left", "a")
    builder.add_edge("right", END)
    return builder.compile(checkpointer=saver)


def joining(saver: Any, **how: Any) -> Any:
    """Two branches of which one is longer, and a node that waits for both."""
    edges: Any = [
        *[(START, "short"), (START, "long"), ("long", "longer")],
        *[(["short", "longer"], "end"), ("end", END)],
    ]
    return built(saver, "short long longer end", edges, **how)


def sending(saver: Any) -> Any:
    return fan_out(saver, width=3)


def commanding(saver: Any) -> Any:
    def choose(state: State) -> Command[Any]:
        return Command(goto=["b", Send("c", {"items": []})], update={"items": ["a"]})

    builder = StateGraph(State)
    builder.add_node("a", choose, destinations=("b", "c"))
    builder.add_node("b", step("b"))
    builder.add_node("c", step("c"))
    builder.add_edge(START, "a")
    return builder.compile(checkpointer=saver)


def nesting(saver: Any) -> Any:
    """A graph as a node of another, with its own checkpoints."""
    inner = linear(True, interrupt_before=["b"])
    builder = StateGraph(State)
    builder.add_node("before", step("before"))
    builder.add_node("inner", inner)
    builder.add_node("after", step("after"))
    builder.add_edge(START, "before")
    builder.add_edge("before", "inner")
    builder.add_edge("inner", "after")
    return builder.compile(checkpointer=saver)


def asking(saver: Any) -> Any:
    def ask(state: State) -> dict[str, Any]:
        return {"items": [interrupt("what?")]}

    builder = StateGraph(State)
    builder.add_node("ask", ask)
    builder.add_node("end", step("end"))
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "end")
    return builder.compile(checkpointer=saver)


def failing(saver: Any) -> Any:
    def fail(state: State) -> dict[str, Any]:
        raise LookupError

    builder = StateGraph(State)
    builder.add_node("a", step("a"))
    builder.add_node("fail", fail)
    builder.add_edge(START, "a")
    builder.add_edge("a", "fail")
    return builder.compile(checkpointer=saver)


GRAPHS: dict[str, Builder] = {
    "linear": linear,
    "branching": branching,
    "joining": joining,
    "sending": sending,
    "commanding": commanding,
    "nesting": nesting,
    "asking": asking,
    "failing": failing,
    "before": lambda saver: linear(saver, interrupt_before=["b", "c"]),
    "after": lambda saver: linear(saver, interrupt_after=["a"]),
    "before a join": lambda saver: joining(saver, interrupt_before=["end"]),
    "around all": lambda saver: joining(saver, interrupt_before="*", interrupt_after="*"),
}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return postgres_url(tmp_path)


@pytest.fixture
def conn(url: str) -> Iterator[Connection]:
    with eye(url) as conn:
        yield conn


@pytest.fixture
def saver(url: str) -> Iterator[holdfast.Saver]:
    with holdfast.open(url) as saver:
        yield saver


def named(conn: Connection, url: str, thread: str) -> dict[tuple[str, str], set[str]]:
    """The column next_node, by namespace and id."""
    found = conn.execute(
        f"SELECT checkpoint_ns, checkpoint_id, next_node FROM {table_of(url)}_checkpoints "
        "WHERE thread_id = %s",
        [thread],
    )
    return {(ns, id): set(due.split(", ") if due else ()) for ns, id, due in found}


def run(graph: Any, where: Any) -> list[dict[tuple[str, str], set[str]]]:
    """Run to the end, resuming at each stop; what LangGraph said was next at each stop."""
    told = []
    value: Any = {"items": ["input"]}
    for _ in range(8):
        with suppress(LookupError):
            graph.invoke(value, where)
        state = graph.get_state(where, subgraphs=True)
        said = {}
        for one in states(state):
            place = one.config["configurable"]
            said[place["checkpoint_ns"], place["checkpoint_id"]] = set(one.next)
        told.append(said)
        if not state.next:
            break
        value = Command(resume="this") if state.interrupts else None
    return told


def states(state: Any) -> Iterator[Any]:
    yield state
    for task_ in state.tasks:
        if task_.state is not None and not isinstance(task_.state, dict):
            yield from states(task_.state)


@pytest.mark.parametrize("name", GRAPHS)
def test_next_node_is_what_langgraph_says(
    saver: holdfast.Saver, conn: Connection, url: str, name: str
) -> None:
    graph = GRAPHS[name](saver)
    where = on(name)
    compared = 0
    for said in run(graph, where):
        columns = named(conn, url, name)
        for place, due in said.items():
            assert columns[place] == due, place
            compared += 1
    for state in graph.get_state_history(where):
        place = state.config["configurable"]
        key = place["checkpoint_ns"], place["checkpoint_id"]
        assert named(conn, url, name)[key] == set(state.next)
        compared += 1
    assert compared > 3


def test_a_second_input_begins_anew(saver: holdfast.Saver, conn: Connection, url: str) -> None:
    graph = linear(saver)
    for _ in range(2):
        graph.invoke({"items": ["input"]}, on("t"))
    for state in graph.get_state_history(on("t")):
        key = "", state.config["configurable"]["checkpoint_id"]
        assert named(conn, url, "t")[key] == set(state.next)


def test_an_update_by_hand_is_seen(saver: holdfast.Saver, conn: Connection, url: str) -> None:
    graph = joining(saver, interrupt_before=["longer"])
    graph.invoke({"items": []}, on("t"))
    for as_node in ("long", "longer", "short", "end"):
        graph.update_state(on("t"), {"items": [as_node]}, as_node=as_node)
        state = graph.get_state(on("t"))
        key = "", state.config["configurable"]["checkpoint_id"]
        assert named(conn, url, "t")[key] == set(state.next), as_node


def test_functions_as_graphs(saver: holdfast.Saver, conn: Connection, url: str) -> None:
    @task
    def double(number: int) -> int:
        return 2 * number

    @entrypoint(checkpointer=saver)
    def flow(number: int) -> int:
        doubled = double(number).result()
        return doubled + int(interrupt("how much?"))

    assert flow.invoke(4, on("t"))["__interrupt__"]
    # Which function the first input starts is in the graph alone.
    assert set.union(*named(conn, url, "t").values()) == {"__start__"}
    for _ in range(2):
        assert flow.invoke(Command(resume=3), on("t")) == 11
        flow.invoke(4, on("t"))
        state = flow.get_state(on("t"))
        assert state.next == ("flow",)
        key = "", state.config["configurable"]["checkpoint_id"]
        assert named(conn, url, "t")[key] == {"flow"}


@pytest.mark.parametrize(
    ("values", "versions", "seen", "expected"),
    [
        ({}, {}, {}, []),
        ({"branch:to:a": None}, {"branch:to:a": 1}, {}, ["a"]),
        ({"branch:to:a": None}, {"branch:to:a": 1}, {"a": {"branch:to:a": 1}}, []),
        ({"branch:to:a": None}, {"branch:to:a": "2"}, {"a": {"branch:to:a": 1}}, []),
        ({"branch:to:a": None}, {}, {}, []),
        ({}, {"branch:to:a": 2}, {"a": {"branch:to:a": 1}}, []),
        ({"x": 1}, {"x": 3}, {"a": {"x": 2}, "__interrupt__": {"x": 1}}, ["a"]),
        ({"join:a+b:c": {"a"}}, {"join:a+b:c": 1}, {}, []),
        ({"join:a+b:c": {"b", "a"}}, {"join:a+b:c": 1}, {}, ["c"]),
        ({"join:a+b:c": 7}, {"join:a+b:c": 1}, {}, []),
        ({"__pregel_tasks": [Send("s", 1), Send("s", 2), "odd"]}, {}, {}, ["s"]),
        ({"__pregel_tasks": None}, {}, {}, []),
    ],
)
def test_what_a_checkpoint_alone_says(
    values: Any, versions: Any, seen: Any, expected: list[str]
) -> None:
    assert due_nodes(values, versions, seen) == expected
