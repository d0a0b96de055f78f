"""Downloading by FTP."""

from __future__ import annotations

import contextlib
import ftplib
import socket
import time
from collections.abc import Callable, Hashable
from ssl import SSLContext, SSLEOFError, SSLError, SSLSocket
from typing import TYPE_CHECKING, cast

from ..download import Download
from ..engine import backoff
from ..engine.attempt import Attempt
from ..engine.protocol import Protocol, validate
from ..error import DownloadError, DownloadFailed, NotAuthorized, NotFound, transient
from ..net.dial import AddressMemory
from ..net.tls import shared_context
from ..net.tls_error import is_cut
from ..settings import SSL, Timeout, User
from ..waiting.cancellation import watched
from . import failure
from .control import Control, LoginRefused, TooMany
from .location import Location
from .logins import Logins
from .version import Sighting, Version, place

if TYPE_CHECKING:
    from urllib3.util import Retry

    from ..writer import StrPath, Writer

# How a server says that it allows no more connections: some don't listen, or hang up.
_FULL = (TooMany, EOFError, ConnectionRefusedError, ConnectionResetError, SSLEOFError)

_NO_REST = "the rest of the file alone can't be had, and it can't be started again"


class FtpProtocol(Protocol):
    """What a run knows of the file on the server.

    Attributes:
        version (Version | None): The version whose first bytes are here, if it is certain.
        sighting (Sighting | None): The version that was seen last.
    """

    version: Version | None = None
    sighting: Sighting | None = None

    def check(self, download: FtpDownload) -> None:
        """Check the settings.

        Args:
            download: The download.

        Raises:
            TypeError: One has a wrong type.
            ValueError: One can't work.
        """
        # A handler may have set them to whatever the constructor takes.
        download.timeout, download.user = Timeout.of(download.timeout), User.of(download.user)
        download.ssl = SSL.of(download.ssl)
        validate(user=download.user, timeout=download.timeout, ssl=download.ssl)
        Location.of(download.url, download.user)

    def host(self, download: FtpDownload) -> Hashable:
        """Return the server.

        Args:
            download: The download.
        """
        return Location.of(download.url, download.user).url.origin

    def is_up(self, error: DownloadError) -> bool | None:
        """Return whether the server is up: it is if it refuses, or has too many connections.

        Args:
            error: The failure.
        """
        if isinstance(error, NotFound | NotAuthorized) or isinstance(error.__cause__, TooMany):
            return True
        return super().is_up(error)

    def can_resume(self, download: FtpDownload) -> bool:
        """Return whether the version of what is here is certain.

        Args:
            download: The download.
        """
        return self.version is not None and self.version.place == _place(download)

    def recall(self, download: FtpDownload, note: str) -> bool:
        """Return whether a note is that of a version of this file.

        Args:
            download: The download.
            note: The note.
        """
        self.version = Version.from_note(note)
        return self.can_resume(download)


class FtpDownload(Download):
    """Downloads a file by FTP, from ``ftp://[user[:password]@]host[:port]/path``, or ``ftps``.

    Transfers are passive and binary (RFC 959). The path is relative to the folder that the server
    logs the user into (RFC 1738 section 3.2.2). The server gets the bytes that the URL encodes,
    whatever encoding they are in. A type code at its end, such as ``;type=i``, is cut off.

    Some servers allow fewer connections than a batch has threads. A download that is refused for
    that (421, 530, or no connection at all) waits until another one has ended. Where no other
    download from this server is running, the refusal is a failure that is tried again.

    What is encrypted is decided by the URL and by ``tls``, as curl has it:

    * ``ftps://host/path``: implicit TLS, from the first byte on, by default on port 990.
    * ``ftp://host/path`` with ``tls=True``: explicit TLS, by AUTH TLS (RFC 4217). A server that
      refuses gets no password, and nothing falls back to plain FTP.

    Data connections are encrypted then, too, and resume the TLS session of the control connection.

    An attempt goes on where the last one broke off (REST, RFC 3659 section 5), if it is certain
    that the version of the file is the same: the server tells size and time (SIZE, MDTM), both are
    what they were, also after the transfer, and the time is old enough to tell. Else it starts
    clean. Files of up to ``BLOCK`` bytes always do: that is faster than to ask.

    Attributes:
        user (User): The user; anonymous by default. It wins over userinfo in the URL.
        timeout (Timeout): How long to wait.
        ssl (SSL): TLS settings: the same trust as for https.
        tls (bool): Demand TLS for ftp URLs.
        reply (str | None): What the server replied to the request for the file.
    """

    retry: Retry | None = backoff.DEFAULT
    timeout: Timeout
    _protocol = FtpProtocol
    reply: str | None

    def __init__(
        self,
        url: str,
        writer: Writer | StrPath | None,
        user: User | tuple[str, str] | None = None,
        timeout: Timeout | float | tuple[float | None, float | None] | None = None,
        ssl: SSL | None = None,
        tls: bool = False,
    ) -> None:
        """Make a download.

        Args:
            url: An ftp or ftps URL.
            writer: Where the content goes: a writer, or the path of a file. None for nowhere.
            user: The user; also a pair of a name and a password.
            timeout: How long to wait. A number of seconds counts for ``connect`` and ``read``; a
                pair gives one for each.
            ssl: TLS settings.
            tls: Demand TLS for an ftp URL. An ftps URL does by itself.

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
    """One attempt: from the connection to the content.

    Attributes:
        is_refused (bool): The server refused the connection as one too many, or may have.
    """

    def __init__(
        self, download: FtpDownload, attempt: Attempt, write: Callable[[bytes], None]
    ) -> None:
        self._download, self._attempt, self._write = download, attempt, write
        self._protocol = cast(FtpProtocol, attempt.protocol)
        self._location = Location.of(download.url, download.user)
        self.is_refused = False

    def run(self) -> None:
        """Fetch the file, or the rest of it."""
        ftp = self._connect()
        try:
            ftp.protect()
            ftp.voidcmd("TYPE I")
            self._retrieve(ftp, self._location.path)
        finally:
            # Without a QUIT, whose reply might be long in coming.
            ftp.close()

    def _connect(self) -> Control:
        """Connect and log in."""
        download, location, attempt = self._download, self._location, self._attempt
        context = self._tls_context() if location.is_implicit or download.tls else None
        memory = AddressMemory.of(download.context)
        login = location.user, location.password
        logins = Logins.of(download.context, location.host, location.port)
        ftp = Control(context, attempt.connect_timeout(), download.timeout.read)
        is_right = False
        logins.begin(ftp, login)
        try:
            ftp.open(location.host, location.port, memory, at_once=location.is_implicit)
            ftp.login(*login)
            is_right = True
        except _FULL:
            self.is_refused = True
            raise
        except LoginRefused as error:
            # Credentials that are right are only refused for one connection too many.
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
        data, told = self._begin(ftp, path)
        with data:
            start = self._attempt.position
            if not start:
                # What is told with the rest may be the size of the rest.
                size = told if size is None else size
                is_certain = (
                    self._protocol.sighting is not None and self._protocol.sighting.is_certain
                )
                self._remember(version if is_certain else None)
            self._attempt.expect(size)
            self._attempt.announce(ftp.lastresp)
            self._receive(data, size)
        # Only this says whether all of it came (RFC 959 section 5.4).
        self._download.reply = ftp.voidresp()
        if size is not None and self._attempt.position != size:
            raise transient(f"the server sent {self._attempt.position} bytes and had said {size}")
        if start and self._look(ftp, path, ftp.size_of(path)) != self._protocol.version:
            # Between the question for the version and the transfer, it may be.
            self._remember(None)
            raise transient("the file changed while it was downloaded")

    def _look(self, ftp: Control, path: str, size: int | None) -> Version | None:
        """Return the version that the server has now, as far as it matters and can be told."""
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
            # It can't begin in the middle.
            self._attempt.start_over(_NO_REST)
        return ftp.retrieve(path, 0)

    def _receive(self, data: socket.socket, size: int | None) -> None:
        with watched(data):
            while buffer := self._read(data, size):
                if size is not None and self._attempt.position + len(buffer) > size:
                    # Not the rest, perhaps, but all of it.
                    self._remember(None)
                    raise transient(f"the server sent more bytes than the {size} it had said")
                self._write(buffer)
            if isinstance(data, SSLSocket):
                # Some servers wait for it.
                with contextlib.suppress(OSError, ValueError):
                    data.unwrap()

    def _read(self, data: socket.socket, size: int | None) -> bytes:
        try:
            return data.recv(self._download.BLOCK)
        except SSLError as error:
            # Some servers cut the connection in place of ending TLS. Then only the size, told on
            # the control connection, says that nobody else cut it before its end.
            if is_cut(error) and size is not None and self._attempt.position == size:
                return b""
            raise

    def _remember(self, version: Version | None) -> None:
        """Know of which version the content is, and have the writer keep it for a later run."""
        self._protocol.version = version
        self._attempt.note(None if version is None else version.note())


def _place(download: FtpDownload) -> str:
    return place(download.url, Location.of(download.url, download.user).user)
