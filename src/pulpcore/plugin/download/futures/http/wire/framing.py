"""Parses HTTP/1.1 responses (RFC 9112), without I/O.

The caller passes bytes to the parser, which returns a head and a body. It is strict: where the
framing of a response is ambiguous, ``http.client`` may return wrong bytes, and this parser raises
an error.
"""

from __future__ import annotations

import functools
import http
import http.client
import re
from typing import Any, NamedTuple

from .error import FramingError

HEAD_LIMIT = 128 * 1024
"""The maximum size of a head, of a line of the chunked coding, or of the trailers (bytes)."""

INTERIM_LIMIT = 32
"""The limit of interim (1xx) responses before the final one."""

BLOCK = 256 * 1024
"""How many bytes to receive at a time if the framing sets no limit."""

_STATUS = re.compile(rb"HTTP/(\d)\.(\d) +(\d{3})(?: ([^\r\n\0]*))?")
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD = re.compile(rb"([^:\r\0]*):([^\0]*)")
# Nearly all lines match this pattern. Only the others need a closer look.
_PLAIN = re.compile(
    # Possessive quantifiers: a line can be split in one way only, so backtracking is useless.
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[ \t]*+([^\r\0]*+)\r?"
)
_LONG = 4 * 1024
"""The lines of a head that is at least as long aren't remembered (bytes)."""

_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\r\0]*|[ \t][^\r\0]*")
_SIZE = re.compile(rb"(0*[0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?")
# The end of a chunk, and the size of the next one if that isn't the last.
# Any line that isn't short is left to _read_line(), which limits its length.
_NEXT = re.compile(rb"\r\n(0{,99}[1-9A-Fa-f][0-9A-Fa-f]{0,14})[ \t]*(?:;[^\r\n\0]{,999})?\r\n")
_LENGTH = re.compile(r"0*[0-9]{1,18}")
# These fields determine where the body ends, so a malformed one can't be ignored.
_DECISIVE = frozenset({b"content-length", b"transfer-encoding"})
_NO_BODY = frozenset({http.HTTPStatus.NO_CONTENT, http.HTTPStatus.NOT_MODIFIED})


class Field(NamedTuple):
    """A field of a head."""

    name: str
    value: str
    key: str
    """The name in lower case."""


class Head(NamedTuple):
    """The status line and the fields of a response."""

    version: int
    """10 or 11, for HTTP/1.0 and HTTP/1.1."""
    status: int
    reason: str
    lines: list[Field]
    """Each field, in the order received."""
    fields: dict[str, str]
    """The values by lower-case name; those of repeated fields are joined (RFC 9110 section 5.3)."""

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The name and value of each field, in the order received."""
        return [(name, value) for name, value, _ in self.lines]


class ReplyParser:
    """Parses one response from the bytes that its caller receives.

    If a method returns None, it needs more bytes: the caller receives some, passes them to
    :meth:`receive`, and calls the method again.

    Attributes:
        length (int | None): The size of the body (bytes); None if the head doesn't give it.
        keep_alive (bool): The server keeps the connection open after this response.
        ends_with_connection (bool): The body ends where the connection ends.
        is_complete (bool): The end of the body was reached.
        rest (bytes): The bytes that were received and not parsed. After the body is complete, these
            don't belong to the response.
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

    def __init__(self, method: str, received: bytes | None = None) -> None:
        """Create a parser for the response to one request.

        Args:
            method: The method of the request. A response to HEAD has no body.
            received: The first bytes; b"" if the connection ended before. None if nothing was
                received yet.
        """
        self._method = method
        self._has_ended = received == b""
        # The end of the head isn't before this position.
        self._searched = 0
        self._interims = 0
        self._is_chunked = False
        # The bytes left of the body, or of the current chunk; None for a body that ends with the
        # connection.
        self._left: int | None = 0
        # The CR LF at the end of the current chunk was not read yet.
        self._behind_chunk = False
        self._in_trailers = False
        self._trailers = 0
        self.length: int | None = None
        self.keep_alive = False
        self.ends_with_connection = False
        self.is_complete = False
        self.rest = received or b""

    def receive(self, data: bytes) -> None:
        """Append received bytes.

        Args:
            data: The bytes; b"" at the end of the connection.
        """
        if not data:
            self._has_ended = True
        self.rest = self.rest + data if self.rest else data

    def wanted(self, size: int) -> int:
        """Return how many bytes to receive, without receiving more than the body if possible.

        Args:
            size: The size of the next :meth:`read_body` (bytes).
        """
        if self.ends_with_connection:
            return size
        return min(size, self._left) if self._left else BLOCK

    def read_head(self) -> Head | None:
        """Parse the head, and skip interim responses before it (RFC 9110 section 15.2).

        Returns:
            The head; None if more bytes are needed.

        Raises:
            FramingError: The head is malformed or contradictory.
            http.client.RemoteDisconnected: The connection ended before the response began.
            http.client.IncompleteRead: The connection ended within the head.
        """
        if not self.rest and not self._has_ended:
            return None
        while (block := self._head_block()) is not None:
            first, *lines = block.split(b"\n")
            version, status, reason = _status(first)
            found: list[Any] = list(map(_plain if len(block) > _LONG else _known, lines))
            if None in found:
                # A line has an unusual form, or continues the one before.
                found = _odd_fields([each.removesuffix(b"\r") for each in lines])
            if not 100 <= status < 200:
                head = Head(version, status, reason, found, _by_name(found))
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
            size: The maximum number of bytes to return, at least 1.

        Returns:
            The bytes that are available; b"" at the end of the body; None if more bytes are needed.

        Raises:
            http.client.IncompleteRead: The connection ended before the body did.
            FramingError: A chunk is malformed.
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
        """Determine where the body ends (RFC 9112 section 6.3)."""
        coding = head.fields.get("transfer-encoding")
        lengths = head.fields.get("content-length")
        length = None if lengths is None else _content_length(lengths)
        connection = head.fields.get("connection")
        options = _options(connection) if connection else frozenset()
        keep_alive = "keep-alive" in options if head.version < 11 else "close" not in options
        if self._method == "HEAD" or head.status in _NO_BODY:
            length = 0
        elif coding is not None:
            if coding.lower() != "chunked":
                raise FramingError("its transfer coding isn't 'chunked'")
            self._is_chunked = True
            # A Content-Length beside it may be an attempt at smuggling (RFC 9112 section 6.1).
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
        """Remove and return the next head. LF alone may end its lines (RFC 9112 section 2.2)."""
        buffer = self.rest
        # Where the empty line is. Searching for a pattern would take 20 times as long.
        crlf = buffer.find(b"\n\r\n", self._searched)
        # If there is no CR LF, search to the end.
        lf = buffer.find(b"\n\n", self._searched, None if crlf < 0 else crlf + 1)
        found = crlf if lf < 0 else lf
        end = found - (buffer[found - 1 : found] == b"\r") if found > 0 else len(buffer)
        if end > HEAD_LIMIT:
            raise FramingError(f"the head is longer than {HEAD_LIMIT} bytes")
        if found <= 0:
            if not b"HTTP/".startswith(buffer[:5]):
                raise FramingError("the reply doesn't begin with HTTP/")
            if self._has_ended and not buffer:
                raise http.client.RemoteDisconnected(
                    "the server closed the connection without a reply"
                )
            # The buffer may end with a part of the empty line.
            self._searched = max(0, end - 3)
            self._expect_more()
            return None
        self._searched = 0
        self.rest = buffer[found + (3 if lf < 0 else 2) :]
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
        """Remove and return up to ``size`` bytes of the body or of the current chunk."""
        left, rest = self._left, self.rest
        if left is not None and left < size:
            size = left
        # A slice of all bytes doesn't copy them.
        data, self.rest = rest[:size], rest[size:]
        if left is not None:
            self._left = left - len(data)
        return data

    def _gather(self, data: bytes, size: int) -> bytes:
        """Append the following chunks to a piece of the body, as far as they were received.

        One large piece costs the caller less time than many small ones. An incomplete or malformed
        chunk is left to :meth:`_next_chunk`.
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
        """Parse the start of the next chunk, or the end of the body (RFC 9112 section 7.1).

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
            # Trailers are discarded, but a line that isn't a field shows that the framing is wrong.
            if _TRAILER.fullmatch(line) is None:
                raise FramingError("a line of the trailers isn't a field")
        if line is not None:
            self.is_complete = True
        return line

    def _read_line(self) -> bytes | None:
        """Remove and return a line of the chunked coding, which must end with CR LF."""
        end = self.rest.find(b"\n")
        if (len(self.rest) if end < 0 else end) > HEAD_LIMIT:
            raise FramingError(f"a line of a chunk is longer than {HEAD_LIMIT} bytes")
        if end < 0:
            self._expect_more()
            return None
        line, self.rest = self.rest[:end], self.rest[end + 1 :]
        if not line.endswith(b"\r"):
            raise FramingError("a line of a chunk isn't ended by CR LF")
        return line[:-1]

    def _expect_more(self) -> None:
        """Raise if the connection has ended, so that no more bytes can follow."""
        if self._has_ended:
            raise http.client.IncompleteRead(b"", self._left or None)


@functools.lru_cache(maxsize=16)
def _options(connection: str) -> frozenset[str]:
    """Return the options of a Connection field, in lower case."""
    return frozenset(word.strip(" \t").lower() for word in connection.split(","))


# Nearly all responses have the same status line.
@functools.lru_cache(maxsize=16)
def _status(line: bytes) -> tuple[int, int, str]:
    match = _STATUS.fullmatch(line.removesuffix(b"\r"))
    if match is None or match.group(1) != b"1" or int(match.group(3)) < 100:
        raise FramingError("the status line isn't that of HTTP/1")
    version = 10 if match.group(2) == b"0" else 11
    return version, int(match.group(3)), (match.group(4) or b"").decode("latin-1").strip()


def _plain(line: bytes) -> Field | None:
    """Return the field of a line; None if the line has an unusual form."""
    match = _PLAIN.fullmatch(line)
    if match is None:
        return None
    name, value = match.groups()
    given = name.decode("ascii")
    return Field(given, value.rstrip(b" \t").decode("latin-1"), given.lower())


# Most lines of a response were in the one before, too.
_known = functools.lru_cache(maxsize=128)(_plain)


def _odd_fields(lines: list[bytes]) -> list[Field]:
    """Parse the fields of a head of which some lines have an unusual form.

    A line that starts with white space continues the field before it. RFC 9112 section 5.2
    deprecates this, but servers still send it.
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
            # RFC 9112 section 2.2 allows a client to replace a bare CR by a space.
            text = value.replace(b"\r", b" ").strip(b" \t").decode("latin-1")
            given = name.decode("ascii")
            found.append(Field(given, text, given.lower()))
        elif name.strip().lower() in _DECISIVE:
            raise FramingError("a line of the head isn't a field, but looks like one that counts")
        # Other fields with an invalid name are ignored: this package doesn't use them.
    return found


def _by_name(lines: list[Field]) -> dict[str, str]:
    fields = {key: value for _, value, key in lines}
    if len(fields) == len(lines):
        return fields
    values: dict[str, list[str]] = {key: [] for key in fields}
    for _, value, key in lines:
        values[key].append(value)
    return {key: ", ".join(several) for key, several in values.items()}


def _content_length(value: str) -> int:
    """Return the size of the body, if all values agree (RFC 9112 section 6.3)."""
    length = value
    if "," in value:
        length, *others = {length.strip(" \t") for length in value.split(",")}
        if others:
            raise FramingError("there are several Content-Length that differ")
    if _LENGTH.fullmatch(length) is None:
        raise FramingError("its Content-Length isn't a whole number of bytes")
    # Without leading zeros, because int() limits the number of digits.
    return int(length[-18:])
