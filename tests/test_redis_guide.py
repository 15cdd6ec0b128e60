"""What docs/redis.md says is so: its snippets run, its tables are those of a server in use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import holdfast
import pytest
import redis
from support.audit import standing
from support.calls import Calls
from support.make import checkpoint, config, version
from support.redis import TlsServer, eye, keys
from support.redis_server import RedisServer
from support.uses import use

GUIDE = (Path(__file__).parent.parent / "docs" / "redis.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
(CONFIGURATION,) = re.findall(r"```\n(appendonly .*?)```", GUIDE, re.DOTALL)


def rows(above: str) -> list[list[str]]:
    """The rows of the first table below some text."""
    table = "|" + GUIDE.split(above, 1)[1].split("\n|", 1)[1].split("\n\n")[0]
    lines = table.splitlines()[2:]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server with the settings that the guide advises."""
    settings: dict[str, Any] = dict(line.split() for line in CONFIGURATION.splitlines())
    with RedisServer({**settings, "unixsocket": "server.sock"}) as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """A look at an empty server."""
    with eye(server.url) as client:
        client.flushall()
        yield client


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_run(
    server: RedisServer, client: redis.Redis, snippet: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(snippet.replace("redis://localhost:6379/0", server.url), {"__name__": "snippet"})
    printed = capsys.readouterr().out
    for what in ("version True", "persistence True", "eviction True", "rights True"):
        assert what in printed


async def test_a_server_with_the_advised_settings_is_fine(server: RedisServer, mode: str) -> None:
    calls = Calls(holdfast.open(server.url), mode)
    findings = {one.what: one for one in await calls.call("check")}
    await calls.close()
    findings.pop("round trip")  # of this machine, now
    assert [one for one in findings.values() if not one.is_fine] == []


async def test_each_form_of_a_url_works(
    server: RedisServer, client: redis.Redis, mode: str, tmp_path: Path
) -> None:
    with TlsServer(tmp_path) as tls, eye(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "user", "on", ">password", "~*", "+@all")
        forms = [url for url, _ in rows("## Servers")]
        assert len(forms) == 3
        for url in forms:
            here = url.replace("host:6379", f"127.0.0.1:{server.port}")
            here = here.replace("/path/redis.sock", f"{server.folder}/server.sock")
            if url.startswith("rediss"):
                here = tls.url + url[url.index("?") :].replace("/path/ca.pem", str(tls.certificate))
            calls = Calls(holdfast.open(here), mode)
            await use(calls)
            await calls.close()


def test_options_have_the_defaults_that_are_told() -> None:
    told = {name: default for name, default, _ in rows("Options follow")}
    options = holdfast.Options()
    clients: Any = holdfast.open("redis://localhost")._live.backend
    assert told == {
        "prefix": options.prefix,
        "ttl": "none" if options.ttl is None else f"{options.ttl:g}",
        "refresh_on_read": "on" if options.refresh_on_read else "off",
        "retry_budget": f"{options.retry_budget:g}",
        "socket_timeout": f"{clients._clients._timeout:g}",
        "socket_connect_timeout": f"{clients._clients._connect_timeout:g}",
    }


async def test_keys_are_those_of_the_table(
    server: RedisServer, client: redis.Redis, mode: str
) -> None:
    calls = Calls(holdfast.open(server.url, prefix="p"), mode)
    for ns in ("", "n"):
        made = checkpoint("id", {"a": ["x" * 300] * 9}, {"a": version(1)})
        stored = await calls.put(config("t", ns), made, {"run_id": "r"}, {"a": version(1)})  # type: ignore[typeddict-unknown-key]
        await calls.put_writes(stored, [("a", 1)], "task")
    found = {key.decode(): client.type(key).decode() for key in keys(client)}  # type: ignore[union-attr]
    told = {}
    for name, kind, _ in rows("## Keys"):
        plain = name.replace("[:n]", "")
        told[plain] = kind.replace("sorted set", "zset")
        if "[:n]" in name:
            told[name.replace("[:n]", ":n")] = kind
    assert found == told
    await calls.delete_thread("t")
    assert standing(client, "p") == [b"p:format"]
    await calls.put(config(":{%}"), checkpoint("1", {}), {}, {})
    await calls.put(config(""), checkpoint("1", {}), {}, {})
    names = [key for key in standing(client, "p") if b":meta:" in key]
    assert names == [b"p:meta:%00", b"p:meta:%3A%7B%25%7D"]
    await calls.close()


def test_errors_are_those_that_there_are() -> None:
    named = [name for name, _, _ in rows("## Errors")]
    assert len(named) == len({*named}) >= 5
    for name in named:
        assert issubclass(getattr(holdfast, name), holdfast.HoldfastError)
