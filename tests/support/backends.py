"""The stores that the one suite runs on: a new backend is one line of BACKENDS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import holdfast

from support.calls import Calls
from support.postgres import settle
from support.postgres_server import postgres_url
from support.redis_server import redis_url


@dataclass(frozen=True)
class Backend:
    """How to reach a store from a folder that belongs to one test."""

    url: Callable[[Path], str]
    one_saver: str = ""
    """Why only one saver can be on a store; empty where any number can."""
    one_process: str = ""
    """Why only one process can be on a store; empty where any number can."""
    head: tuple[str, ...] = ("Head",)
    """The requests of a read of the head by a saver that has nothing cached."""

    settle: Callable[[str], None] = lambda _: None
    """Waits until the server at a URL has done what clients sent that were killed since."""

    def open(self, folder: Path, **options: Any) -> holdfast.Saver:
        return holdfast.open(self.url(folder), **options)


BACKENDS: dict[str, Backend] = {
    "memory": Backend(lambda _: "memory://", *["a memory store lives inside one saver"] * 2),
    "sqlite": Backend(lambda folder: f"sqlite:///{folder.absolute()}/state.db"),
    "redis": Backend(redis_url, head=("Head", "Chunks")),
    "postgres": Backend(postgres_url, settle=settle),
}

SHARED = [name for name, backend in BACKENDS.items() if not backend.one_process]
"""The stores that several processes can be on."""


@asynccontextmanager
async def opened(backend: Backend, folder: Path, mode: str, **options: Any) -> AsyncIterator[Calls]:
    """A saver on the folder's store, closed by the side that used it."""
    calls = Calls(backend.open(folder, **options), mode)
    try:
        yield calls
    finally:
        await calls.close()
