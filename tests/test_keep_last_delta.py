"""Two runs on one thread, where one removes what the other's delta channels are rebuilt from."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated, Any

from holdfast.errors import CheckpointRemoved
from langgraph.graph import END, START, StateGraph
from support.backends import Backend
from support.graphs import delta, on
from typing_extensions import TypedDict


class Meeting:
    """A graph with a delta channel, in which a run that says "old" waits in its second node."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.goes_on = threading.Event()

    def compile(self, saver: Any) -> Any:
        class State(TypedDict):
            items: Annotated[list[str], delta(4)]

        def second(state: State) -> dict[str, list[str]]:
            if "old" in state["items"] and "new" not in state["items"]:
                self.reached.set()
                assert self.goes_on.wait(60)
            return {"items": ["second"]}

        builder = StateGraph(State)
        builder.add_node("first", lambda _: {"items": ["first"]})
        builder.add_node("second", second)
        builder.add_edge(START, "first").add_edge("first", "second").add_edge("second", END)
        return builder.compile(checkpointer=saver)


def test_a_run_is_told_that_its_parent_went_and_the_state_is_the_others(
    backend: Backend, tmp_path: Path
) -> None:
    meeting = Meeting()
    with backend.open(tmp_path, keep_last=1) as saver:
        graph = meeting.compile(saver)
        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append(graph.invoke({"items": ["old"]}, on("t"), durability="sync"))
            except CheckpointRemoved as error:
                outcome.append(error)

        late = threading.Thread(target=run)
        late.start()
        assert meeting.reached.wait(60)
        for turn in range(9):
            graph.invoke({"items": ["new", str(turn)]}, on("t"), durability="sync")
        expected = graph.get_state(on("t")).values
        assert expected["items"][-4:] == ["new", "8", "first", "second"]
        meeting.goes_on.set()
        late.join()
        assert isinstance(outcome[0], CheckpointRemoved), outcome
        assert graph.get_state(on("t")).values == expected
