"""Tests of the timer, one thread that calls back at given times."""

import _thread
import functools
import gc
import os
import threading
import time
import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from processes import forked

from pulpcore.plugin.download.futures.waiting import timer as module
from pulpcore.plugin.download.futures.waiting.timer import Alarm, Timer
from pulpcore.plugin.download.futures.waiting.timer import timer as shared

SECONDS = 20
NAME = "download-timer"


@pytest.fixture
def timer():
    """Make a timer for the test."""
    return Timer()


@pytest.fixture
def at_once(timer, monkeypatch):
    """Return a ``with`` during which no time passes for the timer."""

    @contextmanager
    def stop():
        now = time.monotonic()
        with monkeypatch.context() as patch:
            patch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
            yield

    return stop


def thread_of_a_timer():
    """Return the current thread of a timer."""
    while not (found := [t for t in threading.enumerate() if t.name == NAME and t.is_alive()]):
        time.sleep(0.001)
    return found[0]


def test_ring(timer, at_once):
    """An alarm rings once at its time, after which the timer's thread ends."""
    rung = []
    done = threading.Event()
    with at_once():
        timer.set(0.01, lambda: (rung.append(1), done.set()))
        thread = thread_of_a_timer()
    assert done.wait(SECONDS)
    thread.join(SECONDS)
    assert not thread.is_alive()
    assert rung == [1]


@pytest.mark.parametrize("seconds", [0, -1])
def test_time_that_has_come(timer, seconds):
    """An alarm for a time in the past rings at once."""
    done = threading.Event()
    timer.set(seconds, done.set)
    assert done.wait(SECONDS)


def test_order(timer, at_once):
    """Alarms ring in the order of their times, even if an earlier one is set later."""
    rung = []
    done = threading.Event()
    waited_for = timer.set(3600, functools.partial(rung.append, "never"))
    with at_once():
        timer.set(0.12, done.set)
        timer.set(0.08, functools.partial(rung.append, "late"))
        timer.set(0.02, functools.partial(rung.append, "early"))
        timer.set(-5, functools.partial(rung.append, "first"))
    assert done.wait(SECONDS)
    timer.cancel(waited_for)
    assert rung == ["first", "early", "late"]


def test_alike(timer, at_once):
    """Alarms for the same time ring in the order in which they were set."""
    rung = []
    done = threading.Event()
    with at_once():
        for number in range(5):
            timer.set(0, functools.partial(rung.append, number))
        timer.set(0, done.set)
    assert done.wait(SECONDS)
    assert rung == list(range(5))


def test_cancelled(timer, at_once):
    """A cancelled alarm never rings and doesn't delay others."""
    done = threading.Event()
    rung = []
    with at_once():
        for seconds in (0, 0.02, 3600):
            timer.cancel(timer.set(seconds + 0.01, functools.partial(rung.append, seconds)))
        timer.set(0.05, done.set)
    assert done.wait(SECONDS)
    assert rung == []


def test_thread_ends_with_the_last(timer):
    """The timer's thread lives while there are alarms, and the next alarm starts a new one."""
    first, second = timer.set(3600, print), timer.set(7200, print)
    thread = thread_of_a_timer()
    assert thread.daemon
    timer.cancel(first)
    assert thread.is_alive()
    timer.cancel(second)
    thread.join(SECONDS)
    assert not thread.is_alive()
    done = threading.Event()
    timer.set(0, done.set)
    assert done.wait(SECONDS)


def test_set_by_an_alarm(timer, at_once):
    """An alarm's callback may set and cancel alarms."""
    done = threading.Event()
    rung = []

    def ring():
        timer.cancel(other)
        timer.set(0.2, done.set)

    with at_once():
        other = timer.set(0.1, functools.partial(rung.append, "other"))
        timer.set(0, ring)
    assert done.wait(SECONDS)
    assert rung == []


def test_alarm():
    """An Alarm rings until it is cancelled, and cancelling it twice is harmless."""
    rung = []
    alarm = Alarm(lambda: rung.append(1))
    alarm.ring()
    assert not alarm.is_cancelled
    alarm.cancel()
    alarm.cancel()
    alarm.ring()
    assert alarm.is_cancelled
    assert rung == [1]


def test_cancelled_alarms_do_not_pile_up(timer):
    """Cancelled alarms of a million downloads use no more memory than those of a thousand.

    The first download goes on all the time, so its alarm stays ahead of those of the others.
    """
    first = timer.set(3600, print)
    alarms = []
    for _ in range(5000):
        alarm = timer.set(7200, print)
        timer.cancel(alarm)
        alarms.append(weakref.ref(alarm))
    del alarm
    gc.collect()
    end = time.monotonic() + SECONDS
    while sum(ref() is not None for ref in alarms) >= 1000:
        # On a busy machine the timer's thread handles them late.
        assert time.monotonic() < end
        time.sleep(0.001)
    timer.cancel(first)


def test_many_threads(timer):
    """No alarm is lost when many threads set and cancel alarms at once."""
    rung = threading.Semaphore(0)

    def work():
        for _ in range(50):
            timer.cancel(timer.set(3600, print))
            timer.set(0.001, rung.release)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert all(rung.acquire(timeout=SECONDS) for _ in range(8 * 50))
    assert not rung.acquire(blocking=False)


def test_no_thread_to_be_had(timer, monkeypatch):
    """If no timer thread can be started, the caller is told, and the next alarm starts one.

    The alarm that could not be set never rings.
    """
    rung = []

    def refuse(function, arguments):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            timer.set(0, functools.partial(rung.append, "refused"))
    done = threading.Event()
    timer.set(0, done.set)
    assert done.wait(SECONDS)
    assert rung == []


def test_forked_child(timer):
    """A forked child starts its own timer thread, and the parent's alarms continue."""
    here = threading.Event()
    alarm = timer.set(3600, print)
    thread_of_a_timer()

    def work():
        there = threading.Event()
        timer.set(0, there.set)
        assert there.wait(SECONDS)

    status = forked(work)
    timer.cancel(alarm)
    assert status == 0
    timer.set(0, here.set)
    assert here.wait(SECONDS)


def test_forks_are_watched_once(timer, monkeypatch):
    """A timer registers for forks once, however many alarms are set: it can't be undone."""
    asked = []
    monkeypatch.setattr(os, "register_at_fork", lambda **hooks: asked.extend(hooks))
    for _ in range(3):
        timer.cancel(timer.set(1000, asked.clear))
    assert asked == ["after_in_child"]


def test_alarm_of_the_parent_in_a_child(timer):
    """A forked child may cancel an alarm of its parent, which has no effect and doesn't block."""
    alarm = timer.set(3600, print)
    status = forked(lambda: timer.cancel(alarm))
    is_cancelled_here = alarm.is_cancelled
    timer.cancel(alarm)
    assert status == 0
    assert not is_cancelled_here


def test_there_is_one_for_all():
    """The process has a single shared timer."""
    assert isinstance(shared, Timer)
