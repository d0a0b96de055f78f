"""A rate limiter: at most so many requests a second."""

from __future__ import annotations

import time

from .waiting.atomic import Cell


class RateLimiter:
    """Spaces requests evenly. The downloads that share a limiter share its rate. Thread-safe."""

    def __init__(self, per_second: float) -> None:
        """Set the rate.

        Args:
            per_second: The number of requests a second.

        Raises:
            ValueError: The number isn't above 0.
        """
        if not isinstance(per_second, int | float) or not per_second > 0:
            raise ValueError(f"a rate limit must be above 0 requests a second: {per_second!r}")
        self._interval = 1 / per_second
        # The time of the last reserved request (``time.monotonic()``).
        self._last = Cell(float("-inf"))

    def __reduce__(self) -> tuple[type[RateLimiter], tuple[float]]:
        # Leave out the time of the last request: another machine has another clock.
        return type(self), (1 / self._interval,)

    def delay(self) -> float:
        """Reserve the next request.

        Returns:
            The time to wait before sending it (seconds).
        """
        now = time.monotonic()
        return self._last.change(lambda last: max(now, last + self._interval)) - now
