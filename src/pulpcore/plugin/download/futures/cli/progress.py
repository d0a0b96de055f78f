"""Shows the progress of downloads: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
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

from pulpcore.plugin.download.futures.progress import ProgressMonitor

LONGEST = 10.0
"""The longest time between two lines (seconds)."""

SHORTEST = 0.1
"""The shortest time between two lines (seconds)."""


class Progress(ProgressMonitor):
    """Counts bytes and files. It shows nothing; its subclasses do. Bytes may come from any thread.

    Attributes:
        title (str): The name of the work, such as "Downloading".
        files (int): The number of files.
        files_done (int): The number of files that succeeded or failed.
    """

    def __init__(self, title: str, files: int, size: int | None) -> None:
        """Create counters that are zero.

        Args:
            title: The name of the work, such as "Downloading".
            files: The number of files.
            size: The total size of the files (bytes), if known.
        """
        super().__init__(self._changed, size)
        self.title = title
        self.files = files
        self.files_done = 0

    def count_file(self) -> None:
        """Count a file that succeeded or failed. Only one thread may call it."""
        self.files_done += 1
        self.refresh()

    def _changed(self, completed: int, total: int | None) -> None:
        """Update the display. It is called after each change, by one thread at a time."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass


class Lines(Progress):
    """Shows a line for each tenth of the work, and at least every ten seconds."""

    def __init__(
        self,
        title: str,
        files: int,
        size: int | None,
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create counters that are zero.

        Args:
            title: The name of the work, such as "Downloading".
            files: The number of files, at least 1.
            size: The total size of the files (bytes), if known.
            write: Called with each line.
            clock: Returns the time (seconds).
        """
        super().__init__(title, files, size)
        self._write = write
        self._clock = clock
        self._began = self._shown = clock()
        self._tenths = 0

    def _changed(self, completed: int, total: int | None) -> None:
        now = self._clock()
        tenths = int(10 * (completed / total if total else self.files_done / self.files))
        if now - self._shown < (SHORTEST if tenths > self._tenths else LONGEST):
            return
        self._tenths = max(tenths, self._tenths)
        self._shown = now
        self._write(self._line(completed, total, now - self._began))

    def _line(self, completed: int, total: int | None, seconds: float) -> str:
        rate = completed / seconds
        of = "" if total is None else f" of {decimal(total)}"
        parts = [f"{decimal(completed)}{of}", f"{decimal(int(rate))}/s"]
        if self.files > 1:
            parts.insert(0, f"{self.files_done} of {self.files} files")
        if total is not None and rate > 0:
            parts.append(f"{(total - completed) / rate:.0f} s left")
        return f"{self.title}: {', '.join(parts)}"


class Bars(Progress):
    """Shows a bar on a terminal, with bytes, rate, remaining time and files."""

    def __init__(self, title: str, files: int, size: int | None, console: Console) -> None:
        """Create counters that are zero. Entering the context shows the bar.

        Args:
            title: The name of the work, such as "Downloading".
            files: The number of files.
            size: The total size of the files (bytes), if known.
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
    """A bar that reads the counters when rich draws it, so that counting a buffer stays cheap."""

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
            # Otherwise rich would write to the terminal what belongs into a pipe or a file.
            redirect_stdout=sys.stdout.isatty(),
        )
        self.add_task(progress.title, total=progress.total, files="")

    def get_renderables(self) -> Iterable[RenderableType]:
        seen = self._seen
        files = f"{seen.files_done}/{seen.files} files" if seen.files > 1 else ""
        completed, total = seen.figures
        for task in self.tasks:
            # update() can't set the total to None, and it resets the speed.
            task.total = total
            self.update(task.id, completed=completed, files=files)
        return super().get_renderables()
