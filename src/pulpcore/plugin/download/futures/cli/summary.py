"""Counts what became of the files, and says it in one line."""

from __future__ import annotations

import time
from collections import Counter

from rich.filesize import decimal

from .output import Status


class Summary:
    """The figures of a run.

    Attributes:
        counts (Counter[str]): The number of files by their status.
        problem (bool): Something else than a file went wrong.
    """

    def __init__(self) -> None:
        """Start with no files."""
        self.counts: Counter[str] = Counter()
        self.problem = False
        self._bytes = 0
        self._began = time.monotonic()

    @property
    def well(self) -> bool:
        """Whether nothing has failed."""
        return not self.counts["failed"] and not self.problem

    def count(self, status: Status, size: int = 0) -> None:
        """Count a file.

        Args:
            status: What became of it.
            size: The bytes that were fetched for it.
        """
        self.counts[status] += 1
        self._bytes += size

    def text(self, files: int | None, keeps: bool) -> str:
        """Return the last line of a run.

        Args:
            files: The number of all files; None if it isn't known.
            keeps: Partial files are kept.
        """
        counted = self.counts.total()
        # Those that never began have no result.
        interrupted = self.counts["interrupted"] + max((files or 0) - counted, 0)
        seconds = max(time.monotonic() - self._began, 0.001)
        number = max(files or 0, counted)
        rate = f"{decimal(int(self._bytes / seconds))}/s"
        parts = [
            f"{self.counts['ok']} downloaded ({decimal(self._bytes)} in {seconds:.1f} s, {rate})",
            f"{self.counts['skipped']} already there",
            f"{self.counts['failed']} failed",
        ]
        text = f"{number} {'file' if number == 1 else 'files'}: {', '.join(parts)}"
        if not interrupted:
            return text
        how = "goes on from the partial files" if keeps else "gets them"
        return f"{text}, {interrupted} interrupted: the same command {how}"
