"""A PostgreSQL server seen from beside a saver: its tables, its backends, its bytes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import psycopg
import pytest
from psycopg import pq, sql
from psycopg.rows import dict_row

from support.pgbouncer import PgBouncer
from support.servers import find_program

Connection = psycopg.Connection[Any]
LIBPQ = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
"""The options that a URL can have for the client; others are holdfast's."""


def eye(url: str, **settings: Any) -> Connection:
    """A connection of the test's own, where each statement is a transaction."""
    parts = urlsplit(url)
    query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name in LIBPQ])
    return psycopg.connect(parts._replace(query=query).geturl(), autocommit=True, **settings)


def table_of(url: str) -> str:
    """What the names of the tables of a URL of `postgres_url` begin with."""
    return dict(parse_qsl(urlsplit(url).query))["table"]


def tables(conn: Connection, url: str) -> dict[str, int]:
    """How many rows each table of a store has, by its name without what all begin with."""
    counts = {}
    for name, table in _tables(conn, url).items():
        found = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(table)).fetchone()
        counts[name] = found[0] if found else 0
    return counts


def dump(conn: Connection, url: str) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables of a store, in an order that is theirs alone."""
    read = sql.SQL('SELECT * FROM {} AS each_row ORDER BY each_row::text COLLATE "C"')
    with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return {
            name: cursor.execute(read.format(table)).fetchall()
            for name, table in _tables(conn, url).items()
        }


def size(conn: Connection, url: str) -> int:
    """The bytes of a store's tables with their indexes and what is kept beside them."""
    query = sql.SQL("SELECT pg_total_relation_size({}::regclass)")
    names = [table.as_string(conn) for table in _tables(conn, url).values()]
    found = [conn.execute(query.format(sql.Literal(name))).fetchone() for name in names]
    return sum(row[0] for row in found if row)


def _tables(conn: Connection, url: str) -> dict[str, sql.Identifier]:
    prefix = f"{table_of(url)}_"
    found = conn.execute(
        "SELECT nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE relkind IN ('r', 'p') AND starts_with(relname, %s) AND pg_table_is_visible(c.oid) "
        'ORDER BY relname COLLATE "C"',
        [prefix],
    )
    return {name.removeprefix(prefix): sql.Identifier(schema, name) for schema, name in found}


def backends_of(conn: Connection) -> list[dict[str, Any]]:
    """The server's clients as pg_stat_activity has them, without the one that asks."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT * FROM pg_stat_activity WHERE backend_type = 'client backend' "
            "AND pid <> pg_backend_pid() ORDER BY backend_start, pid"
        ).fetchall()


def settle(url: str) -> None:
    """Wait until the server has done with all clients that holdfast has had there."""
    with eye(url) as conn:
        while any(one["application_name"] == "holdfast" for one in backends_of(conn)):
            time.sleep(0.001)


def terminate(conn: Connection, pids: Sequence[int]) -> None:
    """End backends, and wait until they are gone."""
    # All at once: none is to see that another one has ended.
    conn.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", [list(pids)])
    for pid in pids:
        ended = conn.execute("SELECT pg_terminate_backend(%s, 10000)", [pid]).fetchone()
        still = conn.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()
        assert still is None, (pid, ended)


def bouncer(server_url: str, **settings: str | int) -> PgBouncer:
    """A PgBouncer that is not started; skips the test where it is not installed."""
    if find_program("pgbouncer") is None:
        pytest.skip("pgbouncer is not installed")
    return PgBouncer(server_url, **settings)
