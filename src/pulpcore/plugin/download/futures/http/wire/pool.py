"""Pools of connections: one for each destination, and one limit of idle connections for all."""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from collections.abc import Callable, Iterable

from ...context import Resource
from .body import Body
from .connection import Connection

IDLE_LIMIT = 64
"""The most idle connections that a context keeps, to all destinations together."""

# An idle connection in a list of its own. Whoever pops it has it: one thread alone can, and no lock
# is needed, which a signal handler or a forked child could find held.
_Ticket = list[Connection]


class IdleConnections(Resource):
    """The idle connections of all pools of a context, and the limit for their number."""

    def __init__(self, limit: int = IDLE_LIMIT) -> None:
        """Make it without connections.

        Args:
            limit: The most connections that stay idle.
        """
        self._limit = limit
        # In the order in which they became idle. The tickets of those in use again are empty.
        self._tickets: deque[_Ticket] = deque()
        # For a context that nobody closes.
        weakref.finalize(self, _close_all, self._tickets)

    def add(self, ticket: _Ticket) -> None:
        """Take note of a connection that became idle; close the longest idle beyond the limit.

        Args:
            ticket: A list with the connection.
        """
        self._tickets.append(ticket)
        if len(self._tickets) > self._limit:
            idle = [ticket for ticket in _drained(self._tickets) if ticket]
            # In front: meanwhile other threads have added later ones.
            self._tickets.extendleft(reversed(idle[-self._limit :]))
            _close(idle[: -self._limit])

    def close(self) -> None:
        """Close all of them."""
        _close_all(self._tickets)


class Pool:
    """Connections to one destination, of which the last used is used first.

    A pool that was closed can still be used. It closes each connection after its request then.
    """

    def __init__(
        self, connect: Callable[[float | None], Connection], idle: IdleConnections
    ) -> None:
        """Make a pool without connections.

        Args:
            connect: Makes a connection, within so many seconds; None for no limit.
            idle: The idle connections of all pools.
        """
        self._connect = connect
        self._all_idle = idle
        self._tickets: deque[_Ticket] = deque()
        self._is_closed = False

    def request(
        self,
        method: str,
        head: bytes,
        content: Iterable[bytes],
        timeouts: tuple[float | None, float | None],
    ) -> Body:
        """Send a request, and read the head of the reply.

        Args:
            method: The method of the request.
            head: Its head, with the empty line.
            content: Its content, as it goes over the wire.
            timeouts: How long a connection may take, and how long a read may wait (seconds).

        Returns:
            The reply, with its body unread.

        Raises:
            OSError: The network failed.
            http.client.HTTPException: The reply can't be trusted, or didn't come.
        """
        connection = self._take() or self._connect(timeouts[0])
        try:
            connection.watch()
            connection.settimeout(timeouts[1])
            connection.send(method, head, content)
            found, parser = connection.next_reply()
        except BaseException:
            connection.close()
            raise
        return Body(connection, found, parser, self.release)

    def release(self, connection: Connection) -> None:
        """Keep a connection for the next request, or close it where that isn't possible.

        Args:
            connection: The connection, whose last reply was read to its end.
        """
        if not connection.is_clean:
            connection.close()
            return
        ticket = [connection]
        self._tickets.append(ticket)
        self._all_idle.add(ticket)
        # Only now, for another thread may have closed the pool just before.
        if self._is_closed:
            self.close()

    def close(self) -> None:
        """Close the idle connections, and each other one when it comes back."""
        self._is_closed = True
        _close_all(self._tickets)

    def _take(self) -> Connection | None:
        """Return an idle connection on which a request can be sent; None if there is none."""
        while True:
            try:
                ticket = self._tickets.pop()
            except IndexError:
                return None
            connection = _claim(ticket)
            if connection is not None:
                if connection.is_open:
                    return connection
                connection.close()


def _claim(ticket: _Ticket) -> Connection | None:
    """Return the connection of a ticket; None if another thread has it."""
    try:
        return ticket.pop()
    except IndexError:
        return None


def _drained(tickets: deque[_Ticket]) -> list[_Ticket]:
    """Take all tickets, of which other threads may take some meanwhile."""
    taken = []
    with contextlib.suppress(IndexError):
        while True:
            taken.append(tickets.popleft())
    return taken


def _close_all(tickets: deque[_Ticket]) -> None:
    _close(_drained(tickets))


def _close(tickets: Iterable[_Ticket]) -> None:
    for ticket in tickets:
        connection = _claim(ticket)
        if connection is not None:
            connection.close()
