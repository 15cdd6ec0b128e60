"""Run LangGraph's own tests of its serializer with holdfast's serializer in its place.

usage: jsonplus_suite.py [PYTEST_ARGUMENT ...]

The suite runs twice, with LangGraph's class and with `holdfast.serde.Serializer`. Exactly the
known number of tests must pass both times. With pytest arguments only the second run is made,
its output is shown as it comes and its status alone decides.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path

from langgraph_suite import CACHE, environment, outcomes

VERSION = "4.3.2"
SHA256 = "fcab8468c7e965d7055e2a35c253d73a145624ef4728b150ca7c361f4afca286"
EXPECTED = {"passed": 104}
TIMEOUT = 10 * 60

# Before a test module, the encrypting serializer or a saver has taken the class.
CONFTEST = """
import sys

import langgraph.checkpoint.serde.jsonplus as jsonplus
from holdfast.serde import Serializer

original = jsonplus.JsonPlusSerializer
jsonplus.JsonPlusSerializer = Serializer
for name, module in list(sys.modules.items()):
    if name.startswith("langgraph.") and vars(module).get("JsonPlusSerializer") is original:
        module.JsonPlusSerializer = Serializer


def pytest_collection_finish(session):
    classes = {vars(item.module).get("JsonPlusSerializer") for item in session.items}
    assert classes == {Serializer}, classes
"""


def sdist() -> Path:
    """Return the pinned source distribution, downloaded when the cache lacks it."""
    path = CACHE / f"langgraph_checkpoint-{VERSION}.tar.gz"
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", ":all:", "--dest", str(CACHE)]
        subprocess.run([*command, f"langgraph-checkpoint=={VERSION}"], check=True)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{path}: SHA-256 is {found}, expected {SHA256}; delete it to retry")
    return path


def unpack(directory: Path, *, swapped: bool) -> Path:
    """Unpack the one test module, put the class in place, and return where it runs."""
    # Nothing else is unpacked: what is tested is the installed library. The module's name,
    # tests.test_jsonplus, is in the allowlists that it tests.
    tests = directory / "tests"
    tests.mkdir()
    (tests / "__init__.py").touch()
    with tarfile.open(sdist()) as archive:
        member = archive.extractfile(f"langgraph_checkpoint-{VERSION}/tests/test_jsonplus.py")
        assert member is not None
        (tests / "test_jsonplus.py").write_bytes(member.read())
    if swapped:
        (tests / "conftest.py").write_text(CONFTEST)
    return directory


def run(arguments: list[str], *, swapped: bool) -> tuple[bool, Counter[str]]:
    """Run the suite, print one line, and return whether it went as it must."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="holdfast-jsonplus-") as name:
        directory = unpack(Path(name).resolve(), swapped=swapped)
        report = directory / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio"]
        command += ["-p", "no:cacheprovider", "--timeout", "120", f"--rootdir={directory}"]
        done = subprocess.run(
            [*command, f"--junitxml={report}", *arguments, "tests"],
            cwd=directory,
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
        f"{'ok' if ok else 'FAILED'}: LangGraph's tests of its serializer, {VERSION}, on "
        f"{'holdfast.serde.Serializer' if swapped else 'its own class'}: "
        f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped, "
        f"{time.monotonic() - started:.0f} s",
        flush=True,
    )
    return ok, counts


def main(arguments: list[str]) -> int:
    """Run the suite with the class swapped, and before that with the original one."""
    theirs = None if arguments else run([], swapped=False)
    ours = run(arguments, swapped=True)
    return 0 if ours[0] and theirs in (None, ours) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
