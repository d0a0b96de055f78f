"""Connects our HTTP engine to requests.

A ``requests.Session`` gets an adapter that sends requests by our engine, and returns its responses
as ``requests.Response``.
"""

from __future__ import annotations

import http.client
import itertools
import ssl
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

import requests
from requests.adapters import BaseAdapter
from requests.cookies import RequestsCookieJar, extract_cookies_to_jar
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers, select_proxy
from urllib3 import HTTPHeaderDict, HTTPResponse

from ... import redact
from ...engine.limited import Ration
from ...net.dial import AddressMemory
from ...net.url import URL, parse
from ...settings import Limits
from .body import Body
from .connect import Connector, MakeTls
from .error import ConnectTimeout, ProxyError, UnsendableError
from .framing import BLOCK
from .pool import IdleConnections, Pool
from .request import CommonHeaders, head, lines
from .tunnel import parse_proxy

_SCHEMES = ("http", "https")
_AUTHORIZATION = "Proxy-Authorization"


class Request(requests.PreparedRequest):
    """A request without content that starts with common headers.

    It is a complete ``requests.PreparedRequest``. Its own headers are created when they are first
    used: for a small file, creating them would cost as much as sending the request.

    Attributes:
        common (CommonHeaders | None): The common headers; None after :attr:`headers` was used.
    """

    def __init__(self, method: str, url: str, common: CommonHeaders) -> None:
        """Create a request.

        Args:
            method: The method.
            url: The URL, percent-encoded.
            common: The common headers.
        """
        # super().__init__() would create the attributes that are created on demand here.
        self.common: CommonHeaders | None = common
        self._own: CaseInsensitiveDict[str]
        self.method, self.url, self.body = method, url, None

    def __getattr__(self, name: str) -> Any:
        """Return the initial value of an attribute of requests.PreparedRequest."""
        blank = vars(requests.PreparedRequest())
        if name not in blank:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        setattr(self, name, blank[name])
        return blank[name]

    @property
    def headers(self) -> CaseInsensitiveDict[str]:
        """The headers, which may be changed."""
        if self.common is not None:
            self.headers = CaseInsensitiveDict(self.common.headers)
        return self._own

    @headers.setter
    def headers(self, headers: CaseInsensitiveDict[str]) -> None:
        self._own, self.common = headers, None


class Reply(Protocol):
    """The access to a response that downloads need, for responses of any adapter."""

    @property
    def length(self) -> int | None:
        """The size of the body (bytes); None if the head doesn't give it."""

    @property
    def fields(self) -> Mapping[str, str]:
        """The values of the headers, by lower-case name."""

    def values(self, name: str) -> list[str]:
        """Return the values of all fields with a lower-case name, as received."""

    def take(self, size: int) -> bytes:
        """Return encoded bytes of the body that are available; b"" at its end."""

    def was_taken(self, size: int) -> bool:
        """Return whether the body is complete, and only :meth:`take` has read it."""

    def was_read_alone(self, size: int) -> bool:
        """Return whether only :meth:`take` has read the body so far."""

    def drain(self) -> None:
        """Read the rest if it is small and available, to reuse the connection; else close that."""


class Response(requests.Response):
    """A response of our own engine. Downloads read it with :meth:`take`.

    It is a complete ``requests.Response``. Attributes that are rarely used are created on demand:
    for a small file, creating them would cost more than everything else.

    Attributes:
        length (int | None): The size of the body (bytes); None if the head doesn't give it.
        fields (Mapping[str, str]): The values of the headers, by lower-case name.
        take (Callable[[int], bytes]): Returns encoded bytes of the body that are available, up to a
            number of them; b"" at its end. It raises OSError if the network failed, and
            http.client.HTTPException if the body is malformed or incomplete.
    """

    def __init__(self, body: Body, request: requests.PreparedRequest) -> None:
        """Create a response.

        Args:
            body: The body, which has the head of the response.
            request: The request.
        """
        # super().__init__() would create the attributes that are created on demand here.
        self.status_code, self.reason = body.head.status, body.head.reason
        self.url, self.request = request.url or "", request
        self.length = body.length
        self.fields: Mapping[str, str] = body.head.fields
        self.take: Callable[[int], bytes] = body.read1
        self.drain, self.close = body.drain, body.close  # type: ignore[method-assign]
        self._body = body
        self._headers: CaseInsensitiveDict[str] | None = None

    def __getattr__(self, name: str) -> Any:
        """Create an attribute that is used for the first time."""
        maker: Callable[[Response], Any] | None = getattr(type(self), f"_make_{name}", None)
        if maker is not None:
            value = maker(self)
        else:
            # The other attributes of a requests.Response get their initial values.
            blank = vars(requests.Response())
            if name not in blank:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            value = blank[name]
        setattr(self, name, value)
        return value

    def values(self, name: str) -> list[str]:
        """Return the values of all fields with a name, as received.

        Args:
            name: The name, in lower case.
        """
        return [field.value for field in self._body.head.lines if field.key == name]

    def was_taken(self, size: int) -> bool:
        """Return whether the body is complete, and only :meth:`take` has read it.

        Args:
            size: The number of bytes that :meth:`take` has returned.
        """
        return self._body.is_complete and self._body.delivered == size

    def was_read_alone(self, size: int) -> bool:
        """Return whether only :meth:`take` has read the body so far.

        Args:
            size: The number of bytes that :meth:`take` has returned.
        """
        return self._body.delivered == size

    def __reduce__(self) -> tuple[Any, ...]:
        # Unpickles as a plain Response of requests. Its state includes the whole content.
        return requests.Response, (), self.__getstate__()

    @property
    def headers(self) -> CaseInsensitiveDict[str]:
        """The headers, which may be changed."""
        headers = self._headers
        if headers is None:
            headers = self.headers = self._all_headers()
        return headers

    @headers.setter
    def headers(self, headers: CaseInsensitiveDict[str]) -> None:
        # The caller may change the headers, so use this object for lookups from now on.
        self.fields = self._headers = headers

    def _all_headers(self) -> CaseInsensitiveDict[str]:
        pairs = self._body.head.pairs
        headers: CaseInsensitiveDict[str] = CaseInsensitiveDict(pairs)
        if len(headers) < len(pairs):
            # The values of repeated fields are joined (RFC 9110 section 5.3).
            return CaseInsensitiveDict(HTTPHeaderDict(pairs).itermerged())
        return headers

    def _make_raw(self) -> HTTPResponse:
        body = self._body
        return HTTPResponse(
            body=body,  # type: ignore[arg-type]
            headers=HTTPHeaderDict(body.head.pairs),
            status=body.head.status,
            version=body.head.version,
            version_string="HTTP/1.0" if body.head.version == 10 else "HTTP/1.1",
            reason=body.head.reason,
            preload_content=False,
            decode_content=False,
            # requests reads the cookies from its attribute `msg`.
            original_response=body,  # type: ignore[arg-type]
            # The body checks its length itself, and a download reads it without urllib3.
            enforce_content_length=False,
            # urllib3 closes it when reading fails.
            connection=body,  # type: ignore[arg-type]
            request_method=self.request.method,
            request_url=self.request.path_url,
            sock_shutdown=body.shut_down,
        )

    def _make_elapsed(self) -> timedelta:
        return timedelta(seconds=self._body.trip)

    def _make_encoding(self) -> str | None:
        return get_encoding_from_headers(self.headers)

    def _make_cookies(self) -> RequestsCookieJar:
        jar = RequestsCookieJar()
        if "Set-Cookie" in self.headers:
            extract_cookies_to_jar(jar, self.request, self.raw)  # type: ignore[no-untyped-call]
        return jar


class Adapter(BaseAdapter):
    """An adapter for ``requests.Session`` that sends requests by our engine."""

    def __init__(
        self,
        server_tls: MakeTls,
        proxy_tls: MakeTls,
        proxies: Mapping[str, str],
        proxy: str | None,
        idle: IdleConnections,
        memory: AddressMemory,
        public_only: bool = False,
        limits: tuple[Limits, ...] = (),
    ) -> None:
        """Create an adapter without connections.

        Args:
            server_tls: Returns the TLS context for servers.
            proxy_tls: Returns the TLS context for proxies.
            proxies: The mapping that the session passes with each request of the route.
            proxy: The URL of the proxy that the mapping means; None for none.
            idle: The idle connections, which have a common limit.
            memory: The addresses that didn't answer.
            public_only: Connect to public addresses only.
            limits: The limits of the downloads.
        """
        super().__init__()
        self._limits = limits
        self._server_tls, self._proxy_tls = server_tls, proxy_tls
        self._proxies, self._proxy = proxies, proxy
        self._idle, self._memory, self._public_only = idle, memory, public_only
        self._destinations: dict[tuple[Any, ...], Destination] = {}

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request, and return the response with its body unread.

        Args:
            request: The request.
            stream: Ignored here. The session reads the body if it is False.
            timeout: The time-out (seconds), a pair of them for connecting and reading, or None.
            verify: Ignored: the TLS settings of the download apply.
            cert: Ignored, for the same reason.
            proxies: The proxies by scheme.

        Raises:
            requests.RequestException: There was no response.
        """
        try:
            url = parse(request.url or "", _SCHEMES)
        except ValueError as error:
            raise _as_requests(error, request) from error
        connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        return self.ask(request, url, lambda: connect, read, proxies)

    def ask(
        self,
        request: requests.PreparedRequest,
        url: URL,
        connect_timeout: Callable[[], float | None],
        timeout: float | None,
        proxies: Mapping[str, str] | None,
    ) -> Response:
        """Send a request whose URL was parsed; see :meth:`send`.

        Args:
            request: The request.
            url: Its URL.
            connect_timeout: Returns how long a new connection may take (seconds); None for no
                limit.
            timeout: The time-out of each read (seconds); None for no limit.
            proxies: The proxies by scheme.

        Raises:
            requests.RequestException: There was no response.
        """
        try:
            destination = self.destination(url, proxies)
            head = destination.head(request, url)
            content = () if request.body is None else _content(request)
            body = destination.pool.request(
                request.method or "", head, content, connect_timeout, timeout
            )
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _as_requests(error, request) from error
        response = Response(body, request)
        response.connection = self  # type: ignore[assignment]
        return response

    def close(self) -> None:
        """Close the idle connections, and close the others when they are released."""
        for destination in self._destinations.copy().values():
            destination.pool.close()

    def destination(self, url: URL, proxies: Mapping[str, str] | None) -> Destination:
        """Return where the requests for a URL are sent.

        Args:
            url: The URL.
            proxies: The proxies by scheme.

        Raises:
            ValueError: The proxy can't be used.
        """
        # Selecting a proxy is slow. For the route's own mapping, the result was computed before.
        proxy = self._proxy if proxies is self._proxies else _proxy_for(url, proxies)
        found = self._destinations.get((url.origin, proxy))
        if found is None:
            connector = Connector(
                url.scheme == "https",
                url.host,
                url.port,
                parse_proxy(proxy) if proxy else None,
                self._server_tls,
                self._proxy_tls,
                self._memory,
                self._public_only,
            )
            ration = Ration(self._limits, url.origin) if self._limits else None
            if ration is not None:
                connector = connector._replace(receive_buffer=ration.receive_buffer)
            pool = Pool(connector.connect, self._idle, ration)
            made = Destination(connector, pool, url.authority)
            found = self._destinations.setdefault((url.origin, proxy), made)
        return found


class Destination:
    """A server, or a proxy to which the requests for it are sent.

    Attributes:
        pool (Pool): Its connections.
        is_direct (bool): There is no proxy.
    """

    def __init__(self, connector: Connector, pool: Pool, authority: str) -> None:
        """Create a destination without connections.

        Args:
            connector: Opens connections.
            pool: Keeps them.
            authority: The value of the header Host.
        """
        self.pool = pool
        self.is_direct = connector.proxy is None
        self._authority = authority
        self._is_forwarded = connector.is_forwarded
        proxy = connector.proxy
        self._authorization = proxy.authorization if proxy and self._is_forwarded else None

    def head(self, request: requests.PreparedRequest, url: URL) -> bytes:
        """Return the head of a request, with the empty line at its end.

        Args:
            request: The request.
            url: Its URL.

        Raises:
            http.client.HTTPException: The request can't be sent.
        """
        if type(request) is Request and request.common is not None:
            fields = f"Host: {self._authority}\r\n{request.common.lines}"
        else:
            fields = self._fields(request)
        if self._authorization is not None:
            fields += f"{_AUTHORIZATION}: {self._authorization}\r\n"
        target = url.absolute if self._is_forwarded else url.target
        return head(request.method or "", target, fields)

    def _fields(self, request: requests.PreparedRequest) -> str:
        """Return the lines of the request's own headers, which other requests don't share."""
        headers = request.headers
        if self._authorization is not None:
            headers = headers.copy()
            headers.pop(_AUTHORIZATION, None)
        fields = lines(headers)
        return fields if "Host" in headers else f"Host: {self._authority}\r\n{fields}"


def _content(request: requests.PreparedRequest) -> Iterable[bytes]:
    """Return the encoded content of a request."""
    pieces = _pieces(request.body)
    if "Transfer-Encoding" not in request.headers:
        return pieces
    # requests sets this field to "chunked" if it doesn't know the length.
    return itertools.chain((b"%X\r\n%b\r\n" % (len(p), p) for p in pieces if p), [b"0\r\n\r\n"])


def _pieces(body: Any) -> Iterable[bytes]:
    if isinstance(body, str):
        return (body.encode(),)
    if isinstance(body, bytes):
        return (body,)
    return iter(partial(body.read, BLOCK), b"") if hasattr(body, "read") else body


def _proxy_for(url: URL, proxies: Mapping[str, str] | None) -> str | None:
    found: str | None = select_proxy(url.text, dict(proxies or {}))
    return found


def _as_requests(error: Exception, request: requests.PreparedRequest) -> requests.RequestException:
    """Return the exception of requests for an error."""
    kind: type[requests.RequestException] = requests.ConnectionError
    if isinstance(error, ConnectTimeout):
        kind = requests.ConnectTimeout
    elif isinstance(error, TimeoutError):
        kind = requests.ReadTimeout
    elif isinstance(error, ProxyError):
        kind = requests.exceptions.ProxyError
    elif isinstance(error, ssl.SSLError):
        kind = requests.exceptions.SSLError
    elif isinstance(error, UnsendableError | ValueError):
        kind = requests.exceptions.InvalidURL
    # Show the host and port, because an OSError doesn't.
    authority = redact.url(request.url or "").partition("//")[2].partition("/")[0]
    return kind(f"{authority}: {error}", request=request)
