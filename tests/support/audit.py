"""A look at a Redis store from beside it: every key below the prefix has its place, none lacks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast._core import Keys, references
from holdfast.backends.redis.names import decode
from redis import Redis

LIFE = 4
"""Bytes that records and writes begin with: the life of their thread."""
_FIELDS = re.compile(
    rb"life|epoch|created|keep|ops:\d+|expires|leased|persistent|deleted|lease_(token|until|by)"
)
_LEFT_FIELDS = re.compile(rb"deleted|keep|ops:\d+|lease_(token|until|by)")
_DAY = 86_400_000
"""Milliseconds for which a tombstone stands, and a lease after its end."""
_SLACK = 2
"""Milliseconds that may pass while two times are asked for."""


def milliseconds(client: Redis) -> int:
    """The server's time."""
    seconds, microseconds = client.time()  # type: ignore[misc]
    return int(seconds) * 1000 + int(microseconds) // 1000


def end_of(client: Redis, key: bytes) -> int | None:
    """When a key goes, in milliseconds since 1970; None for never."""
    while True:
        before, left, after = milliseconds(client), client.pttl(key), milliseconds(client)
        if left == -1:
            return None
        if after - before <= 1:  # else others had the machine meanwhile
            return after + left  # type: ignore[operator]


def is_tombstone(client: Redis, key: bytes) -> bool:
    """Whether a thread's hash is what is left of one that was deleted, or a lease alone.

    Raises:
        AssertionError: It would be there for ever, or for too long, or says too much.
    """
    meta = client.hgetall(key)
    if b"life" in meta or b"epoch" in meta:
        return False
    assert b"deleted" in meta or b"lease_token" in meta, meta
    assert all(_LEFT_FIELDS.fullmatch(field) for field in meta), meta
    now = milliseconds(client)
    until = max(int(meta.get(name, 0)) for name in (b"deleted", b"lease_until"))
    left = client.pttl(key)
    assert 0 < left <= max(until - now, 0) + _DAY + _SLACK, "it stays for too long"
    return True


def standing(client: Redis, prefix: str = "holdfast") -> list[bytes]:
    """All keys in order, but for tombstones, and the registry where it names nothing else."""
    names = Keys(prefix)
    found = keys(client, prefix)
    meta = names.meta("")[: -len(b"%00")]
    left = {key for key in found if key.startswith(meta) and is_tombstone(client, key)}
    registry = names.threads("")
    members = {names.meta(decode(member)) for member in client.zrange(registry, 0, -1)}
    assert left <= members, "a tombstone that no sweep comes by"
    return sorted(found - left - ({registry} if members == left else set()))


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
    """All threads, from the registry downwards; tombstones are none.

    Raises:
        AssertionError: Something is half there, lies around, or is out of order.
    """
    names = Keys(prefix)
    found = keys(client, prefix)
    reached = {names.format(), names.threads("")} & found
    threads: dict[str, Thread] = {}
    runs: dict[bytes, set[bytes]] = {}
    for member in client.zrange(names.threads(""), 0, -1):
        name = decode(member)
        if is_tombstone(client, names.meta(name)):
            reached.add(names.meta(name))
            continue
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
    _live_long_enough(client, names, name, meta, reached)
    return thread, reached


def _live_long_enough(
    client: Redis, names: Keys, name: str, meta: dict[bytes, bytes], reached: set[bytes]
) -> None:
    """No key of a thread goes before its time, nor stays for ever where the thread does not."""
    own = {names.meta(name), names.blobs(name)} & reached
    for key in own:
        end = end_of(client, key)
        if b"expires" not in meta:
            assert end is None, f"{key!r} will go"
        elif key == names.blobs(name) or not {b"deleted", b"lease_until"} & meta.keys():
            assert end is not None, f"{key!r} stays"
            assert abs(end - int(meta[b"expires"])) <= _SLACK, key
    assert (b"leased" in meta) is (b"expires" in meta)
    for key in reached - own:
        end = end_of(client, key)
        if b"leased" not in meta:
            assert end is None, f"{key!r} will go"
        else:
            assert end is not None, f"{key!r} stays"
            assert end >= int(meta[b"leased"]) - _SLACK, f"{key!r} goes"
            assert int(meta[b"leased"]) >= int(meta[b"expires"])


def chunks_of(stored: Iterable[bytes], fetch: Callable[[list[bytes]], Sequence[Any]]) -> set[bytes]:
    """All chunks that stored objects refer to, each of which must be there."""
    alive: set[bytes] = set()
    while ids := {id for one in stored for _, id in references(one)[1]} - alive:
        alive |= ids
        stored = fetch([*ids])
        assert None not in stored, "a chunk that is referred to is missing"
    return alive
