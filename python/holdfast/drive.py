"""Run steps against a backend: the only place where sync and async differ."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import closing
from typing import Any, TypeVar

from holdfast.backends.base import Request

T = TypeVar("T")
Q = TypeVar("Q")
Steps = Generator[Request, Any, T]


def drive(steps: Generator[Q, Any, T], execute: Callable[[Q], Any]) -> T:
    """Run `steps` to the end; `execute` answers each request, a round trip each."""
    with closing(steps):
        try:
            request = next(steps)
            while True:
                try:
                    reply = execute(request)
                except Exception as error:  # noqa: BLE001 - the steps decide
                    request = steps.throw(error)
                else:
                    request = steps.send(reply)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


async def adrive(steps: Generator[Q, Any, T], execute: Callable[[Q], Awaitable[Any]]) -> T:
    """As `drive`, awaiting each round trip. Cancelling closes the steps."""
    with closing(steps):
        try:
            request = next(steps)
            while True:
                try:
                    reply = await execute(request)
                except Exception as error:  # noqa: BLE001 - the steps decide
                    request = steps.throw(error)
                else:
                    request = steps.send(reply)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
