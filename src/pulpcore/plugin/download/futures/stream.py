"""A download as a file object: its content is read while it is fetched."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .engine.attempt import record_of
from .engine.outlet import Outlet
from .error import DownloadError, DownloadFailed
from .waiting.cancellation import Cancellation, current, scope
from .waiting.lock import Process
from .waiting.threads import Workers

if TYPE_CHECKING:
    from .engine.subject import Download

_CLOSED = "the stream was closed before its end"

_LONGEST = 2.0
"""How long ``close()`` waits for the thread of the download (seconds)."""


class Stream(io.BufferedIOBase):
    """The content of a download, as a readable binary file that can't seek.

    ``download.stream()`` returns it. Use it in a ``with`` statement: the download starts there, in
    a thread of its own, in which its handlers run, too. It fetches ahead of the reader by at most
    three buffers of ``download.BLOCK`` bytes, and waits until they are read. The time for which it
    waits counts for no time-out, limit or least speed.

    Truncated or wrong content never looks complete:

    * The last buffer is handed out only after all validations have passed. Otherwise the read
      raises the error of the download, and so does each later read.
    * After a broken transfer the stream goes on if the server continues the same version, as any
      download does. If the content has to start again, the stream compares it with the bytes that
      were read before, and raises DownloadFailed if they differ.
    * The writer publishes the file when a read has returned ``b""``, or when the ``with`` block is
      left without an exception after the last byte was read. A reader that knows the end of its
      format, such as ``tarfile``, may stop before that: call :meth:`verify`.

    A stream keeps its connection until it ends. So a thread must not read two streams in turn if a
    limit allows one connection only (``Limits.per_host``): the second waits for the first.

    Leaving the ``with`` block earlier cancels the download. That raises nothing; the download ends
    with the event Failed, and its writer publishes nothing.

    A download without content, such as a HEAD request or an unchanged file, is an empty stream. One
    thread at a time may read. Any thread may call :meth:`close`.

    Attributes:
        download (Download): The download.
    """

    def __init__(self, download: Download) -> None:
        """Create a stream. ``with`` or the first read starts the download.

        Args:
            download: The download.
        """
        super().__init__()
        self.download = download
        self._outlet = Outlet(Cancellation(current()), self)
        self._workers = Workers(1, "download-stream")
        self._process = Process.current
        self._is_started = False
        # The buffer that is being read, and its offset.
        self._buffer = b""
        self._offset = 0
        self._position = 0
        self._is_torn = False

    def __enter__(self) -> Self:
        super().__enter__()
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None and not self.closed and self._outlet.is_last(self._position):
                self.verify()
        finally:
            self.close()

    def __del__(self) -> None:
        """Do nothing. The finalizer of io.IOBase would call close(), which waits.

        An interrupt that comes here would get lost.
        """

    def __repr__(self) -> str:
        return f"<Stream of {self.download}>"

    @property
    def name(self) -> str:
        """The URL, redacted: files have a name, which ``io.TextIOWrapper`` shows."""
        return str(self.download)

    def readable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the number of bytes that were read."""
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Read bytes. Wait until all of them are there.

        Args:
            size: How many; fewer are returned at the end only. All that are left if it is negative
                or None.

        Raises:
            DownloadError: The download failed, or the stream was closed by another thread.
            ValueError: The stream is closed.
        """
        return self._collect(-1 if size is None else size)

    def read1(self, size: int = -1) -> bytes:
        """Read bytes that are there. Wait only if there are none.

        Args:
            size: The largest number of them. Any number if it is negative.

        Raises:
            DownloadError: As ``read()``.
            ValueError: As ``read()``.
        """
        self._check()
        return self._take(size)

    def readline(self, size: int | None = -1) -> bytes:
        """Read up to the end of a line, or of the content.

        Args:
            size: The largest number of bytes. Any number if it is negative or None.

        Raises:
            DownloadError: As ``read()``.
            ValueError: As ``read()``.
        """
        return self._collect(-1 if size is None else size, b"\n")

    def iter_content(self, size: int = 64 * 1024) -> Iterator[bytes]:
        """Read the rest in pieces.

        Args:
            size: The size of each piece but the last (bytes).

        Yields:
            Each piece.

        Raises:
            DownloadError: As ``read()``.
            ValueError: As ``read()``.
        """
        return iter(partial(self.read, size), b"")

    def verify(self) -> None:
        """Read the rest, check all of the content, and have the writer publish it.

        Raises:
            DownloadError: As ``read()``.
            ValueError: As ``read()``.
        """
        while self._take(-1):
            pass

    def close(self) -> None:
        """Close the stream, and cancel the download unless its end was read.

        Any thread may call this; a read that waits raises DownloadFailed. It waits until the
        download has ended, but for no longer than 2 s: a name look-up can't be cancelled.
        """
        if not self.closed:
            token, work = self._outlet.token, current()
            token.cancel(_CLOSED)
            token.close()
            self._workers.stop()
            # If a handler of the download closes the stream, joining would wait for the handler
            # itself.
            if work is None or not work.within(token):
                self._workers.join(_LONGEST)
        super().close()

    def _start(self) -> None:
        if not self._is_started:
            run = partial(_run, self.download, self._outlet)
            self._workers.run(partial(copy_context().run, run))
            self._is_started = True

    def _check(self) -> None:
        """Raise if an earlier read was interrupted, because its bytes are lost."""
        if self._is_torn:
            self._outlet.check()
            raise DownloadFailed(self.download, "an earlier read of the stream was interrupted")

    def _peek(self) -> bytes:
        """Wait for the buffer that has the next byte; b"" at the end."""
        if self.closed:
            raise ValueError("I/O operation on a closed stream")
        if self._process is not Process.current:
            raise RuntimeError("the process was forked: read the stream in the parent only")
        self._start()
        if self._position == self._offset + len(self._buffer):
            try:
                found = self._outlet.get(self._position)
            except DownloadError as error:
                error.download = error.download or self.download
                raise
            if found is None:
                return b""
            self._offset, self._buffer = found
        return self._buffer

    def _take(self, size: int, end: bytes = b"") -> bytes:
        """Return available bytes: up to a size and, if ``end`` is given, to the end of a line."""
        buffer = self._peek() if size else b""
        begin = self._position - self._offset
        stop = len(buffer) if size < 0 else begin + size
        if end and (found := buffer.find(end, begin, stop)) >= 0:
            stop = found + 1
        taken = buffer[begin:stop]
        self._position += len(taken)
        return taken

    def _collect(self, size: int, end: bytes = b"") -> bytes:
        """Read until a number of bytes, the end of a line, or the end of the content is reached."""
        self._check()
        taken = self._take(size, end)
        if len(taken) == size or not taken or (end and taken.endswith(end)):
            return taken
        # If a signal handler raises while this waits, bytes are lost.
        self._is_torn = True
        pieces = [taken]
        size -= len(taken) if size > 0 else 0
        while size and (taken := self._take(size, end)):
            pieces.append(taken)
            size -= len(taken) if size > 0 else 0
            if end and taken.endswith(end):
                break
        self._is_torn = False
        return b"".join(pieces)


def _run(download: Download, outlet: Outlet) -> None:
    """Run the download of a stream; the main function of its thread."""
    if not outlet.begin():
        return
    record, error = record_of(download), None
    record.outlet = outlet
    try:
        with scope(outlet.token):
            download()
    except BaseException as caught:  # noqa: BLE001 - the reader raises it
        error = caught
    finally:
        if record.outlet is outlet:
            record.outlet = None
        outlet.token.close()
        outlet.end(error)
        del error
