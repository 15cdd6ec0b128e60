"""A standby of a PostgreSQL server of our own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .postgres_server import USER, PostgresServer
from .throwaway import unprivileged

PRIMARY: dict[str, str | int] = {"max_wal_senders": 4, "synchronous_commit": "on"}
"""Options of a server that can have one."""


class PostgresStandby(PostgresServer):
    """Follows another server until it is promoted. From then on that one acknowledges nothing that
    this one has not written down.

    Args:
        primary: A running server with the options of PRIMARY.
    """

    def __init__(self, primary: PostgresServer) -> None:
        where = f"host=127.0.0.1 port={primary.port} user={USER} application_name=standby"
        super().__init__({**PRIMARY, "primary_conninfo": where})
        self._primary = primary

    def _prepare(self, program: str) -> None:
        # Beside the program itself, not beside a link to it.
        copy = Path(program).resolve().with_name("pg_basebackup")
        command = [str(copy), "--checkpoint=fast", "--no-sync"]
        command += [f"--dbname={self._primary.url}", f"--pgdata={self._data}"]
        subprocess.run(command, check=True, cwd=self.folder, **unprivileged())
        (self._data / "standby.signal").touch()
