"""A file server for machines without nginx, and for delayed responses.

Usage: ``python -m benchmarks.embedded FOLDER SECONDS``: it prints its port, and serves the folder
on loopback until its input ends; each reply waits so many seconds.
"""

# ruff: noqa: T201 - it prints for the process that started it
from __future__ import annotations

import asyncio
import functools
import selectors
import sys
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

# Up to this size (bytes) a file is kept in memory, and sent in one piece with its head.
SMALL = 512 * 1024


@functools.cache
def load(path: Path) -> tuple[bytes, bytes | None]:
    """Return the response head of a file, and its content unless it is large."""
    stat = path.stat()
    head = (
        "HTTP/1.1 200 OK\r\n"
        "Server: embedded\r\n"
        "Content-Type: application/octet-stream\r\n"
        f"Content-Length: {stat.st_size}\r\n"
        f"Last-Modified: {formatdate(stat.st_mtime, usegmt=True)}\r\n"
        "Connection: keep-alive\r\n"
        f'ETag: "{stat.st_mtime_ns:x}-{stat.st_size:x}"\r\n'
        "Accept-Ranges: bytes\r\n\r\n"
    ).encode()
    return head, path.read_bytes() if stat.st_size <= SMALL else None


class Waits:
    """Calls functions after a wait whose length is exact on average.

    A timer is late by what it takes to wake a process that sleeps, half a millisecond or so: it is
    set so much earlier.
    """

    def __init__(self, seconds: float) -> None:
        """Make the waits.

        Args:
            seconds: How long each wait is.
        """
        self._seconds = seconds
        self._late = 0.0

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Call a function after the wait."""
        if not self._seconds:
            function(*args)
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + self._seconds
        loop.call_at(due - self._late, self._wake, due, function, args)

    def _wake(self, due: float, function: Callable[..., object], args: tuple[object, ...]) -> None:
        late = asyncio.get_running_loop().time() - due
        self._late = max(0.0, self._late + late / 20)
        function(*args)


class Connection(asyncio.Protocol):
    """A connection of one client, with one request at a time."""

    def __init__(self, root: Path, waits: Waits) -> None:
        """Make the protocol of a connection.

        Args:
            root: The served folder.
            waits: The wait before each response.
        """
        self._root = root
        self._waits = waits
        self._buffer = b""
        self._transport: Any = None
        self._sending: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer a request once it is whole."""
        self._buffer += data
        head, end, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if not end:
            self._buffer = head
            return
        path = self._root / head.split(b" ", 2)[1].decode().lstrip("/")
        self._waits.call(self._reply, path)

    def _reply(self, path: Path) -> None:
        if self._transport.is_closing():
            return
        try:
            head, content = load(path)
        except OSError:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        if content is not None:
            self._transport.write(head + content)
            return
        self._transport.write(head)
        self._sending = asyncio.create_task(self._send(path))

    async def _send(self, path: Path) -> None:
        with path.open("rb") as file:
            try:
                await asyncio.get_running_loop().sendfile(self._transport, file)
            except ConnectionError:
                self._transport.abort()


async def serve(root: Path, wait: float) -> None:
    """Serve until the input ends."""
    loop = asyncio.get_running_loop()
    waits = Waits(wait)
    server = await loop.create_server(lambda: Connection(root, waits), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


def main() -> None:
    """Run the server."""
    # epoll counts in milliseconds, so it would be late by half a millisecond on average.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    loop.run_until_complete(serve(Path(sys.argv[1]), float(sys.argv[2])))


if __name__ == "__main__":
    main()
