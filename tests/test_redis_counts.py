"""What each call costs: round trips, commands, chunks and bytes, counted on the wire."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import holdfast
import pytest
import redis
from holdfast.backends.base import Commit
from support.audit import standing
from support.calls import Calls
from support.make import Thread, checkpoint, checkpoint_id, config, version
from support.redis import calls_of
from support.redis_server import RedisServer
from support.relay import Relay
from support.requests import Tap, put
from support.uses import WORDS

STEPS = 30
LARGEST = 1_200_000
"""Bytes of one command: a second of a slow network, a millisecond of the server."""


@pytest.fixture
def relay(server: RedisServer, client: redis.Redis) -> Iterator[Relay]:
    with Relay(server.port) as relay:
        yield relay


@pytest.fixture
async def thread(relay: Relay, mode: str) -> AsyncIterator[Thread]:
    """A chat of some steps, put by a saver that knows all of it; every script is known."""
    calls = Calls(holdfast.open(relay.url), mode)
    thread = Thread(calls)
    for number in range(1, STEPS + 1):
        metadata = {"run_id": f"r{number % 2}"}
        stored = await thread.put({"state": WORDS[:number], "fixed": 1}, metadata=metadata)
        await calls.put_writes(stored, [("state", number)], f"task {number}")
    for source, target in [("t", "scratch"), ("scratch", "other")]:
        await calls.copy_thread(source, target)
    await calls.list(config(), limit=1)
    await calls.history(stored, ["state"])
    await calls.prune(["scratch"])
    await calls.get_tuple(config())
    await calls.delete_thread("scratch")
    await calls.delete_thread("other")
    relay.take()
    yield thread
    await calls.close()


@pytest.fixture
async def cold(relay: Relay, thread: Thread, mode: str) -> AsyncIterator[Calls]:
    """A saver that has read nothing yet."""
    calls = Calls(holdfast.open(relay.url), mode)
    await calls.setup()
    relay.take()
    yield calls
    await calls.close()


# --- round trips and commands


async def test_setting_up(relay: Relay, thread: Thread, mode: str) -> None:
    """What first use adds to the first call; a prefix that is new may take one more."""
    calls = Calls(holdfast.open(relay.url), mode)
    await calls.setup()
    assert relay.take()[0] == 2
    await calls.get_tuple(config("nobody"))
    assert relay.take() == (1, 1)
    await calls.close()


async def test_putting_takes_one_script(relay: Relay, thread: Thread) -> None:
    await thread.put({"state": WORDS[: STEPS + 1]})
    assert relay.take() == (1, 1)
    assert thread.head is not None
    await thread.calls.put_writes(thread.head, [("a", 1), ("b", WORDS[:5])], "task")
    assert relay.take() == (1, 1)
    await thread.put({"other": 1}, metadata={"run_id": "a new run"})
    assert relay.take() == (1, 1)
    await thread.calls.put(config("new"), checkpoint(1, {"a": 1}), {}, {"a": version(1)})
    assert relay.take() == (1, 1)


async def test_putting_below_a_parent_that_is_not_known_asks_for_it(
    relay: Relay, thread: Thread, cold: Calls
) -> None:
    thread.calls = cold
    await thread.put({"other": 1})
    assert relay.take()[0] == 2
    await thread.put({"other": 2})
    assert relay.take() == (1, 1)


async def test_a_put_below_a_parent_whose_channels_are_all_new_asks_for_nothing(
    relay: Relay, thread: Thread, cold: Calls
) -> None:
    thread.calls = cold
    await thread.put({"state": WORDS[:3], "fixed": 2})
    assert relay.take() == (1, 1)


async def test_reading_what_one_has_put_takes_one(relay: Relay, thread: Thread) -> None:
    for where in (config(), thread.head):
        assert (await thread.calls.must_get(where)).checkpoint["channel_values"]["fixed"] == 1
        assert relay.take() == (1, 1)


async def test_reading_what_is_not_known_takes_two(
    relay: Relay, thread: Thread, cold: Calls
) -> None:
    """One for the record, its writes and all pages, one for the leaves."""
    found = await cold.must_get(config())
    assert found.checkpoint["channel_values"] == thread.expected[checkpoint_id(STEPS)]
    assert relay.take() == (2, 2)
    await cold.must_get(config())
    assert relay.take() == (1, 1)


READS: dict[str, tuple[Callable[[Calls], Awaitable[Any]], tuple[int, int]]] = {
    "one by its id": (lambda calls: calls.must_get(config("t", "", checkpoint_id(7))), (2, 2)),
    "nothing": (lambda calls: calls.get_tuple(config("nobody")), (1, 1)),
    "ten": (lambda calls: calls.list(config(), limit=10), (2, 2)),
    "ten before one": (
        lambda calls: calls.list(config(), limit=10, before=config("t", "", checkpoint_id(20))),
        (2, 2),
    ),
    "all": (lambda calls: calls.list(config()), (4, 4)),
    # The registry, the greatest ids of each thread, also of the two deleted ones, the rows, and
    # their leaves.
    "ten of all threads": (lambda calls: calls.list(None, limit=10), (4, 15)),
    "no thread of a run": (lambda calls: calls.delete_for_runs(["nobody"]), (1, 1)),
    "nothing to prune": (lambda calls: calls.prune(["nobody"]), (1, 2)),
    "nothing to copy": (lambda calls: calls.copy_thread("nobody", "u"), (2, 2)),
    "the deleted": (lambda calls: calls.delete_thread("nobody"), (1, 1)),
}


@pytest.mark.parametrize("what", READS)
async def test_reading(relay: Relay, cold: Calls, what: str) -> None:
    work, expected = READS[what]
    await work(cold)
    assert relay.take() == expected


async def test_removing_and_copying(
    relay: Relay, thread: Thread, cold: Calls, client: redis.Redis
) -> None:
    await cold.copy_thread("t", "u")
    assert relay.take() == (2, 2)
    assert len(await cold.ids(config("u"))) == STEPS
    relay.take()
    await cold.delete_thread("u")
    assert relay.take() == (1, 1)
    assert not [key for key in standing(client) if b":u" in key]
    await cold.delete_for_runs(["r1"])
    in_few, _ = relay.take()
    assert in_few < STEPS, "one round trip for each checkpoint"
    await cold.prune(["t"])
    assert relay.take()[0] < STEPS


async def test_a_long_history_is_rebuilt_in_few_round_trips(
    relay: Relay, thread: Thread, cold: Calls
) -> None:
    assert thread.head is not None
    found = await cold.history(thread.head, ["never"])
    assert found["never"]["writes"] == []
    assert relay.take()[0] <= 3


# --- what is sent


def test_only_what_is_new_is_sent(server: RedisServer, client: redis.Redis) -> None:
    with holdfast.open(server.url) as saver, pytest.MonkeyPatch.context() as patch:
        tap = Tap(saver, patch)

        def sent() -> list[bytes]:
            commits = [request for request in tap.seen if isinstance(request, Commit)]
            tap.seen.clear()
            return [id for one in commits for id, _ in one.chunks]

        for number in range(1, 101):
            put(saver, number, {"state": WORDS[:number], "fixed": WORDS[:30]})
            before = client.hlen("holdfast:blob:t")
        sent()
        put(saver, 101, {"state": WORDS[:101], "fixed": WORDS[:30]})
        new = sent()
        assert 1 <= len(new) <= 3, "an append sends its leaf, and the page that it completes"
        assert client.hlen("holdfast:blob:t") == before + len(new)
        put(saver, 101, {"state": WORDS[:101], "fixed": WORDS[:30]})
        assert sent() == [], "the same again"
        put(saver, 102, {"state": WORDS[:50], "fixed": WORDS[:30]}, parent=checkpoint_id(50))
        assert sent() == [], "a fork of what is there"
        put(saver, 103, {"state": WORDS[:100], "fixed": WORDS[:30]}, new={})
        assert sent() == []
        assert client.hlen("holdfast:blob:t") == before + len(new)


async def test_an_append_sends_as_much_at_the_end_as_in_the_beginning(
    relay: Relay, mode: str
) -> None:
    calls = Calls(holdfast.open(relay.url), mode)
    thread = Thread(calls)
    sizes = []
    for number in range(1, 101):
        await thread.put({"state": WORDS[:number]})
        sizes.append(sum(len(part) for command in relay.commands for part in command))
        relay.take()
    assert max(sizes[50:]) < 2 * max(sizes[1:20])
    await calls.close()


@pytest.mark.parametrize("what", ["put", "put_writes"])
async def test_a_large_value_goes_in_slices(
    relay: Relay, client: redis.Redis, mode: str, what: str
) -> None:
    """No command is so large that others wait for it."""
    rng = random.Random(7)
    state = {
        "list": [rng.randbytes(5000).hex() for _ in range(500)],
        "blob": rng.randbytes(5_000_000),
    }
    calls = Calls(holdfast.open(relay.url), mode)
    stored = await calls.put(config(), checkpoint(1), {}, {})
    relay.take()
    if what == "put":
        made = checkpoint(2, state)
        stored = await calls.put(stored, made, {}, made["channel_versions"])
    else:
        await calls.put_writes(stored, list(state.items()), "task")
    sizes = [sum(map(len, command)) for command in relay.commands]
    assert sum(sizes) > 7_000_000
    assert max(sizes) < LARGEST
    cold = Calls(holdfast.open(relay.url), mode)
    found = await cold.must_get(stored)
    if what == "put":
        assert found.checkpoint["channel_values"] == state
    else:
        assert found.pending_writes == [("task", *one) for one in state.items()]
    await cold.delete_thread("t")
    assert standing(client) == [b"holdfast:format"]
    await calls.close()
    await cold.close()


# --- commands


async def test_no_command_makes_others_wait(
    relay: Relay, thread: Thread, client: redis.Redis
) -> None:
    """Of those that the server ran, in scripts too."""
    client.config_resetstat()
    calls = thread.calls
    await thread.put({"state": WORDS[: STEPS + 5]}, metadata={"run_id": "r"})
    await calls.list(None)
    await calls.copy_thread("t", "u")
    await calls.prune(["u"])
    await calls.delete_for_runs(["r"])
    await calls.delete_thread("t")
    ran = calls_of(client)
    assert "unlink" in ran
    for name in ("del", "keys", "scan", "smove", "sort", "flushall", "flushdb", "expire", "watch"):
        assert name not in ran
    assert not {"multi", "exec", "script|load", "client|setinfo", "hello", "ping"} & ran.keys()
