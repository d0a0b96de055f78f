"""The folder through which a batch and its workers communicate, if they share a file system.

An executor only returns the result of a function at its end. Whatever must pass earlier, in either
direction, goes through these files:

- ``running-B`` exists until batch B ends. When it is gone, a worker stops.
- ``begun-N`` exists once a worker has begun chunk N. Dask silently runs a task again when its
  worker died. The second worker sees the file and returns the chunk, so that the batch can find
  out which download kills its worker.
- ``done-N`` has the early reports of chunk N: pickles, one after the other. Each has the reports of
  downloads that have ended, the indexes of those that are given back, and what the others wait for.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any


class Folder:
    """The folder of one batch. Only its user can read it.

    Attributes:
        path (str): Its path.
        batch (str): Identifies the batch.
    """

    def __init__(self, path: str, batch: str) -> None:
        """Refer to a folder, which need not exist.

        Args:
            path: Its path.
            batch: Identifies the batch.
        """
        self.path = path
        self.batch = batch

    @classmethod
    def create(cls, batch: str) -> Folder:
        """Create the folder of a new batch, in the system's folder for temporary files.

        Args:
            batch: Identifies the batch.

        Raises:
            OSError: It can't be created.
        """
        folder = cls(tempfile.mkdtemp(prefix="pulp-futures-"), batch)
        try:
            with open(folder._file("running", batch), "xb"):
                return folder
        except OSError:
            folder.remove()
            raise

    def exists(self) -> bool:
        """Whether this process sees the folder."""
        return os.path.isdir(self.path)

    def is_running(self) -> bool:
        """Whether this process sees the folder, and the batch has not ended."""
        return os.path.exists(self._file("running", self.batch))

    def stop(self) -> None:
        """Tell the workers that the batch has ended."""
        with contextlib.suppress(OSError):
            os.unlink(self._file("running", self.batch))

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    def begin(self, number: int) -> bool:
        """Note that a worker begins a chunk. Return False if another worker has begun it before.

        Args:
            number: The number of the chunk.
        """
        try:
            with open(self._file("begun", number), "xb"):
                return True
        except FileExistsError:
            return False

    def is_begun(self, number: int) -> bool:
        """Whether a worker has begun a chunk.

        Args:
            number: The number of the chunk.
        """
        return os.path.exists(self._file("begun", number))

    def report(self, number: int, report: Any) -> bool:
        """Add an early report. Return False if it can't be written, for example on a full disk.

        Args:
            number: The number of the chunk.
            report: The report. It is pickled.
        """
        data = pickle.dumps(report, pickle.HIGHEST_PROTOCOL)
        # Without a buffer, write() tells how much of the report a full disk has taken.
        with (
            contextlib.suppress(OSError),
            open(self._file("done", number), "ab", buffering=0) as file,
        ):
            size = file.tell()
            if file.write(data) == len(data):
                return True
            # The next report must follow a complete one.
            file.truncate(size)
        return False

    def reports(self, number: int, offset: int) -> Iterator[tuple[Any, int]]:
        """Yield the complete early reports of a chunk.

        Args:
            number: The number of the chunk.
            offset: The position in the file to begin at (bytes).

        Yields:
            Each report, and the position behind it.
        """
        try:
            with open(self._file("done", number), "rb") as file:
                file.seek(offset)
                data = io.BytesIO(file.read())
        except OSError:
            return
        # The worker may be in the middle of writing. An incomplete report is read next time.
        with contextlib.suppress(EOFError, pickle.UnpicklingError):
            while True:
                report = pickle.load(data)  # noqa: S301 - only this user can write here
                yield report, offset + data.tell()

    def clear(self, number: int) -> None:
        """Remove the files of a chunk that has ended.

        Args:
            number: The number of the chunk.
        """
        for name in ("begun", "done"):
            with contextlib.suppress(OSError):
                os.unlink(self._file(name, number))

    def _file(self, name: str, key: object) -> str:
        return os.path.join(self.path, f"{name}-{key}")
