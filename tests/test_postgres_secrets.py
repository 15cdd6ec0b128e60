"""A password is in no error, in nothing that an error hangs on, in no log and in no repr."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import holdfast
import psycopg
import pytest
from holdfast import PostgresSaver
from support.calls import Calls
from support.make import config
from support.postgres import eye
from support.postgres_server import PASSWORD, PostgresServer
from support.uses import everything, use

RIGHT = "vexed-Z9-Quagmire"
SECRET = "xylem-Q7-Brontosaur"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(auth="scram-sha-256") as server:
        with eye(server.url) as conn:
            conn.execute(f"CREATE ROLE app LOGIN PASSWORD '{RIGHT}'")
            conn.execute("CREATE SCHEMA app AUTHORIZATION app")
        yield server


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    for name in (None, "holdfast", "psycopg", "psycopg.pool", "asyncio"):
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


def url_of(server: PostgresServer, secret: str = SECRET) -> str:
    return f"postgresql://app:{quote(secret, safe='')}@127.0.0.1:{server.port}/postgres"


# --- the server refuses


async def test_a_wrong_password(
    server: PostgresServer, mode: str, logged: pytest.LogCaptureFixture
) -> None:
    saver = holdfast.open(url_of(server))
    error = await failure(saver, mode)
    assert isinstance(error, holdfast.ConfigurationError)
    assert f"127.0.0.1:{server.port}" in str(error)
    assert "password" in str(error), "the remedy"
    assert saver.stats()["retries"] == 0
    assert_safe(error, logged)


@pytest.mark.parametrize("path", ["postgres", "nowhere"])
async def test_a_user_or_a_database_that_is_not_there(
    server: PostgresServer, path: str, mode: str, logged: pytest.LogCaptureFixture
) -> None:
    url = f"postgresql://nobody:{SECRET}@127.0.0.1:{server.port}/{path}"
    error = await failure(holdfast.open(url), mode)
    assert isinstance(error, holdfast.ConfigurationError)
    assert_safe(error, logged)
    right = url_of(server, RIGHT).replace("/postgres", "/nowhere")
    error = await failure(PostgresSaver(right.replace("postgresql://", "postgres://")), mode)
    assert isinstance(error, holdfast.ConfigurationError)
    assert_safe(error, logged, RIGHT)


async def test_a_user_without_rights(
    server: PostgresServer, mode: str, logged: pytest.LogCaptureFixture
) -> None:
    saver = holdfast.open(url_of(server, RIGHT), table="pg_catalog.x")
    assert_safe(await failure(saver, mode), logged, RIGHT)


def test_a_given_connection_that_is_lost(
    server: PostgresServer, logged: pytest.LogCaptureFixture
) -> None:
    with psycopg.connect(url_of(server, RIGHT), autocommit=True) as mine, eye(server.url) as conn:
        saver = PostgresSaver(mine, table="app.lost", retry_budget=0)
        saver.setup()
        conn.execute("SELECT pg_terminate_backend(%s, 5000)", [mine.info.backend_pid])
        with pytest.raises(holdfast.StoreUnavailable) as caught:
            saver.get_tuple(config())
    assert_safe(caught.value, logged, RIGHT)


# --- the server is not reached


@pytest.mark.parametrize("host", ["127.0.0.1:1", "no.such.host.invalid:5432", "[::1]:1"])
async def test_a_right_password_and_a_wrong_host(
    host: str, mode: str, logged: pytest.LogCaptureFixture
) -> None:
    error = await failure(
        holdfast.open(f"postgresql://app:{SECRET}@{host}/x", retry_budget=0), mode
    )
    assert isinstance(error, holdfast.StoreUnavailable)
    assert_safe(error, logged)


async def test_a_certificate_or_a_socket_that_is_not_there(
    server: PostgresServer, tmp_path: Path, mode: str, logged: pytest.LogCaptureFixture
) -> None:
    for url in (
        f"{url_of(server)}?sslmode=verify-full&sslrootcert={tmp_path}/no.crt",
        f"postgresql:///x?host={quote(str(tmp_path), safe='')}&user=app&password={SECRET}",
    ):
        assert_safe(await failure(holdfast.open(url, retry_budget=0), mode), logged)


# --- the URL is not understood


@pytest.mark.parametrize("odd", [*":/@#?%[] \n\u2100", "://", "?sslmode=disable&", "?a=b&"])
async def test_a_password_that_was_not_escaped(odd: str, logged: pytest.LogCaptureFixture) -> None:
    """It is understood, or refused; either way it does not show."""
    words, digits = f"{SECRET[:10]}{odd}{SECRET[10:]}", f"36912{odd}1518212427"
    for secret, opened in ((words, holdfast.open), (digits, PostgresSaver)):
        url = f"postgresql://app:{secret}@127.0.0.1:1/x"
        try:
            error: BaseException = await failure(opened(url, retry_budget=0), "async")
        except holdfast.ConfigurationError as refused:
            error = refused
        for part in secret.split(odd):
            assert_safe(error, logged, part)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:{}@127.0.0.1:port/x",
        "postgresql://app:{}@127.0.0.1:6379000/x",
        "postgresql://app:{}@[127.0.0.1/x",
        "postgresql://127.0.0.1?password={}&port=first",
        "postgresql://127.0.0.1?password={}&cache_bytes=long",
        "postgresql://127.0.0.1:1?password={}&connect_timeout=long",
        "postgresql://127.0.0.1?pasword={}",
        "postgresql:/app:{}@127.0.0.1",
        "postgresql:app:{}@127.0.0.1",
        "app:{}@127.0.0.1",
        "postgresql+psycopg://app:{}@127.0.0.1/x",
        "http://app:{}@127.0.0.1",
        "host=127.0.0.1 password={} nonsense",
        "host=127.0.0.1 password='{}",
        "host=127.0.0.1 password={} pasword=1",
        "host=127.0.0.1 port=port password={}",
    ],
)
async def test_a_url_that_is_refused(url: str, logged: pytest.LogCaptureFixture) -> None:
    for opened in (holdfast.open, PostgresSaver):
        with pytest.raises(holdfast.ConfigurationError) as caught:
            await opened(url.format(SECRET), retry_budget=0).aget_tuple(config())
        assert_safe(caught.value, logged)


# --- nothing fails


async def test_no_repr_and_no_log_tells_it(
    server: PostgresServer, mode: str, logged: pytest.LogCaptureFixture
) -> None:
    calls = Calls(holdfast.open(url_of(server, RIGHT), table="app.shown"), mode)
    await use(calls)
    saver: Any = calls.saver
    backend = saver._live.backend
    for thing in (saver, saver._live, backend, backend._clients, backend._options):
        assert_hidden(f"{thing!r} {thing}", RIGHT)
    assert_hidden(f"{await calls.call('check')!r} {saver.stats()!r}", RIGHT)
    await calls.close()
    for record in logged.records:
        assert_hidden(f"{record.getMessage()} {record.args!r}", RIGHT)


def test_the_search_for_passwords_finds_them(
    server: PostgresServer, logged: pytest.LogCaptureFixture
) -> None:
    assert PASSWORD in server.url
    unseen = ValueError("kept")
    unseen.__context__ = ValueError(f"in an error that is not shown: {SECRET}")
    for error in (ValueError(SECRET), ValueError(quote(SECRET)), ValueError(SECRET[3:9]), unseen):
        with pytest.raises(AssertionError, match="shows"):
            assert_safe(error, logged)
    assert_safe(ValueError("harmless"), logged)
    logging.getLogger("psycopg.pool").debug("connecting with %s", SECRET)
    with pytest.raises(AssertionError, match="shows"):
        assert_safe(ValueError("harmless"), logged)
