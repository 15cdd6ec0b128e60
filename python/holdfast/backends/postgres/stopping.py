"""Has a server stop what nobody waits for any more."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import capabilities, generators, waiting
from psycopg.pq.abc import PGconn

# Seconds in which the server is to be told.
_PATIENCE = 5.0
# Seconds after which a wait for it is looked at again.
_INTERVAL = 0.1


def stop(pgconn: PGconn) -> None:
    """Tell the server, without waiting for that: a backend that waits for a lock does not see that
    its client has gone, and would keep its place until it has it."""
    with suppress(psycopg.Error):
        if capabilities.has_cancel_safe():
            cancelling = pgconn.cancel_conn()
            cancelling.start()
            asked: Any = generators.cancel(cancelling)
            _apart(waiting.wait_conn, asked, _INTERVAL, _PATIENCE)
        else:  # libpq before 17
            _apart(pgconn.get_cancel().cancel)


def _apart(tell: Any, *args: Any) -> None:
    def telling() -> None:
        with suppress(psycopg.Error):  # then the server is not there, or will find out later
            tell(*args)

    threading.Thread(target=telling, name="holdfast-postgres-stopping", daemon=True).start()
