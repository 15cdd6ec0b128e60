"""Run steps against a backend: the only place where sync and async differ."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

from holdfast.backends.base import Request

T = TypeVar("T")


class Work:
    """What steps ask for where it is long, and neither reads nor builds objects: on the async
    side it is done in a thread, so that the event loop goes on."""

    __slots__ = ("do",)

    def __init__(self, do: Callable[[], Any]) -> None:
        self.do = do


Steps = Generator["Request | Work", Any, T]


def drive(steps: Generator[Any, Any, T], execute: Callable[[Any], Any]) -> T:
    """Run `steps` to the end; `execute` answers each request, a round trip each."""
    try:
        request = next(steps)
        while True:
            try:
                reply = request.do() if isinstance(request, Work) else execute(request)
            except Exception as error:  # noqa: BLE001 - the steps decide
                request = steps.throw(error)
            else:
                request = steps.send(reply)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        steps.close()


async def adrive(steps: Generator[Any, Any, T], execute: Callable[[Any], Awaitable[Any]]) -> T:
    """As `drive`, awaiting each round trip. Cancelling closes the steps."""
    try:
        request = next(steps)
        while True:
            try:
                if isinstance(request, Work):
                    reply = await asyncio.to_thread(request.do)
                else:
                    reply = await execute(request)
            except Exception as error:  # noqa: BLE001 - the steps decide
                request = steps.throw(error)
            else:
                request = steps.send(reply)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        steps.close()
