"""The base class of the servers, which runs each connection in a thread."""

import itertools
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from .connection import ClientGone, Connection

# Begins the name of each thread of a server of ours: the tests' check for threads left alive
# passes over these.
THREADS = "loopback-server"

HOST = "127.0.0.1"


class Listener:
    """A TCP server on loopback that serves each connection in a daemon thread.

    Listens from the moment it is made. Leaving the context, or `close()`, ends all connections
    and threads, and raises what a server's own code raised meanwhile.

    Attributes:
        port: The port it listens on.
        connections: How many connections were accepted.
        most_connections: The greatest number of them that were open at once.
        failed_handshakes: The error of each failed TLS handshake.
        changed: The condition that guards the records; notified when there is a new one.
        closing: Set when the server closes.
    """

    scheme = "http"

    def __init__(self, tls: ssl.SSLContext | None = None):
        self._tls = tls
        self._listening = socket.create_server((HOST, 0), backlog=512)
        self.port: int = self._listening.getsockname()[1]
        self.connections = 0
        self.most_connections = 0
        self.failed_handshakes: list[str] = []
        self.changed = threading.Condition()
        self.closing = threading.Event()
        self._errors: list[Exception] = []
        self._open: dict[Connection, threading.Thread] = {}  # guarded by `changed`
        self._acceptor = self._thread(self._accept)
        self._acceptor.start()

    def serve(self, connection: Connection) -> None:
        """Serve one connection in its thread. It is closed properly on return."""
        raise NotImplementedError

    @property
    def open_connections(self) -> int:
        """The number of connections that are open now."""
        return len(self._open)

    @property
    def host(self) -> str:
        """Host and port in the form of a Host header."""
        return f"{HOST}:{self.port}"

    def url(self, path: str = "/", host: str = HOST, userinfo: str = "") -> str:
        """The URL of a path on this server.

        Args:
            path: The path with its leading slash, encoded as it is to be sent.
            host: Another name for the host.
            userinfo: 'name:password', encoded.
        """
        scheme = self.scheme + ("s" if self._tls else "")
        return f"{scheme}://{userinfo}{'@' if userinfo else ''}{host}:{self.port}{path}"

    def until(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        """Wait until the server's records meet the condition.

        Raises:
            TimeoutError: The condition doesn't become true in time.
        """
        with self.changed:
            if not self.changed.wait_for(lambda: bool(condition()), seconds):
                raise TimeoutError(f"the server did not see it within {seconds} s")

    def wait(self, event: threading.Event) -> None:
        """Wait for a test's event or for the end of the server."""
        while not event.wait(0.05):
            if self.closing.is_set():
                raise ClientGone

    def close(self) -> None:
        """End all connections and threads, and raise their errors."""
        if self.closing.is_set():
            return
        self.closing.set()
        # Wakes the acceptor.
        with suppress(OSError):
            socket.create_connection((HOST, self.port), timeout=30).close()
        self._acceptor.join(30)
        self._listening.close()
        with self.changed:
            remaining = dict(self._open)
        for connection in remaining:
            connection.interrupt()
        for thread in remaining.values():
            thread.join(30)
            if thread.is_alive():
                raise RuntimeError(f"{thread.name} does not end")
        if self._errors:
            raise self._errors[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _thread(self, target: Callable[..., None], *args: object) -> threading.Thread:
        name = f"{THREADS} {type(self).__name__} {self.port}"
        return threading.Thread(target=target, args=args, name=name, daemon=True)

    def _accept(self) -> None:
        for index in itertools.count():
            sock, _ = self._listening.accept()
            if self.closing.is_set():
                sock.close()
                return
            try:
                connection = Connection(index, sock, self._tls)
            except OSError:  # reset before we looked at it
                sock.close()
                continue
            thread = self._thread(self._run, connection)
            with self.changed:
                self.connections = index + 1
                self._open[connection] = thread
                self.most_connections = max(self.most_connections, len(self._open))
                self.changed.notify_all()
            thread.start()

    def _run(self, connection: Connection) -> None:
        try:
            if self._shaken(connection):
                self.serve(connection)
                connection.finish()
        except (ClientGone, OSError):
            pass
        except Exception as error:  # noqa: BLE001 - a test's mistake: `close()` raises it
            self._errors.append(error)
        finally:
            connection.cut()
            with self.changed:
                del self._open[connection]
                self.changed.notify_all()

    def _shaken(self, connection: Connection) -> bool:
        try:
            connection.handshake()
        except OSError as error:
            with self.changed:
                self.failed_handshakes.append(str(error))
                self.changed.notify_all()
            return False
        return True
