"""Whether a host is down, as all who share a context see it.

Thousands of downloads from a host that doesn't answer would each wait for their time-outs and
back-offs. Once enough attempts in a row have failed, for long enough, the rest fails at once; one
attempt is let through from time to time, and the first sign of life makes things as they were.
"""

from __future__ import annotations

import time

from ..error import DownloadFailed
from ..waiting.lock import ForkSafeLock

FAILURES = 8
"""Attempts that must have failed in a row."""

SILENCE = 20.0
"""Seconds since the first of them began."""

PROBE = 5.0
"""Seconds between attempts that are let through while the host is down."""


FORGET = 60.0
"""Seconds without an attempt after which nothing is known of the host any more."""


class Health:
    """The health of one host."""

    def __init__(self) -> None:
        # Guards the other attributes.
        self._lock = ForkSafeLock()
        self._failures = 0
        self._since = 0.0
        self._probed = 0.0

    @property
    def is_down(self) -> bool:
        """Whether enough attempts failed, for long enough."""
        with self._lock:
            return self._is_down(time.monotonic())

    def admit(self) -> None:
        """Let an attempt be made, unless the host is down.

        Raises:
            DownloadFailed: It is, and another attempt found so a moment ago.
        """
        # Read without the lock: what was true a moment ago will do.
        if self._failures < FAILURES:
            return
        now = time.monotonic()
        with self._lock:
            if not self._is_down(now):
                return
            if now - self._probed >= FORGET:
                self._failures = 0
                return
            if now - self._probed >= PROBE:
                self._probed = now
                return
            failures, seconds = self._failures, now - self._since
        raise DownloadFailed(
            f"it was not tried, for the host seems to be down: {failures} attempts in a row "
            f"failed there in {seconds:.0f} s"
        )

    def failed(self, began: float) -> None:
        """Count an attempt that failed.

        Args:
            began: When it began (``time.monotonic()``).
        """
        with self._lock:
            if self._failures == 0:
                self._since = began
            self._failures += 1
            self._probed = time.monotonic()

    def lives(self) -> None:
        """Take note of a sign of life."""
        if not self._failures:
            return
        with self._lock:
            self._failures = 0

    def _is_down(self, now: float) -> bool:
        return self._failures >= FAILURES and now - self._since >= SILENCE
