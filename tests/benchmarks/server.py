"""The servers that the peers download from, each a process of its own on loopback."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parents[1]
SECONDS = 20
ATTEMPTS = 5

# Debian's own settings where they matter (sendfile, tcp_nopush), and a connection for everything.
CONFIG = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    keepalive_timeout 600;
    open_file_cache max=10000 inactive=600;
    types {{ }}
    default_type application/octet-stream;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {root};
    }}
}}
"""


class Server(NamedTuple):
    """A server that runs.

    Attributes:
        base: Its URL, without a slash at the end.
        name: What it is, for people.
    """

    base: str
    name: str


def environment() -> dict[str, str]:
    """The environment of processes that import this package.

    No proxy stands in their way, and no measuring of coverage slows them.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith("COVERAGE_")
    }
    return kept | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])}


@contextlib.contextmanager
def embedded(root: Path, wait: float = 0) -> Iterator[Server]:
    """A server in Python.

    Args:
        root: What it serves.
        wait: How long each reply waits (seconds).
    """
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.embedded", str(root), str(wait)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        try:
            port = int(process.stdout.readline())
            waits = f", each reply waits {wait * 1000:g} ms" if wait else ""
            yield Server(f"http://127.0.0.1:{port}", f"the embedded one, in Python{waits}")
        finally:
            process.kill()


@contextlib.contextmanager
def nginx(root: Path, folder: Path) -> Iterator[Server]:
    """A private nginx.

    Args:
        root: What it serves.
        folder: Where its own files go.

    Raises:
        RuntimeError: It doesn't start.
    """
    program = find_nginx()
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr
    version = re.search(r"nginx/\S+", said)[0]
    for _ in range(ATTEMPTS):
        port = _free_port()
        config = folder / "nginx.conf"
        config.write_text(CONFIG.format(folder=folder, root=root, port=port))
        with subprocess.Popen(
            [program, "-e", "stderr", "-p", str(folder), "-c", str(config)],
            stdin=subprocess.DEVNULL,
        ) as process:
            try:
                if _answers(process, port):
                    yield Server(f"http://127.0.0.1:{port}", version)
                    return
            finally:
                process.kill()
    raise RuntimeError("nginx doesn't start; see what it said above")


def find_nginx() -> str | None:
    """The path of nginx, or None."""
    # Debian has it where only root looks.
    return shutil.which("nginx", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    end = time.monotonic() + SECONDS
    # Another may have taken the port in the meantime; then nginx ends.
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return process.poll() is None
        time.sleep(0.02)
    return False
