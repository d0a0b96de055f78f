"""Connections through a proxy: CONNECT (RFC 9110 section 9.3.6), SOCKS, and TLS within TLS."""

from __future__ import annotations

import base64
import importlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from ...net.dependencies import missing
from ...net.tls_error import is_cut
from ...net.url import parse
from ...waiting.cancellation import watched
from .error import FramingError, SocksRefused, TunnelRefused
from .framing import BLOCK, ReplyParser

SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
"""The schemes that the URL of a proxy may have."""

T = TypeVar("T")


class Proxy(NamedTuple):
    """The address and the credentials of a proxy."""

    scheme: str
    host: str
    port: int
    user: str
    password: str

    @property
    def is_socks(self) -> bool:
        """Whether the proxy speaks SOCKS; else it speaks HTTP."""
        return self.scheme.startswith("socks")

    @property
    def authorization(self) -> str | None:
        """The value of Proxy-Authorization; None without credentials."""
        if not self.user and not self.password:
            return None
        credentials = f"{self.user}:{self.password}".encode()
        return f"Basic {base64.b64encode(credentials).decode()}"


def parse_proxy(url: str) -> Proxy:
    """Parse the URL of a proxy.

    Args:
        url: The URL, which may have credentials. Without a scheme, http is meant.

    Raises:
        ValueError: The URL isn't usable. The message says why, and quotes nothing of the URL but
            its scheme.
    """
    found = parse(url if "://" in url else f"http://{url}", SCHEMES)
    proxy = Proxy(found.scheme, found.host, found.port, found.user or "", found.password or "")
    if proxy.is_socks:
        _pysocks()
    return proxy


def connect(sock: socket.socket, host: str, port: int, authorization: str | None) -> None:
    """Let an HTTP proxy connect to a server, by CONNECT.

    Args:
        sock: The connection to the proxy.
        host: The server.
        port: The server's port.
        authorization: The value of Proxy-Authorization; None to send none.

    Raises:
        TunnelRefused: The proxy refused, or couldn't connect.
        FramingError: The proxy's response is malformed.
        OSError: The network failed.
    """
    # The zone of an IPv6 address is meaningful on this machine only.
    host = host.partition("%")[0]
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if authorization is not None:
        lines.append(f"Proxy-Authorization: {authorization}")
    sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
    parser = ReplyParser("CONNECT")
    try:
        # The token must be able to interrupt this: a proxy may respond late.
        with watched(sock):
            while (head := parser.read_head()) is None:
                parser.receive(_receive(sock))
    except FramingError as error:
        raise FramingError(f"the proxy's, to CONNECT: {error}") from error
    if not 200 <= head.status < 300:
        retry_after = head.fields.get("retry-after", "")
        raise TunnelRefused(head.status, retry_after, authorization is not None)
    if parser.rest:
        raise FramingError("the proxy's, to CONNECT: there is something behind it")


def _receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(BLOCK)
    except ssl.SSLError as error:
        if not is_cut(error):
            raise
        return b""


def negotiate_socks(sock: socket.socket, proxy: Proxy, host: str, port: int) -> socket.socket:
    """Let a SOCKS proxy connect to a server.

    Args:
        sock: The connection to the proxy. The returned socket replaces it.
        proxy: The proxy.
        host: The server. The proxy resolves its name with socks5h and socks4a, else this machine.
        port: The server's port.

    Raises:
        SocksRefused: The proxy refused, or couldn't connect.
        OSError: The network failed.
    """
    socks = _pysocks()
    timeout, family = sock.gettimeout(), sock.family
    socks_socket: Any = socks.socksocket(family, fileno=sock.detach())
    try:
        socket.socket.settimeout(socks_socket, timeout)
        version = socks.SOCKS5 if proxy.scheme.startswith("socks5") else socks.SOCKS4
        is_remote = proxy.scheme in ("socks5h", "socks4a")
        socks_socket.set_proxy(
            version, proxy.host, proxy.port, is_remote, proxy.user, proxy.password
        )
        # connect() would dial the proxy itself: only one address, and not cancellable.
        name = "_negotiate_SOCKS5" if version == socks.SOCKS5 else "_negotiate_SOCKS4"
        negotiate = getattr(socks_socket, name)
        with watched(socks_socket):
            negotiate(host, port)
        plain = socket.socket(fileno=socks_socket.detach())
    except socks.ProxyError as error:
        raise SocksRefused(str(error), isinstance(error, socks.SOCKS5AuthError)) from error
    finally:
        # Closes nothing if the descriptor was detached.
        socks_socket.close()
    plain.settimeout(timeout)
    return plain


def _pysocks() -> Any:
    if missing("socks."):
        raise ValueError("SOCKS proxies need PySocks: run pip install pysocks")
    return importlib.import_module("socks")


class TlsInTls:
    """TLS to a server inside of the TLS connection to a proxy, with the methods of a socket."""

    def __init__(self, sock: ssl.SSLSocket, context: ssl.SSLContext, host: str) -> None:
        """Do the handshake with the server.

        Args:
            sock: The connection to the proxy.
            context: The TLS context for the server.
            host: The host that the server's certificate must be valid for.

        Raises:
            OSError: The handshake failed.
        """
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.settimeout, self.pending = sock.settimeout, self._tls.pending
        with watched(sock):
            self._run(self._tls.do_handshake)

    def recv(self, size: int) -> bytes:
        """Return up to ``size`` bytes that are available; b"" at the end of the connection."""
        return self._run(lambda: self._tls.read(size))

    def sendall(self, data: bytes) -> None:
        """Send all of the data."""
        self._run(lambda: self._tls.write(data))

    def close(self) -> None:
        """Close the connection to the proxy."""
        self._sock.close()

    def _run(self, step: Callable[[], T]) -> T:
        """Call a TLS operation repeatedly, until it has received the bytes that it needs."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._flush()
                data = _receive(self._sock)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            finally:
                # After an error too: an alert may be pending.
                self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._sock.sendall(self._outgoing.read())
