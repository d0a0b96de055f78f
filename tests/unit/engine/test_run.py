"""What belongs to one run of a download."""

import threading
import time

import pytest
from urllib3.util import Retry

from pulpcore.plugin.download.futures import DownloadFailed
from pulpcore.plugin.download.futures.engine.backoff import Budget
from pulpcore.plugin.download.futures.engine.run import Run
from pulpcore.plugin.download.futures.waiting.cancellation import Cancellation, Cancelled

SECONDS = 20


def timers():
    """The threads of the timer."""
    return [thread for thread in threading.enumerate() if thread.name == "download-timer"]


def test_begins_with_nothing():
    """A new run has no attempt, nothing that came, and nothing that stops it."""
    before = time.monotonic()
    run = Run(None)
    assert before <= run.began <= time.monotonic()
    assert (run.attempt, run.repairs, run.received, run.total) == (0, 0, 0, None)
    assert (run.announced, run.resume, run.torn, run.is_done) == (False, False, False, False)
    assert run.token.reason is None
    assert run.alarm is None
    run.close()


def test_budget():
    """It tries again as the budget says that it is given, and never without one."""
    error = DownloadFailed("why")
    error.transient = True
    budget = Budget(Retry(total=1, backoff_factor=0), 120)
    assert Run(None, budget).budget is budget
    assert budget.delay(error) == 0
    assert Run(None).budget.delay(error) is None


def test_parent():
    """What stops the parent stops the run, until it is closed."""
    parent = Cancellation()
    run, closed = Run(parent), Run(parent)
    closed.close()
    parent.cancel("the end")
    assert run.token.reason == "the end"
    assert closed.token.reason is None


def test_limit():
    """The total limit stops the run, in the middle of a wait, and says which limit it was."""
    parent = Cancellation()
    run = Run(parent)
    run.limit(0.01)
    with pytest.raises(Cancelled, match=r"total limit of 0\.01 s"):
        run.token.wait(SECONDS)
    assert parent.reason is None
    run.close()


def test_limit_counts_from_the_beginning():
    """Time that was used up before the limit is set counts."""
    run = Run(None)
    run.began -= 3600
    run.limit(3599)
    with pytest.raises(Cancelled, match="3599 s"):
        run.token.wait(SECONDS)
    run.close()


def test_expire():
    """A run whose time is over stops, whether the timer has come to it or not, and not before."""
    parent = Cancellation()
    run = Run(parent)
    run.expire()
    run.limit(3600)
    run.expire()
    assert run.token.reason is None
    run.deadline = time.monotonic()
    run.expire()
    assert run.token.reason == "it was not done within the total limit of 3600 s"
    assert parent.reason is None
    run.close()


def test_progress():
    """What came counts, but not in a time in which it was we who waited, for a part of it too."""
    run = Run(None)
    run.received = 5
    assert run.progress() == 5
    # It begins to wait, goes on to, and is through.
    run.is_waiting = run.has_waited = True
    assert (run.progress(), run.progress()) == (None, None)
    run.is_waiting = False
    assert (run.progress(), run.progress()) == (None, 5)
    # A wait between two looks.
    run.has_waited = True
    run.received = 7
    assert (run.progress(), run.progress()) == (None, 7)


def test_close():
    """A run that is closed has no alarm any more, and no thread waits for it."""
    run = Run(None)
    run.limit(3600)
    while not (waiting := timers()):
        time.sleep(0.001)
    assert len(waiting) == 1
    run.close()
    waiting[0].join(SECONDS)
    assert not waiting[0].is_alive()
    assert run.token.reason is None


def test_no_other_attributes():
    """There are thousands of runs: they have these attributes and no others."""
    with pytest.raises(AttributeError):
        Run(None).other = 1
