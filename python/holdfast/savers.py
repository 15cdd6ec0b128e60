"""The savers by store, with the ways in that the users of LangGraph's own savers know."""

from __future__ import annotations

import os
import sqlite3
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol
from typing_extensions import Self

from holdfast.backends.memory import MemoryBackend
from holdfast.backends.sqlite import (
    MEMORY,
    AiosqliteBackend,
    File,
    Injected,
    SqliteBackend,
    is_aiosqlite,
)
from holdfast.errors import ConfigurationError
from holdfast.options import Options
from holdfast.saver import Saver


class MemorySaver(Saver):
    """Keeps checkpoints in this process's memory, for tests and development.

    Args:
        serde: LangGraph's serializer protocol.
        options: See `holdfast.Options`.
    """

    def __init__(self, *, serde: SerializerProtocol | None = None, **options: Any) -> None:
        super().__init__(MemoryBackend(), Options.of(options), serde=serde)


class SqliteSaver(Saver):
    """Keeps checkpoints in one SQLite file that several processes may share.

    Args:
        conn: A path, `":memory:"`, or an open connection of `sqlite3` (made with
            `check_same_thread=False` if more than one thread uses the saver) or of
            `aiosqlite`. A connection that was given stays its opener's to close.
        serde: LangGraph's serializer protocol.
        options: See `holdfast.Options`.

    Raises:
        ConfigurationError: `conn` is none of these, or an option does not exist.
    """

    def __init__(
        self,
        conn: str | os.PathLike[str] | sqlite3.Connection | Any = MEMORY,
        *,
        serde: SerializerProtocol | None = None,
        **options: Any,
    ) -> None:
        known = Options.of(options)
        if isinstance(conn, sqlite3.Connection):
            backend: Any = SqliteBackend(Injected(conn), known)
        elif is_aiosqlite(conn):
            backend = AiosqliteBackend(conn, known)
        elif isinstance(conn, (str, os.PathLike)):
            backend = SqliteBackend(File(conn, known), known)
        else:
            raise ConfigurationError(
                f"SqliteSaver takes a path or a connection, not {type(conn).__name__}"
            )
        super().__init__(backend, known, serde=serde)

    @classmethod
    def from_conn_string(cls, conn_string: str, **options: Any) -> Self:
        """A saver for a path or `":memory:"`, for use under `with` or `async with`."""
        return cls(conn_string, **options)


AsyncSqliteSaver = SqliteSaver
InMemorySaver = MemorySaver
