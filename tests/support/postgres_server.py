"""PostgreSQL servers of the tests' and benchmarks' own."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from .guard import Guard
from .servers import store_name
from .throwaway import Throwaway, new_folder, unprivileged

NAMED = "HOLDFAST_TEST_POSTGRES_URL"
"""Names a server to be used, and never dropped, instead of one that is started."""

USER = "postgres"
PASSWORD = "secret"

FAST: dict[str, str | int] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": 200,
    "shared_buffers": "32MB",
    "max_wal_senders": 0,
    "max_logical_replication_workers": 0,
    "dynamic_shared_memory_type": "mmap",  # in the folder: a killed server leaves none outside
    "lc_messages": "C",
}
DURABLE: dict[str, str | int] = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}
"""Options of a server that keeps what it acknowledged, whatever kills it."""

LOCALE = ("--encoding=UTF8", f"--locale={'C' if sys.platform == 'darwin' else 'C.UTF-8'}")


class PostgresServer(Throwaway):
    """A PostgreSQL server of our own; fast, and not durable unless the options ask for it.

    Where we are root it runs as another user, because it refuses to be root's.

    Args:
        options: Settings of postgresql.conf by name; they are read at each start.
        auth: How clients prove who they are: "trust", or with PASSWORD, "scram-sha-256".
        initdb: More arguments of initdb, such as another locale.
    """

    program = "postgres"
    as_root = False

    def __init__(
        self,
        options: Mapping[str, str | int] | None = None,
        *,
        auth: str = "trust",
        initdb: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.options: dict[str, str | int] = {**FAST, **(options or {})}
        self.auth = auth
        self._initdb = (f"--auth={auth}", *LOCALE, *initdb)

    @property
    def url(self) -> str:
        user = USER if self.auth == "trust" else f"{USER}:{PASSWORD}"
        return f"postgresql://{user}@127.0.0.1:{self.port}/postgres"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _prepare(self, program: str) -> None:
        # Each initdb takes half a second, a copy a tenth of that.
        with _lock:
            template = _template(program, self._initdb)
        copy = ["cp", "-Rp", str(template), str(self._data)]
        subprocess.run(copy, check=True, cwd=self.folder, **unprivileged())

    def _command(self, program: str) -> list[str]:
        # After a kill its number may be another process', which would keep this one from starting;
        # and what it says of being ready is no longer true.
        for lock in (self._data / "postmaster.pid", *self.folder.glob(".s.PGSQL.*.lock")):
            lock.unlink(missing_ok=True)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": str(self.folder),
            **self.options,
        }
        lines = [
            "{} = '{}'".format(name, str(value).replace("'", "''"))
            for name, value in settings.items()
        ]
        (self.folder / "test.conf").write_text("\n".join([*lines, ""]))
        return [program, "-D", str(self._data)]

    def _is_ready(self) -> bool:
        # What pg_ctl waits for, too.
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return lines[:1] == [str(self.pid)] and lines[7:8] == ["ready   "]


@cache
def _template(program: str, arguments: Sequence[str]) -> Path:
    """The folder of a new cluster, to be copied."""
    rights = unprivileged()
    folder = new_folder("initdb", owner=rights)
    atexit.register(Guard(folder).end)
    password = folder / "password"
    password.write_text(f"{PASSWORD}\n")
    password.chmod(0o644)
    data = folder / "data"
    command = [str(Path(program).with_name("initdb")), "--no-sync", f"--username={USER}"]
    command += [f"--pwfile={password}", f"--pgdata={data}", *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, errors="replace", check=False, **rights
    )
    if done.returncode:
        raise RuntimeError(f"initdb failed:\n{done.stderr[-2000:]}")
    with (data / "postgresql.conf").open("a") as config:
        config.write("include = '../test.conf'\n")
    return data


_lock = threading.Lock()


@cache
def _shared() -> PostgresServer:
    server = PostgresServer()
    server.start()
    return server


_shared_lock = threading.Lock()


def shared_postgres() -> str:
    """The URL of the server that all tests of this process share, started at the first call."""
    if named := os.environ.get(NAMED):
        return named
    with _shared_lock:
        return _shared().url


def postgres_url(folder: Path) -> str:
    """The URL of a store that belongs to a folder; the same one at each call of this process."""
    url = shared_postgres()
    name = store_name(folder).replace("-", "_")
    return f"{url}{'&' if '?' in url else '?'}table=test_{name}"
