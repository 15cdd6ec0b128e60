"""Requests about how long a thread lives and who may write to it, as commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.backends.base import Expire, Lease, Release, new_operation_id
from holdfast.backends.redis.changing import Changing
from holdfast.backends.redis.names import Names, encode, milliseconds
from holdfast.backends.redis.scripts import Trips, call

Reply = Trips[Any]


class Lifetimes:
    """How each of these requests is answered.

    Args:
        names: The keys.
        changing: Runs the scripts.
    """

    def __init__(self, names: Names, changing: Changing) -> None:
        self._names = names
        self._changing = changing
        self.answers: dict[type, Callable[[Any], Reply]] = {
            Expire: self._expire,
            Lease: self._lease,
            Release: self._release,
        }

    def _expire(self, request: Expire) -> Reply:
        names, thread_id = self._names, request.thread_id
        keys = [names.meta(thread_id), names.blobs(thread_id), names.threads(thread_id)]
        ttl = milliseconds(request.ttl)
        command = call("expire", keys, encode(thread_id), ttl)
        return (yield from self._changing.change(thread_id, command, ttl)) != 0

    def _lease(self, request: Lease) -> Reply:
        names, thread_id = self._names, request.thread_id
        (reply,) = yield [
            call(
                "lease",
                [names.meta(thread_id), names.threads(thread_id)],
                encode(thread_id),
                milliseconds(request.seconds),
                b"" if request.token is None else request.token,
                new_operation_id(),
            )
        ]
        token, lasts = reply
        return (int(token) if token else None), lasts / 1000

    def _release(self, request: Release) -> Reply:
        yield [call("release", [self._names.meta(request.thread_id)], request.token)]
