"""The identity of the current process, which changes in a forked child."""

from __future__ import annotations

import os
from typing import ClassVar


class Process:
    """Identifies a process.

    Attributes:
        current (Process): The object of this process. A forked child gets another one.
            ``os.getpid()`` would be a system call, and every download asks several times.
    """

    current: ClassVar[Process]


Process.current = Process()


def _begin() -> None:
    Process.current = Process()


os.register_at_fork(after_in_child=_begin)
