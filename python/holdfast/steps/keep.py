"""Which checkpoints of a thread are kept."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from langgraph.checkpoint.serde.types import TASKS

from holdfast.backends.base import WritesOf
from holdfast.drive import Steps
from holdfast.steps.history import History, Key

Choice: TypeAlias = Callable[[History], Steps[set[Key]]]
"""Chooses the checkpoints that are kept for their own sake."""

# How LangGraph names namespaces (langgraph._internal._constants): `parent:task|child:task` of
# calls, a node's name alone where a subgraph remembers its state from call to call.
_BELOW = "|"
CALL = ":"
"""In the namespaces of calls."""


def keep_all(history: History) -> Steps[set[Key]]:
    """All checkpoints."""
    yield from ()
    return set(history.items)


def keep_latest(history: History) -> Steps[set[Key]]:
    """Each namespace's head, without the calls of subgraphs whose root checkpoint goes."""
    heads = history.heads()
    kept = set(heads.values())
    for ns, key in heads.items():
        parents = history.items[key].parents()
        if CALL in ns and any(
            (of, id) in history.items and heads.get(of) != (of, id) for of, id in parents.items()
        ):
            kept.discard(key)
    return kept | (yield from _needed_for_sends(history, kept))


def keep_last(count: int) -> Choice:
    """The latest checkpoints of each namespace.

    Those of a subgraph's call go with the checkpoint that it was called from. Of a subgraph that
    remembers its state, what a run from each kept checkpoint of the root finds is kept as well.
    """

    def choose(history: History) -> Steps[set[Key]]:
        by_namespace: dict[str, list[Key]] = {}
        for key in sorted(history.items):
            by_namespace.setdefault(key[0], []).append(key)
        kept: set[Key] = set()
        oldest: dict[str, str] = {}
        # A namespace comes after those that it was called from.
        for ns in sorted(by_namespace, key=lambda ns: (ns.count(_BELOW) + 1 if ns else 0, ns)):
            keys = by_namespace[ns]
            if CALL in ns:
                keys = [key for key in keys if _has_parents(history, key, kept, oldest)]
            latest = keys[-count:]
            kept.update(latest)
            if latest:
                oldest[ns] = latest[0][1]
            if ns and CALL not in ns:
                kept.update(_seen_last(history, keys, kept))
        return kept | (yield from _needed_for_sends(history, kept))

    return choose


def keep_other_runs(runs: set[str]) -> Choice:
    """What does not come from these runs."""

    def choose(history: History) -> Steps[set[Key]]:
        yield from ()
        return {key for key, item in history.items.items() if item.run_id not in runs}

    return choose


def _seen_last(history: History, keys: Sequence[Key], kept: Iterable[Key]) -> list[Key]:
    """For each kept checkpoint of the root, the last checkpoint of a subgraph that was made before
    it, where LangGraph begins a run from there, and the last that was called from it."""
    roots = [key for key in kept if not key[0]]
    called = {history.items[key].parents().get("", ""): key for key in keys}
    before = [bisect_left(keys, (keys[0][0], id)) for _, id in roots] if keys else []
    return [
        *(called[id] for _, id in roots if id in called),
        *(keys[place - 1] for place in before if place),
    ]


def _has_parents(history: History, key: Key, kept: Iterable[Key], oldest: dict[str, str]) -> bool:
    """Whether the checkpoints that a call was made from are kept. One that is not stored may be
    on its way: it would be kept unless it is older than all that are."""
    for parent in history.items[key].parents().items():
        if parent in kept or parent[0] == key[0]:
            continue
        if parent in history.items or parent[1] < oldest.get(parent[0], ""):
            return False
    return True


def _needed_for_sends(history: History, kept: Iterable[Key]) -> Steps[set[Key]]:
    """Parents whose writes hold the sends of kept checkpoints that are older than format 4."""
    old = yield from history.before_sends(kept)
    parents = [parent for item in old if (parent := item.parent_key()) in history.items]
    needed: set[Key] = set()
    if parents:
        writes = yield WritesOf(history.thread_id, [parent for parent in parents if parent])
        for key, stored in writes.items():
            if any(history.reader.write(write.data).channel == TASKS for write in stored):
                needed.add(key)
    return needed
