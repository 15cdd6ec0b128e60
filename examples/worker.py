"""One process of the demo: asks, resumes or travels in time, then writes down what it saw."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent import APPROVE, build_agent, question_message
from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, StateSnapshot
from script import FOLLOW_UP, FORK_AT, OTHER_QUESTION, QUESTIONS, REPORT_REQUEST
from stores import measure, open_saver

Seen = dict[str, Any]


def fingerprint(messages: list[AnyMessage]) -> str:
    """Give a digest of everything in the messages: equal digests mean equal conversations."""
    plain = [each.model_dump(mode="json") for each in messages]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def summary(state: StateSnapshot) -> Seen:
    """Describe a state well enough for another process to compare its own with it."""
    messages = state.values["messages"]
    return {
        "messages": len(messages),
        "fingerprint": fingerprint(messages),
        "next": list(state.next),
        "interrupts": [each.value for each in state.interrupts],
        "checkpoint_id": state.config["configurable"]["checkpoint_id"],
        "last": str(messages[-1].content),
    }


def run_questions(graph: Any, config: RunnableConfig) -> Seen:
    """Process 1: ask everything, until the agent wants to do something that needs approval."""
    answers = []
    for number, question in enumerate(QUESTIONS):
        result = graph.invoke({"messages": [question_message(number, question.text)]}, config)
        answers.append([question.text, str(result["messages"][-1].content)])
    request = question_message(len(QUESTIONS), REPORT_REQUEST)
    result = graph.invoke({"messages": [request]}, config)
    in_memory = fingerprint(result["messages"])
    return {"answers": answers, "in_memory": in_memory, "end": summary(graph.get_state(config))}


def resume(graph: Any, config: RunnableConfig) -> Seen:
    """Process 2: find the conversation as it was left, approve, and let it finish."""
    found = summary(graph.get_state(config))
    graph.invoke(Command(resume=APPROVE), config)
    return {"found": found, "end": summary(graph.get_state(config))}


def travel(graph: Any, config: RunnableConfig) -> Seen:
    """Process 3: go back to an earlier question, ask another one, and go on from there."""
    old_end = graph.get_state(config)
    asked = QUESTIONS[FORK_AT].text
    back = next(
        state
        for state in graph.get_state_history(config)
        if state.next == ("model",) and state.values["messages"][-1].content == asked
    )
    replaced = HumanMessage(OTHER_QUESTION.text, id=back.values["messages"][-1].id)
    fork = graph.update_state(back.config, {"messages": [replaced]}, as_node="__start__")
    graph.invoke(None, fork)
    follow_up = question_message(len(QUESTIONS) + 1, FOLLOW_UP.text)
    graph.invoke({"messages": [follow_up]}, config)
    new_end = graph.get_state(config)
    contents = [str(each.content) for each in new_end.values["messages"]]
    everything = (*old_end.values["messages"], *new_end.values["messages"])
    return {
        "asked": asked,
        "back": summary(back),
        "end": summary(new_end),
        "fork_has": [OTHER_QUESTION.text in contents, asked in contents],
        "old_end": summary(graph.get_state(old_end.config)),
        "checkpoints": sum(1 for _ in graph.checkpointer.list(config)),
        "messages": len({fingerprint([each]) for each in everything}),
    }


PHASES: dict[str, Callable[[Any, RunnableConfig], Seen]] = {
    "ask": run_questions,
    "resume": resume,
    "travel": travel,
}


def main() -> None:
    """Run one phase against one store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phase", choices=PHASES)
    parser.add_argument("--store", required=True, help="a holdfast URL, or official:<path>")
    parser.add_argument("--thread", required=True, help="the conversation's thread id")
    parser.add_argument("--folder", required=True, type=Path, help="where reports may be saved")
    parser.add_argument("--out", required=True, type=Path, help="the JSON file for what was seen")
    options = parser.parse_args()
    config: RunnableConfig = {"configurable": {"thread_id": options.thread}}
    with open_saver(options.store) as saver:
        samples = measure(saver)
        graph = build_agent(saver, options.folder)
        seen = PHASES[options.phase](graph, config)
    seen |= {"pid": os.getpid(), "samples": samples}
    options.out.write_text(json.dumps(seen), encoding="utf-8")


if __name__ == "__main__":
    main()
