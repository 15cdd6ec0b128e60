"""A look at a Redis store from beside it: every key below the prefix has its place, none lacks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast._core import Keys, references
from redis import Redis

LIFE = 4
"""Bytes that records and writes begin with: the life of their thread."""
_FIELDS = re.compile(rb"life|epoch|created|keep|ops:\d+")


@dataclass
class Thread:
    """What one thread has."""

    ids: dict[str, list[str]] = field(default_factory=dict)
    """The index of each namespace."""
    orphans: list[tuple[str, str]] = field(default_factory=list)
    """Places of writes that have no checkpoint."""
    garbage: set[bytes] = field(default_factory=set)
    """Chunks that nothing refers to."""


def keys(client: Redis, prefix: str = "holdfast") -> set[bytes]:
    """All keys below a prefix of letters."""
    return set(client.scan_iter(match=f"{prefix}:*", count=1000))


def audit(client: Redis, prefix: str = "holdfast") -> dict[str, Thread]:
    """All threads, from the registry downwards.

    Raises:
        AssertionError: Something is half there, lies around, or is out of order.
    """
    names = Keys(prefix)
    found = keys(client, prefix)
    reached = {names.format(), names.threads("")} & found
    threads: dict[str, Thread] = {}
    runs: dict[bytes, set[bytes]] = {}
    for member in client.zrange(names.threads(""), 0, -1):
        name = member.decode()
        threads[name], below = _thread(client, names, name)
        reached |= below
        for entry in client.hkeys(names.meta(name)):
            if entry.startswith(b"run:"):
                runs.setdefault(names.run(entry[4:].decode()), set()).add(member)
    for run, members in runs.items():
        assert client.smembers(run) == members
        reached.add(run)
    assert found == reached, f"{found - reached} lie around, {reached - found} are missing"
    return threads


def _thread(client: Redis, names: Keys, name: str) -> tuple[Thread, set[bytes]]:
    """What a thread has, and its keys."""
    thread = Thread()
    meta = client.hgetall(names.meta(name))
    life = meta[b"life"]
    assert len(life) == LIFE
    reached = {names.meta(name)}
    front: list[bytes] = []
    writes: list[tuple[str, str]] = []
    for entry in meta:
        kind, _, rest = entry.partition(b":")
        if kind == b"ns":
            space = rest.decode()
            index = client.lrange(names.index(name, space), 0, -1)
            assert index, "an index that is empty is not there"
            assert index == sorted(set(index)), "the index is out of order, or names one twice"
            thread.ids[space] = [id.decode() for id in index]
            reached.add(names.index(name, space))
            for id in thread.ids[space]:
                stored = client.get(names.checkpoint(name, space, id))
                assert stored is not None, "the index names what is not there"
                assert stored[:LIFE] == life
                start = LIFE + 2 + int.from_bytes(stored[LIFE : LIFE + 2], "big")
                front.append(stored[start:])
                reached.add(names.checkpoint(name, space, id))
                writes.append((space, id))
        elif kind == b"w":
            length, _, rest = rest.partition(b":")
            place = rest[: int(length)].decode(), rest[int(length) :].decode()
            assert client.exists(names.checkpoint(name, *place)) == 0, "the writes have one"
            thread.orphans.append(place)
            writes.append(place)
        else:
            assert kind == b"run" or _FIELDS.fullmatch(entry), entry
    for place in writes:
        stored_writes = client.hvals(names.writes(name, *place))
        assert stored_writes or place not in thread.orphans
        assert all(one[:LIFE] == life for one in stored_writes)
        front += [one[LIFE:] for one in stored_writes]
        reached |= {names.writes(name, *place)} if stored_writes else set()
    alive = chunks_of(front, lambda ids: client.hmget(names.blobs(name), ids))
    chunks = set(client.hkeys(names.blobs(name)))
    thread.garbage = chunks - alive
    reached |= {names.blobs(name)} if chunks else set()
    return thread, reached


def chunks_of(stored: Iterable[bytes], fetch: Callable[[list[bytes]], Sequence[Any]]) -> set[bytes]:
    """All chunks that stored objects refer to, each of which must be there."""
    alive: set[bytes] = set()
    while ids := {id for one in stored for _, id in references(one)[1]} - alive:
        alive |= ids
        stored = fetch([*ids])
        assert None not in stored, "a chunk that is referred to is missing"
    return alive
