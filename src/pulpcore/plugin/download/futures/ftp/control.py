"""A control connection by ftplib, and the data connections that it opens."""

from __future__ import annotations

import ftplib
import re
import socket
import ssl
from typing import Any, TextIO

from ..error import DownloadFailed
from ..net.dial import AddressMemory, dial, secure
from ..waiting.cancellation import watched
from .location import ENCODING

REPLY_MAX = 64 * 1024
"""The longest reply that is read (characters)."""

_SIZE = re.compile(r"213[ \t]+(\d{1,18})[ \t]*")
_TIME = re.compile(r"213[ \t]+(\d{14}(?:\.\d{1,9})?)[ \t]*")
_OPENED = re.compile(r"150 .*\((\d{1,18}) bytes\)", re.IGNORECASE | re.DOTALL)


class TooLong(ftplib.Error):
    """The server's reply is longer than ``REPLY_MAX``."""


class OddReply(ftplib.Error):
    """A reply that is unexpected here, or too long."""


class NoTls(ftplib.error_perm):
    """The server refuses TLS."""


# Phrases by which servers report too many connections. The code alone, such as 530, may also mean a
# wrong password.
_TOO_MANY = re.compile(
    r"too many|maximum|max(imal)? (number|client|user)|limit|already (connected|logged)|try again"
    r"|(no|not) (more|enough) (connection|user|client|slot)|(server|system) (is )?(full|busy)",
    re.IGNORECASE,
)


class LoginRefused(ftplib.error_perm):
    """The server refuses the user, or any login from this address."""


class TooMany(ftplib.error_temp):
    """The server allows no more connections at the moment."""


class NoFile(ftplib.error_perm):
    """The server doesn't have the file, or refuses access to it."""


class NoRest(ftplib.error_perm):
    """The server can't begin a transfer in the middle of a file."""


class Control(ftplib.FTP):
    """A control connection. A cancellation wakes its reader, also during the TLS handshake.

    Transfers are passive. Data connections go to the host of the control connection, whatever the
    server says. Otherwise it could make us connect to any host (CVE-2021-4189).
    """

    maxline = REPLY_MAX

    def __init__(
        self,
        tls: ssl.SSLContext | None,
        connect: float | None,
        read: float | None,
        receive_buffer: int | None = None,
    ) -> None:
        """Create a connection that isn't open yet.

        Args:
            tls: The TLS context; None for no TLS.
            connect: How long a connection may take to be made, and TLS to be set up (seconds).
            read: How long to wait for the next bytes (seconds).
            receive_buffer: The size of the receive buffer of data connections (bytes); None for the
                system's choice.
        """
        super().__init__()
        self._tls = tls
        self._connect_timeout = connect
        self._read_timeout = read
        self._receive_buffer = receive_buffer
        self._is_logged_in = False
        self._left = REPLY_MAX

    def open(
        self, host: str, port: int, memory: AddressMemory | None = None, *, at_once: bool
    ) -> None:
        """Connect. With TLS, do the handshake, or negotiate TLS by AUTH TLS.

        Args:
            host: The host.
            port: The port.
            memory: The addresses that didn't answer before.
            at_once: TLS begins at once (implicit TLS, as on port 990), without AUTH TLS (RFC 4217
                section 4).

        Raises:
            TooMany: The server allows no more connections.
            LoginRefused: The server refuses connections from this address.
            NoTls: The server refuses TLS.
        """
        self.host = host
        sock = self.sock = dial(host, port, self._connect_timeout, memory=memory)
        self.af = sock.family
        if self._tls is not None and at_once:
            sock = self._secure(sock, self._tls)
        file = self._listen(sock)
        self.welcome = self.getresp()
        if self._tls is not None and not at_once:
            self._demand("AUTH TLS")
            # Discard the buffered reader: an attacker may have injected plain text after the reply.
            file.close()
            self._listen(self._secure(sock, self._tls))

    def login(self, user: str = "", passwd: str = "", acct: str = "") -> str:
        """Log in, and return the reply.

        Args:
            user: The user.
            passwd: The password.
            acct: The account.

        Raises:
            TooMany: The server allows no more connections.
            LoginRefused: The server refuses the user.
        """
        reply = super().login(user, passwd, acct)
        self._is_logged_in = True
        return reply

    def protect(self) -> None:
        """Encrypt data connections if the control connection is encrypted (RFC 4217 section 9)."""
        if self._tls is not None:
            self._demand("PBSZ 0")
            self._demand("PROT P")

    def size_of(self, path: str) -> int | None:
        """Return the size of a file in a binary transfer (bytes; RFC 3659 section 4).

        Args:
            path: The path of the file.

        Returns:
            None if the server doesn't tell.
        """
        size = self._ask(f"SIZE {path}", _SIZE)
        return None if size is None else int(size)

    def time_of(self, path: str) -> str | None:
        """Return the modification time of a file, as text (RFC 3659 section 2.3).

        Args:
            path: The path of the file.

        Returns:
            None where the server doesn't tell.
        """
        return self._ask(f"MDTM {path}", _TIME)

    def retrieve(self, path: str, position: int) -> tuple[socket.socket, int | None]:
        """Begin a transfer.

        Args:
            path: The path of the file.
            position: The byte to begin with.

        Returns:
            The data connection, and the size of the file where the server told it in its reply.

        Raises:
            NoFile: There is no such file.
            NoRest: The transfer can't begin there.
            DownloadFailed: The server's reply can't be read.
        """
        try:
            host, port = self.makepasv()
        except (ValueError, OverflowError):
            port = 0
        if not 0 < port < 1 << 16:
            # The port isn't a number, or is out of range.
            raise DownloadFailed("the server's reply can't be read")
        data = dial(host, port, self._connect_timeout, receive_buffer=self._receive_buffer)
        try:
            size = self._begin(path, position)
            if self._tls is not None:
                # Many servers require the TLS session of the control connection. It proves that
                # both connections come from the same client.
                data = self._secure(data, self._tls, getattr(self.sock, "session", None))
            data.settimeout(self._read_timeout)
        except BaseException:
            data.close()
            raise
        return data, size

    def sendcmd(self, cmd: str) -> str:
        """Send a command, and return the reply.

        Args:
            cmd: The command.
        """
        reply = super().sendcmd(cmd)
        if cmd.startswith("REST ") and not reply.startswith("350"):
            # ftplib accepts any reply below 400.
            raise NoRest(reply)
        return reply

    def putline(self, line: str) -> None:
        """Send a line.

        Args:
            line: The line. Bytes of a name that are no UTF-8 are surrogates.
        """
        sock: Any = self.sock
        sock.sendall(f"{line}\r\n".encode(ENCODING, "surrogateescape"))

    def getline(self) -> str:
        """Return the next line of a reply.

        Raises:
            TooLong: The reply is longer than 64 KiB.
        """
        try:
            line = super().getline()
        except ftplib.Error as error:
            # What ftplib raises for a line that is longer than ``maxline``.
            raise TooLong from error
        self._left -= len(line)
        if self._left < 0:
            raise TooLong
        return line

    def getresp(self) -> str:
        """Return the next reply.

        Raises:
            TooMany: Before the login: the server allows no more connections.
            LoginRefused: Before the login: the server refuses.
        """
        self._left = REPLY_MAX
        try:
            with watched(self.sock):
                return super().getresp()
        except (ftplib.error_temp, ftplib.error_perm) as error:
            if self._is_logged_in:
                raise
            raise _refusal(error) from None

    def _listen(self, sock: socket.socket) -> TextIO:
        self.sock = sock
        sock.settimeout(self._read_timeout)
        # The digits are ASCII in any encoding that servers use. The rest is only shown to users.
        self.file = file = sock.makefile(
            "r", encoding=ENCODING, errors="backslashreplace", newline="\n"
        )
        return file

    def _begin(self, path: str, position: int) -> int | None:
        if position:
            self.sendcmd(f"REST {position}")
        try:
            reply = self.sendcmd(f"RETR {path}")
        except ftplib.error_perm as error:
            if str(error).startswith("550"):
                raise NoFile(*error.args) from None
            raise
        if reply.startswith("2"):
            # Some servers send a 2xx reply first, to report that they have connected.
            reply = self.getresp()
        if not reply.startswith("1"):
            raise OddReply(reply)
        size = _OPENED.match(reply)
        return None if size is None else int(size.group(1))

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

    def _secure(
        self, sock: socket.socket, tls: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> ssl.SSLSocket:
        return secure(sock, tls, self.host, self._connect_timeout, session)


def _refusal(error: ftplib.error_temp | ftplib.error_perm) -> ftplib.Error:
    """Return the error for a refusal before the end of the login."""
    code = str(error)[:3]
    if code == "421" or (code != "500" and _TOO_MANY.search(str(error)[3:])):
        return TooMany(*error.args)
    if isinstance(error, ftplib.error_perm) and code[1] != "0":
        return LoginRefused(*error.args)
    # The server failed, or doesn't know the command (RFC 959 section 4.2.1).
    return error
