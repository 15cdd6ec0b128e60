"""The snippets that the official savers document, with only the import changed."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

IMPORT = re.compile(r"^(\s*)from langgraph\.checkpoint\.[a-z.]+ import (\w+)$", re.MULTILINE)


def documented(owner: Any, first: str) -> str:
    """The code of the snippet that begins with the line `first` in a docstring."""
    text = inspect.getdoc(owner)
    assert text is not None
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.strip() == first)
    if not first.startswith(">>>"):
        end = next(n for n in range(start, len(lines)) if lines[n].strip() == "```")
        return inspect.cleandoc("\n".join(lines[start:end]))
    code = []
    for line in lines[start:]:
        prompt = re.match(r"\s*(?:>>>|\.\.\.) ?(.*)$", line)
        if prompt is None:
            break
        code.append(prompt[1])
    return "\n".join(code)


def from_holdfast(code: str) -> str:
    changed, count = IMPORT.subn(r"\1from holdfast import \2", code)
    assert count == 1
    assert "langgraph.checkpoint" not in changed
    return changed


@pytest.fixture(autouse=True)
def in_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(from_holdfast(code), "<documented>", "exec"), names)
    return names


def test_sqlite_savers_snippet(tmp_path: Path) -> None:
    names = run(documented(SqliteSaver, ">>> import sqlite3"))
    try:
        assert names["result"] == 4
        assert names["graph"].get_state(names["config"]).values == 4
        assert (tmp_path / "checkpoints.sqlite").stat().st_size > 0
    finally:
        if hasattr(names["memory"], "close"):
            names["memory"].close()
        names["conn"].close()


def test_async_sqlite_savers_snippet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(documented(AsyncSqliteSaver, ">>> import asyncio"))
    assert capsys.readouterr().out == "[2]\n"
    assert (tmp_path / "checkpoints.db").stat().st_size > 0


def test_async_sqlite_savers_raw_snippet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = inspect.getdoc(AsyncSqliteSaver)
    assert text is not None
    raw = text[text.index("Raw usage:") :]

    def described() -> None: ...

    described.__doc__ = raw
    run(documented(described, ">>> import asyncio"))
    expected = {
        "configurable": {
            "thread_id": "1",
            "checkpoint_ns": "",
            "checkpoint_id": "0c62ca34-ac19-445d-bbb0-5b4984975b2a",
        }
    }
    assert capsys.readouterr().out == f"{expected}\n"
    assert (tmp_path / "checkpoints.db").stat().st_size > 0


def test_in_memory_savers_snippet() -> None:
    names = run(documented(InMemorySaver, "import asyncio"))
    where = {"configurable": {"thread_id": "thread-1"}}
    assert names["graph"].get_state(where).values == 2


def test_sqlite_savers_put_snippet(capsys: pytest.CaptureFixture[str]) -> None:
    code = documented(SqliteSaver.put, ">>> from langgraph.checkpoint.sqlite import SqliteSaver")
    names = run(code)
    assert capsys.readouterr().out == f"{names['saved_config']}\n"
    assert names["saved_config"] == {
        "configurable": {
            "thread_id": "1",
            "checkpoint_ns": "",
            "checkpoint_id": "1ef4f797-8335-6428-8001-8a1503f9b875",
        }
    }


def test_sqlite_savers_list_snippets(capsys: pytest.CaptureFixture[str]) -> None:
    first = ">>> from langgraph.checkpoint.sqlite import SqliteSaver"
    assert run(documented(SqliteSaver.list, first))["checkpoints"] == []
    before = '>>> config = {"configurable": {"thread_id": "1"}}'
    code = documented(SqliteSaver.list, before)
    assert run(f"{first.removeprefix('>>> ')}\n{code}")["checkpoints"] == []
