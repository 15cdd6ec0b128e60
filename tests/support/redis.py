"""A Redis server seen from beside a saver: its keys, its clients, and what a saver sends it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import holdfast
import pytest
from blockbuster import BlockBuster
from redis import Redis

from support.calls import Calls
from support.make import Thread, checkpoint, config, version
from support.redis_server import RedisServer

WORDS = [f"{i * 7919 % 1000003:x} {i} " * 60 for i in range(120)]
"""Texts of which each is a chunk, and which do not compress to nothing."""


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


async def use(calls: Calls, thread_id: str = "t") -> None:
    """Put, write, list and copy, and check that what comes back is what was put."""
    thread = Thread(calls, thread_id)
    for length in (1, 2, 20):
        stored = await thread.put({"state": WORDS[:length]})
        await calls.put_writes(stored, [("state", length)], "task")
    for found in await calls.list(config(thread_id)):
        assert found.checkpoint["channel_values"] == thread.expected[found.checkpoint["id"]]
    head = await calls.must_get(config(thread_id))
    assert head.checkpoint["channel_values"] == {"state": WORDS[:20]}
    assert head.pending_writes == [("task", "state", 20)]
    assert len(await calls.list(config(thread_id))) == 3
    await calls.copy_thread(thread_id, f"{thread_id} copy")
    assert await calls.ids(config(f"{thread_id} copy")) == await calls.ids(config(thread_id))
    await calls.delete_thread(f"{thread_id} copy")
    assert await calls.get_tuple(config(f"{thread_id} copy")) is None


def put_one(saver: holdfast.Saver, thread_id: str = "t", number: int = 1, **how: Any) -> Any:
    """A checkpoint that stands alone, with some chunks."""
    made = checkpoint(number, {"state": WORDS[:20]}, {"state": version(number)})
    where = config(thread_id, how.get("ns", ""))
    return saver.put(where, made, how.get("metadata", {}), made["channel_versions"])


def everything(error: BaseException) -> Iterator[BaseException]:
    """An error, its causes and its contexts, also those that are not shown."""
    seen: list[BaseException] = []
    front: list[BaseException | None] = [error]
    while front:
        one = front.pop()
        if one is not None and one not in seen:
            seen.append(one)
            front += [one.__cause__, one.__context__]
    yield from seen


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
