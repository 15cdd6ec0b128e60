"""What can go wrong, by what the caller can do about it.

Every error names what failed, on what, and the remedy; the driver's exception is its
cause. Not found is never an error, and an error is never taken for not found.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, ClassVar

from holdfast import _core


class HoldfastError(Exception):
    """Base of all errors of holdfast."""


class StoreUnavailable(HoldfastError):
    """The store cannot be reached, opened or written."""


class StoreFull(HoldfastError):
    """The store has no room. Nothing of the refused request was stored."""


class StoreTimeout(HoldfastError):
    """The store did not answer within the retry budget."""


class CheckpointCorrupted(HoldfastError):
    """Stored bytes are damaged or missing. Other checkpoints are not affected."""


class ThreadDeleted(HoldfastError):
    """A late write of a run to a thread that was deleted meanwhile. Nothing was stored."""


class CheckpointRemoved(HoldfastError):
    """A checkpoint cannot do without its parent, which was removed. Nothing was stored."""


class LeaseLost(HoldfastError):
    """Another is the thread's writer. Nothing was stored."""


class LeaseHeld(HoldfastError):
    """The lease cannot be had: another is the thread's writer."""


class FormatTooNew(HoldfastError):
    """A newer version of holdfast wrote this: upgrade holdfast here."""


class StoreWarning(UserWarning):
    """The store works, but its settings put checkpoints at risk; the message has the remedy."""


class ConfigurationError(HoldfastError, ValueError):
    """A URL, an option or an argument is not one that exists; the message lists those that do."""


class Translation:
    """Raises errors of one kind, in its block, as holdfast's own. A class, not a generator: it
    stands around each read."""

    __slots__ = ()
    of: ClassVar[type[Exception]]
    """The kind."""

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, self.of):
            raise self._public(error) from error

    def _public(self, error: Any) -> HoldfastError:
        raise NotImplementedError


class reading(Translation):
    """Turns what the core finds wrong with stored bytes, in its block, into the public errors."""

    __slots__ = ("_place",)
    of = _core.CoreError

    def __init__(self, thread_id: str, checkpoint_ns: str, checkpoint_id: str | None) -> None:
        self._place = (thread_id, checkpoint_ns, checkpoint_id)

    def _public(self, error: _core.CoreError) -> HoldfastError:
        place = describe(*self._place)
        if isinstance(error, _core.FormatError):
            return FormatTooNew(f"{place}: {error}. Upgrade holdfast to read it.")
        if isinstance(error, _core.IntegrityError):
            return corrupted(*self._place, str(error.args[0]))
        return HoldfastError(f"{place}: {error}")


def for_another(error: Exception) -> Exception:
    """A copy of an error, so that callers that share it do not share a traceback. Where its class
    cannot be called with its arguments, the error itself."""
    try:
        another = type(error)(*error.args)
    except TypeError:
        return error
    another.__cause__ = error.__cause__ or error
    return another


def corrupted(
    thread_id: str, checkpoint_ns: str, checkpoint_id: str | None, what: str
) -> CheckpointCorrupted:
    """The error for damaged bytes of one checkpoint."""
    return CheckpointCorrupted(
        f"{describe(thread_id, checkpoint_ns, checkpoint_id)}: {what}. Restore it from a backup, "
        "or go on from an earlier checkpoint of the thread."
    )


def thread_deleted(thread_id: str) -> ThreadDeleted:
    """The error for a late write to a thread that was deleted."""
    return ThreadDeleted(
        f"thread {thread_id!r} was deleted after this run began: nothing was stored. To begin the "
        "thread anew, start a run without a checkpoint_id."
    )


def checkpoint_removed(thread_id: str) -> CheckpointRemoved:
    """The error for a checkpoint whose parent is gone, from which its channels are rebuilt."""
    return CheckpointRemoved(
        f"thread {thread_id!r}: the checkpoint that this run builds on was removed meanwhile, and "
        "the run's delta channels are rebuilt from it: nothing was stored. Begin again from the "
        "latest checkpoint; keep more of them (keep_last) where several runs share a thread."
    )


def lease_lost(thread_id: str) -> LeaseLost:
    """The error for a write by another than the one who holds the lease."""
    return LeaseLost(
        f"thread {thread_id!r}: another writer holds its lease, nothing was stored. Take the lease "
        "with saver.lease(thread_id), and begin again from the latest checkpoint."
    )


def describe(thread_id: str, checkpoint_ns: str, checkpoint_id: str | None) -> str:
    """Name a checkpoint in a message."""
    return (
        f"thread {thread_id!r}, namespace {checkpoint_ns!r}, "
        f"checkpoint {checkpoint_id if checkpoint_id is not None else 'latest'!r}"
    )
