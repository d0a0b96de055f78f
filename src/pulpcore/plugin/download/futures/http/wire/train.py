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
"""The most bytes that are sent together. Larger trains could fill the buffers of both sides, and
then each side would wait for the other one to read."""

BODY_LIMIT = 256 * 1024
"""The largest body that is read (bytes)."""

FAILURES = (OSError, http.client.HTTPException)


class StoredBody(Body):
    """The body of a reply that was read before anybody asked for it.

    Attributes:
        data (bytes): What came.
        error (Exception | None): What broke the connection off before the end of the body.
    """

    def __init__(
        self, head: Head, length: int | None, data: bytes, error: Exception | None, trip: float
    ) -> None:
        """Keep a body.

        Args:
            head: The head of the reply.
            length: The size of the body (bytes), where the head gives it.
            data: What came.
            error: What broke the connection off; None if the body is complete.
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
            OSError: The connection broke off before.
            http.client.HTTPException: The connection ended before.
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
        ended (bool): The server ended the connection before the end of the last reply, or didn't
            answer in time.
        is_given_up (bool): A handler needed a connection.
    """

    def __init__(self, connection: Connection, pool: Pool, driver: Driver) -> None:
        """Take a connection.

        Args:
            connection: It is idle and has proved itself.
            pool: Where it comes from.
            driver: What advances the downloads.
        """
        self.connection = connection
        self._pool, self._driver = pool, driver
        pool.trains[self] = None
        self.left = 0
        self.is_open = True
        self.ended = self.is_given_up = False

    def send(self, heads: Sequence[bytes], timeout: float | None) -> None:
        """Send requests.

        Args:
            heads: Their heads.
            timeout: The time-out (seconds).
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
        """Read the next reply whole, for the work that runs.

        Args:
            timeout: The time-out of each read (seconds); None for no limit.
            head_timeout: The same for the head.

        Returns:
            The body, with the head. None if there was no reply, or one that is too large.
        """
        connection = self.connection
        connection.watch()
        try:
            connection.settimeout(head_timeout)
            head, parser = connection.next_reply()
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
        """Give the connection back if each request has its reply; else close it."""
        self._pool.trains.pop(self, None)
        if self.is_open and not self.left:
            self._pool.release(self.connection)
        else:
            self.connection.close()
        self.is_open = False

    def give_up(self, token: Cancellation) -> None:
        """Shut the connection down if the train waits for somebody who needs one.

        Any thread may call this. The thread of the train closes the connection.

        Args:
            token: The token of who needs one.
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
                    # The same call may receive bytes of the next replies, too.
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
        """Stop reading: the connection has ended, or must be closed."""
        self.is_open = False
        self.ended = self.ended or self.left > 0
