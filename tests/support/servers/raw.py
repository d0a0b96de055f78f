"""A server that follows a script byte by byte.

Example::

    whole = reply(body=b'content')
    with RawServer([[Recv(), Send(whole[:-2]), Reset()], serve(whole)]) as server:
        ...
"""

import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .connection import ClientGone, Connection
from .listener import Listener
from .message import Request, chunked, reply

__all__ = [
    "Close",
    "ConnectionLog",
    "Cut",
    "Damage",
    "Drip",
    "Loop",
    "RawServer",
    "Read",
    "Recv",
    "Request",
    "Reset",
    "Script",
    "Send",
    "Signal",
    "Stall",
    "Step",
    "Wait",
    "chunked",
    "reply",
    "serve",
]


@dataclass(frozen=True)
class Recv:
    """Read and record the head of one request."""


@dataclass(frozen=True)
class Read:
    """Read and record `size` bytes, or up to and including the mark `until`."""

    size: int = 1
    until: bytes = b""


@dataclass(frozen=True)
class Send:
    """Send bytes, or the result of a function of the connection's last request."""

    data: bytes | Callable[[Request], bytes]


@dataclass(frozen=True)
class Damage:
    """Send bytes below the TLS layer, which damages the TLS stream."""

    data: bytes = bytes([23, 3, 3, 0, 32, *range(32)])


@dataclass(frozen=True)
class Drip:
    """Send `size` bytes at a time, with a pause of `every` seconds before each but the first."""

    data: bytes
    every: float
    size: int = 1


@dataclass(frozen=True)
class Wait:
    """Wait until the test sets the event."""

    event: threading.Event


@dataclass(frozen=True)
class Signal:
    """Set the event, to tell the test that the script has reached this step."""

    event: threading.Event


@dataclass(frozen=True)
class Stall:
    """Do nothing until the client disconnects or the server is closing."""


@dataclass(frozen=True)
class Close:
    """Close properly, like the end of a script."""


@dataclass(frozen=True)
class Cut:
    """End by FIN alone: like `Close`, but over TLS without the close_notify."""


@dataclass(frozen=True)
class Reset:
    """End by RST. Data that the client hasn't received yet may be lost."""


@dataclass(frozen=True)
class Loop:
    """Repeat these steps so many times, or until the client disconnects."""

    steps: Sequence["Step"]
    times: int | None = None


Step = Recv | Read | Send | Damage | Drip | Wait | Signal | Stall | Close | Cut | Reset | Loop
Script = Sequence[Step]


def serve(data: bytes | Callable[[Request], bytes]) -> Script:
    """Make the script that answers every request of a connection with the same bytes."""
    return [Loop([Recv(), Send(data)])]


@dataclass
class ConnectionLog:
    """A record of one connection.

    Attributes:
        index: The connection's number, from 0.
        requests: The requests that `Recv` read.
        received: The bytes that `Read` read.
        sent: How many bytes were handed to the system to be sent.
        steps: The steps that were done.
        end: None while it lasts, else 'script' (all was done), 'client gone', or 'closing'.
    """

    index: int
    requests: list[Request] = field(default_factory=list)
    received: bytes = b""
    sent: int = 0
    steps: list[Step] = field(default_factory=list)
    end: str | None = None


class _Over(Exception):
    """Raised when a step has ended the connection."""


class RawServer(Listener):
    """Plays a script on each connection.

    Args:
        scripts: One script for each connection in the order accepted, the last one for all that
            follow; or a function from the connection's number to its script.
        tls: Serve TLS with this context.

    Attributes:
        logs: One `ConnectionLog` for each connection whose TLS handshake, if any, succeeded.
        requests: All requests that were read, in their order.
    """

    def __init__(
        self,
        scripts: Sequence[Script] | Callable[[int], Script],
        tls: ssl.SSLContext | None = None,
    ):
        self._scripts = scripts
        self.logs: list[ConnectionLog] = []
        self.requests: list[Request] = []
        super().__init__(tls)

    def serve(self, connection: Connection) -> None:
        """Play the connection's script."""
        log = ConnectionLog(connection.index)
        with self.changed:
            self.logs.append(log)
            self.changed.notify_all()
        end = "script"
        try:
            self._play(self._script(connection.index), connection, log)
        except _Over:
            pass
        except (ClientGone, OSError):
            end = "closing" if self.closing.is_set() else "client gone"
        else:
            connection.finish()
        finally:
            with self.changed:
                log.end = end
                self.changed.notify_all()

    def _script(self, index: int) -> Script:
        if callable(self._scripts):
            return self._scripts(index)
        return self._scripts[min(index, len(self._scripts) - 1)]

    def _play(self, script: Script, connection: Connection, log: ConnectionLog) -> None:
        for step in script:
            if isinstance(step, Close | Cut | Reset):
                log.steps.append(step)
                self._end(step, connection)
                raise _Over
            self._do(step, connection, log)
            with self.changed:
                log.steps.append(step)
                self.changed.notify_all()

    def _do(self, step: Step, connection: Connection, log: ConnectionLog) -> None:
        match step:
            case Recv() | Read():
                self._read(step, connection, log)
            case Send(data):
                self._send(data(log.requests[-1]) if callable(data) else data, connection, log)
            case Damage(data):
                socket.socket.sendall(connection.socket, data)
            case Drip():
                self._drip(step, connection, log)
            case Wait(event):
                self.wait(event)
            case Signal(event):
                event.set()
            case Stall():
                connection.wait_until_gone()
            case Loop(steps, times):
                for _ in itertools.count() if times is None else range(times):
                    self._play(steps, connection, log)
            case _:
                raise TypeError(f"{step!r} is no step")

    def _read(self, step: Recv | Read, connection: Connection, log: ConnectionLog) -> None:
        if isinstance(step, Read):
            data = connection.read_until(step.until) if step.until else connection.read(step.size)
            with self.changed:
                log.received += data
                self.changed.notify_all()
            return
        request = connection.read_request()
        with self.changed:
            log.requests.append(request)
            self.requests.append(request)
            self.changed.notify_all()

    def _send(self, data: bytes, connection: Connection, log: ConnectionLog) -> None:
        connection.send(data)
        with self.changed:
            log.sent += len(data)
            self.changed.notify_all()

    def _drip(self, step: Drip, connection: Connection, log: ConnectionLog) -> None:
        for start in range(0, len(step.data), step.size):
            if start and self.closing.wait(step.every):
                raise ClientGone
            self._send(step.data[start : start + step.size], connection, log)

    @staticmethod
    def _end(step: Close | Cut | Reset, connection: Connection) -> None:
        match step:
            case Close():
                connection.finish()
            case Cut():
                connection.cut()
            case Reset():
                connection.reset()
