"""Downloading from the local file system."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from . import redact
from .download import Download
from .error import DownloadFailed, NotAuthorized, NotFound


class FileDownload(Download):
    """Downloads a file of this machine, from ``file:///path`` URLs (RFC 8089).

    The path is percent-decoded.

    Attributes:
        error (int): The errno of what went wrong; 0 when well.
    """

    BLOCK = 1024 * 1024

    error = 0

    def _send(self) -> None:
        self.error = 0
        try:
            with self._open() as source:
                size = self._check(source)
                self._expect(size)
                self._announce()
                while buffer := _read(source, self.BLOCK):
                    self._write(buffer)
            # The files of /proc say that they are empty.
            if size and self.position != size:
                self.error = errno.EIO
                raise DownloadFailed("the file changed while it was read")
        except _SourceError as error:
            self.error = error.errno or errno.EIO
            raise _failure(error) from error

    @contextlib.contextmanager
    def _open(self) -> Iterator[int]:
        path = _path(str(self.url))
        try:
            # Opening a pipe must not wait for somebody to write to it.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            redact.exception(error)
            raise _SourceError(error.errno, error.strerror) from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _check(self, source: int) -> int:
        """Return the size, if it is a file, and another one than is to be written."""
        found = os.fstat(source)
        if not stat.S_ISREG(found.st_mode):
            self.error = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
            raise DownloadFailed("there is no regular file at this URL")
        for target in self._targets():
            with contextlib.suppress(OSError, ValueError, TypeError):
                if os.path.samestat(found, os.stat(target)):
                    self.error = errno.EINVAL
                    raise DownloadFailed("the file at this URL and the one to write are the same")
        return found.st_size

    def _targets(self) -> Iterator[Any]:
        """What is written to: a path, or a descriptor."""
        yield getattr(self.writer, "path", None)
        fp = getattr(self.writer, "fp", None)
        with contextlib.suppress(OSError, AttributeError, ValueError):
            yield fp.fileno()  # type: ignore[union-attr]


class _SourceError(OSError):
    """The source can't be read: told from what the writer raises."""


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
