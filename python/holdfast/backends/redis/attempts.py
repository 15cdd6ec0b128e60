"""How often, and after what pause, a round trip is tried again."""

from __future__ import annotations

import time

from redis.backoff import FullJitterBackoff

from holdfast.backends.redis.errors import is_lost, is_unknown_script, kind_of, raised

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0
# So often at least a budget that is spent on pauses alone is tried.
_LEAST_ATTEMPTS = 20


class Attempts:
    """The attempts at one round trip, within a budget of seconds.

    Every request can be repeated safely: a change carries its operation id.
    """

    def __init__(self, budget: float, where: str, begun: float) -> None:
        self._budget = budget
        self._where = where
        self._begun = begun
        self._count = 0
        self._free = {is_lost, is_unknown_script}
        self._backoff = FullJitterBackoff(
            cap=min(_LONGEST_PAUSE, budget / _LEAST_ATTEMPTS), base=_FIRST_PAUSE
        )

    def pause(self, error: Exception) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            HoldfastError: The failure will not pass, or not within the budget.
        """
        self._count += 1
        spent = time.monotonic() - self._begun
        if kind_of(error).passes:
            # Neither a connection that was dropped while it was idle nor a script that was
            # never sent says anything about the server.
            for is_free in self._free:
                if is_free(error):
                    self._free.discard(is_free)
                    return 0.0
            pause: float = self._backoff.compute(self._count)
            if spent + pause < self._budget:
                return pause
        raise raised(error, self._where, self._count, spent) from error
