"""The cancellation token that ends every wait of a download."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Protocol

from .atomic import Waiter
from .lock import Process


class Cancelled(Exception):
    """The work that the caller belongs to was cancelled.

    Attributes:
        reason (str): Why, as a phrase for a person.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Wakeable(Protocol):
    """An object that :meth:`Cancellation.cancel` wakes."""

    def wake(self) -> object:
        """React to the cancellation. It may be called several times, and must not block."""


class Cancellation:
    """A cancellation token. It is cancelled at most once, and stays cancelled.

    Tokens form a tree: cancelling a batch cancels its downloads, and the downloads that their
    handlers run. To wake a thread that blocks in a read, the token shuts its socket down. The
    reader then sees an end of file, so it must call :meth:`check` before it trusts one.

    No method takes a lock. ``attach()`` and ``watch()`` add to a set before they read the reason;
    :meth:`cancel` sets the reason before it reads the sets. So at least one side sees the other.

    Attributes:
        reason (str | None): Why the work was cancelled; None as long as it wasn't.
    """

    def __init__(self, parent: Cancellation | None = None) -> None:
        """Create a token that is cancelled together with its parent.

        Args:
            parent: The parent. Cancelling it cancels this token too, until :meth:`close`.
        """
        self.reason: str | None = None
        self._sockets: set[socket.socket] = set()
        # Sockets that cancel() has taken from their readers and is about to shut down.
        self._doomed: set[socket.socket] = set()
        self._sleepers: set[Wakeable] = set()
        self._children: set[Cancellation] = set()
        self._parent = parent
        self._process = Process.current
        if parent is not None:
            parent._children.add(self)
            if parent.reason is not None:
                self.cancel(parent.reason)

    def is_cancelled(self) -> bool:
        """Return whether the work was cancelled."""
        return self.reason is not None

    def cancel(self, reason: str) -> None:
        """Cancel the work: wake its waiting threads and shut its sockets down.

        Only the first reason counts. A second call completes one that an interrupt cut short.

        Args:
            reason: Why, as a phrase for a person.
        """
        # setdefault() is atomic: if two threads cancel at once, the first reason counts.
        self.reason = reason = vars(self).setdefault("_first", reason)
        for sleeper in self._sleepers.copy():
            sleeper.wake()
        if self._process is Process.current:
            # In a forked child the sockets are the parent's, which still uses them.
            for sock in self._sockets.copy():
                self._take_away(sock)
        for child in self._children.copy():
            child.cancel(reason)

    def nudge(self) -> None:
        """Wake what sleeps, without cancelling the work: what it waits for may be there."""
        for sleeper in self._sleepers.copy():
            sleeper.wake()

    def check(self) -> None:
        """Raise if the work was cancelled.

        Raises:
            Cancelled: It was.
        """
        if self.reason is not None:
            raise Cancelled(self.reason)

    def wait(self, seconds: float) -> None:
        """Sleep, and stop sleeping as soon as the work is cancelled.

        Args:
            seconds: How long (seconds).

        Raises:
            Cancelled: The work was cancelled before or during the sleep.
        """
        waiter = Waiter()
        self.attach(waiter)
        try:
            waiter.wait(seconds)
        finally:
            self.detach(waiter)
        self.check()

    def attach(self, sleeper: Wakeable) -> None:
        """Wake an object when the work is cancelled, or at once if it already was.

        Args:
            sleeper: The object. It stays attached until :meth:`detach`.
        """
        self._sleepers.add(sleeper)
        if self.reason is not None:
            sleeper.wake()

    def detach(self, sleeper: Wakeable) -> None:
        """Stop waking an object.

        Args:
            sleeper: The object that was attached.
        """
        self._sleepers.discard(sleeper)

    def watch(self, sock: socket.socket) -> None:
        """Register a socket that is about to be read, so that :meth:`cancel` can wake the reader.

        Args:
            sock: The socket.
        """
        self._sockets.add(sock)
        if self.reason is not None:
            self._take_away(sock)

    def unwatch(self, sock: socket.socket) -> None:
        """Unregister a socket. Call this before the socket goes to another user.

        Args:
            sock: The socket.
        """
        self._sockets.discard(sock)
        if sock in self._doomed:
            # cancel() is about to shut it down. Do so now: the next user must find it dead.
            _shut_down(sock)

    def close(self) -> None:
        """Detach from the parent: cancelling the parent no longer cancels this token."""
        if self._parent is not None:
            self._parent._children.discard(self)

    def within(self, other: Cancellation) -> bool:
        """Return whether this token is ``other`` or a descendant of it."""
        ancestor: Cancellation | None = self
        while ancestor is not None:
            if ancestor is other:
                return True
            ancestor = ancestor._parent
        return False

    def _take_away(self, sock: socket.socket) -> None:
        """Shut a socket down, unless its reader has unregistered it in the meantime."""
        self._doomed.add(sock)
        with contextlib.suppress(KeyError):
            self._sockets.remove(sock)
            _shut_down(sock)
        self._doomed.discard(sock)


def _shut_down(sock: socket.socket) -> None:
    # SSLSocket.shutdown() would drop the TLS object that the reader is using.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


_current: ContextVar[Cancellation | None] = ContextVar("cancellation", default=None)


# The two halves of scope(), for code that runs too often for a context manager.
enter = _current.set
leave = _current.reset

current: Callable[[], Cancellation | None] = _current.get
"""Return the token of the work that the caller belongs to; None outside of any work."""


@contextlib.contextmanager
def watched(sock: socket.socket | None) -> Iterator[None]:
    """Within the ``with``, let the current token wake a thread that reads a socket.

    Args:
        sock: The socket; None does nothing.
    """
    cancellation = current()
    if cancellation is None or sock is None:
        yield
        return
    cancellation.watch(sock)
    try:
        yield
    finally:
        cancellation.unwatch(sock)


class scope:  # noqa: N801 - named like those of contextlib, whose generators are 3 times slower
    """Within the ``with``, make a token the current one. Work that starts there belongs to it."""

    __slots__ = ("_cancellation", "_token")

    def __init__(self, cancellation: Cancellation) -> None:
        self._cancellation = cancellation

    def __enter__(self) -> None:
        self._token = _current.set(self._cancellation)

    def __exit__(self, *unused: object) -> None:
        _current.reset(self._token)
