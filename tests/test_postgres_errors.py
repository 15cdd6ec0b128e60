"""What Postgres refuses is told by what it is, on which server and thread, and with the remedy."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import holdfast
import psycopg
import pytest
from support.calls import Calls
from support.make import checkpoint, checkpoint_id, config, version
from support.postgres import Connection, eye, tables
from support.postgres_audit import audit
from support.postgres_server import PASSWORD, PostgresServer
from support.requests import WORDS
from support.throwaway import unprivileged
from support.uses import everything

MADE = checkpoint(1, {"state": WORDS[:20]}, {"state": version(1)})
PLACE = config("t", "", checkpoint_id(1))


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def conn(server: PostgresServer) -> Iterator[Connection]:
    """A look at an empty server, whose user has no settings."""
    with eye(server.url) as conn:
        conn.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        yield conn
        conn.execute("ALTER ROLE postgres RESET ALL")


@asynccontextmanager
async def opened(url: str, mode: str, **options: Any) -> AsyncIterator[Calls]:
    calls = Calls(holdfast.open(url, **{"retry_budget": 0, **options}), mode)
    try:
        yield calls
    finally:
        await calls.close()


async def put(calls: Calls, thread_id: str = "t", number: int = 1) -> Any:
    made = MADE if number == 1 else checkpoint(number, {"state": WORDS[number : number + 20]})
    metadata: Any = {"run_id": "r"}
    return await calls.put(config(thread_id), made, metadata, made["channel_versions"])


async def refused(calls: Calls, error: type[Exception], *words: str, reads: bool = True) -> None:
    """Each kind of call is refused with a message that has these words."""
    before = calls.saver.stats()["errors"]
    attempts: list[Any] = [
        put(calls, "t"),
        calls.put_writes(PLACE, [("a", WORDS[:20])], "task"),
    ]
    if reads:
        attempts += [
            calls.get_tuple(config("t")),
            calls.list(config("t")),
            calls.delete_thread("t"),
            calls.copy_thread("s", "t"),
        ]
    for told in await asyncio.gather(*attempts, return_exceptions=True):
        assert type(told) is error, told
        assert isinstance(told.__cause__, (psycopg.Error, OSError))
        for word in words:
            assert word in str(told)
    assert calls.saver.stats()["errors"] == before + len(attempts)


# --- no server


async def test_a_server_that_is_not_there(mode: str) -> None:
    async with opened("postgresql://127.0.0.1:1/app", mode) as calls:
        words = ("127.0.0.1:1, database app", "server runs", "host and port")
        await refused(calls, holdfast.StoreUnavailable, *words)
        assert calls.saver.stats()["retries"] == 0, "nobody said that it may be tried again"


async def test_attempts_are_told_with_the_option_that_bounds_them(mode: str) -> None:
    async with opened("postgresql://127.0.0.1:1/app", mode, retry_budget=1.5) as calls:
        with pytest.raises(holdfast.StoreUnavailable, match=r"\d attempts in .*retry_budget"):
            await put(calls)
        assert calls.saver.stats()["retries"] > 0
        assert calls.saver.stats()["errors"] == 1


async def test_a_host_that_has_no_address(mode: str) -> None:
    async with opened("postgresql://no.such.host.invalid/app", mode) as calls:
        await refused(calls, holdfast.StoreUnavailable, "no.such.host.invalid:5432")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 50])
async def test_a_port_of_another_program(answer: bytes, mode: str) -> None:
    def serve() -> None:
        while True:
            try:
                wire, _ = door.accept()
            except OSError:
                return
            with wire:
                wire.recv(100)
                wire.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=serve)
        thread.start()
        port = door.getsockname()[1]
        async with opened(f"postgresql://127.0.0.1:{port}/app", mode) as calls:
            await refused(calls, holdfast.StoreUnavailable, f"127.0.0.1:{port}", "Check that")
        door.shutdown(socket.SHUT_RDWR)
        thread.join()


# --- who may not come in


async def test_a_password_that_is_wrong_is_told_at_once_and_nowhere_said(
    mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with PostgresServer(auth="scram-sha-256") as server:
        wrong = server.url.replace(PASSWORD, "hunter2")
        async with opened(wrong, mode, retry_budget=60) as calls:
            where = f"127.0.0.1:{server.port}"
            await refused(calls, holdfast.ConfigurationError, where, "user and password", "URL")
            assert calls.saver.stats()["retries"] == 0
            with pytest.raises(holdfast.ConfigurationError) as caught:
                await put(calls)
            told = [*everything(caught.value)]
            assert len(told) > 1
            for one in told:
                print(repr(one), vars(one))
            assert not [one for one in told if "hunter2" in f"{one!r} {one} {vars(one)}"]
            assert "hunter2" not in caplog.text
            assert not [one for one in caplog.records if "hunter2" in f"{vars(one)}"]
        async with opened(server.url, mode) as calls:
            await put(calls)


async def test_a_database_that_is_missing(server: PostgresServer, mode: str) -> None:
    url = f"{server.url.removesuffix('postgres')}no_such_database"
    async with opened(url, mode, retry_budget=60) as calls:
        await refused(calls, holdfast.ConfigurationError, "no_such_database", "create it")
        assert calls.saver.stats()["retries"] == 0


# --- tables and rights


async def test_tables_that_are_dropped_while_they_are_used(
    server: PostgresServer, conn: Connection, mode: str
) -> None:
    async with opened(server.url, mode, retry_budget=60) as calls:
        await put(calls)
        names = ", ".join(
            f"holdfast_{name}" for name in tables(conn, f"{server.url}?table=holdfast")
        )
        conn.execute(f"DROP TABLE {names}")
        await refused(calls, holdfast.ConfigurationError, "setup()")
        assert calls.saver.stats()["retries"] == 0
        await calls.setup()
        await put(calls, "u")
        assert (await calls.must_get(config("u"))).checkpoint == MADE


async def test_a_user_who_may_make_no_tables(
    server: PostgresServer, conn: Connection, mode: str
) -> None:
    """Nor use those of others, until it is granted."""
    conn.execute("DROP ROLE IF EXISTS app; CREATE ROLE app LOGIN")
    conn.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO app")
    async with opened(server.url.replace("postgres@", "app@"), mode, retry_budget=60) as calls:
        await refused(calls, holdfast.ConfigurationError, "ddl()")
        conn.execute(holdfast.PostgresSaver.ddl())
        await refused(calls, holdfast.ConfigurationError, "Grant")
        conn.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app")
        await put(calls)
        assert (await calls.must_get(PLACE)).checkpoint == MADE
        assert calls.saver.stats()["retries"] == 0
    conn.execute("DROP OWNED BY app")


# --- a server that cannot, now


async def test_a_server_that_was_made_read_only(
    server: PostgresServer, conn: Connection, mode: str
) -> None:
    """What is there can be read."""
    async with opened(server.url, mode) as calls:
        await put(calls)
    conn.execute("ALTER ROLE postgres SET default_transaction_read_only = on")
    async with opened(server.url, mode) as calls:
        await refused(calls, holdfast.StoreUnavailable, "primary", reads=False)
        assert (await calls.must_get(PLACE)).checkpoint == MADE


def mount(disk: Path) -> bool:
    """Mount a small disk that is the server's, where that is allowed."""
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        return False
    rights = unprivileged()
    os.chown(disk, rights["user"], rights["group"])
    return True


def unmount(disk: Path) -> None:
    subprocess.run(["umount", str(disk)], check=True)


async def test_a_disk_that_is_full(mode: str) -> None:
    """A table space on a small disk; where nothing may be mounted, the server is told to say so."""
    with PostgresServer() as server, eye(server.url) as conn:
        disk = server.folder / "disk"
        is_mounted = mount(disk)
        try:
            async with opened(server.url, mode, retry_budget=60) as calls:
                if is_mounted:
                    conn.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
                    conn.execute("ALTER ROLE postgres SET default_tablespace = small")
                else:
                    await calls.setup()
                    refuse(conn, "53100", times=10**6, when="n > 4")
                count = 0
                with pytest.raises(holdfast.StoreFull, match="Free disk space") as caught:
                    while True:
                        await put(calls, f"t{count}", count + 2)
                        count += 1
                assert count > 3
                assert f"'t{count}'" in str(caught.value)
                assert isinstance(caught.value.__cause__, psycopg.errors.DiskFull)
                assert calls.saver.stats()["retries"] == 0
                found = audit(conn, f"{server.url}?table=holdfast")
                assert found.keys() == {f"t{number}" for number in range(count)}
                for number in range(count):
                    state = (await calls.must_get(config(f"t{number}"))).checkpoint
                    values = {"state": WORDS[number + 2 : number + 22]}
                    assert state["channel_values"] == values
        finally:
            server.kill()
            if is_mounted:
                unmount(disk)


def refuse(conn: Connection, state: str, times: int, when: str = "true") -> None:
    """Have the server raise an error for the first changes of a thread that come."""
    conn.execute("DROP SEQUENCE IF EXISTS refusals; CREATE SEQUENCE refusals MINVALUE 0")
    conn.execute(
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "DECLARE n bigint := nextval('refusals'); BEGIN "
        f"IF n < {times} AND {when} THEN RAISE 'made up' USING ERRCODE = '{state}'; END IF; "
        "RETURN NULL; END $$"
    )
    conn.execute(
        "CREATE OR REPLACE TRIGGER refuse AFTER INSERT OR UPDATE OR DELETE ON holdfast_threads "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse()"
    )


@pytest.mark.parametrize("state", ["40P01", "40001", "57014", "55P03", "53200", "57P01"])
async def test_what_passes_is_tried_again_and_counted(
    server: PostgresServer, conn: Connection, state: str, mode: str
) -> None:
    async with opened(server.url, mode, retry_budget=60) as calls:
        await calls.setup()
        for change in (
            lambda: put(calls),
            lambda: calls.put_writes(PLACE, [("a", WORDS[:20])], "task"),
            lambda: calls.copy_thread("t", "u"),
            lambda: calls.delete_thread("t"),
        ):
            before = calls.saver.stats()
            refuse(conn, state, times=4)
            await change()
            assert calls.saver.stats()["retries"] == before["retries"] + 4
            assert calls.saver.stats()["errors"] == before["errors"]
        assert audit(conn, f"{server.url}?table=holdfast").keys() == {"u"}


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ("40P01", holdfast.StoreUnavailable, "Other transactions"),
        ("40001", holdfast.StoreUnavailable, "Other transactions"),
        ("57014", holdfast.StoreTimeout, "pg_stat_activity"),
        ("55P03", holdfast.StoreTimeout, "pg_stat_activity"),
        ("53100", holdfast.StoreFull, "Free disk space"),
        ("53200", holdfast.StoreUnavailable, "memory"),
        ("XX001", holdfast.StoreUnavailable, "backup"),
    ],
)
async def test_what_does_not_pass_is_told(
    server: PostgresServer,
    conn: Connection,
    state: str,
    error: type[Exception],
    words: str,
    mode: str,
) -> None:
    async with opened(server.url, mode, retry_budget=0.1) as calls:
        await calls.setup()
        refuse(conn, state, times=10**6)
        await refused(calls, error, words, "'t'", reads=False)
        conn.execute("DROP TRIGGER refuse ON holdfast_threads")
        await put(calls)


async def test_a_deadlock_is_tried_again(
    server: PostgresServer, conn: Connection, mode: str
) -> None:
    """A real one: the user's own transaction holds what a deletion wants, and wants what it has."""
    # A wait is looked at once, after this time: ours has to have begun by then.
    conn.execute("ALTER ROLE postgres SET deadlock_timeout = '2s'")
    async with opened(server.url, mode, retry_budget=60) as calls:
        await put(calls)
        with eye(server.url) as mine:
            mine.execute("SET deadlock_timeout = '60s'")
            mine.execute("BEGIN")
            mine.execute("SELECT FROM holdfast_checkpoints FOR UPDATE")
            deletion = asyncio.ensure_future(calls.delete_thread("t"))
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while conn.execute(waits).fetchone() != (1,):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await asyncio.to_thread(mine.execute, "SELECT FROM holdfast_threads FOR UPDATE")
            mine.execute("COMMIT")
            await deletion
        assert calls.saver.stats()["retries"] == 1
        assert await calls.get_tuple(config("t")) is None


async def test_an_encoding_that_python_has_not_is_told_each_time(
    server: PostgresServer, mode: str
) -> None:
    """Each connection that was made for nothing is closed: the pool has room for the next."""
    with holdfast.open(server.url) as saver:
        saver.setup()
    async with opened(f"{server.url}?client_encoding=EUC_TW&pool_size=1", mode) as calls:
        for _ in range(3):
            with pytest.raises(holdfast.ConfigurationError, match=r"EUC_TW.*parameter"):
                await calls.get_tuple(PLACE)
