"""The servers that tests start: what they promise to the tests, and that they leave nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from psycopg import sql
from redis import Redis
from redis.exceptions import AuthenticationError
from support import servers, throwaway
from support.guard import children_of, living
from support.pgbouncer import PgBouncer
from support.postgres import (
    Connection,
    backends_of,
    bouncer,
    dump,
    eye,
    size,
    table_of,
    tables,
    terminate,
)
from support.postgres_server import DURABLE, PASSWORD, PostgresServer, postgres_url
from support.redis_server import RedisServer
from support.throwaway import Throwaway

Start = Callable[[], Throwaway]
NOWHERE = "postgresql://postgres@127.0.0.1:1/postgres"
SERVERS: dict[str, Start] = {
    "redis": RedisServer,
    "postgres": PostgresServer,
    "pgbouncer": lambda: bouncer(NOWHERE),
}
FAULTY: dict[str, Start] = {
    "redis": lambda: RedisServer({"maxmemory-policy": "of-my-own"}),
    "postgres": lambda: PostgresServer({"wal_level": "of-my-own"}),
    "pgbouncer": lambda: bouncer(NOWHERE, pool_mode="of-my-own"),
}
OWNER = """
import time
from support.pgbouncer import PgBouncer
from support.postgres_server import PostgresServer
from support.redis_server import RedisServer

server = {}
server.start()
print(server.port, server.pid, flush=True)
time.sleep(60)
"""


# --- what all of them promise


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can pass, which those of pytest are not."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Throwaway]:
    server = SERVERS[request.param]()
    yield server
    server.stop()


def test_a_stopped_server_leaves_nothing(server: Throwaway) -> None:
    server.start()
    pids = [server.pid, *children_of(server.pid)]
    folder, port = server.folder, server.port
    assert listening(port)
    server.stop()
    assert not any(map(alive, pids))
    assert not folder.exists()
    assert not listening(port)
    server.stop()


def test_a_killed_server_comes_back_where_it_was(server: Throwaway) -> None:
    server.start()
    url, folder, pids = server.url, server.folder, [server.pid, *children_of(server.pid)]
    server.kill()
    assert not listening(server.port)
    assert not any(map(alive, pids))
    server.start()
    assert (server.url, server.folder) == (url, folder)
    assert listening(server.port)


def test_a_server_takes_another_port_when_one_is_taken(
    server: Throwaway, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", servers.free_port())) as taken:
        ports = [taken.getsockname()[1]]
        free = servers.free_port
        monkeypatch.setattr(throwaway, "free_port", lambda: ports.pop() if ports else free())
        server.start()
        assert not ports
        assert server.port != taken.getsockname()[1]
        assert listening(server.port)


@pytest.mark.parametrize("name", FAULTY)
def test_a_server_that_does_not_start_tells_why(name: str) -> None:
    server = FAULTY[name]()
    with pytest.raises(RuntimeError, match="of-my-own"):
        server.start()
    assert not server.folder.exists()


@pytest.mark.parametrize(
    ("make", "end"),
    [
        ("RedisServer()", signal.SIGKILL),
        ("RedisServer()", signal.SIGINT),
        ("PostgresServer()", signal.SIGKILL),
        ("PostgresServer()", signal.SIGINT),
        (f"PgBouncer({NOWHERE!r})", signal.SIGKILL),
    ],
)
def test_a_server_ends_with_the_process_that_started_it(
    make: str, end: signal.Signals, open_folder: Path
) -> None:
    if "PgBouncer" in make:
        bouncer(NOWHERE)  # skips
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER.format(make)],
        cwd=Path(__file__).parent,
        env={**os.environ, "TMPDIR": str(open_folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        line = owner.stdout.readline()
        port, pid = map(int, line.split())
        pids = [pid, *children_of(pid)]
        assert [*open_folder.iterdir()]
        owner.send_signal(end)
    deadline = time.monotonic() + 10
    while listening(port) or any(map(alive, pids)) or [*open_folder.iterdir()]:
        assert time.monotonic() < deadline, line
        time.sleep(0.01)


def test_root_starts_a_server_although_its_own_folder_is_closed_to_others(
    server: Throwaway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    server.start()
    assert listening(server.port)


def test_what_is_missing_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "find_program", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(RuntimeError) as caught:
        servers.ensure_programs()
    for package in ("redis-server", "postgresql", "pgbouncer"):
        assert f"apt install {package};" in str(caught.value)


def test_the_newest_postgres_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version, names in {"9.6": ["postgres"], "16": ["postgres", "initdb"], "17": []}.items():
        (tmp_path / version).mkdir()
        for name in names:
            (tmp_path / version / name).touch(mode=0o755)
    places = {"postgres": servers.Program("", "", "", (f"{tmp_path}/*",), ("initdb",))}
    monkeypatch.setattr(servers, "PROGRAMS", places)
    monkeypatch.setenv("PATH", str(tmp_path / "9.6"))
    assert servers.find_program("postgres") == str(tmp_path / "16" / "postgres")


# --- Redis


def test_a_killed_redis_server_has_what_its_log_holds() -> None:
    with RedisServer({"appendonly": "yes", "appendfsync": "always"}) as server:
        with Redis.from_url(server.url) as client:
            client.set("key", b"value" * 10**6)
        server.kill()
        server.start()
        with Redis.from_url(server.url) as client:
            assert client.get("key") == b"value" * 10**6


def test_options_are_lines_of_the_configuration() -> None:
    users = ["default off", "app on >secret ~app:* &* +@all"]
    with RedisServer({"maxmemory": 10**7, "user": users}) as server:
        with Redis.from_url(server.url) as client, pytest.raises(AuthenticationError):
            client.ping()
        with Redis.from_url(server.url, username="app", password="secret") as client:
            assert client.config_get("maxmemory")["maxmemory"] == str(10**7)


# --- PostgreSQL


def value(conn: Connection, query: str) -> object:
    found = conn.execute(query).fetchone()
    assert found is not None
    return found[0]


def test_a_killed_postgres_server_has_what_was_committed() -> None:
    with PostgresServer(DURABLE) as server:
        with eye(server.url) as conn, eye(server.url) as open_one:
            conn.execute("CREATE TABLE kept (number int)")
            for number in range(100):
                conn.execute("INSERT INTO kept VALUES (%s)", [number])
            with pytest.raises(psycopg.OperationalError), open_one.transaction():
                open_one.execute("INSERT INTO kept VALUES (-1)")
                server.kill()
                open_one.execute("SELECT 1")
        server.start()
        with eye(server.url) as conn:
            assert value(conn, "SELECT array_agg(number ORDER BY number) FROM kept") == [
                *range(100)
            ]


def test_a_busy_postgres_server_is_killed_with_all_its_backends() -> None:
    with PostgresServer() as server:
        with closing(eye(server.url)) as conn:
            # A backend that does not look around while it works.
            conn.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1000000000)")
            conn.pgconn.flush()
            pids = [server.pid, *children_of(server.pid)]
            assert conn.info.backend_pid in pids
            server.kill()
            assert not any(map(alive, pids))
        server.start()
        with eye(server.url) as conn:
            assert value(conn, "SELECT 1") == 1


def test_postgres_options_are_settings() -> None:
    with PostgresServer({**DURABLE, "max_connections": 7, "search_path": "it's"}) as server:
        with eye(server.url) as conn:
            assert value(conn, "SHOW max_connections") == "7"
            assert value(conn, "SHOW fsync") == "on"
            assert value(conn, "SHOW search_path") == "it's"
        server.options["max_connections"] = 9
        server.kill()
        server.start()
        with eye(server.url) as conn:
            assert value(conn, "SHOW max_connections") == "9"


def test_postgres_can_ask_for_a_password_and_sort_as_people_do() -> None:
    arguments = ["--locale-provider=icu", "--icu-locale=en-US"]
    with PostgresServer(auth="scram-sha-256", initdb=arguments) as server:
        assert f":{PASSWORD}@" in server.url
        with pytest.raises(psycopg.OperationalError, match="password"):
            eye(server.url.replace(f":{PASSWORD}@", "@"))
        with eye(server.url) as conn:
            assert value(conn, "SELECT 'a' < 'B'") is True
    with PostgresServer() as server, eye(server.url) as conn:
        assert value(conn, "SELECT 'a' < 'B'") is False


def test_a_paused_postgres_server_answers_when_it_is_resumed() -> None:
    with PostgresServer() as server, closing(eye(server.url)) as conn:
        server.pause()
        conn.pgconn.send_query(b"SELECT 1")
        conn.pgconn.flush()
        with socket.socket(fileno=os.dup(conn.pgconn.socket)) as wire:
            wire.settimeout(0.2)
            with pytest.raises(TimeoutError):
                wire.recv(1, socket.MSG_PEEK)
            server.resume()
            wire.settimeout(10)
            assert wire.recv(1, socket.MSG_PEEK)


def test_a_folder_has_a_store_of_its_own(tmp_path: Path) -> None:
    url, other = postgres_url(tmp_path), postgres_url(tmp_path / "other")
    assert url == postgres_url(tmp_path) != other
    assert len(table_of(url)) <= 40
    with eye(url) as conn:
        for of, numbers in ((url, [2, 1]), (other, [3])):
            name = sql.Identifier(f"{table_of(of)}_threads")
            conn.execute(sql.SQL("CREATE TABLE {} (number int, data bytea)").format(name))
            for number in numbers:
                query = sql.SQL("INSERT INTO {} VALUES (%s, %s)").format(name)
                conn.execute(query, [number, b"data"])
        assert tables(conn, url) == {"threads": 2}
        assert dump(conn, url) == {
            "threads": [{"number": 1, "data": b"data"}, {"number": 2, "data": b"data"}]
        }
        assert tables(conn, other) == {"threads": 1}
        assert size(conn, url) > 0


def test_backends_are_seen_and_terminated() -> None:
    seen = "application_name=seen&table=mine"
    with (
        PostgresServer() as server,
        eye(server.url) as conn,
        eye(f"{server.url}?{seen}") as other,
    ):
        (one,) = backends_of(conn)
        assert (one["pid"], one["application_name"]) == (other.info.backend_pid, "seen")
        terminate(conn, [one["pid"]])
        assert backends_of(conn) == []
        with pytest.raises(psycopg.OperationalError):
            other.execute("SELECT 1")


# --- PgBouncer


@pytest.mark.parametrize("auth", ["trust", "scram-sha-256"])
def test_pgbouncer_gives_each_transaction_a_backend(auth: str) -> None:
    with PostgresServer(auth=auth) as server:
        pool = bouncer(server.url, default_pool_size=1)
        with pool, eye(pool.url) as one, eye(pool.url) as other, eye(server.url) as conn:
            with one.transaction():
                backend = value(one, "SELECT pg_backend_pid()")
            assert value(other, "SELECT pg_backend_pid()") == backend
            assert [each["pid"] for each in backends_of(conn)] == [backend]


def test_pgbouncer_outlives_its_server() -> None:
    with PostgresServer() as server:
        pool: PgBouncer = bouncer(server.url)
        with pool:
            with eye(pool.url) as conn:
                assert value(conn, "SELECT 1") == 1
            server.kill()
            server.start()
            with eye(pool.url) as conn:
                assert value(conn, "SELECT 1") == 1


def alive(pid: int) -> bool:
    return pid in living()


def listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True
