"""How a saver is told when threads expire, on every way in."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import holdfast
import pytest
from holdfast import ConfigurationError
from support.backends import Backend
from support.calls import Calls
from support.make import Thread, checkpoint, config


async def remaining(calls: Calls, thread: str = "t") -> float:
    """Seconds from the thread's last write until it expires."""
    (found,) = await calls.threads(thread)
    assert found.expires_at is not None
    return (found.expires_at - found.updated_at).total_seconds()


def nearly(seconds: float) -> Any:
    """So many seconds, to the millisecond to which stores count."""
    return pytest.approx(seconds, abs=0.0015)


MINUTES = {"default_ttl": 2, "refresh_on_read": True}


def constructors(folder: Path, backend: Backend) -> list[Any]:
    """All ways to open the backend's store with options."""
    url = backend.url(folder)
    ways: dict[str, list[Any]] = {
        "memory": [holdfast.MemorySaver],
        "sqlite": [
            lambda **how: holdfast.SqliteSaver(folder / "other.db", **how),
            lambda **how: holdfast.SqliteSaver.from_conn_string(str(folder / "third.db"), **how),
        ],
        "redis": [
            lambda **how: holdfast.RedisSaver(url.partition("?")[0], **how),
            lambda **how: holdfast.RedisSaver.from_conn_string(url.partition("?")[0], **how),
        ],
        "postgresql": [
            lambda **how: holdfast.PostgresSaver(url.partition("?")[0], **how),
            lambda **how: holdfast.PostgresSaver.from_conn_string(url.partition("?")[0], **how),
        ],
    }
    return [
        lambda **how: holdfast.open(url, **how),
        lambda **how: holdfast.from_config({"url": url, **how}),
        *ways[url.partition(":")[0]],
    ]


async def test_every_way_in_takes_a_ttl_also_as_langgraphs_redis_saver_does(
    backend: Backend, mode: str, tmp_path: Path
) -> None:
    for number, way in enumerate(constructors(tmp_path, backend)):
        async with AsyncExitStack() as stack:
            for ttl in (MINUTES, 120, "120", {**MINUTES, "default_ttl": "2"}):
                saver = way(ttl=ttl, **({} if isinstance(ttl, dict) else {"refresh_on_read": True}))
                calls = Calls(saver, mode)
                stack.push_async_callback(calls.close)
                await Thread(calls, f"way {number}").put({"d": 1}, parent=None)
                assert await remaining(calls, f"way {number}") == nearly(120)
                assert saver._live.options.refresh_on_read is True
                await calls.delete_thread(f"way {number}")


async def test_a_url_says_it_too(backend: Backend, mode: str, tmp_path: Path) -> None:
    url = backend.url(tmp_path)
    url += "&" if "?" in url else "?"
    calls = Calls(holdfast.open(f"{url}ttl=77.5&refresh_on_read=true"), mode)
    await calls.put(config(), checkpoint(1), {}, {})
    assert await remaining(calls) == nearly(77.5)
    assert calls.saver._live.options.refresh_on_read is True
    await calls.close()


@pytest.mark.parametrize("ttl", [None, {}, {"default_ttl": None, "refresh_on_read": True}])
async def test_no_ttl_is_no_expiry(backend: Backend, tmp_path: Path, ttl: Any) -> None:
    with backend.open(tmp_path, ttl=ttl) as saver:
        assert (saver._live.options.ttl, saver._live.options.refresh_on_read) == (None, False)


WRONG: list[dict[str, Any]] = [
    {"ttl": 0},
    {"ttl": -1},
    {"ttl": "soon"},
    {"ttl": float("nan")},
    {"ttl": float("inf")},
    {"ttl": 1e12},
    {"ttl": [60]},
    {"ttl": {"default_ttl": "soon"}},
    {"ttl": {"default_ttl": 0}},
    {"ttl": {"default_ttl": -1}},
    {"ttl": {"minutes": 1}},
    {"ttl": {"default_ttl": 1, "refresh_on_read": "perhaps"}},
    {"refresh_on_read": True},
    {"ttl": 60, "refresh_on_read": "perhaps"},
]


@pytest.mark.parametrize("options", WRONG, ids=str)
def test_what_is_no_ttl_is_refused(
    backend: Backend, tmp_path: Path, options: dict[str, Any]
) -> None:
    for way in constructors(tmp_path, backend):
        with pytest.raises(ConfigurationError, match=r"ttl|refresh_on_read"):
            way(**options)
