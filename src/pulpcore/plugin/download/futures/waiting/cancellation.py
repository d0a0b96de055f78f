"""The one word to stop that every wait of a download listens to."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextvars import ContextVar

from .lock import ForkSafeLock, this_process


class Cancelled(Exception):
    """The work that the caller is part of is to stop.

    Attributes:
        reason (str): Why, in words for a person.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Cancellation:
    """Says once, and for good, that work is to stop.

    Cancellations form a tree: what stops a batch stops its downloads, and the downloads that their
    handlers run. A read that blocks is woken by shutting its socket down; the reader then sees an
    end of file, and must look here before believing it.
    """

    def __init__(self, parent: Cancellation | None = None) -> None:
        """Make one that nobody has cancelled.

        Args:
            parent: Cancelling it cancels this one too, until :meth:`close`.
        """
        # Guards the other attributes.
        self._lock = ForkSafeLock()
        self._reason: str | None = None
        self._sockets: set[socket.socket] = set()
        self._waiting: threading.Event | None = None
        self._children: set[Cancellation] = set()
        self._parent = parent
        self._process = this_process()
        if parent is not None:
            parent._adopt(self)

    @property
    def reason(self) -> str | None:
        """Why work is to stop; None while it may go on."""
        return self._reason

    def cancel(self, reason: str) -> None:
        """Stop: wake whatever waits. Only the first reason counts.

        Args:
            reason: Why, in words for a person.
        """
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            children = list(self._children)
            # Under the lock, for it must not hit a connection that was handed on meanwhile. It
            # doesn't block.
            self._wake()
        for child in children:
            child.cancel(reason)

    def check(self) -> None:
        """Go on only if nobody has cancelled.

        Raises:
            Cancelled: Somebody has.
        """
        if self._reason is not None:
            raise Cancelled(self._reason)

    def wait(self, seconds: float) -> None:
        """Wait, unless work is to stop.

        Args:
            seconds: How long.

        Raises:
            Cancelled: It was cancelled before or meanwhile.
        """
        with self._lock:
            self.check()
            waiting = self._waiting = threading.Event()
        waiting.wait(seconds)
        self.check()

    def watch(self, sock: socket.socket) -> None:
        """Say that a socket is being read, so that cancelling can wake the reader.

        Args:
            sock: The socket.
        """
        with self._lock:
            self._sockets.add(sock)
            if self._reason is not None:
                self._wake()

    def unwatch(self, sock: socket.socket) -> None:
        """Say that a socket isn't read any more. Only then may others have it.

        Args:
            sock: The socket.
        """
        with self._lock:
            self._sockets.discard(sock)

    def close(self) -> None:
        """Let go of the parent: what it stops no longer matters here."""
        if self._parent is not None:
            self._parent._forget(self)

    def within(self, other: Cancellation) -> bool:
        """Whether this is the other one or a descendant of it."""
        ancestor: Cancellation | None = self
        while ancestor is not None:
            if ancestor is other:
                return True
            ancestor = ancestor._parent
        return False

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.set()
        if self._process is not this_process():
            # The connections are those of the parent, which goes on.
            return
        for sock in self._sockets:
            # The plain socket's shutdown: that of a TLS socket pulls the TLS object from under the
            # reader.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _adopt(self, child: Cancellation) -> None:
        with self._lock:
            self._children.add(child)
            reason = self._reason
        if reason is not None:
            child.cancel(reason)

    def _forget(self, child: Cancellation) -> None:
        with self._lock:
            self._children.discard(child)


_current: ContextVar[Cancellation | None] = ContextVar("cancellation", default=None)


def current() -> Cancellation | None:
    """The cancellation of the work that the caller is part of; None outside of any."""
    return _current.get()


@contextlib.contextmanager
def watched(sock: socket.socket | None) -> Iterator[None]:
    """Have a reader woken within the ``with`` when the work that it is part of is to stop.

    Args:
        sock: The socket that is read; None for none.
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


class scope:  # noqa: N801 - used as a function, as contextlib's are; a generator costs thrice as much
    """Make work that is begun within the ``with`` part of what a cancellation stops."""

    __slots__ = ("_cancellation", "_token")

    def __init__(self, cancellation: Cancellation) -> None:
        self._cancellation = cancellation

    def __enter__(self) -> None:
        self._token = _current.set(self._cancellation)

    def __exit__(self, *unused: object) -> None:
        _current.reset(self._token)
