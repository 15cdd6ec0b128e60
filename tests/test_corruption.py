"""Damaged bytes are found, named, and never taken for "not found" or for another value."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import holdfast
import pytest
from langgraph.checkpoint.base import CheckpointTuple
from support.calls import Calls
from support.damage import Cell, cells, damaged, dump, execute, manners, missing
from support.make import Thread, config, plain

MESSAGES = [f"message {i} " + f"{i * 7919 % 1000003:x} " * 60 for i in range(60)]


STILL = {f"still {number:02}": [number] * 9 for number in range(24)}
"""Channels of a wide graph, whose records tell what has changed."""


@pytest.fixture(params=[{}, STILL], ids=["narrow", "wide"])
async def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A file with three checkpoints of many chunks, and writes."""
    path = tmp_path / "state.db"
    calls = Calls(holdfast.open(f"sqlite:///{path}"), "async")
    thread = Thread(calls, "our thread", "sub:1")
    for length in (20, 59, 60):
        stored = await thread.put(
            {
                "state": MESSAGES[:length],
                "small": length,
                "blob": MESSAGES[length - 1] * 300,
                **(request.param if length == 20 else {}),
            }
        )
        await calls.put_writes(stored, [("state", MESSAGES[length - 5 : length]), ("x", 1)], "task")
    await calls.close()
    assert leftovers(path) == [], "closing left a log behind"
    return path


def leftovers(path: Path) -> list[Path]:
    return [file for file in path.parent.glob(f"{path.name}-*") if file.stat().st_size]


def read(path: Path) -> list[CheckpointTuple | Exception | None]:
    """What a saver without any cache answers for each of the three checkpoints."""
    answers: list[CheckpointTuple | Exception | None] = []
    with holdfast.open(f"sqlite:///{path}") as saver:
        for number in (1, 2, 3):
            try:
                answers.append(saver.get_tuple(place(number)))
            except Exception as error:  # noqa: BLE001 - its kind is what is tested
                answers.append(error)
    return answers


def place(number: int) -> Any:
    return config("our thread", "sub:1", f"1f000000-0000-6000-8000-{number:012d}")


def judge(answers: list[Any], whole: list[Any], kinds: tuple[type, ...], how: str) -> int:
    """Each answer is the whole checkpoint or an error that names it; how many are errors."""
    errors = 0
    for number, (answer, expected) in enumerate(zip(answers, whole, strict=True), 1):
        if isinstance(answer, Exception):
            assert isinstance(answer, kinds), f"{how}: {answer!r}"
            for name in ("our thread", "sub:1", place(number)["configurable"]["checkpoint_id"]):
                assert name in str(answer), f"{how}: the message does not name {name}: {answer}"
            errors += 1
        else:
            assert answer is not None, f"{how}: corrupt was taken for not found"
            assert plain(answer) == plain(expected), f"{how}: a wrong value was believed"
    return errors


@pytest.mark.timeout(600)  # some two thousand damages
def test_no_damage_to_stored_bytes_goes_unnoticed(path: Path) -> None:
    whole = read(path)
    assert len({cell.table for cell in cells(path)}) >= 3
    noticed: Counter[str] = Counter()
    for cell in cells(path):
        for name, value in manners(cell.value):
            if value == cell.value:
                continue
            # the first byte tells the format, and a damaged one may well be a newer one
            kinds: tuple[type, ...] = (holdfast.CheckpointCorrupted,)
            if "of byte 0" in name:
                kinds = (*kinds, holdfast.FormatTooNew)
            how = f"{name} in {cell.table}.{cell.column} {cell.key}"
            with damaged(path, cell, value):
                errors = judge(read(path), whole, kinds, how)
            assert errors, f"{how}: nobody noticed"
            noticed[cell.table] += errors
    assert judge(read(path), whole, (), "restored") == 0
    assert len(noticed) >= 3


def test_a_missing_chunk_is_noticed(path: Path) -> None:
    whole = read(path)
    noticed: Counter[str] = Counter()
    for cell in cells(path):
        with missing(path, cell):
            answers = read(path)
        for number, answer in enumerate(answers):
            if answer is None or isinstance(answer, CheckpointTuple):
                # a record or a write that is gone leaves no trace, the rest must be whole
                if answer is not None:
                    expected = plain(whole[number])  # type: ignore[arg-type]
                    assert {**plain(answer), "writes": expected["writes"]} == expected
                    assert [w for w in expected["writes"] if w in plain(answer)["writes"]] == plain(
                        answer
                    )["writes"]
            else:
                assert isinstance(answer, holdfast.CheckpointCorrupted)
                noticed[cell.table] += 1
    assert noticed, "no missing row was noticed"
    assert read(path)[0] is not None


async def test_every_way_to_read_notices(path: Path, mode: str) -> None:
    records = [cell for cell in cells(path) if dict(cell.key).get("checkpoint_id")]
    tables = Counter(cell.table for cell in records)
    record = next(cell for cell in records if tables[cell.table] == 3)
    with damaged(path, record, record.value[:-3]):
        calls = Calls(holdfast.open(f"sqlite:///{path}"), mode)
        head = config("our thread", "sub:1")
        bad = dict(record.key)["checkpoint_id"]
        good = {number for number in (1, 2, 3) if bad not in str(place(number))}
        for attempt in (
            lambda: calls.get_tuple(config("our thread", "sub:1", str(bad))),
            lambda: calls.list(head),
            lambda: calls.list(None),
        ):
            with pytest.raises(holdfast.CheckpointCorrupted, match=str(bad)):
                await attempt()
        for number in good:
            assert await calls.get_tuple(place(number)) is not None
        await calls.close()


async def test_a_prune_of_damaged_data_leaves_what_is_whole(path: Path, mode: str) -> None:
    whole = read(path)
    for cell in cells(path):
        copy = path.with_name("copy.db")
        shutil.copy(path, copy)
        execute_damage(copy, cell)
        before = read(copy)
        calls = Calls(holdfast.open(f"sqlite:///{copy}"), mode)
        try:
            await calls.prune(["our thread"])
        except holdfast.CheckpointCorrupted as error:
            assert "our thread" in str(error)
        await calls.close()
        if isinstance(before[2], CheckpointTuple):
            answer = read(copy)[2]
            assert isinstance(answer, CheckpointTuple)
            expected = {**plain(whole[2]), "parent": None}  # type: ignore[arg-type]
            assert {**plain(answer), "parent": None} == expected
        copy.unlink()


def execute_damage(path: Path, cell: Cell) -> None:
    where, key = cell.where()
    bad = cell.value[:-1] + bytes([cell.value[-1] ^ 1])
    change = f'UPDATE "{cell.table}" SET "{cell.column}" = ? WHERE {where}'
    execute(path, change, [bad, *key])


def cut(path: Path, part: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
async def test_a_file_that_was_cut_is_no_empty_store(path: Path, mode: str, part: float) -> None:
    cut(path, part)
    calls = Calls(holdfast.open(f"sqlite:///{path}"), mode)
    errors = 0
    for number in (1, 2, 3):
        try:
            assert await calls.get_tuple(place(number)) is not None
        except holdfast.HoldfastError:
            errors += 1
    assert errors
    await calls.close()


# --- a newer version's data


async def test_newer_tables_are_refused_whole(path: Path, mode: str) -> None:
    execute(path, "UPDATE holdfast_layout SET version = version + 1")
    before = dump(path)
    calls = Calls(holdfast.open(f"sqlite:///{path}"), mode)
    for attempt in (
        lambda: calls.get_tuple(config()),
        lambda: calls.list(None),
        lambda: calls.put_writes(place(1), [("a", 1)], "task"),
        calls.setup,
    ):
        with pytest.raises(holdfast.FormatTooNew, match=r"[Uu]pgrade"):
            await attempt()
    await calls.close()
    assert dump(path) == before


def test_newer_bytes_are_not_called_corrupt(path: Path) -> None:
    """The upper half of the first byte of what is stored is the version of its format."""
    for cell in cells(path):
        if cell.column == "id":
            continue  # what a chunk is found by: without it the chunk is missing
        newer = bytes([cell.value[0] | 0xF0]) + cell.value[1:]
        with damaged(path, cell, newer):
            errors = [answer for answer in read(path) if isinstance(answer, Exception)]
        assert errors, f"{cell.table}.{cell.column} was read all the same"
        for error in errors:
            assert isinstance(error, holdfast.FormatTooNew), repr(error)
            assert "pgrade" in str(error)
