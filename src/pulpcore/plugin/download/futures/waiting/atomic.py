"""Shared state without locks, safe for the main thread while signal handlers run in it.

Python runs a signal handler between any two bytecodes of the main thread. If the handler raises
just after the main thread has acquired a lock, nobody releases the lock. If the handler waits for a
thread that needs a lock that the main thread holds, the process deadlocks. So threads share state
with the main thread only by operations that are one step of C, such as ``deque.append()`` and
``dict.setdefault()``: no handler can run in the middle of one.

On a free-threaded build, other threads run in the middle of a call that iterates, such as
``tuple(a_set)`` or ``list(a_deque)``, and make it fail. ``copy()`` is one step there, too.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

HEARING = 1.0
"""The longest single sleep of a waiting thread (seconds).

A signal may arrive just before the main thread goes to sleep. Python runs its handler only when the
thread wakes, so this bounds the delay.
"""


class Waiter:
    """A one-shot event. One thread waits for it; any thread or signal handler sets it.

    It replaces threading.Event, which holds a lock inside: a KeyboardInterrupt in the main thread
    may leave that lock held.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wake(self) -> None:
        """Wake the thread that waits. Further calls have no effect."""
        try:  # noqa: SIM105 - contextlib.suppress is slower, and every download calls this
            self._lock.release()
        except RuntimeError:
            # The lock is free: an earlier call has released it.
            pass

    def wait(self, seconds: float) -> bool:
        """Wait until :meth:`wake` is called. Only the thread that created the waiter may call it.

        Args:
            seconds: The time-out (seconds).

        Returns:
            True if it was woken, False after the time-out.
        """
        if seconds <= HEARING:
            return self._lock.acquire(timeout=max(seconds, 0))
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > HEARING:
            if self._lock.acquire(timeout=HEARING):
                return True
        return self._lock.acquire(timeout=max(left, 0))


class Waiters(deque[Waiter]):
    """The waiters of several threads."""

    def wake(self) -> bool:
        """Wake the thread whose waiter was added last. Return False if there is none."""
        try:
            waiter = self.pop()
        except IndexError:
            return False
        waiter.wake()
        return True

    def wake_all(self) -> None:
        """Wake all threads."""
        while self.wake():
            pass

    def withdraw(self, waiter: Waiter) -> bool:
        """Remove a waiter. Return False if another thread has woken it.

        Args:
            waiter: The waiter.
        """
        try:
            self.remove(waiter)
        except ValueError:
            return False
        return True


class Cell(Generic[T]):
    """A value that threads and signal handlers replace without a lock.

    The versions of the value form a linked list. Each version is a pair of the value and a dict, in
    which ``setdefault()`` stores the next version. When several threads replace the value at once,
    one of them succeeds. The others compute their value again, from the new version.
    """

    __slots__ = ("_version",)

    def __init__(self, value: T) -> None:
        # A recent version, not always the last: a slower thread may store an older one here.
        self._version: tuple[T, dict[str, object]] = (value, {})

    @property
    def value(self) -> T:
        """The current value."""
        version = self._version
        while "next" in version[1]:
            version = version[1]["next"]  # type: ignore[assignment]
        return version[0]

    def change(self, function: Callable[[T], T]) -> T:
        """Replace the value by one that is computed from it.

        Args:
            function: Computes the new value from the current one. It must have no side effects,
                because it may be called several times.

        Returns:
            The new value.
        """
        version = self._version
        while True:
            while "next" in version[1]:
                version = version[1]["next"]  # type: ignore[assignment]
            mine: tuple[T, dict[str, object]] = (function(version[0]), {})
            if version[1].setdefault("next", mine) is mine:
                self._version = mine
                return mine[0]
