"""Where savers keep their data: a new file, a new server, or nowhere but in the process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from redis import Redis
from redis.exceptions import ResponseError
from typing_extensions import LiteralString

from tests.support.postgres_server import DURABLE, PostgresServer
from tests.support.redis_server import RedisServer


@dataclass(frozen=True)
class Place:
    """What a saver is opened on; it and its data are gone when the benchmark is done with it."""

    location: str
    """The path of a file that is not there yet, or the URL of an empty server."""
    stored_bytes: Callable[[], int]
    """Counts what a saver has left, once it has been closed."""
    table_bytes: Callable[[], int] | None = None
    """Of a database on a server: the same without indexes, which is the size of its tables."""


@contextmanager
def nowhere(folder: Path | None) -> Iterator[Place]:
    """For savers that take everything with them."""
    yield Place("", lambda: 0)


@contextmanager
def new_file(folder: Path | None) -> Iterator[Place]:
    """A file, counted with its write-ahead log, if one is left."""
    with TemporaryDirectory(dir=folder, prefix="holdfast-bench-") as name:
        path = Path(name) / "bench.db"
        log = path.with_name(path.name + "-wal")

        def stored_bytes() -> int:
            return path.stat().st_size + (log.stat().st_size if log.exists() else 0)

        yield Place(str(path), stored_bytes)


@contextmanager
def new_redis(folder: Path | None) -> Iterator[Place]:
    """A Redis server, whose bytes are what its `used_memory` has grown by."""
    with RedisServer() as server:
        with Redis.from_url(server.url) as client, suppress(ResponseError):
            # From Redis 7 on, each command that was ever called has a histogram of 25 kB.
            client.config_set("latency-tracking", "no")
        empty = used_memory(server.url)
        yield Place(server.url, lambda: used_memory(server.url) - empty)


def used_memory(url: str) -> int:
    """Ask a server until it says the same twice: it still cleans up for a moment."""
    # Each time a new connection, so that its buffers are counted alike.
    with Redis.from_url(url) as client:
        client.memory_purge()
        found = 0
        for _ in range(20):
            time.sleep(0.1)
            before, found = found, int(client.info("memory")["used_memory"])
            if found == before:
                break
        return found


@contextmanager
def new_postgres(folder: Path | None) -> Iterator[Place]:
    """A Postgres server that keeps what it acknowledged; tables are counted with indexes and toast.

    Its folder is a temporary one whatever `folder` says: the server runs as another user.
    """
    with PostgresServer({**DURABLE, "shared_buffers": "128MB"}) as server:
        yield Place(
            server.url,
            lambda: count(server.url, "pg_total_relation_size"),
            lambda: count(server.url, "pg_table_size"),
        )


def count(url: str, size: LiteralString) -> int:
    """Count the bytes of all tables in the schema `public`, and of what belongs to them."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            f"SELECT coalesce(sum({size}(oid)), 0)::bigint FROM pg_class "
            "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        ).fetchone()
    return int(found[0]) if found else 0
