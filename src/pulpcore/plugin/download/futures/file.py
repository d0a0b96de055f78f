"""Downloading from the local file system."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote_to_bytes, urlsplit

from . import redact
from .download import Download
from .engine.attempt import Attempt
from .engine.protocol import Protocol, validate
from .error import DownloadFailed, NotAuthorized, NotFound
from .settings import Timeout

if TYPE_CHECKING:
    from .writer import StrPath, Writer

# Opening a pipe must not wait for somebody to write to it.
_READ = os.O_RDONLY | os.O_NONBLOCK


class _FileProtocol(Protocol):
    def check(self, download: FileDownload) -> None:
        if download.timeout is not None:
            download.timeout = Timeout.of(download.timeout)
            validate(timeout=download.timeout)
        if download.allowed_paths is not None:
            _folders(download.allowed_paths)


class FileDownload(Download):
    """Downloads a file of this machine, from ``file:///path`` URLs (RFC 8089).

    The path is percent-decoded.

    Attributes:
        allowed_paths (Sequence[str | os.PathLike[str]] | None): The folders (or files) in which, or
            below which, the file must be, as absolute paths; any other is NotAuthorized, whether or
            not it exists. None for no limit. Give it where URLs come from somebody who may not read
            all that this process may. Links are resolved first, in these paths too, and what counts
            is the file that is read: it doesn't help to change a link meanwhile. Hard links and
            mounts within a folder belong to it. It needs Linux, with /proc.
        error (int): The errno of what went wrong; 0 when well.
    """

    BLOCK = 1024 * 1024

    error = 0
    _protocol = _FileProtocol

    def __init__(
        self,
        url: str,
        writer: Writer | StrPath | None,
        allowed_paths: Sequence[str | os.PathLike[str]] | None = None,
    ) -> None:
        """Make a download.

        Args:
            url: A ``file:///path`` URL.
            writer: Where the content goes: a writer, or the path of a file. None for nowhere.
            allowed_paths: The folders in which the file must be.

        Raises:
            TypeError: The writer is none of these.
        """
        super().__init__(url, writer)
        self.allowed_paths = allowed_paths

    def clone(self) -> Self:
        """Return a copy that can be run by itself, as :meth:`Download.clone`, without an error."""
        clone = super().clone()
        clone.error = 0
        return clone

    def _send(self) -> None:
        self.error = 0
        try:
            _Source(self).send(Attempt.of(self), self._write)
        except _SourceError as error:
            self.error = error.errno or errno.EIO
            raise _failure(error) from error


class _Source:
    """The file that a download reads."""

    def __init__(self, download: FileDownload) -> None:
        self._download = download

    def send(self, attempt: Attempt, write: Callable[[bytes], None]) -> None:
        """Hand each buffer of the file on."""
        download = self._download
        position = 0
        with self._open() as source:
            size = self._check(source)
            attempt.expect(size)
            attempt.announce()
            while buffer := _read(source, download.BLOCK):
                write(buffer)
                position += len(buffer)
        # The files of /proc say that they are empty.
        if size and position != size:
            download.error = errno.EIO
            raise DownloadFailed("the file changed while it was read")

    @contextlib.contextmanager
    def _open(self) -> Iterator[int]:
        path = _path(str(self._download.url))
        allowed = self._download.allowed_paths
        source = _opened(path) if allowed is None else self._open_allowed(path, _folders(allowed))
        try:
            yield source
        finally:
            os.close(source)

    def _open_allowed(self, path: bytes, allowed: list[bytes]) -> int:
        """Open a file if it is in one of the folders.

        Between a look at a path and opening it, somebody may put a link there; and opening alone
        does something to a device or a pipe. So the path is only looked up (O_PATH), the kernel is
        asked where that led to, and just that is opened then: by its entry in /proc, and not by its
        path.
        """
        if b".." in path.split(b"/"):
            # The kernel goes through what is before it, and so tells whether that is there.
            self._check_allowed(b"", allowed)
        try:
            found = _opened(path, os.O_PATH)
        except _SourceError:
            # Whether something is there is none of the business of who may not have it.
            self._check_allowed(os.path.realpath(path), allowed)
            raise
        try:
            entry = b"/proc/self/fd/%d" % found
            self._check_allowed(self._real(entry), allowed)
            return _opened(entry)
        finally:
            os.close(found)

    def _real(self, entry: bytes) -> bytes:
        try:
            return os.readlink(entry)
        except OSError as error:
            self._download.error = error.errno or errno.EIO
            reason = f"allowed_paths can't be checked, as /proc doesn't tell: {error.strerror}"
            redact.exception(error)
            raise DownloadFailed(reason) from error

    def _check_allowed(self, real: bytes, allowed: list[bytes]) -> None:
        if not any(real == path or real.startswith(path.rstrip(b"/") + b"/") for path in allowed):
            self._download.error = errno.EACCES
            # Nor does a traceback tell whether it is there.
            raise NotAuthorized("the file isn't in a folder that allowed_paths names") from None

    def _check(self, source: int) -> int:
        """Return the size, if it is a file, and another one than is to be written."""
        found = os.fstat(source)
        if not stat.S_ISREG(found.st_mode):
            self._download.error = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
            raise DownloadFailed("there is no regular file at this URL")
        for target in self._targets():
            with contextlib.suppress(OSError, ValueError, TypeError):
                if os.path.samestat(found, os.stat(target)):
                    self._download.error = errno.EINVAL
                    raise DownloadFailed("the file at this URL and the one to write are the same")
        return found.st_size

    def _targets(self) -> Iterator[Any]:
        """What is written to: a path, or a descriptor."""
        writer = self._download.writer
        yield getattr(writer, "path", None)
        fp = getattr(writer, "fp", None)
        with contextlib.suppress(OSError, AttributeError, ValueError):
            yield fp.fileno()  # type: ignore[union-attr]


class _SourceError(OSError):
    """The source can't be read: told from what the writer raises."""


def _opened(path: bytes, flags: int = _READ) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        redact.exception(error)
        raise _SourceError(error.errno, error.strerror) from error


def _folders(allowed: Sequence[str | os.PathLike[str]]) -> list[bytes]:
    """The allowed paths, with links resolved.

    Raises:
        ValueError: They can't be checked.
    """
    if not hasattr(os, "O_PATH"):
        raise ValueError("allowed_paths: can't be checked on this system")
    # One text is a sequence of texts, too.
    if isinstance(allowed, str | bytes | os.PathLike):
        raise ValueError(  # noqa: TRY004 - what validating raises
            "allowed_paths: must be a list of paths"
        )
    paths = []
    for path in allowed:
        encoded = os.fsencode(path) if isinstance(path, str | bytes | os.PathLike) else b""
        if not encoded.startswith(b"/") or b"\0" in encoded:
            raise ValueError(f"allowed_paths: must be absolute paths: {path!r}")
        paths.append(os.path.realpath(encoded))
    return paths


def _read(source: int, size: int) -> bytes:
    try:
        return os.read(source, size)
    except OSError as error:
        raise _SourceError(error.errno, error.strerror) from error


def _path(url: str) -> bytes:
    parts = None
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
    if parts is None:
        # Not within an except clause: the error there may have a password in it.
        raise DownloadFailed("the URL is not valid")
    if parts.scheme.lower() != "file":
        raise DownloadFailed("the URL must be file:///path")
    if parts.netloc.lower() not in ("", "localhost"):
        raise DownloadFailed("the URL names another host: it must be file:///path")
    # A query is no part of such a URL, but '?' may well be in a name that nobody encoded.
    path = unquote_to_bytes(parts.path + ("?" + parts.query if parts.query else ""))
    if not path.startswith(b"/") or b"\0" in path:
        raise DownloadFailed("the URL has no path that can be opened: it must be file:///path")
    return path


def _failure(error: OSError) -> DownloadFailed:
    reason = error.strerror or "it can't be read"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(f"there is no file at this URL: {reason}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return NotAuthorized(f"the file can't be read: {reason}")
    return DownloadFailed(f"the file can't be read: {reason}")
