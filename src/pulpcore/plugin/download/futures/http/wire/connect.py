"""Opens connections to servers, directly or through a proxy."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple

from ...net.dial import AddressMemory, dial, secure
from ...waiting.cancellation import current
from . import tunnel
from .connection import Connection, Stream
from .error import ConnectTimeout, ProxyError

MakeTls = Callable[[], ssl.SSLContext]


class Connector(NamedTuple):
    """Opens connections to one destination."""

    is_secure: bool
    """Whether the server is reached by TLS."""
    host: str
    port: int
    proxy: tunnel.Proxy | None
    server_tls: MakeTls
    """Returns the TLS context for the server."""
    proxy_tls: MakeTls
    """Returns the TLS context for a proxy that is reached by TLS."""
    memory: AddressMemory
    public_only: bool
    """Connect to public addresses only."""
    receive_buffer: Callable[[], int | None] = lambda: None
    """Returns the size of the receive buffer (bytes); None for the system's choice."""

    @property
    def is_forwarded(self) -> bool:
        """Whether requests go to a proxy, with the absolute URL (RFC 9112 section 3.2.2)."""
        return self.proxy is not None and not self.is_secure and not self.proxy.is_socks

    def connect(self, timeout: float | None) -> Connection:
        """Open a connection.

        Args:
            timeout: The time-out of each step: TCP, TLS and the proxy (seconds); None for no limit.

        Raises:
            ConnectTimeout: A step took longer than the time-out.
            ProxyError: The proxy failed.
            FramingError: The proxy's response is malformed.
            OSError: The network failed.
        """
        try:
            sock = self._reach(timeout)
            stream: Stream = sock
            if self.is_secure:
                if isinstance(sock, ssl.SSLSocket):
                    stream = self._secure_twice(sock)
                else:
                    stream = sock = secure(sock, self.server_tls(), self.host, timeout)
        except OSError as error:
            token = current()
            if token is not None:
                # Cancelling shuts the socket down. Then the error isn't the network's fault.
                token.check()
            if isinstance(error, TimeoutError):
                raise ConnectTimeout("no connection within the time-out") from error
            raise
        return Connection(stream, sock)

    def _reach(self, timeout: float | None) -> socket.socket:
        """Connect to the server or, if there is one, through the proxy."""
        if self.proxy is None:
            return dial(
                self.host,
                self.port,
                timeout,
                memory=self.memory,
                public_only=self.public_only,
                receive_buffer=self.receive_buffer(),
            )
        try:
            sock = dial(
                self.proxy.host,
                self.proxy.port,
                timeout,
                memory=self.memory,
                receive_buffer=self.receive_buffer(),
            )
            if self.proxy.scheme == "https":
                sock = secure(sock, self.proxy_tls(), self.proxy.host, timeout)
            try:
                sock.settimeout(timeout)
                return self._tunnel(sock, self.proxy)
            except BaseException:
                sock.close()
                raise
        except ProxyError:
            raise
        except TimeoutError as error:
            failure = ConnectTimeout("no connection within the time-out")
            failure.__cause__ = error
            raise ProxyError("the proxy took too long") from failure
        except OSError as error:
            raise ProxyError("the proxy failed") from error

    def _tunnel(self, sock: socket.socket, proxy: tunnel.Proxy) -> socket.socket:
        if proxy.is_socks:
            return tunnel.negotiate_socks(sock, proxy, self.host, self.port)
        if not self.is_forwarded:
            tunnel.connect(sock, self.host, self.port, proxy.authorization)
        return sock

    def _secure_twice(self, sock: ssl.SSLSocket) -> Stream:
        try:
            return tunnel.TlsInTls(sock, self.server_tls(), self.host)
        except BaseException:
            sock.close()
            raise
