"""A password is in no error, in nothing that an error hangs on, in no log and in no repr."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import holdfast
import pytest
import redis
import redis.asyncio
from holdfast import RedisSaver
from support.calls import Calls
from support.make import config
from support.redis import TlsServer
from support.redis_server import RedisServer
from support.uses import everything, use

RIGHT = "vexed-Z9-Quagmire"
SECRET = "xylem-Q7-Brontosaur"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    users = ["default off", f"app on >{RIGHT} ~* &* +@all", f"shut on >{RIGHT} ~no:* &* +@all"]
    with RedisServer({"user": users}) as server:
        yield server


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    for name in ("holdfast", "redis", "asyncio"):
        caplog.set_level(logging.DEBUG, name)
    return caplog


def assert_hidden(text: str, secret: str = SECRET) -> None:
    """No part of a secret of some length is in the text, as it is or escaped."""
    for form in (secret, quote(secret, safe="")):
        for start in range(len(form) - 4):
            assert form[start : start + 5] not in text, "the password shows"


def assert_safe(
    error: BaseException, logged: pytest.LogCaptureFixture, secret: str = SECRET
) -> None:
    for one in everything(error):
        # Not the lines of this file: they would show what they are.
        shown = traceback.TracebackException.from_exception(one)
        shown.stack.clear()
        assert_hidden("".join(shown.format(chain=False)), secret)
        assert_hidden(f"{one!r} {one.args!r} {one} {vars(one)!r}", secret)
    for record in logged.records:
        assert_hidden(f"{record.getMessage()} {record.args!r} {record.exc_text}", secret)


async def failure(saver: holdfast.Saver, mode: str) -> holdfast.HoldfastError:
    calls = Calls(saver, mode)
    try:
        with pytest.raises(holdfast.HoldfastError) as caught:
            await calls.get_tuple(config())
    finally:
        await calls.close()
    return caught.value


def url_of(server: RedisServer, secret: str = SECRET, user: str = "app") -> str:
    return f"redis://{user}:{quote(secret, safe='')}@127.0.0.1:{server.port}/0"


# --- the server refuses


async def test_a_wrong_password(
    server: RedisServer, mode: str, logged: pytest.LogCaptureFixture
) -> None:
    error = await failure(holdfast.open(url_of(server)), mode)
    assert isinstance(error, holdfast.ConfigurationError)
    assert f"127.0.0.1:{server.port}" in str(error)
    assert "password" in str(error), "the remedy"
    assert isinstance(error.__cause__, redis.AuthenticationError)
    assert_safe(error, logged)


async def test_a_wrong_password_of_a_given_client(
    server: RedisServer, mode: str, logged: pytest.LogCaptureFixture
) -> None:
    with redis.Redis.from_url(url_of(server)) as client:
        error = await failure(RedisSaver(client), mode)
    assert isinstance(error, holdfast.ConfigurationError)
    assert_safe(error, logged)


async def test_a_user_that_may_not_reach_the_keys(
    server: RedisServer, mode: str, logged: pytest.LogCaptureFixture
) -> None:
    error = await failure(holdfast.open(url_of(server, RIGHT, "shut")), mode)
    assert isinstance(error, holdfast.ConfigurationError)
    assert_safe(error, logged, RIGHT)


async def test_a_password_where_none_is_asked_for(
    mode: str, logged: pytest.LogCaptureFixture
) -> None:
    with RedisServer() as server:
        url = f"redis://:{SECRET}@127.0.0.1:{server.port}/0"
        error = await failure(holdfast.open(url), mode)
        assert isinstance(error, holdfast.ConfigurationError)
        assert_safe(error, logged)


# --- the server is not reached


@pytest.mark.parametrize("host", ["127.0.0.1:1", "no.such.host.invalid:6379", "[::1]:1"])
@pytest.mark.parametrize("scheme", ["redis", "rediss"])
async def test_a_right_password_and_a_wrong_host(
    host: str, scheme: str, mode: str, logged: pytest.LogCaptureFixture
) -> None:
    url = f"{scheme}://app:{SECRET}@{host}/0"
    error = await failure(holdfast.open(url, retry_budget=0), mode)
    assert isinstance(error, holdfast.StoreUnavailable)
    assert_safe(error, logged)


async def test_a_certificate_that_is_refused(
    tmp_path: Path, mode: str, logged: pytest.LogCaptureFixture
) -> None:
    with TlsServer(tmp_path) as server:
        url = server.url.replace("secret", SECRET)
        error = await failure(holdfast.open(url, retry_budget=0), mode)
        assert isinstance(error, holdfast.StoreUnavailable)
        assert_safe(error, logged)


async def test_a_socket_that_is_not_there(
    tmp_path: Path, mode: str, logged: pytest.LogCaptureFixture
) -> None:
    for url in (
        f"unix://app:{SECRET}@{tmp_path}/no.sock",
        f"unix://{tmp_path}/no.sock?password={SECRET}",
    ):
        error = await failure(holdfast.open(url, retry_budget=0), mode)
        assert isinstance(error, holdfast.StoreUnavailable)
        assert "no.sock" in str(error)
        assert_safe(error, logged)


# --- the URL is not understood


@pytest.mark.parametrize("at", [":{}@127.0.0.1:1", "app:{}@127.0.0.1:1", "{}@127.0.0.1:1"])
@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix"])
@pytest.mark.parametrize("odd", [*":/@#?%[]", "\u2100", "://", "?db=0&", " ", "\n"])
async def test_a_password_that_was_not_escaped(
    odd: str, at: str, scheme: str, logged: pytest.LogCaptureFixture
) -> None:
    """It is understood, or refused; either way it does not show."""
    for secret in (f"{SECRET[:10]}{odd}{SECRET[10:]}", f"36912{odd}1518212427"):
        url = f"{scheme}://{at.format(secret)}/0"
        for opened in (holdfast.open, RedisSaver):
            try:
                error: BaseException = await failure(opened(url, retry_budget=0), "async")
            except holdfast.ConfigurationError as refused:
                error = refused
            for part in secret.split(odd):
                assert_safe(error, logged, part)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:{}@127.0.0.1:port/0",
        "redis://:{}@127.0.0.1:6379000/0",
        "redis://:{}@[127.0.0.1/0",
        "redis://127.0.0.1?password={}&db=first",
        "redis://127.0.0.1?password={}&cache_bytes=long",
        "redis://127.0.0.1?password={}&socket_timeout=long",
        "redis://127.0.0.1?pasword={}",
        "redis:/:{}@127.0.0.1",
        "redis:{}@127.0.0.1",
        "app:{}@127.0.0.1",
        "redis+sentinel://:{}@127.0.0.1:26379/primary/0",
        "http://:{}@127.0.0.1",
    ],
)
async def test_a_url_that_is_refused(url: str, logged: pytest.LogCaptureFixture) -> None:
    for opened in (holdfast.open, RedisSaver):
        with pytest.raises(holdfast.ConfigurationError) as caught:
            opened(url.format(SECRET), retry_budget=0).get_tuple(config())
        assert_safe(caught.value, logged)


# --- nothing fails


ODD = "p%40:/@?#&=+ \u00fc"


@pytest.mark.parametrize("odd", [":/@#?%[]&=+ \u00e9", "a@b", "p%40ss", "://", "\u2100", ODD])
async def test_a_password_of_any_characters_is_understood(
    odd: str, server: RedisServer, mode: str
) -> None:
    """Escaped where it stands in a URL, and as it is where it is an argument."""
    with redis.Redis.from_url(url_of(server, RIGHT)) as admin:
        admin.execute_command("ACL", "SETUSER", "odd", "reset", "on", f">{odd}", "~*", "+@all")
    plain = f"redis://127.0.0.1:{server.port}/0"
    for saver in (
        holdfast.open(url_of(server, odd, "odd")),
        holdfast.open(f"{plain}?username=odd&password={quote(odd, safe='')}"),
        holdfast.open(plain, username="odd", password=odd),
        RedisSaver(plain, connection_args={"username": "odd", "password": odd}),
    ):
        calls = Calls(saver, mode)
        assert await calls.get_tuple(config()) is None
        await calls.close()


async def test_a_password_given_as_an_argument_is_taken_as_it_is(mode: str) -> None:
    quoted = "".join(f"\\x{byte:02x}" for byte in ODD.encode())
    with RedisServer({"requirepass": f'"{quoted}"'}) as server:
        saver = holdfast.open(server.url, password=ODD)
        calls = Calls(saver, mode)
        await use(calls)
        await calls.close()
        for wrong in ("p@:/@?#&=+ \u00fc", ODD.replace("+", " "), quote(ODD)):
            error = await failure(holdfast.open(server.url, password=wrong), mode)
            assert isinstance(error, holdfast.ConfigurationError)


async def test_no_repr_and_no_log_tells_it(
    server: RedisServer, mode: str, logged: pytest.LogCaptureFixture
) -> None:
    calls = Calls(holdfast.open(url_of(server, RIGHT)), mode)
    await use(calls)
    saver: Any = calls.saver
    backend = saver._live.backend
    for thing in (saver, saver._live, backend, backend._clients, backend._options):
        assert_hidden(f"{thing!r} {thing}", RIGHT)
    await calls.close()
    for record in logged.records:
        assert_hidden(f"{record.getMessage()} {record.args!r}", RIGHT)


def test_the_search_for_passwords_finds_them(logged: pytest.LogCaptureFixture) -> None:
    def fail(message: str, below: Exception | None = None) -> Exception:
        try:
            raise ValueError(message) from below
        except ValueError as error:
            return error

    unseen = fail("kept")
    unseen.__context__ = fail(f"in an error that is not shown: {SECRET}")
    for error in (fail(SECRET), fail("x", fail(f"y{quote(SECRET)}")), fail(SECRET[3:9]), unseen):
        with pytest.raises(AssertionError, match="shows"):
            assert_safe(error, logged)
    assert_safe(fail("harmless"), logged)
    logging.getLogger("redis").debug("connecting with %s", SECRET)
    with pytest.raises(AssertionError, match="shows"):
        assert_safe(fail("harmless"), logged)
