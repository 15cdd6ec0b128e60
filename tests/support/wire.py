"""A wire between clients and a server that can be cut where a test wants it."""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

from typing_extensions import Self

from support.servers import free_port

T = TypeVar("T")


class Cut(Exception):
    """The connection to the client ends here; it gets `part` before."""

    def __init__(self, part: bytes = b"") -> None:
        super().__init__()
        self.part = part


class Wire(ABC, Generic[T]):
    """Stands between clients and a server and passes on one request after the other.

    Args:
        port: The server's.
    """

    def __init__(self, port: int) -> None:
        self.meddle: Callable[[T], bytes] = self._forward
        """Gives what a request's client gets; may raise `Cut`. Is called in a thread."""
        self.is_open = True
        """Whether clients that connect are let through to the server."""
        self.refuse: Callable[[socket.socket], None] = lambda _: None
        """What is done to those who are not, before their connection is closed."""
        self._lost: list[T] = []
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
    @abstractmethod
    def url(self) -> str: ...

    @abstractmethod
    def _trips(self, client: socket.socket, server: socket.socket) -> Iterator[T]:
        """The requests that a client sends, until it or the server goes."""

    @abstractmethod
    def _forward(self, trip: T) -> bytes:
        """What a request is answered with when nobody meddles."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        with suppress(OSError):  # wakes who accepts
            socket.create_connection(("127.0.0.1", self.port)).close()
        self._acceptor.join()
        self._listener.close()
        for thread in self._threads:
            while thread.is_alive():
                self.cut()
                thread.join(0.05)
        if self._errors:
            raise self._errors[0]

    def cut(self) -> None:
        """End all connections, whatever is under way."""
        for one in [*self._sockets]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        """Wait until all clients have gone, or their server has."""
        for thread in self._threads:
            thread.join()

    def lose(self, trip: T) -> None:
        """A request's server died between send and reply."""
        self._lost.append(trip)

    def take_lost(self) -> list[T]:
        """Requests whose server died between send and reply, once no client is let through."""
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
        for trip in self._trips(client, server):
            try:
                reply = self.meddle(trip)
            except Cut as cut:
                client.sendall(cut.part)
                return
            client.sendall(reply)
