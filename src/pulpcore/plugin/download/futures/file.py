"""Downloads from the local file system (``file:`` URLs)."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self, overload
from urllib.parse import unquote_to_bytes, urlsplit

from . import redact
from .download import Download
from .engine.attempt import Attempt
from .engine.protocol import Protocol, validate
from .error import DownloadFailed, NotAuthorized, NotFound
from .settings import Timeout
from .writer import W_co

if TYPE_CHECKING:
    from .writer import FileWriter, StrPath

# O_NONBLOCK: without it, opening a named pipe blocks until a process opens it for writing.
_READ = os.O_RDONLY | os.O_NONBLOCK


class _FileProtocol(Protocol):
    def outcome(self, download: FileDownload) -> dict[str, Any]:
        return {"error": download.error}

    def check(self, download: FileDownload) -> None:
        if download.timeout is not None:
            download.timeout = Timeout.of(download.timeout)
            validate(timeout=download.timeout)
        if download.allowed_paths is not None:
            _folders(download.allowed_paths)


class FileDownload(Download[W_co]):
    """Copies a local file, from a ``file:///path`` URL (RFC 8089) with a percent-encoded path.

    Attributes:
        allowed_paths (Sequence[str | os.PathLike[str]] | None):
            The absolute paths of the folders (or files) that may be read; subfolders are included.
            Any other file fails with NotAuthorized, whether or not it exists. None for no limit.
            Set it for untrusted URLs. Symbolic links are resolved first, also in these paths. The
            check applies to the file that is opened, so replacing a link during the check has no
            effect. Hard links and mounts in a folder count as its content. It needs Linux with
            /proc.
        error (int):
            The errno of the failure; 0 without one.
    """

    BLOCK = 1024 * 1024

    error = 0
    _protocol = _FileProtocol

    @overload
    def __init__(
        self: FileDownload[FileWriter],
        url: str,
        writer: StrPath,
        allowed_paths: Sequence[StrPath] | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        url: str,
        writer: W_co | StrPath | None,
        allowed_paths: Sequence[StrPath] | None = ...,
    ) -> None: ...

    def __init__(
        self,
        url: str,
        writer: W_co | StrPath | None,
        allowed_paths: Sequence[StrPath] | None = None,
    ) -> None:
        """Store the URL and the target.

        Args:
            url: A ``file:///path`` URL.
            writer: A writer, or the path of the file to write. None to store the content nowhere.
            allowed_paths: The folders that may be read.

        Raises:
            TypeError: The writer is none of these.
        """
        super().__init__(url, writer)
        self.allowed_paths = allowed_paths

    def clone(self) -> Self:
        """Return a copy that can run independently (:meth:`Download.clone`). Its ``error`` is 0."""
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
        """Read the file, and pass each buffer to ``write``."""
        download = self._download
        position = 0
        with self._open() as source:
            size = self._check(source)
            attempt.expect(size)
            attempt.announce()
            while buffer := _read(source, download.BLOCK):
                write(buffer)
                position += len(buffer)
        # Files of /proc have the size 0 and still have content.
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

        Another process may replace the path by a link between the check and open(). And opening a
        device or a pipe has side effects. So this method opens the path with O_PATH, which only
        resolves it, reads from /proc which file that descriptor refers to, checks it, and opens it
        by its entry in /proc.
        """
        if b".." in path.split(b"/"):
            # The kernel resolves the folders before "..", so an error would reveal whether they
            # exist. Refuse such a path, unless all paths are allowed.
            self._check_allowed(b"", allowed)
        try:
            found = _opened(path, os.O_PATH)
        except _SourceError:
            # An error must not reveal whether a file exists that isn't allowed.
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
            reason = f"allowed_paths can't be checked, as /proc can't be read: {error.strerror}"
            redact.exception(error)
            raise DownloadFailed(reason) from error

    def _check_allowed(self, real: bytes, allowed: list[bytes]) -> None:
        if not any(real == path or real.startswith(path.rstrip(b"/") + b"/") for path in allowed):
            self._download.error = errno.EACCES
            # ``from None``: the traceback must not reveal whether the file exists, either.
            raise NotAuthorized("the file isn't in a folder that allowed_paths names") from None

    def _check(self, source: int) -> int:
        """Return the size of the source.

        Raises:
            DownloadFailed: It isn't a regular file, or it is the file that the writer writes.
        """
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
        """Yield the path and the descriptor to which the writer writes."""
        writer = self._download.writer
        yield getattr(writer, "path", None)
        fp = getattr(writer, "fp", None)
        with contextlib.suppress(OSError, AttributeError, ValueError):
            yield fp.fileno()  # type: ignore[union-attr]


class _SourceError(OSError):
    """An OSError of the source, to distinguish it from an OSError of the writer."""


def _opened(path: bytes, flags: int = _READ) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        redact.exception(error)
        raise _SourceError(error.errno, error.strerror) from error


def _folders(allowed: Sequence[str | os.PathLike[str]]) -> list[bytes]:
    """Return the allowed paths with links resolved.

    Raises:
        ValueError: A path isn't absolute, or this system has no O_PATH.
    """
    if not hasattr(os, "O_PATH"):
        raise ValueError("allowed_paths: can't be checked on this system")
    # A str is a sequence of str, too.
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
        # Raised outside the except clause: its context could contain a password.
        raise DownloadFailed("the URL is not valid")
    if parts.scheme.lower() != "file":
        raise DownloadFailed("the URL must be file:///path")
    if parts.netloc.lower() not in ("", "localhost"):
        raise DownloadFailed("the URL names another host: it must be file:///path")
    # A file URL has no query, so an unencoded '?' belongs to the file name.
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
