"""How large the chunks of a batch are, and when the next one is sent.

A chunk should take about a second. Smaller ones would leave workers without work while a chunk
travels, and larger ones would come back late, and lose more when a worker dies. docs/planning.rst
has figures.
"""

from __future__ import annotations

FIRST = 64
"""The most downloads in a chunk until it is known how long one takes."""

MOST = 4096
"""The most downloads in a chunk."""

EACH = 2
"""How many chunks a worker should have: one that runs, and one that waits."""

SECONDS = 1.0
"""How long a chunk should take (seconds)."""

_GROWTH = 4


class Portions:
    """The sizes of one batch's chunks."""

    def __init__(self, concurrent: int, backlog: int | None) -> None:
        """Start with nothing known of the downloads.

        Args:
            concurrent: The number of downloads that a worker runs in parallel.
            backlog: The most downloads that are started and not returned; None for no limit.
        """
        self._concurrent = concurrent
        self._backlog = backlog
        self._size = FIRST

    def backlog(self, workers: int) -> int:
        """Return how many downloads all chunks have that the workers should have.

        Args:
            workers: The number of workers.
        """
        return EACH * workers * self._size

    def next(self, waiting: int, is_ripe: bool, sent: int, workers: int) -> int | None:
        """Return how many downloads the next chunk should have.

        Args:
            waiting: The number of downloads that wait.
            is_ripe: They have waited long enough for others to fill a chunk with.
            sent: The number of chunks that the workers have.
            workers: The number of workers.

        Returns:
            The number; 0 for none while the workers have enough, None for none yet.
        """
        if not waiting or sent >= EACH * workers:
            return 0
        idle = max(workers - sent, 1)
        if waiting < idle * self._concurrent and not is_ripe:
            return None
        size = self._size
        if self._backlog is not None:
            size = min(size, max(self._backlog // (EACH * workers), 1))
        return min(size, -(-waiting // idle))

    def learn(self, rate: float) -> None:
        """Choose the size by what a chunk has shown.

        Args:
            rate: How many downloads a second the worker has done.
        """
        before = self._size
        size = min(int(rate * SECONDS), before * _GROWTH, MOST)
        self._size = max(size if size > before else (before + size) // 2, self._concurrent)
