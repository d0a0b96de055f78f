"""``FtpDownload``, and one attempt of it."""

from __future__ import annotations

import contextlib
import ftplib
import socket
import time
from collections.abc import Callable, Hashable
from ssl import SSLContext, SSLError, SSLSocket
from typing import TYPE_CHECKING, cast, overload

from ..download import Download
from ..engine import backoff
from ..engine.attempt import Attempt
from ..engine.limited import Ration
from ..engine.protocol import Protocol, validate
from ..error import DownloadError, DownloadFailed, NotAuthorized, NotFound, transient
from ..net.dial import AddressMemory
from ..net.tls import shared_context
from ..net.tls_error import is_cut
from ..settings import SSL, Timeout, User
from ..waiting.cancellation import watched
from ..writer import W_co
from . import failure
from .control import Control, LoginRefused, TooMany
from .location import Location
from .logins import Logins
from .version import Sighting, Version, place

if TYPE_CHECKING:
    from urllib3.util import Retry

    from ..writer import FileWriter, StrPath

# How a server signals that it has too many connections: a reply, closing, or refusing them.
_FULL = (TooMany, EOFError, ConnectionRefusedError, ConnectionResetError)

_NO_REST = "the rest of the file alone can't be had, and it can't be started again"


class FtpProtocol(Protocol):
    """The FTP side of a run. It remembers the version of the file across attempts.

    Attributes:
        version (Version | None):
            The version of the bytes received so far, if it is certain.
        sighting (Sighting | None):
            The version that the server reported last.
    """

    version: Version | None = None
    sighting: Sighting | None = None

    def check(self, download: FtpDownload) -> None:
        """Validate the settings.

        Args:
            download: The download.

        Raises:
            TypeError:
                A setting has a wrong type.
            ValueError:
                A setting has an unusable value.
        """
        # A handler may have set these to anything that the constructor accepts.
        download.timeout, download.user = Timeout.of(download.timeout), User.of(download.user)
        download.ssl = SSL.of(download.ssl)
        validate(user=download.user, timeout=download.timeout, ssl=download.ssl)
        Location.of(download.url, download.user)

    def host(self, download: FtpDownload) -> Hashable:
        """Return the origin of the server. Downloads with the same origin share a circuit breaker.

        Args:
            download: The download.
        """
        return Location.of(download.url, download.user).url.origin

    def is_up(self, error: DownloadError) -> bool | None:
        """Return whether a failure shows that the server is up.

        It is up if it refused the request, or has too many connections.

        Args:
            error: The failure.
        """
        if isinstance(error, NotFound | NotAuthorized) or isinstance(error.__cause__, TooMany):
            return True
        return super().is_up(error)

    def can_resume(self, download: FtpDownload) -> bool:
        """Return whether the rest of the file can be requested, because its version is certain.

        Args:
            download: The download.
        """
        return self.version is not None and self.version.place == _place(download)

    def recall(self, download: FtpDownload, note: str) -> bool:
        """Restore the version from the note of an earlier run. Return whether it is of this file.

        Args:
            download:
                The download.
            note:
                The note, as ``Version.note()`` returned it.
        """
        self.version = Version.from_note(note)
        return self.can_resume(download)


class FtpDownload(Download[W_co]):
    """Downloads a file by FTP, from ``ftp://[user[:password]@]host[:port]/path`` or ``ftps://...``.

    Transfers are passive and binary (RFC 959). The path is relative to the user's home directory
    on the server (RFC 1738 section 3.2.2). Percent-encoded bytes of the path are sent decoded and
    unchanged, in whatever encoding they are. A type code at its end, such as ``;type=i``, is
    removed.

    Some servers allow fewer connections than a batch has threads. If a server refuses a download
    for that reason (421, 530, or a refused or closed connection), the download waits until another
    one from the server has ended. If no other download from it is running, the attempt fails and
    is retried.

    The URL and ``tls`` determine the encryption, as in curl:

    * ``ftps://host/path``: implicit TLS from the first byte. The default port is 990.
    * ``ftp://host/path`` with ``tls=True``: explicit TLS with AUTH TLS (RFC 4217). If the server
      refuses it, the download fails before the password is sent. It never falls back to plain
      FTP.

    With TLS, the data connections are encrypted too. They resume the TLS session of the control
    connection.

    A retry resumes the transfer (REST, RFC 3659 section 5) if the version of the file is certainly
    the same. For that, the server must report size and modification time (SIZE, MDTM), both must
    be unchanged before and after the transfer, and the time must be old enough to identify one
    version. Otherwise the retry starts over. Files of up to ``BLOCK`` bytes always start over: that
    is faster than to ask the server.

    Attributes:
        user (User):
            The user; anonymous by default. It has precedence over userinfo in the URL.
        timeout (Timeout):
            The time-outs.
        ssl (SSL):
            The TLS settings, with the same trusted certificates as for https.
        tls (bool):
            Require TLS for ftp URLs.
        reply (str | None):
            The server's reply to the request for the file.
    """

    retry: Retry | None = backoff.DEFAULT
    timeout: Timeout
    _protocol = FtpProtocol
    reply: str | None

    @overload
    def __init__(
        self: FtpDownload[FileWriter],
        url: str,
        writer: StrPath,
        user: User | tuple[str, str] | None = ...,
        timeout: Timeout | float | tuple[float | None, float | None] | None = ...,
        ssl: SSL | None = ...,
        tls: bool = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        url: str,
        writer: W_co | StrPath | None,
        user: User | tuple[str, str] | None = ...,
        timeout: Timeout | float | tuple[float | None, float | None] | None = ...,
        ssl: SSL | None = ...,
        tls: bool = ...,
    ) -> None: ...

    def __init__(
        self,
        url: str,
        writer: W_co | StrPath | None,
        user: User | tuple[str, str] | None = None,
        timeout: Timeout | float | tuple[float | None, float | None] | None = None,
        ssl: SSL | None = None,
        tls: bool = False,
    ) -> None:
        """Create a download.

        Args:
            url: An ftp or ftps URL.
            writer: A writer, or the path of the file to write. None discards the content.
            user: The user, also as a pair of name and password.
            timeout: The time-outs. A number of seconds sets both ``connect`` and ``read``; a pair
                sets one each.
            ssl: The TLS settings.
            tls: Require TLS for an ftp URL. An ftps URL always uses it.

        Raises:
            TypeError: An argument has a wrong type; the message names it.
        """
        super().__init__(url, writer)
        self.user = User.of(user)
        self.timeout = Timeout.of(timeout)
        self.ssl = SSL.of(ssl)
        self.tls = tls

    def _send(self) -> None:
        attempt = Attempt.of(self)
        attempt.wait_for_turn()
        transfer = _Transfer(self, attempt, self._write)
        try:
            transfer.run()
        except failure.ANTICIPATED as error:
            secrets = Location.of(self.url, self.user).secrets(self.user)
            failed = failure.from_exception(error, *secrets)
            failed.refused = transfer.is_refused
            raise failed from error


class _Transfer:
    """One attempt, from the connection to the end of the transfer.

    Attributes:
        is_refused (bool): The server refused the connection, maybe because it has too many.
    """

    def __init__(
        self, download: FtpDownload, attempt: Attempt, write: Callable[[bytes], None]
    ) -> None:
        self._download, self._attempt, self._write = download, attempt, write
        self._protocol = cast(FtpProtocol, attempt.protocol)
        self._location = Location.of(download.url, download.user)
        self.is_refused = False

    def run(self) -> None:
        """Download the file, or the rest of it."""
        ftp = self._connect()
        try:
            ftp.protect()
            ftp.voidcmd("TYPE I")
            self._retrieve(ftp, self._location.path)
        finally:
            # No QUIT: the server's reply to it might take long.
            ftp.close()

    def _connect(self) -> Control:
        """Connect and log in."""
        download, location, attempt = self._download, self._location, self._attempt
        context = self._tls_context() if location.is_implicit or download.tls else None
        memory = AddressMemory.of(download.context)
        login = location.user, location.password
        logins = Logins.of(download.context, location.host, location.port)
        buffer = None
        if attempt.limits:
            buffer = Ration(attempt.limits, location.url.origin).receive_buffer()
        ftp = Control(context, attempt.connect_timeout(), download.timeout.read, buffer)
        is_right = False
        logins.begin(ftp, login)
        try:
            ftp.open(location.host, location.port, memory, at_once=location.is_implicit)
            ftp.login(*login)
            is_right = True
        except _FULL:
            self.is_refused = True
            raise
        except SSLError as error:
            self.is_refused = is_cut(error)
            raise
        except LoginRefused as error:
            # If the credentials are right, the server refuses the number of connections.
            self.is_refused = logins.may_be_right(login, ftp)
            if logins.is_right(login):
                self.is_refused = True
                raise TooMany(*error.args) from None
            raise
        finally:
            logins.end(ftp, is_right)
            if not is_right:
                ftp.close()
        return ftp

    def _tls_context(self) -> SSLContext:
        try:
            return shared_context(self._download.ssl, self._download.context, "ftp")
        except ValueError as error:
            raise DownloadFailed(f"a setting is wrong: {error}") from error

    def _retrieve(self, ftp: Control, path: str) -> None:
        size = ftp.size_of(path)
        version = self._look(ftp, path, size)
        if self._attempt.position and (
            version is None
            or version != self._protocol.version
            or self._attempt.position > version.size
        ):
            self._attempt.start_over(_NO_REST)
        data, reported_size = self._begin(ftp, path)
        with data:
            start = self._attempt.position
            if not start:
                # With REST, some servers give the size of the rest in this reply.
                size = reported_size if size is None else size
                is_certain = (
                    self._protocol.sighting is not None and self._protocol.sighting.is_certain
                )
                self._remember(version if is_certain else None)
            self._attempt.expect(size)
            self._attempt.announce(ftp.lastresp)
            self._receive(data, size)
        # Only this reply confirms that the transfer is complete (RFC 959 section 5.4).
        self._download.reply = ftp.voidresp()
        if size is not None and self._attempt.position != size:
            raise transient(f"the server sent {self._attempt.position} bytes and had said {size}")
        if start and self._look(ftp, path, ftp.size_of(path)) != self._protocol.version:
            # The file may have changed between the look at its version and the transfer.
            self._remember(None)
            raise transient("the file changed while it was downloaded")

    def _look(self, ftp: Control, path: str, size: int | None) -> Version | None:
        """Return the current version on the server; None if it is unknown or the file is small."""
        self._protocol.sighting, before = None, self._protocol.sighting
        if size is None or size <= self._download.BLOCK:
            return None
        asked = time.monotonic()
        modified = ftp.time_of(path)
        if modified is None:
            return None
        self._protocol.sighting = Sighting.of(
            Version(_place(self._download), size, modified), asked, before
        )
        return self._protocol.sighting.version

    def _begin(self, ftp: Control, path: str) -> tuple[socket.socket, int | None]:
        if self._attempt.position:
            with contextlib.suppress(ftplib.error_perm):
                return ftp.retrieve(path, self._attempt.position)
            # The server doesn't support REST for this file.
            self._attempt.start_over(_NO_REST)
        return ftp.retrieve(path, 0)

    def _receive(self, data: socket.socket, size: int | None) -> None:
        with watched(data):
            while buffer := self._read(data, size):
                if size is not None and self._attempt.position + len(buffer) > size:
                    # The server may have ignored REST and sent the whole file.
                    self._remember(None)
                    raise transient(f"the server sent more bytes than the {size} it had said")
                self._write(buffer)
            if isinstance(data, SSLSocket):
                # Some servers wait for the client's close_notify.
                with contextlib.suppress(OSError, ValueError):
                    data.unwrap()

    def _read(self, data: socket.socket, size: int | None) -> bytes:
        try:
            return data.recv(self._download.BLOCK)
        except SSLError as error:
            # Some servers close the connection without a TLS close_notify. Then only the size,
            # which came on the control connection, proves that nobody else cut the connection.
            if is_cut(error) and size is not None and self._attempt.position == size:
                return b""
            raise

    def _remember(self, version: Version | None) -> None:
        """Set the version of the received bytes, and store it with them for a later run."""
        self._protocol.version = version
        self._attempt.note(None if version is None else version.note())


def _place(download: FtpDownload) -> str:
    return place(download.url, Location.of(download.url, download.user).user)
