"""What the downloads of a process know of one FTP server."""

from __future__ import annotations

import threading
import time
import weakref

from ..context import Context
from ..waiting.cancellation import Cancellation, current
from ..waiting.lock import this_process

# Seconds between two looks at what the other threads do.
_POLL = 0.1
# Seconds after which the server is asked again although none of our connections has ended.
_PATIENCE = 5.0


class Server:
    """The connections of this process to a server, for one that allows only so many.

    It takes no lock, so that a signal handler can't find one held: it does nothing with its dicts
    that isn't one atomic operation.
    """

    def __init__(self) -> None:
        """Make one to which there is no connection."""
        # From each connection to the thread that uses it: while it logs in, and when it has. A
        # signal may come before a connection can be said to have ended: then it is gone by itself.
        self._arriving: dict[weakref.ref[object], int] = {}
        self._inside: dict[weakref.ref[object], int] = {}
        self._admitted: dict[tuple[str, str], None] = {}
        # Another one whenever a connection has ended.
        self._last_left = object()

    @classmethod
    def of(cls, context: Context, host: str, port: int) -> Server:
        """Return what those who share a context know of a server.

        Args:
            context: The context.
            host: The host.
            port: The port.
        """
        found: Server = context.cache.setdefault(("ftp", host, port, this_process()), cls())
        return found

    def arrive(self, connection: object) -> None:
        """Note that a connection is being made.

        Args:
            connection: The connection.
        """
        self._arriving[weakref.ref(connection)] = threading.get_ident()

    def enter(self, connection: object, login: tuple[str, str]) -> None:
        """Note that a connection has logged in.

        Args:
            connection: The connection.
            login: The user and the password.
        """
        self._admitted[login] = None
        self._inside[weakref.ref(connection)] = threading.get_ident()
        del self._arriving[weakref.ref(connection)]

    def leave(self, connection: object) -> None:
        """Note that a connection has ended, also one that never logged in.

        Args:
            connection: The connection.
        """
        self._arriving.pop(weakref.ref(connection), None)
        if self._inside.pop(weakref.ref(connection), None) is not None:
            self._last_left = object()

    def has_others(self) -> bool:
        """Whether another thread is logged in. One of this thread can't end while it waits."""
        return bool(_of_others(self._inside))

    def admits(self, login: tuple[str, str]) -> bool:
        """Whether a login has worked here, or does now for those who are just logging in.

        Args:
            login: The user and the password.

        Raises:
            Cancelled: The running work is to stop.
        """
        arriving = _of_others(self._arriving)
        while login not in self._admitted and arriving & _of_others(self._arriving):
            _wait(_POLL)
        return login in self._admitted

    def wait_for_room(self) -> None:
        """Wait until a connection has ended, but not for long: others may make room too.

        Raises:
            Cancelled: The running work is to stop.
        """
        last, until = self._last_left, time.monotonic() + _PATIENCE
        while self._last_left is last and self.has_others() and time.monotonic() < until:
            _wait(_POLL)


def _of_others(connections: dict[weakref.ref[object], int]) -> set[weakref.ref[object]]:
    """Return the connections that other threads use."""
    own = threading.get_ident()
    return {
        connection
        for connection, thread in connections.copy().items()
        if thread != own and connection() is not None
    }


def _wait(seconds: float) -> None:
    # Without a token nobody can cancel.
    (current() or Cancellation()).wait(seconds)
