"""Tests of the least speed."""

import functools
import threading
from unittest.mock import Mock

import pytest

from pulpcore.plugin.download.futures.engine import speed as pace
from pulpcore.plugin.download.futures.engine.speed import Pace
from pulpcore.plugin.download.futures.waiting.cancellation import (
    Cancellation,
    Cancelled,
    current,
    scope,
)
from pulpcore.plugin.download.futures.waiting.timer import Alarm

SECONDS = 20


class Clockwork:
    """A timer that rings when the test says so."""

    def __init__(self):
        self.alarms = []
        self.windows = []

    def set(self, seconds, function):
        """Record the alarm."""
        alarm = Alarm(function)
        self.alarms.append(alarm)
        self.windows.append(seconds)
        return alarm

    def cancel(self, alarm):
        """Cancel the alarm."""
        alarm.cancel()

    def pass_window(self):
        """Ring the latest alarm."""
        self.alarms[-1].ring()


@pytest.fixture
def clockwork(monkeypatch):
    """Replace the timer of Pace in this test."""
    clockwork = Clockwork()
    monkeypatch.setattr(pace, "timer", clockwork)
    return clockwork


@pytest.mark.parametrize(
    ("least", "window", "received", "windows"),
    [
        (10, 5, [0, 49], 1),  # a byte less than 10 a second over 5 s
        (10, 5, [7, 7], 1),  # nothing at all
        (10, 5, [0, 50, 100, 149], 3),  # fast at first
        (10, 5, [0, 10**9, 10**9 + 49], 2),  # bytes from before the window don't count
        (0.5, 30, [0, 14], 1),
    ],
)
def test_too_slow(clockwork, least, window, received, windows):
    """The first window with too few bytes cancels the attempt, but not its parent."""
    parent = Cancellation()
    counts = iter(received)
    with Pace(parent, least, window, functools.partial(next, counts)) as measured:
        for number in range(windows):
            assert measured.reason is None
            assert len(clockwork.alarms) == number + 1
            clockwork.pass_window()
        with pytest.raises(Cancelled, match="slower than") as caught:
            current().check()
    assert measured.reason == caught.value.reason
    assert f"{least:g} bytes a second for {window:g} s" in measured.reason
    assert parent.reason is None
    assert set(clockwork.windows) == {window}
    assert list(counts) == []


@pytest.mark.parametrize(
    "received",
    [
        [0, 50, 100, 150],
        [0, 51, 10**12, 10**12 + 50],
        # None marks a window that isn't checked.
        [0, None, None, 50, None, 100],
        [None, None, 50],
    ],
)
def test_fast_enough(clockwork, received):
    """A transfer at or above the least speed continues."""
    counts = iter(received)
    with Pace(Cancellation(), 10, 5, functools.partial(next, counts)) as measured:
        for _ in received[1:]:
            clockwork.pass_window()
        current().check()
    assert measured.reason is None
    assert all(alarm.is_cancelled for alarm in clockwork.alarms[-1:])


def test_stopped_from_above(clockwork):
    """If the parent is cancelled, the reason isn't the least speed."""
    parent = Cancellation()
    with Pace(parent, 10, 5, lambda: 0) as measured:
        parent.cancel("the end")
        clockwork.pass_window()
        with pytest.raises(Cancelled, match=r"^the end$"):
            current().check()
    assert measured.reason is None


def test_left(clockwork):
    """Leaving the `with` of a Pace removes its alarm and restores the previous token."""
    parent = Cancellation()
    with scope(parent):
        with Pace(parent, 10, 5, lambda: 0) as measured:
            inside = current()
        assert current() is parent
    assert inside is not parent
    clockwork.pass_window()
    assert measured.reason is None
    parent.cancel("later")
    assert inside.reason is None


def test_left_by_an_exception(clockwork):
    """An exception passes through the `with` of a Pace, which is cleaned up."""
    before = current()
    with pytest.raises(KeyError), Pace(Cancellation(), 10, 5, lambda: 0):
        raise KeyError
    assert current() is before
    assert clockwork.alarms[-1].is_cancelled


def test_left_while_it_looks(clockwork):
    """If the `with` is left while the alarm is checking, the new alarm is cancelled, too."""
    measured = Pace(Cancellation(), 0.1, 1, Mock(side_effect=[0, 1]))
    look = []
    with measured:
        # The alarm rings, and is about to check, when the ``with`` is left.
        look.append(clockwork.alarms[-1]._function)
    look[0]()
    assert len(clockwork.alarms) == 2
    assert all(alarm.is_cancelled for alarm in clockwork.alarms)


def test_real_timer():
    """With the real timer a wait within the `with` ends when the transfer is too slow."""
    looked = threading.Semaphore(0)
    counts = iter([0, 100, 200])

    def received():
        looked.release()
        return next(counts, 200)

    measured = Pace(Cancellation(), 10, 0.01, received)
    with pytest.raises(Cancelled, match="slower"), measured:
        current().wait(SECONDS)
    assert measured.reason
    assert all(looked.acquire(timeout=SECONDS) for _ in range(4))
