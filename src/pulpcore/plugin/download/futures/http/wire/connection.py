"""An HTTP/1.1 connection, with separate methods to send requests and to read replies."""

from __future__ import annotations

import http.client
import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from ...net.tls_error import is_cut
from ...waiting.cancellation import Cancellation, current
from .error import MissingCloseNotify, StaleConnection
from .framing import BLOCK, Head, ReplyParser

PROOFS = 3
"""How many whole replies a connection must have brought before requests are pipelined on it."""

_GONE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


class Stream(Protocol):
    """The interface of a socket that a connection uses. TLS within TLS has it, too."""

    def recv(self, size: int, /) -> bytes:
        """Return available bytes; b"" at the end of the connection."""

    def sendall(self, data: bytes, /) -> None:
        """Send all of the data."""

    def settimeout(self, seconds: float | None, /) -> None:
        """Limit how long each call waits (seconds); None for no limit."""

    def close(self) -> None:
        """Close it."""


class Connection:
    """A connection to a server or a proxy.

    :meth:`send` and :meth:`next_reply` are independent of each other: several requests may be sent
    before the first reply is read (RFC 9112 section 9.3.2).

    Attributes:
        trip (float): How long the last reply took whose request was sent when no other was waiting
            for its reply (seconds).
        least_trip (float): The least of these.
        trains (int): How often several requests were sent together.
    """

    def __init__(self, stream: Stream, sock: socket.socket) -> None:
        """Wrap an open socket.

        Args:
            stream: What to send and receive by.
            sock: The socket below it, which a cancellation shuts down.
        """
        self._stream = stream
        self._socket = sock
        self._is_plain = stream is sock and not isinstance(sock, ssl.SSLSocket)
        # TLS may have decrypted more than was read.
        self._pending: Any = getattr(stream, "pending", None)
        # The methods of the requests that have no reply yet.
        self._asked: deque[str] = deque()
        self._replies = 0
        # How many complete HTTP/1.1 replies in a row left the connection open.
        self._proofs = 0
        # Whether the last reply was HTTP/1.1 rather than 1.0.
        self._is_new = False
        self._sent_at = 0.0
        self.trip = self.least_trip = float("inf")
        self.trains = 0
        # Bytes that were received after the last reply.
        self._received = b""
        self._timeout: float | None = -1.0
        self._token: Cancellation | None = None
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        self._poll = poller.poll

    @property
    def is_clean(self) -> bool:
        """Whether each request has its reply, and no unexpected bytes were received."""
        return not (self._asked or self._received or (self._pending and self._pending()))

    @property
    def is_proved(self) -> bool:
        """Whether the server has answered often enough to be sent several requests together."""
        return self._proofs >= PROOFS

    @property
    def is_open(self) -> bool:
        """Whether the server has neither ended the connection nor sent anything since."""
        return not self._poll(0)

    def watch(self) -> None:
        """Let the current cancellation token wake a thread that reads, until :meth:`unwatch`."""
        self._token = current()
        if self._token is not None:
            self._token.watch(self._socket)

    def unwatch(self) -> None:
        """Stop watching: a cancellation no longer affects the connection."""
        token, self._token = self._token, None
        if token is not None:
            token.unwatch(self._socket)

    def settimeout(self, seconds: float | None) -> None:
        """Limit how long each read and write waits.

        Args:
            seconds: The limit; None for none.
        """
        if seconds != self._timeout:
            self._stream.settimeout(seconds)
            self._timeout = seconds

    def send(self, method: str, head: bytes, content: Iterable[bytes] = ()) -> None:
        """Send a request.

        Args:
            method: Its method.
            head: Its head, with the empty line.
            content: Its encoded content.

        Raises:
            OSError: The request can't be sent.
        """
        self._sent_at = time.monotonic()
        self._asked.append(method)
        self._send(head)
        for data in content:
            self._send(data)

    def send_together(self, heads: Sequence[bytes]) -> None:
        """Send several requests with the method GET in one piece.

        Args:
            heads: Their heads, with the empty lines.

        Raises:
            OSError: They can't be sent.
        """
        self._sent_at = time.monotonic()
        self.trains += 1
        self._asked.extend(["GET"] * len(heads))
        self._send(b"".join(heads))

    def _send(self, data: bytes) -> None:
        # A connection that the server has ended may hold a reply all the same.
        try:
            if self._is_plain:
                data = self._write(data)
            if data:
                self._stream.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def next_reply(self) -> tuple[Head, ReplyParser]:
        """Read the head of the next reply, in the order of the requests.

        Returns:
            The head, and the parser that reads the body. Pass the parser to :meth:`finish` at the
            end of the body, before the next reply is read.

        Raises:
            StaleConnection: The server closed the connection after earlier replies, but before
                this one.
            OSError: The network failed.
            http.client.HTTPException: The reply is malformed or missing.
        """
        method, received, self._received = self._asked.popleft(), self._received, b""
        try:
            parser = ReplyParser(method, received or self.receive(BLOCK))
            while (head := parser.read_head()) is None:
                parser.receive(self.receive(BLOCK))
        except _GONE as error:
            if not self._replies:
                raise
            raise StaleConnection("the server closed an idle connection") from error
        if self._sent_at:
            self.trip, self._sent_at = time.monotonic() - self._sent_at, 0.0
            self.least_trip = min(self.least_trip, self.trip)
        self._replies += 1
        self._is_new = head.version >= 11
        return head, parser

    def receive(self, size: int, *, must_end_properly: bool = False) -> bytes:
        """Return available bytes.

        Args:
            size: The most bytes to return.
            must_end_properly: TLS must end with a close_notify.

        Returns:
            The bytes; b"" at the end of the connection.

        Raises:
            MissingCloseNotify: TLS was cut, and ``must_end_properly``.
            Cancelled: A cancellation has shut the connection down.
            OSError: The network failed.
        """
        try:
            data = self._stream.recv(size)
            if data:
                return data
        except ssl.SSLError as error:
            self._check()
            if not is_cut(error):
                raise
            if must_end_properly:
                raise MissingCloseNotify from error
        self._check()
        return b""

    def finish(self, parser: ReplyParser) -> None:
        """Prepare for the next reply, after a reply was read to its end.

        Args:
            parser: The parser that has read the reply.
        """
        self._received = parser.rest
        self._proofs = self._proofs + 1 if parser.keep_alive and self._is_new else 0

    def shut_down(self, how: int) -> None:
        """Shut the socket down, which wakes a reader; see ``socket.shutdown()``.

        Args:
            how: One of the constants ``SHUT_*`` of the module socket.
        """
        # The plain socket's method, because SSLSocket.shutdown() drops the TLS object that a reader
        # may be using.
        socket.socket.shutdown(self._socket, how)

    def close(self) -> None:
        """Close it."""
        self.unwatch()
        self._stream.close()
        self._socket.close()

    def _write(self, data: bytes) -> bytes:
        """Send as much as the send buffer takes, and return the rest.

        A socket with a time-out makes two system calls to send: one waits for room, of which there
        is nearly always enough for a head. Its descriptor doesn't block, so that it can be tried
        without waiting.
        """
        try:
            return data[os.write(self._socket.fileno(), data) :]
        except BlockingIOError:
            return data

    def _check(self) -> None:
        if self._token is not None:
            self._token.check()
