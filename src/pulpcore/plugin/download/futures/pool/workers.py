"""A pool of threads for many short pieces of work."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ..waiting.lock import ForkSafeLock

_IDLE = 0.05
"""Seconds that a thread waits for more before it goes back to the executor."""


class Workers:
    """Runs functions by threads of an executor, in the order given.

    A thread takes one function after the other, which costs much less than a future for each. When
    there is nothing to do it goes back to the executor, which ends it with the interpreter, or when
    nobody holds the pool any more.
    """

    def __init__(self, most: int, name: str) -> None:
        """Make a pool without threads.

        Args:
            most: How many threads there may be.
            name: What their names begin with.
        """
        self._most = most
        self._pool = ThreadPoolExecutor(most, name)
        self._work = _Work()

    def run(self, function: Callable[[], object]) -> None:
        """Have a function run.

        Args:
            function: The function. It must not raise.

        Raises:
            RuntimeError: There is no thread to be had, or the pool was stopped.
        """
        if not self._work.put(function, self._most):
            return
        try:
            self._pool.submit(self._work.run)
        except RuntimeError:
            # Where the system gives no more threads, those that there are will do.
            if not self._work.take_back():
                raise

    def stop(self, wait: bool = True) -> None:
        """Let the threads end when all that was given is done.

        Args:
            wait: Wait until they have.
        """
        self._work.stop()
        self._pool.shutdown(wait)


class _Work:
    """What there is to do, and how many are at it. It doesn't know the pool, which may go first.

    No queue with a time limit: in CPython 3.11 ``SimpleQueue.get(timeout)`` may wait for ever where
    several threads call it, when another takes the item for which it was woken.
    """

    def __init__(self) -> None:
        # Guards all that follows.
        self._lock = ForkSafeLock()
        self._functions: deque[Callable[[], object]] = deque()
        self._busy = 0
        self._idle: list[threading.Lock] = []
        self._is_stopped = False

    def put(self, function: Callable[[], object], most: int) -> bool:
        """Take a function; tell whether one more thread is to come for it."""
        with self._lock:
            if self._is_stopped:
                raise RuntimeError("the pool of threads was stopped")
            self._functions.append(function)
            if self._idle:
                self._idle.pop().release()
                return False
            is_wanted = self._busy < most
            self._busy += is_wanted
            return is_wanted

    def take_back(self) -> bool:
        """Count the thread that didn't come; tell whether others will do the work."""
        with self._lock:
            self._busy -= 1
            if self._busy > 0 or not self._functions:
                return True
            self._functions.pop()
            return False

    def stop(self) -> None:
        with self._lock:
            self._is_stopped = True
            while self._idle:
                self._idle.pop().release()

    def run(self) -> None:
        while (function := self._next()) is not None:
            function()
            # Or it is kept alive until there is another.
            del function

    def _next(self) -> Callable[[], object] | None:
        """Return the next function; None if the thread is to leave, and isn't counted any more."""
        while True:
            with self._lock:
                if self._functions:
                    return self._functions.popleft()
                if self._is_stopped:
                    self._busy -= 1
                    return None
                wake = threading.Lock()
                wake.acquire()
                self._idle.append(wake)
            if not wake.acquire(timeout=_IDLE):
                with self._lock:
                    # Else it was woken, late.
                    if wake in self._idle:
                        self._idle.remove(wake)
                        self._busy -= 1
                        return None
