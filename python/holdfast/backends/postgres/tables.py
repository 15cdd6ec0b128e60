"""The tables of one prefix: their names, and the migrations that make them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence

from holdfast.errors import ConfigurationError

# Bytes of an identifier, NAMEDATALEN - 1, and of the longest that is added to the prefix.
_LONGEST = 63
_ADDED = len("_checkpoints_metadata")
_PART = re.compile(r'"((?:[^"]|"")+)"|([^."]+)')


def quoted(name: str) -> str:
    """A name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Text as a literal of SQL, whatever standard_conforming_strings says."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"


def block(body: str) -> str:
    """A body in PL/pgSQL as a statement."""
    tag = "do"
    while f"${tag}$" in body:  # in the name of a table
        tag += "o"
    return f"DO ${tag}$\n{body}\n${tag}$"


def parts(table: str) -> list[str]:
    """The names in a prefix: `holdfast`, `app.holdfast`, `"my app"."a.b"`.

    Raises:
        ConfigurationError: It is none of these.
    """
    names, at = [], 0
    while found := _PART.match(table, at):
        names.append(found[1].replace('""', '"') if found[1] else found[2])
        at = found.end()
        if at == len(table) and len(names) <= 2:
            return names
        if table[at : at + 1] != ".":
            break
        at += 1
    raise ConfigurationError(
        f"table is {table!r}; it is a prefix for the names of tables, with a schema if wanted: "
        'holdfast, app.holdfast, or "my schema"."my.prefix"'
    )


class Tables:
    """The tables of one prefix.

    Args:
        table: The prefix, perhaps behind a schema and a dot.

    Raises:
        ConfigurationError: It cannot be read, or is too long.
    """

    def __init__(self, table: str) -> None:
        *schema, prefix = parts(table)
        try:
            lengths = [len(name.encode()) for name in (*schema, prefix)]
        except UnicodeEncodeError as error:
            raise ConfigurationError(f"table {table!r} is not text that Postgres takes") from error
        if schema and lengths[0] > _LONGEST:
            raise ConfigurationError(
                f"table {table!r}: the schema's name is too long, in Postgres they have at most "
                f"{_LONGEST} bytes"
            )
        if lengths[-1] + _ADDED > _LONGEST:
            raise ConfigurationError(
                f"table {prefix!r} is too long: names in Postgres have at most {_LONGEST} bytes, "
                f"which leaves {_LONGEST - _ADDED} for the prefix"
            )
        self.schema = schema[0] if schema else None
        self._prefix = prefix
        self._before = f"{quoted(self.schema)}." if self.schema else ""
        names = ("threads", "checkpoints", "writes", "blobs", "layout")
        self.names = {name: self._before + quoted(f"{prefix}_{name}") for name in names}
        # For pg_advisory_lock, whose keys all programs of a database share.
        digest = hashlib.blake2b(f"holdfast {table}".encode(), digest_size=8).digest()
        self.lock = int.from_bytes(digest, "big", signed=True)

    def _index(self, name: str) -> str:
        return quoted(f"{self._prefix}_{name}")

    @property
    def migrations(self) -> Sequence[Sequence[str]]:
        """The statements that lead from each layout to the next, beginning with none."""
        name = self.names
        return (
            (
                # Each change of a thread updates its row: the room left makes that cheap (HOT), as
                # long as no index holds what changes.
                f"CREATE TABLE {name['threads']} ("
                'thread_id TEXT COLLATE "C" PRIMARY KEY, '
                "key BIGINT GENERATED ALWAYS AS IDENTITY, "
                "epoch BIGINT NOT NULL, "
                "created_at TIMESTAMPTZ NOT NULL DEFAULT now(), "
                "updated_at TIMESTAMPTZ NOT NULL DEFAULT now(), "
                "operations BYTEA NOT NULL DEFAULT '', "
                "operations_before BYTEA NOT NULL DEFAULT '', "
                "operations_since TIMESTAMPTZ NOT NULL DEFAULT now()"
                ") WITH (fillfactor = 70)",
                f"CREATE TABLE {name['checkpoints']} ("
                'thread_id TEXT COLLATE "C" NOT NULL, '
                "checkpoint_ns TEXT COLLATE \"C\" NOT NULL DEFAULT '', "
                'checkpoint_id TEXT COLLATE "C" NOT NULL, '
                'parent_id TEXT COLLATE "C", '
                "state JSONB, "
                "next_node TEXT, "
                "metadata JSONB DEFAULT '{}', "
                'run_id TEXT COLLATE "C", '
                "created_at TIMESTAMPTZ NOT NULL DEFAULT now(), "
                "operations BYTEA NOT NULL DEFAULT '', "
                "record BYTEA NOT NULL, "
                "PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id))",
                # A record stays in its row as long as a page holds it: what is kept apart costs a
                # look at an index.
                f"ALTER TABLE {name['checkpoints']} ALTER COLUMN record SET STORAGE MAIN",
                f"CREATE INDEX {self._index('checkpoints_metadata')} ON {name['checkpoints']} "
                "USING gin (metadata jsonb_path_ops)",
                f"CREATE INDEX {self._index('checkpoints_opaque')} ON {name['checkpoints']} "
                "(thread_id, checkpoint_id) WHERE metadata IS NULL",
                f"CREATE INDEX {self._index('checkpoints_run')} ON {name['checkpoints']} (run_id) "
                "WHERE run_id IS NOT NULL",
                # A log: nothing is replaced, who reads folds it in the order of the numbers. The
                # operation stands with the first row of each call.
                f"CREATE TABLE {name['writes']} ("
                "thread BIGINT NOT NULL, "
                "number BIGINT GENERATED ALWAYS AS IDENTITY, "
                'checkpoint_ns TEXT COLLATE "C" NOT NULL, '
                'checkpoint_id TEXT COLLATE "C" NOT NULL, '
                'task_id TEXT COLLATE "C" NOT NULL, '
                "idx INTEGER NOT NULL, "
                "operation BYTEA, "
                "data BYTEA NOT NULL)",
                f"CREATE INDEX {self._index('writes_place')} ON {name['writes']} "
                "(thread, checkpoint_id)",
                # What is stored as bytes is compressed already.
                f"ALTER TABLE {name['writes']} ALTER COLUMN data SET STORAGE EXTERNAL",
                f"CREATE TABLE {name['blobs']} (thread BIGINT NOT NULL, id BYTEA NOT NULL, "
                "data BYTEA NOT NULL, PRIMARY KEY (thread, id))",
                f"ALTER TABLE {name['blobs']} ALTER COLUMN data SET STORAGE EXTERNAL",
            ),
            (
                # Without created_at nothing lives: a tombstone or a lease is all there is. Threads
                # are listed by the minute of the last write, because an index on the time itself
                # would make each change one that is not HOT.
                f"ALTER TABLE {name['threads']} "
                "ALTER COLUMN created_at DROP NOT NULL, "
                "ADD COLUMN updated_minute INTEGER, "
                "ADD COLUMN is_persistent BOOLEAN NOT NULL DEFAULT false, "
                "ADD COLUMN expires_at TIMESTAMPTZ, "
                "ADD COLUMN deleted_at TIMESTAMPTZ, "
                "ADD COLUMN lease_token BIGINT, "
                "ADD COLUMN lease_operation BYTEA, "
                "ADD COLUMN lease_until TIMESTAMPTZ",
                # Not GENERATED, whose expression would be made ready anew at each change.
                f"ALTER TABLE {name['threads']} "
                "ALTER COLUMN updated_minute TYPE INTEGER "
                "USING floor(date_part('epoch', updated_at) / 60)::integer, "
                "ALTER COLUMN updated_minute SET NOT NULL, "
                "ALTER COLUMN updated_minute SET DEFAULT "
                "floor(date_part('epoch', now()) / 60)::integer",
                f"CREATE INDEX {self._index('threads_updated')} ON {name['threads']} "
                "(updated_minute) WHERE created_at IS NOT NULL",
                f"CREATE INDEX {self._index('threads_deleted')} ON {name['threads']} (deleted_at) "
                "WHERE created_at IS NULL",
            ),
            (
                # The writes of a call are one row: each would need more bytes for its row than for
                # itself. Rows of a layout before have one write each, and its index.
                f"ALTER TABLE {name['writes']} ALTER COLUMN idx DROP NOT NULL",
            ),
            (
                # A row of which three fit a page is not worth a second insertion.
                f"ALTER TABLE {name['checkpoints']} SET (toast_tuple_target = 2712)",
            ),
            (
                # Without a key of its own a table that is published for logical replication lets
                # nobody update or delete its rows.
                f"ALTER TABLE {name['writes']} REPLICA IDENTITY FULL",
                f"ALTER TABLE {name['layout']} REPLICA IDENTITY FULL",
                # Rows that came by logical replication have not moved the sequence: without this
                # two threads could share what lies under one key.
                f"CREATE UNIQUE INDEX {self._index('threads_key')} ON {name['threads']} (key)",
            ),
        )

    @property
    def layout(self) -> int:
        """The layout that this version of holdfast reads and writes."""
        return len(self.migrations)

    def steps(self) -> Iterator[str]:
        """The statements that lead from nothing to the newest layout."""
        yield f"CREATE TABLE {self.names['layout']} (version INTEGER NOT NULL)"
        yield f"INSERT INTO {self.names['layout']} VALUES (0)"
        for migration in self.migrations:
            yield from migration
        yield f"UPDATE {self.names['layout']} SET version = {self.layout}"

    @property
    def create_schema(self) -> str:
        """In PL/pgSQL; nothing where the search path decides. Asked for first: who may not make a
        schema may use one."""
        if self.schema is None:
            return ""
        create = f"CREATE SCHEMA {quoted(self.schema)}"
        return (
            f"IF to_regnamespace({literal(quoted(self.schema))}) IS NULL THEN "
            f"EXECUTE {literal(create)}; END IF;"
        )

    def ddl(self) -> str:
        """All statements that make the tables, for those who run migrations themselves."""
        schema = [block(f"BEGIN {self.create_schema} END")] if self.schema else []
        return "".join(f"{statement};\n" for statement in [*schema, *self.steps()])
