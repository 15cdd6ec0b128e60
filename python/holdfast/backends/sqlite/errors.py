"""SQLite's errors as those of holdfast, each with its remedy."""

from __future__ import annotations

import sqlite3
from typing import Any

from holdfast.errors import (
    CheckpointCorrupted,
    ConfigurationError,
    HoldfastError,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
    Translation,
)

# What SQLite says, for what to raise and the remedy. Python 3.10 gives no error codes.
_BY_MESSAGE: tuple[tuple[str, type[HoldfastError], str], ...] = (
    (
        "database or disk is full",
        StoreFull,
        "Nothing of the request was stored, what was stored before is sound. Free disk "
        "space, or prune threads.",
    ),
    (
        "is locked",
        StoreTimeout,
        "Another connection held the write lock for longer than retry_budget. Find what "
        "keeps a transaction open on this file, or raise retry_budget.",
    ),
    (
        "unable to open database file",
        StoreUnavailable,
        "Create its directory, and let this process write to the file and the directory.",
    ),
    (
        "readonly database",
        StoreUnavailable,
        "Let this process write to the file, to its -wal and -shm files and to the directory.",
    ),
    (
        "file is not a database",
        StoreUnavailable,
        "Another file was named, or this one was overwritten. Name another path.",
    ),
    (
        "malformed",
        CheckpointCorrupted,
        "The file is damaged. Keep a copy, run sqlite3's .recover on it, or restore a backup.",
    ),
    (
        "disk I/O error",
        StoreUnavailable,
        "The file system refused to read or write: check quotas, limits and the disk. "
        "Whether the request was stored is unknown.",
    ),
    (
        "same thread",
        ConfigurationError,
        "Open the connection with check_same_thread=False: holdfast sees to it that one "
        "call uses it at a time.",
    ),
    (
        "closed database",
        StoreUnavailable,
        "The connection that was given to the saver is closed. Keep it open for as long as "
        "the saver is used.",
    ),
)


class translate(Translation):
    """Raises SQLite's errors, in its block, as holdfast's, naming the database and the thread."""

    __slots__ = ("_name", "_request")
    of = sqlite3.Error

    def __init__(self, name: str, request: Any) -> None:
        self._name = name
        self._request = request

    def _public(self, error: sqlite3.Error) -> HoldfastError:
        message = str(error)
        thread_id = getattr(self._request, "thread_id", None)
        where = self._name if thread_id is None else f"{self._name}, thread {thread_id!r}"
        for text, kind, remedy in _BY_MESSAGE:
            if text in message:
                return kind(f"SQLite, {where}: {message}. {remedy}")
        return StoreUnavailable(
            f"SQLite, {where}: {message}. Check that the file is one of holdfast's and that "
            "no other program changed its tables."
        )
