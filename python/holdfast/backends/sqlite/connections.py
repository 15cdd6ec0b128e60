"""Where connections come from: a path, or the caller's own."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from holdfast.errors import ConfigurationError, StoreUnavailable
from holdfast.options import Options

MEMORY = ":memory:"
_CACHED_STATEMENTS = 256
# Pages of log before it is written over. Flushing a log that grows takes twice as long as
# flushing one that is written over, and SQLite's own 1000 take 4 MB to grow to.
_LOG_PAGES = 256
_PAGE = 4096
inherited: list[object] = []
"""What a parent process opened: closing it in a child would drop the parent's locks."""


class Source(Protocol):
    """Where connections come from."""

    is_shared: bool
    """Whether there is but one connection, for reads and writes alike."""
    name: str

    def open(self) -> sqlite3.Connection: ...
    def release(self, connection: sqlite3.Connection) -> None: ...
    def reserve(self, connection: sqlite3.Connection) -> None: ...
    def after_fork(self, writer: sqlite3.Connection | None) -> sqlite3.Connection | None: ...


class File:
    """A database file, or a database in memory."""

    def __init__(self, path: str | os.PathLike[str], options: Options) -> None:
        self.name = os.fspath(path)
        self._is_uri = self.name.startswith("file:")
        if self.name.startswith("sqlite:"):
            raise ConfigurationError(
                f"{self.name!r} is a URL: give it to holdfast.open(), or a path to SqliteSaver"
            )
        in_memory = self._is_uri and (MEMORY in self.name or "mode=memory" in self.name)
        # Without a name SQLite makes a database that only its connection can see.
        self.is_shared = in_memory or self.name in ("", MEMORY)
        self._is_gone = False
        self._options = options
        self._is_absolute = self.is_shared or self._is_uri

    def open(self) -> sqlite3.Connection:
        if self._is_gone:
            raise StoreUnavailable(
                f"SQLite, {self.name}: a database in memory goes with its saver, which was closed. "
                "Use it before, or give a path."
            )
        if not self._is_absolute:
            # Once: a later change of directory must not lead to another file.
            self.name, self._is_absolute = str(Path(self.name).absolute()), True
        connection = sqlite3.connect(
            self.name,
            timeout=self._options.retry_budget,
            isolation_level=None,
            check_same_thread=False,
            uri=self._is_uri,
            cached_statements=_CACHED_STATEMENTS,
        )
        try:
            # Only a database without pages takes this, and any other would be locked for it.
            if connection.execute("PRAGMA page_count").fetchone() == (0,):
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._enter_wal(connection)
            connection.execute(f"PRAGMA synchronous = {self._options.synchronous}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _enter_wal(self, connection: sqlite3.Connection) -> None:
        # The change of mode does not wait for other connections by itself.
        deadline = time.monotonic() + self._options.retry_budget
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
            else:
                return

    def release(self, connection: sqlite3.Connection) -> None:
        self._is_gone = self.is_shared
        connection.close()

    def reserve(self, connection: sqlite3.Connection) -> None:
        """Let a new log grow to its full size at once: 2 ms, instead of 0.1 ms at each of the
        first fifty commits. What spills into the log here is rolled back."""
        log = Path(self.name + "-wal")
        # Where there is no log, the file system did not grant one.
        if self.is_shared or self._is_uri or not log.exists():
            return
        if log.stat().st_size >= _LOG_PAGES * _PAGE:
            return
        cached = connection.execute("PRAGMA cache_size").fetchone()[0]
        try:
            connection.execute("PRAGMA cache_size = 4")
            connection.execute("BEGIN IMMEDIATE")
            # Without room for it, the log grows as it is needed.
            with suppress(sqlite3.OperationalError):
                connection.execute("CREATE TABLE holdfast_filler (bytes BLOB)")
                filler = "INSERT INTO holdfast_filler VALUES (zeroblob(?))"
                connection.execute(filler, (_LOG_PAGES * _PAGE,))
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.execute(f"PRAGMA cache_size = {cached}")

    def after_fork(self, writer: sqlite3.Connection | None) -> sqlite3.Connection | None:
        # A database in memory was copied with the process; a file must be opened anew.
        if not self.is_shared or writer is None:
            return None
        if writer.in_transaction:
            writer.execute("ROLLBACK")
        return writer


class Injected:
    """A connection that the caller opened and will close."""

    is_shared = True

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection: sqlite3.Connection | None = connection
        self.name = "the given connection"

    def open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise ConfigurationError(
                "SQLite: the saver's connection was opened by the parent of this process, and "
                "SQLite forbids to use it here. Give the saver a path instead of a connection."
            )
        return self._connection

    def release(self, connection: sqlite3.Connection) -> None:
        pass

    def reserve(self, connection: sqlite3.Connection) -> None:
        pass

    def after_fork(self, writer: sqlite3.Connection | None) -> sqlite3.Connection | None:
        inherited.append(self._connection)
        self._connection = None
        return None
