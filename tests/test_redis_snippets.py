"""What the READMEs of other Redis savers show runs, with the import changed and a server that is
there: those of langgraph-checkpoint-redis 0.5.2 and of langgraph-checkpoint-aws 1.2.6 (Valkey)."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import holdfast
import pytest
from langgraph.graph import StateGraph
from redis import Redis
from support.redis import keys
from support.redis_server import RedisServer

IMPORT = re.compile(
    r"^(\s*)from (?:langgraph\.checkpoint\.redis[a-z.]*|langgraph_checkpoint_aws[a-z.]*"
    r"|langgraph\.checkpoint\.valkey) import \(?\s*(\w+),?\s*\)?$",
    re.MULTILINE,
)
NAMES = {"ValkeySaver": "RedisSaver", "AsyncValkeySaver": "AsyncRedisSaver"}

CHECKPOINT = """
    checkpoint = {
        "v": 1,
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
        "pending_sends": [],
    }
"""

STANDARD = f"""
from langgraph.checkpoint.redis import RedisSaver

write_config = {{"configurable": {{"thread_id": "1", "checkpoint_ns": ""}}}}
read_config = {{"configurable": {{"thread_id": "1"}}}}

with RedisSaver.from_conn_string("redis://localhost:6379") as checkpointer:
    # Call setup to initialize indices
    checkpointer.setup()
{CHECKPOINT}
    # Store checkpoint
    checkpointer.put(write_config, checkpoint, {{}}, {{}})

    # Retrieve checkpoint
    loaded_checkpoint = checkpointer.get(read_config)

    # List all checkpoints
    checkpoints = list(checkpointer.list(read_config))
"""

ASYNC = f"""
from langgraph.checkpoint.redis.aio import AsyncRedisSaver


async def main():
    write_config = {{"configurable": {{"thread_id": "1", "checkpoint_ns": ""}}}}
    read_config = {{"configurable": {{"thread_id": "1"}}}}

    async with AsyncRedisSaver.from_conn_string("redis://localhost:6379") as checkpointer:
        # Call setup to initialize indices
        await checkpointer.asetup()
{CHECKPOINT.replace(chr(10), chr(10) + "    ")}
        # Store checkpoint
        await checkpointer.aput(write_config, checkpoint, {{}}, {{}})

        # Retrieve checkpoint
        loaded_checkpoint = await checkpointer.aget(read_config)

        # List all checkpoints
        checkpoints = [c async for c in checkpointer.alist(read_config)]

    return checkpoint, loaded_checkpoint, checkpoints

# Run the async main function
import asyncio

checkpoint, loaded_checkpoint, checkpoints = asyncio.run(main())
"""

GIVEN = """
from redis import Redis
from langgraph.checkpoint.redis import RedisSaver

# CORRECT: Use standard Redis client for Azure/Enterprise
client = Redis(
    host="localhost",
    port=6379,
    decode_responses=False  # RedisSaver expects bytes
)

# Pass the configured client to RedisSaver
saver = RedisSaver(redis_client=client)
saver.setup()
"""

VALKEY = """
from langgraph.graph import StateGraph
from langgraph_checkpoint_aws import ValkeySaver

# Using connection string
with ValkeySaver.from_conn_string(
    "valkey://localhost:6379",
) as checkpointer:
    # Create your graph
    builder = StateGraph(int)
    builder.add_node("add_one", lambda x: x + 1)
    builder.set_entry_point("add_one")
    builder.set_finish_point("add_one")

    graph = builder.compile(checkpointer=checkpointer)
    config = {"configurable": {"thread_id": "session-1"}}
    result = graph.invoke(1, config)
"""

VALKEY_CLIENT = """
from redis import Redis as Valkey
from langgraph.checkpoint.valkey import ValkeySaver
from langgraph.graph import StateGraph

builder = StateGraph(int)
builder.add_node("add_one", lambda x: x + 1)
builder.set_entry_point("add_one")
builder.set_finish_point("add_one")
# Create a new ValkeySaver instance
client = Valkey.from_url("valkey://localhost:6379")
memory = ValkeySaver(client)
graph = builder.compile(checkpointer=memory)
config = {"configurable": {"thread_id": "1"}}
graph.get_state(config)
result = graph.invoke(3, config)
final_state = graph.get_state(config)
"""

VALKEY_ASYNC = """
from langgraph_checkpoint_aws.checkpoint.valkey import (
    AsyncValkeySaver,
)
from langgraph.graph import StateGraph

async def main():
    builder = StateGraph(int)
    builder.add_node("add_one", lambda x: x + 1)
    builder.set_entry_point("add_one")
    builder.set_finish_point("add_one")
    # Create a new AsyncValkeySaver instance using context manager
    async with AsyncValkeySaver.from_conn_string(
        "valkey://localhost:6379"
    ) as memory:
        graph = builder.compile(checkpointer=memory)
        config = {"configurable": {"thread_id": "1"}}
        state = await graph.aget_state(config)
        result = await graph.ainvoke(3, config)
        final_state = await graph.aget_state(config)
    return result, final_state

import asyncio
result, final_state = asyncio.run(main())
"""


def run(code: str, server: RedisServer) -> dict[str, Any]:
    """What the names of a snippet stand for at its end."""
    changed, count = IMPORT.subn(lambda m: f"{m[1]}from holdfast import {m[2]}", code)
    assert count == 1
    for theirs, ours in NAMES.items():
        changed = re.sub(rf"\b{theirs}\b", ours, changed)
    changed = re.sub(r"(?:redis|valkey)://localhost:6379", server.url, changed)
    changed = changed.replace("port=6379", f"port={server.port}")
    names: dict[str, Any] = {}
    exec(compile(changed, "<documented>", "exec"), names)
    return names


@pytest.mark.parametrize("snippet", [STANDARD, ASYNC], ids=["RedisSaver", "AsyncRedisSaver"])
def test_a_checkpoint_goes_in_and_out(server: RedisServer, client: Redis, snippet: str) -> None:
    names = run(snippet, server)
    # Without new versions, values of known ones are stored all the same: nothing is lost.
    assert names["loaded_checkpoint"] == names["checkpoint"]
    (listed,) = names["checkpoints"]
    assert listed.checkpoint == names["checkpoint"]
    assert listed.config["configurable"]["thread_id"] == "1"
    assert b"holdfast:idx:1" in keys(client)


def test_a_client_is_passed(server: RedisServer, client: Redis) -> None:
    names = run(GIVEN, server)
    assert isinstance(names["saver"], holdfast.RedisSaver)
    assert keys(client) == [b"holdfast:format"]
    names["client"].close()


def test_a_graph_runs_from_a_connection_string(server: RedisServer, client: Redis) -> None:
    names = run(VALKEY, server)
    assert names["result"] == 2
    with holdfast.open(server.url) as saver:
        graph = names["builder"].compile(checkpointer=saver)
        assert graph.get_state(names["config"]).values == 2


def test_a_graph_runs_on_a_client(server: RedisServer, client: Redis) -> None:
    names = run(VALKEY_CLIENT, server)
    assert names["result"] == names["final_state"].values == 4
    assert names["final_state"].next == ()
    names["client"].close()


def test_a_graph_runs_on_the_async_side(server: RedisServer, client: Redis) -> None:
    names = run(VALKEY_ASYNC, server)
    assert names["result"] == names["final_state"].values == 4


def test_one_saver_serves_both_snippets(server: RedisServer, client: Redis) -> None:
    """Sync and async of one object, which the others need two for."""
    builder = StateGraph(int)
    builder.add_node("add_one", lambda x: x + 1)
    builder.set_entry_point("add_one")
    builder.set_finish_point("add_one")
    where: Any = {"configurable": {"thread_id": "both"}}
    with holdfast.RedisSaver.from_conn_string(server.url) as saver:
        graph = builder.compile(checkpointer=saver)
        assert graph.invoke(3, where) == 4
        assert asyncio.run(graph.ainvoke(5, where)) == 6
        assert [state.values for state in graph.get_state_history(where)][:1] == [6]
