"""One SQLite file that threads, event loops and processes share."""

from holdfast.backends.sqlite.backend import SqliteBackend
from holdfast.backends.sqlite.connections import MEMORY, File, Injected
from holdfast.backends.sqlite.given_aiosqlite import AiosqliteBackend, is_aiosqlite

__all__ = ["MEMORY", "AiosqliteBackend", "File", "Injected", "SqliteBackend", "is_aiosqlite"]
