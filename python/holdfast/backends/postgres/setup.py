"""See to it that the tables are there, in the layout that this version reads."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.backends.postgres.columns import Texts
from holdfast.backends.postgres.statement import Prepared, Statement, Trips
from holdfast.backends.postgres.tables import Tables, block, literal
from holdfast.backends.postgres.within import is_within
from holdfast.errors import ConfigurationError, FormatTooNew


def set_up(tables: Tables, where: str) -> Trips[tuple[bool, bool]]:
    """Look for the tables' layout, and change nothing where it is there. Otherwise make what
    lacks, in one transaction, while nobody else does. Whether something was made, and whether that
    was in a transaction of the user's.

    Raises:
        FormatTooNew: A newer version of holdfast made the tables.
        ConfigurationError: Some of the tables are gone.
    """
    found, within = yield from _layout(tables, where)
    makes = found < tables.layout
    if makes:
        yield [Statement(_migration(tables).encode())]
        found, within = yield from _layout(tables, where)
    if found > tables.layout:
        raise FormatTooNew(
            f"Postgres, {where}: tables of layout {found}, this version of holdfast reads up to "
            f"{tables.layout}. Upgrade holdfast to use them."
        )
    return makes, within


def make_ready(statements: Sequence[bytes]) -> Trips[None]:
    """Have a connection know statements before they are used: their first use is then twice as
    fast."""
    yield [Prepared(sql) for sql in statements]


def _layout(tables: Tables, where: str) -> Trips[tuple[int, bool]]:
    """The layout of the tables, 0 where there are none; and whether a transaction of the user's was
    asked."""
    name = tables.names["layout"]
    lacks = b"SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NULL"
    replies = yield [Statement(lacks, (Texts(tables.names.values()),))]
    lacking = {row[0] for row in replies[0]}
    if name in lacking:
        return 0, is_within(replies)
    if lacking:
        raise ConfigurationError(
            f"Postgres, {where}: {name} is there, but not {', '.join(sorted(lacking))}: somebody "
            "has dropped it. Restore it from a backup; or drop the other tables of this prefix, "
            "with all that they hold, and call saver.setup()."
        )
    replies = yield [Statement(f"SELECT max(version) FROM {name}".encode())]
    version: int = replies[0][0][0] or 0
    return version, is_within(replies)


def _migration(tables: Tables) -> str:
    """One statement that finds out what lacks, behind a lock, and makes it."""
    name = tables.names["layout"]
    made = []
    for version, steps in enumerate(tables.migrations):
        body = "\n".join(f"EXECUTE {literal(step)};" for step in steps)
        made.append(f"IF found <= {version} THEN\n{body}\nEND IF;")
    body = f"""DECLARE
    found integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock({tables.lock});
    {tables.create_schema}
    -- Reading pg_class makes known to this session what others made before they let go the lock.
    IF EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = to_regclass({literal(name)})) THEN
        EXECUTE {literal(f"SELECT max(version) FROM {name}")} INTO found;
    ELSE
        EXECUTE {literal(f"CREATE TABLE {name} (version INTEGER NOT NULL)")};
        EXECUTE {literal(f"INSERT INTO {name} VALUES (0)")};
    END IF;
    {"".join(made)}
    IF found < {tables.layout} THEN
        EXECUTE {literal(f"UPDATE {name} SET version = {tables.layout}")};
    END IF;
END"""
    return block(body)
