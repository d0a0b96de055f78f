"""Tests of the rate limiter."""

import threading

import pytest

from pulpcore.plugin.download.futures import rate
from pulpcore.plugin.download.futures.rate import RateLimiter

SECONDS = 20


class Clock:
    """A clock that the test sets."""

    now = 1000.0

    def monotonic(self):
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """Return the clock of the limiters in this test."""
    clock = Clock()
    monkeypatch.setattr(rate, "time", clock)
    return clock


@pytest.mark.parametrize("per_second", [0.1, 1, 3, 50])
def test_even(clock, per_second):
    """A rate limiter lets the first request go at once and each further one an interval later."""
    limiter = RateLimiter(per_second)
    delays = [limiter.delay() for _ in range(5)]
    assert delays == pytest.approx([number / per_second for number in range(5)])


def test_time_goes_on(clock):
    """Elapsed time shortens the rate limiter's wait, but unused time isn't saved up."""
    limiter = RateLimiter(2)
    assert limiter.delay() == 0
    clock.now += 0.2
    assert limiter.delay() == pytest.approx(0.3)
    clock.now += 3600
    assert [limiter.delay() for _ in range(3)] == pytest.approx([0, 0.5, 1])


def test_starts_at_once_whatever_the_clock(clock):
    """The rate limiter works right after the start of a machine, with a clock near 0."""
    clock.now = 0.0
    assert RateLimiter(1).delay() == 0


@pytest.mark.parametrize("per_second", [0, -1, -0.5, float("nan")])
def test_cannot_be(per_second):
    """A rate that isn't a number above 0 is refused, and the error shows its value."""
    with pytest.raises(ValueError, match=f"above 0.*{per_second}"):
        RateLimiter(per_second)


def test_shared(clock):
    """32 threads that share a rate limiter each get a different time."""
    limiter = RateLimiter(1)
    delays = []

    def work():
        delays.extend([limiter.delay() for _ in range(20)])

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert sorted(delays) == pytest.approx(range(32 * 20))
