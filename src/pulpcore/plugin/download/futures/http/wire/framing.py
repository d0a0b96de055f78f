"""Reading a reply off a socket, strictly (RFC 9112).

``http.client`` hands over wrong bytes where the framing of a reply can't be trusted. Here such a
reply is refused, and whatever else is said about its head and its body is left to urllib3 and
requests.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import re
import socket
import ssl
from typing import Any

from ...net.tls_error import is_cut
from ...waiting.cancellation import current

HEAD_LIMIT = 128 * 1024
"""The most bytes that the head of a reply, a line of a chunk or the trailers may have."""

INTERIM_LIMIT = 32
"""The most interim (1xx) replies before the real one."""

_CHUNK = 256 * 1024
_STATUS = re.compile(rb"HTTP/(\d)\.(\d) +(\d{3})(?: ([^\r\n\0]*))?")
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD = re.compile(rb"([^:\r\0]*):([^\0]*)")
# What nearly all lines are, which need no second look.
_PLAIN = re.compile(r"^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([^\r\n\0]*)\r?$", re.MULTILINE)
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\r\0]*|[ \t][^\r\0]*")
_SIZE = re.compile(rb"(0*[0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?")
# All between the content of one chunk and that of the next, which isn't the last.
_NEXT = re.compile(rb"\r\n(0*[1-9A-Fa-f][0-9A-Fa-f]{0,14})[ \t]*(?:;[^\r\n\0]*)?\r\n")
_LENGTH = re.compile(r"0*[0-9]{1,18}")


class FramingError(http.client.HTTPException):
    """Where a reply begins and ends can't be told for sure. The text says why."""


class StrictResponse(http.client.HTTPResponse):
    """A reply as http.client knows it, with a reader of its own below it.

    What comes after the end of the body is never handed over, and a connection on which something
    does isn't used again.

    Attributes:
        pairs (list[tuple[str, str]]): The names and values of the fields of the head.
        fields (dict[str, str]): The values by name in lower case; several of one name are one list
            (RFC 9110 section 5.3).
        delivered (int): How much of the body was handed over (bytes).
        is_whole (bool): The body came to its end, and wasn't closed before.
    """

    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
    ) -> None:
        # Not super().__init__(), whose buffered reader can't tell whether anything is left in it.
        self._sock = sock
        self._is_open = True
        self._holder: Any = None
        self._buffer = b""
        self._method = method
        self._chunked = False
        self._left: int | None = None
        self._first = True
        self._needs_proper_end = False
        self.pairs: list[tuple[str, str]] = []
        self.fields: dict[str, str] = {}
        self.delivered = 0
        self.is_whole = False
        self.version = 11
        self.status = self.code = 0
        self.reason = ""
        self.length: int | None = None
        self.will_close = True
        self._cancellation = current()
        if self._cancellation is not None:
            self._cancellation.watch(sock)

    @functools.cached_property
    def headers(self) -> http.client.HTTPMessage:  # type: ignore[override]
        """The fields of the head, as http.client knows them."""
        message = http.client.HTTPMessage()
        for name, value in self.pairs:
            message[name] = value
        return message

    @property
    def msg(self) -> http.client.HTTPMessage:  # type: ignore[override]
        """The same as ``headers``."""
        return self.headers

    def begin(self) -> None:
        """Read the head, behind any interim replies (RFC 9110 section 15.2).

        Raises:
            FramingError: The head isn't well-formed, or contradicts itself.
            http.client.RemoteDisconnected: The connection ended before the reply began.
            http.client.IncompleteRead: It ended in the head.
        """
        for _ in range(INTERIM_LIMIT):
            status, _, fields = self._read_head().partition(b"\n")
            version, self.status, self.reason = _status(status.removesuffix(b"\r"))
            self.pairs = _fields(fields) if fields else []
            if not 100 <= self.status < 200:
                break
            if self.status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                raise FramingError("the server switched to another protocol, unasked")
        else:
            raise FramingError(
                f"more than {INTERIM_LIMIT} interim replies came before the real one"
            )
        self.code = self.status
        self.version = version
        self.fields = _by_name(self.pairs)
        self._frame()

    def _frame(self) -> None:
        """Find out how the body ends (RFC 9112 section 6.3)."""
        coding = self.fields.get("transfer-encoding")
        lengths = self.fields.get("content-length")
        length = None if lengths is None else _content_length(lengths)
        connection = self.fields.get("connection", "")
        options = {word.strip(" \t").lower() for word in connection.split(",")}
        keep_alive = "keep-alive" in options if self.version < 11 else "close" not in options
        if self._method == "HEAD" or self.status in (
            http.HTTPStatus.NO_CONTENT,
            http.HTTPStatus.NOT_MODIFIED,
        ):
            self._left = 0
        elif coding is not None:
            if coding.lower() != "chunked":
                raise FramingError("its transfer coding isn't 'chunked'")
            self._chunked = True
            # A length beside it may mean that somebody is trying to smuggle (RFC 9112 section 6.1).
            keep_alive = keep_alive and length is None and self.version >= 11
        else:
            self._left = length
            if length is None and isinstance(self._sock, ssl.SSLSocket):
                # Only a proper end of TLS tells then that nothing lacks (RFC 9112 section 9.8).
                self._needs_proper_end = True
                self._sock.suppress_ragged_eofs = False  # type: ignore[attr-defined]
        self.length = self._left
        self.will_close = not keep_alive or (self._left is None and not self._chunked)
        if self.will_close:
            # Only held: it keeps the socket open while the connection lets go of it.
            self._holder = self._sock.makefile("rb", buffering=0)
        if self._left == 0 and not self._chunked:
            self._finish()

    def read1(self, n: int = -1) -> bytes:
        """Return what is there of the body, b"" at its end.

        Args:
            n: The most bytes to return.

        Raises:
            http.client.IncompleteRead: The connection ended before the body did.
            FramingError: A chunk isn't well-formed.
        """
        if not self._is_open or n == 0:
            return b""
        size = _CHUNK if n < 0 else n
        if self._chunked and not self._left and not self._next_chunk():
            return b""
        data = self._receive(size if self._left is None else min(size, self._left))
        if self._left is None:
            if not data:
                self._finish()
        elif not data:
            raise http.client.IncompleteRead(b"", self._left)
        else:
            self._left -= len(data)
            if not self._left:
                if self._chunked:
                    data = self._gather(data, size)
                else:
                    self._finish()
        self.delivered += len(data)
        return data

    def read(self, amt: int | None = None) -> bytes:
        """Return so many bytes of the body, fewer only at its end.

        Args:
            amt: How many; None or less than 0 for all.

        Raises:
            http.client.IncompleteRead: The connection ended before the body did.
            FramingError: A chunk isn't well-formed.
        """
        parts = []
        left = -1 if amt is None else amt
        while left and (data := self.read1(left)):
            parts.append(data)
            left -= len(data) if left > 0 else 0
        return b"".join(parts)

    def readinto(self, b: Any) -> int:
        """Read into a buffer; see :meth:`read`."""
        data = self.read(len(b))
        b[: len(data)] = data
        return len(data)

    def isclosed(self) -> bool:
        """Whether the body was read to its end, or closed before."""
        return not self._is_open

    def flush(self) -> None:
        """Do nothing: nothing is written."""

    def close(self) -> None:
        """Let go of the connection."""
        if self._is_open:
            self._release()
        super(http.client.HTTPResponse, self).close()

    def shut_down(self, how: int) -> None:
        """Shut the socket down, while the body is read; see ``socket.shutdown()``."""
        if self._is_open:
            socket.socket.shutdown(self._sock, how)

    def _finish(self) -> None:
        self.is_whole = True
        pending = isinstance(self._sock, ssl.SSLSocket) and self._sock.pending()
        if self._buffer or pending:
            # More than the reply: the next one on this connection couldn't be told from it. A
            # connection that is shut down is seen to be dropped, and not used again.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        self._release()

    def _release(self) -> None:
        # First, for the connection may belong to somebody else at once.
        if self._cancellation is not None:
            self._cancellation.unwatch(self._sock)
        self._is_open = False
        self._buffer = b""
        if self._holder is not None:
            self._holder.close()

    def _next_chunk(self) -> bool:
        """Go to the next chunk (RFC 9112 section 7.1); False at the end of the body."""
        if not self._first:
            self._end_chunk()
        self._first = False
        line = self._read_line()
        match = _SIZE.fullmatch(line)
        if match is None:
            raise FramingError("the size of a chunk isn't plain hex")
        self._left = int(match.group(1), 16)
        if self._left:
            return True
        limit = HEAD_LIMIT
        while line := self._read_line():
            limit -= len(line)
            if limit < 0:
                raise FramingError(f"the trailers are longer than {HEAD_LIMIT} bytes")
            # Nobody wants them, but another line would show that this isn't the end.
            if _TRAILER.fullmatch(line) is None:
                raise FramingError("a line of the trailers isn't a field")
        self._finish()
        return False

    def _gather(self, data: bytes, size: int) -> bytes:
        """Add the next chunks, as far as they are here: everything behind this costs by the call.

        What isn't here as a whole, or isn't well-formed, is left to :meth:`_next_chunk`.
        """
        parts = [data]
        size -= len(data)
        at = 0
        while size and not self._left and (match := _NEXT.match(self._buffer, at)):
            self._left = int(match.group(1), 16)
            data = self._buffer[match.end() : match.end() + min(size, self._left)]
            at = match.end() + len(data)
            self._left -= len(data)
            size -= len(data)
            parts.append(data)
        self._buffer = self._buffer[at:]
        return b"".join(parts)

    def _end_chunk(self) -> None:
        """Read the CR LF behind a chunk, and refuse anything else at once."""
        while len(self._buffer) < 2:
            if not b"\r\n".startswith(self._buffer):
                break
            self._fill()
        if not self._buffer.startswith(b"\r\n"):
            raise FramingError("a chunk isn't ended by CR LF: it is longer or shorter than it says")
        self._buffer = self._buffer[2:]

    def _read_line(self) -> bytes:
        """Read a line of the chunked coding, which must be ended by CR LF."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > HEAD_LIMIT:
                raise FramingError(f"a line of a chunk is longer than {HEAD_LIMIT} bytes")
            self._fill()
        line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
        if not line.endswith(b"\r"):
            raise FramingError("a line of a chunk isn't ended by CR LF")
        return line[:-1]

    def _read_head(self) -> bytes:
        """Read a head. Its lines may be ended by LF alone (RFC 9112 section 2.2)."""
        if not self._buffer:
            self._buffer = self._recv(_CHUNK)
            if not self._buffer:
                raise http.client.RemoteDisconnected(
                    "the server closed the connection without a reply"
                )
        searched = 0
        while True:
            found = _HEAD_END.search(self._buffer, searched)
            end = found.start() if found else len(self._buffer)
            if end > HEAD_LIMIT:
                raise FramingError(f"the head is longer than {HEAD_LIMIT} bytes")
            if found:
                break
            if not b"HTTP/".startswith(self._buffer[:5]):
                raise FramingError("the reply doesn't begin with HTTP/")
            # The end may have begun already.
            searched = max(0, end - 3)
            self._fill()
        head, self._buffer = self._buffer[:end], self._buffer[found.end() :]
        return head

    def _recv(self, size: int) -> bytes:
        try:
            return self._sock.recv(size)
        except BlockingIOError as error:
            # What the kernel says where it keeps the time-out.
            raise TimeoutError("timed out") from error
        except ssl.SSLError as error:
            # Where the end is told otherwise, a connection that is cut is one that ended; not every
            # version of Python says so.
            if self._needs_proper_end or not is_cut(error):
                raise
            return b""

    def _fill(self) -> None:
        data = self._recv(_CHUNK)
        if not data:
            raise http.client.IncompleteRead(b"")
        self._buffer += data

    def _receive(self, size: int) -> bytes:
        if not self._buffer:
            return self._recv(size)
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data


# Fields that say how the body ends: an ill-formed one can't be passed over, as others are.
_DECISIVE = frozenset({b"content-length", b"transfer-encoding"})
_HEAD_END = re.compile(rb"\r?\n\r?\n")


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
    return [(name, value.strip(" \t")) for name, value in found]


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
        # Any other with an odd name is passed over: it says nothing that is asked for.
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
    """The length of the body, where all that is said of it agrees (RFC 9112 section 6.3)."""
    lengths = {length.strip(" \t") for length in value.split(",")}
    if len(lengths) > 1:
        raise FramingError("there are several Content-Length that differ")
    length = lengths.pop()
    if _LENGTH.fullmatch(length) is None:
        raise FramingError("its Content-Length isn't a whole number of bytes")
    # Without leading zeros, of which Python takes only so many.
    return int(length.lstrip("0") or "0")
