"""How a Postgres server is named: URLs, libpq's strings, options, the environment, and what is not
installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import holdfast
import psycopg
import pytest
from holdfast import AsyncPostgresSaver, PostgresSaver
from support.calls import Calls
from support.make import config
from support.postgres import Connection, backends_of, eye
from support.postgres_server import PostgresServer
from support.uses import put_one, use

ODD = "p@:/?#[]&=+% \u00fc'\\"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(auth="scram-sha-256") as server:
        with eye(server.url) as conn:
            conn.execute(psycopg.sql.SQL("CREATE ROLE odd LOGIN PASSWORD {}").format(ODD))
            conn.execute("GRANT ALL ON SCHEMA public TO odd")
        yield server


@pytest.fixture
def conn(server: PostgresServer) -> Iterator[Connection]:
    """A look at a server without tables and other clients."""
    with eye(server.url) as conn:
        wait_for_clients(conn, 0)
        for schema, name in tables(conn):
            target = psycopg.sql.Identifier(schema, name)
            conn.execute(psycopg.sql.SQL("DROP TABLE {}").format(target))
        yield conn


def tables(conn: Connection) -> list[tuple[str, str]]:
    found = conn.execute(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT LIKE ALL (%s) "
        "ORDER BY 1, 2",
        [["pg\\_%", "information\\_schema"]],
    )
    return [(schema, name) for schema, name in found]


def prefixes(conn: Connection) -> set[str]:
    """What the names of all tables begin with."""
    return {f"{schema}.{name.rpartition('_')[0]}" for schema, name in tables(conn)}


def clients(conn: Connection) -> list[dict[str, Any]]:
    return backends_of(conn)


def wait_for_clients(conn: Connection, count: int) -> None:
    """The server notices a closed connection a moment later."""
    while len(clients(conn)) != count:
        pass


async def works(saver: holdfast.Saver, mode: str) -> None:
    calls = Calls(saver, mode)
    await use(calls)
    await calls.close()


# --- URLs and strings


def places(server: PostgresServer) -> dict[str, str]:
    there = f"127.0.0.1:{server.port}"
    socket = quote(str(server.folder), safe="")
    in_query = f"user=odd&password={quote(ODD)}&port={server.port}"
    quoted = ODD.replace("\\", "\\\\").replace("'", "\\'")
    return {
        "postgresql": f"postgresql://odd:{quote(ODD, safe='')}@{there}/postgres",
        "postgres": f"postgres://odd:{quote(ODD, safe='')}@{there}/postgres",
        "a socket": f"postgresql:///postgres?host={socket}&{in_query}",
        "a socket in front": f"postgresql://{socket}/postgres?{in_query}",
        "the second host": (
            f"postgresql://odd:{quote(ODD, safe='')}@127.0.0.1:1,{there}/postgres"
            "?target_session_attrs=read-write"
        ),
        "a string": (
            f"host=127.0.0.1 port={server.port} dbname=postgres user=odd password='{quoted}'"
        ),
    }


@pytest.mark.parametrize("place", places(PostgresServer()))
async def test_a_url_or_a_string_names_a_server(
    server: PostgresServer, conn: Connection, place: str, mode: str
) -> None:
    """Whatever the characters of the password."""
    url = places(server)[place]
    await works(PostgresSaver(url, table="mine"), mode)
    if "://" in url:
        saver = holdfast.open(url, table="mine")
        assert type(saver) is PostgresSaver
        await works(saver, mode)
    assert prefixes(conn) == {"public.mine"}


async def test_a_plus_in_the_query_of_a_url_is_a_plus(
    server: PostgresServer, conn: Connection, mode: str
) -> None:
    """As in libpq's URLs."""
    url = f"{server.url}?application_name=a+b%20c&table=mine"
    calls = Calls(holdfast.open(url), mode)
    await use(calls)
    assert {one["application_name"] for one in clients(conn)} == {"a+b c"}
    await calls.close()


async def test_a_password_given_as_an_argument_is_taken_as_it_is(
    server: PostgresServer, conn: Connection, mode: str
) -> None:
    url = f"postgresql://you:wrong@127.0.0.1:{server.port}/nowhere"
    arguments = {"user": "odd", "password": ODD, "dbname": "postgres"}
    for saver in (holdfast.open(url, **arguments), PostgresSaver(url, **arguments)):
        await works(saver, mode)
    for wrong in (quote(ODD), ODD.replace("+", " "), ODD.strip("p")):
        calls = Calls(holdfast.open(url, **{**arguments, "password": wrong}), mode)
        with pytest.raises(holdfast.ConfigurationError, match="password"):
            await calls.get_tuple(config())
        await calls.close()


def test_nothing_is_opened_before_first_use_nor_left_open(
    server: PostgresServer, conn: Connection
) -> None:
    holdfast.open("postgresql://127.0.0.1:1/nowhere")
    with holdfast.open(server.url) as saver:
        assert clients(conn) == []
        put_one(saver)
        assert len(clients(conn)) == 1
    wait_for_clients(conn, 0)
    assert saver.get_tuple(config()) is not None, "closed for good"
    saver.close()
    wait_for_clients(conn, 0)


# --- options


async def test_a_query_has_options_of_both(
    server: PostgresServer, conn: Connection, mode: str
) -> None:
    conn.execute("CREATE SCHEMA IF NOT EXISTS app")
    options = "table=app.holdfast&pool_size=2&connect_timeout=3&sslmode=disable"
    calls = Calls(holdfast.open(f"{server.url}?{options}&application_name=me"), mode)
    await use(calls)
    assert prefixes(conn) == {"app.holdfast"}
    assert {one["application_name"] for one in clients(conn)} == {"me"}
    assert calls.saver._live.backend._clients.size == 2  # type: ignore[attr-defined]
    await calls.close()


async def test_arguments_win_over_the_url(
    server: PostgresServer, conn: Connection, mode: str
) -> None:
    url = f"{server.url}?table=lost&application_name=you&port=1&pool_size=9"
    options: dict[str, Any] = {"table": "won", "application_name": "me", "port": server.port}
    calls = Calls(holdfast.open(url, **options, pool_size="1", connect_timeout=3), mode)
    await use(calls)
    assert {one["application_name"] for one in clients(conn)} == {"me"}
    assert prefixes(conn) == {"public.won"}
    await calls.close()
    config_of = {"url": server.url, "table": "mapped", "pool_size": "1"}
    await works(holdfast.from_config(config_of), mode)
    assert prefixes(conn) == {"public.won", "public.mapped"}


def test_the_server_sees_a_name_and_the_wait_for_it_ends(
    server: PostgresServer, conn: Connection
) -> None:
    with holdfast.open(server.url) as saver:
        saver.setup()
        assert [one["application_name"] for one in clients(conn)] == ["holdfast"]
        assert "connect_timeout=10" in saver._live.backend._clients._conninfo  # type: ignore[attr-defined]


@pytest.mark.parametrize("named", ["pool_sise=3", "tabel=x", "prefx=a", "socket_timeout=2"])
def test_an_option_that_nobody_has_is_named_with_those_that_there_are(named: str) -> None:
    """Neither holdfast nor libpq: a slip of the pen is told before the first put."""
    name, _, value = named.partition("=")
    words = rf"{name}.*cache_bytes.*pool_size.*table.*connect_timeout.*sslmode"
    for attempt in (
        lambda: holdfast.open(f"postgresql://u:p@localhost/db?{named}"),
        lambda: holdfast.open("postgresql://u:p@localhost/db", **{name: value}),
        lambda: PostgresSaver("host=localhost", **{name: value}),
        lambda: PostgresSaver.from_conn_string("postgresql://localhost", **{name: value}),
    ):
        with pytest.raises(holdfast.ConfigurationError, match=words):
            attempt()


@pytest.mark.parametrize(
    "named",
    [
        *("pool_size=0", "pool_size=many", "cache_bytes=much", "prepared_statements=perhaps"),
        *("reply_timeout=-1", "reply_timeout=inf", "table=", "table=a.b.c", "table=.", "port=soon"),
        *("pool_size=2.5", "cache_bytes=1e6"),
        *("client_encoding=SQL_ASCII", "client_encoding=sql_ascii"),
    ],
)
def test_an_option_with_an_impossible_value_is_refused_at_once(named: str) -> None:
    with pytest.raises(holdfast.ConfigurationError):
        holdfast.open(f"postgresql://localhost?{named}")


@pytest.mark.parametrize(
    "named",
    [
        *("sslmode=disabel", "connect_timeout=soon", "target_session_attrs=primaries"),
        *("keepalives=much", "channel_binding=x", "options=-c no.such%3D1 -c nonsense%3D2"),
    ],
)
async def test_a_value_that_only_libpq_knows_to_be_impossible_is_refused_at_first_use(
    server: PostgresServer, named: str
) -> None:
    saver = holdfast.open(f"{server.url}?{named}")
    calls = Calls(saver, "async")
    with pytest.raises(holdfast.ConfigurationError, match="parameter") as caught:
        await calls.get_tuple(config())
    assert isinstance(caught.value.__cause__, psycopg.Error)
    assert saver.stats()["retries"] == 0
    await calls.close()


@pytest.mark.parametrize("named", ["table=mine", "pool_size=1", "serde=x"])
def test_an_option_of_holdfasts_in_the_url_of_a_class_is_told_where_it_goes(named: str) -> None:
    """`holdfast.open` reads it there; the class does not, and libpq would not take it."""
    name = named.partition("=")[0]
    words = rf"{name} is an option of holdfast.*PostgresSaver\(url, {name}=.*holdfast\.open\(url\)"
    for query in (named, f"sslmode=disable&{named}"):
        with pytest.raises(holdfast.ConfigurationError, match=words):
            PostgresSaver(f"postgresql://localhost/db?{query}")


# --- other ways


@pytest.mark.parametrize("pipeline", [True, False])
async def test_a_connection_string(
    server: PostgresServer, conn: Connection, pipeline: bool, mode: str
) -> None:
    if mode == "async":
        async with AsyncPostgresSaver.from_conn_string(server.url, pipeline=pipeline) as saver:
            await saver.setup()
            await use(Calls(saver, mode))
    else:
        with PostgresSaver.from_conn_string(server.url, pipeline=pipeline, table="p") as saver:
            saver.setup()
            await use(Calls(saver, mode))
    assert prefixes(conn) == {"public.p" if mode == "sync" else "public.holdfast"}
    wait_for_clients(conn, 0)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"conn": 5432},
        {"conn": b"postgresql://localhost"},
        {"conn": "http://localhost"},
        {"conn": "localhost:5432"},
        {"conn": "postgresql://localhost:port"},
        {"conn": "postgresql://[::1"},
        {"conn": "host=localhost nonsense"},
        {"conn": "host=localhost pool_size=3"},
        {"async_conn": object()},
        {"conn": psycopg.Connection},
        {"conn": "postgresql://localhost", "async_conn": object()},
        {"conn": object(), "table": "t", "sslmode": "disable"},
    ],
    ids=" ".join,
)
def test_what_names_no_server_is_refused_at_once(arguments: dict[str, Any]) -> None:
    with pytest.raises(holdfast.ConfigurationError):
        PostgresSaver(**arguments)


# --- the environment


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("HOLDFAST_URL", "CHECKPOINTER_TYPE", "DATABASE_URL", "USE_POSTGRES_CHECKPOINTER"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


async def test_the_environment_names_a_server(
    server: PostgresServer, conn: Connection, environ: pytest.MonkeyPatch, mode: str
) -> None:
    environ.setenv("DATABASE_URL", f"{server.url}?table=typed")
    environ.setenv("CHECKPOINTER_TYPE", "Postgres")
    await works(holdfast.open(), mode)
    assert prefixes(conn) == {"public.typed"}
    environ.setenv("HOLDFAST_URL", f"{server.url}?table=named")
    await works(holdfast.open(table="argument"), mode)
    assert prefixes(conn) == {"public.typed", "public.argument"}


async def test_the_environment_has_variables_for_postgres_alone(
    server: PostgresServer, conn: Connection, environ: pytest.MonkeyPatch, mode: str
) -> None:
    environ.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/of_the_application")
    environ.setenv("POSTGRES_DATABASE_URL", f"{server.url}?table=special")
    environ.setenv("POSTGRES_POOL_SIZE", "3")
    environ.setenv("USE_POSTGRES_CHECKPOINTER", "true")
    saver = holdfast.open()
    assert saver._live.backend._clients.size == 3  # type: ignore[attr-defined]
    await works(saver, mode)
    assert prefixes(conn) == {"public.special"}
    assert holdfast.open(pool_size=1)._live.backend._clients.size == 1  # type: ignore[attr-defined]
    environ.setenv("USE_POSTGRES_CHECKPOINTER", "false")
    assert type(holdfast.open()) is holdfast.MemorySaver
    environ.setenv("USE_POSTGRES_CHECKPOINTER", "perhaps")
    with pytest.raises(holdfast.ConfigurationError, match="USE_POSTGRES_CHECKPOINTER"):
        holdfast.open()
    environ.setenv("CHECKPOINTER_TYPE", "postgres")  # which says more
    environ.setenv("POSTGRES_POOL_SIZE", "many")
    with pytest.raises(holdfast.ConfigurationError, match="pool_size"):
        holdfast.open()


async def test_libpqs_own_environment_is_heeded(
    server: PostgresServer, conn: Connection, environ: pytest.MonkeyPatch, mode: str
) -> None:
    for name, value in {"USER": "odd", "PASSWORD": ODD, "DATABASE": "postgres"}.items():
        environ.setenv(f"PG{name}", value)
    environ.setenv("PGHOST", "127.0.0.1")
    environ.setenv("PGPORT", str(server.port))
    saver = PostgresSaver("", table="environment")
    assert saver._live.backend._clients.where == f"127.0.0.1:{server.port}, database postgres"  # type: ignore[attr-defined]
    await works(saver, mode)
    assert prefixes(conn) == {"public.environment"}


def test_without_a_url_postgres_is_the_one_at_home(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("CHECKPOINTER_TYPE", "postgres")
    saver: Any = holdfast.open()
    assert saver._live.backend._clients.where == "localhost:5432, database postgres"


# --- without what it needs

WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import holdfast
with holdfast.open("memory://") as saver:
    print(saver.get_tuple({"configurable": {"thread_id": "t"}}))
for attempt in (
    lambda: holdfast.open("postgresql://localhost"),
    lambda: holdfast.PostgresSaver("postgresql://localhost"),
    lambda: holdfast.AsyncPostgresSaver.from_conn_string("postgresql://localhost"),
    lambda: holdfast.PostgresSaver.ddl(),
):
    try:
        attempt()
    except holdfast.ConfigurationError as error:
        print(error, isinstance(error.__cause__, ImportError))
"""


@pytest.mark.parametrize("missing", ["psycopg", "psycopg_pool", "psycopg_binary psycopg_c"])
def test_without_its_packages_the_extra_is_named_and_the_rest_works(
    missing: str, tmp_path: Path
) -> None:
    """Also where psycopg is there and finds no libpq."""
    code = WITHOUT
    if "binary" in missing:
        code = f"import ctypes.util; ctypes.util.find_library = lambda name: None\n{code}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *missing.split()],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    first, *rest = done.stdout.splitlines()
    assert first == "None"
    assert len(rest) == 4
    for line in rest:
        assert "holdfast[postgres]" in line
        assert line.endswith("True")
