"""What listings and sweeps tell about threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)
_FIRST, _LAST = (
    (time.replace(tzinfo=timezone.utc) - _EPOCH) // _MILLISECOND
    for time in (datetime.min, datetime.max)
)


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread as `saver.threads()` lists it.

    Attributes:
        thread_id: Its id.
        namespaces: Those that have checkpoints, sorted; "" is the root.
        checkpoints: How many there are in all namespaces.
        created_at: When it was first written (UTC, to the millisecond).
        updated_at: When it was last written.
        expires_at: When it expires; None for never.
        step: Of the root's latest checkpoint, as LangGraph counts: -1 is the input.
        next: The nodes that are due to run, as far as the checkpoint alone says it.
        interrupted: Whether a node waits for `Command(resume=...)`.
        bytes: That are stored of it, without names and indexes; None unless asked for.
        unshared_bytes: What they would be if each checkpoint and each pending write had all of its
            chunks for itself; None unless asked for.
        error: Why the latest checkpoint cannot be read: it is damaged, or a newer version of
            holdfast wrote it. Where it stands is then not known. None where nothing is wrong.
    """

    thread_id: str
    namespaces: Sequence[str]
    checkpoints: int
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    step: int | None
    next: Sequence[str]
    interrupted: bool
    bytes: int | None = None
    unshared_bytes: int | None = None
    error: str | None = None

    @property
    def unfinished(self) -> bool:
        """Whether a run would go on here: a node is due, or waits for a person."""
        return bool(self.next) or self.interrupted


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep removed, or would have.

    Attributes:
        threads: Threads that went as a whole.
        checkpoints: Checkpoints that went, with their threads or without.
        bytes: That were stored of what went, without names and indexes.
        unreadable: Threads that were left as they are, because they are damaged or a newer version
            of holdfast wrote them; the log names them.
    """

    threads: int = 0
    checkpoints: int = 0
    bytes: int = 0
    unreadable: int = 0

    def __add__(self, other: Swept) -> Swept:
        return Swept(
            self.threads + other.threads,
            self.checkpoints + other.checkpoints,
            self.bytes + other.bytes,
            self.unreadable + other.unreadable,
        )


def to_datetime(milliseconds: int) -> datetime:
    """The time (UTC) that is so many milliseconds after 1970; the first or the last that there is
    where it is beyond these."""
    return _EPOCH + min(max(milliseconds, _FIRST), _LAST) * _MILLISECOND


def to_milliseconds(time: datetime) -> int:
    """Milliseconds since 1970, rounded down; a time without a zone is local."""
    return (time.astimezone(timezone.utc) - _EPOCH) // _MILLISECOND
