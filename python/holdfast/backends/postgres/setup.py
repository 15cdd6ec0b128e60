"""See to it that the tables are there, in the layout that this version reads."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.backends.postgres.statements import Prepared, Statement, Trips
from holdfast.backends.postgres.tables import Tables, quoted
from holdfast.errors import FormatTooNew


def set_up(tables: Tables, where: str) -> Trips[None]:
    """Look for the tables' layout, and change nothing where it is there. Otherwise make what
    lacks, in one transaction, while nobody else does.

    Raises:
        FormatTooNew: A newer version of holdfast made the tables.
    """
    found = yield from _layout(tables)
    if found < tables.layout:
        yield [Statement(_migration(tables).encode())]
        found = yield from _layout(tables)
    if found > tables.layout:
        raise FormatTooNew(
            f"Postgres, {where}: tables of layout {found}, this version of holdfast reads up to "
            f"{tables.layout}. Upgrade holdfast to use them."
        )


def make_ready(statements: Sequence[bytes]) -> Trips[None]:
    """Have a connection know statements before they are used: their first use is then twice as
    fast."""
    yield [Prepared(sql) for sql in statements]


def _layout(tables: Tables) -> Trips[int]:
    """The layout of the tables; 0 where there are none."""
    name = tables.names["layout"]
    ((there,),) = (yield [Statement(b"SELECT to_regclass($1) IS NOT NULL", (name,))])[0]
    if not there:
        return 0
    rows = (yield [Statement(f"SELECT max(version) FROM {name}".encode())])[0]
    version: int = rows[0][0] or 0
    return version


def _migration(tables: Tables) -> str:
    """One statement that finds out what lacks, behind a lock, and makes it."""
    name = tables.names["layout"]
    made = []
    for version, steps in enumerate(tables.migrations):
        body = "\n".join(f"EXECUTE {_literal(step)};" for step in steps)
        made.append(f"IF found <= {version} THEN\n{body}\nEND IF;")
    create_schema = ""
    if tables.schema is not None:
        # Asked first: who may not make a schema may use one.
        create_schema = (
            f"IF to_regnamespace({_literal(quoted(tables.schema))}) IS NULL THEN "
            f"EXECUTE {_literal(f'CREATE SCHEMA {quoted(tables.schema)}')}; END IF;"
        )
    body = f"""DECLARE
    found integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock({tables.lock});
    {create_schema}
    -- Reading pg_class makes known to this session what others made before they let go the lock.
    IF EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = to_regclass({_literal(name)})) THEN
        EXECUTE {_literal(f"SELECT max(version) FROM {name}")} INTO found;
    ELSE
        EXECUTE {_literal(f"CREATE TABLE {name} (version INTEGER NOT NULL)")};
        EXECUTE {_literal(f"INSERT INTO {name} VALUES (0)")};
    END IF;
    {"".join(made)}
    IF found < {tables.layout} THEN
        EXECUTE {_literal(f"UPDATE {name} SET version = {tables.layout}")};
    END IF;
END"""
    tag = "do"
    while f"${tag}$" in body:  # in the name of a table
        tag += "o"
    return f"DO ${tag}$\n{body}\n${tag}$"


def _literal(text: str) -> str:
    """Text as a literal of SQL, whatever standard_conforming_strings says."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"
