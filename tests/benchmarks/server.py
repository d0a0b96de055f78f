"""The servers that the peers download from, each a process of its own on loopback."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from servers.nginx import Nginx

TESTS = Path(__file__).resolve().parents[1]

# Debian's own settings where they matter (sendfile, tcp_nopush), and a connection for everything.
SETTINGS = """\
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    keepalive_timeout 600;
    open_file_cache max=10000 inactive=600;
"""


class Server(NamedTuple):
    """A running server.

    Attributes:
        base: Its URL, without a slash at the end.
        name: Its name for people.
        pid: Its process, whose children belong to it; 0 for none.
    """

    base: str
    name: str
    pid: int = 0


def environment() -> dict[str, str]:
    """The environment of processes that import this package.

    No proxy is set, and coverage isn't measured, which would slow them down.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith("COVERAGE_")
    }
    return kept | {
        "PYTHONPATH": os.pathsep.join(map(str, (TESTS, TESTS / "support", TESTS.parent / "src")))
    }


@contextlib.contextmanager
def embedded(root: Path, wait: float = 0, cap: float = 0) -> Iterator[Server]:
    """Start a server written in Python.

    Args:
        root: What it serves.
        wait: The delay of each response (seconds).
        cap: How many bytes a connection sends in a second; 0 for any number.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.embedded", str(root), str(wait), str(cap)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        try:
            port = int(process.stdout.readline())
            waits = f", each reply waits {wait * 1000:g} ms" if wait else ""
            capped = f", {cap / 1e6:g} MB/s for each connection" if cap else ""
            name = f"the embedded one, in Python{waits}{capped}"
            yield Server(f"http://127.0.0.1:{port}", name, process.pid)
        finally:
            process.kill()


@contextlib.contextmanager
def nginx(root: Path, folder: Path) -> Iterator[Server]:
    """Start a private nginx.

    Args:
        root: What it serves.
        folder: The folder for its own files.

    Raises:
        RuntimeError: It doesn't start.
    """
    with Nginx(root, folder, server="access_log off;", http=SETTINGS) as server:
        pid = int((folder / "nginx.pid").read_text())
        yield Server(server.url().rstrip("/"), server.version, pid)
