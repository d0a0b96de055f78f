"""The identity of the current process, which changes in a forked child."""

from __future__ import annotations

import os


class Process:
    """Identifies a process. A forked child gets a new instance."""


_process = Process()


def this_process() -> Process:
    """Return the object that identifies this process. A forked child gets another one.

    ``os.getpid()`` would be a system call, and every download calls this several times.
    """
    return _process


def _begin() -> None:
    global _process  # noqa: PLW0603 - a fork replaces it
    _process = Process()


os.register_at_fork(after_in_child=_begin)
