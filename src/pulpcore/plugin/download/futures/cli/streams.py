"""The standard streams, which may be closed, or full, or have a reader that is gone."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO, cast


class Stream:
    """A standard stream whose ``write`` never raises an OSError.

    A program that downloads for hours must not end because its log file's disk is full. So text
    that can't be written is dropped, and the program's exit status tells of it.

    Attributes:
        missing (bool): The stream was closed when the program started.
        problem (str | None): Why text was dropped; None as long as none was.
    """

    def __init__(self, stream: TextIO | None) -> None:
        """Wrap a stream.

        Args:
            stream: The stream; None, as Python has it, where it was closed.
        """
        self.missing = stream is None
        self.problem: str | None = None
        self._null = open(os.devnull, "w", encoding="utf-8") if stream is None else None  # noqa: SIM115 - `end` closes it
        self._stream = cast(TextIO, stream or self._null)

    def write(self, text: str) -> int:
        """Write text, or drop it.

        Args:
            text: The text.
        """
        if self.missing:
            self.problem = "it is closed"
        with self._remembering():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        with self._remembering():
            self._stream.flush()

    def end(self) -> None:
        """Flush, and close what was opened here."""
        self.flush()
        if self._null is not None:
            self._null.close()

    @contextlib.contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.problem = error.strerror or type(error).__name__
            # Python would write what is still buffered at exit, and fail again. So from now on the
            # descriptor leads nowhere.
            with contextlib.suppress(OSError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())
                os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def standard_streams() -> Iterator[tuple[Stream, Stream]]:
    """Make ``sys.stdout`` and ``sys.stderr`` streams that don't raise.

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
    """Return stdout for the content of a file; None where it was closed."""
    return None if getattr(sys.stdout, "missing", False) else sys.stdout.buffer
