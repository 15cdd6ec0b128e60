"""Whether a server keeps what it is given: what `check` finds, and what first use warns of."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

from redis import exceptions

from holdfast.backends.base import Finding, new_operation_id
from holdfast.backends.redis.errors import kind_of
from holdfast.backends.redis.names import Names, encode
from holdfast.backends.redis.scripts import Tolerant, Trips, call

_LEAST = (6, 2)
_TIMINGS = 5
# Share of maxmemory above which little room is left.
_NEARLY_FULL = 0.8
_SLOW = 0.005
_CONFIG = ("appendfsync", "save", "lazyfree-lazy-expire")
_UNKNOWN = "the user may not ask"
Fields = Mapping[str, str]


def section(reply: Any) -> dict[str, str]:
    """The fields of an INFO reply; none where the server refused it."""
    if not isinstance(reply, bytes):
        return {}
    lines = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines())
    return {name: value for name, separator, value in lines if separator}


def eviction_warning(memory: Fields) -> str | None:
    """What is wrong with a server that may drop keys when it is full."""
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return None
    return (
        f"the eviction policy is {policy}: a full server drops keys, and with them "
        "checkpoints. Set maxmemory-policy to noeviction, on a server of holdfast's own if "
        "others share this one as a cache."
    )


def check(names: Names) -> Trips[list[Finding]]:
    """Look at the server's version, durability, memory and speed, and try the user's rights."""
    sections = yield Tolerant([("INFO", part) for part in ("server", "memory", "persistence")])
    server, memory, persistence = map(section, sections)
    replies = yield Tolerant([("CONFIG", "GET", name) for name in _CONFIG])
    config = {name: _setting(reply) for name, reply in zip(_CONFIG, replies, strict=True)}
    findings = [
        _version(server),
        _persistence(persistence, config),
        _eviction(memory),
        _lazy_expiry(config),
        _headroom(memory),
    ]
    seconds = []
    for _ in range(_TIMINGS):
        begun = time.perf_counter()
        yield [("GET", names.format)]
        seconds.append(time.perf_counter() - begun)
    findings.append(_round_trip(statistics.median(seconds)))
    findings.append((yield from _rights(names)))
    return findings


def _setting(reply: Any) -> str | None:
    if isinstance(reply, Mapping):
        reply = [part for pair in reply.items() for part in pair]
    return reply[1].decode() if isinstance(reply, list) and len(reply) == 2 else None


def _version(server: Fields) -> Finding:
    version = server.get("redis_version")
    if version is None:
        return Finding("version", None, _UNKNOWN, "Allow INFO, or look at INFO server yourself.")
    name = server.get("server_name", "redis")
    is_recent = tuple(int(part) for part in version.split(".")[:2]) >= _LEAST
    remedy = "" if is_recent else "Upgrade to Redis 6.2 or newer, or to Valkey."
    return Finding("version", is_recent, f"{name} {version}", remedy)


def _persistence(persistence: Fields, config: Mapping[str, str | None]) -> Finding:
    """What a crash of the server costs."""
    if not persistence:
        return Finding("persistence", None, _UNKNOWN, "Allow INFO, or look at it yourself.")
    if persistence.get("aof_last_write_status", "ok") != "ok":
        return Finding(
            "persistence",
            False,
            "the last write to the append-only file failed",
            "Free disk space, or mend the rights of the server's directory.",
        )
    if persistence.get("aof_enabled") == "1":
        fsync = config["appendfsync"]
        if fsync == "always":
            return Finding("persistence", True, "append-only file, flushed at each commit")
        return Finding(
            "persistence",
            True,
            f"append-only file, appendfsync {fsync or 'unknown'}: a crash of the machine may "
            "cost the last second",
            "Set appendfsync to always where that second matters.",
        )
    if config["save"]:
        return Finding(
            "persistence",
            False,
            f"snapshots alone (save {config['save']}): a crash costs what came since the last",
            "Set appendonly to yes.",
        )
    return Finding(
        "persistence",
        False if config["save"] is not None else None,
        "no append-only file" + (" and no snapshots" if config["save"] is not None else ""),
        "Set appendonly to yes: otherwise a restart of the server loses checkpoints.",
    )


def _eviction(memory: Fields) -> Finding:
    policy = memory.get("maxmemory_policy")
    if policy is None:
        return Finding("eviction", None, _UNKNOWN, "See that maxmemory-policy is noeviction.")
    warning = eviction_warning(memory)
    if warning is None:
        return Finding("eviction", True, policy)
    return Finding("eviction", False, policy, f"{warning[:1].upper()}{warning[1:]}")


def _lazy_expiry(config: Mapping[str, str | None]) -> Finding:
    lazy = config["lazyfree-lazy-expire"]
    if lazy is None:
        return Finding("lazy expiry", None, _UNKNOWN, "See that lazyfree-lazy-expire is yes.")
    if lazy == "yes":
        return Finding("lazy expiry", True, lazy)
    return Finding(
        "lazy expiry",
        False,
        lazy,
        "Set lazyfree-lazy-expire to yes: a large thread that expires stops the server for as "
        "long as it takes to free it.",
    )


def _headroom(memory: Fields) -> Finding:
    if "used_memory" not in memory:
        return Finding("memory", None, _UNKNOWN, "See that used_memory stays below maxmemory.")
    used, most = int(memory["used_memory"]), int(memory.get("maxmemory", "0"))
    if not most:
        return Finding(
            "memory",
            True,
            f"{used >> 20} MiB used, no limit",
            "Set maxmemory below what the machine has: a server that the system kills for want "
            "of memory refuses nothing in time.",
        )
    share = used / most
    value = f"{used >> 20} of {most >> 20} MiB used, {share:.0%}"
    if share < _NEARLY_FULL:
        return Finding("memory", True, value)
    return Finding("memory", False, value, "Raise maxmemory, or delete or prune threads.")


def _round_trip(seconds: float) -> Finding:
    value = f"{seconds * 1000:.2f} ms"
    if seconds <= _SLOW:
        return Finding("round trip", True, value)
    return Finding(
        "round trip",
        False,
        value,
        "Each step of a graph waits for a round trip or two: bring server and client closer "
        "together, or look for slow commands (SLOWLOG GET).",
    )


def _rights(names: Names) -> Trips[Finding]:
    """Try what other scripts do, as the user who asks, where nobody else looks."""
    thread_id = f"holdfast-check-{new_operation_id().hex()}"
    keys = [
        names.meta(thread_id),
        names.blobs(thread_id),
        names.index(thread_id, ""),
        names.checkpoint(thread_id, "", ""),
        names.writes(thread_id, "", ""),
        names.threads(thread_id),
        names.run(thread_id),
    ]
    (reply,) = yield Tolerant([call("check", keys, encode(thread_id))])
    errors = (
        [reply]
        if isinstance(reply, Exception)
        else [exceptions.ResponseError(said.decode("utf-8", "replace").strip()) for said in reply]
    )
    if not errors:
        return Finding("rights", True, "can read, write and remove")
    # A right that lacks says more than a server that refuses to write for the moment.
    error = min(errors, key=lambda one: kind_of(one).passes)
    kind = kind_of(error)
    if kind.passes:
        value = f"not tried, the server refuses to write now: {error}"
        return Finding("rights", None, value, kind.remedy)
    return Finding("rights", False, str(error), kind.remedy)
