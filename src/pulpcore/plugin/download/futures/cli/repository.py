"""A generated repository, identical in every run, and a server for it on the loopback interface."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

MANIFEST = "PULP_MANIFEST"
HOST = "127.0.0.1"

FILES = 300
LARGEST = 4 * 2**20


class Repository:
    """Files of 0 bytes to 4 MiB. The names of some must be percent-encoded in URLs.

    Attributes:
        manifest (bytes): The PULP_MANIFEST.
    """

    def __init__(self, files: int = FILES, largest: int = LARGEST) -> None:
        """Generate the files.

        Args:
            files: The number of files.
            largest: The size of the largest (bytes).
        """
        # All files are slices of the same random bytes, which saves time and memory.
        self._bytes = memoryview(hashlib.shake_256(b"pulp-futures").digest(largest + files))
        self._files: dict[str, memoryview] = {}
        lines = []
        for number in range(files):
            # A few large files and many small ones, with different contents.
            size = 0 if number == 1 else int(largest * 0.93**number) or number
            content = self._bytes[number : number + size]
            path = _path(number)
            self._files[path] = content
            lines.append(f"{path},{hashlib.sha256(content).hexdigest()},{size}\n")
        self.manifest = "".join(lines).encode()

    def get(self, path: str) -> memoryview | bytes | None:
        """Return the content of a file or of the manifest; None if there is no such file.

        Args:
            path: The path, relative to the manifest.
        """
        return self.manifest if path == MANIFEST else self._files.get(path)


def _path(number: int) -> str:
    name = ("file-{:03}.bin", "naïve {:03}.bin", "a, b #{:03}?.bin", "100%25 {:03}+é.bin")
    return f"files/{number % 20:02}/{name[number % 4 if number < 40 else 0].format(number)}"


@contextlib.contextmanager
def serve(repository: Repository) -> Iterator[str]:
    """Serve a repository over HTTP on 127.0.0.1, at a free port.

    Meanwhile the environment variable no_proxy includes that address: a proxy would connect to
    its own machine.

    Args:
        repository: The repository.

    Yields:
        The URL of the manifest.
    """
    server = _Server(repository)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    try:
        with _without_proxy():
            yield f"http://{HOST}:{server.server_port}/{MANIFEST}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def _without_proxy() -> Iterator[None]:
    before = os.environ.get("no_proxy")
    hosts = before or os.environ.get("NO_PROXY")
    os.environ["no_proxy"] = f"{hosts},{HOST}" if hosts else HOST
    try:
        yield
    finally:
        if before is None:
            del os.environ["no_proxy"]
        else:
            os.environ["no_proxy"] = before


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, repository: Repository) -> None:
        super().__init__((HOST, 0), _Handler)
        self.repository = repository

    def handle_error(self, request: object, client_address: object) -> None:
        # Clients may close a connection early.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept
    # Send the head and the body in one packet, without the delay of Nagle's algorithm.
    wbufsize = 2**16
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        content = self.server.repository.get(unquote(urlsplit(self.path).path).removeprefix("/"))
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Log nothing: stderr belongs to the command."""
