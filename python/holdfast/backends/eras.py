"""Which connections lead to where their address leads.

An address (a proxy's, a name) may follow the primary. A connection does not: after a failover it
leads to a server that refuses what changes something, and reads there give what is old.
"""

from __future__ import annotations


class Era:
    """The time in which an address leads to one server, as far as its clients know. Each connection
    belongs to that in which it was begun."""

    __slots__ = ("is_over",)

    def __init__(self) -> None:
        self.is_over = False

    def end(self) -> None:
        """A server said that it is not the primary: none of these connections is used again."""
        self.is_over = True


class Eras:
    """One era after the other, for all connections to one address. Threads may share it."""

    def __init__(self) -> None:
        self._last = Era()

    @property
    def now(self) -> Era:
        """That of a connection which begins now."""
        if self._last.is_over:
            self._last = Era()
        return self._last
