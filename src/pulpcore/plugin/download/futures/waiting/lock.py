"""Which process this is: a forked child is another one."""

from __future__ import annotations

import os


class Process:
    """This process, as against a child that was forked from it."""


_process = Process()


def this_process() -> Process:
    """Return what stands for this process; it is another one in a forked child.

    To ask the system for the number costs a system call, and this is asked for each download.
    """
    return _process


def _begin() -> None:
    global _process  # noqa: PLW0603 - it is what a fork changes
    _process = Process()


os.register_at_fork(after_in_child=_begin)
