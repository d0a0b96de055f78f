"""A keep-alive HTTP/1.1 server of files in memory, with ranges, conditions, and faults on demand.

Example::

    with FileServer({'/a': b'content', '/b': Redirect('/a')}) as server:
        server.faults = {0: CutAfter(3)}
        ...
"""

import re
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime

from .connection import Connection
from .listener import Listener
from .message import Headers, Request, basic, head, pairs

# A response up to this size is sent with one system call.
SMALL = 1 << 16


@dataclass(frozen=True)
class File:
    """A file with headers, validators and other options.

    Attributes:
        body: The bytes as they are sent.
        etag: The ETag with its quotes, and W/ if weak.
        last_modified: An HTTP date.
        content_encoding: The coding of the body.
        headers: Further header fields, which replace the server's own of the same name.
        status: The status. Only with 200 are ranges and conditions supported.
        ranges: Whether ranges are supported.
    """

    body: bytes
    etag: str | None = None
    last_modified: str | None = None
    content_encoding: str | None = None
    headers: Headers = ()
    status: int = 200
    ranges: bool = True


@dataclass(frozen=True)
class Redirect:
    """A redirect; `location` may be relative."""

    location: str
    status: int = 302
    body: bytes = b""
    headers: Headers = ()


@dataclass(frozen=True)
class CutAfter:
    """End the connection (by FIN) after so many bytes of the body, or of the `whole` reply."""

    size: int
    whole: bool = False


@dataclass(frozen=True)
class ResetAfter:
    """Reset the connection after so many bytes of the body, or of the `whole` reply."""

    size: int
    whole: bool = False


@dataclass(frozen=True)
class StallAfter:
    """Send nothing more after so many bytes of the body, or of the `whole` reply."""

    size: int
    whole: bool = False


@dataclass(frozen=True)
class HoldAfter:
    """Send so many bytes of the body, and the rest when the test sets the event."""

    size: int
    event: threading.Event


@dataclass(frozen=True)
class Slow:
    """Send so many bytes of the body at a time, with a pause (seconds) behind each."""

    size: int
    pause: float


@dataclass(frozen=True)
class Status:
    """Answer with this status instead of the file."""

    status: int
    headers: Headers = ()
    body: bytes = b""


@dataclass(frozen=True)
class Hold:
    """Answer when the test sets the event."""

    event: threading.Event


Entry = bytes | File | Redirect
Fault = CutAfter | ResetAfter | StallAfter | HoldAfter | Slow | Status | Hold
Faults = Mapping[int, Fault] | Callable[[int, Request], Fault | None]


@dataclass(frozen=True)
class _Reply:
    head: bytes
    body: bytes


class FileServer(Listener):
    """Serves files by GET and HEAD, with ranges and conditions, and 404 for missing ones.

    Args:
        files: From the path, as it stands in the request (with its query, or without), to what
            is served. The server looks at the caller's own mapping, which may change meanwhile.
        user: Name and password demanded by basic authentication.
        faults: From the number of a request (from 0, all connections together) to what goes
            wrong with it; or a function of that number and the request. The attribute may be
            set anew at any time.
        tls: Serve TLS with this context.
        record: Keep each request; without, they are only counted.

    Attributes:
        count: How many requests came.
        requests: The requests, in their order.
    """

    def __init__(
        self,
        files: Mapping[str, Entry],
        user: tuple[str, str] | None = None,
        faults: Faults | None = None,
        tls: ssl.SSLContext | None = None,
        record: bool = True,
    ):
        self.files = files
        self.faults: Faults = {} if faults is None else faults
        self.count = 0
        self.requests: list[Request] = []
        self._record = record
        self._authorization = None if user is None else basic(*user)
        self._date = formatdate(usegmt=True)
        self._built: dict[str, tuple[Entry, _Reply]] = {}
        super().__init__(tls)

    @property
    def paths(self) -> list[str]:
        """The target of each request, in order."""
        return [request.target for request in self.requests]

    def serve(self, connection: Connection) -> None:
        """Answer the connection's requests, one after the other."""
        while True:
            request = connection.read_request()
            with self.changed:
                index = self.count
                self.count += 1
                if self._record:
                    self.requests.append(request)
                self.changed.notify_all()
            fault = self.faults(index, request) if callable(self.faults) else self.faults.get(index)
            if isinstance(fault, Hold):
                self.wait(fault.event)
            if isinstance(fault, Status):
                reply = self._reply(fault.status, fault.headers, fault.body)
            else:
                reply = self._answer(request)
            body = b"" if request.method == "HEAD" else reply.body
            if isinstance(fault, CutAfter | ResetAfter | StallAfter):
                self._break(connection, fault, reply.head, body)
                return
            if isinstance(fault, HoldAfter | Slow):
                self._send_slowly(connection, fault, reply.head, body)
            elif len(body) < SMALL:
                connection.send(reply.head + body)
            else:
                connection.send(reply.head)
                connection.send(body)
            if not request.keep_alive:
                return

    def _send_slowly(
        self, connection: Connection, fault: HoldAfter | Slow, start: bytes, body: bytes
    ) -> None:
        connection.send(start + body[: fault.size])
        if isinstance(fault, HoldAfter):
            self.wait(fault.event)
            connection.send(body[fault.size :])
            return
        for begin in range(fault.size, len(body), fault.size):
            self.closing.wait(fault.pause)
            connection.send(body[begin : begin + fault.size])

    @staticmethod
    def _break(connection: Connection, fault: Fault, start: bytes, body: bytes) -> None:
        assert isinstance(fault, CutAfter | ResetAfter | StallAfter)
        size = fault.size if fault.whole else len(start) + fault.size
        connection.send((start + body)[:size])
        match fault:
            case CutAfter():
                connection.cut()
            case ResetAfter():
                connection.reset()
            case StallAfter():
                connection.wait_until_gone()

    def _answer(self, request: Request) -> _Reply:
        if self._authorization and request.header("Authorization") != self._authorization:
            return self._reply(401, {"WWW-Authenticate": 'Basic realm="files"'}, b"who are you?")
        if request.method not in ("GET", "HEAD"):
            return self._reply(405, {"Allow": "GET, HEAD"}, b"not allowed")
        entry = self.files.get(request.target, self.files.get(request.path))
        match entry:
            case None:
                return self._reply(404, (), b"not found")
            case Redirect(location, status, body, headers):
                return self._reply(status, [("Location", location), *pairs(headers)], body)
            case bytes():
                file = File(entry)
            case _:
                file = entry
        if self._is_unchanged(request, file):
            return self._reply(304, self._describe(file), b"")
        return self._part(request, file) or self._whole(request.path, entry, file)

    def _whole(self, path: str, entry: Entry, file: File) -> _Reply:
        kept, reply = self._built.get(path, (None, None))
        if reply is None or kept is not entry:
            reply = self._reply(file.status, self._describe(file), file.body)
            # `get` would make a lazy mapping create its entries here.
            if isinstance(self.files, dict):
                self._built[path] = (entry, reply)
        return reply

    @staticmethod
    def _is_unchanged(request: Request, file: File) -> bool:
        """Return whether a condition is answered with 304 (RFC 9110, 13.1.2, 13.1.3 and 13.2.2)."""
        etags, since = request.header("If-None-Match"), request.header("If-Modified-Since")
        if file.status != 200:
            return False
        if etags is not None:
            known = [etag.strip().removeprefix("W/") for etag in etags.split(",")]
            return "*" in known or (file.etag or "").removeprefix("W/") in known
        if since is None or file.last_modified is None:
            return False
        return parsedate_to_datetime(file.last_modified) <= parsedate_to_datetime(since)

    def _part(self, request: Request, file: File) -> _Reply | None:
        """Return the response to a range (RFC 9110, 14.2 and 13.1.5); None for the whole file."""
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", request.header("Range") or "")
        if not found or not any(found.groups()):
            return None
        condition = request.header("If-Range")
        matches = condition is None or (
            condition in (file.etag, file.last_modified) and not condition.startswith("W/")
        )
        if not matches or not file.ranges or file.status != 200:
            return None
        total = len(file.body)
        if found[1]:
            start, end = int(found[1]), min(int(found[2] or total), total - 1)
            if found[2] and int(found[2]) < start:
                return None
        else:
            start, end = max(total - int(found[2]), 0), total - 1
        if start >= total:
            return self._reply(416, {"Content-Range": f"bytes */{total}"}, b"")
        headers = [("Content-Range", f"bytes {start}-{end}/{total}"), *self._describe(file)]
        return self._reply(206, headers, file.body[start : end + 1])

    @staticmethod
    def _describe(file: File) -> list[tuple[str, str]]:
        described = {
            "Accept-Ranges": "bytes" if file.ranges else None,
            "ETag": file.etag,
            "Last-Modified": file.last_modified,
            "Content-Encoding": file.content_encoding,
        }
        return [(name, value) for name, value in described.items() if value] + pairs(file.headers)

    def _reply(self, status: int, headers: Headers, body: bytes) -> _Reply:
        given = pairs(headers)
        names = {name.lower() for name, _ in given}
        own = {"Date": self._date, "Content-Length": str(len(body))}
        if "transfer-encoding" in names or status < 200 or status in (204, 304):
            del own["Content-Length"]
        own = {name: value for name, value in own.items() if name.lower() not in names}
        return _Reply(head(status, [*own.items(), *given]), body)
