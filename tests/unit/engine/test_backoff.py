"""Tests of the retry policy's back-off and budget."""

import email.utils
import time

import pytest
from urllib3.util import Retry

from pulpcore.plugin.download.futures import DownloadError
from pulpcore.plugin.download.futures.engine import backoff
from pulpcore.plugin.download.futures.engine.backoff import (
    DEFAULT,
    PROGRESS,
    TRANSIENT,
    Budget,
    retry_after,
)

CAP = 120


def failure(transient=True, wait=None):
    """Make an error of an attempt."""
    error = DownloadError("why")
    error.transient = transient
    error.retry_after = wait
    return error


@pytest.fixture
def longest(monkeypatch):
    """Make each wait as long as possible."""
    monkeypatch.setattr("random.uniform", lambda low, high: high)


def waits(budget, error=None, most=100):
    """Return the waits until the budget is spent."""
    found = []
    while len(found) < most:
        delay = budget.delay(error or failure())
        if delay is None:
            break
        budget.spend()
        found.append(delay)
    return found


def test_default():
    """The default policy has six retries, a factor of 0.4 s, at most 60 s, and its statuses."""
    assert (DEFAULT.total, DEFAULT.backoff_factor, DEFAULT.backoff_max) == (6, 0.4, 60)
    assert DEFAULT.status_forcelist == TRANSIENT == {408, 425, 429, 500, 502, 503, 504}
    assert DEFAULT.respect_retry_after_header is True


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (DEFAULT, [0.4, 0.8, 1.6, 3.2, 6.4, 12.8]),
        (Retry(total=6, backoff_factor=1, backoff_max=5), [1, 2, 4, 5, 5, 5]),
        (Retry(total=2, backoff_factor=0), [0, 0]),
        (Retry(total=0), []),
        (Retry(total=False), []),
        (None, []),
    ],
)
@pytest.mark.usefixtures("longest")
def test_waits(policy, expected):
    """The back-off starts with its factor, doubles up to its limit, and ends with the budget."""
    assert waits(Budget(policy, CAP)) == expected


@pytest.mark.usefixtures("longest")
def test_no_limit():
    """A policy without a total retries for ever, and its back-off never overflows."""
    budget = Budget(Retry(total=None, backoff_factor=1, backoff_max=60), CAP)
    assert waits(budget, most=2000)[-1] == 60


def test_default_outlasts_ten_seconds(monkeypatch):
    """Even with the shortest random waits, the default retries last longer than 10 seconds."""
    monkeypatch.setattr("random.uniform", lambda low, high: low)
    assert sum(waits(Budget(DEFAULT, CAP))) > 12


def test_jitter():
    """A wait is random, between half of the back-off and all of it."""
    budget = Budget(Retry(total=1, backoff_factor=1), CAP)
    found = [budget.delay(failure()) for _ in range(200)]
    assert 0.5 <= min(found) < 0.6
    assert 0.9 < max(found) <= 1


def test_not_transient():
    """A permanent error is never retried, whatever Retry-After the server sends."""
    assert Budget(DEFAULT, CAP).delay(failure(transient=False, wait=1)) is None


@pytest.mark.parametrize(
    ("wait", "expected"), [(0, 0.4), (0.1, 0.4), (10, 11), (CAP, 132), (CAP + 1, None)]
)
@pytest.mark.usefixtures("longest")
def test_retry_after_counts(wait, expected):
    """The wait is at least Retry-After and at least the back-off; above the limit there is none."""
    assert Budget(DEFAULT, CAP).delay(failure(wait=wait)) == pytest.approx(expected)


def test_retry_after_is_spread():
    """Up to a tenth is added to the server's Retry-After, and nothing is taken off."""
    found = [Budget(DEFAULT, CAP).delay(failure(wait=100)) for _ in range(200)]
    assert 100 <= min(found) < 102
    assert 108 < max(found) <= 110


@pytest.mark.usefixtures("longest")
def test_retry_after_may_be_ignored():
    """A policy may ignore Retry-After."""
    budget = Budget(Retry(total=4, backoff_factor=1, respect_retry_after_header=False), CAP)
    assert budget.delay(failure(wait=CAP + 1)) == 1


def test_retry_after_spends():
    """A server that always sends Retry-After uses up the retry budget."""
    assert len(waits(Budget(DEFAULT, CAP), failure(wait=0))) == 6


def test_to_ask_spends_nothing():
    """Asking a policy for the next wait doesn't use up the budget."""
    budget = Budget(Retry(total=1, backoff_factor=0), CAP)
    assert [budget.delay(failure()) for _ in range(5)] == [0] * 5
    budget.spend()
    assert budget.delay(failure()) is None


@pytest.mark.parametrize(
    ("positions", "renewed"),
    [
        ([0], False),
        ([PROGRESS - 1], False),
        ([PROGRESS], True),
        ([PROGRESS, PROGRESS], False),
        ([PROGRESS, 0, PROGRESS], False),
        ([PROGRESS, 2 * PROGRESS - 1], False),
        ([PROGRESS, 2 * PROGRESS], True),
        ([10 * PROGRESS, 5 * PROGRESS, 9 * PROGRESS], False),
    ],
)
def test_progress(positions, renewed):
    """Only an attempt that gets well past the highest offset renews the retry budget."""
    budget = Budget(Retry(total=1, backoff_factor=0), CAP)
    for position in positions[:-1]:
        budget.progress(position)
    budget.spend()
    budget.progress(positions[-1])
    assert (budget.delay(failure()) is not None) is renewed


@pytest.mark.parametrize("cut", [1000, 10 * PROGRESS])
def test_a_server_that_always_cuts_at_one_place(cut):
    """A server that always cuts at the same offset uses up the retry budget."""
    budget = Budget(Retry(total=4, backoff_factor=0), CAP)
    tries = 0
    while budget.delay(failure()) is not None:
        budget.spend()
        budget.progress(cut)
        tries += 1
        assert tries < 10
    assert tries <= 5


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0), ("120", 120), (" 7 ", 7), ("1000000000", 10**9), ("00", 0)],
)
def test_retry_after_in_seconds(value, seconds):
    """Retry-After in seconds is read, even above urllib3's limit."""
    assert retry_after(value) == seconds


def test_retry_after_as_a_date():
    """Retry-After as a date gives the seconds from now, and a past date gives 0."""
    assert 3500 < retry_after(email.utils.formatdate(time.time() + 3600, usegmt=True)) <= 3600
    assert retry_after("Fri, 31 Dec 1999 23:59:59 GMT") == 0


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "-1",
        "1.5",
        "nan",
        "1e3",
        "9" * 5000,
        "Fri, 99 Dec 1999 23:59:59 GMT",
        "Fri, 31 Dec 99999 23:59:59 GMT",
        "Fri, 31 Dec 1999",
        "\0",
    ],
)
def test_retry_after_that_says_nothing(value):
    """A Retry-After that is neither seconds nor a date is ignored."""
    found = retry_after(value)
    assert found is None or found == 0


def test_it_names_its_rule():
    """The constants of the back-off are documented."""
    assert backoff.__doc__
