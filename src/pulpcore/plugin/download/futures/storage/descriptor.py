"""A file object for a file descriptor that makes no needless system calls."""

from __future__ import annotations

import io
import os
from typing import Any


class DescriptorFile(io.RawIOBase):
    """Writes to a file descriptor, and closes it in ``close()``.

    ``io.FileIO`` calls fstat and lseek when it is created. Each system call releases the
    interpreter lock, and with several threads, getting the lock back costs more than the call.

    Attributes:
        sync (bool): ``close()`` calls fsync first.
    """

    mode = "wb"

    sync = False

    # The value until __init__() sets it. If an interrupt comes before, the finalizer closes
    # nothing.
    _descriptor = -1

    def __init__(self, descriptor: int) -> None:
        """Take ownership of a file descriptor.

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
        """Write bytes.

        Returns:
            How many bytes were written. It may be fewer than the buffer has.

        Raises:
            OSError: The bytes can't be written.
        """
        # Inlined _check(): this runs for each buffer.
        if self.closed:
            raise _closed()
        return os.write(self._descriptor, buffer)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position (bytes), and return it."""
        self._check()
        return os.lseek(self._descriptor, offset, whence)

    def truncate(self, size: int | None = None) -> int:
        """Set the size of the file (bytes, by default the position), and return it."""
        size = self.tell() if size is None else size
        self._check()
        os.ftruncate(self._descriptor, size)
        return size

    def close(self) -> None:
        """Close the descriptor.

        Raises:
            OSError: fsync or close failed, so that written bytes may be lost.
        """
        if not self.closed:
            # The order is safe for interrupts: the descriptor is closed once, whatever happens.
            descriptor, self._descriptor = self._descriptor, -1
            try:
                if self.sync and descriptor >= 0:
                    os.fsync(descriptor)
            finally:
                try:
                    if descriptor >= 0:
                        os.close(descriptor)
                finally:
                    super().close()

    def _check(self) -> None:
        # After close() the operating system may give the same number to another file.
        if self.closed:
            raise _closed()


def _closed() -> ValueError:
    return ValueError("I/O operation on closed file")
