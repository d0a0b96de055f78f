"""Tests of the circuit breaker, which all downloads with one context share."""

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
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """Return the clock of this test."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def host():
    """Make a host without history."""
    return Breaker()


def fail(host, clock, attempts=FAILURES, seconds=SILENCE):
    """Let attempts start now and fail after some seconds."""
    began = clock.now
    clock.now += seconds
    for _ in range(attempts):
        host.failed(began)


def is_admitted(host):
    """Return whether an attempt is admitted."""
    try:
        host.admit()
    except DownloadFailed:
        return False
    return True


def test_the_limits_make_sense():
    """The breaker's limits ignore single failures and short outages, and probe soon."""
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
    """The breaker opens after enough consecutive failures over a long enough time."""
    fail(host, clock, attempts, seconds)
    assert host.is_open is down
    assert is_admitted(host) is not down


def test_an_outage_that_is_over_is_none(host, clock):
    """Failures within a short time don't open the breaker while all wait for a retry."""
    fail(host, clock, attempts=100, seconds=SILENCE / 2)
    clock.now += SILENCE
    assert not host.is_open
    assert is_admitted(host)


def test_error(host, clock):
    """The error of a refused attempt says that the host is down, and isn't retried."""
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
    """An open breaker admits one probe at a time, at intervals."""
    fail(host, clock)
    for _ in range(3):
        clock.now += PROBE - 0.01
        assert [is_admitted(host) for _ in range(3)] == [False] * 3
        clock.now += 0.01
        assert [is_admitted(host) for _ in range(3)] == [True, False, False]


def test_probe_that_fails(host, clock):
    """The time to the next probe counts from the failure of the last one."""
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
    """One success closes the breaker, which needs as many failures again to open."""
    fail(host, clock)
    host.succeeded()
    assert not host.is_open
    assert all(is_admitted(host) for _ in range(10))
    fail(host, clock, FAILURES - 1, 3600)
    assert not host.is_open


def test_nothing_to_do(host, clock):
    """A breaker costs nothing until an attempt fails, and again after the next success."""
    assert not host.has_failed
    fail(host, clock, 1)
    assert host.has_failed
    host.succeeded()
    assert not host.has_failed


def test_in_a_row(host, clock):
    """Failures with successes between them never open the breaker."""
    for _ in range(10):
        fail(host, clock, FAILURES - 1, 3600)
        assert not host.is_open
        host.succeeded()


def test_threads(host, clock):
    """If many threads ask an open breaker at once, exactly one gets the probe."""
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
    """Old failures expire: the breaker counts again from the next one."""
    fail(host, clock, FAILURES, SILENCE)
    assert host.is_open
    clock.now += module.FORGET
    assert is_admitted(host)
    assert not host.is_open
    assert is_admitted(host)
