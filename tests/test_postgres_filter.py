"""Filters on metadata: what the server leaves out, and that it leaves out nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import holdfast
import pytest
from holdfast.backends.base import Page
from holdfast.backends.postgres.clients import FromUrl
from hypothesis import example, given
from hypothesis import strategies as st
from support.calls import Calls
from support.make import checkpoint, checkpoint_id, config
from support.postgres import Connection, eye, table_of
from support.postgres_server import postgres_url

NAMES = st.sampled_from(["a", "b", "a b", '"', "\0", "", "\u00e9", "step"])
BIG = 2**60
SCALARS = st.one_of(
    st.none(),
    st.sampled_from([True, False, 0, 1, 0.0, 1.0, -0.0, 2, 2.0, "1", "true", "", "a\0", "\\", '"']),
    st.sampled_from([BIG, float(BIG), BIG + 1, -BIG, 2**53, 2**53 + 1, 2.0**53, 1e22, 10**18]),
    st.sampled_from([0.1, 1e300, 5e-324, 2**64 - 1, float("inf"), float("nan"), "x" * 2000]),
    st.integers(-3, 3),
    st.text(max_size=2),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(NAMES, inner, max_size=2)),
    max_leaves=4,
)
METADATA = st.dictionaries(NAMES, VALUES, max_size=3)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return postgres_url(tmp_path_factory.mktemp("filter"))


@pytest.fixture(scope="module")
def saver(url: str) -> Iterator[holdfast.Saver]:
    with holdfast.open(url) as saver:
        yield saver


@pytest.fixture
def conn(url: str) -> Iterator[Connection]:
    with eye(url) as conn:
        yield conn


def found(saver: holdfast.Saver, wanted: dict[str, Any]) -> list[str]:
    return [one.config["configurable"]["checkpoint_id"] for one in saver.list(None, filter=wanted)]


@given(all_metadata=st.lists(METADATA, min_size=1, max_size=5), data=st.data())
def test_a_filter_finds_what_it_finds_in_memory(
    saver: holdfast.Saver, all_metadata: list[dict[str, Any]], data: st.DataObject
) -> None:
    """Values of what is there, others that may equal them, and names that are not there."""
    values = [value for metadata in all_metadata for value in metadata.values()]
    wanted = st.dictionaries(
        NAMES, st.one_of(st.sampled_from(values) if values else VALUES, VALUES), max_size=2
    )
    same_as(saver, all_metadata, data.draw(st.lists(wanted, min_size=1, max_size=5)))


def same_as(
    saver: holdfast.Saver, all_metadata: list[dict[str, Any]], filters: list[dict[str, Any]]
) -> None:
    with holdfast.open("memory://") as memory:
        for one in (memory, saver):
            one.delete_thread("t")
            for number, metadata in enumerate(all_metadata, start=1):
                one.put(config(), checkpoint(number), metadata, {})  # type: ignore[arg-type]
        for wanted in filters:
            assert found(saver, wanted) == found(memory, wanted), wanted


ALIKE: list[Any] = [
    *(True, 1, 1.0, False, 0, 0.0, -0.0, None, "", "1", [], {}, [1], [True], {"a": 1}, {"a": True}),
    *(BIG, float(BIG), BIG + 1, 2**53, 2.0**53, 2**53 + 1, -(2**53) - 1, 1e22, 0.1, 1e300),
    *(
        2**63,
        2**63 - 1,
        -(2**63),
        2.0**63,
        2,
        2.0,
        "a\0",
        "a",
        {"a": {"b": None}},
        {"b": 1, "a": 2},
    ),
]


def test_values_that_are_nearly_equal(saver: holdfast.Saver) -> None:
    """Each sought among all, by itself and beside another; and a name that nobody has."""
    all_metadata = [*({"k": value, "n": number} for number, value in enumerate(ALIKE)), {"n": -1}]
    filters = [{"k": value} for value in ALIKE]
    filters += [{"k": value, "n": number} for number, value in enumerate(ALIKE)]
    filters += [{"none": None}, {"none": 1}, {"n": True}, {}]
    same_as(saver, all_metadata, filters)


@given(st.text(max_size=5), st.text(max_size=5))
@example("%s", "'; DROP TABLE x")
@example("$1", "\\")
def test_any_text_can_be_sought(saver: holdfast.Saver, name: str, value: str) -> None:
    same_as(saver, [{name: "other"}], [{name: value}, {value: name}])


@pytest.mark.parametrize(
    "wanted",
    [{"k": "x" * 5000}, {"k" * 5000: 1}, {f"k{n}": n for n in range(500)}, {1: 2}],
    ids=["long", "long name", "many", "number"],
)
async def test_filters_of_any_sort(tmp_path: Path, wanted: Any, mode: str) -> None:
    calls = Calls(holdfast.open(postgres_url(tmp_path)), mode)
    await calls.put(config(), checkpoint(1), {"k": "y"}, {})  # type: ignore[typeddict-unknown-key]
    assert await calls.list(None, filter=wanted) == []
    await calls.close()


async def test_a_filter_goes_with_all_else(tmp_path: Path, mode: str) -> None:
    calls = Calls(holdfast.open(postgres_url(tmp_path)), mode)
    for number in range(1, 101):
        where = config(f"t{number % 2}", f"n{number % 3}")
        await calls.put(where, checkpoint(number), {"step": number // 10, "source": "loop"}, {})
    assert await calls.ids(config("t1", None), filter={"step": 5}) == [
        checkpoint_id(number) for number in range(59, 49, -2)
    ]
    assert await calls.ids(config("t1", "n0"), filter={"step": 5, "source": "loop"}) == [
        checkpoint_id(number) for number in (57, 51)
    ]
    before = config("t1", "", checkpoint_id(56))
    assert await calls.ids(None, filter={"step": 5}, before=before, limit=3) == [
        checkpoint_id(number) for number in (55, 54, 53)
    ]
    assert await calls.ids(None, filter={"step": 5, "source": "input"}) == []
    await calls.close()


def test_the_server_looks_into_an_index(
    tmp_path: Path, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of twenty thousand, in all threads: neither the table is read nor the rest sent."""
    url = postgres_url(tmp_path)
    table = f"{table_of(url)}_checkpoints"
    with holdfast.open(url) as saver:
        saver.put(config(), checkpoint(1), {"user": "me"}, {})  # type: ignore[typeddict-unknown-key]
        saver.put(config(), checkpoint(2), {"user": "odd", "x": (1,)}, {})  # type: ignore[typeddict-unknown-key]
        conn.execute(
            f"INSERT INTO {table} (thread_id, checkpoint_id, record, metadata) "
            f"SELECT 'other ' || n %% 1000, 'a' || n, record, jsonb_build_object('user', n) "
            f"FROM {table}, generate_series(1, 20000) AS n WHERE checkpoint_id = %s",
            [checkpoint_id(1)],
        )
        conn.execute(f"ANALYZE {table}")
        sent: list[Any] = []
        send = FromUrl.send

        def spy(self: Any, statements: Any) -> Any:
            replies = send(self, statements)
            sent.extend(zip(statements, replies, strict=True))
            return replies

        monkeypatch.setattr(FromUrl, "send", spy)
        for wanted, ids in (("me", [checkpoint_id(1)]), ("odd", [checkpoint_id(2)])):
            sent.clear()
            assert found(saver, {"user": wanted}) == ids
            pages = [(one, rows) for one, rows in sent if b"page AS" in one.sql]
            assert sum(len(rows) for _, rows in pages) <= 2, "the rest was sent, too"
            statement, _ = pages[0]
            conn.execute(b"PREPARE page AS " + statement.sql)
            places = ", ".join(
                str(value) if isinstance(value, int) else f"'{value}'" for value in statement.values
            )
            for plan_mode in ("force_custom_plan", "force_generic_plan"):
                conn.execute(f"SET plan_cache_mode = {plan_mode}")
                explained = conn.execute(f"EXPLAIN (FORMAT JSON) EXECUTE page ({places})")
                plan = json.dumps((explained.fetchone() or ())[0])
                assert f"{table}_metadata" in plan, plan_mode
                assert (
                    f'"Seq Scan", "Parallel Aware": false, "Relation Name": "{table}"' not in plan
                )
            conn.execute("DEALLOCATE page")


def test_a_page_asks_for_what_may_be_compared_alone(saver: holdfast.Saver) -> None:
    """What JSONB would see otherwise than Python is compared here."""
    saver.put(config("u"), checkpoint(1), {"yes": True, "name": "x"}, {})  # type: ignore[typeddict-unknown-key]
    pages = [
        (1, {"yes": 1}),
        (1, {"yes": 1.0, "name": "x"}),
        (0, {"yes": 1, "name": "y"}),
        (1, {"yes": None}),
        (0, {"name": "y"}),
    ]
    for count, wanted in pages:
        rows = saver._live.execute(Page("u", "", None, None, None, 10, wanted))
        assert len(rows) == count, wanted
