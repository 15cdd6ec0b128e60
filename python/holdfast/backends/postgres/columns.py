"""What stands in a column: ids as text that Postgres takes, and arrays as it reads them."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg import postgres
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

from holdfast._core import bytea_array, int8_array, text_array

# Text in Postgres holds neither NUL nor surrogates. Each is written as two characters that sort
# where it sorts; so are the two characters that begin such a pair.
_NUL, _LAST = "\x01", "\ud7ff"
_ODD = re.compile("[\0\x01\ud7ff\ud800-\udfff]")
_WRITTEN = re.compile("[\x01\ud7ff](.)", re.DOTALL)
_SURROGATES = 0xD800
_FIRST = 2

# In the bytes of an array.
_TYPE_AT = slice(8, 12)
_TEXT = postgres.types["text"].oid


def to_column(id: str) -> str:
    """An id as a column holds it. Order is kept, and ids without NUL, U+0001, U+D7FF and
    surrogates stay what they are."""
    if id.isascii() and "\0" not in id and _NUL not in id:
        return id
    return _ODD.sub(_write, id)


def _write(found: re.Match[str]) -> str:
    character = found[0]
    if character in "\0\x01":
        return _NUL + ("\x01" if character == "\0" else "\x02")
    if character == _LAST:
        return _LAST + "\x01"
    return _LAST + chr(ord(character) - _SURROGATES + _FIRST)


def from_column(value: str) -> str:
    """The id that was given to `to_column`."""
    if value.isascii() and _NUL not in value:
        return value
    return _WRITTEN.sub(_read, value)


def _read(found: re.Match[str]) -> str:
    number = ord(found[1])
    if found[0][0] == _NUL:
        return "\0" if number == 1 else _NUL
    return _LAST if number == 1 else chr(number - _FIRST + _SURROGATES)


class ByteArrays(list[bytes]):
    """A list to be sent as `bytea[]`."""

    oid = postgres.types["bytea"].array_oid

    def dumped(self, encoding: str) -> bytes:
        """Its bytes, for a client of that encoding, in the binary format of array_recv."""
        return bytea_array(self)


class Texts(list[str]):
    """A list to be sent as `text[]`."""

    oid = postgres.types["text"].array_oid

    def dumped(self, encoding: str) -> bytes:
        """As of `ByteArrays`."""
        if encoding == "utf-8":
            return text_array(self)
        # The same but for the type.
        array = bytearray(bytea_array([str.encode(one, encoding) for one in self]))
        array[_TYPE_AT] = _TEXT.to_bytes(4, "big")
        return bytes(array)


class Numbers(list[int]):
    """A list to be sent as `bigint[]`."""

    oid = postgres.types["int8"].array_oid

    def dumped(self, encoding: str) -> bytes:
        """As of `ByteArrays`."""
        return int8_array(self)


def encoding_of(connection: Any) -> str:
    """Python's name of the encoding in which the client of a connection speaks."""
    encoding: str = connection.info.encoding if connection else "utf-8"
    return "utf-8" if encoding == "ascii" else encoding  # SQL_ASCII takes any bytes


class _ArrayDumper(Dumper):
    """Writes arrays for psycopg's cursors, whose own dumper asks for that of each element."""

    format = Format.BINARY

    def dump(self, obj: ByteArrays | Texts | Numbers) -> Buffer | None:
        return obj.dumped(encoding_of(self.connection))


for _kind in (ByteArrays, Texts, Numbers):
    psycopg.adapters.register_dumper(
        _kind, type(f"{_kind.__name__}Dumper", (_ArrayDumper,), {"oid": _kind.oid})
    )
