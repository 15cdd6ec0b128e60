"""Text like English: words drawn as often as the standard library's documentation uses them."""

from __future__ import annotations

import ast
import functools
import importlib.util
import random
import re
import uuid
from collections import Counter
from itertools import accumulate
from pathlib import Path

VOCABULARY = 2000
"""Words to draw from."""

# fmt: off
SOURCES = (
    "argparse", "bdb", "calendar", "cmd", "codecs", "collections", "configparser", "contextlib",
    "copy", "csv", "datetime", "difflib", "doctest", "enum", "fileinput", "fractions",
    "functools", "gettext", "heapq", "inspect", "ipaddress", "locale", "logging", "mailbox",
    "numbers", "optparse", "pathlib", "pdb", "pickle", "pprint", "random", "sched", "selectors",
    "shelve", "shutil", "smtplib", "socket", "statistics", "string", "subprocess", "tarfile",
    "tempfile", "textwrap", "threading", "timeit", "traceback", "typing", "uuid", "warnings",
    "weakref", "zipfile",
)
# fmt: on
"""Modules whose docstrings give the words."""


def documentation() -> str:
    """Give the docstrings of all sources, read without importing any."""
    texts = []
    for name in SOURCES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            continue
        for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                texts.append(ast.get_docstring(node) or "")
    return "\n".join(texts)


@functools.cache
def _vocabulary() -> tuple[list[str], list[int]]:
    """Give the most common words and their counts, summed up."""
    common = Counter(re.findall(r"\b[a-z]{2,14}\b", documentation().lower()))
    ranked = sorted(common.items(), key=lambda item: (-item[1], item[0]))[:VOCABULARY]
    return [word for word, _ in ranked], list(accumulate(count for _, count in ranked))


class Writer:
    """Writes texts and ids; the same seed gives the same ones."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def text(self, length: int) -> str:
        """Write sentences of exactly this many characters."""
        words, weights = _vocabulary()
        sentences: list[str] = []
        written = 0
        while written <= length:
            count = self.random.randint(6, 14)
            sentence = " ".join(self.random.choices(words, cum_weights=weights, k=count))
            sentences.append(sentence.capitalize() + ".")
            written += len(sentence) + 2
        return " ".join(sentences)[:length]

    def uuid(self) -> str:
        """Make a random uuid."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))
