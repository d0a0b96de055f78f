"""The circuit breaker: whether a host is down, as all who share a context see it."""

import threading

import pytest

from pulpcore.plugin.download.futures import DownloadFailed
from pulpcore.plugin.download.futures.engine import breaker as module
from pulpcore.plugin.download.futures.engine.breaker import (
    FAILURES,
    PROBE,
    SILENCE,
    Breaker,
)

SECONDS = 20


class Clock:
    """A clock that the test sets."""

    now = 1000.0

    def monotonic(self):
        """The time."""
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """The clock of this test."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def host():
    """A host that nothing is known of."""
    return Breaker()


def fail(host, clock, attempts=FAILURES, seconds=SILENCE):
    """Attempts that all began now, and failed after some seconds."""
    began = clock.now
    clock.now += seconds
    for _ in range(attempts):
        host.failed(began)


def is_admitted(host):
    """Whether an attempt is let through."""
    try:
        host.admit()
    except DownloadFailed:
        return False
    return True


def test_the_limits_make_sense():
    """One failure is none, a blip is no outage, and a host that is back is soon found out."""
    assert FAILURES > 1
    assert SILENCE >= PROBE > 0


@pytest.mark.parametrize(
    ("attempts", "seconds", "down"),
    [
        (0, 3600, False),
        (FAILURES - 1, 3600, False),
        (FAILURES, SILENCE - 0.01, False),
        (1000, SILENCE - 0.01, False),
        (FAILURES, SILENCE, True),
        (1000, 3600, True),
    ],
)
def test_down(host, clock, attempts, seconds, down):
    """It takes enough attempts in a row, and enough time since the first of them began."""
    fail(host, clock, attempts, seconds)
    assert host.is_open is down
    assert is_admitted(host) is not down


def test_an_outage_that_is_over_is_none(host, clock):
    """Failures within a short time don't make an outage while all wait for their next try."""
    fail(host, clock, attempts=100, seconds=SILENCE / 2)
    clock.now += SILENCE
    assert not host.is_open
    assert is_admitted(host)


def test_error(host, clock):
    """What isn't tried says so, says why, and won't be tried again by itself."""
    fail(host, clock, FAILURES + 3, SILENCE + 2)
    with pytest.raises(DownloadFailed) as caught:
        host.admit()
    reason = caught.value.reason
    assert "not tried" in reason
    assert "down" in reason
    assert str(FAILURES + 3) in reason
    assert f"{SILENCE + 2:.0f} s" in reason
    assert not caught.value.transient


def test_probe(host, clock):
    """While it is down, one attempt is let through from time to time, and no more than one."""
    fail(host, clock)
    for _ in range(3):
        clock.now += PROBE - 0.01
        assert [is_admitted(host) for _ in range(3)] == [False] * 3
        clock.now += 0.01
        assert [is_admitted(host) for _ in range(3)] == [True, False, False]


def test_probe_that_fails(host, clock):
    """The time to the next probe counts from when the last one failed."""
    fail(host, clock)
    clock.now += PROBE
    began = clock.now
    assert is_admitted(host)
    clock.now += 3600
    host.failed(began)
    assert not is_admitted(host)
    clock.now += PROBE
    assert is_admitted(host)


def test_sign_of_life(host, clock):
    """One sign of life and all is as it was: it takes as many failures again."""
    fail(host, clock)
    host.succeeded()
    assert not host.is_open
    assert all(is_admitted(host) for _ in range(10))
    fail(host, clock, FAILURES - 1, 3600)
    assert not host.is_open


def test_in_a_row(host, clock):
    """Failures with signs of life between them never make an outage."""
    for _ in range(10):
        fail(host, clock, FAILURES - 1, 3600)
        assert not host.is_open
        host.succeeded()


def test_threads(host, clock):
    """Of many threads at once, one gets the probe."""
    fail(host, clock)
    clock.now += PROBE
    admitted = []
    threads = [
        threading.Thread(target=lambda: admitted.append(is_admitted(host))) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert sorted(admitted) == [False] * 15 + [True]


def test_forgotten(host, clock):
    """What was known long ago isn't held against a host: the row begins anew."""
    fail(host, clock, FAILURES, SILENCE)
    assert host.is_open
    clock.now += module.FORGET
    assert is_admitted(host)
    assert not host.is_open
    assert is_admitted(host)
