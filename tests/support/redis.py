"""A Redis server seen from beside a saver: its keys, its clients, and what a saver sends it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster
from redis import Redis

from support.redis_server import RedisServer


def eye(url: str, **settings: Any) -> Redis:
    """A client of the test's own; the options in the URL are not for it."""
    return Redis.from_url(url.partition("?")[0], **settings)


def prefix_of(url: str) -> str:
    """The prefix that a URL of `redis_url` names."""
    return url.rpartition("prefix=")[2]


def keys(client: Redis, prefix: str = "") -> list[bytes]:
    """All keys below a prefix; all of the database without one."""
    escaped = re.sub(r"([*?\[\]\\^-])", r"\\\1", f"{prefix}:") if prefix else ""
    return sorted(client.scan_iter(match=f"{escaped}*", count=1000))


def dump(client: Redis, prefix: str = "") -> dict[bytes, Any]:
    """All keys below a prefix with what they hold. Not as DUMP gives it: a large hash comes
    in an order that reading it may change."""
    read: dict[bytes, Callable[[Any, bytes], Any]] = {
        b"string": lambda pipe, key: pipe.get(key),
        b"hash": lambda pipe, key: pipe.hgetall(key),
        b"list": lambda pipe, key: pipe.lrange(key, 0, -1),
        b"set": lambda pipe, key: pipe.smembers(key),
        b"zset": lambda pipe, key: pipe.zrange(key, 0, -1, withscores=True),
        b"stream": lambda pipe, key: pipe.dump(key),
    }
    names = keys(client, prefix)
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.type(name)
        for name, kind in zip(names, pipe.execute(), strict=True):
            read[kind](pipe, name)
        return dict(zip(names, pipe.execute(), strict=True))


def others(client: Redis) -> list[dict[str, str]]:
    """The server's clients, without the one that asks."""
    return [one for one in client.client_list() if one["id"] != str(client.client_id())]


def calls_of(client: Redis) -> dict[str, int]:
    """How often the server ran each command since CONFIG RESETSTAT."""
    stats = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()}


def let_given_clients_connect(guard: BlockBuster) -> None:
    """redis-py reads its own version from the disk for each connection of a given client."""
    for function in guard.functions.values():
        function.can_block_in("redis/utils.py", "get_lib_version")


# --- TLS


class TlsServer(RedisServer):
    """A redis-server that speaks TLS alone, with a certificate that signed itself.

    Args:
        folder: Where the certificate is put.

    Skips the test where openssl is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.certificate, key = folder / "server.crt", folder / "server.key"
        command = (
            "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 "
            f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {self.certificate}"
        )
        try:
            subprocess.run(command.split(), capture_output=True, check=True, timeout=60)
        except FileNotFoundError:
            pytest.skip("openssl is not installed")
        files = {"tls-cert-file": str(self.certificate), "tls-key-file": str(key)}
        super().__init__({**files, "tls-auth-clients": "no", "requirepass": "secret"})

    @property
    def url(self) -> str:
        return f"rediss://:secret@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        try:
            super().start()
        except RuntimeError as error:
            if "Bad directive" in str(error):
                pytest.skip("this redis-server was built without TLS")
            raise

    def _config(self) -> str:
        return super()._config().replace("port ", "port 0\ntls-port ", 1)
