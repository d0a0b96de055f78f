"""How often, and after which wait, what failed is tried again.

The policy is a ``urllib3.util.Retry``, of which the numbers count: total, backoff_factor,
backoff_max, status_forcelist and respect_retry_after_header. The waiting is done elsewhere, since
that of ``Retry`` can't be interrupted.
"""

from __future__ import annotations

import random
from typing import Any

from urllib3.util import Retry

from ..error import DownloadError
from ..settings import is_number

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that may be gone when tried again."""

DEFAULT = Retry(
    total=6, backoff_factor=0.5, backoff_max=60, status_forcelist=TRANSIENT, redirect=False
)
"""Six tries more. The waits between them take 15.75 s at least, so that a server that is away for
10 s costs no file, and 31.5 s at most."""

FOREVER = 100 * 365 * 86400.0
"""What a server may ask for at most, so that it can be told as a date (seconds)."""

PROGRESS = 64 * 1024
"""Bytes beyond the highest position so far that count as progress (contract section 3)."""


class Budget:
    """What is left of the tries of one run. One budget serves every kind of failure."""

    def __init__(self, policy: Retry | None, retry_after_max: float) -> None:
        """Make a budget that nothing was spent of.

        Args:
            policy: The policy; None to try nothing again.
            retry_after_max: The longest wait that a server may ask for (seconds).
        """
        self._policy = policy
        self._retry_after_max = retry_after_max
        self._failures = 0
        self._highest = 0

    def delay(self, error: DownloadError) -> float | None:
        """Decide whether, and when, to try again after a failure.

        The wait is uniform between half of the back-off and all of it. The back-off doubles with
        each failure. The wait is no shorter than what the server asked for with Retry-After
        (RFC 9110 section 10.2.3), to which up to a tenth is added, so that not all clients come
        back at once.

        Args:
            error: The failure.

        Returns:
            The wait in seconds, or None if it isn't to be tried again.
        """
        policy = self._policy
        if policy is None or not error.transient:
            return None
        if policy.total is not None and self._failures >= int(policy.total):
            return None
        asked = error.retry_after if policy.respect_retry_after_header else None
        if asked is not None and asked > self._retry_after_max:
            return None
        # Far above any limit that makes sense, and far below what overflows a float.
        doublings = min(self._failures, 64)
        longest = min(policy.backoff_max, policy.backoff_factor * 2.0**doublings)
        wait = random.uniform(longest / 2, longest)  # noqa: S311 - spreads load, keeps no secret
        if not asked:
            # None, 0 or a time in the past: some servers round down, and some clocks are off.
            return wait
        return max(wait, asked * random.uniform(1, 1.1))  # noqa: S311 - spreads load, too

    def spend(self) -> None:
        """Count a failure."""
        self._failures += 1

    def progress(self, position: int) -> None:
        """Renew the budget if an attempt got past the highest position so far by a real amount.

        Args:
            position: How far the attempt got (bytes).
        """
        if position >= self._highest + PROGRESS:
            self._failures = 0
        self._highest = max(self._highest, position)


def check(policy: object, retry_after_max: Any) -> None:
    """Check the settings that a budget is made of.

    Args:
        policy: The policy.
        retry_after_max: The longest wait that a server may ask for.

    Raises:
        ValueError: One can't work; the message names the attribute.
    """
    if policy is not None and not isinstance(policy, Retry):
        raise ValueError(f"retry: must be a urllib3.util.Retry, or None: {policy!r}")
    # 0 to hear of no wait at all. None would have to mean a wait for ever.
    if not is_number(retry_after_max) or not retry_after_max >= 0:
        raise ValueError(f"retry_after_max: must be a number from 0: {retry_after_max!r}")


def retry_after(value: str) -> float | None:
    """Read a Retry-After header.

    Args:
        value: Seconds or a date (RFC 9110 section 10.2.3).

    Returns:
        The seconds from now, or None if the value is neither.
    """
    reader = Retry()
    # Limits are ours, not urllib3's: beyond one the download fails and says when the server would
    # be ready.
    reader.retry_after_max = float("inf")  # type: ignore[assignment]
    try:
        return min(reader.parse_retry_after(value), FOREVER)
    except Exception:  # noqa: BLE001 - InvalidHeader, or what dates and numbers out of range raise
        return None
