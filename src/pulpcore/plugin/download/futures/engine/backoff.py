"""Retries: how many, and how long the back-off before each is.

The policy is a ``urllib3.util.Retry``. Only these of its attributes are used: total,
backoff_factor, backoff_max, status_forcelist and respect_retry_after_header. The run itself waits,
because ``Retry.sleep`` can't be interrupted.
"""

from __future__ import annotations

import random
from typing import Any

from urllib3.util import Retry

from ..error import DownloadError
from ..settings import is_number

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses of temporary failures, after which a run retries."""

DEFAULT = Retry(
    total=6, backoff_factor=0.4, backoff_max=60, status_forcelist=TRANSIENT, redirect=False
)
"""The default policy: six retries.

Their back-offs last between 12.6 s and 25.2 s in total, so that no file fails if a server is down
for 10 s.
"""

RETRY_AFTER_MAX = 120
"""The default of the longest Retry-After to wait for (seconds)."""

FOREVER = 100 * 365 * 86400.0
"""The limit for the value of Retry-After, so that it can be converted to a date (seconds)."""

PROGRESS = 64 * 1024
"""Bytes that an attempt must fetch beyond the highest position so far to renew the retries.

A server that sends a few bytes in each attempt must not keep a download retrying for ever.
"""


class Budget:
    """Counts the retries of one run. All kinds of failures share the limit."""

    def __init__(self, policy: Retry | None, retry_after_max: float) -> None:
        """Start with no failures.

        Args:
            policy: The policy; None to never retry.
            retry_after_max: The longest Retry-After to wait for (seconds).
        """
        self._policy = policy
        self._retry_after_max = retry_after_max
        self._failures = 0
        self._highest = 0

    def delay(self, error: DownloadError) -> float | None:
        """Decide whether to retry after a failure, and how long to wait first.

        The back-off doubles with each failure. The wait is a random value between half of it and
        all of it. It is never shorter than the Retry-After of the server (RFC 9110 section 10.2.3),
        to which up to 10 % is added, so that not all clients return at the same time.

        Args:
            error: The failure.

        Returns:
            The wait in seconds, or None to not retry.
        """
        policy = self._policy
        if policy is None or not error.transient:
            return None
        if policy.total is not None and self._failures >= int(policy.total):
            return None
        asked = self.asked(error)
        if asked is not None and asked > self._retry_after_max:
            return None
        # 2**64 is above any sensible backoff_max, and doesn't overflow a float.
        doublings = min(self._failures, 64)
        longest = min(policy.backoff_max, policy.backoff_factor * 2.0**doublings)
        wait = random.uniform(longest / 2, longest)  # noqa: S311 - spreads load, keeps no secret
        if not asked:
            # No Retry-After, or 0 because the server rounded down or its clock is wrong.
            return wait
        return max(wait, asked * random.uniform(1, 1.1))  # noqa: S311 - spreads load, too

    def asked(self, error: DownloadError) -> float | None:
        """Return the Retry-After of a failure that counts (seconds); None without one.

        Args:
            error: The failure.
        """
        is_heard = self._policy is not None and self._policy.respect_retry_after_header
        return error.retry_after if is_heard else None

    def spend(self) -> None:
        """Count a failure."""
        self._failures += 1

    def progress(self, position: int) -> None:
        """Reset the count of failures if an attempt got PROGRESS bytes past the highest position.

        Args:
            position: The position in the content that the attempt reached (bytes).
        """
        if position >= self._highest + PROGRESS:
            self._failures = 0
        self._highest = max(self._highest, position)


def check(policy: object, retry_after_max: Any) -> None:
    """Check the settings of the retries.

    Args:
        policy: The policy.
        retry_after_max: The longest Retry-After to wait for (seconds).

    Raises:
        ValueError: A setting is invalid. The message names the attribute.
    """
    if policy is not None and not isinstance(policy, Retry):
        raise ValueError(f"retry: must be a urllib3.util.Retry, or None: {policy!r}")
    # 0 refuses any Retry-After. None is invalid: it would mean to wait for ever.
    if not is_number(retry_after_max) or not retry_after_max >= 0:
        raise ValueError(f"retry_after_max: must be a number from 0: {retry_after_max!r}")


def retry_after(value: str) -> float | None:
    """Parse the value of a Retry-After header.

    Args:
        value: Seconds or a date (RFC 9110 section 10.2.3).

    Returns:
        The seconds from now, or None if the value is neither.
    """
    reader = Retry()
    # Disable urllib3's limit. Budget has a limit of its own, beyond which the download fails with
    # an error that has the value.
    reader.retry_after_max = float("inf")  # type: ignore[assignment]
    try:
        return min(reader.parse_retry_after(value), FOREVER)
    except Exception:  # noqa: BLE001 - InvalidHeader, or OverflowError and others for huge values
        return None
