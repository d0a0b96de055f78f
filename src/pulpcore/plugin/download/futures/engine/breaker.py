"""The circuit breaker: it stops downloads from a host that is down.

Without it, thousands of downloads from a dead host would each wait for all their time-outs and
back-offs. The downloads that share a context also share one breaker for each host. The breaker
opens when enough attempts in a row have failed over a long enough time, and all further attempts
fail at once. While it is open, it lets one attempt through from time to time. The first success
closes it.

The breaker must be slower than the retries: a server that is down for 10 s must cost no file,
although many attempts have failed by then. So it measures the time between the first and the last
failure. The time since the first failure would be wrong, because it also grows while all downloads
wait for their back-off.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from ..error import DownloadFailed
from ..waiting.atomic import Cell

FAILURES = 8
"""The number of attempts in a row that must fail to open the breaker."""

SILENCE = 20.0
"""The least time from the start of the first of them to the end of the last one (seconds)."""

PROBE = 5.0
"""The interval between attempts that an open breaker lets through (seconds)."""

FORGET = 60.0
"""The time without an attempt after which the breaker forgets all failures (seconds)."""


class _Row(NamedTuple):
    """Attempts that failed in a row.

    Attributes:
        failures (int): The number of attempts.
        first (float): The start of the first one (``time.monotonic()``).
        last (float): The end of the last one (``time.monotonic()``).
        probed (float): When the breaker last let an attempt through, or counted a failure
            (``time.monotonic()``).
    """

    failures: int
    first: float
    last: float
    probed: float

    @property
    def is_open(self) -> bool:
        """Whether they are enough to open the breaker."""
        return self.failures >= FAILURES and self.last - self.first >= SILENCE


_NONE = _Row(0, 0.0, 0.0, 0.0)


class Breaker:
    """The circuit breaker of one host. Thread-safe.

    Attributes:
        has_failed (bool): An attempt has failed since the last success. As long as none has,
            :meth:`admit` and :meth:`succeeded` have nothing to do.
    """

    def __init__(self) -> None:
        """Start closed."""
        self._row = Cell(_NONE)
        # It is set after the row has changed, so that a success that follows sees it.
        self.has_failed = False

    @property
    def is_open(self) -> bool:
        """Whether the host counts as down."""
        return self._row.value.is_open

    def admit(self) -> None:
        """Permit an attempt, unless the host is down.

        Raises:
            DownloadFailed: The breaker is open, and the next attempt is not due yet.
        """
        row = self._row.value
        if not row.is_open:
            return
        now = time.monotonic()
        if now - row.probed >= FORGET:
            self._row.change(lambda _: _NONE)
            return
        probe = row._replace(probed=now)
        # Several threads may find that an attempt is due. The one that replaces the row makes it.
        if now - row.probed >= PROBE and (
            self._row.change(lambda current: probe if current is row else current) is probe
        ):
            return
        raise DownloadFailed(
            f"it was not tried, because the host seems to be down: {row.failures} attempts in a "
            f"row failed there in {row.last - row.first:.0f} s"
        )

    def failed(self, began: float) -> None:
        """Count an attempt that failed.

        Args:
            began: The start of the attempt (``time.monotonic()``).
        """
        now = time.monotonic()
        self._row.change(
            lambda row: _Row(row.failures + 1, row.first if row.failures else began, now, now)
        )
        self.has_failed = True

    def succeeded(self) -> None:
        """Count a success, which closes the breaker."""
        if self.has_failed:
            self.has_failed = False
            self._row.change(lambda _: _NONE)
