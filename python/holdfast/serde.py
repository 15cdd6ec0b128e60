"""LangGraph's serializer, its bytes and its objects, from native code where that is sure.

`JsonPlusSerializer` stays the authority: what the core does not know, refuses or finds
odd is given to it whole, so that bytes, objects, limits and errors are its own.
"""

from __future__ import annotations

from typing import Any

import ormsgpack
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from holdfast._core import Codec, Loading, Packed

_CLASSES = (
    HumanMessage,
    AIMessage,
    SystemMessage,
    ToolMessage,
    ChatMessage,
    FunctionMessage,
    Document,
)

# Releases of ormsgpack before 1.13 make a list as long as it says it is, and crash.
_BELIEVES_LENGTHS = tuple(map(int, ormsgpack.__version__.split(".")[:2])) < (1, 13)

_codec = Codec(_CLASSES)
_UNREAD = object()


class Serializer(JsonPlusSerializer):
    """`JsonPlusSerializer`, several times faster; the same arguments, bytes and objects."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """The tag and the bytes of a value.

        Raises:
            TypeError: Upstream refuses the value.
        """
        if obj is None or isinstance(obj, (bytes, bytearray)):
            return super().dumps_typed(obj)
        try:
            packed = _codec.encode(obj)
        except Exception:  # noqa: BLE001 - upstream meets the same error, and raises its own
            packed = None
        return super().dumps_typed(obj) if packed is None else ("msgpack", packed)

    def pack_typed(self, obj: Any) -> tuple[str, bytes | Packed]:
        """What `dumps_typed` gives, for a draft: of a list without the elements that are known.

        Raises:
            TypeError: Upstream refuses the value.
        """
        if type(obj) is not list:
            return self.dumps_typed(obj)
        try:
            packed = _codec.pack(obj)
        except Exception:  # noqa: BLE001 - as above
            packed = None
        return super().dumps_typed(obj) if packed is None else ("msgpack", packed)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """The value of a tag and bytes."""
        tag, packed = data
        if tag != "msgpack" or self._custom_unpack_ext_hook or type(packed) is not bytes:
            return super().loads_typed(data)
        if _BELIEVES_LENGTHS and Codec.overstates(packed):
            raise ValueError("unexpected end of file")
        value = _codec.decode(packed, self._unpack_ext_hook, _UNREAD)
        return super().loads_typed(data) if value is _UNREAD else value


_LOADS_TYPED = Serializer.loads_typed


def loading(serde: SerializerProtocol) -> Loading:
    """How readers make objects of what `serde` has dumped: as `loads_typed`, which the core asks
    only for what it does not read itself. Where the method is another one it is asked for all."""
    loads = serde.loads_typed
    if _BELIEVES_LENGTHS or getattr(loads, "__func__", None) is not _LOADS_TYPED:
        return Loading(loads)
    serializer: Serializer = loads.__self__  # type: ignore[attr-defined]
    if serializer._custom_unpack_ext_hook:
        return Loading(loads)
    return Loading(loads, _codec, serializer._unpack_ext_hook)
