"""Our part of ftplib: a control connection, and the data connections that it opens."""

from __future__ import annotations

import ftplib
import re
import socket
import ssl
from typing import Any

from ..error import DownloadFailed
from ..waiting.cancellation import watched

_SIZE = re.compile(r"213[ \t]+(\d{1,18})[ \t]*")
_TIME = re.compile(r"213[ \t]+(\d{14}(?:\.\d{1,9})?)[ \t]*")


class NoTls(ftplib.error_perm):
    """The server refuses TLS."""


class NoRest(ftplib.error_perm):
    """The server can't begin in the middle of a file."""


class Control(ftplib.FTP):
    """A control connection on which a cancellation wakes the reader, also while TLS is set up.

    Transfers are passive. Data connections go to the host of the control connection, whatever the
    server says: else it could have us connect to others (ftplib's default since CVE-2021-4189).
    """

    def __init__(
        self, tls: ssl.SSLContext | None, connect: float | None, read: float | None
    ) -> None:
        """Make one that isn't connected.

        Args:
            tls: The TLS context; None for no TLS.
            connect: How long a connection may take to be made, and TLS to be set up (seconds).
            read: How long to wait for the next bytes (seconds).
        """
        super().__init__()
        self.timeout = connect
        self._tls = tls
        self._read_timeout = read

    def open(self, host: str, port: int, *, at_once: bool) -> None:
        """Connect, and set TLS up where there is to be TLS.

        Args:
            host: The host.
            port: The port.
            at_once: TLS comes before the first word, as on port 990, and isn't asked for by AUTH
                (RFC 4217 section 4).
        """
        self.host = host
        self.sock = socket.create_connection((host, port), self.timeout)
        self.af = self.sock.family
        if self._tls is not None and at_once:
            self._shake_hands()
        self.file = self.sock.makefile("r", encoding=self.encoding)
        self.welcome = self.getresp()
        if self._tls is not None and not at_once:
            self._demand("AUTH TLS")
            # With what came behind the reply, in the clear: anybody may have sent it.
            self.file.close()
            self._shake_hands()
            self.file = self.sock.makefile("r", encoding=self.encoding)
        self.sock.settimeout(self._read_timeout)

    def protect(self) -> None:
        """Have data connections encrypted, where the control connection is (RFC 4217 section 9)."""
        if self._tls is not None:
            self._demand("PBSZ 0")
            self._demand("PROT P")

    def size_of(self, path: str) -> int | None:
        """Return the size of a file (bytes), as binary transfers count (RFC 3659 section 4).

        Args:
            path: The path of the file.

        Returns:
            None where the server doesn't tell.
        """
        size = self._ask(f"SIZE {path}", _SIZE)
        return None if size is None else int(size)

    def time_of(self, path: str) -> str | None:
        """Return when a file was modified, in the form of RFC 3659 section 2.3.

        Args:
            path: The path of the file.

        Returns:
            None where the server doesn't tell.
        """
        return self._ask(f"MDTM {path}", _TIME)

    def retrieve(
        self, path: str, position: int, connect: float | None
    ) -> tuple[socket.socket, int | None]:
        """Begin a transfer.

        Args:
            path: The path of the file.
            position: The byte to begin with.
            connect: How long the data connection may take to be made (seconds).

        Returns:
            The data connection, and the size of the file where it was told beside.

        Raises:
            ftplib.error_perm: There is no such file, or it can't be begun there.
            DownloadFailed: The server's reply can't be read.
        """
        self.timeout = connect
        try:
            data, told = self.ntransfercmd(f"RETR {path}", position or None)
        except (ValueError, OverflowError):
            # A number in a reply that is none, or has too many digits, or is no port.
            raise DownloadFailed("the server's reply can't be read") from None
        if self._tls is not None:
            # Many servers demand the session of the control connection, which proves that it is
            # the same client who comes.
            data = self._wrap(data, self._tls, getattr(self.sock, "session", None))
        data.settimeout(self._read_timeout)
        return data, told

    def sendcmd(self, cmd: str) -> str:
        """Send a command, and return the reply.

        Args:
            cmd: The command.
        """
        reply = super().sendcmd(cmd)
        if cmd.startswith("REST ") and not reply.startswith("350"):
            # ftplib takes any good reply for a yes.
            raise NoRest(reply)
        return reply

    def getresp(self) -> str:
        """Return the next reply."""
        with watched(self.sock):
            return super().getresp()

    def _ask(self, command: str, form: re.Pattern[str]) -> str | None:
        try:
            match = form.fullmatch(self.sendcmd(command))
        except ftplib.error_perm:
            return None
        return match and match.group(1)

    def _demand(self, command: str) -> None:
        try:
            self.voidcmd(command)
        except ftplib.error_perm as error:
            raise NoTls(*error.args) from None

    def _shake_hands(self) -> None:
        control: Any = self.sock
        self.sock = self._wrap(control, self._tls)

    def _wrap(self, sock: socket.socket, tls: Any, session: Any = None) -> ssl.SSLSocket:
        secure: ssl.SSLSocket = tls.wrap_socket(
            sock,
            # The dot of a full name is in no certificate.
            server_hostname=self.host.rstrip("."),
            session=session,
            # Later, when the socket that does it is the one that is watched.
            do_handshake_on_connect=False,
            # A connection that is cut isn't one that ended.
            suppress_ragged_eofs=False,
        )
        try:
            with watched(secure):
                secure.do_handshake()
        except BaseException:
            secure.close()
            raise
        return secure
