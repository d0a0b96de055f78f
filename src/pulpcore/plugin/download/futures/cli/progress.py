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
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text

from pulpcore.plugin.download.futures.engine.run import Wait
from pulpcore.plugin.download.futures.progress import ProgressMonitor

LONGEST = 10.0
"""The longest time between two lines (seconds)."""

SHORTEST = 0.1
"""The shortest time between two lines (seconds)."""

LEAST = 1.0
"""The shortest wait that is shown (seconds)."""

SAME = 2.0
"""Waits for the same reason that end within so many seconds are shown once."""

WIDE = 72
"""The least width of a terminal with all columns."""

NARROW = 50
"""The least width of a terminal with the title of the bar."""


class Progress(ProgressMonitor):
    """Counts bytes and files. It shows nothing; its subclasses do. Bytes may come from any thread.

    Attributes:
        title (str): The name of the work, such as "Downloading".
        files (int | None): The number of files; None if it isn't known.
        files_done (int): The number of files that succeeded or failed.
        is_counted (bool): The size of all files together isn't known.
    """

    def __init__(self, title: str, files: int | None, size: int | None) -> None:
        """Create counters that are zero.

        Args:
            title: The name of the work, such as "Downloading".
            files: The number of files; None if it isn't known.
            size: The total size of the files (bytes), if known.
        """
        super().__init__(self._changed, size)
        self.title = title
        self.files = files
        self.files_done = 0
        # The sizes of those that haven't begun aren't known: the number of files is what counts.
        self.is_counted = size is None and files != 1

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
        files: int | None,
        size: int | None,
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create counters that are zero.

        Args:
            title: The name of the work, such as "Downloading".
            files: The number of files, at least 1; None if it isn't known.
            size: The total size of the files (bytes), if known.
            write: Called with each line.
            clock: Returns the time (seconds).
        """
        super().__init__(title, files, size)
        self._write = write
        self._clock = clock
        self._began = self._shown = clock()
        self._tenths = 0
        self._waiting: Wait | None = None

    def _changed(self, completed: int, total: int | None) -> None:
        wait = self.wait
        if wait is not None and wait.left >= LEAST and self._is_news(wait):
            self._write(f"{self.title}: {wait}")
            self._waiting = wait
        now = self._clock()
        tenths = int(10 * self._share(completed, total))
        if now - self._shown < (SHORTEST if tenths > self._tenths else LONGEST):
            return
        self._tenths = max(tenths, self._tenths)
        self._shown = now
        self._write(self._line(completed, total, now - self._began))

    def _is_news(self, wait: Wait) -> bool:
        """Return whether a wait differs from the one that was shown last."""
        shown = self._waiting
        if shown is None or shown.why != wait.why:
            return True
        # Several downloads may wait for the same, with slightly different ends.
        return abs((wait.until or 0.0) - (shown.until or 0.0)) > SAME

    def _share(self, completed: int, total: int | None) -> float:
        """Return how much of the work is done, from 0 to 1."""
        if self.is_counted or not total:
            return self.files_done / self.files if self.files else 0.0
        return completed / total

    def _line(self, completed: int, total: int | None, seconds: float) -> str:
        rate = completed / seconds
        total = None if self.is_counted else total
        of = "" if total is None else f" of {decimal(total)}"
        parts = [f"{decimal(completed)}{of}", f"{decimal(int(rate))}/s"]
        if self.files is None:
            parts.insert(0, f"{self.files_done} files")
        elif self.files > 1:
            parts.insert(0, f"{self.files_done} of {self.files} files")
        if total is not None and rate > 0:
            parts.append(f"{(total - completed) / rate:.0f} s left")
        return f"{self.title}: {', '.join(parts)}"


class Bars(Progress):
    """Shows a bar on a terminal, with bytes, rate, remaining time and files."""

    def __init__(self, title: str, files: int | None, size: int | None, console: Console) -> None:
        """Create counters that are zero. Entering the context shows the bar.

        Args:
            title: The name of the work, such as "Downloading".
            files: The number of files; None if it isn't known.
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


class _Bytes(ProgressColumn):
    """The bytes that have arrived."""

    def render(self, task: Task) -> Text:
        return Text(decimal(int(task.completed)), style="progress.download")


class _Bar(BarColumn):
    """A bar of bytes, or of files where the size of all files together isn't known."""

    def __init__(self, progress: Progress, column: Column) -> None:
        super().__init__(bar_width=None, table_column=column)
        self._seen = progress

    def render(self, task: Task) -> ProgressBar:
        seen = self._seen
        if not seen.is_counted or not seen.files:
            return super().render(task)
        return ProgressBar(total=seen.files, completed=seen.files_done)


class _Polling(RichProgress):
    """A bar that reads the counters when rich draws it, so that counting a buffer stays cheap.

    It takes one line. The narrower the terminal, the fewer columns it has.
    """

    def __init__(self, progress: Progress, console: Console) -> None:
        self._seen = progress
        self._console = console
        one = Column(no_wrap=True, overflow="ellipsis")
        self._title = TextColumn("{task.description}", markup=False, table_column=one)
        bar = _Bar(progress, Column(ratio=1, min_width=6))
        files = TextColumn("{task.fields[files]}", table_column=Column(no_wrap=True))
        # The size of all files may be unknown for good; DownloadColumn would say "3.2/? MB".
        kind = _Bytes if progress.is_counted else DownloadColumn
        size = kind(table_column=Column(no_wrap=True))
        speed = TransferSpeedColumn(table_column=Column(no_wrap=True))
        left = TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True))
        self._wide = (self._title, bar, size, speed, left, files)
        self._middle = (self._title, bar, size, files)
        self._narrow = (bar, size, files)
        # The columns while a download waits. The reason gets the width that the number of files
        # leaves.
        why = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        text = TextColumn("{task.fields[waiting]}", markup=False, table_column=why)
        self._waits = (text, files)
        super().__init__(
            *self._wide,
            console=console,
            expand=True,
            transient=True,
            # Otherwise rich would write to the terminal what belongs into a pipe or a file.
            redirect_stdout=sys.stdout.isatty(),
        )
        self.add_task(progress.title, total=progress.total, files="", waiting="")

    def get_renderables(self) -> Iterable[RenderableType]:
        seen = self._seen
        of = "" if seen.files is None else f"/{seen.files}"
        files = "" if seen.files == 1 else f"{seen.files_done}{of} files"
        completed, total = seen.figures
        wait = seen.wait
        is_long = wait is not None and (wait.until is None or wait.left >= LEAST)
        waiting = str(wait) if is_long else ""
        for task in self.tasks:
            # update() can't set the total to None, and it resets the speed.
            task.total = None if seen.is_counted else total
            self.update(task.id, completed=completed, files=files, waiting=waiting)
        self.columns = self._waits if waiting else self._columns_for(self._console.width)
        return super().get_renderables()

    def _columns_for(self, width: int) -> tuple[ProgressColumn, ...]:
        return self._wide if width >= WIDE else self._middle if width >= NARROW else self._narrow
