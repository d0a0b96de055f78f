"""The policy for the size of a batch's chunks, and for when the next one is sent.

A chunk should take about a second. With smaller chunks, workers idle while the next one is on its
way. Larger ones report late, and more is lost when a worker dies. docs/planning.rst has figures.
"""

from __future__ import annotations

FIRST = 64
"""The most downloads in a chunk until the first chunk has been measured."""

FEW = 256
"""The most downloads in a chunk of a short batch.

At the end of a batch, some workers idle while others run their last chunk. Later a chunk may have
an eighth of what each worker has done so far.
"""

MOST = 512
"""The most downloads in any chunk.

Those of all chunks exist in the caller's process at the same time, and Python looks through them
again and again for garbage. With 4096 in a chunk this took more time than all the rest.
"""

EACH = 2
"""How many chunks a worker should have: one that runs, and one that waits."""

SECONDS = 1.0
"""How long a chunk should take (seconds)."""

LINGER = 0.01
"""How long downloads wait for more of them while a worker has no chunk (seconds)."""

PREPARE = 0.05
"""How long downloads wait for more of them while each worker runs a chunk (seconds)."""

_GROWTH = 4
"""The most by which a chunk may grow over the one before (a factor)."""


class Portions:
    """The sizes of one batch's chunks.

    Attributes:
        done (int): How many downloads have ended. The caller counts them.
    """

    def __init__(self, concurrent: int, backlog: int | None) -> None:
        """Start before the first chunk.

        Args:
            concurrent: The number of downloads that a worker runs in parallel.
            backlog: The most downloads that are started and not returned; None for no limit.
        """
        self._concurrent = concurrent
        self._backlog = backlog
        self._size = FIRST
        self.done = 0

    def backlog(self, workers: int) -> int:
        """Return how many downloads it takes to give each worker its chunks.

        Args:
            workers: The number of workers.
        """
        return EACH * workers * self._size

    def next(self, waiting: int, waited: float, sent: int, workers: int) -> int | None:
        """Return how many downloads the next chunk should have.

        Args:
            waiting: The number of downloads that wait.
            waited: How long they have waited (seconds).
            sent: The number of chunks that the workers have.
            workers: The number of workers.

        Returns:
            The number; 0 if nothing waits or the workers have enough chunks; None to wait a little
            for more downloads.
        """
        if not waiting or sent >= EACH * workers:
            return 0
        size = self._size
        if self._backlog is not None:
            size = min(size, max(self._backlog // (EACH * workers), 1))
        idle = workers - sent
        if idle <= 0:
            # No worker is idle, so there is time to fill the chunk.
            return None if waiting < size and waited < PREPARE else min(size, waiting)
        if waiting < idle * self._concurrent and waited < LINGER:
            return None
        return min(size, -(-waiting // idle))

    def learn(self, rate: float, workers: int) -> None:
        """Adapt the size to the speed of a chunk.

        Args:
            rate: The speed of the worker (downloads a second).
            workers: The number of workers.
        """
        before = self._size
        most = min(MOST, max(FEW, self.done // (8 * workers)))
        size = min(int(rate * SECONDS), before * _GROWTH, most)
        self._size = max(size if size > before else (before + size) // 2, self._concurrent)
