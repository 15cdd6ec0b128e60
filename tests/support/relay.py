"""Between a saver and its Redis server: counts round trips, holds replies back, cuts wires."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

_LARGEST = 1 << 16


class Relay:
    """Passes on what comes, on a port of its own; for use under `with`.

    Args:
        port: The server's.
    """

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._door = socket.create_server(("127.0.0.1", 0))
        self._wires: list[Wire] = []
        self._replies = threading.Event()
        self._replies.set()
        self._threads: list[threading.Thread] = []
        self.commands: list[list[bytes]] = []
        """The commands that came since the last `take`."""
        self.before: Callable[[], None] = lambda: None
        """Is called before requests are passed on."""
        self.piece = _LARGEST
        """Bytes of a reply that are passed on at once."""
        self._trips = 0
        self._is_over = False
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._door.getsockname()[1]}/0"

    def __enter__(self) -> Relay:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        with self._lock:
            self._is_over = True
        self._door.shutdown(socket.SHUT_RDWR)
        self.cut()
        self._threads[0].join()
        for thread in self._threads:
            thread.join()
        self._door.close()

    def hold(self) -> None:
        """Let no reply through."""
        self._replies.clear()

    def release(self) -> None:
        self._replies.set()

    def cut(self) -> None:
        """End all connections, whatever is under way."""
        with self._lock:
            wires, self._wires = self._wires, []
        for wire in wires:
            wire.end()

    def take(self) -> tuple[int, int]:
        """Round trips and commands since the last time."""
        with self._lock:
            trips, commands = self._trips, self.commands
            self._trips, self.commands = 0, []
        return trips, len(commands)

    def names(self) -> Counter[str]:
        """The names of the commands since the last `take`, scripts by what they are."""
        with self._lock:
            return Counter(command[0].decode().upper() for command in self.commands)

    def _start(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._server)
            except OSError:
                client.close()
                continue
            wire = Wire(client, server)
            with self._lock:
                self._wires.append(wire)
                if self._is_over:
                    wire.end()
            self._start(self._ask, wire)
            self._start(self._answer, wire)

    def _ask(self, wire: Wire) -> None:
        while data := wire.receive(wire.client):
            with self._lock:
                self.commands += wire.commands(data)
                if not wire.is_asked:
                    wire.is_asked = True
                    self._trips += 1
            self.before()
            wire.send(wire.server, data)
        wire.leave()

    def _answer(self, wire: Wire) -> None:
        while data := wire.receive(wire.server):
            self._replies.wait()
            with self._lock:
                wire.is_asked = False
            for start in range(0, len(data), self.piece):
                wire.send(wire.client, data[start : start + self.piece])
        wire.leave()


class Wire:
    """One connection."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client = client
        self.server = server
        self.is_asked = False
        """Whether requests came since the last reply."""
        self._rest = b""
        self._threads = 2
        self._lock = threading.Lock()

    def receive(self, end: socket.socket) -> bytes:
        try:
            return end.recv(_LARGEST)
        except OSError:
            return b""

    def send(self, end: socket.socket, data: bytes) -> None:
        with suppress(OSError):
            end.sendall(data)

    def end(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def leave(self) -> None:
        """End it; the second of its two threads closes it: a number of a socket that is
        closed while the other reads from it would soon be another socket's."""
        self.end()
        with self._lock:
            self._threads -= 1
            is_last = not self._threads
        if is_last:
            self.client.close()
            self.server.close()

    def commands(self, data: bytes) -> list[list[bytes]]:
        """The commands that are complete with these bytes."""
        self._rest += data
        found = []
        at = 0
        while (read := self._command(at)) is not None:
            command, at = read
            found.append(command)
        self._rest = self._rest[at:]
        return found

    def _command(self, at: int) -> tuple[list[bytes], int] | None:
        head = self._number(at)
        if head is None:
            return None
        count, at = head
        parts = []
        for _ in range(count):
            length = self._number(at)
            if length is None or len(self._rest) < length[1] + length[0] + 2:
                return None
            size, at = length
            parts.append(self._rest[at : at + size])
            at += size + 2
        return parts, at

    def _number(self, at: int) -> tuple[int, int] | None:
        end = self._rest.find(b"\r\n", at)
        return None if end < 0 else (int(self._rest[at + 1 : end]), end + 2)
