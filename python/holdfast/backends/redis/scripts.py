"""The Lua scripts, and how commands name them.

A command is a tuple: its name and arguments. A script is called by its digest; the
server that does not know it is given its source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from pkgutil import get_data
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Command: TypeAlias = tuple[Any, ...]
Trips: TypeAlias = Generator[Sequence[Command], Any, T]
"""Yields the commands of one round trip, and is sent the replies."""


class Tolerant(list[Command]):
    """Commands whose error replies are wanted as they are."""


_NAMES = (
    "ancestors",
    "chunk_ids",
    "commit",
    "copy",
    "discard",
    "forget",
    "head",
    "page",
    "remove",
    "upload",
    "write",
)


def _source(name: str) -> bytes:
    # As imports read files: once, with the module.
    source = get_data(__package__, f"lua/{name}.lua")
    if source is None:
        raise ImportError(f"{__package__}: lua/{name}.lua cannot be read")
    return source


_SCRIPTS = {name: _source("common") + _source(name) for name in _NAMES}
# Redis names scripts by their SHA-1; nothing relies on it as a secure hash.
_DIGESTS = {
    name: hashlib.sha1(source, usedforsecurity=False).hexdigest()
    for name, source in _SCRIPTS.items()
}
_SOURCES = {digest: _SCRIPTS[name] for name, digest in _DIGESTS.items()}


def call(name: str, keys: Sequence[bytes], *arguments: Any) -> Command:
    """The command that runs the script `name`."""
    return ("EVALSHA", _DIGESTS[name], len(keys), *keys, *arguments)


def with_source(command: Command) -> Command:
    """The same command for a server that does not know the script."""
    if command[0] != "EVALSHA":
        return command
    return ("EVAL", _SOURCES[command[1]], *command[2:])
