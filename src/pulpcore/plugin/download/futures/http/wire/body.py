"""The body of a reply, read off its connection."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable
from typing import Any

from .connection import Connection
from .error import MissingCloseNotify
from .framing import BLOCK, Head, ReplyParser

# To read so much of what nobody needs, if it is here already, is cheaper than a new connection.
_DRAIN = 16 * 1024
_DRAIN_READS = 4


class Body:
    """The body of a reply, as a file object that urllib3 can read from as well.

    Attributes:
        head (Head): The head of the reply.
        length (int | None): How many bytes the body has; None where the head doesn't say.
        delivered (int): How many bytes were handed out.
        is_complete (bool): The body came to its end, and wasn't closed before.
    """

    def __init__(
        self,
        connection: Connection,
        head: Head,
        parser: ReplyParser,
        release: Callable[[Connection], object],
    ) -> None:
        """Make a body.

        Args:
            connection: What it comes by.
            head: The head of the reply.
            parser: What has read the head.
            release: Called with the connection when it may be used again.
        """
        self.head = head
        self.length = parser.length
        self.delivered = 0
        self.is_complete = False
        self._parser = parser
        self._release = release
        # None once the body has come, or was closed.
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
        """Return what is there of the body, b"" at its end.

        Args:
            n: The most bytes to return; less than 0 for any number.

        Raises:
            MissingCloseNotify: TLS ended without a close_notify, and only the end of the connection
                ends this body. It is complete if what came is.
            OSError: The network failed.
            http.client.HTTPException: The body can't be trusted, or ended too early.
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
            # That was the last of it, and whether it is all is for the reader to judge.
            self.is_complete = True
            self.close()
            raise
        self.delivered += len(data)
        if parser.is_complete:
            self._complete(connection)
        return data

    def read(self, amt: int | None = None) -> bytes:
        """Return so many bytes of the body, fewer only at its end.

        Args:
            amt: How many; None or less than 0 for all.

        Raises:
            OSError: The network failed.
            http.client.HTTPException: The body can't be trusted, or ended too early.
        """
        parts = []
        left = -1 if amt is None else amt
        while left and (data := self.read1(left)):
            parts.append(data)
            left -= len(data) if left > 0 else 0
        return b"".join(parts)

    def readinto(self, b: Any) -> int:
        """Read into a buffer; see :meth:`read`."""
        data = self.read(len(b))
        b[: len(data)] = data
        return len(data)

    def drain(self) -> None:
        """Read the rest if it is little and here, to use the connection again; else close it."""
        if self._connection is not None:
            self._connection.settimeout(0)
            with contextlib.suppress(OSError, http.client.HTTPException):
                for _ in range(_DRAIN_READS):
                    if not self.read1(_DRAIN):
                        break
        self.close()

    def isclosed(self) -> bool:
        """Whether the body was read to its end, or closed before."""
        return self._connection is None

    def flush(self) -> None:
        """Do nothing: a reader has nothing to flush."""

    def shut_down(self, how: int) -> None:
        """Shut the socket down while the body is read; see ``socket.shutdown()``.

        Args:
            how: One of the constants ``SHUT_*`` of the module socket.
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
            # First: it may belong to somebody else as soon as it is released.
            connection.unwatch()
            self._release(connection)
        else:
            connection.close()
