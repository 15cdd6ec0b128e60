"""Ends processes with all that belongs to them, also those of a process that was killed.

As a script it is a guard: it outlives whoever started it, however that ended.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

END = "end"
"""Tells a guard to end: forks of its owner can keep its input open."""


def living() -> dict[int, int]:
    """The parents of all processes that have not ended."""
    if not Path("/proc/self/stat").exists():
        command = ["ps", "-A", "-o", "pid=,ppid=,stat="]
        listed = subprocess.run(command, capture_output=True, text=True, check=True)
        rows = [line.split() for line in listed.stdout.splitlines()]
        return {int(pid): int(parent) for pid, parent, state in rows if state[0] != "Z"}
    parents = {}
    for path in Path("/proc").glob("[1-9]*/stat"):
        with suppress(OSError):
            state, parent = path.read_bytes().rpartition(b")")[2].split()[:2]
            if state not in (b"Z", b"X"):
                parents[int(path.parent.name)] = int(parent)
    return parents


def children_of(pid: int) -> list[int]:
    """The process' own children, without those that have ended."""
    return [child for child, parent in living().items() if parent == pid]


def pause_all(pid: int) -> list[int]:
    """Stop a process and its children; gives the children."""
    _send(pid, signal.SIGSTOP)  # first, so that it makes no more of them
    stopped: list[int] = []
    while more := [child for child in children_of(pid) if child not in stopped]:
        for child in more:
            _send(child, signal.SIGSTOP)
        stopped += more
    return stopped


def resume_all(pid: int) -> None:
    for each in [*children_of(pid), pid]:
        _send(each, signal.SIGCONT)


def kill_all(pid: int) -> None:
    """Kill a process and its children as a power cut would, and wait until they are gone."""
    # Stopped, so that none sees another one die.
    pids = [*pause_all(pid), pid]
    ends = [_end_of(each) for each in pids]
    for each in pids:
        _send(each, signal.SIGKILL)
    for wait in ends:
        wait()


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _end_of(pid: int) -> Callable[[], None]:
    """What waits for the end of a process that is there now."""
    try:
        handle = os.pidfd_open(pid)
    except (AttributeError, OSError):  # it has ended, or this system has no such thing
        return lambda: _ask_until_gone(pid)

    def wait() -> None:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.poll()
        os.close(handle)

    return wait


def _ask_until_gone(pid: int) -> None:
    while pid in living():
        time.sleep(0.005)


class Guard:
    """Kills the last process that it was told of and removes the folder when its owner ends."""

    def __init__(self, folder: Path) -> None:
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us, not for those who clean up
        )

    def watch(self, pid: int | None) -> None:
        """Tell it which process there is."""
        self._tell("" if pid is None else str(pid))

    def end(self) -> None:
        """Have everything removed. Idempotent."""
        if self._process.returncode is None and os.getpid() == self._owner:
            self._tell(END)
            self._process.communicate()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()


def release_shared_memory(folder: Path) -> None:
    """Free the segment that a killed PostgreSQL leaves; postmaster.pid has its number."""
    for path in folder.glob("*/postmaster.pid"):
        with suppress(OSError, IndexError, ValueError):
            segment = int(path.read_text().splitlines()[6].split()[1])
            ctypes.CDLL(None).shmctl(segment, 0, None)  # 0 is IPC_RMID, on Linux and on macOS


def main(folder: Path) -> None:
    pid = ""
    for line in sys.stdin:
        if line.strip() == END:
            break
        pid = line.strip()
    if pid:
        kill_all(int(pid))
    release_shared_memory(folder)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
