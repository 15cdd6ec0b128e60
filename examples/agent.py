"""A LangGraph agent with a scripted chat model, real tools and a step that asks for approval."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated, Any, Literal

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolCall, ToolMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, interrupt
from script import ANSWERABLE, REPORT_FILE, REPORT_REQUEST
from tools import NEEDS_APPROVAL, make_tools
from typing_extensions import TypedDict

APPROVE = "approve"


class Conversation(TypedDict):
    """The state of the graph: the messages so far."""

    messages: Annotated[list[AnyMessage], add_messages]


def stable_id(*parts: object) -> str:
    """Give an id that depends only on the parts, so that every run makes the same messages."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(map(str, parts))))


def question_message(number: int, text: str) -> HumanMessage:
    return HumanMessage(text, id=stable_id("question", number))


def _calls(turn: str, step: int, wanted: list[tuple[str, dict[str, Any]]]) -> AIMessage:
    """Make the model's message that calls tools."""
    calls = [
        ToolCall(name=name, args=args, id=f"call_{stable_id(turn, step, i)}")
        for i, (name, args) in enumerate(wanted)
    ]
    return AIMessage("", tool_calls=calls, id=stable_id("calls", turn, step))


def _answer(turn: str, results: list[ToolMessage]) -> AIMessage:
    """Make the model's final answer: the first line that each tool found."""
    found = [f"- {str(result.content).splitlines()[0]}" for result in results]
    return AIMessage("The documentation says:\n" + "\n".join(found), id=stable_id("answer", turn))


def _report(messages: list[AnyMessage]) -> str:
    """Put every question and its answer into one text."""
    parts = []
    for message in messages[:-1]:
        if isinstance(message, HumanMessage):
            parts.append(f"Q: {message.content}")
        elif isinstance(message, AIMessage) and not message.tool_calls:
            parts.append(f"A: {message.content}\n")
    return "\n".join(parts)


def next_reply(messages: list[AnyMessage]) -> AIMessage:
    """Give the model's next message. It depends on the conversation alone, not on the process."""
    start = max(i for i, each in enumerate(messages) if isinstance(each, HumanMessage))
    turn = str(messages[start].content)
    since = messages[start + 1 :]
    step = sum(isinstance(each, AIMessage) for each in since)
    results = [each for each in since if isinstance(each, ToolMessage)]
    if turn == REPORT_REQUEST:
        if step == 0:
            args = {"filename": REPORT_FILE, "body": _report(messages)}
            return _calls(turn, step, [("save_report", args)])
        return AIMessage(f"Done: {results[-1].content}.", id=stable_id("answer", turn))
    rounds = ANSWERABLE[turn].rounds
    if step < len(rounds):
        return _calls(turn, step, list(rounds[step]))
    return _answer(turn, results)


def build_agent(
    saver: BaseCheckpointSaver[Any], report_folder: Path
) -> CompiledStateGraph[Conversation, None, Conversation, Conversation]:
    """Build the graph: model → (approval →) tools → model, until the model answers."""
    tools = make_tools(report_folder)

    def model(state: Conversation) -> dict[str, list[AnyMessage]]:
        chat = GenericFakeChatModel(messages=iter([next_reply(state["messages"])]))
        return {"messages": [chat.invoke(state["messages"])]}

    def route(state: Conversation) -> Literal["approval", "tools", "__end__"]:
        calls = _last_calls(state)
        if not calls:
            return "__end__"
        return "approval" if any(each["name"] in NEEDS_APPROVAL for each in calls) else "tools"

    def approval(state: Conversation) -> Command[Literal["tools", "model"]]:
        calls = _last_calls(state)
        names = ", ".join(each["name"] for each in calls)
        if interrupt({"question": f"May I run {names}?"}) == APPROVE:
            return Command(goto="tools")
        refused = [
            ToolMessage("a human refused", tool_call_id=each["id"], id=stable_id(each["id"]))
            for each in calls
        ]
        return Command(goto="model", update={"messages": refused})

    def run_tools(state: Conversation) -> dict[str, list[ToolMessage]]:
        results = []
        for call in _last_calls(state):
            result: ToolMessage = tools[call["name"]].invoke(call)
            result.id = stable_id(call["id"])
            results.append(result)
        return {"messages": results}

    builder = StateGraph(Conversation)
    builder.add_node("model", model)
    builder.add_node("approval", approval)
    builder.add_node("tools", run_tools)
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", route)
    builder.add_edge("tools", "model")
    return builder.compile(checkpointer=saver)


def _last_calls(state: Conversation) -> list[ToolCall]:
    """Give the tool calls of the last message, if it is the model's."""
    last = state["messages"][-1]
    return last.tool_calls if isinstance(last, AIMessage) else []
