"""What stands in Redis: keys, fields, and the heads of records and pending writes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from holdfast._core import IntegrityError, Keys
from holdfast.backends.base import Fence, Predecessor, Row, StoredWrite
from holdfast.errors import ConfigurationError

# What `p:format` says: the layout of the keys, and the lowest that reads it.
LAYOUT = 1
LIFE_BYTES = 4
_INDEX = struct.Struct(">i")
_LENGTH = struct.Struct(">H")
_LONGEST_PARENT = 65_535  # what _LENGTH can say
_LAST_TIME = (1 << 48) - 1
_GREATEST_SCORE = float(1 << 53)


def encode(id: str) -> bytes:
    """An id as Redis holds it; lone surrogates too."""
    return id.encode("utf-8", "surrogatepass")


def decode(id: bytes) -> str:
    """The id that was given to `encode`.

    Raises:
        IntegrityError: It is damaged.
    """
    try:
        return id.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{id!r} stands where an id should be") from error


def number(field: bytes | None) -> int:
    """A number of a thread's hash.

    Raises:
        IntegrityError: It is damaged.
    """
    try:
        return int(field or b"")
    except ValueError as error:
        raise IntegrityError(f"{field!r} stands where a number should be") from error


def write_field(write: StoredWrite) -> bytes:
    """The field of a pending write: its index, then its task."""
    return _INDEX.pack(write.idx) + encode(write.task_id)


def with_parent(record: bytes, parent_id: str | None) -> bytes:
    """A record behind its parent's id, for scripts to follow.

    Raises:
        ConfigurationError: The id is too long.
    """
    parent = encode(parent_id or "")
    if len(parent) > _LONGEST_PARENT:
        raise ConfigurationError(
            f"the id of the parent checkpoint is {len(parent)} bytes long, of which Redis keeps "
            f"at most {_LONGEST_PARENT}; nothing was stored. Give checkpoints shorter ids."
        )
    return _LENGTH.pack(len(parent)) + parent + record


def record_of(stored: bytes) -> bytes:
    """The record of a stored string."""
    start = LIFE_BYTES + _LENGTH.size
    if len(stored) < start:
        return b""  # damaged: the core says so
    return stored[start + _LENGTH.unpack_from(stored, LIFE_BYTES)[0] :]


def milliseconds(seconds: float | None) -> bytes:
    """A duration as scripts take it; none as nothing."""
    return b"" if seconds is None else b"%d" % max(round(seconds * 1000), 1)


def fence_of(fence: Fence | None) -> bytes:
    """A fence as scripts take it; none as nothing."""
    return b"" if fence is None else b"%d %b" % (fence.token, milliseconds(fence.seconds))


def follows_of(follows: Sequence[Predecessor]) -> bytes:
    """Predecessors as scripts take them."""
    parts = []
    for one in follows:
        parts += [min(one.made, _LAST_TIME).to_bytes(6, "big"), bytes([one.rank])]
        for id in (encode(one.checkpoint_ns), encode(one.checkpoint_id)):
            parts += [len(id).to_bytes(4, "big"), id]
    return b"".join(parts)


def part(operation: bytes, number: int) -> bytes:
    """An operation id for one of the scripts that a request takes beside its last."""
    last = int.from_bytes(operation[-4:], "big") ^ (number + 1)
    return operation[:-4] + last.to_bytes(4, "big")


def place_of(field: bytes) -> tuple[str, str]:
    """The namespace and id that common.lua's `orphan` made a field of.

    Raises:
        IntegrityError: It is damaged.
    """
    _, length, rest = field.split(b":", 2) if field.count(b":") > 1 else (b"", field, b"")
    return decode(rest[: number(length)]), decode(rest[number(length) :])


def members_of(reply: Any) -> list[tuple[str, int]]:
    """The members and scores of a sorted set: in turns, or paired where the protocol is RESP3."""
    if not reply or not isinstance(reply[0], (list, tuple)):
        reply = zip(reply[::2], reply[1::2], strict=True)
    return [(decode(member), _whole(float(score))) for member, score in reply]


def _whole(score: float) -> int:
    """A score that only damage makes greater than all times is one that sorts like it."""
    return int(min(max(score, -_GREATEST_SCORE), _GREATEST_SCORE))


def pairs(reply: Any) -> Iterator[tuple[bytes, bytes]]:
    """The pairs of a hash: a list in turns, or a mapping where the protocol is RESP3."""
    if isinstance(reply, Mapping):
        yield from reply.items()
    else:
        yield from zip(reply[::2], reply[1::2], strict=True)


def writes_of(reply: Any, life: bytes) -> list[StoredWrite]:
    """The pending writes of a hash; not those of an earlier life of the thread.

    Raises:
        IntegrityError: What says whose they are is damaged.
    """
    try:
        return [
            StoredWrite(decode(field[4:]), _INDEX.unpack_from(field)[0], data[LIFE_BYTES:])
            for field, data in pairs(reply)
            if data[:LIFE_BYTES] == life
        ]
    except struct.error as error:
        raise IntegrityError("the name of a pending write is cut off") from error


def row(
    thread_id: str,
    checkpoint_ns: str,
    checkpoint_id: bytes,
    stored: bytes | None = None,
    writes: Any = (),
    chunks: Sequence[bytes] = (),
) -> Row:
    """A checkpoint as scripts reply it: where an index names it and it is gone, without a record,
    which whoever opens it is told."""
    if stored is None:
        return Row(thread_id, checkpoint_ns, decode(checkpoint_id), b"", [], {})
    return Row(
        thread_id,
        checkpoint_ns,
        decode(checkpoint_id),
        record_of(stored),
        writes_of(writes, stored[:LIFE_BYTES]),
        dict(pairs(chunks)),
    )


class Names:
    """The keys below one prefix."""

    def __init__(self, prefix: str) -> None:
        self._keys = Keys(prefix)
        self.checkpoint = self._keys.checkpoint
        self.writes = self._keys.writes
        self.index = self._keys.index
        self.blobs = self._keys.blobs
        self.meta = self._keys.meta
        self.threads = self._keys.threads
        self.run = self._keys.run
        self.runs = self._keys.runs()
        self.format = self._keys.format()

    def bases(self, thread_id: str) -> tuple[bytes, bytes, bytes]:
        """What the thread's indexes, checkpoints and writes begin with."""
        return (
            self._keys.index(thread_id, ""),
            self._keys.checkpoints(thread_id),
            self._keys.all_writes(thread_id),
        )
