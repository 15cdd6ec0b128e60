"""The savers that are compared, each opened the same way on a place of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from benches.places import Place, new_file, new_postgres, new_redis, nowhere

Saver = BaseCheckpointSaver[Any]
Opened = AbstractAsyncContextManager[Saver]

HOLDFAST_MEMORY = "holdfast memory"
HOLDFAST_SQLITE = "holdfast sqlite"
HOLDFAST_REDIS = "holdfast redis"
HOLDFAST_POSTGRES = "holdfast postgres"
OFFICIAL_MEMORY = "InMemorySaver"
OFFICIAL_SQLITE = "AsyncSqliteSaver"
OFFICIAL_POSTGRES = "AsyncPostgresSaver"
VALKEY = "AsyncValkeySaver"


@dataclass(frozen=True)
class Peer:
    """A saver under comparison."""

    name: str
    place: Callable[[Path | None], AbstractContextManager[Place]]
    """Makes a new place; files go into the folder, if one is given."""
    open: Callable[[str], Opened]
    """Opens the saver on a place's location."""

    @property
    def keeps(self) -> bool:
        """Whether data outlive the saver: they can be counted, and opened again."""
        return self.place is not nowhere


HOLDFAST: dict[str, Callable[[str], str]] = {
    HOLDFAST_MEMORY: lambda _: "memory://",
    HOLDFAST_SQLITE: lambda path: f"sqlite:///{path}",
    HOLDFAST_REDIS: lambda url: f"{url}?prefix=bench",
    HOLDFAST_POSTGRES: lambda url: url,
}
"""holdfast's own savers: from a place's location to the URL."""


@asynccontextmanager
async def open_holdfast(name: str, location: str, **options: Any) -> AsyncIterator[Any]:
    """Open one of holdfast's own savers, its tables made: the others' are made before, too."""
    import holdfast

    async with holdfast.open(HOLDFAST[name](location), **options) as saver:
        if name == HOLDFAST_POSTGRES:
            await saver.asetup()
        yield saver


def _valkey(url: str) -> Opened:
    from langgraph_checkpoint_aws import AsyncValkeySaver

    # With the 10 connections of its default, an 11th call at once is an error.
    opened: Opened = AsyncValkeySaver.from_conn_string(url, pool_size=200)
    return opened


@asynccontextmanager
async def _async_postgres(url: str) -> AsyncIterator[Saver]:
    """With a pool, as its documentation has it."""
    settings = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(url, max_size=20, kwargs=settings, open=False) as pool:
        saver = AsyncPostgresSaver(pool)  # type: ignore[arg-type]  # the rows are in kwargs
        await saver.setup()
        yield saver


PEERS = {
    each.name: each
    for each in (
        Peer(HOLDFAST_MEMORY, nowhere, partial(open_holdfast, HOLDFAST_MEMORY)),
        Peer(OFFICIAL_MEMORY, nowhere, lambda _: InMemorySaver()),
        Peer(HOLDFAST_SQLITE, new_file, partial(open_holdfast, HOLDFAST_SQLITE)),
        Peer(OFFICIAL_SQLITE, new_file, AsyncSqliteSaver.from_conn_string),
        Peer(HOLDFAST_REDIS, new_redis, partial(open_holdfast, HOLDFAST_REDIS)),
        Peer(VALKEY, new_redis, _valkey),
        Peer(HOLDFAST_POSTGRES, new_postgres, partial(open_holdfast, HOLDFAST_POSTGRES)),
        Peer(OFFICIAL_POSTGRES, new_postgres, _async_postgres),
    )
}
