"""A token bucket, which limits the bandwidth. It does no I/O and reads no clock."""

from __future__ import annotations

from ..waiting.atomic import Cell

CREDIT = 0.2
"""How much of the bandwidth may be caught up after a pause (seconds).

Threads wake up late, and servers stall for a moment. Without credit, that time would be lost, and
the mean would be below the limit. With too much credit, a burst after a pause would be far above
the limit.
"""

PIECES = 32
"""A second's bytes are handed on in at least this many pieces, so that they flow evenly.

Threads take turns after each piece: with 32 threads each has a turn about once a second.
"""


class Bucket:
    """Schedules bytes within a bandwidth. Thread-safe.

    Each caller reserves the time that its bytes take at this bandwidth, after all earlier
    reservations. So callers are served in their order, and no thread starves.
    """

    __slots__ = ("_free",)

    def __init__(self) -> None:
        """Create a bucket from which nothing was taken."""
        # When the bytes reserved so far will have passed.
        self._free = Cell(float("-inf"))

    def take(self, size: int, rate: float, now: float) -> float:
        """Reserve bytes.

        Args:
            size: How many bytes.
            rate: The bandwidth (bytes a second).
            now: The time, from any clock (seconds).

        Returns:
            How long to wait before the bytes are handed on (seconds).
        """
        seconds = size / rate
        free = self._free.change(lambda free: max(free, now - CREDIT) + seconds)
        return max(free - seconds - now, 0.0)


def piece(rate: float) -> int:
    """Return how many bytes to hand on at a time, at least 1.

    Args:
        rate: The bandwidth (bytes a second).
    """
    return max(int(rate / PIECES), 1)
