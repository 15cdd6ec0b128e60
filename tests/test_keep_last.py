"""`keep_last`: after each put the last checkpoints of each namespace, and what they need."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import holdfast
import pytest
from holdfast.backends import base
from support.backends import Backend, opened
from support.calls import Calls
from support.make import Thread, checkpoint, checkpoint_id, config, id_of, version
from support.recount import recount
from support.uses import WORDS

COUNTS = [1, 2, 5]


@pytest.fixture(params=COUNTS)
def count(request: pytest.FixtureRequest) -> int:
    value: int = request.param
    return value


@pytest.fixture
async def keeping(backend: Backend, mode: str, count: int, tmp_path: Path) -> AsyncIterator[Calls]:
    """A saver that keeps the last `count`."""
    async with opened(backend, tmp_path, mode, keep_last=count) as calls:
        yield calls


def newest(number: int, count: int) -> list[str]:
    return [checkpoint_id(n) for n in range(number, max(0, number - count), -1)]


async def check(calls: Calls, thread: Thread, count: int) -> None:
    """The last checkpoints are there, whole, and no others; the oldest has no parent."""
    found = await calls.list(config(thread.thread, thread.ns))
    assert [id_of(one.config) for one in found] == newest(thread.count, count)
    for one, parent in zip(found, [*found[1:], None], strict=True):
        assert one.checkpoint["channel_values"] == thread.expected[id_of(one.config)]
        assert one.parent_config == (parent and parent.config)
        assert [write[1:] for write in one.pending_writes or []] == [("d", one.checkpoint["id"])]
        assert (await calls.must_get(one.config)).checkpoint == one.checkpoint


async def step(thread: Thread) -> None:
    """A checkpoint with a list that grows, one value that stays, and a write."""
    number = thread.count
    values: dict[str, Any] = {"grows": [*WORDS[: number % 30 + 1], thread.ns]}
    stored = await thread.put({**values, **({"stays": WORDS[:3]} if number == 0 else {})})
    await thread.calls.put_writes(stored, [("d", id_of(stored))], "task")


# --- chains


async def test_after_each_put_the_last_are_there_and_no_others(keeping: Calls, count: int) -> None:
    thread = Thread(keeping)
    for _ in range(count + 6):
        await step(thread)
        await check(keeping, thread, count)


async def test_each_namespace_and_thread_has_its_own(keeping: Calls, count: int) -> None:
    places = [("t", ""), ("u", ""), ("v", "sub"), ("v", "other"), ("v", "sub|more")]
    threads = [Thread(keeping, *place) for place in places]
    for _ in range(count + 3):
        for thread in threads:
            await step(thread)
    for thread in threads:
        await check(keeping, thread, count)


async def test_what_goes_leaves_no_chunks_behind_for_ever(keeping: Calls, count: int) -> None:
    """At most as many as live, and a few."""
    thread = Thread(keeping)
    for _ in range(60):
        await thread.put({"state": [f"{thread.count} {word}" for word in WORDS[:4]]})
    counted = await asyncio.to_thread(recount, keeping.saver)
    assert counted.checkpoints == count
    assert counted.garbage <= 8 * 16 + (counted.chunks - counted.garbage)
    await keeping.sweep()
    assert (await asyncio.to_thread(recount, keeping.saver)).garbage == 0


async def test_a_long_thread_is_trimmed_by_the_first_put(
    backend: Backend, mode: str, tmp_path: Path
) -> None:
    if backend.one_saver:
        pytest.skip(backend.one_saver)
    async with (
        opened(backend, tmp_path, mode) as keeps_all,
        opened(backend, tmp_path, mode, keep_last=2) as keeping,
    ):
        thread = Thread(keeps_all)
        for _ in range(12):
            await step(thread)
        assert len(await keeping.ids(config())) == 12, "reading trims nothing"
        thread.calls = keeping
        await step(thread)
        await check(keeping, thread, 2)
        thread.calls = keeps_all
        await step(thread)
        await step(thread)
        await check(keeps_all, thread, 4)


async def test_several_savers_keep_the_last_between_them(
    backend: Backend, mode: str, tmp_path: Path
) -> None:
    if backend.one_saver:
        pytest.skip(backend.one_saver)
    async with (
        opened(backend, tmp_path, mode, keep_last=3) as one,
        opened(backend, tmp_path, mode, keep_last=3) as other,
    ):
        thread = Thread(one)
        for number in range(12):
            thread.calls = [one, other][number // 2 % 2]
            await step(thread)
            # Who knows of fewer than three does not look whether another has put some.
            there = await thread.calls.ids(config())
            assert there[:3] == newest(thread.count, 3)
            assert len(there) <= 5
            if number > 6:
                await check(thread.calls, thread, 3)


async def test_a_fork_of_a_checkpoint_that_is_kept(
    backend: Backend, mode: str, tmp_path: Path
) -> None:
    async with opened(backend, tmp_path, mode, keep_last=3) as calls:
        thread = Thread(calls)
        for _ in range(5):
            await step(thread)
        fork = await thread.put({"grows": ["fork"]}, parent=config("t", "", checkpoint_id(3)))
        found = await calls.must_get(fork)
        assert found.checkpoint["channel_values"] == {"grows": ["fork"], "stays": WORDS[:3]}
        assert await calls.ids(config()) == newest(6, 3)
        assert found.parent_config is None


@pytest.mark.parametrize("wrong", [0, -1, "none", 1.5j])
def test_what_is_no_number_of_checkpoints_is_refused(
    backend: Backend, tmp_path: Path, wrong: Any
) -> None:
    with pytest.raises(holdfast.ConfigurationError, match="keep_last"):
        backend.open(tmp_path, keep_last=wrong)


# --- what fails


@pytest.mark.parametrize("request_type", [base.Census, base.Remove, base.Mark, base.Discard])
@pytest.mark.parametrize("error", [holdfast.StoreUnavailable, holdfast.StoreTimeout])
async def test_a_put_whose_trimming_fails_is_done_and_the_next_one_trims(
    keeping: Calls,
    count: int,
    request_type: type,
    error: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = keeping.saver._live.backend
    execute, aexecute = backend.execute, backend.aexecute
    is_broken = True
    failed: list[Any] = []

    def refuse(request: Any) -> None:
        if is_broken and type(request) is request_type:
            failed.append(request)
            raise error("the store is gone.")

    def broken(request: Any) -> Any:
        refuse(request)
        return execute(request)

    async def abroken(request: Any) -> Any:
        refuse(request)
        return await aexecute(request)

    monkeypatch.setattr(backend, "execute", broken)
    monkeypatch.setattr(backend, "aexecute", abroken)
    monkeypatch.setattr("random.random", lambda: 0.0)  # chunks are looked through each time
    thread = Thread(keeping)
    with caplog.at_level(logging.WARNING, "holdfast"):
        while not failed:
            await step(thread)
            found = await keeping.must_get(config())
            assert (
                found.checkpoint["channel_values"] == thread.expected[checkpoint_id(thread.count)]
            )
        await step(thread)
    assert [one for one in caplog.messages if "keep_last" in one and "gone" in one]
    is_broken = False
    await step(thread)
    await check(keeping, thread, count)


def test_a_put_of_few_checkpoints_asks_for_nothing_more(backend: Backend, tmp_path: Path) -> None:
    """It is one round trip as long as nothing has to go, once it is known what is there."""
    with backend.open(tmp_path, keep_last=30) as saver:
        stored: Any = config()
        made = []
        for number in range(1, 25):
            before = saver.stats()["requests"]
            one = checkpoint(number, {"state": WORDS[:number]}, {"state": version(number)})
            stored = saver.put(stored, one, {}, one["channel_versions"])
            made.append(int(saver.stats()["requests"] - before))
    assert made[1:] == [1] * 23
