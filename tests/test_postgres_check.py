"""What `check` finds out about a server, a database and a user."""

from __future__ import annotations

from collections.abc import Iterator

import holdfast
import pytest
from holdfast import Finding
from support.calls import Calls
from support.postgres import Connection, eye
from support.postgres_server import DURABLE, PostgresServer

EVERYTHING = [
    *("version", "persistence", "writable", "connections"),
    *("autovacuum", "round trip", "rights"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer({**DURABLE, "max_connections": 20}) as server:
        yield server


@pytest.fixture
def conn(server: PostgresServer) -> Iterator[Connection]:
    with eye(server.url) as conn:
        yield conn
        conn.execute("ALTER ROLE postgres RESET ALL")


async def findings(url: str, mode: str) -> dict[str, Finding]:
    calls = Calls(holdfast.open(url), mode)
    try:
        found = await calls.call("check")
    finally:
        await calls.close()
    for one in found:
        assert bool(one.remedy) is not one.is_fine, "what is to be done?"
    return {one.what: one for one in found}


async def test_all_is_looked_at_once(server: PostgresServer, conn: Connection, mode: str) -> None:
    found = await findings(server.url, mode)
    assert [*found] == EVERYTHING
    (version,) = conn.execute("SHOW server_version").fetchone() or ()
    assert version in found["version"].value
    for what in EVERYTHING:
        assert found[what].is_fine or what == "round trip", found[what]


@pytest.mark.parametrize(
    ("setting", "what", "remedy"),
    [
        ("synchronous_commit = off", "persistence", "synchronous_commit = on"),
        ("default_transaction_read_only = on", "writable", "Turn it off"),
    ],
)
async def test_what_a_user_is_given(
    server: PostgresServer, conn: Connection, setting: str, what: str, remedy: str, mode: str
) -> None:
    with holdfast.open(server.url) as saver:
        await Calls(saver, "async").setup()
        await saver.aclose()
    conn.execute(f"ALTER ROLE postgres SET {setting}")
    try:
        found = (await findings(server.url, mode))[what]
    finally:
        conn.execute("ALTER ROLE postgres RESET ALL")
    assert not found.is_fine
    assert setting.partition(" ")[0] in found.value
    assert remedy in found.remedy


async def test_what_the_server_is_set_to(mode: str) -> None:
    with PostgresServer({"autovacuum": "off"}) as lazy:
        found = await findings(lazy.url, mode)
    assert not found["persistence"].is_fine
    assert "fsync off" in found["persistence"].value
    assert (found["autovacuum"].is_fine, found["autovacuum"].value) == (False, "off")


async def test_how_many_connections_are_left(
    server: PostgresServer, conn: Connection, mode: str
) -> None:
    held = [eye(server.url) for _ in range(15)]
    try:
        found = (await findings(server.url, mode))["connections"]
    finally:
        for one in held:
            one.close()
    assert not found.is_fine
    assert found.value.startswith("17 of 20 connections"), "with ours, and that which looks"
    assert "pool_size" in found.remedy
