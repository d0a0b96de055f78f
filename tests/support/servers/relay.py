"""A relay in front of a server, that breaks connections."""

import socket
from collections.abc import Callable

from .connection import BLOCK, Connection
from .files import CutAfter, ResetAfter
from .listener import HOST, Listener


class Relay(Listener):
    """Passes each connection on to a server on loopback.

    Args:
        port: The port of the server.
        breaks: From the number of a connection to its end: after so many bytes that the server
            sent, of whatever replies. None for one that isn't broken.
    """

    def __init__(self, port: int, breaks: Callable[[int], CutAfter | ResetAfter | None]):
        self._port = port
        self.breaks = breaks
        super().__init__()

    def serve(self, connection: Connection) -> None:
        """Pass on what each side sends, until one ends or the connection is broken."""
        end = self.breaks(connection.index)
        left = None if end is None else end.size
        with socket.create_connection((HOST, self._port)) as upstream:
            while True:
                if not connection.ready(upstream):
                    upstream.sendall(connection.read_some())
                    continue
                data = upstream.recv(BLOCK)
                if not data:
                    return
                connection.send(data[:left])
                if left is None or (left := left - len(data)) > 0:
                    continue
                if isinstance(end, ResetAfter):
                    connection.reset()
                return
