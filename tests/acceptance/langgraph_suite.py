"""Run LangGraph's own test suite with a holdfast saver in place of its own savers.

usage: langgraph_suite.py [BACKEND ...] [-- PYTEST_ARGUMENT ...]

Without a BACKEND all of them run. Exactly the known number of tests must pass. With pytest
arguments (`-- -x -vv`) pytest's output is shown as it comes and its status alone decides.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

VERSION = "1.2.22"
SHA256 = "32700dc34b5cf9ebb397258c2e56392f017d4dbc51c9591339225c3c1b7b5126"
# Without context variables in tasks, Python 3.10 skips more.
EXPECTED = (
    {"passed": 648, "skipped": 1}
    if sys.version_info >= (3, 11)
    else {"passed": 512, "skipped": 137}
)
TIMEOUT = 30 * 60

TESTS = Path(__file__).resolve().parents[1]
CACHE = TESTS.parent / ".cache"

# The name of the parameter is in the ids of exactly the tests that use one of the two fixtures.
CONFTEST = """

import sys as _sys

_sys.path.append({tests!r})
from support.backends import BACKENDS as _BACKENDS


@pytest.fixture(params=["holdfast_{backend}"])
def sync_checkpointer(request, tmp_path):
    with _BACKENDS[{backend!r}].open(tmp_path) as saver:
        yield saver


@pytest.fixture(params=["holdfast_{backend}"])
async def async_checkpointer(request, tmp_path):
    async with _BACKENDS[{backend!r}].open(tmp_path) as saver:
        yield saver
"""


def sdist() -> Path:
    """Return the pinned source distribution, downloaded when the cache lacks it."""
    path = CACHE / f"langgraph-{VERSION}.tar.gz"
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", ":all:", "--dest", str(CACHE), f"langgraph=={VERSION}"]
        subprocess.run(command, check=True)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{path}: SHA-256 is {found}, expected {SHA256}; delete it to retry")
    return path


def unpack(directory: Path, backend: str) -> Path:
    """Unpack the suite, put the saver in place, and return where it runs."""
    with tarfile.open(sdist()) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(directory)
    root = directory / f"langgraph-{VERSION}"
    # What is tested is the installed library.
    shutil.rmtree(root / "langgraph")
    with (root / "tests" / "conftest.py").open("a") as conftest:
        conftest.write(CONFTEST.format(tests=str(TESTS), backend=backend))
    return root


def environment() -> dict[str, str]:
    """Return the environment without what would change the course of the suite."""
    unwanted = ("PYTEST_", "LANGGRAPH_", "LANGCHAIN_", "LANGSMITH_", "HOLDFAST_")
    wanted = ("HOLDFAST_TEST_REDIS_URL",)
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in wanted or not name.startswith(unwanted)
    }
    return {**kept, "NO_DOCKER": "true"}


def outcomes(report: Path) -> Counter[str]:
    """Count the outcomes in a JUnit report."""
    counts: Counter[str] = Counter()
    if report.exists():
        for case in ElementTree.parse(report).iter("testcase"):
            tags = {child.tag for child in case}
            bad = tags & {"failure", "error"}
            counts["failed" if bad else "skipped" if "skipped" in tags else "passed"] += 1
    return counts


def run(backend: str, arguments: list[str]) -> bool:
    """Run the suite on `backend`, print one line, and return whether it went as it must."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="holdfast-suite-") as name:
        directory = Path(name).resolve()
        report = directory / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "tests"]
        command += ["-k", f"holdfast_{backend}", "-n", "2", "--timeout", "120"]
        command += [f"--junitxml={report}", f"--basetemp={directory / 'tmp'}", *arguments]
        done = subprocess.run(
            command,
            cwd=unpack(directory, backend),
            env=environment(),
            timeout=TIMEOUT,
            stdout=None if arguments else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        counts = outcomes(report)
    ok = done.returncode == 0 and (bool(arguments) or counts == EXPECTED)
    if not ok and not arguments:
        print(done.stdout)
    print(
        f"{'ok' if ok else 'FAILED'}: LangGraph {VERSION} on {backend}: "
        f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped, "
        f"{time.monotonic() - started:.0f} s",
        flush=True,
    )
    return ok


def main(arguments: list[str]) -> int:
    """Run the suite on the named backends."""
    sys.path.append(str(TESTS))
    from support.backends import BACKENDS

    cut = arguments.index("--") if "--" in arguments else len(arguments)
    named, rest = arguments[:cut] or list(BACKENDS), arguments[cut + 1 :]
    if not set(named) <= set(BACKENDS):
        print(f"{__doc__}\nbackends: {', '.join(BACKENDS)}", file=sys.stderr)
        return 2
    results = [run(backend, rest) for backend in named]
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
