"""One thread that calls back when a time has come, for limits that hold whatever is waited for."""

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
"""Cancelled alarms that are kept before it is worth dropping them."""


class Alarm:
    """Something to be called at a time, unless it is cancelled before."""

    def __init__(self, function: Callable[[], object]) -> None:
        """Make an alarm.

        Args:
            function: What to call. It must not block, for other alarms wait.
        """
        self._function: Callable[[], object] | None = function

    def cancel(self) -> None:
        """Never call it."""
        self._function = None

    def ring(self) -> None:
        """Call it now."""
        function = self._function
        if function is not None:
            function()

    @property
    def is_cancelled(self) -> bool:
        """Whether it will never be called."""
        return self._function is None


class Timer:
    """Calls alarms when their time has come, in a thread that lives as long as there are any.

    No method takes a lock, so that a signal handler may set and cancel alarms.
    """

    def __init__(self) -> None:
        """Make a timer without a thread."""
        self._begin()
        self._knows_forks = False

    def _begin(self) -> None:
        # What the thread hears of: an alarm that was set, or None when it is to look at them all.
        self._news: queue.SimpleQueue[tuple[float, int, Alarm] | None] = queue.SimpleQueue()
        # The alarms that were set, and neither cancelled nor rung.
        self._alarms: set[Alarm] = set()
        self._numbers = itertools.count()
        # Held by the thread. Only such threads take it, and they get no signals.
        self._running = threading.Lock()
        # Set when the thread that was started last has ended.
        self._ended: threading.Event | None = None

    def set(self, seconds: float, function: Callable[[], object]) -> Alarm:
        """Have a function called after a time.

        Args:
            seconds: How long from now.
            function: What to call. It must not block.

        Returns:
            The alarm, which can be cancelled. It should be, since the thread lives until then.

        Raises:
            RuntimeError: There is no thread to be had.
        """
        if not self._knows_forks:
            # In a forked child the thread is the parent's, and so are the alarms. The child begins
            # anew while it is alone: two threads of it must not both do so.
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
        """Never ring an alarm; the thread ends if it was the last.

        Args:
            alarm: The alarm.
        """
        alarm.cancel()
        if alarm in self._alarms:
            self._alarms.discard(alarm)
            if not self._alarms:
                self._news.put(None)

    def _run(self, ended: threading.Event) -> None:
        # An interrupt may have two threads started, of which one does nothing. The thread looks for
        # news again after it has said that it ends: whoever saw it before has started none.
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
                # No more than there are now, for the alarms whose time has come are to ring.
                for number in range(1 + self._news.qsize()):
                    entry = self._news.get(timeout=0 if number else max(left, 0))
                    if entry is not None:
                        heapq.heappush(heap, entry)


timer = Timer()
"""The timer of this process."""
