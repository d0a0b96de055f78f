"""The body of a response, which is read from its connection."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable
from typing import Any

from .connection import Connection
from .error import MissingCloseNotify
from .framing import BLOCK, Head, ReplyParser

# Reading this much of a useless body, if it is available, is cheaper than a new connection.
_DRAIN = 16 * 1024
_DRAIN_READS = 4


class Body:
    """The body of a response, as a file object that urllib3 can read too.

    Attributes:
        head (Head): The head of the response.
        length (int | None): The size of the body (bytes); None if the head doesn't give it.
        delivered (int): The number of bytes that were returned to readers.
        is_complete (bool): The body was read to its end, before it was closed.
        trip (float): How long the head took to come after the request was sent (seconds).
    """

    def __init__(
        self,
        connection: Connection,
        head: Head,
        parser: ReplyParser,
        release: Callable[[Connection], object],
    ) -> None:
        """Create the body of a response whose head was parsed.

        Args:
            connection: The connection of the response.
            head: The head of the response.
            parser: The parser of the response.
            release: Called with the connection when it can be reused.
        """
        self.head = head
        self.length = parser.length
        self.trip = connection.trip
        self.delivered = 0
        self.is_complete = False
        self._parser = parser
        self._release = release
        # None after the body was read to its end or closed.
        self._connection: Connection | None = connection
        if parser.is_complete:
            self._complete(connection)

    @property
    def msg(self) -> http.client.HTTPMessage:
        """The fields of the head, for the cookie jars of the standard library."""
        message = http.client.HTTPMessage()
        for name, value in self.head.pairs:
            message[name] = value
        return message

    def read1(self, n: int = -1) -> bytes:
        """Return the bytes of the body that are available; b"" at its end.

        Args:
            n: The maximum number of bytes; negative for any number.

        Raises:
            MissingCloseNotify: TLS ended without a close_notify, in a body that ends with the
                connection. All bytes were returned before.
            OSError: The network failed.
            http.client.HTTPException: The body is malformed or incomplete.
        """
        connection, parser = self._connection, self._parser
        if connection is None or n == 0:
            return b""
        size = BLOCK if n < 0 else n
        try:
            while (data := parser.read_body(size)) is None:
                parser.receive(
                    connection.receive(
                        parser.wanted(size), must_end_properly=parser.ends_with_connection
                    )
                )
        except MissingCloseNotify:
            # All bytes were delivered. The reader has to decide whether the body may be truncated.
            self.is_complete = True
            self.close()
            raise
        self.delivered += len(data)
        if parser.is_complete:
            self._complete(connection)
        return data

    def read(self, amt: int | None = None) -> bytes:
        """Return a number of bytes of the body, or fewer at its end.

        Args:
            amt: The number of bytes; None or negative for all.

        Raises:
            OSError: The network failed.
            http.client.HTTPException: The body is malformed or incomplete.
        """
        parts = []
        left = -1 if amt is None else amt
        while left and (data := self.read1(left)):
            parts.append(data)
            left -= len(data) if left > 0 else 0
        return b"".join(parts)

    def readinto(self, b: Any) -> int:
        """Read into a buffer, like :meth:`read`. Return the number of bytes."""
        data = self.read(len(b))
        b[: len(data)] = data
        return len(data)

    def drain(self) -> None:
        """Read the rest if it is small and available, to reuse the connection; else close that."""
        if self._connection is not None:
            self._connection.settimeout(0)
            with contextlib.suppress(OSError, http.client.HTTPException):
                for _ in range(_DRAIN_READS):
                    if not self.read1(_DRAIN):
                        break
        self.close()

    def isclosed(self) -> bool:
        """Whether the body was read to its end or closed."""
        return self._connection is None

    def flush(self) -> None:
        """Do nothing. File objects must have this method."""

    def shut_down(self, how: int) -> None:
        """Shut the socket down while another thread reads the body.

        Args:
            how: A constant ``SHUT_*`` of the module socket, for ``socket.shutdown()``.
        """
        if self._connection is not None:
            self._connection.shut_down(how)

    def close(self) -> None:
        """Close the connection, unless the body was read to its end."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _complete(self, connection: Connection) -> None:
        self.is_complete = True
        self._connection = None
        connection.finish(self._parser)
        if self._parser.keep_alive:
            # Before release(): afterwards another thread may use the connection.
            connection.unwatch()
            self._release(connection)
        else:
            connection.close()
