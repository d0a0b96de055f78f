"""The server's end of one connection, and the ways to end it."""

import select
import socket
import ssl
import struct
from contextlib import suppress

from .message import Request

BLOCK = 1 << 16


class ClientGone(Exception):
    """The client ended the connection, or the server closes."""


class Connection:
    """One accepted connection.

    Attributes:
        index: Its number, from 0, in the order accepted.
        socket: The socket, TLS or not.
    """

    def __init__(self, index: int, sock: socket.socket, tls: ssl.SSLContext | None):
        # Wrapped here, but shaken hands with in the connection's own thread: that may block, and
        # the server must know the socket by then, to be able to interrupt it.
        if tls is not None:
            sock = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.index = index
        self.socket = sock
        self._buffer = bytearray()

    def handshake(self) -> None:
        """Shake hands, where there is TLS."""
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
        """Read exactly that many bytes."""
        while len(self._buffer) < size:
            self._receive()
        return self._take(size)

    def read_until(self, end: bytes) -> bytes:
        """Read up to and with that mark."""
        while (found := self._buffer.find(end)) < 0:
            self._receive()
        return self._take(found + len(end))

    def read_request(self) -> Request:
        """Read the head of a request."""
        return Request(self.read_until(b"\r\n\r\n"))

    def read_some(self) -> bytes:
        """Read what is there, one byte at least."""
        if not self._buffer:
            self._receive()
        return self._take(len(self._buffer))

    def wait_until_gone(self) -> None:
        """Block until the client leaves, or the server closes."""
        while True:
            self.read_some()

    def ready(self, other: socket.socket) -> bool:
        """Wait for this or the other socket; tell whether it is (also) the other one."""
        waiting = bool(self._buffer) or (
            isinstance(self.socket, ssl.SSLSocket) and self.socket.pending() > 0
        )
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        poll.register(other, select.POLLIN)
        return other.fileno() in dict(poll.poll(0 if waiting else None))

    def send(self, data: bytes | memoryview) -> None:
        """Send all of it."""
        self.socket.sendall(data)

    def finish(self) -> None:
        """End in order: close_notify where there is TLS, then FIN."""
        if isinstance(self.socket, ssl.SSLSocket):
            # Not blocking: our half is sent, the client's isn't waited for.
            with suppress(OSError, ValueError):
                self.socket.setblocking(False)
                self.socket.unwrap()
        self.cut()

    def cut(self) -> None:
        """End by FIN alone, which in TLS is no proper end."""
        # The system answers with a reset, which may overtake what was sent, where something
        # received was never read.
        with suppress(OSError):
            self.socket.setblocking(False)
            while socket.socket.recv(self.socket, BLOCK):
                pass
        # A child that a test forked may hold the socket too: closing would not end it then.
        with suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_WR)
        self.socket.close()

    def reset(self) -> None:
        """End by RST. What the client has not yet received may be lost."""
        with suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def interrupt(self) -> None:
        """From another thread: make whatever blocks on the socket return."""
        # Not SSLSocket.shutdown, which takes the TLS object away from under the reader.
        with suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)
