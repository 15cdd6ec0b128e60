"""What the example's user asks and which tools the scripted model calls to answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Call = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Question:
    """One question and the tool calls that answer it, in rounds: the model calls once a round."""

    text: str
    rounds: tuple[tuple[Call, ...], ...]


def search(keyword: str) -> Call:
    return "search_modules", {"keyword": keyword}


def read(name: str) -> Call:
    return "read_doc", {"name": name}


def find(name: str, keyword: str) -> Call:
    return "find_in_doc", {"name": name, "keyword": keyword}


def ask(text: str, *rounds: tuple[Call, ...]) -> Question:
    return Question(text, rounds)


QUESTIONS = (
    ask("How do I turn a dict into JSON?", (search("json"),), (read("json.dumps"),)),
    ask("And how do I read it back?", (read("json.loads"),)),
    ask("Which container counts things?", (read("collections.Counter"),)),
    ask(
        "How do I get the three most common items?",
        (find("collections.Counter", "common"), read("collections.Counter.most_common")),
    ),
    ask("Is there a queue that drops old items?", (read("collections.deque"),)),
    ask("Who keeps a list sorted for me?", (search("bisection"),), (read("bisect.insort"),)),
    ask("What is a heap good for?", (search("heap"), read("heapq.nlargest"))),
    ask("How do I walk over pairs of neighbours?", (read("itertools.pairwise"),)),
    ask("How do I cache a slow function?", (read("functools.lru_cache"),)),
    ask(
        "How do I wrap a decorator properly?",
        (read("functools.wraps"), find("functools.update_wrapper", "wrapped")),
    ),
    ask("How do I join two paths?", (search("path"),), (read("pathlib.PurePath.joinpath"),)),
    ask("How do I find all the text files in a folder?", (read("pathlib.Path.glob"),)),
    ask("Where do temporary files go?", (search("temporary"), read("tempfile.gettempdir"))),
    ask("How do I copy a whole folder?", (search("copying"),), (read("shutil.copytree"),)),
    ask(
        "How do I start another program?",
        (read("subprocess.run"), find("subprocess.run", "timeout")),
    ),
    ask("How do I split a command line into words?", (read("shlex.split"),)),
    ask("How do I wrap a paragraph of text?", (search("text wrapping"), read("textwrap.fill"))),
    ask("What tells me how alike two texts are?", (read("difflib.SequenceMatcher.ratio"),)),
    ask(
        "How do I compute a median, and a fraction that stays exact?",
        (search("statistic"), read("statistics.median"), read("fractions.Fraction")),
    ),
    ask("How do I make a random choice for a password?", (read("secrets.choice"),)),
    ask("How do I hash a message with a key?", (search("hmac"),), (read("hmac.digest"),)),
    ask("How do I parse the arguments of my script?", (read("argparse.ArgumentParser"),)),
    ask(
        "How do I run things at the same time?",
        (search("concurrent"), read("asyncio.gather")),
        (find("concurrent.futures.Executor.map", "iterables"),),
    ),
    ask("How do I time a small piece of code?", (search("timing"), read("timeit.timeit"))),
    ask("How do I read the documentation from a program?", (read("pydoc.render_doc"),)),
)

REPORT_REQUEST = "Save a report of everything that you found."
REPORT_FILE = "report.txt"

FORK_AT = 9
"""The question (counted from 0) where the time traveller takes another turn."""

OTHER_QUESTION = ask("Can I cache a property instead?", (read("functools.cached_property"),))
FOLLOW_UP = ask("And a method without arguments?", (read("functools.cache"),))

ANSWERABLE = {each.text: each for each in (*QUESTIONS, OTHER_QUESTION, FOLLOW_UP)}
