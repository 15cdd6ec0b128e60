"""What an error means is found by the code that a server put in front, and by no other word."""

from __future__ import annotations

from pathlib import Path

import holdfast
import pytest
import redis
from holdfast.backends.redis.errors import Farewell, raised
from support.calls import Calls
from support.make import config
from support.redis_server import RedisServer

CODES = ["OOM", "WRONGTYPE", "NOSCRIPT", "BUSY", "NOPERM"]
WORDS = [*CODES, "max number of clients reached", "ACL failure"]


async def failure(saver: holdfast.Saver, mode: str) -> holdfast.HoldfastError:
    calls = Calls(saver, mode)
    with pytest.raises(holdfast.HoldfastError) as caught:
        await calls.get_tuple(config())
    await calls.close()
    return caught.value


# --- what no server said


@pytest.mark.parametrize("word", WORDS)
async def test_a_word_in_the_path_of_a_socket_means_nothing(
    word: str, tmp_path: Path, mode: str
) -> None:
    error = await failure(holdfast.open(f"unix://{tmp_path}/{word} /s", retry_budget=0), mode)
    assert type(error) is holdfast.StoreUnavailable
    assert f"/{word} /s" in str(error)
    assert "Check that the server runs" in str(error)


@pytest.mark.parametrize("word", CODES)
async def test_a_word_in_the_name_of_a_host_means_nothing(word: str, mode: str) -> None:
    # As an argument: URLs make small letters of it.
    saver = holdfast.open("redis://", host=f"{word}.invalid", retry_budget=0)
    error = await failure(saver, mode)
    assert type(error) is holdfast.StoreUnavailable
    assert "host and port" in str(error)


# --- what a server said


@pytest.mark.parametrize("word", CODES)
async def test_a_word_in_a_command_that_a_server_quotes_means_nothing(word: str, mode: str) -> None:
    with RedisServer({"rename-command": 'EVALSHA ""'}) as server:
        calls = Calls(holdfast.open(server.url, retry_budget=0), mode)
        with pytest.raises(holdfast.StoreUnavailable, match="forbids EVALSHA") as caught:
            await calls.get_tuple(config(f" {word} "))
        assert f" {word} " in str(caught.value.__cause__), "the server does not quote it"
        await calls.close()


@pytest.mark.parametrize("kind", [redis.ConnectionError, Farewell, redis.ResponseError])
def test_a_server_that_takes_no_more_clients_says_so(kind: type[redis.RedisError]) -> None:
    """redis-py takes the code off, and makes it a lost connection."""
    error = raised(kind("max number of clients reached"), "here", 1, 0)
    assert type(error) is holdfast.StoreUnavailable
    assert "raise maxclients" in str(error)


FULL = "OOM command not allowed when used memory > 'maxmemory'."
REPLICA = "READONLY You can't write against a read only replica."
DISK = "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist"
TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
CANNOT = "The user executing the script can't run this command or subcommand"
ACL = "ACL failure in script: User app has no permissions to run the 'set' command"
SHA = "1f8f4cfba6f3375f8c4ec02b9de4361a5dea5c64"
RAN = f"Error running script (call to f_{SHA}): @user_script:1:"
ELSEWHERE = f"script: {SHA}, on @user_script:1."
SAID = [
    # Redis 6.2.14: out of redis.call, raised again by error(), taken out of redis.pcall.
    (f"ERR {RAN} @user_script: 1: -{FULL}", holdfast.StoreFull),
    (f"ERR {RAN} user_script:1: @user_script: 1: -{FULL}", holdfast.StoreFull),
    (f"@user_script: 264: -{FULL}\r\n", holdfast.StoreFull),
    (f"{RAN} @user_script: 1: -{REPLICA}", holdfast.StoreUnavailable),
    (f"ERR {RAN} user_script:1: @user_script: 1: -{DISK}", holdfast.StoreUnavailable),
    (f"ERR {RAN} {TYPE}", holdfast.ConfigurationError),
    (f"ERR {RAN} user_script:1: {TYPE}", holdfast.ConfigurationError),
    (f"ERR {RAN} @user_script: 1: {CANNOT}", holdfast.ConfigurationError),
    (f"@user_script: 1: {CANNOT}", holdfast.ConfigurationError),
    # Redis 7.0.15 and Valkey 9.1.
    (FULL, holdfast.StoreFull),
    (f"{FULL} {ELSEWHERE}", holdfast.StoreFull),
    (f"{FULL} script: on @user_script:1.", holdfast.StoreFull),
    (f"ERR user_script:1: {FULL} {ELSEWHERE}", holdfast.StoreFull),
    (f"user_script:1: {REPLICA} {ELSEWHERE}", holdfast.StoreUnavailable),
    (f"ERR user_script:1: {TYPE} {ELSEWHERE}", holdfast.ConfigurationError),
    (f"ERR {CANNOT} {ELSEWHERE}", holdfast.ConfigurationError),
    (f"ERR user_script:1: ERR {CANNOT} {ELSEWHERE}", holdfast.ConfigurationError),
    (f"ERR {ACL} {ELSEWHERE}", holdfast.ConfigurationError),
    (f"ERR user_script:1: ERR {ACL} script: on @user_script:1.", holdfast.ConfigurationError),
]


@pytest.mark.parametrize(("text", "kind"), SAID, ids=[text for text, _ in SAID])
def test_a_code_is_found_where_servers_put_it(text: str, kind: type[Exception]) -> None:
    error = raised(redis.ResponseError(text), "here", 1, 0)
    assert type(error) is kind
    assert "EVALSHA" not in str(error), "the remedy for errors that nobody knows"


@pytest.mark.parametrize(
    "text",
    [
        f"ERR user_script:1: not {FULL}",
        f"ERR Unknown command {FULL}",
        "OOMS of another kind",
        "BUSYKEY Target key name already exists.",
        "-OUT OOM",
        "",
        "ERR",
    ],
)
def test_a_code_elsewhere_is_none(text: str) -> None:
    error = raised(redis.ResponseError(text), "here", 1, 0)
    assert type(error) is holdfast.StoreUnavailable
    assert "EVALSHA" in str(error)
