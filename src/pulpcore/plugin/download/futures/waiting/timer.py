"""A timer: one thread that calls functions at given times, for every time-out of the package."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable

from .atomic import HEARING
from .threads import start

_SPARE = 64
"""The timer thread rebuilds its heap when it has this many cancelled alarms in it."""


class Alarm:
    """A function to call at a given time, unless the alarm is cancelled first."""

    def __init__(self, function: Callable[[], object]) -> None:
        """Create an alarm; :meth:`Timer.set` does.

        Args:
            function: The function. It must not block, since it runs in the timer thread.
        """
        self._function: Callable[[], object] | None = function

    def cancel(self) -> None:
        """Make sure that the function is never called from now on."""
        self._function = None

    def ring(self) -> None:
        """Call the function, unless the alarm was cancelled."""
        function = self._function
        if function is not None:
            function()

    @property
    def is_cancelled(self) -> bool:
        """Whether the alarm was cancelled."""
        return self._function is None


class Timer:
    """Calls functions at given times, in one daemon thread that ends when no alarm is pending.

    No method takes a lock, so a signal handler may set and cancel alarms.
    """

    def __init__(self) -> None:
        """Create a timer. The first alarm starts its thread."""
        self._begin()
        self._knows_forks = False

    def _begin(self) -> None:
        # Messages to the thread: a new alarm, or None to make it check whether alarms are pending.
        self._news: queue.SimpleQueue[tuple[float, int, Alarm] | None] = queue.SimpleQueue()
        # The pending alarms: neither cancelled nor called.
        self._alarms: set[Alarm] = set()
        self._numbers = itertools.count()
        # Held by the running timer thread. Only timer threads take it, and they handle no signals.
        self._running = threading.Lock()
        # Set when the thread that was started last has ended.
        self._ended: threading.Event | None = None

    def set(self, seconds: float, function: Callable[[], object]) -> Alarm:
        """Call a function after a delay.

        Args:
            seconds: The delay (seconds).
            function: The function. It must not block.

        Returns:
            The alarm. Cancel it when it isn't needed any more: the thread lives until then.

        Raises:
            RuntimeError: The system can't start a thread.
        """
        if not self._knows_forks:
            # A forked child has neither the thread nor the alarms of its parent. It resets its
            # timer in the fork, while it has one thread: later, two threads might both reset it.
            os.register_at_fork(after_in_child=self._begin)
            self._knows_forks = True
        alarm = Alarm(function)
        self._alarms.add(alarm)
        self._news.put((time.monotonic() + seconds, next(self._numbers), alarm))
        if not self._running.locked() and (self._ended is None or self._ended.is_set()):
            ended = threading.Event()
            try:
                start(lambda: self._run(ended), "download-timer")
            except RuntimeError:
                self.cancel(alarm)
                raise
            self._ended = ended
        return alarm

    def cancel(self, alarm: Alarm) -> None:
        """Cancel an alarm. The thread ends if no other is pending.

        Args:
            alarm: The alarm.
        """
        alarm.cancel()
        if alarm in self._alarms:
            self._alarms.discard(alarm)
            if not self._alarms:
                self._news.put(None)

    def _run(self, ended: threading.Event) -> None:
        # After an interrupt in set() two threads may be started, of which only one gets the lock.
        # The thread checks the queue again after it has released the lock: a caller of set() that
        # still saw the lock held has started no thread.
        while not self._news.empty() and self._running.acquire(blocking=False):
            self._work()
            self._running.release()
            ended.set()
        ended.set()

    def _work(self) -> None:
        heap: list[tuple[float, int, Alarm]] = []
        while True:
            if len(heap) > len(self._alarms) + _SPARE:
                heap = [entry for entry in heap if not entry[2].is_cancelled]
                heapq.heapify(heap)
            while heap and (heap[0][2].is_cancelled or heap[0][0] <= time.monotonic()):
                alarm = heapq.heappop(heap)[2]
                self._alarms.discard(alarm)
                alarm.ring()
            if not self._alarms and self._news.empty():
                return
            left = heap[0][0] - time.monotonic() if heap else HEARING
            with contextlib.suppress(queue.Empty):
                # Only as many messages as are queued now: later ones must not delay due alarms.
                for number in range(1 + self._news.qsize()):
                    entry = self._news.get(timeout=0 if number else max(left, 0))
                    if entry is not None:
                        heapq.heappush(heap, entry)


timer = Timer()
"""The timer that the whole process shares."""
