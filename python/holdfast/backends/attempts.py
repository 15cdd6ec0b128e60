"""How often, and after what pause, a round trip is tried again."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0
# So often at least a budget that is spent on pauses alone is tried.
_LEAST_ATTEMPTS = 20


class Attempts:
    """The attempts at one round trip, within a budget of seconds.

    Every request can be repeated safely: a change carries its operation id.

    Args:
        budget: Seconds, `retry_budget`.
        begun: When the first attempt began, by `time.monotonic`.
        free: By name, how many failures cost no pause, whatever the budget: those that say
            nothing of the server.
    """

    def __init__(self, budget: float, begun: float, free: Mapping[str, int]) -> None:
        self._budget = budget
        self._begun = begun
        self._free = dict(free)
        self._longest = min(_LONGEST_PAUSE, budget / _LEAST_ATTEMPTS)
        self.count = 0

    @property
    def seconds(self) -> float:
        """Since the first attempt began."""
        return time.monotonic() - self._begun

    def pause(self, passes: bool, kind: str) -> float | None:
        """Seconds to wait before the next attempt; None where there is no hope left.

        Args:
            passes: Whether the failure may pass.
            kind: Its name among the free ones, if it is there.
        """
        self.count += 1
        if not passes:
            return None
        if self._free.get(kind, 0):
            self._free[kind] -= 1
            return 0.0
        # Exponential, with full jitter, so that clients that failed together part.
        bound = min(self._longest, _FIRST_PAUSE * 2 ** min(self.count, 16))
        pause = random.uniform(0, bound)  # noqa: S311 - nobody gains by guessing it
        return pause if self.seconds + pause < self._budget else None
