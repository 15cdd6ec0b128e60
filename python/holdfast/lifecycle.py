"""How a saver is set up, looked at and closed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Sequence
from types import TracebackType
from typing import Any, TypeVar

from langgraph.checkpoint.serde.base import SerializerProtocol
from typing_extensions import Self

from holdfast import steps
from holdfast.backends.base import Backend, Finding
from holdfast.drive import Steps, adrive, drive
from holdfast.live import Live

T = TypeVar("T")


class Setup:
    """What `setup()` returns: done already outside a running loop, to be awaited inside one."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            backend.setup()

    def __await__(self) -> Generator[Any, None, None]:
        return self._backend.asetup().__await__()


class Lifecycle:
    """What a saver does besides storing: set up, look, close."""

    _live: Live
    serde: SerializerProtocol

    def _run(self, wanted: Steps[T]) -> T:
        return drive(wanted, self._live.execute)

    def _arun(self, wanted: Steps[T]) -> Coroutine[Any, Any, T]:
        return adrive(wanted, self._live.aexecute)

    def setup(self) -> Setup:
        """Create what the store lacks. Idempotent, and implied by first use.

        Outside a running event loop the work is done on return; inside one, when the
        result is awaited, or at first use.

        Raises:
            StoreUnavailable: The store cannot be reached or written.
        """
        return Setup(self._live.backend)

    initialize = setup

    async def asetup(self) -> None:
        """As `setup`."""
        await self._live.backend.asetup()

    def check(self) -> Sequence[Finding]:
        """Look at how the store keeps what it is given; what to do is said with each finding.

        Raises:
            StoreUnavailable: The store cannot be reached.
        """
        return self._run(steps.check())

    async def acheck(self) -> Sequence[Finding]:
        """As `check`."""
        return await self._arun(steps.check())

    def stats(self) -> dict[str, float]:
        """Figures since the saver was made, for monitoring: no round trip.

        Returns:
            `requests` (that were made of the store, a round trip or two each), `seconds` (that they
            took in all), `errors` (that were raised), `cache_bytes`; with Redis and Postgres
            `retries` (round trips that were tried again); with Postgres `pool_size`, `pool_idle`
            and `pool_waiting` (connections that are open, connections that nobody uses, and callers
            that wait for one).
        """
        live = self._live
        return {
            "requests": live.requests,
            "seconds": live.seconds,
            "errors": live.errors,
            "cache_bytes": live.core.cache_bytes,
            **live.backend.stats(),
        }

    async def astats(self) -> dict[str, float]:
        """As `stats`."""
        return self.stats()

    def close(self) -> None:
        """Release what the saver opened. Idempotent; a later call opens it again."""
        self._live.backend.close()

    async def aclose(self) -> None:
        """As `close`."""
        await self._live.backend.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
