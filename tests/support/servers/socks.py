"""A SOCKS proxy, versions 4, 4a and 5 (RFC 1928, RFC 1929), that reaches loopback only."""

import socket
import struct
from collections.abc import Mapping
from contextlib import closing

from .connection import BLOCK, Connection
from .listener import HOST, Listener


class SocksProxy(Listener):
    """Connects clients to servers on loopback and records its requests.

    Args:
        user: Name and password demanded by version 5; None for no authentication.
        hosts: From a host's name to the port on loopback that it stands for. Another name, and any
            address but 127.0.0.1, is refused.
        refuse: The code of version 5 by which each request is refused; 0 for none.

    Attributes:
        asked: Version, host and port of each request.
        logins: Name and password of each login.
        upstream: The local ports of the connections to servers.
    """

    def __init__(
        self,
        user: tuple[str, str] | None = None,
        hosts: Mapping[str, int] | None = None,
        refuse: int = 0,
    ):
        self._user, self._hosts, self._refuse = user, hosts or {}, refuse
        self.asked: list[tuple[int, str, int]] = []
        self.logins: list[tuple[str, str]] = []
        self.upstream: list[int] = []
        super().__init__()

    def serve(self, connection: Connection) -> None:
        """Greet a client, connect it, and forward data in both directions."""
        version = connection.read(1)[0]
        found = self._greet_5(connection) if version == 5 else self._greet_4(connection)
        if found is None:
            return
        host, port = found
        self.asked.append((version, host, port))
        port = self._hosts.get(host, port if host == HOST else 0)
        if self._refuse or not port:
            code = self._refuse or 4
            refusal = b"\0\x5b" + bytes(6) if version == 4 else b"\5%c\0\1" % code + bytes(6)
            connection.send(refusal)
            return
        upstream = socket.create_connection((HOST, port))
        self.upstream.append(upstream.getsockname()[1])
        connection.send(b"\0\x5a" + bytes(6) if version == 4 else b"\5\0\0\1" + bytes(6))
        with closing(upstream):
            while True:
                if not connection.ready(upstream):
                    upstream.sendall(connection.read_some())
                elif data := upstream.recv(BLOCK):
                    connection.send(data)
                else:
                    return

    def _greet_5(self, connection: Connection) -> tuple[str, int] | None:
        methods = connection.read(connection.read(1)[0])
        wanted = 0 if self._user is None else 2
        if wanted not in methods:
            connection.send(b"\5\xff")
            return None
        connection.send(bytes([5, wanted]))
        if self._user is not None:
            connection.read(1)
            name, word = (connection.read(connection.read(1)[0]).decode() for _ in range(2))
            self.logins.append((name, word))
            is_known = (name, word) == self._user
            connection.send(b"\1\0" if is_known else b"\1\1")
            if not is_known:
                return None
        kind = connection.read(4)[3]
        size = {1: 4, 4: 16}.get(kind) or connection.read(1)[0]
        data = connection.read(size)
        host = (
            data.decode()
            if kind == 3
            else socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6, data)
        )
        return host, struct.unpack(">H", connection.read(2))[0]

    def _greet_4(self, connection: Connection) -> tuple[str, int]:
        connection.read(1)
        port, address = struct.unpack(">H4s", connection.read(6))
        connection.read_until(b"\0")
        if address[:3] == bytes(3) and address[3]:
            return connection.read_until(b"\0")[:-1].decode(), port
        return socket.inet_ntoa(address), port
