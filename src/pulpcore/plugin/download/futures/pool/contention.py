"""Chooses between all threads of a batch and a single one.

Small files from a server nearby keep Python busy, and only one thread at a time holds the
interpreter lock. Each system call gives the lock away, and a thread that wants it back has to wait
for another thread's next system call. With eight threads, these hand-overs cost as much CPU as
the downloads do. One thread alone then completes more files, in two thirds of the CPU time.
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
import time
from collections import deque

from ..waiting.threads import Workers

STEP, STEPS = 16, 4
"""How many plans end between two looks at the clocks, and how many looks make a sample."""

SAMPLE = STEP * STEPS
"""How many plans a measurement needs."""

SHORT = 0.001
"""Only if plans end faster than this, on average, a single thread is tried (seconds)."""

BUSY = (0.5, 1.25)
"""A process whose threads contend for the interpreter lock uses so many processors (from, to)."""

IDLE = 0.4
"""A single thread that uses less than this share of a processor waits too much."""

RECENT, TRIES = 4, 2
"""The best of the last samples counts, since any may be disturbed: how many, and in a trial."""

SLOWER = 5.0
"""A trial ends early if a step takes this many times as long as before the trial."""

MARGIN = 0.1
"""All threads must be faster than a single one by this share, because they need more CPU."""

PAUSE, LONGEST = 1.0, 30.0
"""The first and the longest time between two trials (seconds)."""


class Contention:
    """Measures how fast plans end, and sets how many threads execute them.

    Sometimes it tries the other number of threads for a moment, and keeps what is faster.
    """

    def __init__(self, workers: Workers, most: int) -> None:
        """Begin with all threads.

        Args:
            workers: The threads.
            most: The maximum number of threads.
        """
        self._workers = workers
        self._ended = itertools.count(1)
        # Only threads of the pool take it, and they handle no signals.
        self._lock = threading.Lock()
        # The clocks at the last look, and what the steps of this sample took (seconds).
        self._at = self._cpu = 0.0
        self._steps: list[tuple[float, float]] = []
        # How long the last samples took, with the present number of threads.
        self._recent: deque[float] = deque(maxlen=RECENT)
        # How long a sample took before the trial; None if no trial is going on.
        self._before: float | None = None
        # How long a sample took when the number of threads was last confirmed.
        self._usual = 0.0
        self._was_single = False
        # How many steps may have plans that began before the number of threads changed: one plan
        # of each thread. And how many of these steps are left.
        self._mixing = self._mixed = math.ceil(most / STEP)
        self._due = float("-inf")
        self._pause = PAUSE

    def count(self) -> None:
        """Note that a plan has ended. Only a thread of the pool may call this."""
        is_step = next(self._ended) % STEP == 0
        # A trial of a single thread doesn't wait for all plans of a slow step.
        is_tried = self._was_single and self._before is not None
        if (is_step or is_tried) and self._lock.acquire(blocking=False):
            try:
                if is_step or self._is_slow(time.monotonic() - self._at):
                    self._look()
            finally:
                self._lock.release()

    def _is_slow(self, seconds: float) -> bool:
        """Return whether a step of a trial takes too long."""
        before = None if self._mixed else self._before
        return before is not None and seconds > SLOWER * before / STEPS

    def _look(self) -> None:
        now, cpu = time.monotonic(), time.process_time()
        step = now - self._at, cpu - self._cpu
        self._at, self._cpu = now, cpu
        if self._workers.is_single is not self._was_single:
            # A plan took long, so the pool has woken all threads.
            self._was_single, self._mixed = False, self._mixing
            self._settle(now, PAUSE if self._before is None else self._longer)
        elif self._mixed:
            self._mixed -= 1
        elif self._before is not None and self._is_slow(step[0]):
            self._go_back(now, self._before)
        else:
            self._steps.append(step)
            if len(self._steps) == STEPS:
                seconds, used = map(sum, zip(*self._steps, strict=True))
                self._steps.clear()
                self._measure(now, seconds, used)

    def _measure(self, now: float, seconds: float, used: float) -> None:
        self._recent.append(seconds)
        best = min(self._recent)
        if self._before is not None:
            self._judge(now, best, self._before)
        elif self._was_single and used < IDLE * seconds:
            self._switch()
            self._settle(now, PAUSE)
        elif self._is_worth_a_trial(now, best, used / seconds):
            self._before = best
            self._switch()

    def _is_worth_a_trial(self, now: float, best: float, processors: float) -> bool:
        is_due = now >= self._due
        if self._was_single:
            return is_due or (len(self._recent) == RECENT and best > 2 * self._usual)
        low, high = BUSY
        return is_due and best < SAMPLE * SHORT and low <= processors <= high

    def _judge(self, now: float, best: float, before: float) -> None:
        """Keep what is tried if it is faster. Otherwise go back after the last try."""
        worth = 1 + MARGIN if self._was_single else 1 - MARGIN
        if best < worth * before:
            self._settle(now, PAUSE)
            self._usual = best
        elif len(self._recent) == TRIES:
            self._go_back(now, before)

    def _go_back(self, now: float, before: float) -> None:
        self._switch()
        self._settle(now, self._longer)
        self._usual = before

    @property
    def _longer(self) -> float:
        """The pause after a trial that has failed (seconds)."""
        return min(2 * self._pause, LONGEST)

    def _switch(self) -> None:
        self._was_single = not self._was_single
        if self._was_single:
            self._workers.is_single = True
        else:
            self._workers.use_all()
        self._mixed = self._mixing
        self._recent.clear()

    def _settle(self, now: float, pause: float) -> None:
        """Make no trial for a while."""
        self._before = None
        self._steps.clear()
        self._pause, self._due = pause, now + pause


def contention(workers: Workers, most: int) -> Contention | None:
    """Return an object that chooses the number of threads; None if all are always best.

    Args:
        workers: The threads.
        most: The maximum number of threads.
    """
    is_locking = getattr(sys, "_is_gil_enabled", None)
    has_lock = is_locking is None or is_locking()
    return Contention(workers, most) if most > 1 and has_lock else None
