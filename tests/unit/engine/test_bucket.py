"""Tests of the token bucket on a clock of the test's own."""

import heapq
import itertools
import random

import pytest

from pulpcore.plugin.download.futures.engine.bucket import CREDIT, Bucket, piece


def simulate(rate, threads, seconds=22.0, block=256 * 1024, lag=0.0, pause=None):
    """Run threads that always have bytes; return when how many of them passed, and by whom.

    Args:
        rate: The bandwidth (bytes a second).
        threads: How many threads there are.
        seconds: How long they run.
        block: How many bytes a read brings at most.
        lag: How late a thread may wake up (seconds).
        pause: The begin and end of a time in which nobody has bytes.
    """
    generator = random.Random(7)
    bucket, passed = Bucket(), []
    ready = [(0.0, number) for number in range(threads)]
    while ready:
        now, number = heapq.heappop(ready)
        if now > seconds:
            break
        if pause is not None and pause[0] <= now < pause[1]:
            heapq.heappush(ready, (pause[1], number))
            continue
        size = min(block, piece(rate))
        then = now + bucket.take(size, rate, now) + generator.uniform(0, lag)
        passed.append((then, size, number))
        heapq.heappush(ready, (then, number))
    return sorted(passed)


def windows(passed, width, first=1.0, last=20.0):
    """Return how many bytes passed in windows of a width that begin after the first second."""
    begin = first
    while begin + width <= last:
        yield sum(size for at, size, _ in passed if begin <= at < begin + width)
        begin += 0.25


@pytest.mark.parametrize("rate", [1000, 1e6, 10e6, 100e6])
@pytest.mark.parametrize("threads", [1, 4, 32])
@pytest.mark.parametrize("lag", [0, 0.002])
def test_rate(rate, threads, lag):
    """Over 10 s the bandwidth is right within 3 %; in no second is it exceeded by over 30 %."""
    passed = simulate(rate, threads, lag=lag)
    for size in windows(passed, 10):
        assert size == pytest.approx(10 * rate, rel=0.03)
    assert max(windows(passed, 1)) <= 1.3 * rate


def test_nobody_starves():
    """With 32 threads, each one makes progress at least every 2 s."""
    passed = simulate(1e6, 32)
    for number in range(32):
        times = [at for at, _, by in passed if by == number]
        assert max(b - a for a, b in itertools.pairwise(times)) <= 2


def test_credit():
    """After a pause, at most the credit is caught up."""
    passed = simulate(1e6, 4, pause=(5.0, 12.0))
    assert sum(size for at, size, _ in passed if 12 <= at < 13) <= 1e6 * (1 + CREDIT) + 2e5


def test_a_new_rate():
    """If the bandwidth is changed, the next bytes obey the new one."""
    bucket = Bucket()
    assert bucket.take(100, 100, 0.0) == 0.0
    bucket.take(100, 100, 0.0)
    assert bucket.take(1, 1e9, 0.0) == pytest.approx(2 - CREDIT)
    assert bucket.take(1, 1e9, 10.0) == 0.0


def test_piece():
    """A piece is a part of a second's bytes, and never empty."""
    assert piece(3200) == 100
    assert piece(0.5) == 1
