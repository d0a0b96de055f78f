"""A server that answers several requests of one connection at a time, and notes how many came."""

import ssl
import time
from collections.abc import Callable, Iterator

from .connection import ClientGone, Connection
from .listener import Listener
from .message import Request, reply

END = b"\r\n\r\n"

Answer = Callable[[list[str], Connection], Iterator[bytes]]


class TrainServer(Listener):
    """Serves files from memory by HTTP/1.1.

    Args:
        files: The content of each file by its path.
        answer: Yields what is sent in reply to requests that came together, by their paths. It
            raises ClientGone to end the connection. None for the right replies.
        delay: How long each answer takes (seconds).
        tls: Serve TLS with this context.

    Attributes:
        trains: The paths of the requests that came together, for each time that some came.
        sizes: How many bytes these requests had.
        requests: All requests.
        answer: As above. A test may exchange it.
    """

    def __init__(
        self,
        files: dict[str, bytes],
        answer: Answer | None = None,
        delay: float = 0.0,
        tls: ssl.SSLContext | None = None,
    ):
        self.files = files
        self.answer = answer or self.right
        self.trains: list[list[str]] = []
        self.sizes: list[int] = []
        self.requests: list[Request] = []
        self._delay = delay
        super().__init__(tls)

    def right(self, paths: list[str], _: Connection) -> Iterator[bytes]:
        """Yield the right reply to each request."""
        for path in paths:
            yield self.reply(path)

    def reply(self, path: str) -> bytes:
        """Return the right reply to a request for a path."""
        return reply(body=self.files[path], headers={"ETag": f'"{path}"'})

    @property
    def depth(self) -> int:
        """How many requests came together at most."""
        return max(map(len, self.trains))

    def times(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(paths.count(path) for paths in self.trains)

    def serve(self, connection: Connection) -> None:
        """Answer whatever has come, until the client ends the connection."""
        while True:
            received = connection.read_some()
            while not received.endswith(END):
                received += connection.read_some()
            requests = [Request(raw + END) for raw in received.split(END)[:-1]]
            paths = [request.path for request in requests]
            with self.changed:
                self.trains.append(paths)
                self.sizes.append(len(received))
                self.requests += requests
                self.changed.notify_all()
            time.sleep(self._delay)
            for data in self.answer(paths, connection):
                connection.send(data)
            if self.closing.is_set():
                raise ClientGone
