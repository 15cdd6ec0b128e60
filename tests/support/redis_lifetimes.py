"""How long the keys of threads live in Redis, and threads that have one of each kind."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import redis
from holdfast.backends.redis.scripts import call

from .calls import Calls
from .make import checkpoint, checkpoint_id, config, version
from .redis import keys
from .redis_wire import Trip
from .uses import WORDS

TTL = 1000.0
"""Seconds that no test waits for."""
FOR_EVER = -1
_NAMES = ("begin_renewal", "commit", "renew", "touch")
_DIGESTS = {call(name, [])[1].encode(): name for name in _NAMES}


def script(trip: Trip) -> str:
    """The name of the script that is called; empty for others than those named here."""
    name, *rest = trip.command
    digest = hashlib.sha1(rest[0]).hexdigest().encode() if name == b"EVAL" else rest[0]
    return _DIGESTS.get(digest, "")


def lives(client: redis.Redis, thread: str = "") -> dict[bytes, int]:
    """How long all keys live, or those of a thread (ms), but for `p:format`."""
    found = [key for key in keys(client) if key != b"holdfast:format"]
    if thread:
        found = [key for key in found if thread.encode() in key.split(b":")]
    return {key: client.pttl(key) for key in found}  # type: ignore[misc]


def fields(client: redis.Redis, thread: str = "t") -> dict[bytes, bytes]:
    return client.hgetall(f"holdfast:meta:{thread}")  # type: ignore[return-value]


async def put(calls: Calls, number: int, thread: str = "t", ns: str = "", value: Any = None) -> Any:
    state = {"state": value or WORDS[: number + 3]}
    one = checkpoint(number, state, {"state": version(number)})
    stored = await calls.put(
        config(thread, ns),
        one,
        {"run_id": f"r{number % 3}"},
        one["channel_versions"],  # type: ignore[typeddict-unknown-key]
    )
    await calls.put_writes(stored, [("a", number)], "task")
    return stored


async def grow(calls: Calls, count: int = 6) -> None:
    """A thread with namespaces, writes, runs, and writes that have no checkpoint."""
    for number in range(count):
        await put(calls, number, ns="sub:1" if number % 3 == 2 else "")
    await calls.put_writes(config("t", "", checkpoint_id(900)), [("early", 1)], "task")


def large() -> list[bytes]:
    rng = random.Random(3)
    return [rng.randbytes(5000) for _ in range(500)]
