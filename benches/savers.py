"""The savers that are compared, each opened the same way on a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

Saver = BaseCheckpointSaver[Any]
Opened = AbstractAsyncContextManager[Saver]

HOLDFAST_MEMORY = "holdfast memory"
HOLDFAST_SQLITE = "holdfast sqlite"
OFFICIAL_MEMORY = "InMemorySaver"
OFFICIAL_SQLITE = "AsyncSqliteSaver"


@dataclass(frozen=True)
class Peer:
    """A saver under comparison."""

    name: str
    open: Callable[[Path], Opened]
    on_file: bool


def _holdfast_memory(path: Path) -> Opened:
    import holdfast

    opened: Opened = holdfast.open("memory://")
    return opened


def _holdfast_sqlite(path: Path) -> Opened:
    import holdfast

    opened: Opened = holdfast.open(f"sqlite:///{path}")
    return opened


def _official_memory(path: Path) -> Opened:
    return InMemorySaver()


def _official_sqlite(path: Path) -> Opened:
    return AsyncSqliteSaver.from_conn_string(str(path))


PEERS = {
    each.name: each
    for each in (
        Peer(HOLDFAST_MEMORY, _holdfast_memory, on_file=False),
        Peer(OFFICIAL_MEMORY, _official_memory, on_file=False),
        Peer(HOLDFAST_SQLITE, _holdfast_sqlite, on_file=True),
        Peer(OFFICIAL_SQLITE, _official_sqlite, on_file=True),
    )
}


def stored_bytes(path: Path) -> int:
    """Count the bytes of a closed database: the file and the write-ahead log, if one is left."""
    log = path.with_name(path.name + "-wal")
    return path.stat().st_size + (log.stat().st_size if log.exists() else 0)
