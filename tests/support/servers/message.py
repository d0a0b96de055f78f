"""HTTP/1.1 messages: a received request head, and the bytes of responses."""

import base64
from collections.abc import Iterable, Mapping
from functools import cached_property
from http import HTTPStatus

REASONS = {item.value: item.phrase for item in HTTPStatus}

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


class Request:
    """The head of a request as it was received.

    Attributes:
        raw: All bytes of the head, the empty line that ends it included.
    """

    def __init__(self, raw: bytes):
        self.raw = raw

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the head, without the line ends."""
        return self.raw.decode("latin-1").split("\r\n")[:-2]

    @property
    def method(self) -> str:
        """The method, as in 'GET'."""
        return self.lines[0].partition(" ")[0]

    @property
    def target(self) -> str:
        """The target: a path with its query, an absolute URI, or host:port for CONNECT."""
        return self.lines[0].partition(" ")[2].rpartition(" ")[0]

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def version(self) -> str:
        """The version, as in 'HTTP/1.1'."""
        return self.lines[0].rpartition(" ")[2]

    @cached_property
    def headers(self) -> list[tuple[str, str]]:
        """The header fields, in order, with names as they were sent."""
        pairs = (line.partition(":") for line in self.lines[1:])
        return [(name, value.strip()) for name, _, value in pairs]

    def header(self, name: str, default: str | None = None) -> str | None:
        """Return the value of the first field of that name, ignoring case."""
        return self._first.get(name.lower(), default)

    @cached_property
    def _first(self) -> dict[str, str]:
        return {name.lower(): value for name, value in reversed(self.headers)}

    @property
    def keep_alive(self) -> bool:
        """Whether the client keeps the connection alive."""
        return self.version != "HTTP/1.0" and (self.header("Connection") or "").lower() != "close"

    def __repr__(self) -> str:
        return f"<Request {self.lines[0]}>"


def pairs(headers: Headers) -> list[tuple[str, str]]:
    """Return header fields as a list of pairs."""
    return list(headers.items() if isinstance(headers, Mapping) else headers)


def head(
    status: int, headers: Headers = (), reason: str | None = None, version: str = "HTTP/1.1"
) -> bytes:
    """Make the head of a response from exactly what is given."""
    if reason is None:
        reason = REASONS.get(status, "Unknown")
    fields = [f"{name}: {value}" for name, value in pairs(headers)]
    lines = [f"{version} {status} {reason}", *fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def reply(
    status: int = 200,
    headers: Headers = (),
    body: bytes = b"",
    length: bool = True,
    reason: str | None = None,
    version: str = "HTTP/1.1",
) -> bytes:
    """Make the bytes of a complete response.

    Args:
        status: The status code; any integer goes.
        headers: A mapping, or pairs where a name comes more than once.
        body: The body as it is sent.
        length: Add the Content-Length, unless `headers` frame the body or the status has none.
        reason: The reason phrase; None for the usual one.
        version: The version in the status line.
    """
    fields = pairs(headers)
    framed = {"content-length", "transfer-encoding"} & {name.lower() for name, _ in fields}
    if length and not framed and status >= 200 and status not in (204, 304):
        fields.append(("Content-Length", str(len(body))))
    return head(status, fields, reason, version) + body


def chunked(body: bytes, sizes: Iterable[int] = (), end: bytes = b"0\r\n\r\n") -> bytes:
    """Encode a body as chunks (RFC 9112, 7.1).

    Args:
        body: The content.
        sizes: Bytes in each chunk; what remains goes into one more.
        end: What follows the chunks; b'' leaves the body open.
    """
    chunks = []
    for size in sizes:
        chunks.append(body[:size])
        body = body[size:]
    chunks.append(body)
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks if chunk) + end


def basic(name: str, password: str) -> str:
    """Make the value of an Authorization field for basic authentication (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()
