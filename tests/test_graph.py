"""Real graphs on a saver: interrupts, time travel, subgraphs, fan-out, durability."""

import asyncio
import operator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt
from support.calls import Calls
from support.graphs import Runs, fan_out, on
from support.make import config, id_of
from typing_extensions import TypedDict


class Draft(TypedDict):
    words: Annotated[list[str], operator.add]
    approved: bool


def review(checkpointer: Any) -> Any:
    """Writes, asks for approval, publishes."""

    def write(state: Draft) -> dict[str, Any]:
        return {"words": [f"draft {len(state.get('words', []))}"]}

    def ask(state: Draft) -> dict[str, Any]:
        first = interrupt({"question": "title?", "words": state["words"]})
        second = interrupt({"question": "publish?"})
        return {"words": [first], "approved": second == "yes"}

    def publish(state: Draft) -> dict[str, Any]:
        return {"words": ["published" if state["approved"] else "refused"]}

    builder = StateGraph(Draft)
    for node in (write, ask, publish):
        builder.add_node(node.__name__, node)
    builder.add_edge(START, "write")
    builder.add_edge("write", "ask")
    builder.add_edge("ask", "publish")
    builder.add_edge("publish", END)
    return builder.compile(checkpointer=checkpointer)


@pytest.fixture(params=["sync", "async", "exit"])
def durability(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.mark.usefixtures("interrupts")
async def test_a_run_stops_at_each_interrupt_and_resumes(calls: Calls, durability: str) -> None:
    runs = Runs(review(calls.saver), calls.mode)
    stopped = await runs.invoke({"words": []}, on("t"), durability=durability)
    assert stopped["__interrupt__"][0].value == {"question": "title?", "words": ["draft 0"]}
    assert (await runs.state(on("t"))).next == ("ask",)
    again = await runs.invoke(Command(resume="My title"), on("t"), durability=durability)
    assert again["__interrupt__"][0].value == {"question": "publish?"}
    done = await runs.invoke(Command(resume="yes"), on("t"), durability=durability)
    assert done["words"] == ["draft 0", "My title", "published"]
    state = await runs.state(on("t"))
    assert state.next == ()
    assert state.values == {"words": ["draft 0", "My title", "published"], "approved": True}


@pytest.mark.usefixtures("interrupts")
async def test_another_saver_resumes_the_run(pair: tuple[Calls, Calls], durability: str) -> None:
    for thread in ("t", "u"):
        first, second, third = (Runs(review(pair[n % 2].saver), pair[0].mode) for n in range(3))
        await first.invoke({"words": []}, on(thread), durability=durability)
        await second.invoke(Command(resume="title"), on(thread), durability=durability)
        done = await third.invoke(Command(resume="no"), on(thread), durability=durability)
        assert done["words"] == ["draft 0", "title", "refused"]


@pytest.mark.usefixtures("interrupts")
async def test_a_past_interrupt_can_be_answered_differently(calls: Calls) -> None:
    oracle = Runs(review(InMemorySaver()), calls.mode)
    runs = Runs(review(calls.saver), calls.mode)
    answers = {}
    for each in (oracle, runs):
        await each.invoke({"words": []}, on("t"))
        waiting = (await each.state(on("t"))).config
        await each.invoke(Command(resume="title"), on("t"))
        await each.invoke(Command(resume="yes"), on("t"))
        again = await each.invoke(Command(resume="no"), waiting)
        states = [(one.values, one.next) for one in await each.history(on("t"))]
        answers[each] = (again.get("words"), states)
    assert answers[runs] == answers[oracle]


async def test_update_state_changes_what_comes_next(calls: Calls) -> None:
    runs = Runs(fan_out(calls.saver), calls.mode)
    await runs.invoke({"other": [0]}, on("t"))
    before = await runs.state(on("t"))
    updated = await runs.update(on("t"), {"items": ["by hand"], "turn": 10})
    state = await runs.state(on("t"))
    assert id_of(state.config) == id_of(updated)
    assert state.values["items"] == [*before.values["items"], "by hand"]
    assert state.metadata is not None
    assert state.metadata["source"] == "update"
    await runs.invoke({"other": [1]}, on("t"))
    assert "begin 11" in (await runs.state(on("t"))).values["items"]


async def test_every_past_state_is_there_and_can_be_forked(calls: Calls) -> None:
    oracle = Runs(fan_out(InMemorySaver()), calls.mode)
    runs = Runs(fan_out(calls.saver), calls.mode)
    for each in (oracle, runs):
        for turn in range(3):
            await each.invoke({"other": [turn]}, on("t"))
    history = await runs.history(on("t"))
    expected = await oracle.history(on("t"))
    assert [one.values for one in history] == [one.values for one in expected]
    assert [one.next for one in history] == [one.next for one in expected]
    for past in history:
        there = await runs.state(past.config)
        assert (there.values, there.next, there.metadata) == (past.values, past.next, past.metadata)
    past = next(one for one in history if one.next == ("end",))
    fork = await runs.update(past.config, {"items": ["fork"]}, as_node="worker")
    done = await runs.invoke(None, fork)
    assert done["items"][: len(past.values["items"])] == past.values["items"]
    assert done["items"][-2:] == ["fork", f"end 3 after {len(past.values['items']) + 1}"]
    for one in history:
        assert (await runs.state(one.config)).values == one.values
    replayed = await runs.invoke(None, past.config)
    assert replayed["items"][-1] == f"end 3 after {len(past.values['items'])}"


async def test_a_pruned_graph_has_one_checkpoint_and_goes_on(calls: Calls) -> None:
    """Channels that a step emptied keep nothing alive."""
    runs = Runs(fan_out(calls.saver), calls.mode)
    for turn in range(3):
        await runs.invoke({"other": [turn]}, on("t"))
        before = await runs.state(on("t"))
        await calls.prune(["t"])
        after = await runs.state(on("t"))
        assert (after.values, after.next, after.metadata) == (
            before.values,
            before.next,
            before.metadata,
        )
        assert len(await calls.ids(config("t", None))) == 1
    assert after.values["turn"] == 3


async def test_two_graphs_on_one_saver_share_a_threads_state(calls: Calls) -> None:
    one, two = (Runs(fan_out(calls.saver), calls.mode) for _ in range(2))
    await one.invoke({"other": [1]}, on("t"))
    await two.invoke({"other": [2]}, on("t"))
    assert (await one.state(on("t"))).values == (await two.state(on("t"))).values
    assert (await one.state(on("t"))).values["turn"] == 2
    assert (await one.state(on("u"))).values == {}


@pytest.mark.usefixtures("interrupts")
async def test_a_thread_that_was_deleted_can_be_run_again(calls: Calls, durability: str) -> None:
    runs = Runs(review(calls.saver), calls.mode)
    for _ in range(3):
        await runs.invoke({"words": []}, on("t"), durability=durability)
        await runs.invoke(Command(resume="title"), on("t"), durability=durability)
        await calls.delete_thread("t")
        assert (await runs.state(on("t"))).values == {}
        assert await calls.list(None) == []


# --- subgraphs


def nested(checkpointer: Any) -> Any:
    """A graph whose subgraph's subgraph asks."""

    class State(TypedDict):
        steps: Annotated[list[str], operator.add]

    def step(name: str) -> Any:
        return lambda state: {"steps": [name]}

    def ask(state: State) -> dict[str, Any]:
        return {"steps": [f"answer {interrupt(state['steps'])}"]}

    inner = StateGraph(State).add_node("ask", ask).add_node("after", step("inner"))
    inner.add_edge(START, "ask").add_edge("ask", "after")
    middle = StateGraph(State).add_node("before", step("middle")).add_node("in", inner.compile())
    middle.add_edge(START, "before").add_edge("before", "in")
    outer = StateGraph(State).add_node("begin", step("outer")).add_node("mid", middle.compile())
    outer.add_edge(START, "begin").add_edge("begin", "mid")
    return outer.compile(checkpointer=checkpointer)


@pytest.mark.usefixtures("interrupts")
async def test_interrupts_cross_subgraphs(calls: Calls, durability: str) -> None:
    oracle = Runs(nested(InMemorySaver()), calls.mode)
    runs = Runs(nested(calls.saver), calls.mode)
    for each in (oracle, runs):
        stopped = await each.invoke({"steps": ["in"]}, on("t"), durability=durability)
        assert len(stopped["__interrupt__"]) == 1
    state = await runs.state(on("t"), subgraphs=True)
    expected = await oracle.state(on("t"), subgraphs=True)
    assert state.next == expected.next == ("mid",)
    for _ in range(2):
        state, expected = state.tasks[0].state, expected.tasks[0].state  # type: ignore[assignment]
        assert state.values == expected.values
        assert state.next == expected.next
    for each in (oracle, runs):
        await each.invoke(Command(resume="42"), on("t"), durability=durability)
    assert (await runs.state(on("t"))).values == (await oracle.state(on("t"))).values
    assert "answer 42" in (await runs.state(on("t"))).values["steps"]


@pytest.mark.usefixtures("interrupts")
async def test_a_pruned_run_that_waits_in_a_subgraph_can_be_resumed(calls: Calls) -> None:
    runs = Runs(nested(calls.saver), calls.mode)
    await runs.invoke({"steps": ["in"]}, on("t"))
    before = await runs.state(on("t"), subgraphs=True)
    await calls.prune(["t"])
    after = await runs.state(on("t"), subgraphs=True)
    assert (after.values, after.next) == (before.values, before.next)
    assert after.tasks[0].state.values == before.tasks[0].state.values  # type: ignore[union-attr]
    done = await runs.invoke(Command(resume="42"), on("t"))
    assert done["steps"][-2:] == ["answer 42", "inner"]


# --- much at once


async def test_a_hundred_sends_at_once(calls: Calls, durability: str) -> None:
    runs = Runs(fan_out(calls.saver, width=100), calls.mode)
    oracle = Runs(fan_out(InMemorySaver(), width=100), calls.mode)
    for each in (runs, oracle):
        await each.invoke({"other": [0]}, on("t"), durability=durability)
    assert (await runs.state(on("t"))).values == (await oracle.state(on("t"))).values
    history = [(one.values, one.next) for one in await runs.history(on("t"))]
    assert history == [(one.values, one.next) for one in await oracle.history(on("t"))]


async def test_many_threads_run_at_once(calls: Calls) -> None:
    graph = fan_out(calls.saver)
    threads = [f"thread {number}" for number in range(24)]
    if calls.mode == "async":
        await asyncio.gather(*(graph.ainvoke({"other": [t]}, on(t)) for t in threads))
    else:
        with ThreadPoolExecutor(8) as pool:
            job = pool.map(lambda t: graph.invoke({"other": [t]}, on(t)), threads)
            await asyncio.to_thread(list, job)
    runs = Runs(graph, calls.mode)
    for thread in threads:
        values = (await runs.state(on(thread))).values
        assert values["other"][0] == thread
        assert values["items"][-1] == "end 1 after 4"


async def test_both_sides_of_one_saver_take_turns_on_a_thread(calls: Calls) -> None:
    graph = fan_out(calls.saver)
    for turn in range(6):
        runs = Runs(graph, ["sync", "async"][turn % 2])
        await runs.invoke({"other": [turn]}, on("t"))
        seen = [(await Runs(graph, mode).state(on("t"))).values for mode in ("sync", "async")]
        assert seen[0] == seen[1]
        assert seen[0]["turn"] == turn + 1
    listed = [await Calls(calls.saver, mode).ids(config()) for mode in ("sync", "async")]
    assert listed[0] == listed[1]


# --- messages


async def test_messages_survive_with_their_ids_and_fields(calls: Calls) -> None:
    class State(TypedDict):
        messages: Annotated[list[AnyMessage], add_messages]

    def answer(state: State) -> dict[str, Any]:
        turn = len(state["messages"])
        call = {"name": "search", "args": {"query": "é"}, "id": f"call-{turn}", "type": "tool_call"}
        usage = {"input_tokens": 5, "output_tokens": turn, "total_tokens": 5 + turn}
        ask = AIMessage("", tool_calls=[call], usage_metadata=usage, id=f"ask-{turn}")
        found = ToolMessage("found " * 100, tool_call_id=f"call-{turn}", id=f"found-{turn}")
        return {"messages": [ask, found, AIMessage(f"answer {turn}", id=f"answer-{turn}")]}

    builder = StateGraph(State).add_node("answer", answer).add_edge(START, "answer")
    oracle = Runs(builder.compile(checkpointer=InMemorySaver()), calls.mode)
    runs = Runs(builder.compile(checkpointer=calls.saver), calls.mode)
    for turn in range(5):
        for each in (oracle, runs):
            human = HumanMessage(f"question {turn}", id=f"human-{turn}")
            await each.invoke({"messages": [human]}, on("t"))
    expected = (await oracle.state(on("t"))).values["messages"]
    assert (await runs.state(on("t"))).values["messages"] == expected
    assert len(expected) == 20
    history = [one.values for one in await runs.history(on("t"))]
    assert history == [one.values for one in await oracle.history(on("t"))]
