"""The cancellation token that every wait of a download listens to."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Protocol

from .atomic import Waiter
from .lock import this_process


class Cancelled(Exception):
    """The work that the caller is part of is to stop.

    Attributes:
        reason (str): Why, in words for a person.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Wakeable(Protocol):
    """What a cancellation wakes."""

    def wake(self) -> object:
        """Have a look at the cancellation. It may be called several times, and must not block."""


class Cancellation:
    """A cancellation token: says once, and for good, that work is to stop.

    Cancellations form a tree: what stops a batch stops its downloads, and the downloads that their
    handlers run. A read that blocks is woken by shutting its socket down; the reader then sees an
    end of file, and must look here before believing it.

    No method takes a lock. Each adds first and looks at the reason then, while :meth:`cancel` sets
    the reason first and looks then: so one of them sees the other.
    """

    def __init__(self, parent: Cancellation | None = None) -> None:
        """Make a token that nobody has cancelled.

        Args:
            parent: Cancelling it cancels this one too, until :meth:`close`.
        """
        # The first reason under "reason", once there is one.
        self._reasons: dict[str, str] = {}
        self._sockets: set[socket.socket] = set()
        # Sockets that cancel() has taken away from their readers and is about to shut down.
        self._doomed: set[socket.socket] = set()
        self._sleepers: set[Wakeable] = set()
        self._children: set[Cancellation] = set()
        self._parent = parent
        self._process = this_process()
        if parent is not None:
            parent._children.add(self)
            if parent.reason is not None:
                self.cancel(parent.reason)

    @property
    def reason(self) -> str | None:
        """Why work is to stop; None while it may go on."""
        return self._reasons.get("reason")

    def is_cancelled(self) -> bool:
        """Whether work is to stop."""
        return bool(self._reasons)

    def cancel(self, reason: str) -> None:
        """Stop: wake whatever waits. Only the first reason counts.

        It can be called again, and then finishes what an interrupt has cut short.

        Args:
            reason: Why, in words for a person.
        """
        reason = self._reasons.setdefault("reason", reason)
        for sleeper in tuple(self._sleepers):
            sleeper.wake()
        if self._process is this_process():
            # Else they are the connections of the parent, which goes on.
            for sock in tuple(self._sockets):
                self._take_away(sock)
        for child in tuple(self._children):
            child.cancel(reason)

    def check(self) -> None:
        """Go on only if nobody has cancelled.

        Raises:
            Cancelled: Somebody has.
        """
        if self._reasons:
            raise Cancelled(self._reasons["reason"])

    def wait(self, seconds: float) -> None:
        """Wait, unless work is to stop.

        Args:
            seconds: How long.

        Raises:
            Cancelled: It was cancelled before or meanwhile.
        """
        waiter = Waiter()
        self.attach(waiter)
        try:
            waiter.wait(seconds)
        finally:
            self.detach(waiter)
        self.check()

    def attach(self, sleeper: Wakeable) -> None:
        """Wake something when it is cancelled; at once if it was already.

        Args:
            sleeper: What to wake, until :meth:`detach`.
        """
        self._sleepers.add(sleeper)
        if self._reasons:
            sleeper.wake()

    def detach(self, sleeper: Wakeable) -> None:
        """Don't wake something any more.

        Args:
            sleeper: What was attached.
        """
        self._sleepers.discard(sleeper)

    def watch(self, sock: socket.socket) -> None:
        """Say that a socket is being read, so that cancelling can wake the reader.

        Args:
            sock: The socket.
        """
        self._sockets.add(sock)
        if self._reasons:
            self._take_away(sock)

    def unwatch(self, sock: socket.socket) -> None:
        """Say that a socket isn't read any more. Only then may others have it.

        Args:
            sock: The socket.
        """
        self._sockets.discard(sock)
        if sock in self._doomed:
            # Whoever gets the connection next must find it dead now, and not in a moment.
            _shut_down(sock)

    def close(self) -> None:
        """Let go of the parent: what it stops no longer matters here."""
        if self._parent is not None:
            self._parent._children.discard(self)

    def within(self, other: Cancellation) -> bool:
        """Whether this is the other one or a descendant of it."""
        ancestor: Cancellation | None = self
        while ancestor is not None:
            if ancestor is other:
                return True
            ancestor = ancestor._parent
        return False

    def _take_away(self, sock: socket.socket) -> None:
        """Shut a socket down, unless its reader has let go of it meanwhile."""
        self._doomed.add(sock)
        with contextlib.suppress(KeyError):
            self._sockets.remove(sock)
            _shut_down(sock)
        self._doomed.discard(sock)


def _shut_down(sock: socket.socket) -> None:
    # The plain socket's shutdown: that of a TLS socket pulls the TLS object from under the reader.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


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
