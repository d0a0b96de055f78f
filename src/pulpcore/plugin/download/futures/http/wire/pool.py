"""Connection pools: one for each destination, and a common limit of idle connections."""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from ...context import Resource
from ...engine.limited import Ration
from ...waiting.cancellation import Cancellation, current
from .body import Body
from .connection import Connection

IDLE_LIMIT = 64
"""The maximum number of idle connections of a context, for all destinations together."""

# A list with one idle connection. The thread that pops the connection owns it. Popping is atomic,
# so no lock is needed, which a signal handler or a forked child could find held.
_Ticket = list[Connection]


class IdleConnections(Resource):
    """The idle connections of all pools of a context, and their maximum number."""

    def __init__(self, limit: int = IDLE_LIMIT) -> None:
        """Create it without connections.

        Args:
            limit: The maximum number of idle connections.
        """
        self._limit = limit
        # In the order in which they became idle. The tickets of reused connections are empty.
        self._tickets: deque[_Ticket] = deque()
        # If the context is never closed, this closes the connections when it is garbage-collected.
        weakref.finalize(self, _close_all, self._tickets)

    def add(self, ticket: _Ticket) -> None:
        """Add an idle connection. Beyond the limit, close those that have been idle longest.

        Args:
            ticket: A list with the connection.
        """
        self._tickets.append(ticket)
        if len(self._tickets) > self._limit:
            idle = [ticket for ticket in _drained(self._tickets) if ticket]
            # Add them on the left: other threads may have appended newer ones meanwhile.
            self._tickets.extendleft(reversed(idle[-self._limit :]))
            _close(idle[: -self._limit])

    def close(self) -> None:
        """Close all idle connections."""
        _close_all(self._tickets)


class Train(Protocol):
    """A train that uses a connection. It may wait for work that needs a connection, too."""

    def give_up(self, token: Cancellation) -> None:
        """Shut the connection down if the train waits for such work.

        Args:
            token: The token of who needs one.
        """


class Pool:
    """A pool of connections to one destination. It reuses the last used connection first.

    A pool still works after :meth:`close`. It then closes each connection after its request.

    Attributes:
        trains (dict[Train, None]): The trains that are using connections.
    """

    def __init__(
        self,
        connect: Callable[[float | None], Connection],
        idle: IdleConnections,
        ration: Ration | None = None,
    ) -> None:
        """Create an empty pool.

        Args:
            connect: Opens a connection. Its argument is the time-out (seconds); None for no limit.
            idle: The idle connections of all pools.
            ration: How many connections there may be; None without a limit.
        """
        self._connect = connect
        self._ration = ration
        self._all_idle = idle
        self._tickets: deque[_Ticket] = deque()
        self._is_closed = False
        self.trains: dict[Train, None] = {}

    def request(
        self,
        method: str,
        head: bytes,
        content: Iterable[bytes],
        connect_timeout: Callable[[], float | None],
        timeout: float | None,
    ) -> Body:
        """Send a request, and read the head of the response.

        Args:
            method: The method of the request.
            head: The head of the request, with the empty line at its end.
            content: The encoded content of the request.
            connect_timeout: Returns how long a new connection may take (seconds); None for no
                limit.
            timeout: The time-out of each read (seconds); None for no limit.

        Returns:
            The response, with its body unread.

        Raises:
            OSError: The network failed.
            http.client.HTTPException: The response is malformed, or there was none.
        """
        connection = self._take()
        if connection is None:
            if self.trains and (token := current()) is not None:
                for train in self.trains.copy():
                    train.give_up(token)
            if self._ration is not None:
                self._ration.make_room()
            connection = self._connect(connect_timeout())
        try:
            connection.watch()
            connection.settimeout(timeout)
            connection.send(method, head, content)
            found, parser = connection.next_reply()
        except BaseException:
            connection.close()
            raise
        return Body(connection, found, parser, self.release)

    def take_proved(self, trip: float) -> Connection | None:
        """Remove and return an idle connection on which requests may be pipelined.

        Args:
            trip: A round trip on it must have taken longer than this (seconds).

        Returns:
            The connection that was used last; None if it can't be used so, or none is idle.
        """
        # Look before taking it. Near a server this runs for each file and ends here.
        try:
            latest = self._tickets[-1].copy()
        except IndexError:
            return None
        if not all(_is_proved(each, trip) for each in latest):
            return None
        connection = self._take()
        if connection is not None and not _is_proved(connection, trip):
            # Another thread has taken the connection that was looked at. This is another one.
            self.release(connection)
            return None
        return connection

    def is_near(self, trip: float) -> bool:
        """Return whether the server answers too soon for pipelining to save anything.

        Args:
            trip: A round trip that is no longer than this is short (seconds).
        """
        try:
            latest = self._tickets[-1].copy()
        except IndexError:
            return False
        return any(each.is_proved and not _is_proved(each, trip) for each in latest)

    def release(self, connection: Connection) -> None:
        """Return a connection to the pool. Close it if it can't be used again.

        Args:
            connection: The connection, whose last response was read completely.
        """
        if not connection.is_clean:
            connection.close()
            return
        ticket = [connection]
        self._tickets.append(ticket)
        self._all_idle.add(ticket)
        if self._ration is not None:
            self._ration.add_idle(connection, ticket)
        # Check this last: another thread may have closed the pool just before.
        if self._is_closed:
            self.close()

    def close(self) -> None:
        """Close the idle connections, and close the others when they are released."""
        self._is_closed = True
        _close_all(self._tickets)

    def _take(self) -> Connection | None:
        """Remove and return an idle connection that is still open; None if there is none."""
        while self._tickets:
            try:
                connection = self._tickets.pop().pop()
            except IndexError:
                # Another thread has taken the connection, or the last ticket.
                continue
            if connection.is_open:
                return connection
            connection.close()
        return None


def _is_proved(connection: Connection, trip: float) -> bool:
    return connection.is_proved and connection.least_trip > trip


def _claim(ticket: _Ticket) -> Connection | None:
    """Remove and return the connection of a ticket; None if another thread has taken it."""
    try:
        return ticket.pop()
    except IndexError:
        return None


def _drained(tickets: deque[_Ticket]) -> list[_Ticket]:
    """Remove and return all tickets. Other threads may remove some at the same time."""
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
