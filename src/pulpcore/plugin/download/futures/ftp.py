"""Downloading by FTP."""

from __future__ import annotations

import contextlib
import ftplib
import socket
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

from . import backoff, redact
from .cancel import watched
from .download import Download
from .error import DownloadError, DownloadFailed, NotAuthorized, NotFound, transient
from .settings import Settings, Timeout, User

if TYPE_CHECKING:
    from urllib3.util import Retry

    from .writer import Writer

_NOT_FOUND = "550"
_NOT_LOGGED_IN = "530"


class FtpDownload(Download):
    """Downloads a file by FTP (RFC 959), from ``ftp://[user[:password]@]host[:port]/path``.

    Transfers are passive. The path is percent-decoded, and relative to the folder that the server
    logs the user into (RFC 1738 section 3.2.2).

    Attributes:
        user (User): The user; anonymous by default. It wins over userinfo in the URL.
        timeout (Timeout): How long to wait.
        reply (str | None): What the server replied to the request for the file.
    """

    retry: Retry | None = backoff.DEFAULT
    timeout: Timeout

    def __init__(
        self,
        url: str,
        writer: Writer | None,
        user: User | None = None,
        timeout: Timeout | None = None,
    ) -> None:
        """Make a download.

        Args:
            url: An ftp URL.
            writer: Where the content goes.
            user: The user.
            timeout: How long to wait.
        """
        super().__init__(url, writer)
        self.user = user or User()
        self.timeout = timeout or Timeout()

    def _settings_to_check(self) -> Iterable[tuple[str, Settings | None]]:
        return (("user", self.user), ("timeout", self.timeout))

    def _check_settings(self) -> None:
        self.timeout = self.timeout or Timeout()
        self.user = self.user or User()
        try:
            parts = urlsplit(self.url)
            valid = parts.scheme.lower() == "ftp" and parts.hostname and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise ValueError("url: must be ftp://host/path")
        # A line of the protocol ends where a line ends.
        if any(c in unquote(self.url) for c in "\r\n\0"):
            raise ValueError("url: it has characters that FTP can't send")
        if any(c in text for text in self._login() for c in "\r\n\0"):
            raise ValueError("user: it has characters that FTP can't send")

    def _host(self) -> Hashable:
        parts = urlsplit(self.url)
        return parts.scheme, parts.hostname, parts.port or ftplib.FTP_PORT

    def _is_up(self, error: DownloadError) -> bool | None:
        return True if isinstance(error, NotFound | NotAuthorized) else super()._is_up(error)

    def _send(self) -> None:
        self._keep_to_rate()
        try:
            self._fetch(urlsplit(self.url))
        except (ftplib.Error, OSError, EOFError, UnicodeError) as error:
            # First, for a password of one digit may be a part of it.
            code = str(error)[:3]
            # Parts of a command, such as the password, may be in what the server replied.
            redact.exception(error, *self._secrets())
            raise _failure(error, code) from error

    def _fetch(self, parts: SplitResult) -> None:
        # A query is no part of such a URL, but '?' may be in a name that nobody encoded.
        path = unquote(parts.path + ("?" + parts.query if parts.query else ""))
        ftp = _Connection(timeout=self._connect_timeout())
        try:
            ftp.connect(parts.hostname or "", parts.port or ftplib.FTP_PORT)
            control: Any = ftp.sock
            control.settimeout(self.timeout.read)
            ftp.login(*self._login())
            ftp.voidcmd("TYPE I")
            self._retrieve(ftp, path.removeprefix("/"))
        finally:
            # Without a QUIT, whose reply might be long in coming.
            ftp.close()

    def _retrieve(self, ftp: ftplib.FTP, path: str) -> None:
        size = None
        with contextlib.suppress(ftplib.error_perm, ValueError):
            size = ftp.size(path)
        try:
            data, told = ftp.ntransfercmd(f"RETR {path}")
        except (ValueError, OverflowError):
            # A number in a reply that is none, or has too many digits, or is no port.
            raise DownloadFailed("the server's reply can't be read") from None
        size = told if size is None else size
        self._expect(size)
        self._announce(ftp.lastresp)
        with data, watched(data):
            data.settimeout(self.timeout.read)
            while buffer := data.recv(self.BLOCK):
                self._write(buffer)
        # Only this says whether all of it came (RFC 959 section 5.4).
        self.reply = ftp.voidresp()
        if size is not None and self.position != size:
            raise transient(f"the server sent {self.position} bytes and had said {size}")

    def _login(self) -> tuple[str, str]:
        parts = urlsplit(self.url)
        if self.user.name is not None:
            return self.user.name, self.user.password or ""
        if parts.username:
            return unquote(parts.username), unquote(parts.password or "")
        return "anonymous", "anonymous@"

    def _secrets(self) -> Iterable[str]:
        parts = urlsplit(self.url)
        names = [parts.username, unquote(parts.username or "")]
        if not self.user.password:
            # Then it is often a token.
            names.append(self.user.name)
        passwords = [self.user.password, parts.password, unquote(parts.password or "")]
        # A short name is none, and is a part of many a word.
        return [
            *(secret for secret in passwords if secret),
            *(name for name in names if name and len(name) > 3),
        ]


class _Connection(ftplib.FTP):
    """A control connection on which a cancellation wakes the reader."""

    def getresp(self) -> str:
        with watched(self.sock):
            return super().getresp()


def _failure(error: Exception, code: str) -> DownloadFailed:
    if isinstance(error, ftplib.error_perm) and code == _NOT_FOUND:
        return NotFound("the server has no such file, or doesn't give it out")
    if isinstance(error, ftplib.error_perm) and code == _NOT_LOGGED_IN:
        return NotAuthorized("the server wants other credentials")
    if isinstance(error, UnicodeDecodeError):
        return DownloadFailed("the server's reply can't be read")
    if isinstance(error, UnicodeError):
        return DownloadFailed("the URL is not valid: check its host")
    if isinstance(error, ftplib.Error):
        failure = DownloadFailed(f"the server replied {str(error)[:200]}")
        # Replies that begin with 4 mean: try again (RFC 959 section 4.2.1).
        failure.transient = isinstance(error, ftplib.error_temp)
        return failure
    return transient(_network_reason(error))


def _network_reason(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return f"the name of the host can't be resolved: {error.strerror}"
    if isinstance(error, TimeoutError):
        return "nothing was received within the time-out"
    if isinstance(error, EOFError):
        return "the server closed the connection"
    return f"the connection failed: {getattr(error, 'strerror', None) or error}"
