"""Redis servers of the tests' and benchmarks' own."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from .servers import store_name
from .throwaway import Throwaway

Option = str | int | Sequence[str]

NAMED = "HOLDFAST_TEST_REDIS_URL"
"""Names a server to be used, and never flushed, instead of one that is started."""

READY = b"Ready to accept connections"


class RedisServer(Throwaway):
    """A redis-server of our own, without persistence unless the options ask for it.

    Args:
        options: Lines of redis.conf by name, several where a list is given; they are read
            at each start. Relative paths are in the server's folder.
    """

    program = "redis-server"

    def __init__(self, options: Mapping[str, Option] | None = None) -> None:
        super().__init__()
        self.options: dict[str, Option] = {"save": "", **(options or {})}

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _command(self, program: str) -> list[str]:
        config = self.folder / "redis.conf"
        config.write_text(self._config())
        return [program, str(config)]

    def _is_ready(self) -> bool:
        # Not PING: a server with a password refuses it in the same words while it loads.
        return READY in self._log.read_bytes()

    def _config(self) -> str:
        lines = ["bind 127.0.0.1", f"port {self.port}", f'dir "{self.folder}"']
        for name, values in self.options.items():
            for value in [values] if isinstance(values, (str, int)) else values:
                text = str(value) or '""'
                lines.append(f"{name} {text}")
        return "\n".join([*lines, ""])


_lock = threading.Lock()


@cache
def _shared() -> RedisServer:
    server = RedisServer()
    server.start()
    return server


def shared_redis() -> str:
    """The URL of the server that all tests of this process share, started at the first call."""
    if named := os.environ.get(NAMED):
        return named
    with _lock:
        return _shared().url


def redis_url(folder: Path) -> str:
    """The URL of a store that belongs to a folder; the same one at each call of this process."""
    url = shared_redis()
    return f"{url}{'&' if '?' in url else '?'}prefix=test-{store_name(folder)}"
