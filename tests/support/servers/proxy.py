"""An HTTP proxy that reaches loopback only, by forwarding http and by CONNECT tunnels."""

import socket
import ssl
from collections.abc import Mapping
from contextlib import closing
from urllib.parse import urlsplit

from .connection import BLOCK, ClientGone, Connection
from .listener import HOST, Listener
from .message import Request, basic, head, reply

# Fields for the client's connection to the proxy only (RFC 9110, 7.6.1).
HOP = {"proxy-authorization", "proxy-connection"}


class Proxy(Listener):
    """Forwards to servers on loopback and records its requests.

    Args:
        user: Name and password demanded by basic authentication, else 407.
        tls: Speak TLS with clients, with this context.
        refuse_connect: Answer each CONNECT with 403.
        hosts: From 'name:port', as a client asks for it, to the port on loopback that it stands
            for: so a test can have hosts with names, on ports 80 and 443. What isn't there, and
            isn't localhost or 127.0.0.1, gets 502.

    Attributes:
        requests: Each request as it was received, including CONNECT and refused ones.
        tunnels: The 'name:port' of each tunnel that was opened.
    """

    def __init__(
        self,
        user: tuple[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        refuse_connect: bool = False,
        hosts: Mapping[str, int] | None = None,
    ):
        self._authorization = None if user is None else basic(*user)
        self._refuse_connect = refuse_connect
        self._hosts = hosts or {}
        self.requests: list[Request] = []
        self.tunnels: list[str] = []
        super().__init__(tls)

    def serve(self, connection: Connection) -> None:
        """Answer the client's requests until one opens a tunnel."""
        while True:
            request = connection.read_request()
            with self.changed:
                self.requests.append(request)
                self.changed.notify_all()
            refusal = self._refusal(request)
            if refusal:
                connection.send(refusal)
                continue
            connect = request.method == "CONNECT"
            target = request.target if connect else urlsplit(request.target).netloc
            try:
                upstream = self._reach(target, 443 if connect else 80)
            except OSError as error:
                connection.send(reply(502, body=str(error).encode()))
                continue
            with closing(upstream):
                try:
                    if connect:
                        self._tunnel(connection, upstream, target)
                        return
                    self._forward(connection, upstream, request)
                except ConnectionResetError:
                    connection.reset()
                    return

    def _refusal(self, request: Request) -> bytes | None:
        if self._authorization and request.header("Proxy-Authorization") != self._authorization:
            return reply(407, {"Proxy-Authenticate": 'Basic realm="proxy"'})
        if request.method == "CONNECT":
            return reply(403, body=b"no tunnels here") if self._refuse_connect else None
        if not request.target.startswith("http://"):
            return reply(400, body=b"not for a proxy")
        return None

    def _reach(self, target: str, default: int) -> socket.socket:
        name, _, port = target.rpartition("@")[2].partition(":")
        asked = f"{name}:{port or default}"
        if asked in self._hosts:
            return socket.create_connection((HOST, self._hosts[asked]))
        if name not in ("localhost", HOST):
            raise ConnectionError(f"{asked} is not on loopback")
        return socket.create_connection((HOST, int(port or default)))

    def _tunnel(self, client: Connection, upstream: socket.socket, target: str) -> None:
        with self.changed:
            self.tunnels.append(target)
            self.changed.notify_all()
        client.send(head(200, reason="Connection established"))
        while True:
            if client.ready(upstream):
                data = upstream.recv(BLOCK)
                if not data:
                    return
                client.send(data)
            else:
                upstream.sendall(client.read_some())

    @staticmethod
    def _forward(client: Connection, upstream: socket.socket, request: Request) -> None:
        """Send one request on, and the reply back: that ends where the client speaks again.

        So the proxy needs no idea of where a reply ends, and hands on a broken one as it is.
        """
        parts = urlsplit(request.target)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        fields = [line for line in request.lines[1:] if line.partition(":")[0].lower() not in HOP]
        lines = [f"{request.method} {path} {request.version}", *fields, "", ""]
        upstream.sendall("\r\n".join(lines).encode("latin-1"))
        while client.ready(upstream):
            data = upstream.recv(BLOCK)
            if not data:
                client.finish()
                raise ClientGone
            client.send(data)
