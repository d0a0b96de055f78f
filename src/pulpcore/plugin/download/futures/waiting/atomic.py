"""Shared state without locks, for the main thread too, where signals come.

A signal handler runs between any two bytecodes of the main thread. If it raises just after the main
thread has got a lock, the lock stays held; if it waits for a thread that wants the lock, both wait
for ever. So what the main thread shares with other threads is changed by single steps of C, such as
``deque.append()`` and ``dict.setdefault()``, between whose parts no handler runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

HEARING = 1.0
"""Seconds that a thread sleeps at a time.

A signal that comes just before the main thread goes to sleep is only heard when it wakes.
"""


class Waiter:
    """What one thread waits for, once, and any other thread or a signal handler brings about.

    It does what threading.Event does. But an Event has a lock, which a KeyboardInterrupt in the
    main thread may leave held.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wake(self) -> None:
        """Let the thread that waits go on."""
        try:  # noqa: SIM105 - it is called for each download
            self._lock.release()
        except RuntimeError:
            # It was woken before.
            pass

    def wait(self, seconds: float) -> bool:
        """Wait until :meth:`wake` is called; only the thread that made the waiter may.

        Args:
            seconds: How long at most.

        Returns:
            Whether it was woken.
        """
        if seconds <= HEARING:
            return self._lock.acquire(timeout=max(seconds, 0))
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > HEARING:
            if self._lock.acquire(timeout=HEARING):
                return True
        return self._lock.acquire(timeout=max(left, 0))


class Cell(Generic[T]):
    """A value that many threads, and signal handlers, change without a lock.

    The versions of the value are a chain: each is a pair of the value and a dict, into which
    ``setdefault()`` puts the next version. Of several threads that change the value at once, one
    succeeds; the others begin again with the value that it has put there.
    """

    __slots__ = ("_version",)

    def __init__(self, value: T) -> None:
        # A recent version, maybe not the last one: a thread may put an older one here at any time.
        self._version: tuple[T, dict[str, object]] = (value, {})

    @property
    def value(self) -> T:
        """The value."""
        version = self._version
        while "next" in version[1]:
            version = version[1]["next"]  # type: ignore[assignment]
        return version[0]

    def change(self, function: Callable[[T], T]) -> T:
        """Replace the value by one that is computed from it.

        Args:
            function: Computes the new value. It may be called several times.

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
