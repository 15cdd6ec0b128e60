"""A PgBouncer of the tests' own, which pools in transactions."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from urllib.parse import unquote, urlsplit

from .throwaway import Throwaway

READY = b"process up"
STATEMENTS_SINCE = (1, 21)


@cache
def _version(program: str) -> tuple[int, ...]:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"(\d+)\.(\d+)", said.stdout)
    return tuple(map(int, found.groups())) if found else ()


class PgBouncer(Throwaway):
    """A PgBouncer in front of a server. All its clients are the user that the server's URL names.

    Where we are root it runs as another user, because it refuses to be root's.

    Args:
        server_url: The server's; it need not be up.
        settings: Those of pgbouncer.ini by name, such as `default_pool_size`; they are read at
            each start.
    """

    program = "pgbouncer"
    as_root = False

    def __init__(self, server_url: str, **settings: str | int) -> None:
        super().__init__()
        self.settings = settings
        self._server = urlsplit(server_url)

    @property
    def url(self) -> str:
        user, database = self._server.username, self._server.path
        return f"postgresql://{user}@127.0.0.1:{self.port}{database}"

    def _command(self, program: str) -> list[str]:
        server = self._server
        user, password = unquote(server.username or ""), unquote(server.password or "")
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "admin_users": user,
            "pool_mode": "transaction",
            **({"max_prepared_statements": 0} if _version(program) >= STATEMENTS_SINCE else {}),
            **self.settings,
        }
        lines = [
            "[databases]",
            f"* = host={server.hostname} port={server.port or 5432} user={user}"
            + (f" password='{password}'" if password else ""),
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in settings.items()),
        ]
        config = self.folder / "pgbouncer.ini"
        config.write_text("\n".join([*lines, ""]))
        return [program, str(config)]

    def _is_ready(self) -> bool:
        return READY in self._log.read_bytes()
