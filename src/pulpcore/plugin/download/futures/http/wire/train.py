"""A train: several requests that are sent on one connection before the first is answered."""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Sequence

from ...engine.pipeline import Driver
from ...waiting.cancellation import Cancellation, Cancelled
from .body import Body
from .connection import Connection
from .error import FramingError
from .framing import BLOCK, Head, ReplyParser
from .pool import Pool

ROOM = 16 * 1024
"""The most bytes that are sent together.

Larger trains could deadlock: both sides would fill their send buffers, and each would wait for the
other one to read.
"""

BODY_LIMIT = 256 * 1024
"""The largest body that is stored (bytes)."""

FAILURES = (OSError, http.client.HTTPException)


class StoredBody(Body):
    """The body of a reply that was read into memory.

    Attributes:
        data (bytes): The bytes that came.
        error (Exception | None): The error that ended the body early; None if it is complete.
    """

    def __init__(
        self, head: Head, length: int | None, data: bytes, error: Exception | None, trip: float
    ) -> None:
        """Keep a body.

        Args:
            head: The head of the reply.
            length: The size of the body (bytes), where the head gives it.
            data: The bytes that came.
            error: The error that ended the body early; None if it is complete.
            trip: How long the reply took (seconds).
        """
        self.head, self.length, self.data, self.error = head, length, data, error
        self.trip = trip
        self.delivered = 0
        self.is_complete = False
        self._connection = None

    def read1(self, n: int = -1) -> bytes:
        """Return bytes of the body; b"" at its end.

        Args:
            n: The maximum number of bytes; negative for any number.

        Raises:
            OSError: The connection failed before the end of the body.
            http.client.HTTPException: The server closed it early, or sent a malformed body.
        """
        if self.error is not None:
            raise self.error
        size = len(self.data) if n < 0 else n
        data = self.data[self.delivered : self.delivered + size]
        self.delivered += len(data)
        self.is_complete = self.delivered == len(self.data)
        return data

    def isclosed(self) -> bool:
        """Whether the body was read to its end."""
        return self.is_complete


class Train:
    """The requests of a train, and the replies to them, in the same order.

    Attributes:
        connection (Connection): The connection.
        left (int): How many requests have no reply yet.
        is_open (bool): More replies can be read.
        ended (bool): Whether the connection ended, or a time-out passed, before the end of the last
            reply.
        is_given_up (bool): Whether it was ended because a handler of one of the downloads needed a
            connection.
        is_mixed_up (bool): A reply was the one to another request, so that the connection can't be
            used again. The user of the train sets this.
    """

    def __init__(self, connection: Connection, pool: Pool, driver: Driver) -> None:
        """Take a connection.

        Args:
            connection: An idle connection that has answered requests before.
            pool: The pool that it was taken from.
            driver: Advances the downloads of the train.
        """
        self.connection = connection
        self._pool, self._driver = pool, driver
        pool.trains[self] = None
        self.left = 0
        self.is_open = True
        self.ended = self.is_given_up = self.is_mixed_up = False

    def send(self, heads: Sequence[bytes], timeout: float | None) -> None:
        """Send requests together. If that fails, the train is not open afterwards.

        Args:
            heads: The heads of the requests.
            timeout: The time-out (seconds); None for no limit.
        """
        if not self.is_open:
            return
        self.left = len(heads)
        try:
            self.connection.settimeout(timeout)
            self.connection.send_together(heads)
        except OSError:
            self._end()

    def receive(self, timeout: float | None, head_timeout: float | None) -> StoredBody | None:
        """Read the next reply completely. The cancellation of the current work ends the wait.

        Args:
            timeout: The time-out of each read (seconds); None for no limit.
            head_timeout: The time-out of each read of the head.

        Returns:
            The body, with the head. None if no reply came, its body is too large or ends only with
            the connection, or the work was cancelled.
        """
        connection = self.connection
        connection.watch()
        try:
            connection.settimeout(head_timeout)
            head, parser = connection.next_reply()
            if head_timeout != timeout:
                connection.settimeout(timeout)
            return self._read(head, parser)
        except FAILURES:
            self._end()
        except Cancelled:
            self.is_open = False
        finally:
            connection.unwatch()
        return None

    def close(self) -> None:
        """Give the connection back if each request has its own reply; else close it."""
        self._pool.trains.pop(self, None)
        if self.is_open and not self.left and not self.is_mixed_up:
            self._pool.release(self.connection)
        else:
            self.connection.close()
        self.is_open = False

    def give_up(self, token: Cancellation) -> None:
        """Shut the connection down if work that the train waits for needs a connection itself.

        That is a nested download in a handler. Any thread may call this. The train's thread closes
        the connection.

        Args:
            token: The token of the work that needs a connection.
        """
        if self.is_open and self._driver.waits_for(token):
            self.is_open, self.is_given_up = False, True
            with contextlib.suppress(OSError):
                self.connection.shut_down(socket.SHUT_RDWR)

    def _read(self, head: Head, parser: ReplyParser) -> StoredBody | None:
        connection = self.connection
        pieces: list[bytes] = []
        size = 0
        error = None
        if parser.ends_with_connection or (parser.length or 0) > BODY_LIMIT:
            self.is_open = False
            return None
        try:
            while not parser.is_complete:
                data = parser.read_body(BODY_LIMIT)
                if data is None:
                    # This may receive bytes of the next replies, too. The parser keeps them.
                    parser.receive(connection.receive(BLOCK))
                    continue
                pieces.append(data)
                size += len(data)
                if size > BODY_LIMIT:
                    self.is_open = False
                    return None
        except FramingError:
            raise
        except FAILURES as failure:
            error = failure
        self.left -= 1
        if error is not None:
            self.is_open, self.ended = False, True
        else:
            connection.finish(parser)
            if not parser.keep_alive:
                self._end()
        return StoredBody(head, parser.length, b"".join(pieces), error, connection.trip)

    def _end(self) -> None:
        """Read no more: the connection has ended, or must be closed after this reply."""
        self.is_open = False
        self.ended = self.ended or self.left > 0
