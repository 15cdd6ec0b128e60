"""The records that were stored or read last: what they refer to need not be sent again."""

from __future__ import annotations

from holdfast._core import CoreError, references
from holdfast.backends.base import Lacking

# Namespaces whose last record is noted: half a kilobyte each, of wide graphs some kilobytes.
_NAMESPACES = 2000


class LastRecords:
    """The last record of each namespace that was stored or read here: what it refers to is
    mostly what the next one refers to, and need not be sent again."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], bytes] = {}

    def note(self, thread_id: str, checkpoint_ns: str, record: bytes) -> None:
        """Remember a record, in place of the one before."""
        if len(self._records) >= _NAMESPACES:
            self._records.clear()
        self._records[thread_id, checkpoint_ns] = record

    def known(
        self, thread_id: str, checkpoint_ns: str, lacking: Lacking, *, lowest: int = 0
    ) -> list[bytes]:
        """Chunks right below that record, of level `lowest` and above, that the caller has."""
        record = self._records.get((thread_id, checkpoint_ns))
        if record is None:
            return []
        try:
            ids = [id for level, id in references(record)[1] if level >= lowest]
        except CoreError:
            # It is damaged: whoever read it was told so.
            self._records.pop((thread_id, checkpoint_ns), None)
            return []
        lacked = set(lacking(ids))
        return [id for id in ids if id not in lacked]
