"""An FTP server for a folder, based on pyftpdlib."""

import io
import logging
import socket
import threading
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from .listener import HOST, THREADS
from .tls import Certificate

with warnings.catch_warnings():
    # pyftpdlib is based on asyncore and asynchat, of which Python 3.11 warns.
    warnings.simplefilter("ignore", DeprecationWarning)
    from OpenSSL import SSL
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.filesystems import AbstractedFS
    from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
    from pyftpdlib.ioloop import AsyncChat, IOLoop
    from pyftpdlib.servers import FTPServer as Server

# Else it configures logging by itself; and its records, passwords included, are none of ours.
logging.getLogger("pyftpdlib").addHandler(logging.NullHandler())
logging.getLogger("pyftpdlib").propagate = False


@dataclass(frozen=True)
class Cut:
    """Cut the data connection after so many bytes from the start of the transfer.

    Attributes:
        size: Bytes sent before the end.
        claim: Report success (226) instead of 426, so that only the size shows the cut.
    """

    size: int
    claim: bool = False


@dataclass(frozen=True)
class Security:
    """How a server speaks TLS, which it demands for control and data connections.

    Attributes:
        certificate: The server's certificate.
        implicit: TLS from the first byte on instead of by AUTH.
        client_ca: Demand a client certificate that this CA signed.
    """

    certificate: Certificate
    implicit: bool = False
    client_ca: Path | None = None

    def context(self) -> SSL.Context:
        """Make a new TLS context."""
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate_chain_file(str(self.certificate.certificate))
        context.use_privatekey_file(str(self.certificate.key))
        # Otherwise no session can be resumed when client certificates are demanded.
        context.set_session_id(b"ftp")
        if self.client_ca is not None:
            context.load_verify_locations(str(self.client_ca))
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
        return context


class FtpServer:
    """Serves a folder, read only, from one thread.

    Args:
        folder: The folder to serve.
        users: From a name to its password. None for anonymous alone; given, anonymous is refused
            unless it is one of the names.
        cuts: From the number of a transfer (from 0, all connections together) to how it ends.
            The attribute may be set anew at any time.
        security: The TLS settings; None for no TLS.
        unknown: Commands that the server doesn't know.
        host: The address it listens on.
        most: The greatest number of users logged in at once.
        full: The reply to one more before the server hangs up; nothing if it is empty.

    Attributes:
        port: The port it listens on.
        connections: How many control connections were accepted.
        commands: Each command as (name, argument): ('RETR', '/a'). The password of PASS too.
        transfers: The number of files opened for sending.
        before: From a command to what is called once, in the server's thread, before it is done.
    """

    def __init__(
        self,
        folder: Path,
        users: Mapping[str, str] | None = None,
        cuts: Mapping[int, Cut] | None = None,
        security: Security | None = None,
        unknown: Collection[str] = (),
        host: str = HOST,
        most: int | None = None,
        full: str = "421 Too many users",
    ):
        self.cuts = cuts or {}
        self.before: dict[str, Callable[[], object]] = {}
        self.connections = 0
        self.transfers = 0
        self.commands: list[tuple[str, str]] = []
        self._loop = IOLoop()
        self._ending = False
        near, self._waker = socket.socketpair()
        _Wake(near, self._loop)
        self._scheme = "ftps" if security is not None and security.implicit else "ftp"
        self._host = f"[{host}]" if ":" in host else host
        handler = _limited(self._handler(folder, users, security), most, full)
        handler.proto_cmds = {
            name: known for name, known in handler.proto_cmds.items() if name not in unknown
        }
        server = Server((host, 0), handler, ioloop=self._loop)
        self.port: int = server.address[1]
        self._thread = threading.Thread(
            target=self._run, name=f"{THREADS} FtpServer {self.port}", daemon=True
        )
        self._thread.start()

    def url(self, path: str = "/", userinfo: str = "") -> str:
        """Return the URL of a path on this server. `userinfo` is 'name:password', encoded."""
        at = "@" if userinfo else ""
        return f"{self._scheme}://{userinfo}{at}{self._host}:{self.port}{path}"

    def told(self, *names: str) -> list[tuple[str, str]]:
        """Return the commands with these names, in order, in the form of `commands`."""
        return [command for command in self.commands if command[0] in names]

    def close(self) -> None:
        """End all connections and the thread."""
        self._ending = True
        self._waker.close()
        self._thread.join(30)
        if self._thread.is_alive():
            raise RuntimeError(f"{self._thread.name} does not end")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _run(self) -> None:
        soonest = None
        while not self._ending:
            soonest = self._loop.loop(soonest, blocking=False)
        self._loop.close()

    def _handler(
        self, folder: Path, users: Mapping[str, str] | None, security: Security | None
    ) -> type[FTPHandler]:
        log = self
        base = FTPHandler if security is None else _secured(security)

        class Files(AbstractedFS):
            def open(self, filename: str, mode: str) -> Any:
                number, log.transfers = log.transfers, log.transfers + 1
                return _File(filename, log.cuts.get(number))

        class Handler(base):
            authorizer = DummyAuthorizer()
            abstracted_fs = Files
            # pyftpdlib must read the file through Python, where it can be cut.
            use_sendfile = False
            auth_failed_timeout = 0

            def on_connect(self) -> None:
                log.connections += 1

            def pre_process_command(self, line: str, cmd: str, arg: str) -> None:
                log.commands.append((cmd, arg))
                log.before.pop(cmd, bool)()
                super().pre_process_command(line, cmd, arg)

        if users is None:
            Handler.authorizer.add_anonymous(str(folder))
        for name, password in (users or {}).items():
            Handler.authorizer.add_user(name, password, str(folder))
        return Handler


def _limited(base: type[FTPHandler], most: int | None, full: str) -> type[FTPHandler]:
    """Make a handler that limits the number of logins."""
    inside: set[FTPHandler] = set()

    class Handler(base):
        def handle(self) -> None:
            if most is None or len(inside) < most or full.startswith("530"):
                super().handle()
                return
            self.on_connect()
            if full:
                self.respond(full)
            self.close_when_done()

        def ftp_USER(self, line: str) -> None:  # noqa: N802 - pyftpdlib looks for this name
            if most is not None and len(inside) >= most:
                if full:
                    self.respond(full)
                self.close_when_done()
                return
            inside.add(self)
            super().ftp_USER(line)

        def close(self) -> None:
            inside.discard(self)
            super().close()

    return Handler


def _secured(security: Security) -> type[FTPHandler]:
    """Make a handler with TLS."""

    class Handler(TLS_FTPHandler):
        ssl_context = security.context()
        tls_control_required = True
        tls_data_required = True

        def handle(self) -> None:
            if security.implicit:
                self.secure_connection(self.ssl_context)
            else:
                super().handle()

        def handle_ssl_established(self) -> None:
            if security.implicit:
                super().handle()

    return Handler


class _File(io.FileIO):
    """A file that seems to end, or fails, too early."""

    def __init__(self, name: str, cut: Cut | None):
        super().__init__(name)
        self._cut = cut
        self._left = 0 if cut is None else cut.size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as far as the cut allows."""
        if self._cut is None:
            return super().read(size)
        data = super().read(self._left if size is None or size < 0 else min(size, self._left))
        self._left -= len(data)
        if not data and not self._cut.claim:
            raise OSError("cut")
        return data


class _Wake(AsyncChat):
    """Wakes the loop to check `_ending` when the other end of the pair is closed."""

    def handle_read(self) -> None:
        """Read the end of file, which closes this end."""
        self.recv(1)

    def handle_close(self) -> None:
        """Close this end."""
        self.close()
