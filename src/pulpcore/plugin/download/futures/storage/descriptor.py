"""A file object for a descriptor, with no more calls of the system than it must make."""

from __future__ import annotations

import io
import os
from typing import Any


class DescriptorFile(io.RawIOBase):
    """Writes to a descriptor, which is its own to close.

    ``io.FileIO`` looks at the file first, which nobody needs here. Each call of the system lets
    another thread have the interpreter, and costs more by that than by what it does.

    Attributes:
        sync (bool): Whether ``close()`` has the content written to the disk (fsync).
    """

    mode = "wb"

    sync = False

    def __init__(self, descriptor: int) -> None:
        """Make a file object.

        Args:
            descriptor: A descriptor of a regular file, open for writing.
        """
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return the descriptor."""
        self._check()
        return self._descriptor

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def write(self, buffer: Any) -> int:
        """Write bytes; return how many were written, which may be fewer.

        Raises:
            OSError: They can't be written.
        """
        # As below, without the call: this is what every buffer goes through.
        if self.closed:
            raise _closed()
        return os.write(self._descriptor, buffer)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position, and return it."""
        self._check()
        return os.lseek(self._descriptor, offset, whence)

    def truncate(self, size: int | None = None) -> int:
        """Cut the file to a size (bytes), that of the position by default; return it."""
        size = self.tell() if size is None else size
        self._check()
        os.ftruncate(self._descriptor, size)
        return size

    def close(self) -> None:
        """Close the descriptor.

        Raises:
            OSError: What was written before can't be kept.
        """
        if not self.closed:
            super().close()
            try:
                if self.sync:
                    os.fsync(self._descriptor)
            finally:
                os.close(self._descriptor)

    def _check(self) -> None:
        # The number may be that of another file by then.
        if self.closed:
            raise _closed()


def _closed() -> ValueError:
    return ValueError("I/O operation on closed file")
