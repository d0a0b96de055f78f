"""Tests of when a single thread executes the plans of a batch."""

import sys
import threading
from itertools import chain, repeat

import pytest
from stubs import Nop

from pulpcore.plugin.download.futures import Batch
from pulpcore.plugin.download.futures.pool import contention as module
from pulpcore.plugin.download.futures.pool.contention import (
    BUSY,
    LONGEST,
    PAUSE,
    RECENT,
    SAMPLE,
    SHORT,
    SLOWER,
    STEP,
    STEPS,
    TRIES,
)
from pulpcore.plugin.download.futures.waiting.threads import Workers

QUICK = SAMPLE * SHORT / 2
SLOW = SAMPLE * SHORT * 2


class Pool:
    """Workers that note how often the number of threads was changed."""

    is_single = False

    def use_all(self):
        """Use all threads."""
        self.is_single = False


class Clock:
    """Plans that end, and the time and the processor time that they take."""

    def __init__(self, monkeypatch, most=STEP):
        self.now = self.cpu = 0.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(module.time, "process_time", lambda: self.cpu)
        self.pool = Pool()
        self.contention = module.Contention(self.pool, most)
        # The first look at the clocks has nothing to compare with.
        self.step(QUICK)

    def step(self, seconds, processors=1.0):
        """End some plans, in the time of a whole sample divided by the number of its steps."""
        self.now += seconds / STEPS
        self.cpu += processors * seconds / STEPS
        for _ in range(STEP):
            self.contention.count()

    def sample(self, seconds, processors=1.0):
        """End the plans of a sample. Return whether a single thread executes the next ones."""
        for _ in range(STEPS):
            self.step(seconds, processors)
        return self.pool.is_single

    def begin_trial(self):
        """Go on until the other number of threads is tried, and its first plans have ended."""
        before = self.pool.is_single
        self.now += LONGEST
        self.contention._at += LONGEST
        while self.pool.is_single is before:
            self.step(QUICK)
        # The plans of this step may have begun before, so its time doesn't count.
        self.step(10 * SLOW)
        assert self.pool.is_single is not before

    def trial(self, seconds):
        """Try the other number of threads, and return whether a single thread goes on."""
        self.begin_trial()
        return self.tries(seconds)

    def tries(self, seconds):
        """End the plans of all tries, and return whether a single thread goes on."""
        tried = self.pool.is_single
        for _ in range(TRIES):
            if self.pool.is_single is tried:
                self.sample(seconds)
        return self.pool.is_single


@pytest.fixture
def clock(monkeypatch):
    """A batch on a virtual clock."""
    return Clock(monkeypatch)


@pytest.mark.parametrize(
    ("seconds", "processors"),
    [(SLOW, 1.0), (QUICK, BUSY[0] - 0.1), (QUICK, BUSY[1] + 0.1)],
)
def test_no_contention(clock, seconds, processors):
    """A single thread isn't tried if plans are slow, threads wait, or several cores are busy."""
    assert not any(clock.sample(seconds, processors) for _ in range(100))


def test_faster(clock):
    """A single thread stays in use if it is faster than all threads, or hardly slower."""
    assert clock.trial(QUICK)
    assert clock.sample(QUICK)


def test_slower(clock):
    """If all threads are faster they stay in use, and trials become rarer."""
    assert not clock.trial(1.2 * QUICK)
    pauses = []
    for _ in range(6):
        began = clock.now
        while not clock.pool.is_single:
            clock.step(QUICK)
        pauses.append(round(clock.now - began))
        clock.step(SLOW)
        assert not clock.tries(1.2 * QUICK)
    assert pauses == [2 * PAUSE, 4 * PAUSE, 8 * PAUSE, 16 * PAUSE, LONGEST, LONGEST]


def test_much_slower(clock):
    """A trial ends at its first step if that takes much longer than before."""
    clock.begin_trial()
    clock.step(0.9 * SLOWER * QUICK)
    assert clock.pool.is_single
    clock.step(1.1 * SLOWER * QUICK)
    assert not clock.pool.is_single


@pytest.mark.parametrize(("seconds", "is_single"), [(0.95 * QUICK, True), (0.8 * QUICK, False)])
def test_all_again(clock, seconds, is_single):
    """All threads are tried again, and go on if they are clearly faster."""
    assert clock.trial(QUICK)
    assert clock.trial(seconds) is is_single


def test_slower_plans(clock):
    """All threads are used at once if plans take much longer than before."""
    assert clock.trial(QUICK)
    assert clock.sample(QUICK)
    for _ in range(RECENT):
        assert clock.sample(1.9 * QUICK)
    # One slow sample is no reason: something else may have disturbed it.
    assert all(clock.sample(2.5 * QUICK) for _ in range(RECENT - 1))
    assert not clock.sample(2.5 * QUICK)


def test_disturbed(clock):
    """The best of several samples counts, before a trial and in it."""
    clock.now += LONGEST
    clock.contention._at += LONGEST
    clock.sample(QUICK, 0.1)
    clock.step(QUICK, 0.1)
    # What was measured last before the trial is slow, and so is the first try.
    while not clock.pool.is_single:
        clock.step(1.5 * QUICK)
    assert clock.contention._before == pytest.approx(QUICK)
    clock.step(QUICK)
    assert clock.sample(1.4 * QUICK)
    assert clock.contention._before is not None
    assert clock.sample(QUICK)
    assert clock.contention._before is None


def test_waits(clock):
    """All threads are used again at once if the single thread mostly waits."""
    assert clock.trial(QUICK)
    assert clock.sample(QUICK)
    assert not clock.sample(QUICK, module.IDLE - 0.1)
    # For a while no single thread is tried.
    assert not any(clock.sample(QUICK) for _ in range(int(PAUSE / QUICK) - 3))


@pytest.mark.parametrize(("is_trial", "pause"), [(True, 2 * PAUSE), (False, PAUSE)])
def test_stuck(clock, is_trial, pause):
    """After a slow plan has woken all threads, they stay in use for a while.

    The while is longer if this ended a trial.
    """
    clock.begin_trial()
    if not is_trial:
        assert clock.sample(QUICK)
    clock.pool.use_all()
    assert not any(clock.sample(QUICK) for _ in range(int(pause / QUICK) - 3))
    assert clock.trial(QUICK)


def test_slow_plan(clock):
    """A trial of a single thread doesn't wait for the rest of a step that takes too long."""
    clock.begin_trial()
    clock.contention.count()
    assert clock.pool.is_single
    clock.now += 1.1 * SLOWER * QUICK / STEPS
    clock.contention.count()
    assert not clock.pool.is_single


def test_many_threads(monkeypatch):
    """Plans that many threads began before a trial aren't measured in it."""
    clock = Clock(monkeypatch, most=5 * STEP)
    for _ in range(4):
        clock.step(QUICK)
    assert clock.sample(QUICK)
    for _ in range(5):
        clock.step(0.1 * QUICK)
    assert not clock.tries(1.2 * QUICK)


def test_measured_once_at_a_time(clock):
    """A thread whose plan ends while another thread measures doesn't wait."""
    with clock.contention._lock:
        clock.sample(QUICK)
    assert clock.contention._at < clock.now


def test_where_it_makes_no_sense(monkeypatch):
    """Nothing is measured with one thread, or without an interpreter lock."""
    workers = Workers(1, "w")
    assert module.contention(workers, 1) is None
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert module.contention(workers, 2) is None
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True)
    assert module.contention(workers, 2) is not None
    monkeypatch.delattr(sys, "_is_gil_enabled")
    assert module.contention(workers, 2) is not None


def test_plan_that_takes_long(monkeypatch):
    """A blocking plan doesn't stop the others while a single thread runs the plans."""
    monkeypatch.setattr(module.Contention, "count", lambda _: None)
    others, blocked = threading.Event(), []

    class Blocked(Nop):
        def __call__(self):
            super().__call__()
            blocked.append(others.wait(20))

    downloads = chain(repeat(None, 100), [Blocked], repeat(None, 100))
    ended = 0
    with Batch((Nop() if made is None else made() for made in downloads), concurrent=4) as batch:
        batch._engine.workers.is_single = True
        for plan in batch():
            plan.result()
            ended += 1
            if ended == 200:
                others.set()
    assert ended == 201
    assert blocked == [True]
