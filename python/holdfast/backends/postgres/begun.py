"""A coroutine whose first step is taken before there is a task for it."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Begun(Awaitable[T], Generic[T]):
    """Goes on where the first step of a coroutine has led, when it is awaited, once.

    Tasks can be begun so from Python 3.12 on (`eager_start`). Here what the first step runs must
    not ask which task it is in: it is the caller's.

    Args:
        coroutine: It is this object's from now on.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._wanted: Any = None
        self._end: StopIteration | Exception | None = None
        try:
            self._wanted = coroutine.send(None)
        except (StopIteration, Exception) as end:  # noqa: BLE001 - who awaits it gets it
            self._end = end

    def __await__(self) -> Generator[Any, Any, T]:
        coroutine, end, wanted = self._coroutine, self._end, self._wanted
        while end is None:
            try:
                try:
                    reply = yield wanted
                except GeneratorExit:
                    coroutine.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - it is the coroutine's
                    wanted = coroutine.throw(error)
                else:
                    wanted = coroutine.send(reply)
            except StopIteration as ended:
                end = ended
        if isinstance(end, StopIteration):
            value: T = end.value
            return value
        raise end

    def close(self) -> None:
        """Leave the coroutine where it is, as one that nobody awaits any more."""
        self._coroutine.close()
