"""The servers that tests start: what they promise to the tests, and that they leave nothing."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError
from support.servers import RedisServer

OWNER = """
import time
from support.servers import RedisServer

server = RedisServer()
server.start()
print(server.port, server.folder, flush=True)
time.sleep(60)
"""


def test_a_killed_server_comes_back_where_it_was_with_what_its_log_holds() -> None:
    with RedisServer({"appendonly": "yes", "appendfsync": "always"}) as server:
        with Redis.from_url(server.url) as client:
            client.set("key", b"value" * 10**6)
        url, folder = server.url, server.folder
        server.kill()
        server.start()
        assert server.url == url
        with Redis.from_url(url) as client:
            assert client.get("key") == b"value" * 10**6
    assert not folder.exists()


def test_options_are_lines_of_the_configuration() -> None:
    users = ["default off", "app on >secret ~app:* &* +@all"]
    with RedisServer({"maxmemory": 10**7, "user": users}) as server:
        with Redis.from_url(server.url) as client, pytest.raises(AuthenticationError):
            client.ping()
        with Redis.from_url(server.url, username="app", password="secret") as client:
            assert client.config_get("maxmemory")["maxmemory"] == str(10**7)


def test_a_server_that_does_not_start_tells_why() -> None:
    server = RedisServer({"maxmemory-policy": "of-my-own"})
    with pytest.raises(RuntimeError, match="of-my-own"):
        server.start()
    assert not server.folder.exists()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_server_ends_with_the_process_that_started_it(end: signal.Signals) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        line = owner.stdout.readline()
        owner.send_signal(end)
    port, _, folder = line.strip().partition(" ")
    deadline = time.monotonic() + 10
    while listening(int(port)) or Path(folder).exists():
        assert time.monotonic() < deadline, line
        time.sleep(0.01)


def listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True
