"""Our part of requests and urllib3: connections that read strictly, and pools of them."""

from __future__ import annotations

import _socket
import contextlib
import functools
import http.client
import queue
import re
import select
import socket
import ssl
import struct
import threading
from collections import deque
from typing import Any

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError

from ...address import check_peer
from ...waiting.cancellation import watched
from .framing import FramingError, StrictResponse
from .reply import Reply
from .request import UnsendableError, fields

POOL_SIZE = 1024
"""Connections kept for one destination. A pool can't know how many threads there will be."""

_TUNNEL = re.compile(r"(Tunnel connection failed: \d+).*", re.DOTALL)


# SO_MEMINFO (Linux; socket has no name for it), of which the first number is the memory that what
# has come takes up; and the first byte of TCP_INFO, while both sides can send.
_MEMINFO = 55
_ESTABLISHED = b"\x01"

_NO_TARGET = re.compile(r"[^\x21-\x7e]")
_GONE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


class StaleConnection(http.client.RemoteDisconnected):
    """A connection that had been kept was closed by the server before it replied.

    That is no fault: the server may close it at any time (RFC 9112 section 9.5), and a new one may
    be used at once.
    """


class _Strict(HTTPConnection):
    response_class: type[http.client.HTTPResponse] = StrictResponse
    _replies = 0
    # The method of the last request.
    _asked = ""
    _poller: select.poll | None = None
    _tells_state = False
    # The limit that the kernel keeps; none at first.
    _limit: float | None = None

    def __repr__(self) -> str:
        # Errors of urllib3 begin with it.
        return f"{type(self).__name__}(host={self.host!r}, port={self.port!r})"

    def connect(self) -> None:
        self._replies = 0
        self._poller = self._limit = None
        try:
            super().connect()
        except TimeoutError as error:
            # That of a handshake would be taken for one of reading.
            raise ConnectTimeoutError(self, "TLS took longer than the time-out") from error
        self._tells_state = _is_idle(self.sock)

    @property
    def is_connected(self) -> bool:
        """Whether it is open, and nothing has come by it that nobody asked for."""
        if self.sock is None:
            return False
        if self._tells_state:
            return _is_idle(self.sock)
        if self._poller is None:
            self._poller = select.poll()
            self._poller.register(self.sock, select.POLLIN)
        return not self._poller.poll(0)

    def _tunnel(self) -> None:
        # http.client reads the proxy's reply to CONNECT by methods that only its own class has.
        self.response_class = http.client.HTTPResponse
        broken = False
        try:
            # A proxy may be long in saying yes.
            with watched(self.sock):
                super()._tunnel()
        except http.client.RemoteDisconnected:
            raise
        except http.client.HTTPException:
            # Its text is that of the proxy, which may repeat what it was sent.
            broken = True
        except OSError as error:
            # So is what follows the status.
            error.args = tuple(
                _TUNNEL.sub(r"\1", arg) if isinstance(arg, str) else arg for arg in error.args
            )
            raise
        finally:
            self.response_class = StrictResponse
        if broken:
            # Not within an except clause: the error there has the text.
            raise FramingError("what the proxy replied to CONNECT isn't HTTP")

    @functools.cached_property
    def _authority(self) -> str:
        """What the Host header says (RFC 9110 section 7.2), without the zone of an address."""
        host = self.host.partition("%")[0]
        host = f"[{host}]" if ":" in host else host
        return host if self.port == self.default_port else f"{host}:{self.port}"

    def ask(self, request: requests.PreparedRequest, target: str) -> None:
        """Send a request without a body, in one piece.

        That is what :meth:`request` does, too, at several times the cost.

        Args:
            request: The request.
            target: Its path and query, as they are sent.

        Raises:
            UnsendableError: There are characters that can't be sent.
            OSError: It can't be sent.
        """
        method = request.method or ""
        if _NO_TARGET.search(target) or _NO_TARGET.search(method):
            raise UnsendableError("the method or the URL has characters that can't be sent")
        lines = fields(request, self._authority)
        head = f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")
        self._asked = method
        self._limit_waits()
        try:
            self.sock.sendall(head)
        except (BrokenPipeError, ConnectionResetError):
            # The connection is gone already, but the reply may be here all the same.
            pass
        except BlockingIOError as error:
            # What the kernel says where it keeps the time-out.
            raise TimeoutError("timed out") from error

    def _limit_waits(self) -> None:
        """Let each read and write wait no longer than ``timeout`` (seconds)."""
        sock = self.sock
        if (
            isinstance(sock, ssl.SSLSocket)
            or threading.current_thread() is threading.main_thread()
            # Neither for sockets that only look like one, as where gevent has put its own.
            or not isinstance(sock, _socket.socket)
        ):
            self._limit_in_kernel(None)
            if sock.gettimeout() != self.timeout:
                sock.settimeout(self.timeout)
            return
        # The kernel keeps this limit, and spares the call that waits before each other. Not for the
        # main thread, which is the one that signals interrupt: the wait would begin anew each time.
        self._limit_in_kernel(self.timeout)
        if sock.gettimeout() is not None:
            sock.settimeout(None)

    def _limit_in_kernel(self, seconds: float | None) -> None:
        if self._limit == seconds:
            return
        # 0 is no limit.
        micros = 0 if seconds is None else max(int(seconds * 1e6), 1)
        limit = struct.pack("@ll", *divmod(micros, 1_000_000))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._limit = seconds

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request in urllib3's way, for a user of the session: that sets its own limits."""
        if self.sock is not None:
            self._limit_in_kernel(None)
        super().request(*args, **kwargs)

    def answer(self) -> StrictResponse:
        """Return the reply to what was asked, with its body unread.

        Raises:
            OSError: The network failed.
            http.client.HTTPException: The reply can't be trusted, or didn't come.
        """
        body = StrictResponse(self.sock, method=self._asked)
        try:
            body.begin()
        except BaseException as error:
            body.close()
            if isinstance(error, _GONE):
                self._raise_stale(error)
            raise
        self._replies += 1
        if body.will_close:
            # The reply holds the socket until it was read.
            self.close()
        return body

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        try:
            response = super().getresponse()
        except _GONE as error:
            self._raise_stale(error)
            raise
        self._replies += 1
        return response

    def _raise_stale(self, error: Exception) -> None:
        """Say that a connection was a kept one, if it was."""
        if self._replies and not isinstance(error, StaleConnection):
            raise StaleConnection("the server closed a connection that was kept") from error


def _is_idle(sock: socket.socket) -> bool:
    """Whether a socket is connected, and nothing has come that wasn't read.

    False also where the system doesn't tell. Unlike poll() it keeps the interpreter, and to get
    that back from other threads takes longer than the answer.
    """
    try:
        state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        unread = sock.getsockopt(socket.SOL_SOCKET, _MEMINFO, 4)
    except (OSError, AttributeError):
        return False
    return state == _ESTABLISHED and not any(unread)


class Connection(_Strict):
    """A connection for http."""


class SecureConnection(_Strict, HTTPSConnection):
    """A connection for https."""

    def connect(self) -> None:
        """Connect."""
        super().connect()
        if self.ssl_context is not None and self.ssl_context.verify_mode == ssl.CERT_NONE:
            # It is the caller's choice, and was logged: no warning for each request.
            self.is_verified = True


class _PublicOnly(_Strict):
    """A connection to a public address: any other is ended before a byte is sent."""

    def _new_conn(self) -> socket.socket:
        # TLS comes later.
        sock = super()._new_conn()
        try:
            check_peer(sock)
        except OSError:
            sock.close()
            raise
        return sock


class PublicConnection(_PublicOnly, Connection):
    """A connection for http to a public address."""


class PublicSecureConnection(_PublicOnly, SecureConnection):
    """A connection for https to a public address."""


class _Kept:
    """The connections that a pool keeps, of which the last goes first.

    It is what urllib3 needs of a queue, without a lock: taking and giving is one step of a deque.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._connections: deque[Any] = deque()

    def put(self, connection: Any, block: bool = True, timeout: float | None = None) -> None:
        if connection is None:
            # urllib3 would fill it up with as many at first.
            return
        if len(self._connections) >= self._most:
            raise queue.Full
        self._connections.append(connection)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        try:
            return self._connections.pop()
        except IndexError:
            raise queue.Empty from None

    def qsize(self) -> int:
        return len(self._connections)


class _Lean(HTTPConnectionPool):
    QueueCls: Any = _Kept

    def exchange(
        self,
        request: requests.PreparedRequest,
        target: str,
        connect: float | None,
        read: float | None,
    ) -> Reply:
        """Send a request that has no body, and return the reply with its body unread.

        Args:
            request: The request.
            target: The path and the query, as they are sent.
            connect: How long a connection may take (seconds).
            read: How long to wait for bytes (seconds).

        Raises:
            OSError: The network failed.
            http.client.HTTPException: The reply can't be trusted, or didn't come.
            urllib3.exceptions.HTTPError: There is no connection to be had.
        """
        connection: Any = self._get_conn()
        try:
            if connection.is_closed:
                connection.timeout = connect
                connection.connect()
            connection.timeout = read
            connection.ask(request, target)
            body = connection.answer()
        except BaseException:
            connection.close()
            raise
        return Reply(body, request, connection, self._put_conn)


class Pool(_Lean):
    """Connections for http."""

    ConnectionCls = Connection


class SecurePool(_Lean, HTTPSConnectionPool):
    """Connections for https."""

    ConnectionCls = SecureConnection


class PublicPool(Pool):
    """Connections for http to public addresses."""

    ConnectionCls = PublicConnection


class PublicSecurePool(SecurePool):
    """Connections for https to public addresses."""

    ConnectionCls = PublicSecureConnection


class Adapter(HTTPAdapter):
    """Sends requests by one TLS context, and reads replies strictly."""

    def __init__(
        self,
        context: ssl.SSLContext | None,
        proxy: str | None,
        proxies: dict[str, str],
        proxy_context: ssl.SSLContext | None,
        public_only: bool,
    ) -> None:
        """Make an adapter.

        Args:
            context: The TLS context for the server; None where there is no TLS.
            proxy: The URL of the proxy that is used; None for none.
            proxies: What is given with each request of ours, for the one destination.
            proxy_context: The TLS context for the proxy; None where there is no TLS.
            public_only: Connect to public addresses only.
        """
        self._context = context
        self._proxy_context = proxy_context
        self._proxy = proxy
        self._proxies = proxies
        self._pool: Any = None
        self._pools: dict[str, Any] = {"http": Pool, "https": SecurePool}
        if public_only:
            self._pools = {"http": PublicPool, "https": PublicSecurePool}
        super().__init__(pool_maxsize=POOL_SIZE)
        self.poolmanager.pool_classes_by_scheme = self._pools
        if proxy is not None:
            # Now, and not by the first of many threads.
            self.proxy_manager_for(proxy)

    def close(self) -> None:
        """Close the connections that are idle, and each other one when it comes back."""
        # Clearing the managers would leave that to whoever drops the last reply, which holds its
        # pool.
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - not a dict: it can't be iterated
                with contextlib.suppress(KeyError):
                    manager.pools[key].close()
        super().close()

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Return the pools of connections to a proxy."""
        manager = super().proxy_manager_for(
            proxy, proxy_ssl_context=self._proxy_context, **proxy_kwargs
        )
        manager.pool_classes_by_scheme = self._pools
        return manager

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[Any, Any]:
        """Name the pool for a request: by destination, and by the one TLS context."""
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        # For http it is the proxy that may be reached by TLS.
        context = self._proxy_context if self._context is None else self._context
        return host, {} if context is None else {"ssl_context": context}

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: Any,
        proxies: Any = None,
        cert: Any = None,
    ) -> Any:
        """Return the pool for a request. Ours are all for one destination: it is found once."""
        if proxies is not self._proxies:
            return super().get_connection_with_tls_context(request, verify, proxies, cert)
        if self._pool is None:
            self._pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
        return self._pool

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Send a request: ours by the short way, where no proxy is between."""
        if proxies is not self._proxies or self._proxy is not None or request.body is not None:
            return super().send(request, stream, timeout, verify, cert, proxies)
        pool = self.get_connection_with_tls_context(request, verify, proxies, cert)
        url = request.url or ""
        # Made ready, it has a path, and no fragment.
        target = url[url.index("/", url.index("//") + 2) :]
        try:
            reply: Reply = pool.exchange(request, target, *timeout)
        except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError) as error:
            raise _as_requests(error, request) from error
        reply.connection = self
        return reply

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Do nothing: the TLS context says it all, and loading certifi's bundle costs much."""


def _as_requests(error: Exception, request: requests.PreparedRequest) -> requests.RequestException:
    """The error that requests has for what failed."""
    kind: type[requests.RequestException] = requests.ConnectionError
    if isinstance(error, ssl.SSLError) and not isinstance(error, TimeoutError):
        kind = requests.exceptions.SSLError
    elif isinstance(error, ConnectTimeoutError) and not isinstance(
        error, urllib3.exceptions.NewConnectionError
    ):
        kind = requests.ConnectTimeout
    elif isinstance(error, TimeoutError):
        kind = requests.ReadTimeout
    return kind(error, request=request)
