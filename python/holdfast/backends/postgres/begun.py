"""A coroutine whose first step is taken before there is a task for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
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
        self._end: Exception | None = None
        self._step(partial(coroutine.send, None))

    def _step(self, step: Callable[[], Any]) -> None:
        try:
            self._wanted = step()
        except Exception as end:  # noqa: BLE001 - who awaits it gets it; a value is one, too
            self._end = end

    def __await__(self) -> Generator[Any, Any, T]:
        while self._end is None:
            try:
                reply = yield self._wanted
            except BaseException as error:  # noqa: BLE001 - it is the coroutine's
                self._step(partial(self._coroutine.throw, error))
            else:
                self._step(partial(self._coroutine.send, reply))
        if isinstance(self._end, StopIteration):
            value: T = self._end.value
            return value
        raise self._end

    def close(self) -> None:
        """Leave the coroutine where it is, as one that nobody awaits any more."""
        self._coroutine.close()
