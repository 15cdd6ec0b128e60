"""What the latest checkpoint says about where a run stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import INTERRUPT, TASKS

from holdfast._core import Core, Reader
from holdfast.backends.base import Row
from holdfast.drive import Steps
from holdfast.steps.due import JOIN, due_nodes
from holdfast.steps.load import complete, read_manifests, read_record, unpacked


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands.

    Attributes:
        step: As LangGraph counts.
        next: The nodes that are due to run.
        interrupted: Whether a node waits for `Command(resume=...)`.
    """

    step: int | None
    next: list[str]
    interrupted: bool

    @property
    def is_unfinished(self) -> bool:
        return bool(self.next) or self.interrupted


def read_standing(core: Core, serde: SerializerProtocol, row: Row) -> Steps[Standing | None]:
    """Where a run stands whose latest checkpoint this is, with its writes: no round trip unless
    something is large. None where the checkpoint went meanwhile."""

    def read(reader: Reader, stored: bytes) -> Steps[Standing]:
        reader.add(list(row.chunks.items()))
        record = reader.record(stored)
        yield from read_manifests(core, reader, row.thread_id, [record])
        filled = record.filled()
        telling = [channel for channel in filled if channel == TASKS or channel.startswith(JOIN)]

        def missing() -> list[bytes]:
            return [
                *reader.missing(record, telling),
                *reader.missing_skeleton(record),
                *reader.missing_metadata(record),
            ]

        yield from complete(core, reader, row.thread_id, missing)
        skeleton: dict[str, Any] = unpacked(serde, reader.skeleton(record), "checkpoint")
        metadata: dict[str, Any] = unpacked(serde, reader.metadata(record), "metadata")
        values: dict[str, Any] = dict.fromkeys(filled)
        values.update(
            (channel, unpacked(serde, typed, f"channel {channel!r}"))
            for channel, typed in reader.values(record, telling)
        )
        due = due_nodes(
            values,
            skeleton.get("channel_versions") or record.versions(),
            skeleton.get("versions_seen") or record.versions_seen(),
        )
        channels = {reader.write(write.data).channel for write in row.writes}
        step = metadata.get("step")
        return Standing(step if type(step) is int else None, due, INTERRUPT in channels)

    place = (row.thread_id, row.checkpoint_ns, row.checkpoint_id)
    return (yield from read_record(core, place, read, row.record))
