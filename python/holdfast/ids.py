"""What the ids of checkpoints say."""

from __future__ import annotations

from functools import lru_cache

# Of the Gregorian calendar, from which versions 1 and 6 count (RFC 9562, section 5.1), to 1970; in
# units of 100 nanoseconds.
_CALENDAR = 0x01B2_1DD2_1381_4000
_PER_MILLISECOND = 10_000
# Of a UUID: hexadecimal digits, without dashes and with them, and the bits that say which kind of
# UUID it is (section 4.1).
_DIGITS = 32
_LONGEST = 36
_VARIANT = 0b10


def made(checkpoint_id: str) -> int:
    """When a checkpoint was made, in milliseconds since 1970; 0 where its id is not a UUID, written
    as LangGraph writes it, of version 6, which LangGraph makes, or 7 (RFC 9562, sections 5.6 and
    5.7)."""
    return _made(checkpoint_id) if len(checkpoint_id) <= _LONGEST else 0


# A checkpoint's id is asked for when writes come to it, and when another follows it.
@lru_cache(maxsize=256)
def _made(checkpoint_id: str) -> int:
    digits = checkpoint_id.replace("-", "")
    # Not UUID(), which takes five times as long.
    if len(digits) != _DIGITS:
        return 0
    try:
        number = int(digits, 16)
    except ValueError:
        return 0
    if number >> 62 & 3 != _VARIANT:
        return 0
    version = number >> 76 & 0xF
    if version == 6:
        ticks = (number >> 80) << 12 | (number >> 64) & 0xFFF
        return max((ticks - _CALENDAR) // _PER_MILLISECOND, 0)
    if version == 7:
        return number >> 80
    return 0
