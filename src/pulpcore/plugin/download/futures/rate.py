"""Keeping to a number of requests a second."""

from __future__ import annotations

import time

from .waiting.atomic import Cell


class RateLimiter:
    """Deals out the times at which requests may be sent, evenly, to all who share it."""

    def __init__(self, per_second: float) -> None:
        """Make a limiter.

        Args:
            per_second: How many requests may be sent in a second.

        Raises:
            ValueError: The number isn't above 0.
        """
        if not isinstance(per_second, int | float) or not per_second > 0:
            raise ValueError(f"a rate limit must be above 0 requests a second: {per_second!r}")
        self._interval = 1 / per_second
        # The time of the last request that was dealt out.
        self._last = Cell(float("-inf"))

    def delay(self) -> float:
        """Take the next time.

        Returns:
            How long to wait for it (seconds).
        """
        now = time.monotonic()
        return self._last.change(lambda last: max(now, last + self._interval)) - now
