"""A server of the tests' and benchmarks' own: a free port, a new folder, and nothing left."""

from __future__ import annotations

import atexit
import os
import pwd
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import Self

from .guard import Guard, kill_all, pause_all, resume_all
from .servers import find_program, free_port, missing

TAKEN = b"Address already in use"
START_TIMEOUT = 30.0


@cache
def _account() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("this server refuses to run as root, and there is no account nobody")


def unprivileged() -> dict[str, Any]:
    """How to start a process that refuses to be root's."""
    if os.geteuid() != 0:
        return {}
    account = _account()
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def new_folder(name: str, *, owner: dict[str, Any]) -> Path:
    """A new temporary folder that belongs to those who run with `owner`."""
    parent = Path(tempfile.gettempdir()).resolve()
    if owner and not all(each.stat().st_mode & 1 for each in [parent, *parent.parents]):
        parent = Path("/tmp")  # root's own temporary folder is closed to others
    folder = Path(tempfile.mkdtemp(prefix=f"holdfast-{name}-", dir=parent))
    if owner:
        os.chown(folder, owner["user"], owner["group"])
    return folder


class Throwaway(ABC):
    """A server that ends with `stop`, with its `with` block, or with this process."""

    program: ClassVar[str]
    as_root: ClassVar[bool] = True
    """Whether the program runs as root where we are root."""

    def __init__(self) -> None:
        self.port = 0
        self.folder = Path()
        self._owner = os.getpid()
        self._guard: Guard | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str: ...

    @abstractmethod
    def _command(self, program: str) -> list[str]:
        """Write the configuration, and give the command that starts the server in front."""

    @abstractmethod
    def _is_ready(self) -> bool: ...

    def _prepare(self, program: str) -> None:  # noqa: B027 - most have nothing to prepare
        """Fill the new folder."""

    @property
    def pid(self) -> int:
        return self._running().pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and return when data are loaded and clients are served.

        After `kill` it starts on the same port and folder.

        Raises:
            RuntimeError: It did not come up; the message has the end of its log.
        """
        assert self._process is None, "it is running"
        program = find_program(self.program)
        if program is None:
            raise missing(self.program)
        if self._guard is not None:
            if not self._launch(program):
                raise self._failure()
            return
        self.folder = new_folder(self.program, owner=self._rights())
        self._guard = Guard(self.folder)
        atexit.register(self.stop)
        try:
            self._prepare(program)
            for _ in range(10):
                self.port = free_port()
                if self._launch(program):
                    return
            raise self._failure()
        except BaseException:
            self.stop()
            raise

    def kill(self) -> None:
        """Kill all of its processes as a power cut would; its folder stays."""
        process, guard = self._running(), self._guard
        assert guard is not None
        if process.poll() is None:
            kill_all(process.pid)
            process.wait()
        self._process = None
        guard.watch(None)

    def stop(self) -> None:
        """Kill it and remove its folder. Idempotent."""
        if self._guard is None or os.getpid() != self._owner:  # a forked child owns nothing
            return
        if self._process is not None:
            self.kill()
        self._guard.end()
        self._guard = None
        atexit.unregister(self.stop)

    def pause(self) -> None:
        """Stop it from answering while its connections stay."""
        pause_all(self.pid)

    def resume(self) -> None:
        resume_all(self.pid)

    def _rights(self) -> dict[str, Any]:
        return {} if self.as_root else unprivileged()

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it is not running"
        return self._process

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _failure(self) -> RuntimeError:
        tail = self._log.read_text(errors="replace")[-2000:]
        return RuntimeError(f"{self.program} did not come up on port {self.port}:\n{tail}")

    def _launch(self, program: str) -> bool:
        """Start the process; False when somebody else has the port."""
        assert self._guard is not None
        command = self._command(program)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, "LC_ALL": "C"},  # the log is searched
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._rights(),
            )
        self._guard.watch(self._process.pid)
        deadline = time.monotonic() + START_TIMEOUT
        # Not by asking on the port: whoever else has it would answer.
        while not self._is_ready():
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.kill()
                if ended and TAKEN in self._log.read_bytes():
                    return False
                raise self._failure()
            time.sleep(0.005)
        return True
