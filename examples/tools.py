"""The tools of the example agent: they search and read Python's own documentation with `pydoc`."""

from __future__ import annotations

import functools
import importlib.util
import pydoc
import re
import sys
from pathlib import Path

from langchain_core.tools import BaseTool, tool

LONGEST_TEXT = 3000
"""Characters of documentation that one tool result may hold."""

NEEDS_APPROVAL = frozenset({"save_report"})
"""Tools that a human must allow before they run."""


@functools.cache
def _synopses() -> dict[str, str]:
    """Give the one-line description of each documented module, read without importing any."""
    found = {}
    for name in sorted(sys.stdlib_module_names):
        if name.startswith("_"):
            continue
        spec = importlib.util.find_spec(name)
        if spec and spec.origin and spec.origin.endswith(".py"):
            line = pydoc.synopsis(spec.origin)
            if line:
                found[name] = line
    return found


def _documentation(name: str) -> str:
    """Give the text that `help(name)` would show, the same in every process."""
    text = pydoc.render_doc(name, title="%s", renderer=pydoc.plaintext)
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


@tool
def search_modules(keyword: str) -> str:
    """List the standard library's modules whose one-line description mentions the keyword."""
    wanted = keyword.lower()
    found = [f"{name}: {line}" for name, line in _synopses().items() if wanted in line.lower()]
    return "\n".join(found) if found else f"no module mentions {keyword!r}"


@tool
def read_doc(name: str) -> str:
    """Read the documentation of a module, class or function, for example `json.dumps`."""
    thing = pydoc.locate(name)
    if thing is None:
        return f"{name} is not documented"
    summary = next(iter(pydoc.getdoc(thing).splitlines()), "no description")
    return f"{pydoc.describe(thing)}: {summary}\n\n{_documentation(name)}"[:LONGEST_TEXT]


@tool
def find_in_doc(name: str, keyword: str) -> str:
    """Quote the lines of an object's documentation that mention the keyword."""
    wanted = keyword.lower()
    lines = (line.strip(" |") for line in _documentation(name).splitlines())
    found = [line for line in lines if wanted in line.lower()]
    return "\n".join(found)[:LONGEST_TEXT] if found else f"{name} does not mention {keyword!r}"


def make_tools(report_folder: Path) -> dict[str, BaseTool]:
    """Give the agent's tools by name; reports are written into the folder and nowhere else."""

    @tool
    def save_report(filename: str, body: str) -> str:
        """Write a report to a file."""
        target = report_folder / Path(filename).name
        target.write_text(body, encoding="utf-8")
        return f"wrote {len(body)} characters to {target.name}"

    return {each.name: each for each in (search_modules, read_doc, find_in_doc, save_report)}
