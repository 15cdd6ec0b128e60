"""Redis servers of the tests' and benchmarks' own: a free port, a new folder, and nothing left.

As a script it installs redis-server where that is missing, and prints nothing where it is not.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

Option = str | int | Sequence[str]

NAMED = "HOLDFAST_TEST_REDIS_URL"
"""Names a server to be used, and never flushed, instead of one that is started."""

READY = b"Ready to accept connections"
TAKEN = b"Address already in use"
START_TIMEOUT = 30.0

# Below the ports that systems give to outgoing connections: a client that tries to reach a dead
# server from such a port can end up connected to itself.
PORTS = range(15000, 32000)

# Outlives whoever started it, however that ended: kills the last server named on standard input
# and removes the folder. A fork can keep the input open, so there is a word for the end.
GUARD = """
server=
while read -r pid && [ "$pid" != end ]; do server=$pid; done
[ -z "$server" ] || kill -KILL "$server"
rm -rf "$1"
"""

# Debian starts what it installs unless a policy forbids it.
INSTALL = """
set -eu
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\\nexit 101\\n' >"$policy"
    chmod 755 "$policy"
fi
install() {
    apt-get -q -y -o DPkg::Lock::Timeout=60 install --no-install-recommends redis-server
}
install || { apt-get -q update && install; }
"""

MISSING = (
    "redis-server is missing and cannot be installed from here: install Redis 6.2 or newer "
    "(Debian and Ubuntu: apt install redis-server; macOS: brew install redis)"
)


def find_redis_server() -> str | None:
    """Where redis-server is; Debian's users have no sbin in their PATH."""
    places = [os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"]
    return shutil.which("redis-server", path=os.pathsep.join(places))


def ensure_redis_server() -> None:
    """Install Debian's package if redis-server is missing and we may.

    Raises:
        RuntimeError: It is missing, and the message says what to install.
    """
    if find_redis_server():
        return
    if shutil.which("apt-get") is None:
        raise RuntimeError(MISSING)
    shell = ["sh", "-c", INSTALL]
    if os.geteuid() != 0:
        if shutil.which("sudo") is None:
            raise RuntimeError(MISSING)
        shell = ["sudo", "-n", *shell]
    print("redis-server is missing: installing Debian's package", file=sys.stderr)
    done = subprocess.run(shell, stdout=sys.stderr, timeout=600, check=False)
    if done.returncode or not find_redis_server():
        raise RuntimeError(MISSING)


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


class RedisServer:
    """A redis-server of our own, without persistence unless the options ask for it.

    It ends with this object's `stop`, with its `with` block, or with this process.

    Args:
        options: Lines of redis.conf by name, several where a list is given; they are read
            at each start. Relative paths are in the server's folder.
    """

    def __init__(self, options: Mapping[str, Option] | None = None) -> None:
        self.options: dict[str, Option] = {"save": "", **(options or {})}
        self.port = 0
        self.folder = Path()
        self._owner = os.getpid()
        self._guard: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        return self._running().pid

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and return when data are loaded and commands are taken.

        After `kill` it starts on the same port and folder.

        Raises:
            RuntimeError: It did not come up; the message has the end of its log.
        """
        assert self._process is None, "it is running"
        if self._guard is not None:
            if not self._launch():
                raise self._failure()
            return
        self.folder = Path(tempfile.mkdtemp(prefix="holdfast-redis-"))
        self._guard = subprocess.Popen(
            ["sh", "-c", GUARD, "sh", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us, not for those who clean up
        )
        atexit.register(self.stop)
        try:
            for _ in range(10):
                self.port = free_port()
                if self._launch():
                    return
            raise self._failure()
        except BaseException:
            self.stop()
            raise

    def kill(self) -> None:
        """Kill it as a power cut would; its folder stays."""
        process = self._running()
        process.kill()
        process.wait()
        self._process = None
        self._tell_guard("")

    def stop(self) -> None:
        """Kill it and remove its folder. Idempotent."""
        if self._guard is None or os.getpid() != self._owner:  # a forked child owns nothing
            return
        if self._process is not None:
            self.kill()
        self._tell_guard("end")
        self._guard.communicate()
        self._guard = None
        atexit.unregister(self.stop)

    def pause(self) -> None:
        """Stop it from answering while its connections stay."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it is not running"
        return self._process

    @property
    def _log(self) -> Path:
        return self.folder / "redis.log"

    def _failure(self) -> RuntimeError:
        tail = self._log.read_text(errors="replace")[-2000:]
        return RuntimeError(f"redis-server did not come up on port {self.port}:\n{tail}")

    def _launch(self) -> bool:
        """Start the process; False when somebody else has the port."""
        program = find_redis_server()
        if program is None:
            raise RuntimeError(MISSING)
        config = self.folder / "redis.conf"
        config.write_text(self._config())
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._tell_guard(str(self._process.pid))
        deadline = time.monotonic() + START_TIMEOUT
        # Not PING: whoever else has the port would answer it, and a server with a password
        # refuses it in the same words while it loads.
        while READY not in self._log.read_bytes():
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.kill()
                if ended and TAKEN in self._log.read_bytes():
                    return False
                raise self._failure()
            time.sleep(0.005)
        return True

    def _config(self) -> str:
        lines = ["bind 127.0.0.1", f"port {self.port}", f'dir "{self.folder}"']
        for name, values in self.options.items():
            for value in [values] if isinstance(values, (str, int)) else values:
                text = str(value) or '""'
                lines.append(f"{name} {text}")
        return "\n".join([*lines, ""])

    def _tell_guard(self, line: str) -> None:
        assert self._guard is not None
        assert self._guard.stdin is not None
        self._guard.stdin.write(f"{line}\n".encode())
        self._guard.stdin.flush()


_lock = threading.Lock()
_run = secrets.token_hex(4)


@cache
def _shared() -> RedisServer:
    server = RedisServer()
    server.start()
    return server


def shared_redis() -> str:
    """The URL of the server that all tests of this process share, started at the first call."""
    if named := os.environ.get(NAMED):
        return named
    with _lock:
        return _shared().url


def redis_url(folder: Path) -> str:
    """The URL of a store that belongs to a folder; the same one at each call of this process."""
    place = hashlib.blake2b(os.fsencode(folder.absolute()), digest_size=8).hexdigest()
    url = shared_redis()
    # The name of the run: pytest uses its folders again, and a named server may live on.
    return f"{url}{'&' if '?' in url else '?'}prefix=test-{_run}-{place}"


if __name__ == "__main__":
    try:
        ensure_redis_server()
    except RuntimeError as error:
        sys.exit(f"error: {error}")
