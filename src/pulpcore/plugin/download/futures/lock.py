"""A lock that survives a fork."""

from __future__ import annotations

import os
import threading


class ForkSafeLock:
    """A re-entrant lock for ``with``, which a forked child finds free.

    A plain one may be held for ever there, by a thread that the child doesn't have.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        """Make a lock that nobody holds."""
        # By process. One step of a dict decides which of two threads makes it in a child.
        self._locks = {os.getpid(): threading.RLock()}

    def __enter__(self) -> None:
        lock = self._locks.get(os.getpid())
        if lock is None:
            lock = self._locks.setdefault(os.getpid(), threading.RLock())
        lock.acquire()

    def __exit__(self, *unused: object) -> None:
        self._locks[os.getpid()].release()
