"""Files of every format version stay readable, and a format does not change by accident."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest
from holdfast._core import FORMAT
from support import golden
from support.calls import Calls
from support.make import config, plain, snapshot

DATA = Path(__file__).parent / "data"
FILES = sorted(DATA.glob("format-*.db"))


def threads_of(file: Path) -> list[str]:
    return golden.threads_of(int(file.name.removeprefix("format-")[0]))


KEPT = [(file, thread) for file in FILES for thread in threads_of(file)]


def copied(file: Path, folder: Path) -> Path:
    return Path(shutil.copy(file, folder / "state.db"))


def test_there_is_a_file_of_the_format_that_is_written() -> None:
    assert DATA / f"format-{FORMAT}.db" in FILES, "make it: see support/golden.py"


@pytest.mark.parametrize(("file", "thread"), KEPT, ids=lambda one: getattr(one, "name", one))
async def test_a_kept_file_reads_back_whole(
    file: Path, thread: str, mode: str, tmp_path: Path
) -> None:
    wanted = golden.expected(thread)
    calls = Calls(golden.saver_for(thread, copied(file, tmp_path)), mode)
    assert await snapshot(calls, config(thread, None)) == wanted
    for (ns, id), one in wanted.items():
        assert plain(await calls.must_get(config(thread, ns, id))) == one
    found = await calls.ids(config(thread), filter={"run_id": f"run of {thread}"})
    assert len(found) == (1 if thread in golden.PLAIN else 0)
    await calls.close()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
async def test_a_kept_file_can_be_gone_on_with(file: Path, mode: str, tmp_path: Path) -> None:
    """The chunks of an old file serve new commits, removals and copies."""
    for thread in threads_of(file):
        calls = Calls(golden.saver_for(thread, copied(file, tmp_path)), mode)
        *_, last = (step for step in golden.steps(thread) if step.ns == "")
        parent = await calls.must_get(config(thread))
        made = {**golden.made(last), "id": "2"}
        stored = await calls.put(parent.config, made, {}, {})
        await calls.copy_thread(thread, "copy")
        await calls.delete_for_runs([f"run of {thread}"])
        await calls.prune([thread])
        for where in (stored, config("copy")):
            found = await calls.must_get(where)
            assert found.checkpoint["channel_values"] == last.values
        await calls.close()


def test_what_is_written_today_has_the_bytes_of_its_format(tmp_path: Path) -> None:
    golden.write(tmp_path / "today.db")
    today, kept = golden.stored(tmp_path / "today.db"), golden.stored(DATA / f"format-{FORMAT}.db")
    for table, rows in kept.items():
        assert rows, table
        assert today[table].keys() == rows.keys(), f"other {table}: see support/golden.py"
        changed = [key for key, data in rows.items() if today[table][key] != data]
        assert not changed, f"other bytes in {table}: see support/golden.py"


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.db", "b.db"):
        golden.write(tmp_path / name)
    assert (tmp_path / "a.db").read_bytes() == (tmp_path / "b.db").read_bytes()
    with closing(golden.saver_for("zstd", tmp_path / "a.db")) as saver:
        assert saver.get_tuple(config("zstd")) is not None
