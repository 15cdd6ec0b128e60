"""The servers that tests and benchmarks start: where their programs are, and their ports.

As a script it installs those that are missing, and prints nothing where none is.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import secrets
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Below the ports that systems give to outgoing connections: a client that tries to reach a dead
# server from such a port can end up connected to itself.
PORTS = range(15000, 32000)

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
    apt-get -q -y -o DPkg::Lock::Timeout=60 install --no-install-recommends "$@"
}
install "$@" || { apt-get -q update && install "$@"; }
"""


@dataclass(frozen=True)
class Program:
    """A server's program."""

    product: str
    package: str
    """Debian's."""
    formula: str
    """Homebrew's."""
    places: tuple[str, ...]
    """Folders beside those in PATH, the newest of a pattern first."""
    beside: tuple[str, ...] = ()
    """What a folder must have, too, for it to be the right one."""


PROGRAMS = {
    # Debian's users have no sbin in their PATH.
    "redis-server": Program(
        "Redis 6.2 or newer", "redis-server", "redis", ("/usr/local/sbin", "/usr/sbin")
    ),
    "postgres": Program(
        "PostgreSQL",
        "postgresql",
        "postgresql@17",
        (
            "/usr/lib/postgresql/*/bin",
            "/usr/local/pgsql*/bin",
            "/usr/local/opt/postgresql*/bin",
            "/opt/homebrew/opt/postgresql*/bin",
        ),
        beside=("initdb",),
    ),
    "pgbouncer": Program(
        "PgBouncer",
        "pgbouncer",
        "pgbouncer",
        ("/usr/local/sbin", "/usr/sbin", "/usr/local/bin", "/opt/homebrew/bin"),
    ),
}


def find_program(name: str) -> str | None:
    """The path of one of PROGRAMS."""
    program = PROGRAMS[name]
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    for pattern in program.places:
        found = [str(path) for path in Path("/").glob(pattern.removeprefix("/"))]
        folders += sorted(found, key=_numbers, reverse=True)
    for folder in folders:
        paths = [shutil.which(each, path=folder) for each in (name, *program.beside)]
        if all(paths):
            return paths[0]
    return None


def _numbers(path: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path)]


def missing(name: str) -> RuntimeError:
    """The error that says what to install."""
    program = PROGRAMS[name]
    return RuntimeError(
        f"{name} is missing and cannot be installed from here: install {program.product} "
        f"(Debian and Ubuntu: apt install {program.package}; macOS: brew install "
        f"{program.formula})"
    )


def ensure_programs() -> None:
    """Install Debian's packages of what is missing, if we may.

    Raises:
        RuntimeError: Something is still missing, and the message says what to install.
    """
    names = [name for name in PROGRAMS if not find_program(name)]
    if not names:
        return
    packages = [PROGRAMS[name].package for name in names]
    shell = ["sh", "-c", INSTALL, "sh", *packages]
    if os.geteuid() != 0:
        shell = ["sudo", "-n", *shell]
    if shutil.which("apt-get") and shutil.which(shell[0]):
        print(f"installing Debian's packages: {', '.join(packages)}", file=sys.stderr)
        subprocess.run(shell, stdout=sys.stderr, timeout=600, check=False)
    still = [str(missing(name)) for name in names if not find_program(name)]
    if still:
        raise RuntimeError("\nerror: ".join(still))


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


_run = secrets.token_hex(4)


def store_name(folder: Path) -> str:
    """The name of a store that belongs to a folder; the same at each call of this process."""
    place = hashlib.blake2b(os.fsencode(folder.absolute()), digest_size=8).hexdigest()
    # The name of the run: pytest uses its folders again, and a named server may live on.
    return f"{_run}-{place}"


if __name__ == "__main__":
    try:
        ensure_programs()
    except RuntimeError as error:
        sys.exit(f"error: {error}")
