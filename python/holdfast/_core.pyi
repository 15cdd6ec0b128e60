"""The Rust core: splitting, hashing, compression, and the cache of what is stored.

Ids of chunks are 16 bytes. What a serializer made of a value is a pair of tag and bytes.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias, final

__all__ = [
    "FORMAT",
    "MANIFEST",
    "RELEASE",
    "Codec",
    "Core",
    "CoreError",
    "Draft",
    "FormatError",
    "IntegrityError",
    "Keys",
    "Loading",
    "MissingChunk",
    "Packed",
    "Reader",
    "Record",
    "Write",
    "bundled",
    "bytea_array",
    "children",
    "escape",
    "int8_array",
    "json",
    "level",
    "references",
    "referred",
    "text_array",
    "unbundled",
    "unescape",
]

_Typed: TypeAlias = tuple[str, bytes]
_Version: TypeAlias = str | int | float

FORMAT: Final[int]
"""The storage format that is written, and the newest that is read."""
MANIFEST: Final[int]
"""The level of chunks that hold channels and versions, and their pages the next ones; those of
values have lower ones."""
RELEASE: Final[bool]
"""Whether the extension was built with optimisations."""

class CoreError(Exception): ...
class IntegrityError(CoreError): ...
class FormatError(CoreError): ...
class MissingChunk(IntegrityError): ...

@final
class Codec:
    """Encodes and decodes msgpack as LangGraph's serializer does; one for each process."""

    def __new__(cls, messages: Sequence[type[Any]]) -> Codec:
        """`messages` are classes that may be read and built directly."""
    def encode(self, object: Any) -> bytes | None:
        """The msgpack bytes of a value; None where upstream must make them."""
    def pack(self, object: Any) -> Packed | None:
        """The msgpack bytes of a value for a draft, which need not be in one piece; None where
        upstream must make them."""
    def decode(self, data: bytes, hook: Callable[[int, bytes], Any], unread: Any) -> Any:
        """The value of msgpack bytes; `unread` where upstream must read them.

        `hook` is called for extension objects that are not built here.
        """

    @staticmethod
    def overstates(data: bytes) -> bool:
        """Whether an array in the bytes says that it has far more items than they hold."""

@final
class Loading:
    """How a reader makes objects of what a serializer has dumped."""

    def __new__(
        cls,
        loads: Callable[[_Typed], Any],
        codec: Codec | None = None,
        hook: Callable[[int, bytes], Any] | None = None,
    ) -> Loading:
        """`loads` is called for each value that the codec, with the hook, does not read."""

@final
class Packed:
    """The msgpack bytes of a value, of which elements that are known may be left out."""

    @property
    def left_out(self) -> int:
        """How many elements were left out."""
    def __len__(self) -> int: ...
    def __bytes__(self) -> bytes: ...

@final
class Core:
    """Splits, hashes, compresses, and caches what it has seen. One per saver."""

    def __new__(cls, *, cache_bytes: int, compression: str) -> Core: ...
    def draft_checkpoint(
        self,
        thread_id: str,
        checkpoint_ns: str,
        checkpoint_id: str,
        parent_id: str | None,
        metadata: _Typed,
        skeleton: _Typed,
        channels: Sequence[
            tuple[str, _Version | None, tuple[str, bytes | Packed] | Literal[True] | None]
        ],
        versions_seen: Sequence[tuple[str, dict[str, _Version]]],
        parent: Record | None,
        *,
        may_be_based: bool = True,
    ) -> Draft:
        """Plan the commit of a checkpoint.

        A channel's value is what the serializer made of it, None where the channel is
        empty, or True where it is what `parent` holds. The record may say only what has changed
        since the parent, or one before it; not where those may have been removed.
        """
    def draft_writes(self, thread_id: str, entries: Sequence[tuple[str, str, _Typed]]) -> Draft:
        """Plan the commit of pending writes: channel, task path, and value."""
    def reader(self, thread_id: str) -> Reader:
        """Begin a read of one thread."""
    def cached_record(
        self, thread_id: str, checkpoint_ns: str, checkpoint_id: str
    ) -> Record | None:
        """A record that was put or read here lately."""
    def forget(self, thread_id: str) -> None:
        """Forget all of a thread."""
    def discard(self, thread_id: str, ids: Sequence[bytes]) -> None:
        """Forget chunks that were removed from the store."""
    def lacking(self, thread_id: str, ids: Sequence[bytes]) -> list[bytes]:
        """Of these ids those that the cache lacks."""
    def with_parent(self, record: bytes, parent_id: str | None) -> bytes:
        """The same record with another parent, or none."""
    @property
    def cache_bytes(self) -> int:
        """Bytes that the cache holds, as accounted."""

@final
class Draft:
    """What a commit sends, with the bytes that its values had when it was planned."""

    @property
    def sealed(self) -> list[bytes]:
        """The record, or the pending writes in the order in which they were given."""
    @property
    def chunks(self) -> list[tuple[bytes, bytes]]:
        """New chunks: id and bytes, children before parents."""
    @property
    def frontier(self) -> list[bytes]:
        """Ids that are not sent and must be stored already."""
    def resend(self, missing: Sequence[bytes]) -> list[bytes]:
        """Send these as well, and all that they refer to. Gives back those not at hand."""
    def acknowledge(self) -> None:
        """The store has acknowledged the commit: remember what is there now."""

@final
class Record:
    """A checkpoint's record."""

    @property
    def parent_id(self) -> str | None: ...
    def holds(self, channel: str, version: _Version) -> bool:
        """Whether the channel is listed in this version, with or without a value."""
    def versions(self) -> dict[str, _Version]: ...
    def versions_seen(self) -> dict[str, dict[str, _Version]]: ...
    def filled(self) -> list[str]:
        """Names of the channels that have a value."""

@final
class Write:
    """A pending write."""

    @property
    def channel(self) -> str: ...
    @property
    def task_path(self) -> str: ...

@final
class Reader:
    """Gathers chunks and joins values."""

    def record(self, stored: bytes) -> Record:
        """Open the stored bytes of a checkpoint."""
    def write(self, stored: bytes) -> Write:
        """Open the stored bytes of a pending write."""
    def missing(self, record: Record, channels: Sequence[str] | None = None) -> list[bytes]:
        """Ids still to be fetched for a record: all of it, or the given channels alone."""
    def missing_metadata(self, record: Record) -> list[bytes]:
        """Ids still to be fetched for a record's metadata."""
    def missing_skeleton(self, record: Record) -> list[bytes]:
        """Ids still to be fetched for a record's skeleton."""
    def missing_writes(self, writes: Sequence[Write]) -> list[bytes]:
        """Ids still to be fetched for pending writes."""
    def add(self, chunks: Sequence[tuple[bytes, bytes]]) -> None:
        """Give fetched chunks: id and stored bytes. They are proven by their ids."""
    def metadata(self, record: Record) -> _Typed: ...
    def skeleton(self, record: Record) -> _Typed: ...
    def values(
        self, record: Record, channels: Sequence[str] | None = None
    ) -> list[tuple[str, _Typed]]:
        """Name and value of each channel that has one, or of the given ones."""
    def load(
        self,
        record: Record,
        sends: Sequence[Write],
        writes: Sequence[Write],
        loading: Loading,
        remember: str | None = None,
    ) -> tuple[Any, dict[str, Any], list[Any], list[Any]]:
        """What a checkpoint holds, as objects: metadata, channels, and the given pending sends and
        writes. All bytes are at hand before the first of them is loaded.

        With a namespace, the values of channels are remembered to compare the next ones with.
        """
    def write_value(self, write: Write) -> _Typed: ...
    def remember(self, record: Record, checkpoint_ns: str, checkpoint_id: str) -> None:
        """Remember a record whose manifest was read, as the parent of what comes next."""

@final
class Keys:
    """The key names below one prefix."""

    def __new__(cls, prefix: str, *, cluster: bool = False) -> Keys: ...
    def checkpoint(self, thread_id: str, checkpoint_ns: str, checkpoint_id: str) -> bytes: ...
    def writes(self, thread_id: str, checkpoint_ns: str, checkpoint_id: str) -> bytes: ...
    def checkpoints(self, thread_id: str) -> bytes:
        """What the keys of all the thread's checkpoints begin with."""
    def all_writes(self, thread_id: str) -> bytes:
        """What the keys of all the thread's pending writes begin with."""
    def index(self, thread_id: str, checkpoint_ns: str) -> bytes: ...
    def blobs(self, thread_id: str) -> bytes: ...
    def meta(self, thread_id: str) -> bytes: ...
    def threads(self, thread_id: str) -> bytes: ...
    def run(self, run_id: str) -> bytes: ...
    def runs(self) -> bytes:
        """What the keys of all runs begin with."""
    def format(self) -> bytes: ...

def escape(id: str) -> bytes:
    """Escape an id for use in a key."""

def unescape(escaped: bytes) -> str | None:
    """The id that was escaped, or None for what `escape` never gives."""

def json(value: Any, longest: int) -> str | None:
    """The JSON text of a value, at most `longest` bytes.

    None where JSON, or a JSONB column, would not say the same as the value, and where the text
    would be longer.
    """

def bundled(writes: list[tuple[int, bytes]]) -> list[bytes]:
    """Pending writes, each with its index, as few objects as hold them, in their order.

    An object begins with what its writes refer to, as every stored object.
    """

def unbundled(bytes: bytes) -> list[tuple[int, bytes]]:
    """The writes of one of these, as they were. IntegrityError where the bytes are damaged."""

def bytea_array(items: list[bytes]) -> bytes:
    """A list as `bytea[]` of Postgres, in the binary format of array_recv."""

def text_array(items: list[str]) -> bytes:
    """A list as `text[]`, in UTF-8. UnicodeEncodeError for a lone surrogate."""

def int8_array(items: list[int]) -> bytes:
    """A list as `bigint[]`. OverflowError for a number beyond 64 bits."""

def level(start: bytes) -> int:
    """The level of a stored object, from its first two bytes; 0 for a leaf."""

def references(stored: bytes) -> tuple[int, list[tuple[int, bytes]]]:
    """The level of a stored object and what it refers to, as pairs of level and id."""

def children(id: bytes, stored: bytes) -> list[tuple[int, bytes]]:
    """What a page refers to, as pairs of level and id. IntegrityError where its bytes are not those
    of this id."""

def referred(stored: Sequence[bytes]) -> list[bytes]:
    """The ids of all that stored objects refer to, each once."""
