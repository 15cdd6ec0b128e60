"""The langgraph-checkpoint-conformance suite, with nothing skipped."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from support.backends import Backend

# The suite silently skips a capability that it does not find.
TESTS = {
    "put": 17,
    "put_writes": 10,
    "get_tuple": 10,
    "list": 16,
    "delete_thread": 5,
    "delete_for_runs": 7,
    "copy_thread": 8,
    "prune": 8,
}


async def test_every_capability_conforms(backend: Backend, tmp_path: Path) -> None:
    @checkpointer_test(name="holdfast")
    async def empty_savers() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        async with backend.open(Path(tempfile.mkdtemp(dir=tmp_path))) as saver:
            yield saver

    report = await validate(empty_savers)

    failures = [failure for result in report.results.values() for failure in result.failures]
    assert not failures, "\n".join(["", *failures])
    passed = {
        capability: result.tests_passed
        for capability, result in report.results.items()
        if result.detected and result.passed
    }
    assert passed == TESTS
