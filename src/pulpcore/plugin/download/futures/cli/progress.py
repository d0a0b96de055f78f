"""Progress: what is done of a work, shown while it goes on."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress

from pulpcore.plugin.download.futures import Download
from pulpcore.plugin.download.futures.event import Event, Fetched

LONGEST = 10.0
"""Seconds after which a line is due, however little was done."""

SHORTEST = 0.1
"""Seconds that lie between two lines at least, however much was done."""


class Progress:
    """Counts what is done, from any thread. The base shows nothing.

    Attributes:
        title (str): What is being done.
        files (int): The number of files.
        size (int | None): The bytes of all of them; None while that isn't known.
        files_done (int): The number of files that are done, well or not.
        done (int): The bytes that are done.
    """

    def __init__(self, title: str, files: int, size: int | None) -> None:
        """Make one that has counted nothing.

        Args:
            title: What is being done.
            files: The number of files.
            size: The bytes of all of them, if known.
        """
        self.title = title
        self.files = files
        self.size = size
        self.files_done = 0
        self.done = 0
        # Guards the counters: buffers are counted in the threads of the downloads.
        self._lock = threading.Lock()

    def count(self, size: int) -> None:
        """Count bytes.

        Args:
            size: How many; below 0 if they count no more.
        """
        with self._lock:
            self.done += size
        self._changed()

    def count_file(self) -> None:
        """Count a file, well or not."""
        with self._lock:
            self.files_done += 1
        self._changed()

    def expect(self, size: int) -> None:
        """Say what there is to do, where that was not known.

        Args:
            size: The bytes of all files.
        """
        with self._lock:
            self.size = size

    def forgo(self, size: int) -> None:
        """Say that some of it will not be done.

        Args:
            size: The bytes of a file that failed.
        """
        with self._lock:
            if self.size is not None:
                self.size = max(0, self.size - size)

    def watch(self, download: Download) -> Meter:
        """Count the bytes of a download.

        Args:
            download: The download, before it runs.
        """
        meter = Meter(self)
        download.register(Event.FETCHED, meter.fetched)
        download.register(Event.RESTARTED, lambda _: meter.forget())
        return meter

    def _changed(self) -> None:
        """Called after each count, in any thread."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass


class Meter:
    """Counts the bytes of one download, and takes them back when it starts again."""

    def __init__(self, progress: Progress) -> None:
        """Make one.

        Args:
            progress: Where to count.
        """
        self._progress = progress
        # Without a lock: the handlers of one download run one after the other.
        self._done = 0

    def fetched(self, event: Fetched) -> None:
        """Count a buffer."""
        self._done += len(event.buffer)
        self._progress.count(len(event.buffer))

    def forget(self) -> None:
        """Take back what was counted."""
        self._progress.count(-self._done)
        self._done = 0


class Lines(Progress):
    """Shows a line for each tenth that is done, and in any case every ten seconds."""

    def __init__(
        self,
        title: str,
        files: int,
        size: int | None,
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make one.

        Args:
            title: What is being done.
            files: The number of files, from 1.
            size: The bytes of all of them, if known.
            write: Takes each line.
            clock: The time in seconds.
        """
        super().__init__(title, files, size)
        self._write = write
        self._clock = clock
        self._began = self._shown = clock()
        self._tenths = 0

    def _changed(self) -> None:
        with self._lock:
            now = self._clock()
            tenths = int(10 * self._fraction())
            if now - self._shown < (SHORTEST if tenths > self._tenths else LONGEST):
                return
            self._tenths = max(tenths, self._tenths)
            self._shown = now
            line = self._line(now - self._began)
        # Not under the lock: writing may block.
        self._write(line)

    def _fraction(self) -> float:
        return self.done / self.size if self.size else self.files_done / self.files

    def _line(self, seconds: float) -> str:
        rate = self.done / seconds
        of = "" if self.size is None else f" of {decimal(self.size)}"
        parts = [f"{decimal(self.done)}{of}", f"{decimal(int(rate))}/s"]
        if self.files > 1:
            parts.insert(0, f"{self.files_done} of {self.files} files")
        if self.size is not None and rate > 0:
            parts.append(f"{max(0, self.size - self.done) / rate:.0f} s left")
        return f"{self.title}: {', '.join(parts)}"


class Bars(Progress):
    """Shows a bar on a terminal: bytes, rate, time left, files."""

    def __init__(self, title: str, files: int, size: int | None, console: Console) -> None:
        """Make one.

        Args:
            title: What is being done.
            files: The number of files.
            size: The bytes of all of them, if known.
            console: The terminal.
        """
        super().__init__(title, files, size)
        self._rich = _Polling(self, console)

    def __enter__(self) -> Self:
        self._rich.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._rich.stop()


class _Polling(RichProgress):
    """Looks at the counters each time it is drawn: a buffer costs no more than an addition."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._seen = progress
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[files]}"),
            console=console,
            # What is piped away must not end up on the terminal.
            redirect_stdout=sys.stdout.isatty(),
        )
        self.add_task(progress.title, total=progress.size, files="")

    def get_renderables(self) -> Iterable[RenderableType]:
        seen = self._seen
        files = f"{seen.files_done}/{seen.files} files" if seen.files > 1 else ""
        for task in self.tasks:
            self.update(task.id, completed=seen.done, total=seen.size, files=files)
        return super().get_renderables()
