"""A wire to Redis that can be cut where a test wants it, and what the fault suites share."""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import random
import select
import socket
import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import hiredis
from holdfast.backends.redis.scripts import call
from redis import Redis

from support.servers import free_port

SOAK = bool(os.environ.get("HOLDFAST_SOAK"))
ROUNDS = 300 if SOAK else 30
DURABLE = {"appendonly": "yes", "appendfsync": "always"}
"""Options of a server that keeps what it acknowledged, whatever kills it."""

CHANGES = ("commit", "copy", "discard", "forget", "remove", "upload", "write")
UNKNOWN = b"-NOSCRIPT"
"""How the reply begins to a script that was not run."""
_SCRIPTS = {call(name, [])[1].encode(): name for name in CHANGES}


def seeded() -> random.Random:
    """A generator whose seed is printed: pytest shows it where a test fails."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}, {ROUNDS} rounds")
    return random.Random(seed)


@contextmanager
def again_and_again(work: Callable[[], object], most: float = math.inf) -> Iterator[list[int]]:
    """Work without a pause in another thread; how often it was done is the item."""
    count, errors, stop = [0], [], threading.Event()

    def repeat() -> None:
        try:
            while not stop.is_set() and count[0] < most:
                work()
                count[0] += 1
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield count
    finally:
        stop.set()
        thread.join()
    if errors:
        raise errors[0]


class Cut(Exception):
    """The connection to the client ends here; it gets `part` before."""

    def __init__(self, part: bytes = b"") -> None:
        super().__init__()
        self.part = part


class Trip:
    """One command on its way from a client to the server and back."""

    def __init__(self, wire: Wire, command: list[bytes], server: socket.socket) -> None:
        self.command = command
        self._wire = wire
        self._server = server

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
        self._wire._lost.append(self)
        raise ConnectionResetError


class Wire:
    """Stands between clients and a server and passes on one command after the other.

    Args:
        port: The server's.
    """

    def __init__(self, port: int) -> None:
        self.meddle: Callable[[Trip], bytes] = Trip.forward
        """Gives what a command's client gets; may raise `Cut`. Is called in a thread."""
        self.is_open = True
        """Whether clients that connect are let through to the server."""
        self.refuse: Callable[[socket.socket], None] = lambda _: None
        """What is done to those who are not, before their connection is closed."""
        self._lost: list[Trip] = []
        self.server = ("127.0.0.1", port)
        self._errors: list[BaseException] = []
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._is_closed = False
        self._listener = socket.create_server(("127.0.0.1", free_port()))
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        with suppress(OSError):  # wakes who accepts
            socket.create_connection(("127.0.0.1", self.port)).close()
        self._acceptor.join()
        self._listener.close()
        for thread in self._threads:
            while thread.is_alive():
                for one in [*self._sockets]:
                    with suppress(OSError):
                        one.shutdown(socket.SHUT_RDWR)
                thread.join(0.05)
        if self._errors:
            raise self._errors[0]

    def join(self) -> None:
        """Wait until all clients have gone, or their server has."""
        for thread in self._threads:
            thread.join()

    def take_lost(self) -> list[Trip]:
        """Commands whose server died between send and reply, once no client is let through."""
        assert not self.is_open
        self.join()
        lost, self._lost = self._lost, []
        return lost

    def _accept(self) -> None:
        while not self._is_closed:
            client, _ = self._listener.accept()
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads = [one for one in self._threads if one.is_alive()]
            thread.start()
            self._threads.append(thread)

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                with socket.create_connection(self.server) as server:
                    if self._is_closed or not self.is_open:
                        # Asked now: the server may be another one than before.
                        self.refuse(client)
                        return
                    self._sockets |= {client, server}
                    try:
                        self._pass_on(client, server)
                    finally:
                        self._sockets -= {client, server}
            except OSError:
                pass  # one of the two has gone: the other is told by closing
            except BaseException as error:  # noqa: BLE001 - raised when the wire is closed
                self._errors.append(error)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for command in _commands(client, server):
            try:
                reply = self.meddle(Trip(self, command, server))
            except Cut as cut:
                client.sendall(cut.part)
                return
            client.sendall(reply)


def _commands(client: socket.socket, server: socket.socket) -> Iterator[list[Any]]:
    """The commands that a client sends, until it or the server goes."""
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
            yield command


class Flat:
    """Sees that what a process and its server hold does not grow from round to round."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._seen: list[tuple[int, ...]] = []

    def look(self) -> None:
        """Remember what is held now, at a point that comes again in each round."""
        info = self._client.info()
        status = Path("/proc/self/statm")
        resident = int(status.read_text().split()[1]) * mmap.PAGESIZE if status.exists() else 0
        files = len([*Path("/dev/fd").iterdir()])
        self._seen.append((files, info["connected_clients"], resident, info["used_memory"]))

    def check(self, *, memory: bool = SOAK) -> None:
        """Compare the last third with the one before. Few rounds say nothing of memory."""
        third = len(self._seen) // 3
        before, after = (
            [statistics.median(column) for column in zip(*some, strict=True)]
            for some in (self._seen[third : 2 * third], self._seen[-third:])
        )
        print(f"files, connections, memory here and there: {before}, then {after}")
        room = (3, 3, 8 << 20, 1 << 18) if memory else (3, 3)
        for most, less, more in zip(room, before, after, strict=False):
            assert more <= less + most
