"""Standard streams that may be closed, be full, or have lost their reader."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO, cast


class Stream:
    """A standard stream whose ``write`` never raises an OSError.

    A program that downloads for hours must not end because the disk of its log file is full. So
    the stream drops text that it can't write, and the exit status of the program reports that.

    Attributes:
        missing (bool): The stream was closed when the program started.
        problem (str | None): Why text was dropped; None if none was.
    """

    def __init__(self, stream: TextIO | None) -> None:
        """Wrap a stream.

        Args:
            stream: The stream; None if it was closed, as in ``sys.stdout``.
        """
        self.missing = stream is None
        self.problem: str | None = None
        self._null = open(os.devnull, "w", encoding="utf-8") if stream is None else None  # noqa: SIM115 - `end` closes it
        self._stream = cast(TextIO, stream or self._null)

    def write(self, text: str) -> int:
        """Write text, or drop it if that fails.

        Args:
            text: The text.
        """
        if self.missing:
            self.problem = "it is closed"
        with self._recording_errors():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the buffer, or drop it if that fails."""
        with self._recording_errors():
            self._stream.flush()

    def end(self) -> None:
        """Flush the stream, and close the null device if this object opened it."""
        self.flush()
        if self._null is not None:
            self._null.close()

    @contextlib.contextmanager
    def _recording_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.problem = error.strerror or type(error).__name__
            # Python flushes the buffer again at exit, which would fail again. Let the descriptor
            # refer to the null device from now on.
            with contextlib.suppress(OSError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())
                os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def standard_streams() -> Iterator[tuple[Stream, Stream]]:
    """Within the ``with``, replace ``sys.stdout`` and ``sys.stderr`` by streams that don't raise.

    Yields:
        The two streams.
    """
    before = sys.stdout, sys.stderr
    streams = Stream(sys.stdout), Stream(sys.stderr)
    sys.stdout, sys.stderr = cast(tuple[TextIO, TextIO], streams)
    try:
        yield streams
    finally:
        sys.stdout, sys.stderr = before
        for stream in streams:
            stream.end()


def content() -> BinaryIO | None:
    """Return the binary stdout for the content of a file; None if stdout was closed."""
    return None if getattr(sys.stdout, "missing", False) else sys.stdout.buffer
