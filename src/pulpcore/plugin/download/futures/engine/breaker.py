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
from typing import NamedTuple

from ..error import DownloadFailed
from ..waiting.atomic import Cell

FAILURES = 8
"""Attempts that must have failed in a row."""

SILENCE = 20.0
"""Seconds from the beginning of the first of them to the end of the last one."""

PROBE = 5.0
"""Seconds between attempts that are let through while the host is down."""

FORGET = 60.0
"""Seconds without an attempt after which nothing is known of the host any more."""


class _Row(NamedTuple):
    """Attempts that failed in a row.

    Attributes:
        failures (int): How many.
        first (float): When the first of them began (``time.monotonic()``).
        last (float): When the last of them ended.
        probed (float): When an attempt was let through last, or failed.
    """

    failures: int
    first: float
    last: float
    probed: float

    @property
    def is_open(self) -> bool:
        """Whether they are enough, over a long enough time."""
        return self.failures >= FAILURES and self.last - self.first >= SILENCE


_NONE = _Row(0, 0.0, 0.0, 0.0)


class Breaker:
    """The circuit breaker of one host."""

    def __init__(self) -> None:
        """Make one that lets everything through."""
        self._row = Cell(_NONE)

    @property
    def is_open(self) -> bool:
        """Whether the host counts as down: enough attempts failed, over a long enough time."""
        return self._row.value.is_open

    def admit(self) -> None:
        """Let an attempt be made, unless the host is down.

        Raises:
            DownloadFailed: It is, and another attempt found so a moment ago.
        """
        row = self._row.value
        if not row.is_open:
            return
        now = time.monotonic()
        if now - row.probed >= FORGET:
            self._row.change(lambda _: _NONE)
            return
        probe = row._replace(probed=now)
        # Of several threads that find it time for a probe, the one that changes the row makes it.
        if now - row.probed >= PROBE and (
            self._row.change(lambda current: probe if current is row else current) is probe
        ):
            return
        raise DownloadFailed(
            f"it was not tried, for the host seems to be down: {row.failures} attempts in a row "
            f"failed there in {row.last - row.first:.0f} s"
        )

    def failed(self, began: float) -> None:
        """Count an attempt that failed.

        Args:
            began: When it began (``time.monotonic()``).
        """
        now = time.monotonic()
        self._row.change(
            lambda row: _Row(row.failures + 1, row.first if row.failures else began, now, now)
        )

    def succeeded(self) -> None:
        """Count a success, which closes the breaker."""
        if self._row.value.failures:
            self._row.change(lambda _: _NONE)
