"""The Lua scripts, and how commands name them.

A command is a tuple: its name and arguments. A script is called by its digest; the
server that does not know it is given its source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Sequence
from pkgutil import get_data
from typing import Any, TypeAlias, TypeVar

from hiredis import pack_command

from holdfast.backends.base import TOMBSTONE_SECONDS

T = TypeVar("T")
Command: TypeAlias = tuple[Any, ...]
Trips: TypeAlias = Generator[Sequence[Command], Any, T]
"""Yields the commands of one round trip, and is sent the replies."""


class Tolerant(list[Command]):
    """Commands whose error replies are wanted as they are."""


class Afterwards(list[Command]):
    """Commands that are no part of what was asked for, which is done: they are not tried again,
    and a failure of theirs is nobody's. The reply is None then."""


def _source(name: str) -> bytes:
    # As imports read files: once, with the module.
    source = get_data(__package__, f"lua/{name}.lua")
    if source is None:
        raise ImportError(f"{__package__}: lua/{name}.lua cannot be read")
    return source


_READING = ("ancestors", "chunk_ids", "discard", "head", "page", "thread_row", "tidy")
_WHOLE_THREAD = (
    "begin_renewal",
    "commit",
    "copy",
    "expire",
    "forget",
    "lease",
    "release",
    "remove",
    "renew",
    "touch",
    "upload",
    "write",
)
_ALONE = ("check", "weigh")
_CONSTANTS = b"local TOMBSTONE = %d\n" % (TOMBSTONE_SECONDS * 1000)
# Each call makes all functions of its script: only what it may need stands in it.
_SCRIPTS = {
    **{name: _source(name) for name in _ALONE},
    **{name: _source("common") + _source(name) for name in _READING},
    **{
        name: _CONSTANTS + _source("common") + _source("thread") + _source(name)
        for name in _WHOLE_THREAD
    },
}
# Redis names scripts by their SHA-1; nothing relies on it as a secure hash.
_DIGESTS = {
    name: hashlib.sha1(source, usedforsecurity=False).hexdigest()
    for name, source in _SCRIPTS.items()
}
_SOURCES = {digest: _SCRIPTS[name] for name, digest in _DIGESTS.items()}


def call(name: str, keys: Sequence[bytes], *arguments: Any) -> Command:
    """The command that runs the script `name`."""
    return ("EVALSHA", _DIGESTS[name], len(keys), *keys, *arguments)


class Groups(tuple[Any, ...]):
    """The call of a script for one of the groups that it can take; `shared` parts come first."""

    shared: int


def call_for_group(
    name: str, keys: Sequence[bytes], shared: Sequence[Any], group: Iterable[Any]
) -> Groups:
    """The command that runs the script `name` for one group."""
    first = ("EVALSHA", _DIGESTS[name], len(keys), *keys, *shared)
    command = Groups((*first, *group))
    command.shared = len(first)
    return command


def merged(commands: Sequence[Command]) -> tuple[list[Command], list[tuple[int, int | None]]]:
    """Commands with those for groups that share all else made one, and the place of each:
    the command that has it, and its number among the groups."""
    merged: list[Command] = []
    places: list[tuple[int, int | None]] = []
    groups: dict[Command, tuple[int, list[Command]]] = {}
    for command in commands:
        if not isinstance(command, Groups):
            places.append((len(merged), None))
            merged.append(command)
            continue
        shared = command[: command.shared]
        at, of = groups.setdefault(shared, (len(merged), []))
        if not of:
            merged.append(command)
        places.append((at, len(of)))
        of.append(command[command.shared :])
    for shared, (at, of) in groups.items():
        merged[at] = (*shared, *(part for group in of for part in group))
    return merged, places


def reply_at(replies: Sequence[Any], place: tuple[int, int | None]) -> Any:
    """The reply for a command of `merged`, as if it had been sent alone."""
    at, number = place
    reply = replies[at]
    return reply if number is None or not isinstance(reply, list) else [reply[number]]


def with_source(command: Command) -> Command:
    """The same command for a server that does not know the script."""
    if command[0] != "EVALSHA":
        return command
    return ("EVAL", _SOURCES[command[1]], *command[2:])


def pack(commands: Sequence[Command]) -> bytes:
    """The bytes of commands."""
    return b"".join([pack_command(command) for command in commands])
