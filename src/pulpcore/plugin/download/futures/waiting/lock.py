"""What a fork leaves behind: which process this is, and a lock that survives it."""

from __future__ import annotations

import os
import threading


class Process:
    """This process, as against a child that was forked from it."""


_process = Process()


def this_process() -> Process:
    """Return what stands for this process; it is another one in a forked child.

    Asking the system for the number costs as much as a lock does, and each lock asks.
    """
    return _process


def _begin() -> None:
    global _process  # noqa: PLW0603 - it is what a fork changes
    _process = Process()


os.register_at_fork(after_in_child=_begin)


class ForkSafeLock:
    """A re-entrant lock for ``with``, which a forked child finds free.

    A plain one may be held for ever there, by a thread that the child doesn't have.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        """Make a lock that nobody holds."""
        # By process. One step of a dict decides which of two threads makes it in a child.
        self._locks = {_process: threading.RLock()}

    def __enter__(self) -> None:
        lock = self._locks.get(_process)
        if lock is None:
            lock = self._locks.setdefault(_process, threading.RLock())
        lock.acquire()

    def __exit__(self, *unused: object) -> None:
        self._locks[_process].release()
