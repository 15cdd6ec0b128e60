"""A wire to Postgres that passes on one request after the other, each up to its ReadyForQuery."""

from __future__ import annotations

import re
import select
import socket
import struct
from collections.abc import Callable, Iterator
from functools import cache

from holdfast.backends.postgres.statements import Statements
from holdfast.backends.postgres.tables import Tables

from support.postgres import Connection, dump
from support.postgres_server import USER
from support.wire import Cut, Wire

CHANGES = ("commit", "copy", "discard", "forget", "remove", "write")

_KEEP = re.compile(rb"interval '\d+ seconds'")
# https://www.postgresql.org/docs/current/protocol-message-formats.html
_CANCEL, _TLS, _GSS = 80877102, 80877103, 80877104
_HEAD = struct.Struct(">cI")
_OPERATION = re.compile(rb"(?=\0\0\0\x08(.{8}))", re.DOTALL)


@cache
def _statements() -> dict[bytes, str]:
    statements = Statements(Tables("holdfast"), 0)
    found = {}
    for attribute in (*CHANGES, "commit_with_writes"):
        statement = getattr(statements, attribute)
        for sql in statement.values() if isinstance(statement, dict) else [statement]:
            found[_KEEP.sub(b"", sql)] = attribute.removesuffix("_with_writes")
    return found


class Trip:
    """What a client sends until it wants an answer, on its way to the server and back."""

    def __init__(self, wire: PostgresWire, data: bytes, change: str, server: socket.socket) -> None:
        self.data = data
        self.change = change
        """What is changed by it; empty where nothing is."""
        self._wire = wire
        self._server = server

    def was_done(self, conn: Connection, url: str) -> bool:
        """Whether a change's operation is remembered; not all changes have one."""
        rows = dump(conn, url)
        remembered = b"".join(
            row[column]
            for table in ("threads", "checkpoints", "writes")
            for row in rows[table]
            for column in ("operations", "operations_before", "operation")
            if row.get(column) is not None
        )
        return any(one in remembered for one in _OPERATION.findall(self.data))

    def forward_only(self) -> None:
        """Send the request, and wait for no reply."""
        self._server.sendall(self.data)

    def forward(self, share: float = 1) -> bytes:
        """Send the request, and give back the reply; or send a part of it and nothing more.

        Raises:
            ConnectionError: The server went before it replied.
        """
        self._server.sendall(self.data[: int(len(self.data) * share)])
        if share < 1:
            return b""
        try:
            return _reply(self._server)
        except ConnectionError:
            self._wire.lose(self)
            raise


class PostgresWire(Wire[Trip]):
    """A wire to Postgres, for clients without TLS and password, on tables of the usual names."""

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres?sslmode=disable&table=holdfast"

    def _forward(self, trip: Trip) -> bytes:
        return trip.forward()

    def _trips(self, client: socket.socket, server: socket.socket) -> Iterator[Trip]:
        while True:
            start = _read(client, 8)
            length, code = struct.unpack(">II", start)
            if code not in (_TLS, _GSS):
                break
            client.sendall(b"N")
        server.sendall(start + _read(client, length - 8))
        if code == _CANCEL:
            server.recv(1)  # closes when it has passed it on
            return
        client.sendall(_reply(server))
        prepared: dict[bytes, str] = {}
        data, change = b"", ""
        while True:
            ready, _, _ = select.select([client, server], [], [])
            if server in ready:
                return  # between two requests it has nothing to say, but that it ends
            message = _message(client)
            if message is None:
                return
            kind, body = message[:1], message[5:]
            data += message
            if kind == b"P":
                name, sql, _ = body.split(b"\0", 2)
                prepared[name] = _statements().get(_KEEP.sub(b"", sql), "")
            elif kind == b"B":
                change = prepared.get(body.split(b"\0", 2)[1], "") or change
            elif kind in b"SQ":
                yield Trip(self, data, change, server)
                data, change = b"", ""


def _message(end: socket.socket) -> bytes | None:
    """The next message; None where the other side has ended."""
    head = end.recv(1)
    if not head:
        return None
    head += _read(end, 4)
    return head + _read(end, _HEAD.unpack(head)[1] - 4)


def _reply(server: socket.socket) -> bytes:
    """What a server says until it is ready for more."""
    reply = b""
    while message := _message(server):
        reply += message
        if message[:1] == b"Z":
            return reply
    raise ConnectionResetError


def _read(end: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = end.recv(min(count, 1 << 16))
        if not part:
            raise ConnectionResetError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


class Lost:
    """Loses the first reply to a change that was made, and has others come between."""

    def __init__(self, change: str, between: Callable[[], None]) -> None:
        self._change = change
        self._between = between
        self.count = 0
        """How often the change was sent by then and thereafter."""

    def __call__(self, trip: Trip) -> bytes:
        reply = trip.forward()
        if trip.change != self._change:
            return reply
        self.count += 1
        if self.count == 1:
            self._between()
            raise Cut
        return reply
