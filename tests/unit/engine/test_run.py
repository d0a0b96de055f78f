"""Tests of the state of one run of a download."""

import threading
import time

import pytest

from pulpcore.plugin.download.futures.engine.claim import Claims
from pulpcore.plugin.download.futures.engine.run import Run
from pulpcore.plugin.download.futures.waiting.cancellation import Cancellation, Cancelled

SECONDS = 20


def timers():
    """Return the timer threads that have started. One that has not could not be joined yet."""
    alive = filter(threading.Thread.is_alive, threading.enumerate())
    return [thread for thread in alive if thread.name == "download-timer"]


def new_run(parent=None):
    """Make a run that nobody drives."""
    return Run(parent, Claims(iter(number for number in ())))


def test_begins_with_nothing():
    """A new run has no attempt, no size and no cancellation."""
    before = time.monotonic()
    run = new_run()
    assert before <= run.began <= time.monotonic()
    assert (run.attempts, run.repairs, run.total, run.time_left()) == (0, 0, None, None)
    assert (run.can_continue, run.is_done, run.writer, run.validations) == (False, False, None, [])
    assert run.token.reason is None
    run.close()


def test_parent():
    """Cancelling a run's parent token cancels the run, until it is closed."""
    parent = Cancellation()
    run, closed = new_run(parent), new_run(parent)
    closed.close()
    parent.cancel("the end")
    assert run.token.reason == "the end"
    assert closed.token.reason is None


def test_limit():
    """The total limit cancels a run even in a wait, and the reason names the limit."""
    parent = Cancellation()
    run = new_run(parent)
    run.limit(0.01)
    with pytest.raises(Cancelled, match=r"total limit of 0\.01 s"):
        run.token.wait(SECONDS)
    assert parent.reason is None
    run.close()


def test_limit_counts_from_the_beginning():
    """The total limit counts from the start of the run, even if it is set later."""
    run = new_run()
    run.began -= 3600
    run.limit(3599)
    with pytest.raises(Cancelled, match="3599 s"):
        run.token.wait(SECONDS)
    run.close()


def test_expire():
    """A run whose total limit is over expires even if the timer is late, and never earlier."""
    parent = Cancellation()
    run = new_run(parent)
    run.expire()
    run.limit(3600)
    run.expire()
    assert run.token.reason is None
    run.deadline = time.monotonic()
    run.expire()
    assert run.token.reason == "it was not done within the total limit of 3600 s"
    assert parent.reason is None
    run.close()


def test_close():
    """A closed run has no alarm, and no timer thread waits for it."""
    run = new_run()
    run.limit(3600)
    while not (waiting := timers()):
        time.sleep(0.001)
    assert len(waiting) == 1
    run.close()
    waiting[0].join(SECONDS)
    assert not waiting[0].is_alive()
    assert run.token.reason is None
