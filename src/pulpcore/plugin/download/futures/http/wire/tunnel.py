"""Ways through a proxy: CONNECT (RFC 9110 section 9.3.6), SOCKS, and TLS within TLS."""

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
"""The schemes of a proxy's URL."""

T = TypeVar("T")


class Proxy(NamedTuple):
    """A proxy, and how to reach it."""

    scheme: str
    host: str
    port: int
    user: str
    password: str

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS, and not HTTP."""
        return self.scheme.startswith("socks")

    @property
    def authorization(self) -> str | None:
        """The value of Proxy-Authorization for HTTP; None without credentials."""
        if not self.user and not self.password:
            return None
        credentials = f"{self.user}:{self.password}".encode()
        return f"Basic {base64.b64encode(credentials).decode()}"


def parse_proxy(url: str) -> Proxy:
    """Return the proxy that a URL names.

    Args:
        url: The URL, in which there may be credentials; http:// is meant where the scheme is
            missing.

    Raises:
        ValueError: It can't be used. The message says why, and has no text of the URL but the
            scheme.
    """
    found = parse(url if "://" in url else f"http://{url}", SCHEMES)
    proxy = Proxy(found.scheme, found.host, found.port, found.user or "", found.password or "")
    if proxy.is_socks:
        _pysocks()
    return proxy


def connect(sock: socket.socket, host: str, port: int, authorization: str | None) -> None:
    """Have an HTTP proxy connect to a server.

    Args:
        sock: The connection to the proxy.
        host: The server.
        port: Its port.
        authorization: The value of Proxy-Authorization; None for none.

    Raises:
        TunnelRefused: The proxy refused, or could not.
        FramingError: What it replied isn't HTTP.
        OSError: The network failed.
    """
    # The zone of an address says something on this machine only.
    host = host.partition("%")[0]
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if authorization is not None:
        lines.append(f"Proxy-Authorization: {authorization}")
    sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
    parser = ReplyParser("CONNECT")
    try:
        # A proxy may take long to answer.
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
    """Have a SOCKS proxy connect to a server.

    Args:
        sock: The connection to the proxy. The one that is returned takes its place.
        proxy: The proxy.
        host: The server. Its name is resolved by the proxy with socks5h and socks4a, else here.
        port: Its port.

    Raises:
        SocksRefused: The proxy refused, or could not.
        OSError: The network failed.
    """
    socks = _pysocks()
    timeout, family = sock.gettimeout(), sock.family
    spoken: Any = socks.socksocket(family, fileno=sock.detach())
    try:
        socket.socket.settimeout(spoken, timeout)
        version = socks.SOCKS5 if proxy.scheme.startswith("socks5") else socks.SOCKS4
        is_remote = proxy.scheme in ("socks5h", "socks4a")
        spoken.set_proxy(version, proxy.host, proxy.port, is_remote, proxy.user, proxy.password)
        # Not connect(): it would connect to the proxy, to one address and past any cancellation.
        name = "_negotiate_SOCKS5" if version == socks.SOCKS5 else "_negotiate_SOCKS4"
        negotiate = getattr(spoken, name)
        with watched(spoken):
            negotiate(host, port)
        plain = socket.socket(fileno=spoken.detach())
    except socks.ProxyError as error:
        raise SocksRefused(str(error), isinstance(error, socks.SOCKS5AuthError)) from error
    finally:
        # Nothing is left of it where it was detached.
        spoken.close()
    plain.settimeout(timeout)
    return plain


def _pysocks() -> Any:
    if missing("socks."):
        raise ValueError("SOCKS proxies need PySocks: install pulpcore-futures[socks]")
    return importlib.import_module("socks")


class TlsInTls:
    """TLS to a server through the TLS of a proxy; it is used like a socket."""

    def __init__(self, sock: ssl.SSLSocket, context: ssl.SSLContext, host: str) -> None:
        """Do the handshake.

        Args:
            sock: The connection to the proxy.
            context: Whom to trust, and what to show.
            host: The server that the certificate must be for.

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
        """Return what is there; b"" at the end of the connection."""
        return self._run(lambda: self._tls.read(size))

    def sendall(self, data: bytes) -> None:
        """Send all of the data."""
        self._run(lambda: self._tls.write(data))

    def close(self) -> None:
        """Close the connection to the proxy."""
        self._sock.close()

    def _run(self, step: Callable[[], T]) -> T:
        """Call what reads or writes TLS, until it has the bytes that it needs."""
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
                # An alert too.
                self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._sock.sendall(self._outgoing.read())
