"""The savers that are compared, each opened the same way on a place of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
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


def _holdfast(url: str) -> Opened:
    import holdfast

    opened: Opened = holdfast.open(url)
    return opened


def _valkey(url: str) -> Opened:
    from langgraph_checkpoint_aws import AsyncValkeySaver

    # With the 10 connections of its default, an 11th call at once is an error.
    opened: Opened = AsyncValkeySaver.from_conn_string(url, pool_size=200)
    return opened


@asynccontextmanager
async def _holdfast_postgres(url: str) -> AsyncIterator[Saver]:
    import holdfast

    async with holdfast.open(url) as saver:
        # The other one's tables must be made before its first use, too.
        await saver.asetup()
        yield saver


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
        Peer(HOLDFAST_MEMORY, nowhere, lambda _: _holdfast("memory://")),
        Peer(OFFICIAL_MEMORY, nowhere, lambda _: InMemorySaver()),
        Peer(HOLDFAST_SQLITE, new_file, lambda path: _holdfast(f"sqlite:///{path}")),
        Peer(OFFICIAL_SQLITE, new_file, AsyncSqliteSaver.from_conn_string),
        Peer(HOLDFAST_REDIS, new_redis, lambda url: _holdfast(f"{url}?prefix=bench")),
        Peer(VALKEY, new_redis, _valkey),
        Peer(HOLDFAST_POSTGRES, new_postgres, _holdfast_postgres),
        Peer(OFFICIAL_POSTGRES, new_postgres, _async_postgres),
    )
}
