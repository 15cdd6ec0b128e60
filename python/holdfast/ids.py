"""What the ids of checkpoints say."""

from __future__ import annotations

from uuid import UUID

# Of the Gregorian calendar, from which versions 1 and 6 count (RFC 9562, section 5.1), to 1970; in
# units of 100 nanoseconds.
_CALENDAR = 0x01B2_1DD2_1381_4000
_PER_MILLISECOND = 10_000


def made(checkpoint_id: str) -> int:
    """When a checkpoint was made, in milliseconds since 1970; 0 where its id is not a UUID of
    version 6, which LangGraph makes, or 7 (RFC 9562, sections 5.6 and 5.7)."""
    try:
        id = UUID(checkpoint_id)
    except ValueError:
        return 0
    if id.version == 6:
        ticks = (id.int >> 80) << 12 | (id.int >> 64) & 0xFFF
        return max((ticks - _CALENDAR) // _PER_MILLISECOND, 0)
    if id.version == 7:
        return id.int >> 80
    return 0
