"""Requests that remove, as commands: slices, so that nobody waits for long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.backends.base import Discard, Forget, Remove
from holdfast.backends.redis.changing import MOVED, REMOVED, Changing
from holdfast.backends.redis.names import Names, encode, part
from holdfast.backends.redis.scripts import Trips, call

Reply = Trips[Any]


class Removals:
    """How each request that removes is answered.

    Args:
        names: The keys.
        changing: Runs the scripts.
    """

    def __init__(self, names: Names, changing: Changing) -> None:
        self._names = names
        self._changing = changing
        self.answers: dict[type, Callable[[Any], Reply]] = {
            Forget: self._forget,
            Remove: self._remove,
            Discard: self._discard,
        }

    def _forget(self, request: Forget) -> Reply:
        thread_id = request.thread_id
        epoch: Any = b"" if request.epoch is None else request.epoch
        (reply,) = yield [
            self._changing.forgetting(
                thread_id,
                request.operation,
                self._changing.keep,
                epoch,
                int(request.leaves_tombstone),
            )
        ]
        if reply == MOVED:
            return False
        if reply:
            yield from self._changing.finish(thread_id)
        return True

    def _remove(self, request: Remove) -> Reply:
        """In slices: those removed first leave their parents' records as they were."""
        names, thread_id = self._names, request.thread_id
        doomed = sorted(request.checkpoints)
        starts = range(0, max(len(doomed), 1), REMOVED)
        epoch: Any = b"" if request.epoch is None else request.epoch
        for number, start in enumerate(starts):
            some = doomed[start : start + REMOVED]
            replaced = request.replaced if number == len(starts) - 1 else ()
            command = call(
                "remove",
                [names.meta(thread_id), names.blobs(thread_id), names.threads(thread_id)],
                part(request.operation, number),
                epoch,
                encode(thread_id),
                *names.bases(thread_id),
                names.runs,
                len(some),
                *(id for place in some for id in map(encode, place)),
                *(
                    each
                    for ns, id, old, new in replaced
                    for each in (encode(ns), encode(id), old, new)
                ),
            )
            reply = yield from self._changing.change(thread_id, command)
            if reply == MOVED:
                return False
            if request.epoch is not None:
                epoch = reply
            if reply == b"":
                break
        return True

    def _discard(self, request: Discard) -> Reply:
        names, thread_id = self._names, request.thread_id
        keys = [names.meta(thread_id), names.blobs(thread_id)]
        command = call("discard", keys, request.epoch, *request.ids)
        return (yield from self._changing.change(thread_id, command)) != MOVED
