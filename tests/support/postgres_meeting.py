"""Two clients of a Postgres store that meet: one holds what the other waits for."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import holdfast
from holdfast import PostgresSaver
from holdfast.backends import base

from support.postgres import Connection, eye
from support.postgres_audit import audit
from support.requests import Execute


class Meeting:
    """Two clients of a store: what one does within a transaction is seen when that ends.

    Args:
        url: The store.
        options: Of both clients.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self.conn: Connection = eye(url)
        self.look: Connection = eye(url)
        self._held = PostgresSaver(self.conn, retry_budget=0, **options)
        self._free = holdfast.open(url, **options)
        self.held: Execute = self._held._live.backend.execute
        self.free: Execute = self._free._live.backend.execute
        self.pool = ThreadPoolExecutor(4)

    def close(self) -> None:
        self.pool.shutdown()
        self._held.close()
        self._free.close()
        self.conn.close()
        self.look.close()

    def waiting(self, work: Callable[[], Any], count: int = 1) -> Future[Any]:
        """Have it done beside, and give back control when it waits for a lock."""
        job = self.pool.submit(work)
        while self.locked() < count:
            assert not job.done(), f"it did not wait: {job.exception() or job.result()}"
            time.sleep(0.001)
        return job

    def locked(self) -> int:
        """How many clients wait for a lock."""
        found = self.look.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        ).fetchone()
        return int(found[0]) if found else 0

    def meet(self, first: base.Request, second: base.Request, end: str = "COMMIT") -> Any:
        """The reply to `second`, which comes while `first` is done and not yet committed."""
        self.conn.execute("BEGIN")
        self.held(first)
        job = self.waiting(lambda: self.free(second))
        self.conn.execute(end)
        return job.result(30)

    def audit(self) -> Any:
        return audit(self.look, self.url)
