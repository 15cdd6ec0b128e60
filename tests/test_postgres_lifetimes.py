"""Postgres: expiry, tombstones and leases where requests meet, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import holdfast
import psycopg
import pytest
from holdfast import PostgresSaver
from holdfast._core import unbundled
from holdfast.backends import base
from holdfast.backends.base import Fence, Predecessor, new_operation_id
from holdfast.backends.postgres import Tables
from holdfast.errors import LeaseLost, ThreadDeleted
from psycopg import RawCursor
from support.make import checkpoint_id
from support.postgres import Connection, dump, eye
from support.postgres_audit import audit, is_empty
from support.postgres_meeting import Meeting
from support.postgres_server import PostgresServer
from support.postgres_wire import PostgresWire, Trip
from support.requests import WORDS, anew, made, state, write
from support.wire import Cut

LEVELS = ["read committed", "repeatable read", "serializable"]
TTL = 3600.0
LATER = 2**52
"""Milliseconds since 1970: after each deletion."""
OLD, NEW = checkpoint_id(1), checkpoint_id(2)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def look(server: PostgresServer) -> Iterator[Connection]:
    """A look at an empty database."""
    with eye(server.url) as conn:
        conn.execute("DROP SCHEMA public CASCADE")
        conn.execute("CREATE SCHEMA public")
        yield conn


@pytest.fixture
def url(server: PostgresServer, look: Connection) -> str:
    return f"{server.url}?table=holdfast"


@pytest.fixture(params=LEVELS)
def meeting(url: str, look: Connection, request: pytest.FixtureRequest) -> Iterator[Meeting]:
    """Two clients with a ttl, whose transactions are of one level."""
    look.execute(f"ALTER ROLE postgres SET default_transaction_isolation = '{request.param}'")
    meeting = Meeting(url, ttl=TTL, refresh_on_read=True)
    meeting.held(base.Census("nobody"))  # so that it is set up before it is in a transaction
    yield meeting
    meeting.close()
    look.execute("ALTER ROLE postgres RESET default_transaction_isolation")


def forget(thread: str = "t", **how: Any) -> base.Forget:
    return base.Forget(thread, new_operation_id(), **how)


def child(number: int, *, made_at: int = 0, value: Any = WORDS[:20]) -> base.Commit:
    """A commit below the checkpoint before, which was made at a moment in milliseconds."""
    follows = [Predecessor("", checkpoint_id(number - 1), made_at, is_parent=True)]
    return replace(made(number=number, value=value), follows=follows)


def expire(conn: Connection, thread: str = "t") -> None:
    conn.execute(
        "UPDATE holdfast_threads SET expires_at = clock_timestamp() WHERE thread_id = %s", [thread]
    )


def row(conn: Connection, url: str, thread: str = "t") -> dict[str, Any]:
    (found,) = [one for one in dump(conn, url)["threads"] if one["thread_id"] == thread]
    return found


# --- a deletion, and those who come late


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
@pytest.mark.parametrize("change", ["commit", "write"])
def test_a_late_change_waits_for_a_deletion_and_is_refused(
    meeting: Meeting, change: str, end: str
) -> None:
    """What it builds on is stored when it comes, and not any more when its turn comes."""
    meeting.free(made())
    late = child(2) if change == "commit" else write(number=1)
    if end == "ROLLBACK":
        assert meeting.meet(forget(), late, end) == []
        assert OLD in meeting.audit()["t"].ids[""]
        return
    with pytest.raises(ThreadDeleted, match="'t'"):
        meeting.meet(forget(), late, end)
    assert is_empty(meeting.look, meeting.url)


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_child_waits_for_its_parent_which_begins_a_deleted_thread_anew(
    meeting: Meeting, end: str
) -> None:
    """When it comes, its parent is not stored: that is not to be believed."""
    meeting.free(made())
    meeting.free(forget())
    if end == "COMMIT":
        assert meeting.meet(made(), child(2, made_at=0), end) == []
        assert meeting.audit()["t"].ids == {"": [OLD, NEW]}
        return
    with pytest.raises(ThreadDeleted):
        meeting.meet(made(), child(2, made_at=LATER), end)
    assert is_empty(meeting.look, meeting.url)


def test_a_repeat_of_a_deletion_waits_for_it(meeting: Meeting) -> None:
    meeting.free(made())
    deletion = forget()
    assert meeting.meet(deletion, deletion) is True
    deleted = row(meeting.look, meeting.url)["deleted_at"]
    meeting.free(made())
    assert meeting.free(deletion) is True
    assert meeting.audit()["t"].ids == {"": [OLD]}
    assert row(meeting.look, meeting.url)["deleted_at"] == deleted


@pytest.mark.parametrize("change", ["commit", "write"])
def test_a_deletion_of_an_epoch_waits_for_a_change_and_does_nothing(
    meeting: Meeting, change: str
) -> None:
    meeting.free(made())
    epoch = meeting.free(base.Census("t"))[0]
    come = child(2) if change == "commit" else write(number=1)
    assert meeting.meet(come, forget(epoch=epoch, leaves_tombstone=False)) is False
    assert OLD in meeting.audit()["t"].ids[""]


def test_tombstones_that_are_in_use_are_not_waited_for(meeting: Meeting) -> None:
    for thread in ("a", "b"):
        meeting.free(forget(thread))
    meeting.look.execute("UPDATE holdfast_threads SET deleted_at = now() - interval '25 hours'")
    meeting.conn.execute("BEGIN")
    meeting.held(made("a"))
    meeting.pool.submit(lambda: meeting.free(forget("c"))).result(30)
    meeting.conn.execute("COMMIT")
    assert {one["thread_id"] for one in dump(meeting.look, meeting.url)["threads"]} == {"a", "c"}
    assert meeting.audit().keys() == {"a"}


# --- a thread that has expired


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_two_begin_an_expired_thread_anew(meeting: Meeting, end: str) -> None:
    meeting.free(made(number=9, value=WORDS[60:]))
    meeting.free(write(number=9))
    expire(meeting.look)
    assert meeting.meet(made(), made(number=2), end) == []
    found = meeting.audit()["t"]
    assert found.ids == {"": [OLD, NEW] if end == "COMMIT" else [NEW]}
    assert not found.garbage
    assert not found.orphans


def test_a_change_of_an_expired_thread_that_is_sent_twice_at_once(meeting: Meeting) -> None:
    meeting.free(made(number=9))
    expire(meeting.look)
    change = made()
    assert meeting.meet(change, change) == []
    epoch, *_ = state(meeting.free)
    assert meeting.free(change) == []
    assert state(meeting.free)[0] == epoch
    assert meeting.audit()["t"].ids == {"": [OLD]}


def test_what_was_done_is_not_done_again_when_the_thread_has_expired(meeting: Meeting) -> None:
    changes: list[Any] = [made(), write(number=1)]
    for change in changes:
        meeting.free(change)
    expire(meeting.look)
    before = dump(meeting.look, meeting.url)
    for change in changes:
        assert meeting.free(change) == []
    assert dump(meeting.look, meeting.url) == before


def test_a_change_that_counts_on_an_expired_threads_chunks_lacks_them(meeting: Meeting) -> None:
    meeting.free(made())
    chunks = [id for id, _ in made().chunks]
    expire(meeting.look)
    before = dump(meeting.look, meeting.url)
    lacks = anew(made(number=2), chunks=[], frontier=chunks)
    assert sorted(meeting.free(lacks)) == sorted(chunks)
    assert dump(meeting.look, meeting.url) == before


def test_a_sweep_of_an_expired_thread_waits_for_who_begins_it_anew(meeting: Meeting) -> None:
    meeting.free(made())
    expire(meeting.look)
    ((visited,), _) = meeting.free(base.Visit(None, 10))
    assert visited.is_expired
    sweep = forget(epoch=visited.epoch, leaves_tombstone=False)
    assert meeting.meet(made(number=2), sweep) is False
    assert meeting.audit()["t"].ids == {"": [NEW]}


def test_a_read_that_refreshes_does_not_wait_for_a_change(meeting: Meeting) -> None:
    meeting.free(made())
    meeting.conn.execute("BEGIN")
    meeting.held(child(2))
    for read in (
        base.Head("t", "", None, list),
        base.Ancestors("t", "", None, 10),
        base.Page("t", None, None, None, None, 10),
    ):
        assert meeting.pool.submit(meeting.free, read).result(30)
    meeting.conn.execute("COMMIT")


# --- a lease


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
@pytest.mark.parametrize("there", [False, True])
def test_two_ask_for_a_lease(meeting: Meeting, end: str, there: bool) -> None:
    if there:
        meeting.free(made())
    token, seconds = meeting.meet(base.Lease("t", 50), base.Lease("t", 70), end)
    if end == "COMMIT":
        assert token is None
        assert 0 < seconds <= 50
    else:
        assert (token, seconds) == (row(meeting.look, meeting.url)["lease_token"], 70)


@pytest.mark.parametrize("change", ["commit", "write", "copy"])
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_change_waits_for_a_lease_of_another(meeting: Meeting, change: str, end: str) -> None:
    meeting.free(made("source", number=5))
    meeting.free(made())
    changes: dict[str, base.Request] = {
        "commit": child(2),
        "write": write(number=1),
        "copy": base.Copy("source", "t", new_operation_id()),
    }
    before = state(meeting.free)
    if end == "ROLLBACK":
        meeting.meet(base.Lease("t", 50), changes[change], end)
        assert state(meeting.free) != before
        return
    with pytest.raises(LeaseLost, match="'t'"):
        meeting.meet(base.Lease("t", 50), changes[change], end)
    assert state(meeting.free) == before


@pytest.mark.parametrize("change", ["commit", "write", "copy"])
def test_a_change_under_a_lease_waits_for_its_release(meeting: Meeting, change: str) -> None:
    meeting.free(made("source", number=5))
    meeting.free(made())
    token, _ = meeting.free(base.Lease("t", 50))
    fence = Fence(token, 50)
    changes: dict[str, base.Request] = {
        "commit": replace(child(2), fence=fence),
        "write": replace(write(number=1), fence=fence),
        "copy": base.Copy("source", "t", new_operation_id(), fence),
    }
    before = state(meeting.free)
    with pytest.raises(LeaseLost):
        meeting.meet(base.Release("t", token), changes[change])
    assert state(meeting.free) == before


def test_a_fence_where_nothing_is_leaves_nothing(meeting: Meeting) -> None:
    for change in (made(), write(), base.Copy("source", "t", new_operation_id())):
        if isinstance(change, base.Copy):
            meeting.free(made("source", number=5))
        with pytest.raises(LeaseLost):
            meeting.free(replace(change, fence=Fence(7, 50)))
    assert {one["thread_id"] for one in dump(meeting.look, meeting.url)["threads"]} == {"source"}


def test_a_lease_whose_reply_was_lost_is_the_same_lease(
    url: str, look: Connection, server: PostgresServer
) -> None:
    with PostgresWire(server.port) as wire, holdfast.open(wire.url, pool_size=1) as saver:
        execute = saver._live.backend.execute
        for lease in (base.Lease("nobody", 5), base.Lease("t", 50), base.Lease("t", 50)):
            execute(base.Release(lease.thread_id, execute(lease)[0] or 0))
        lost: list[Trip] = []

        def meddle(trip: Trip) -> bytes:
            if lost:
                return trip.forward()
            lost.append(trip)
            trip.forward()
            raise Cut

        wire.meddle = meddle
        token, seconds = execute(base.Lease("t", 50))
        assert lost
        assert (token, seconds) == (row(look, url)["lease_token"], 50)
        assert execute(base.Lease("t", 50))[0] is None
        assert execute(base.Lease("t", 50, token)) == (token, 50)


# --- tombstones that have had their time


def test_old_tombstones_go_a_few_at_a_time(url: str, look: Connection) -> None:
    with holdfast.open(url) as saver:
        execute = saver._live.backend.execute
        execute(made("lives"))
        for number in range(150):
            execute(forget(f"old {number:03}"))
        for thread in ("fresh", "leased"):
            execute(forget(thread))
        execute(base.Lease("leased", 50))
        look.execute(
            "UPDATE holdfast_threads SET deleted_at = now() - interval '24 hours 1 second' "
            "WHERE thread_id <> 'fresh'"
        )

        def left() -> int:
            return len(dump(look, url)["threads"])

        assert left() == 153
        execute(forget("fresh"))
        assert left() == 53
        execute(forget("fresh"))
        names = {one["thread_id"] for one in dump(look, url)["threads"]}
        assert names == {"lives", "fresh", "leased"}
        assert audit(look, url).keys() == {"lives"}


def test_a_deletion_without_a_tombstone_leaves_the_lease(url: str, look: Connection) -> None:
    with holdfast.open(url) as saver:
        execute = saver._live.backend.execute
        execute(made())
        token, _ = execute(base.Lease("t", 50))
        assert execute(forget(leaves_tombstone=False))
        assert audit(look, url) == {}
        assert row(look, url)["lease_token"] == token
        execute(base.Release("t", token))
        assert execute(forget(leaves_tombstone=False))
        assert dump(look, url)["threads"] == []


# --- what it costs


def test_round_trips_and_statements(
    url: str, look: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holdfast.open(url, ttl=TTL, refresh_on_read=True) as saver:
        execute = saver._live.backend.execute
        clients = saver._live.backend._clients  # type: ignore[attr-defined]
        sent: list[int] = []
        send = clients.send
        execute(base.Census("nobody"))
        monkeypatch.setattr(clients, "send", lambda some: (sent.append(len(some)), send(some))[1])

        def cost(request: base.Request) -> list[int]:
            """The statements of each round trip."""
            sent.clear()
            try:
                execute(request)
            except (LeaseLost, ThreadDeleted):
                sent.append(-1)
            return [*sent]

        assert cost(made()) == [1]
        assert cost(child(2)) == [1]
        assert cost(write(number=2)) == [1]
        for read in (
            base.Head("t", "", None, list),
            base.Ancestors("t", "", None, 10),
            base.Page("t", None, None, None, None, 10),
        ):
            assert cost(read) == [2]
        assert cost(base.Page(None, None, None, None, None, 10)) == [1]
        assert cost(base.Weigh("t")) == [1]
        assert cost(base.Visit(None, 10)) == [1]
        assert cost(base.Threads(10)) == [1]
        assert cost(forget()) == [3]
        assert cost(child(3)) == [1, 3, -1], "late"
        assert cost(made()) == [1], "it begins anew"
        assert cost(child(2, made_at=LATER)) == [1]
        assert cost(replace(write(number=2), made=LATER)) == [1]
        token, _ = execute(base.Lease("t", 50))
        assert cost(child(3, made_at=LATER)) == [1, 3, -1], "another's"
        fence = Fence(token, 50)
        assert cost(replace(child(3, made_at=LATER), fence=fence)) == [1]
        assert cost(replace(write(number=3), made=LATER, fence=fence)) == [1]
        execute(base.Release("t", token))
        expire(look)
        assert cost(made(number=5)) == [1, 3], "what is left goes in between"
        assert cost(child(6, made_at=LATER)) == [1]


@pytest.mark.parametrize("way", ["put", "read"])
def test_touching_a_thread_is_a_hot_update(url: str, look: Connection, way: str) -> None:
    """It leaves no index entry behind, but once a minute."""
    times = 200
    query = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = %s"
    with holdfast.open(url, ttl=TTL, refresh_on_read=True) as saver:
        execute = saver._live.backend.execute
        execute(made())
        begun = time.time()
        for number in range(times):
            if way == "put":
                execute(made(number=number + 1))
            else:
                execute(base.Head("t", "", None, lambda ids: []))
    minutes = int(time.time() // 60 - begun // 60)
    deadline = time.monotonic() + 30
    while True:
        updates, hot = look.execute(query, ["holdfast_threads"]).fetchone() or (0, 0)
        if updates >= times:
            break
        assert time.monotonic() < deadline, updates
        time.sleep(0.05)
    assert (updates, updates - hot) == (times, updates - hot)
    assert updates - hot <= (minutes if way == "put" else 0)


def explained(saver: holdfast.Saver, look: Connection, statement: bytes, values: Any) -> str:
    with RawCursor(look) as cursor:
        cursor.execute(b"EXPLAIN " + statement, values)
        return "\n".join(line for (line,) in cursor.fetchall())


def test_a_listing_reads_the_last_minutes_and_no_more(url: str, look: Connection) -> None:
    with holdfast.open(url) as saver:
        execute = saver._live.backend.execute
        execute(made("pattern"))
        look.execute(
            "INSERT INTO holdfast_threads (thread_id, epoch, updated_at, updated_minute) "
            "SELECT 't' || n, n, at, floor(date_part('epoch', at) / 60) "
            "FROM generate_series(1, 20000) AS n, LATERAL (SELECT now() - n * interval '7 seconds')"
            " AS moment (at)"
        )
        look.execute(
            "INSERT INTO holdfast_checkpoints (thread_id, checkpoint_id, record) "
            "SELECT t.thread_id, checkpoint_id, record FROM holdfast_threads AS t, "
            "(SELECT checkpoint_id, record FROM holdfast_checkpoints) AS c WHERE t.epoch <= 20000"
        )
        look.execute("ANALYZE holdfast_threads, holdfast_checkpoints")
        backend: Any = saver._live.backend
        statement = backend._answers[base.Threads](base.Threads(10)).send(None)[0]
        plan = explained(saver, look, statement.sql, statement.values)
        assert "holdfast_threads_updated" in plan
        assert "Seq Scan" not in plan
        rows = execute(base.Threads(25))
        assert [one.thread_id for one in rows] == ["pattern", *(f"t{n}" for n in range(1, 25))]
        last = rows[-1]
        more = execute(base.Threads(3, after=(last.updated, last.thread_id)))
        assert [one.thread_id for one in more] == ["t25", "t26", "t27"]


# --- from the layouts before

BEFORE = range(1, Tables("old").layout)


def old_tables(look: Connection, layout: int) -> None:
    """The tables of an earlier layout, with what is in the present ones."""
    new, old = Tables("holdfast").names, Tables("old").names
    look.execute(f"CREATE TABLE {old['layout']} (version INTEGER NOT NULL)")
    look.execute(f"INSERT INTO {old['layout']} VALUES ({layout})")
    for migration in Tables("old").migrations[:layout]:
        for statement in migration:
            look.execute(statement)
    for table in ("threads", "checkpoints", "blobs"):
        there = ", ".join(
            name
            for (name,) in look.execute(
                "SELECT column_name::text FROM information_schema.columns WHERE table_name = %s",
                [f"old_{table}"],
            )
        )
        look.execute(
            f"INSERT INTO {old[table]} ({there}) OVERRIDING SYSTEM VALUE "
            f"SELECT {there} FROM {new[table]}"
        )
    look.execute(
        "SELECT setval(pg_get_serial_sequence('old_threads', 'key'), max(key)) FROM old_threads"
    )
    # Each write had a row of its own, and the operation stood with the first one.
    places = "thread, checkpoint_ns, checkpoint_id, task_id, operation, data"
    for *place, operation, data in look.execute(f"SELECT {places} FROM {new['writes']}").fetchall():
        for nth, (idx, stored) in enumerate(unbundled(data)):
            look.execute(
                f"INSERT INTO {old['writes']} ({places}, idx) VALUES (%s, %s, %s, %s, %s, %s, %s)",
                [*place, None if nth else operation, stored, idx],
            )


def columns(look: Connection, prefix: str) -> Any:
    return look.execute(
        "SELECT table_name::text, column_name::text, data_type::text, is_nullable::text, "
        "column_default::text FROM information_schema.columns WHERE starts_with(table_name, %s) "
        "ORDER BY 1, 2",
        [f"{prefix}_"],
    ).fetchall()


def indexes(look: Connection, prefix: str) -> Any:
    found = look.execute(
        "SELECT indexdef FROM pg_indexes WHERE starts_with(tablename, %s) ORDER BY 1",
        [f"{prefix}_"],
    )
    return [one.replace(f"{prefix}_", "") for (one,) in found]


@pytest.mark.parametrize("layout", BEFORE)
def test_tables_of_the_layouts_before_are_read_and_written_on(
    layout: int, server: PostgresServer, url: str, look: Connection
) -> None:
    threads = ["t", "u"]
    with holdfast.open(url) as saver:
        execute: Callable[[Any], Any] = saver._live.backend.execute
        for thread in threads:
            execute(made(thread))
            execute(made(thread, ns="sub"))
            execute(write(thread))
            execute(write(thread, -1))
        old_tables(look, layout)
        assert columns(look, "old") != columns(look, "holdfast")
        before = [state(execute, thread) for thread in threads]
        listed = execute(base.Threads(10))
    with PostgresSaver(server.url, table="old", ttl=TTL) as saver:
        execute = saver._live.backend.execute
        assert [state(execute, thread) for thread in threads] == before
        assert execute(base.Threads(10)) == listed
        assert [one.expires for one in listed] == [None, None]
        strip = [
            [(name.split("_", 1)[1], *more) for name, *more in columns(look, prefix)]
            for prefix in ("old", "holdfast")
        ]
        assert strip[0] == strip[1]
        assert indexes(look, "old") == indexes(look, "holdfast")
        later = made(number=7).record
        for idx in (0, -1, 1):
            execute(write("t", idx, later))
        (place, left), *_ = execute(base.WritesOf("t", [("", checkpoint_id(1))])).items()
        assert place == ("", checkpoint_id(1))
        assert [(one.idx, one.data == later) for one in left] == [(0, False), (-1, True), (1, True)]
        assert execute(child(2)) == []
        (first, _) = execute(base.Threads(10))
        assert (first.thread_id, first.created) == ("t", listed[1].created)
        assert first.expires is not None
        assert execute(forget("u"))
        with pytest.raises(ThreadDeleted):
            execute(replace(child(2), thread_id="u"))
    assert audit(look, f"{server.url}?table=old").keys() == {"t"}


def test_who_may_not_migrate_is_told_who_may(
    server: PostgresServer, url: str, look: Connection
) -> None:
    with holdfast.open(url) as saver:
        saver.setup()
    old_tables(look, 1)
    look.execute("DO $$ BEGIN CREATE ROLE guest LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
    look.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest")
    look.execute("GRANT USAGE ON SCHEMA public TO guest")
    guest = server.url.replace("postgres@", "guest@")
    with PostgresSaver(guest, table="old") as saver:
        with pytest.raises(holdfast.ConfigurationError, match=r"saver\.setup\(\).*owner") as told:
            saver.setup()
        assert isinstance(told.value.__cause__, psycopg.Error)
    with PostgresSaver(server.url, table="old") as saver:
        saver.setup()
    look.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest")
    with PostgresSaver(guest, table="old") as saver:
        assert saver._live.backend.execute(made()) == []
