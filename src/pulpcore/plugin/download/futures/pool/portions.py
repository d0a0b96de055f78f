"""The policy for the size of a batch's chunks, and for when the next one is sent.

A chunk should take about a second. With smaller chunks, workers idle while the next one is on its
way. Larger ones report late, and more is lost when a worker dies. docs/planning.rst has figures.
"""

from __future__ import annotations

FIRST = 64
"""The most downloads in a chunk until the first chunk has been measured."""

MOST = 4096
"""The most downloads in a chunk."""

EACH = 2
"""How many chunks a worker should have: one that runs, and one that waits."""

SECONDS = 1.0
"""How long a chunk should take (seconds)."""

_GROWTH = 4
"""The most by which a chunk may grow over the one before (a factor)."""


class Portions:
    """The sizes of one batch's chunks."""

    def __init__(self, concurrent: int, backlog: int | None) -> None:
        """Start before the first chunk.

        Args:
            concurrent: The number of downloads that a worker runs in parallel.
            backlog: The most downloads that are started and not returned; None for no limit.
        """
        self._concurrent = concurrent
        self._backlog = backlog
        self._size = FIRST

    def backlog(self, workers: int) -> int:
        """Return how many downloads it takes to give each worker its chunks.

        Args:
            workers: The number of workers.
        """
        return EACH * workers * self._size

    def next(self, waiting: int, is_ripe: bool, sent: int, workers: int) -> int | None:
        """Return how many downloads the next chunk should have.

        Args:
            waiting: The number of downloads that wait.
            is_ripe: Whether they have waited long enough, so that a small chunk may be sent.
            sent: The number of chunks that the workers have.
            workers: The number of workers.

        Returns:
            The number; 0 if nothing waits or the workers have enough chunks; None to wait a little
            for more downloads.
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
        """Adapt the size to the speed of a chunk.

        Args:
            rate: The speed of the worker (downloads a second).
        """
        before = self._size
        size = min(int(rate * SECONDS), before * _GROWTH, MOST)
        self._size = max(size if size > before else (before + size) // 2, self._concurrent)
