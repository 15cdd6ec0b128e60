"""A checkpoint whose channels are rebuilt from its parent is not stored without it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from holdfast.backends import base
from holdfast.backends.base import Predecessor, new_operation_id
from holdfast.errors import CheckpointRemoved, ThreadDeleted
from support.backends import Backend
from support.clock import Store, timed
from support.make import checkpoint_id
from support.requests import anew, child, forget, made, parent


@pytest.fixture
async def store(backend: Backend, mode: str, tmp_path: Path) -> AsyncIterator[Store]:
    async with timed(backend, tmp_path, mode) as store:
        yield store


def needed(number: int) -> Predecessor:
    return replace(parent(number), is_needed=True)


@pytest.mark.parametrize("way", ["removed", "forgotten", "swept", "expired", "never there"])
async def test_it_is_refused(store: Store, way: str) -> None:
    ask = await store.open()
    if way != "never there":
        writer = await store.open(ttl=store.ttl) if way == "expired" else ask
        await writer(made())
    if way == "removed":
        await ask(child(2, parent(1)))
        await ask(base.Remove("t", None, [("", checkpoint_id(1))], [], new_operation_id()))
    elif way in ("forgotten", "swept"):
        await ask(forget(leaves_tombstone=way == "forgotten"))
    elif way == "expired":
        await store.later(store.ttl)
    error = ThreadDeleted if way == "forgotten" else CheckpointRemoved
    await ask.refuses(error, child(3, needed(1)))
    assert await ask(made(number=4)) == []
    await ask.refuses(error, child(5, needed(1)))


async def test_it_is_stored_beside_its_parent(store: Store) -> None:
    ask = await store.open()
    await ask(made())
    request = child(2, needed(1))
    assert await ask(request) == []
    assert await ask(child(3, needed(2))) == []
    await ask(base.Remove("t", None, [("", checkpoint_id(1))], [], new_operation_id()))
    assert await ask(request) == [], "a repeat is not refused"
    await ask.refuses(CheckpointRemoved, anew(request))


async def test_it_is_stored_under_a_lease(store: Store) -> None:
    ask = await store.open()
    token, _ = await ask(base.Lease("t", 60))
    fence = base.Fence(token, 60)
    await ask.refuses(CheckpointRemoved, replace(child(2, needed(1)), fence=fence))
    assert await ask(replace(made(), fence=fence)) == []
    assert await ask(replace(child(2, needed(1)), fence=fence)) == []
