"""The circuit breaker: whether a host is down, as all who share a context see it.

Thousands of downloads from a host that doesn't answer would each wait for their time-outs and
back-offs. Once enough attempts in a row have failed, over a long enough time, the rest fails at
once. One attempt is let through from time to time, and the first success closes the breaker again.

It must be slower than retries: a server that is away for 10 s costs no file, although by then many
attempts have failed. So what counts is the time between the first failure and the last one, and not
the time since the first one, which passes also while all downloads wait for their back-off.
"""

from __future__ import annotations

import time

from ..error import DownloadFailed
from ..waiting.lock import ForkSafeLock

FAILURES = 8
"""Attempts that must have failed in a row."""

SILENCE = 20.0
"""Seconds from the beginning of the first of them to the end of the last one."""

PROBE = 5.0
"""Seconds between attempts that are let through while the host is down."""

FORGET = 60.0
"""Seconds without an attempt after which nothing is known of the host any more."""


class Breaker:
    """The circuit breaker of one host."""

    def __init__(self) -> None:
        """Make one that lets everything through."""
        # Guards the other attributes.
        self._lock = ForkSafeLock()
        self._failures = 0
        self._first = 0.0
        self._last = 0.0
        self._probed = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the host counts as down: enough attempts failed, over a long enough time."""
        with self._lock:
            return self._is_open()

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
            if not self._is_open():
                return
            if now - self._probed >= FORGET:
                self._failures = 0
                return
            if now - self._probed >= PROBE:
                self._probed = now
                return
            failures, seconds = self._failures, self._last - self._first
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
                self._first = began
            self._failures += 1
            self._last = self._probed = time.monotonic()

    def succeeded(self) -> None:
        """Count a success, which closes the breaker."""
        if not self._failures:
            return
        with self._lock:
            self._failures = 0

    def _is_open(self) -> bool:
        return self._failures >= FAILURES and self._last - self._first >= SILENCE
