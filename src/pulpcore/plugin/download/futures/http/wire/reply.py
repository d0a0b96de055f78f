"""A reply as requests knows it, made with as little as possible."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import requests
import urllib3.exceptions
from requests.cookies import RequestsCookieJar, extract_cookies_to_jar
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers
from urllib3 import HTTPHeaderDict, HTTPResponse

if TYPE_CHECKING:
    from .framing import StrictResponse

# To use a connection again is worth so many bytes, and reads, and no wait.
_DRAIN = 16 * 1024
_DRAIN_READS = 4

# Fields that may stand once only. In Content-Encoding the codings of several fields are one list.
_ONCE = frozenset(
    {
        "content-disposition",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "date",
        "etag",
        "last-modified",
        "location",
        "retry-after",
    }
)


class Reply(requests.Response):
    """A reply to one of our requests, whose body is read by :meth:`take`.

    It is a ``requests.Response`` in all else. What few ask for is made when somebody does: for a
    small file that would cost more than all the rest.

    Attributes:
        fields (dict[str, str]): The headers as they came, by name in lower case.
    """

    # For one that was unpickled, too.
    _release: Callable[[Any], object] | None = None

    def __init__(
        self,
        body: StrictResponse,
        request: requests.PreparedRequest,
        connection: Any,
        release: Callable[[Any], object],
    ) -> None:
        """Make a reply.

        Args:
            body: What reads it off the socket.
            request: What it is the reply to.
            connection: urllib3's connection, which it comes by.
            release: Called with the connection when the body was read, or is not to be.
        """
        # Not super().__init__(), which makes all that here is made late.
        self.status_code, self.reason = body.status, body.reason
        self.url, self.request = request.url or "", request
        self.fields = body.fields
        self._body = body
        self._taken = 0
        self._way: Any = connection
        self._release = release
        if body.isclosed():
            self._give_back(release)

    def __getattr__(self, name: str) -> Any:
        """Make what is asked for the first time."""
        maker: Callable[[Reply], Any] | None = getattr(type(self), f"_make_{name}", None)
        if maker is not None:
            value = maker(self)
        else:
            # Whatever else a reply of requests has at first.
            blank = vars(requests.Response())
            if name not in blank:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            value = blank[name]
        setattr(self, name, value)
        return value

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The names and values of the fields of the head, as they came."""
        return self._body.pairs

    @property
    def length(self) -> int | None:
        """How many bytes the body has; None where the head doesn't say."""
        return self._body.length

    def take(self, size: int) -> bytes:
        """Return what is there of the body, as it was sent; b"" at its end.

        Args:
            size: The most bytes to return.

        Raises:
            OSError: The network failed.
            http.client.HTTPException: The body can't be trusted, or ended too early.
        """
        data = self._body.read1(size)
        self._taken += len(data)
        if self._release is not None and self._body.isclosed():
            self._give_back(self._release)
        return data

    @property
    def was_taken(self) -> bool:
        """Whether all of the body came, and nobody else has read of it."""
        return self._body.is_whole and self._body.delivered == self._taken

    @property
    def socket(self) -> Any:
        """The socket that the body comes by; None where it has come, or isn't read any more."""
        return None if self._release is None else self._way.sock

    def close(self) -> None:
        """Let go of the connection; close it where the body wasn't read to its end."""
        if self._release is not None:
            self._body.close()
            self._way.close()
            self._give_back(self._release)

    def _give_back(self, release: Callable[[Any], object]) -> None:
        connection, self._way, self._release = self._way, None, None
        release(connection)

    def _make_headers(self) -> CaseInsensitiveDict[str]:
        pairs = self._body.pairs
        headers: CaseInsensitiveDict[str] = CaseInsensitiveDict(pairs)
        if len(headers) < len(pairs):
            # Several of one name are one list (RFC 9110 section 5.3).
            return CaseInsensitiveDict(HTTPHeaderDict(pairs).itermerged())
        return headers

    def _make_raw(self) -> HTTPResponse:
        body = self._body
        return HTTPResponse(
            body=body,
            headers=HTTPHeaderDict(body.pairs),
            status=body.status,
            version=body.version,
            version_string="HTTP/1.0" if body.version == 10 else "HTTP/1.1",
            reason=body.reason,
            preload_content=False,
            decode_content=False,
            original_response=body,
            # The body sees to it by itself, and not all of it may be read here.
            enforce_content_length=False,
            connection=_Way(self),  # type: ignore[arg-type]
            request_method=self.request.method,
            request_url=self.request.path_url,
            sock_shutdown=body.shut_down,
        )

    def _make_encoding(self) -> str | None:
        return get_encoding_from_headers(self.headers)

    def _make_cookies(self) -> RequestsCookieJar:
        jar = RequestsCookieJar()
        if "Set-Cookie" in self.headers:
            extract_cookies_to_jar(jar, self.request, self.raw)  # type: ignore[no-untyped-call]
        return jar


class _Way:
    """What urllib3 may close: the connection of a reply, until that was given back."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    @property
    def sock(self) -> Any:
        return self._reply.socket

    def close(self) -> None:
        self._reply.close()


def header(reply: requests.Response, name: str) -> str | None:
    """Return the value of a header of a reply; None if there is none.

    Some servers, and proxies before them, send a field twice that may stand once. With one value it
    counts once. With values that differ it says nothing: the value is empty, and not None, so that
    nobody takes the field for a missing one.

    Args:
        reply: The reply.
        name: The name of the header.
    """
    name = name.lower()
    if isinstance(reply, Reply) and "headers" not in vars(reply):
        value = reply.fields.get(name)
    else:
        value = reply.headers.get(name)
    if value is None or "," not in value or name not in _ONCE:
        return value
    several = headers(reply, name)
    if len(several) < 2 or ", ".join(several) != value:
        # Only one, or a handler has changed what came.
        return value
    if len(set(several)) == 1:
        return several[0]
    return value if name == "content-encoding" else ""


def headers(reply: requests.Response, name: str) -> list[str]:
    """Return the values of all fields of one name, as they came.

    Args:
        reply: The reply.
        name: The name of the fields, in lower case.
    """
    if isinstance(reply, Reply):
        return [value for found, value in reply.pairs if found.lower() == name]
    fields = getattr(reply.raw, "headers", None)
    return fields.getlist(name) if isinstance(fields, HTTPHeaderDict) else []


def length(reply: requests.Response) -> int | None:
    """Return how many bytes the body of a reply has; None where the head doesn't say.

    Args:
        reply: The reply, whose body is unread.
    """
    if isinstance(reply, Reply):
        return reply.length
    found: int | None = reply.raw.length_remaining
    return found


def reader(reply: requests.Response) -> Callable[[int], bytes]:
    """Return what reads the body of a reply: what is there of it, as it was sent.

    Args:
        reply: The reply.
    """
    if isinstance(reply, Reply):
        return reply.take
    # What a proxy is between is sent by requests.
    return partial(reply.raw.read1, decode_content=False)


def was_taken(reply: requests.Response, size: int) -> bool:
    """Whether nobody but a :func:`reader` has read of the body of a reply, or closed it.

    Args:
        reply: The reply, whose body seems to have come.
        size: How much the reader has returned (bytes).
    """
    if isinstance(reply, Reply):
        return reply.was_taken
    count: int = reply.raw.tell()
    return count == size


def drain(reply: requests.Response) -> None:
    """Read what is left of a reply if it is little and here, to use the connection again.

    Else close the connection.

    Args:
        reply: The reply, whose content nobody needs.
    """
    sock = reply.socket if isinstance(reply, Reply) else _socket_of(reply)
    # Closed is what won't be used again anyhow.
    if sock is not None:
        read = reader(reply)
        sock.settimeout(0)
        with contextlib.suppress(OSError, http.client.HTTPException, urllib3.exceptions.HTTPError):
            for _ in range(_DRAIN_READS):
                if not read(_DRAIN):
                    break
    reply.close()


def _socket_of(reply: requests.Response) -> Any:
    connection = reply.raw.connection
    return None if connection is None else connection.sock
