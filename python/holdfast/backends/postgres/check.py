"""Whether a server keeps what it is given: what `check` finds."""

from __future__ import annotations

import statistics
import time
from typing import Any

from holdfast.backends.base import Finding
from holdfast.backends.postgres.columns import Texts
from holdfast.backends.postgres.statement import Statement, Trips
from holdfast.backends.postgres.tables import Tables

_LEAST = 12
_TIMINGS = 5
_SLOW = 0.005
# Share of max_connections above which few are left.
_NEARLY_ALL = 0.8

_SETTINGS = b"""
SELECT current_setting('server_version'), current_setting('server_version_num')::integer,
    current_setting('fsync'), current_setting('full_page_writes'),
    current_setting('synchronous_commit'), pg_is_in_recovery(),
    current_setting('default_transaction_read_only'),
    current_setting('max_connections')::integer, current_setting('autovacuum'),
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
"""
_RIGHTS = """
SELECT relation, wanted FROM unnest($1::text[]) AS relation,
    unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS wanted
WHERE NOT has_table_privilege(relation, wanted)
"""


def check(tables: Tables) -> Trips[list[Finding]]:
    """Look at the server's version, durability, connections and speed, and at the user's rights."""
    ((settings,),) = yield [Statement(_SETTINGS)]
    version, number, fsync, pages, commit, is_standby, read_only, most, vacuum, used = settings
    seconds = []
    for _ in range(_TIMINGS):
        begun = time.perf_counter()
        yield [Statement(b"SELECT 1")]
        seconds.append(time.perf_counter() - begun)
    names = [name for key, name in tables.names.items() if key != "layout"]
    (lacking,) = yield [Statement(_RIGHTS.encode(), (Texts(names),))]
    return [
        _version(version, number),
        _persistence(fsync, pages, commit),
        _writable(is_standby, read_only),
        _connections(used, most),
        Finding(
            "autovacuum",
            vacuum == "on",
            vacuum,
            "" if vacuum == "on" else "Turn it on, or run VACUUM often: tables grow otherwise.",
        ),
        _round_trip(statistics.median(seconds)),
        _rights(lacking),
    ]


def _version(version: str, number: int) -> Finding:
    is_recent = number // 10000 >= _LEAST
    remedy = "" if is_recent else f"Upgrade to PostgreSQL {_LEAST} or newer."
    return Finding("version", is_recent, f"PostgreSQL {version}", remedy)


def _persistence(fsync: str, pages: str, commit: str) -> Finding:
    """What a crash of the server costs."""
    if fsync != "on" or pages != "on":
        return Finding(
            "persistence",
            False,
            f"fsync {fsync}, full_page_writes {pages}: a crash of the machine may cost everything",
            "Set both to on.",
        )
    if commit == "off":
        return Finding(
            "persistence",
            False,
            "synchronous_commit off: a crash of the server may cost the last commits",
            "Set it to on for the user: ALTER ROLE … SET synchronous_commit = on.",
        )
    return Finding("persistence", True, f"flushed at each commit (synchronous_commit {commit})")


def _writable(is_standby: bool, read_only: str) -> Finding:
    if is_standby:
        return Finding(
            "writable", False, "a standby", "Name the primary: target_session_attrs=read-write."
        )
    if read_only == "on":
        return Finding(
            "writable",
            False,
            "default_transaction_read_only is on",
            "Turn it off for the user or the database.",
        )
    return Finding("writable", True, "a primary")


def _connections(used: int, most: int) -> Finding:
    value = f"{used} of {most} connections in use"
    if used < most * _NEARLY_ALL:
        return Finding("connections", True, value)
    return Finding(
        "connections",
        False,
        value,
        "Raise max_connections, lower pool_size, or put PgBouncer between.",
    )


def _round_trip(seconds: float) -> Finding:
    value = f"{seconds * 1000:.2f} ms"
    if seconds <= _SLOW:
        return Finding("round trip", True, value)
    return Finding(
        "round trip",
        False,
        value,
        "Each step of a graph waits for a round trip or two: bring server and client closer "
        "together.",
    )


def _rights(lacking: list[tuple[Any, ...]]) -> Finding:
    if not lacking:
        return Finding("rights", True, "can read, write and remove")
    value = ", ".join(f"{wanted} on {relation}" for relation, wanted in lacking)
    return Finding("rights", False, f"lacks {value}", "Grant them to the user.")
