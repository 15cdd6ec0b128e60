"""Tables: in any schema, made once whoever comes, changed by nobody, told when newer."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import holdfast
import psycopg
import pytest
from holdfast import PostgresSaver
from psycopg import sql
from support.calls import Calls
from support.make import checkpoint, config
from support.postgres import Connection, eye
from support.postgres_server import PostgresServer
from support.uses import put_one, use
from support.workers import put_chain

SPAWN = multiprocessing.get_context("spawn")
NAMES = [
    *("holdfast", "app.holdfast", '"my app"."my tables"', '"a.b"."c.d"', "Upper.Case"),
    *(
        '"with ""quotes"""',
        "it's",
        "back\\slash",
        "$do$",
        "a$$b",
        "\u00fcml\u00e4ut",
        "select.table",
    ),
    *(
        "x" * 40,
        f"{'y' * 63}.{'x' * 40}",
        "percent%s",
        "new\nline",
        "{threads}",
        "a;b--c",
        "pg_toast2",
    ),
]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def conn(server: PostgresServer) -> Iterator[Connection]:
    """A look at an empty database."""
    with eye(server.url) as conn:
        names = conn.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' "
            "AND nspname <> 'information_schema'"
        ).fetchall()
        for (name,) in names:
            conn.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))
        conn.execute("CREATE SCHEMA public")
        yield conn


def catalog(conn: Connection) -> Any:
    """Everything that is there, with the transaction that made it."""
    return conn.execute(
        "SELECT oid, xmin::text, relname, relfilenode FROM pg_class "
        "WHERE relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname !~ '^pg_') ORDER BY oid"
    ).fetchall()


def own(conn: Connection) -> list[str]:
    names = "SELECT tablename FROM pg_tables WHERE schemaname !~ '^(pg_|information_)'"
    found = conn.execute(names)
    return sorted(name for (name,) in found)


def pid_of(conn: Connection) -> int:
    return conn.info.backend_pid


# --- names


@pytest.mark.parametrize("table", NAMES)
async def test_tables_may_have_any_name(
    server: PostgresServer, conn: Connection, table: str, mode: str
) -> None:
    calls = Calls(PostgresSaver(server.url, table=table), mode)
    await use(calls)
    await calls.list(None, filter={"step": 3})
    await calls.prune(["t"])
    await calls.delete_for_runs(["nobody"])
    found = {one.what: one for one in await calls.call("check")}
    assert found["rights"].is_fine
    await calls.close()
    made = own(conn)
    # The same statements, run by hand.
    for schema in {one for (one,) in conn.execute("SELECT schemaname FROM pg_tables")} - {
        "pg_catalog",
        "information_schema",
    }:
        conn.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
    conn.execute("CREATE SCHEMA IF NOT EXISTS public")
    conn.execute(PostgresSaver.ddl(table).encode())
    assert own(conn) == made
    with PostgresSaver(server.url, table=table) as again:
        before = catalog(conn)
        await asyncio.to_thread(put_one, again)
        assert catalog(conn) == before


@pytest.mark.parametrize(
    "table",
    [
        *("x" * 43, "\u00fc" * 22, "", ".", "a.", ".a", "a.b.c", '"a', '""', 'a"b', "a\0b"),
        *("s" * 64 + ".x", "\ud800", "\ud800.x"),
    ],
)
def test_a_name_that_cannot_be_is_refused_at_once(table: str) -> None:
    for attempt in (
        lambda: PostgresSaver("postgresql://localhost", table=table),
        lambda: holdfast.open("postgresql://localhost", table=table),
    ):
        with pytest.raises(holdfast.ConfigurationError, match="table"):
            attempt()


def test_prefixes_do_not_see_each_other(server: PostgresServer, conn: Connection) -> None:
    names = ["a", "b", "a_checkpoints", "A", "other.a"]
    savers = [PostgresSaver(server.url, table=name) for name in names]
    for saver, name in zip(savers, names, strict=True):
        put_one(saver, name)
    for saver, name in zip(savers, names, strict=True):
        assert [one.config["configurable"]["thread_id"] for one in saver.list(None)] == [name]
        saver.delete_thread(name)
        saver.close()


# --- once


async def test_setting_up_twice_changes_and_says_nothing(
    server: PostgresServer, conn: Connection, mode: str, capfd: pytest.CaptureFixture[str]
) -> None:
    calls = Calls(PostgresSaver(server.url, table="app.holdfast"), mode)
    await calls.setup()
    await use(calls)
    before = catalog(conn)
    counts = "SELECT xact_commit FROM pg_stat_database WHERE datname = 'postgres'"
    assert conn.execute(counts).fetchone() is not None
    for _ in range(2):
        await calls.setup()
        another = Calls(PostgresSaver(server.url, table="app.holdfast"), mode)
        await another.setup()
        await another.close()
    await calls.close()
    assert catalog(conn) == before
    assert capfd.readouterr() == ("", "")


def test_what_lacks_is_made_when_it_is_first_needed(
    server: PostgresServer, conn: Connection
) -> None:
    with PostgresSaver(server.url) as saver:
        assert own(conn) == []
        assert saver.get_tuple(config()) is None
        assert "holdfast_checkpoints" in own(conn)


def test_ten_processes_may_start_at_once(server: PostgresServer, conn: Connection) -> None:
    url = f"{server.url}?table=new.holdfast"
    processes = [
        SPAWN.Process(target=put_chain, args=(url, "t", str(number), 2)) for number in range(10)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 10
    with holdfast.open(url) as saver:
        assert len([*saver.list(config(ns=None))]) == 20
    assert conn.execute("SELECT count(*) FROM new.holdfast_layout").fetchone() == (1,)


async def test_many_savers_may_start_at_once(server: PostgresServer, conn: Connection) -> None:
    async with AsyncExitStack() as stack:
        savers = [
            await stack.enter_async_context(holdfast.open(server.url, table="many.x"))
            for _ in range(20)
        ]
        await asyncio.gather(*(saver.asetup() for saver in savers))
        await asyncio.gather(*(saver.aget_tuple(config()) for saver in savers))


def test_a_setup_that_is_cut_off_leaves_nothing_half_made(
    server: PostgresServer, conn: Connection
) -> None:
    conn.execute("CREATE TABLE holdfast_blobs (other int)")
    with PostgresSaver(server.url) as saver:
        with pytest.raises(holdfast.HoldfastError, match="holdfast_blobs"):
            saver.setup()
        assert own(conn) == ["holdfast_blobs"]
        conn.execute("DROP TABLE holdfast_blobs")
        put_one(saver)


# --- layouts


async def test_a_newer_layout_is_told(server: PostgresServer, conn: Connection, mode: str) -> None:
    with PostgresSaver(server.url) as saver:
        await asyncio.to_thread(saver.setup)
    conn.execute("UPDATE holdfast_layout SET version = version + 1")
    before = catalog(conn)
    calls = Calls(PostgresSaver(server.url), mode)
    for attempt in (calls.setup(), calls.get_tuple(config()), use(calls)):
        with pytest.raises(holdfast.FormatTooNew, match="Upgrade holdfast"):
            await attempt
    await calls.close()
    assert catalog(conn) == before


def test_an_older_layout_is_brought_up_to_date(
    server: PostgresServer, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, with what is there kept, and the steps that were made not made again."""
    with PostgresSaver(server.url) as saver:
        put_one(saver)
    tables: Any = holdfast.backends.postgres.Tables
    first = tables.migrations.fget
    added = "ALTER TABLE \"holdfast_checkpoints\" ADD COLUMN note TEXT DEFAULT 'it''s \\ new'"
    monkeypatch.setattr(tables, "migrations", property(lambda self: (*first(self), (added,))))
    for _ in range(2):
        with PostgresSaver(server.url) as newer:
            assert newer.get_tuple(config()) is not None
    assert conn.execute("SELECT note FROM holdfast_checkpoints").fetchall() == [("it's \\ new",)]
    assert conn.execute("SELECT version FROM holdfast_layout").fetchall() == [
        (len(first(tables("holdfast"))) + 1,)
    ]
    monkeypatch.undo()
    with PostgresSaver(server.url) as older, pytest.raises(holdfast.FormatTooNew):
        older.get_tuple(config())


# --- logical replication


async def test_tables_may_be_published(server: PostgresServer, conn: Connection, mode: str) -> None:
    """A table without a replica identity that is published refuses updates and deletions."""
    conn.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    try:
        calls = Calls(PostgresSaver(server.url), mode)
        await use(calls)
        await calls.delete_thread("t")
        await calls.close()
        assert conn.execute("SELECT count(*) FROM holdfast_writes").fetchone() == (0,)
    finally:
        conn.execute("DROP PUBLICATION everything")


async def test_a_sequence_that_is_behind_its_rows_is_told(
    server: PostgresServer, conn: Connection, mode: str
) -> None:
    """As after a switch to a replica: two threads must not share a key."""
    calls = Calls(PostgresSaver(server.url), mode)
    await use(calls)
    conn.execute("ALTER TABLE holdfast_threads ALTER key RESTART")
    with pytest.raises(holdfast.ConfigurationError, match="setval"):
        await calls.put(config("new"), checkpoint(1), {}, {})
    for table, column in (("holdfast_threads", "key"), ("holdfast_writes", "number")):
        conn.execute(
            f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), max({column})) "
            f"FROM {table}"
        )
    await calls.put(config("new"), checkpoint(1), {}, {})
    await calls.delete_thread("new")
    assert (await calls.must_get(config())).pending_writes == [("task", "state", 20)]
    await calls.close()


# --- rights


def role(conn: Connection, name: str) -> None:
    conn.execute(
        sql.SQL(
            "DO $$ BEGIN CREATE ROLE {} LOGIN; EXCEPTION WHEN duplicate_object THEN END $$"
        ).format(sql.Identifier(name))
    )


async def test_a_user_who_may_not_create_uses_what_another_made(
    server: PostgresServer, conn: Connection, mode: str
) -> None:
    role(conn, "modest")
    conn.execute("REVOKE CREATE ON SCHEMA public FROM public")
    url = server.url.replace("postgres@", "modest@")
    calls = Calls(PostgresSaver(url, table="app.holdfast"), mode)
    with pytest.raises(holdfast.ConfigurationError, match=r"saver\.ddl\(\)"):
        await calls.setup()
    conn.execute(PostgresSaver.ddl("app.holdfast").encode())
    before = catalog(conn)
    with pytest.raises(holdfast.ConfigurationError, match="Grant"):
        await calls.get_tuple(config())
    conn.execute("GRANT USAGE ON SCHEMA app TO modest")
    conn.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA app TO modest")
    await calls.setup()
    await use(calls)
    await calls.prune(["t"])
    await calls.delete_for_runs(["r"])
    findings = {one.what: one for one in await calls.call("check")}
    assert findings["rights"].is_fine
    conn.execute("REVOKE DELETE ON app.holdfast_blobs FROM modest")
    findings = {one.what: one for one in await calls.call("check")}
    assert not findings["rights"].is_fine
    assert "DELETE" in findings["rights"].value
    assert "holdfast_blobs" in findings["rights"].value
    with pytest.raises(holdfast.ConfigurationError, match="Grant"):
        await calls.delete_thread("t")
    assert len(await calls.list(config())) == 1, "whole or not at all"
    await calls.close()
    conn.execute("GRANT DELETE ON app.holdfast_blobs TO modest")
    assert [one for one in catalog(conn) if one[0] not in {old[0] for old in before}] == []


def test_a_setup_that_may_not_create_a_schema_may_use_one(
    server: PostgresServer, conn: Connection
) -> None:
    role(conn, "modest")
    conn.execute("CREATE SCHEMA mine AUTHORIZATION modest")
    with PostgresSaver(server.url.replace("postgres@", "modest@"), table="mine.x") as saver:
        put_one(saver)
    assert "x_checkpoints" in own(conn)


def test_ddl_is_for_the_owner_of_a_schema_who_may_not_make_one(
    server: PostgresServer, conn: Connection
) -> None:
    role(conn, "modest")
    conn.execute("CREATE SCHEMA mine AUTHORIZATION modest")
    url = server.url.replace("postgres@", "modest@")
    with eye(url) as modest:
        modest.execute(PostgresSaver.ddl("mine.x").encode())
    with PostgresSaver(url, table="mine.x") as saver:
        put_one(saver)


async def test_a_table_that_was_dropped_is_named(
    server: PostgresServer, conn: Connection, mode: str
) -> None:
    """It is not made anew: what it held is gone, and what refers to that is there."""
    calls = Calls(PostgresSaver(server.url), mode)
    await use(calls)
    conn.execute("DROP TABLE holdfast_blobs")
    for attempt in (calls.setup, lambda: calls.get_tuple(config())):
        with pytest.raises(holdfast.ConfigurationError, match="holdfast_blobs"):
            await attempt()
    await calls.close()


def test_the_search_path_is_heeded(server: PostgresServer, conn: Connection) -> None:
    conn.execute("CREATE SCHEMA elsewhere")
    with PostgresSaver(server.url, options="-c search_path=elsewhere") as saver:
        put_one(saver)
    assert conn.execute("SELECT count(*) FROM elsewhere.holdfast_checkpoints").fetchone() == (1,)
    with PostgresSaver(server.url) as other:
        assert other.get_tuple(config()) is None


def test_a_role_of_the_session_is_heeded(server: PostgresServer, conn: Connection) -> None:
    role(conn, "modest")
    conn.execute("GRANT CREATE, USAGE ON SCHEMA public TO modest")
    with PostgresSaver(server.url, options="-c role=modest", table="role") as saver:
        put_one(saver)
    owners = conn.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE tablename ~ '^role_'")
    assert owners.fetchall() == [("modest",)]


# --- collations

IDS = ["a", "B", "\u00e4", "z", "Z", "_", "-1", "1", "10", "2", " a", "a b", "ab", "\U0001f600"]


@pytest.mark.parametrize(
    "locale",
    [["--locale-provider=icu", "--icu-locale=en-US-u-ks-level1"]],
    ids=["icu that takes case for nothing"],
)
async def test_ids_are_ordered_by_their_bytes_whatever_the_database_does(
    locale: list[str], mode: str
) -> None:
    with PostgresServer(initdb=locale) as server, eye(server.url) as conn:
        assert conn.execute("SELECT 'a' < 'B'").fetchone() == (True,), "it orders by bytes itself"
        calls = Calls(PostgresSaver(server.url), mode)
        for id in IDS:
            made = checkpoint(id, {"a": id})
            await calls.put(config("t"), made, {}, made["channel_versions"])
            await calls.put(config(id, id), made, {}, made["channel_versions"])
        ordered = sorted(IDS, reverse=True)
        assert await calls.ids(config("t")) == ordered
        assert await calls.ids(config("t"), before=config("t", "", "a")) == [
            id for id in ordered if id < "a"
        ]
        assert (await calls.must_get(config("t"))).checkpoint["id"] == ordered[0]
        every = [one.config["configurable"] for one in await calls.list(None)]
        assert [(one["checkpoint_id"], one["thread_id"]) for one in every] == sorted(
            [(id, "t") for id in IDS] + [(id, id) for id in IDS], reverse=True
        )
        assert await calls.ids(None, limit=3) == [ordered[0], ordered[0], ordered[1]]
        await calls.close()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_of_another_encoding_keeps_what_it_can(
    server: PostgresServer, conn: Connection, encoding: str, mode: str
) -> None:
    conn.execute("DROP DATABASE IF EXISTS other WITH (FORCE)")
    conn.execute(f"CREATE DATABASE other ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    calls = Calls(PostgresSaver(server.url.removesuffix("/postgres") + "/other"), mode)
    await use(calls)
    for number, text in enumerate(("\u00e9", "\u4e2d\u6587"), start=1):
        made = checkpoint(number, {"a": text})
        stored = await calls.put(config("texts"), made, {"text": text}, made["channel_versions"])
        assert (await calls.must_get(stored)).checkpoint == made
        assert len(await calls.list(config("texts"), filter={"text": text})) == 1
        put = calls.put(config(f"of {text}"), made, {}, made["channel_versions"])
        if encoding == "LATIN1" and number == 2:
            with pytest.raises(holdfast.ConfigurationError, match="ENCODING 'UTF8'") as caught:
                await put
            assert isinstance(caught.value.__cause__, psycopg.Error)
        else:
            await put
    await calls.close()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_connection_of_another_encoding_that_is_given(
    server: PostgresServer, conn: Connection, encoding: str, mode: str
) -> None:
    conn.execute("DROP DATABASE IF EXISTS other WITH (FORCE)")
    conn.execute(f"CREATE DATABASE other ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    url = server.url.removesuffix("/postgres") + "/other"
    with psycopg.connect(url) as mine:
        async with await psycopg.AsyncConnection.connect(url) as other:
            calls = Calls(PostgresSaver(mine, async_conn=other), mode)
            await use(calls)
            made = checkpoint(1, {"\u00e9": "\u00e9"})
            await calls.put(config("\u00e9", "\u00e9"), made, {}, made["channel_versions"])
            assert (await calls.must_get(config("\u00e9", "\u00e9"))).checkpoint == made
            assert {one.thread_id for one in await calls.threads()} == {"\u00e9", "t"}
            if encoding == "LATIN1":
                with pytest.raises(holdfast.ConfigurationError, match="ENCODING 'UTF8'"):
                    await calls.put(config("\u4e2d"), made, {}, made["channel_versions"])
