"""A wire to Redis that passes on one command after the other."""

from __future__ import annotations

import hashlib
import select
import socket
from collections.abc import Iterator

import hiredis
from holdfast.backends.redis.scripts import call
from redis import Redis

from support.wire import Wire

DURABLE = {"appendonly": "yes", "appendfsync": "always"}
"""Options of a server that keeps what it acknowledged, whatever kills it."""

CHANGES = ("commit", "copy", "discard", "forget", "remove", "upload", "write")
UNKNOWN = b"-NOSCRIPT"
"""How the reply begins to a script that was not run."""
_SCRIPTS = {call(name, [])[1].encode(): name for name in CHANGES}


class Trip:
    """One command on its way from a client to the server and back."""

    def __init__(self, wire: RedisWire, command: list[bytes], server: socket.socket) -> None:
        self.command = command
        self._wire = wire
        self._server = server

    @property
    def port(self) -> int:
        """That of the server to which it goes."""
        port: int = self._server.getpeername()[1]
        return port

    @property
    def script(self) -> str:
        """The script of a command that changes something; empty for others."""
        name, *rest = self.command
        if name not in (b"EVAL", b"EVALSHA"):
            return ""
        digest = hashlib.sha1(rest[0]).hexdigest().encode() if name == b"EVAL" else rest[0]
        return _SCRIPTS.get(digest, "")

    def was_done(self, client: Redis) -> bool:
        """Whether the thread of a change remembers its operation; not all changes have one."""
        if not self.script:
            return False
        remembered = b"".join(client.hvals(self.command[3]))
        return any(len(one) == 8 and one in remembered for one in self.command[4:])

    def forward(self, share: float = 1) -> bytes:
        """Send the command, and give back the reply; or send a part of it and nothing more.

        Raises:
            ConnectionError: The server went before it replied.
        """
        raw = b"*%d\r\n" % len(self.command)
        raw += b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in self.command)
        self._server.sendall(raw[: int(len(raw) * share)])
        if share < 1:
            return b""
        reader, reply = hiredis.Reader(), bytearray()
        try:
            while data := self._server.recv(1 << 16):
                reply += data
                reader.feed(data)
                if reader.gets() is not False:
                    return bytes(reply)
        except ConnectionError:
            pass
        self._wire.lose(self)
        raise ConnectionResetError


class RedisWire(Wire[Trip]):
    """A wire to Redis."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _forward(self, trip: Trip) -> bytes:
        return trip.forward()

    def _trips(self, client: socket.socket, server: socket.socket) -> Iterator[Trip]:
        reader = hiredis.Reader()
        while True:
            ready, _, _ = select.select([client, server], [], [])
            if server in ready:
                return  # between two commands it has nothing to say
            data = client.recv(1 << 16)
            if not data:
                return
            reader.feed(data)
            while (command := reader.gets()) is not False:
                yield Trip(self, command, server)


def held(client: Redis) -> tuple[int, int]:
    """The connections of a server, and its memory."""
    info = client.info()
    return info["connected_clients"], info["used_memory"]
