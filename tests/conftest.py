"""Fixtures of the one suite: every backend, both sides, and no blocking call on a loop."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import holdfast
import holdfast.backends.postgres
import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import HealthCheck, settings
from redis import Redis
from support.backends import BACKENDS, Backend, opened
from support.calls import MODES, Calls
from support.redis import eye
from support.redis_server import RedisServer

ALLOWED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "fast", max_examples=50, deadline=None, database=None, suppress_health_check=ALLOWED
)
settings.register_profile(
    "slow", max_examples=1000, deadline=None, print_blob=True, suppress_health_check=ALLOWED
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


@pytest.fixture(autouse=True)
def no_blocking_call_on_a_loop() -> Iterator[BlockBuster]:
    """Raise when the package blocks a thread whose event loop is running."""
    with blockbuster_ctx(scanned_modules=["holdfast"]) as guard:
        yield guard


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param]


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    mode: str = request.param
    return mode


@pytest.fixture
def interrupts(mode: str) -> None:
    """For tests that stop a run with `interrupt`."""
    if mode == "async" and sys.version_info < (3, 11):
        pytest.skip("LangGraph's interrupt in async nodes needs Python 3.11")


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A Redis server of a module's own, where the module does not start another."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[Redis]:
    """A look at an empty Redis server."""
    with eye(server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
async def calls(backend: Backend, mode: str, tmp_path: Path) -> AsyncIterator[Calls]:
    """A saver on a new store, called from the side that `mode` names."""
    async with opened(backend, tmp_path, mode) as calls:
        yield calls


@pytest.fixture
async def pair(backend: Backend, mode: str, tmp_path: Path) -> AsyncIterator[tuple[Calls, Calls]]:
    """Two savers on one new store."""
    if backend.one_saver:
        pytest.skip(backend.one_saver)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(opened(backend, tmp_path, mode))
        second = await stack.enter_async_context(opened(backend, tmp_path, mode))
        yield first, second


@pytest.fixture
def saver(backend: Backend, tmp_path: Path) -> Iterator[holdfast.Saver]:
    """A saver on a new store, for tests that run their own event loops or none."""
    with backend.open(tmp_path) as saver:
        yield saver
