"""The server's end of one connection, and the ways to end it."""

import select
import socket
import ssl
import struct
from contextlib import suppress

from .message import Request

BLOCK = 1 << 16


class ClientGone(Exception):
    """The client closed the connection, or the server is closing."""


class Connection:
    """One accepted connection.

    Attributes:
        index: Its number, from 0, in the order accepted.
        socket: The socket, TLS or not.
    """

    def __init__(self, index: int, sock: socket.socket, tls: ssl.SSLContext | None):
        # Wrap the socket here, but do the handshake in the connection's own thread. It may block,
        # and the server must know the socket by then to interrupt it.
        if tls is not None:
            sock = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.index = index
        self.socket = sock
        self._buffer = bytearray()

    def handshake(self) -> None:
        """Do the TLS handshake, if the server has TLS."""
        if isinstance(self.socket, ssl.SSLSocket):
            self.socket.do_handshake()

    def _receive(self) -> None:
        data = self.socket.recv(BLOCK)
        if not data:
            raise ClientGone
        self._buffer += data

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def read(self, size: int) -> bytes:
        """Read exactly so many bytes."""
        while len(self._buffer) < size:
            self._receive()
        return self._take(size)

    def read_until(self, end: bytes) -> bytes:
        """Read up to and including the mark."""
        while (found := self._buffer.find(end)) < 0:
            self._receive()
        return self._take(found + len(end))

    def read_request(self) -> Request:
        """Read the head of a request."""
        return Request(self.read_until(b"\r\n\r\n"))

    def read_some(self) -> bytes:
        """Read what has arrived, at least one byte."""
        if not self._buffer:
            self._receive()
        return self._take(len(self._buffer))

    def wait_until_gone(self) -> None:
        """Block until the client disconnects or the server is closing."""
        while True:
            self.read_some()

    def ready(self, other: socket.socket) -> bool:
        """Wait until this or the other socket is readable. Return whether the other one is."""
        waiting = bool(self._buffer) or (
            isinstance(self.socket, ssl.SSLSocket) and self.socket.pending() > 0
        )
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        poll.register(other, select.POLLIN)
        return other.fileno() in dict(poll.poll(0 if waiting else None))

    def send(self, data: bytes | memoryview) -> None:
        """Send all the data."""
        self.socket.sendall(data)

    def finish(self) -> None:
        """Close properly: close_notify if there is TLS, then FIN."""
        if isinstance(self.socket, ssl.SSLSocket):
            # Non-blocking: this sends our close_notify without waiting for the client's.
            with suppress(OSError, ValueError):
                self.socket.setblocking(False)
                self.socket.unwrap()
        self.cut()

    def cut(self) -> None:
        """End by FIN alone, which is a truncation in TLS."""
        # The system answers with a reset, which may overtake what was sent, where something
        # received was never read.
        with suppress(OSError):
            self.socket.setblocking(False)
            while socket.socket.recv(self.socket, BLOCK):
                pass
        # A forked child of the test may hold the socket, too. Closing alone wouldn't end it then.
        with suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_WR)
        self.socket.close()

    def reset(self) -> None:
        """End by RST. Data that the client hasn't received yet may be lost."""
        with suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def interrupt(self) -> None:
        """Wake whatever blocks on the socket, from another thread."""
        # Not SSLSocket.shutdown, which removes the TLS object while the reader uses it.
        with suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)
