"""The framing of replies by HTTP/1.1 (RFC 9112), without I/O.

Bytes go in, a head and a body come out. The parser is strict: ``http.client`` hands over wrong
bytes where the framing of a reply can't be trusted, and here such a reply is an error.
"""

from __future__ import annotations

import functools
import http
import http.client
import re
from typing import NamedTuple

from .error import FramingError

HEAD_LIMIT = 128 * 1024
"""The most bytes that a head, a line of the chunked coding or the trailers may have."""

INTERIM_LIMIT = 32
"""The most interim (1xx) replies before the final one."""

BLOCK = 256 * 1024
"""How many bytes to receive at a time where the framing sets no limit."""

_STATUS = re.compile(rb"HTTP/(\d)\.(\d) +(\d{3})(?: ([^\r\n\0]*))?")
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD = re.compile(rb"([^:\r\0]*):([^\0]*)")
# Nearly all lines match this one, and need no second look.
_PLAIN = re.compile(
    # Possessive, for no other way to split a line is worth a try.
    r"^([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[ \t]*+([^\r\n\0]*+)\r?$",
    re.MULTILINE,
)
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\r\0]*|[ \t][^\r\0]*")
_SIZE = re.compile(rb"(0*[0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?")
# What stands between the content of one chunk and that of the next, which isn't the last one.
_NEXT = re.compile(rb"\r\n(0*[1-9A-Fa-f][0-9A-Fa-f]{0,14})[ \t]*(?:;[^\r\n\0]*)?\r\n")
_LENGTH = re.compile(r"0*[0-9]{1,18}")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
# These fields say how the body ends. An ill-formed one can't be skipped as others are.
_DECISIVE = frozenset({b"content-length", b"transfer-encoding"})
_NO_BODY = frozenset({http.HTTPStatus.NO_CONTENT, http.HTTPStatus.NOT_MODIFIED})


class Head(NamedTuple):
    """The status line and the fields of a reply."""

    version: int
    """10 or 11, for HTTP/1.0 and HTTP/1.1."""
    status: int
    reason: str
    pairs: list[tuple[str, str]]
    """Name and value of each field, in the order received."""
    fields: dict[str, str]
    """The values by name in lower case; several of one name are one list (RFC 9110 section 5.3)."""


class ReplyParser:
    """Reads one reply from the bytes that its caller received.

    A method that returns None needs more bytes: the caller receives some, passes them to
    :meth:`receive`, and calls it again.

    Attributes:
        length (int | None): How many bytes the body has; None where the head doesn't say.
        keep_alive (bool): The server keeps the connection open after this reply.
        ends_with_connection (bool): Only the end of the connection ends the body.
        is_complete (bool): The body came to its end.
        rest (bytes): What was received and not read yet; what follows the reply, once it is
            complete.
    """

    __slots__ = (
        "_behind_chunk",
        "_has_ended",
        "_in_trailers",
        "_interims",
        "_is_chunked",
        "_left",
        "_method",
        "_searched",
        "_trailers",
        "ends_with_connection",
        "is_complete",
        "keep_alive",
        "length",
        "rest",
    )

    def __init__(self, method: str, received: bytes = b"") -> None:
        """Make a parser for the reply to one request.

        Args:
            method: The method of the request. A reply to HEAD has no body.
            received: What was received already.
        """
        self._method = method
        self._has_ended = False
        # How far the end of the head was searched for.
        self._searched = 0
        self._interims = 0
        self._is_chunked = False
        # How much of the body, or of the chunk, is still to come; None up to the end of the
        # connection.
        self._left: int | None = 0
        # The CR LF that ends a chunk is still to come.
        self._behind_chunk = False
        self._in_trailers = False
        self._trailers = 0
        self.length: int | None = None
        self.keep_alive = False
        self.ends_with_connection = False
        self.is_complete = False
        self.rest = received

    def receive(self, data: bytes) -> None:
        """Take what was received.

        Args:
            data: The bytes; b"" for the end of the connection.
        """
        if not data:
            self._has_ended = True
        self.rest = self.rest + data if self.rest else data

    def wanted(self, size: int) -> int:
        """Return how many bytes to receive, so that the body isn't exceeded where it needs not be.

        Args:
            size: The most bytes that the next :meth:`read_body` may return.
        """
        if self.ends_with_connection:
            return size
        return min(size, self._left) if self._left else BLOCK

    def read_head(self) -> Head | None:
        """Return the head, without the interim replies before it (RFC 9110 section 15.2).

        Returns:
            The head; None if more bytes are needed.

        Raises:
            FramingError: The head isn't well-formed, or contradicts itself.
            http.client.RemoteDisconnected: The connection ended before the reply began.
            http.client.IncompleteRead: It ended in the head.
        """
        if not self.rest and not self._has_ended:
            return None
        while (block := self._head_block()) is not None:
            line, _, lines = block.partition(b"\n")
            version, status, reason = _status(line.removesuffix(b"\r"))
            pairs = _fields(lines) if lines else []
            if not 100 <= status < 200:
                head = Head(version, status, reason, pairs, _by_name(pairs))
                self._frame(head)
                return head
            if status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                raise FramingError("the server switched to another protocol, unasked")
            self._interims += 1
            if self._interims == INTERIM_LIMIT:
                raise FramingError(
                    f"more than {INTERIM_LIMIT} interim replies came before the real one"
                )
        return None

    def read_body(self, size: int) -> bytes | None:
        """Return the next piece of the body.

        Args:
            size: The most bytes to return, at least 1.

        Returns:
            What is there; b"" at the end of the body; None if more bytes are needed.

        Raises:
            http.client.IncompleteRead: The connection ended before the body did.
            FramingError: A chunk isn't well-formed.
        """
        if self.is_complete:
            return b""
        if self._is_chunked:
            return self._read_chunks(size)
        if self.rest:
            data = self._take(size)
            if self._left == 0:
                self.is_complete = True
            return data
        if self.ends_with_connection and self._has_ended:
            self.is_complete = True
            return b""
        self._expect_more()
        return None

    def _frame(self, head: Head) -> None:
        """Find out how the body ends (RFC 9112 section 6.3)."""
        coding = head.fields.get("transfer-encoding")
        lengths = head.fields.get("content-length")
        length = None if lengths is None else _content_length(lengths)
        connection = head.fields.get("connection")
        options = (
            {word.strip(" \t").lower() for word in connection.split(",")} if connection else ()
        )
        keep_alive = "keep-alive" in options if head.version < 11 else "close" not in options
        if self._method == "HEAD" or head.status in _NO_BODY:
            length = 0
        elif coding is not None:
            if coding.lower() != "chunked":
                raise FramingError("its transfer coding isn't 'chunked'")
            self._is_chunked = True
            # A length beside it may be an attempt at smuggling (RFC 9112 section 6.1).
            keep_alive = keep_alive and length is None and head.version >= 11
            length = None
        self.length = length
        self.keep_alive = keep_alive
        if not self._is_chunked:
            self._left = length
            self.is_complete = length == 0
            if length is None:
                self.ends_with_connection, self.keep_alive = True, False

    def _head_block(self) -> bytes | None:
        """Take the next head. Its lines may be ended by LF alone (RFC 9112 section 2.2)."""
        buffer = self.rest
        found = _HEAD_END.search(buffer, self._searched)
        end = found.start() if found else len(buffer)
        if end > HEAD_LIMIT:
            raise FramingError(f"the head is longer than {HEAD_LIMIT} bytes")
        if found is None:
            if not b"HTTP/".startswith(buffer[:5]):
                raise FramingError("the reply doesn't begin with HTTP/")
            if self._has_ended and not buffer:
                raise http.client.RemoteDisconnected(
                    "the server closed the connection without a reply"
                )
            # The end may have begun already.
            self._searched = max(0, end - 3)
            self._expect_more()
            return None
        self._searched = 0
        self.rest = buffer[found.end() :]
        return buffer[:end]

    def _read_chunks(self, size: int) -> bytes | None:
        if not self._left:
            if self._next_chunk() is None:
                return None
            if self.is_complete:
                return b""
        if not self.rest:
            self._expect_more()
            return None
        data = self._take(size)
        return data if self._left else self._gather(data, size)

    def _take(self, size: int) -> bytes:
        """Take what is there of the body or the chunk, up to a size."""
        if self._left is not None:
            size = min(size, self._left)
        data, self.rest = self.rest[:size], self.rest[size:]
        if self._left is not None:
            self._left -= len(data)
        return data

    def _gather(self, data: bytes, size: int) -> bytes:
        """Add the next chunks to a piece, as far as they are here.

        Each piece costs its reader time. What isn't here as a whole, or isn't well-formed, is left
        to :meth:`_next_chunk`.
        """
        parts = [data]
        size -= len(data)
        at = 0
        while size and not self._left and (match := _NEXT.match(self.rest, at)):
            self._left = int(match.group(1), 16)
            data = self.rest[match.end() : match.end() + min(size, self._left)]
            at = match.end() + len(data)
            self._left -= len(data)
            size -= len(data)
            parts.append(data)
        self.rest = self.rest[at:]
        return b"".join(parts)

    def _next_chunk(self) -> bytes | None:
        """Go on to the next chunk, or to the end of the body (RFC 9112 section 7.1).

        Returns:
            None if more bytes are needed.
        """
        if self._in_trailers:
            return self._read_trailers()
        if self._behind_chunk:
            if not b"\r\n".startswith(self.rest[:2]):
                raise FramingError(
                    "a chunk isn't ended by CR LF: it is longer or shorter than it says"
                )
            if len(self.rest) < 2:
                self._expect_more()
                return None
            self.rest = self.rest[2:]
            self._behind_chunk = False
        line = self._read_line()
        if line is None:
            return None
        match = _SIZE.fullmatch(line)
        if match is None:
            raise FramingError("the size of a chunk isn't plain hex")
        self._left = int(match.group(1), 16)
        if self._left:
            self._behind_chunk = True
            return line
        self._in_trailers = True
        return self._read_trailers()

    def _read_trailers(self) -> bytes | None:
        while line := self._read_line():
            self._trailers += len(line)
            if self._trailers > HEAD_LIMIT:
                raise FramingError(f"the trailers are longer than {HEAD_LIMIT} bytes")
            # Nobody wants them, but another line would show that this isn't the end.
            if _TRAILER.fullmatch(line) is None:
                raise FramingError("a line of the trailers isn't a field")
        if line is not None:
            self.is_complete = True
        return line

    def _read_line(self) -> bytes | None:
        """Take a line of the chunked coding, which must be ended by CR LF."""
        end = self.rest.find(b"\n")
        if end < 0:
            if len(self.rest) > HEAD_LIMIT:
                raise FramingError(f"a line of a chunk is longer than {HEAD_LIMIT} bytes")
            self._expect_more()
            return None
        line, self.rest = self.rest[:end], self.rest[end + 1 :]
        if not line.endswith(b"\r"):
            raise FramingError("a line of a chunk isn't ended by CR LF")
        return line[:-1]

    def _expect_more(self) -> None:
        """Go on only if there may be more bytes."""
        if self._has_ended:
            raise http.client.IncompleteRead(b"", self._left or None)


# Nearly all replies have the same.
@functools.lru_cache(maxsize=16)
def _status(line: bytes) -> tuple[int, int, str]:
    match = _STATUS.fullmatch(line)
    if match is None or match.group(1) != b"1" or int(match.group(3)) < 100:
        raise FramingError("the status line isn't that of HTTP/1")
    version = 10 if match.group(2) == b"0" else 11
    return version, int(match.group(3)), (match.group(4) or b"").decode("latin-1").strip()


def _fields(data: bytes) -> list[tuple[str, str]]:
    """Read the fields of a head (RFC 9112 section 5), line by line."""
    found = _PLAIN.findall(data.decode("latin-1"))
    if len(found) <= data.count(b"\n"):
        # There is a line that isn't plain.
        return _odd_fields([line.removesuffix(b"\r") for line in data.split(b"\n")])
    return [
        (name, value.rstrip(" \t") if value[-1:] in (" ", "\t") else value) for name, value in found
    ]


def _odd_fields(lines: list[bytes]) -> list[tuple[str, str]]:
    """Read the fields of a head in which there is more than plain ones.

    A line that begins with white space goes on with the field before (obsolete, and still seen).
    """
    fields: list[list[bytes]] = []
    for line in lines:
        is_fold = line[:1] in (b" ", b"\t")
        match = _FIELD.fullmatch(line)
        if is_fold and fields and b"\0" not in line:
            fields[-1][1] += b" " + line.strip(b" \t")
        elif is_fold or match is None:
            raise FramingError("a line of the head isn't a field")
        else:
            fields.append([match.group(1), match.group(2).strip(b" \t")])
    found = []
    for name, value in fields:
        if _TOKEN.fullmatch(name):
            # A bare CR is to be taken as a space (RFC 9112 section 2.2).
            text = value.replace(b"\r", b" ").strip(b" \t").decode("latin-1")
            found.append((name.decode("ascii"), text))
        elif name.strip().lower() in _DECISIVE:
            raise FramingError("a line of the head isn't a field, but looks like one that counts")
        # Any other field with an odd name is skipped: nothing here asks for it.
    return found


def _by_name(pairs: list[tuple[str, str]]) -> dict[str, str]:
    fields = {name.lower(): value for name, value in pairs}
    if len(fields) == len(pairs):
        return fields
    values: dict[str, list[str]] = {name: [] for name in fields}
    for name, value in pairs:
        values[name.lower()].append(value)
    return {name: ", ".join(several) for name, several in values.items()}


def _content_length(value: str) -> int:
    """Return the length of the body, if all values agree (RFC 9112 section 6.3)."""
    length = value
    if "," in value:
        length, *others = {length.strip(" \t") for length in value.split(",")}
        if others:
            raise FramingError("there are several Content-Length that differ")
    if _LENGTH.fullmatch(length) is None:
        raise FramingError("its Content-Length isn't a whole number of bytes")
    # Without leading zeros, of which Python takes only so many.
    return int(length.lstrip("0") or "0")
