"""One thread that calls back when a time has come, for limits that hold whatever is waited for."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable

_SPARE = 64
"""Cancelled alarms that are kept before it is worth looking for them."""


class Alarm:
    """Something to be called at a time, unless it is cancelled before."""

    def __init__(self, function: Callable[[], None]) -> None:
        """Make an alarm.

        Args:
            function: What to call. It must not block, for other alarms wait.
        """
        self._function: Callable[[], None] | None = function

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
    """Calls alarms when their time has come, in a thread that lives as long as there are any."""

    def __init__(self) -> None:
        """Make a timer without a thread."""
        self._begin()
        self._knows_forks = False

    def _begin(self) -> None:
        # Guards the other attributes, and wakes the thread when they change.
        self._changed = threading.Condition()
        self._alarms: list[tuple[float, int, Alarm]] = []
        self._thread: threading.Thread | None = None
        self._cancelled = 0
        self._numbers = itertools.count()

    def set(self, seconds: float, function: Callable[[], None]) -> Alarm:
        """Have a function called after a time.

        Args:
            seconds: How long from now.
            function: What to call. It must not block.

        Returns:
            The alarm, which can be cancelled. It should be, since the thread lives until then.
        """
        if not self._knows_forks:
            self._knows_forks = True
            # A forked child has no thread, and maybe a lock that is held for ever. This is called
            # while it is alone: two threads of it must not both begin.
            os.register_at_fork(after_in_child=self._begin)
        alarm = Alarm(function)
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="download-timer", daemon=True)
                # First, for there may be no thread to be had. It waits for the lock.
                thread.start()
                self._thread = thread
            heapq.heappush(self._alarms, (time.monotonic() + seconds, next(self._numbers), alarm))
            self._changed.notify()
        return alarm

    def cancel(self, alarm: Alarm) -> None:
        """Never ring an alarm; the thread ends if it was the last.

        Args:
            alarm: The alarm.
        """
        alarm.cancel()
        with self._changed:
            self._cancelled += 1
            if self._cancelled > max(_SPARE, len(self._alarms) // 2):
                self._alarms = [entry for entry in self._alarms if not entry[2].is_cancelled]
                heapq.heapify(self._alarms)
                self._cancelled = 0
            self._changed.notify()

    def _run(self) -> None:
        while (alarm := self._next()) is not None:
            alarm.ring()

    def _next(self) -> Alarm | None:
        """Wait for the next alarm; None when there is none left."""
        with self._changed:
            while self._alarms:
                when, _, alarm = self._alarms[0]
                left = when - time.monotonic()
                if alarm.is_cancelled or left <= 0:
                    heapq.heappop(self._alarms)
                    if not alarm.is_cancelled:
                        return alarm
                else:
                    self._changed.wait(left)
            self._thread = None
            return None


timer = Timer()
"""The timer of this process."""
