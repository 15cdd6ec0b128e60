"""What LangGraph's documentation shows of its own Postgres savers runs with the import changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import holdfast
import pytest
from support.postgres import Connection, eye
from support.postgres_server import PostgresServer

IMPORT = re.compile(
    r"^(\s*)from langgraph\.checkpoint\.postgres(?:\.aio)? import (\w+)$", re.MULTILINE
)

CHECKPOINT = """
    checkpoint = {
        "v": 4,
        "ts": "2024-07-31T20:14:19.804150+00:00",
        "id": "1ef4f797-8335-6428-8001-8a1503f9b875",
        "channel_values": {
            "my_key": "meow",
            "node": "node"
        },
        "channel_versions": {
            "__start__": 2,
            "my_key": 3,
            "start:node": 3,
            "node": 3
        },
        "versions_seen": {
            "__input__": {},
            "__start__": {
                "__start__": 1
            },
            "node": {
                "start:node": 2
            }
        },
    }
"""

# The README of langgraph-checkpoint-postgres.
STANDARD = f"""
from langgraph.checkpoint.postgres import PostgresSaver

write_config = {{"configurable": {{"thread_id": "1", "checkpoint_ns": ""}}}}
read_config = {{"configurable": {{"thread_id": "1"}}}}

DB_URI = "postgres://postgres:postgres@localhost:5432/postgres?sslmode=disable"
with PostgresSaver.from_conn_string(DB_URI) as checkpointer:
    # call .setup() the first time you're using the checkpointer
    checkpointer.setup()
{CHECKPOINT}
    # store checkpoint
    checkpointer.put(write_config, checkpoint, {{}}, {{}})

    # load checkpoint
    loaded = checkpointer.get(read_config)

    # list checkpoints
    listed = list(checkpointer.list(read_config))
"""

ASYNC = f"""
import asyncio
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

DB_URI = "postgres://postgres:postgres@localhost:5432/postgres?sslmode=disable"

async def main():
    write_config = {{"configurable": {{"thread_id": "1", "checkpoint_ns": ""}}}}
    read_config = {{"configurable": {{"thread_id": "1"}}}}
    async with AsyncPostgresSaver.from_conn_string(DB_URI) as checkpointer:
        await checkpointer.setup()
{CHECKPOINT.replace(chr(10), chr(10) + "    ")}
        # store checkpoint
        await checkpointer.aput(write_config, checkpoint, {{}}, {{}})

        # load checkpoint
        loaded = await checkpointer.aget(read_config)

        # list checkpoints
        listed = [c async for c in checkpointer.alist(read_config)]
    return checkpoint, loaded, listed

checkpoint, loaded, listed = asyncio.run(main())
"""

PIPELINE = STANDARD.replace("(DB_URI)", "(DB_URI, pipeline=True)")

GRAPH = """
from langgraph.graph import StateGraph
builder = StateGraph(int)
builder.add_node("add_one", lambda x: x + 1)
builder.set_entry_point("add_one")
builder.set_finish_point("add_one")
config = {"configurable": {"thread_id": "1"}}
DB_URI = "postgresql://postgres:postgres@localhost:5432/postgres?sslmode=disable"
"""

CONNECTION = f"""
from psycopg import Connection
from psycopg.rows import dict_row
from langgraph.checkpoint.postgres import PostgresSaver
{GRAPH}
with Connection.connect(DB_URI, autocommit=True, prepare_threshold=0, row_factory=dict_row) as conn:
    checkpointer = PostgresSaver(conn)
    checkpointer.setup()
    graph = builder.compile(checkpointer=checkpointer)
    result = graph.invoke(3, config)
    state = graph.get_state(config)
"""

POOL = f"""
from psycopg_pool import ConnectionPool
from langgraph.checkpoint.postgres import PostgresSaver
{GRAPH}
connection_kwargs = {{
    "autocommit": True,
    "prepare_threshold": 0,
}}
with ConnectionPool(
    # Example configuration
    conninfo=DB_URI,
    max_size=20,
    kwargs=connection_kwargs,
    open=True,
) as pool:
    checkpointer = PostgresSaver(pool)

    # NOTE: you need to call .setup() the first time you're using your checkpointer
    checkpointer.setup()

    graph = builder.compile(checkpointer=checkpointer)
    result = graph.invoke(3, config)
    state = graph.get_state(config)
"""

ASYNC_POOL = f"""
import asyncio
from psycopg_pool import AsyncConnectionPool
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
{GRAPH}
connection_kwargs = {{
    "autocommit": True,
    "prepare_threshold": 0,
}}

async def main():
    async with AsyncConnectionPool(
        # Example configuration
        conninfo=DB_URI,
        max_size=20,
        open=False,
        kwargs=connection_kwargs,
    ) as pool:
        checkpointer = AsyncPostgresSaver(pool)

        # NOTE: you need to call .setup() the first time you're using your checkpointer
        await checkpointer.setup()

        graph = builder.compile(checkpointer=checkpointer)
        result = await graph.ainvoke(3, config)
        return result, await graph.aget_state(config)

result, state = asyncio.run(main())
"""

ASYNC_CONNECTION = f"""
import asyncio
from psycopg import AsyncConnection
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
{GRAPH}
async def main():
    async with await AsyncConnection.connect(DB_URI, autocommit=True, prepare_threshold=0) as conn:
        checkpointer = AsyncPostgresSaver(conn)
        await checkpointer.setup()
        graph = builder.compile(checkpointer=checkpointer)
        result = await graph.ainvoke(3, config)
        return result, await graph.aget_state(config)

result, state = asyncio.run(main())
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def conn(server: PostgresServer) -> Iterator[Connection]:
    """A look at an empty database."""
    with eye(server.url) as conn:
        conn.execute("DROP SCHEMA public CASCADE")
        conn.execute("CREATE SCHEMA public")
        yield conn


def run(code: str, server: PostgresServer) -> dict[str, Any]:
    """What the names of a snippet stand for at its end."""
    changed, count = IMPORT.subn(lambda m: f"{m[1]}from holdfast import {m[2]}", code)
    assert count == 1
    changed = changed.replace("localhost:5432", f"127.0.0.1:{server.port}")
    names: dict[str, Any] = {}
    exec(compile(changed, "<documented>", "exec"), names)
    return names


@pytest.mark.parametrize(
    "snippet", [STANDARD, ASYNC, PIPELINE], ids=["PostgresSaver", "AsyncPostgresSaver", "pipeline"]
)
def test_a_checkpoint_goes_in_and_out(
    server: PostgresServer, conn: Connection, snippet: str
) -> None:
    names = run(snippet, server)
    # Without new versions, values of known ones are stored all the same: nothing is lost.
    assert names["loaded"] == names["checkpoint"]
    (listed,) = names["listed"]
    assert listed.checkpoint == names["checkpoint"]
    assert listed.config["configurable"]["thread_id"] == "1"
    assert conn.execute("SELECT count(*) FROM holdfast_checkpoints").fetchone() == (1,)


@pytest.mark.parametrize(
    "snippet",
    [CONNECTION, POOL, ASYNC_POOL, ASYNC_CONNECTION],
    ids=["connection", "pool", "async pool", "async connection"],
)
def test_a_graph_runs_on_what_was_opened(
    server: PostgresServer, conn: Connection, snippet: str
) -> None:
    names = run(snippet, server)
    assert names["result"] == names["state"].values == 4
    assert names["state"].next == ()
    with holdfast.open(server.url) as saver:
        graph = names["builder"].compile(checkpointer=saver)
        assert graph.get_state(names["config"]).values == 4


def test_the_snippets_are_those_of_the_package() -> None:
    """Its docstrings still say what is run here."""
    package = pytest.importorskip("langgraph.checkpoint.postgres")
    source = Path(package.__file__).read_text()
    for phrase in ("from_conn_string(", "pipeline: bool = False", "autocommit=True", "def setup"):
        assert phrase in source
