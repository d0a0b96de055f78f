"""A file server for machines without nginx, for delayed responses, and for slow connections.

Usage: ``python -m benchmarks.embedded FOLDER SECONDS CAP``: it prints its port, and serves the
folder on loopback until its input ends; each reply waits so many seconds, and each connection sends
at most so many bytes a second; 0 for any number.
"""

# ruff: noqa: T201 - it prints for the process that started it
from __future__ import annotations

import asyncio
import functools
import re
import selectors
import sys
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

# Up to this size (bytes) a file is kept in memory, and sent in one piece with its head.
SMALL = 512 * 1024

# A connection with a cap sends so many bytes at a time.
PIECE = 64 * 1024


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
    """A connection of one client. Pipelined requests are answered one after the other."""

    def __init__(self, root: Path, waits: Waits, cap: float) -> None:
        """Make the protocol of a connection.

        Args:
            root: The served folder.
            waits: The wait before each response.
            cap: How many bytes it sends in a second; 0 for any number.
        """
        self._root = root
        self._cap = cap
        self._waits = waits
        self._buffer = b""
        self._is_busy = False
        self._transport: Any = None
        self._sending: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take a part of the requests."""
        self._buffer += data
        if not self._is_busy:
            self._next()

    def _next(self) -> None:
        """Begin with the next request, if it is whole."""
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        self._is_busy = bool(end)
        if not end:
            return
        self._buffer = rest
        path = self._root / head.split(b" ", 2)[1].decode().lstrip("/")
        found = re.search(rb"\r\nRange: bytes=(\d+)-(\d*)", head, re.IGNORECASE)
        self._waits.call(self._reply, path, found and (int(found[1]), int(found[2] or -1)))

    def _reply(self, path: Path, part: tuple[int, int] | None) -> None:
        if self._transport.is_closing():
            return
        try:
            head, content = load(path)
        except OSError:
            head, content = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b""
        if content is not None:
            self._transport.write(head + content)
            asyncio.get_running_loop().call_soon(self._next)
            return
        total = path.stat().st_size
        first, last = part or (0, total - 1)
        last = total - 1 if last < 0 else last
        if part is not None:
            head = head.replace(b"200 OK", b"206 Partial Content").replace(
                f"Content-Length: {total}\r\n".encode(),
                f"Content-Length: {last - first + 1}\r\n"
                f"Content-Range: bytes {first}-{last}/{total}\r\n".encode(),
            )
        self._transport.write(head)
        self._sending = asyncio.create_task(self._send(path, first, last + 1))

    async def _send(self, path: Path, begin: int, end: int) -> None:
        loop = asyncio.get_running_loop()
        piece, began, sent = PIECE if self._cap else end - begin, loop.time(), 0
        with path.open("rb") as file:
            try:
                while begin + sent < end:
                    size = min(piece, end - begin - sent)
                    await loop.sendfile(self._transport, file, begin + sent, size)
                    sent += size
                    if self._cap:
                        await asyncio.sleep(began + sent / self._cap - loop.time())
            except (ConnectionError, RuntimeError):
                # The client has gone.
                self._transport.abort()
                return
        self._next()


async def serve(root: Path, wait: float, cap: float) -> None:
    """Serve until the input ends."""
    loop = asyncio.get_running_loop()
    waits = Waits(wait)
    server = await loop.create_server(
        lambda: Connection(root, waits, cap), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


def main() -> None:
    """Run the server."""
    # epoll counts in milliseconds, so it would be late by half a millisecond on average.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    loop.run_until_complete(serve(Path(sys.argv[1]), *map(float, sys.argv[2:4])))


if __name__ == "__main__":
    main()
