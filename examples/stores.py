"""Opens the two savers that the demo compares, times their calls and sizes their files."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import holdfast
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite import SqliteSaver

OFFICIAL = "official:"
"""Prefix of a store that is opened with LangGraph's own SQLite saver; a path follows."""

MEASURED = ("put", "put_writes", "get_tuple")

Samples = dict[str, list[float]]


@contextmanager
def open_saver(store: str) -> Iterator[BaseCheckpointSaver[Any]]:
    """Open holdfast at a URL, or the official SQLite saver at `official:<path>`."""
    if store.startswith(OFFICIAL):
        with SqliteSaver.from_conn_string(store.removeprefix(OFFICIAL)) as official:
            yield official
    else:
        with holdfast.open(store) as saver:
            yield saver


def _measure(method: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    @functools.wraps(method)  # LangGraph inspects the signature of put_writes
    def measured(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            seconds.append(time.perf_counter() - start)

    return measured


def measure(saver: BaseCheckpointSaver[Any]) -> Samples:
    """Time the saver's calls from now on; the samples, in seconds, grow as it is used."""
    samples: Samples = {name: [] for name in MEASURED}
    for name, seconds in samples.items():
        setattr(saver, name, _measure(getattr(saver, name), seconds))
    return samples


def store_file(store: str) -> Path | None:
    """Give the file behind a store, or None where it is a server."""
    for prefix in (OFFICIAL, "sqlite:///"):
        if store.startswith(prefix):
            return Path(store.removeprefix(prefix).partition("?")[0])
    return None


def stored_bytes(path: Path) -> int:
    """Count the bytes of a database file and of its write-ahead log, 0 where there is none."""
    files = (path, path.with_name(path.name + "-wal"))
    return sum(each.stat().st_size for each in files if each.exists())
