"""Keep only the last checkpoints of each namespace, after each put."""

from __future__ import annotations

import logging
import random
from collections import Counter

from langgraph.checkpoint.serde.base import SerializerProtocol

from holdfast._core import Core
from holdfast.drive import Steps
from holdfast.errors import HoldfastError
from holdfast.steps.garbage import collect_garbage
from holdfast.steps.history import Item, Key
from holdfast.steps.keep import keep_last
from holdfast.steps.retention import thin

_logger = logging.getLogger(__name__)

# Threads that are remembered; of others nothing is known, and more is looked at.
_THREADS = 256
# Puts after which chunks are looked through at the latest, where few live, and on average, in a
# process that does not know how many do.
_PUTS = 16


class _Known:
    """What this process knows of a thread."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        """Checkpoints of each namespace, at most."""
        self.items: dict[Key, Item] = {}
        """Those that were kept, as they were read."""
        self.chunks = 0
        """That were sent since garbage was collected."""
        self.living: int | None = None
        """Chunks that were left then."""


class Trim:
    """Removes what is too old, and from time to time the chunks that it leaves.

    Args:
        count: Checkpoints kept in each namespace.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._choose = keep_last(count)
        self._threads: dict[str, _Known] = {}

    def after_put(
        self, core: Core, serde: SerializerProtocol, thread_id: str, ns: str, chunks: int
    ) -> Steps[None]:
        """Trim the thread if its namespace may have too many checkpoints now.

        No round trip while it cannot. What fails is left to the next put: the checkpoint is stored.

        Args:
            chunks: How many the put has sent.
        """
        known = self._known(thread_id)
        # A root namespace that is not known may be long; that of a subgraph is mostly new.
        # Kept apart, because another thread's put may change what is known at any moment.
        count = known.counts.get(ns, 0 if ns else self._count) + 1
        known.counts[ns] = count
        known.chunks += chunks
        if count <= self._count:
            return
        try:
            yield from self._trim(core, serde, thread_id, known)
        except HoldfastError as error:
            _logger.warning("keep_last: %s Old checkpoints stay until the next put.", error)

    def _known(self, thread_id: str) -> _Known:
        # Threads of the process that do the same at once get in each other's way no further.
        known = self._threads.pop(thread_id, None) or _Known()
        self._threads[thread_id] = known
        for oldest in [*self._threads][:-_THREADS]:
            self._threads.pop(oldest, None)
        return known

    def _trim(
        self, core: Core, serde: SerializerProtocol, thread_id: str, known: _Known
    ) -> Steps[None]:
        plan = yield from thin(core, serde, thread_id, self._choose, known.items)
        known.counts, known.items = {}, {}
        if plan is None:
            return
        known.counts = Counter(ns for ns, _ in plan.kept)
        known.items = {key: plan.history.items[key] for key in plan.kept}
        if plan.removed and self._is_time(known):
            collected = yield from collect_garbage(core, thread_id)
            known.living, known.chunks = collected.living, 0

    def _is_time(self, known: _Known) -> bool:
        """Whether as many chunks may be garbage as live. A process that ends after a few puts never
        finds out: it looks by chance, so that somebody does."""
        if known.living is None:
            is_chosen = random.random() * _PUTS < 1  # noqa: S311 - not a secret
            return is_chosen or known.chunks >= 8 * _PUTS
        return known.chunks >= max(known.living, _PUTS)
