"""Detection of threads and file descriptors that a test has leaked."""

import gc
import os
import sys
import threading
import time
import traceback
from collections.abc import Collection

from .listener import THREADS


def threads_left(before: Collection[threading.Thread], seconds: float = 20.0) -> list[str]:
    """The threads started since that are alive after the time, each with where it is.

    The servers' own are left out: closing a server waits for them.
    """
    end = time.monotonic() + seconds
    left = []
    for thread in threading.enumerate():
        if thread in before or thread.name.startswith(THREADS):
            continue
        while not thread.is_alive() and thread in threading.enumerate():
            # The thread is just being started and can't be joined yet.
            time.sleep(0.001)
        thread.join(max(0.0, end - time.monotonic()))
        frame = sys._current_frames().get(thread.ident or 0)
        if thread.is_alive() and frame is not None:
            left.append(f"{thread.name}\n{''.join(traceback.format_stack(frame))}")
    return left


def open_files() -> dict[int, str]:
    """Return the open file descriptors with their targets; {} without /proc."""
    gc.collect()
    found = {}
    try:
        numbers = os.listdir("/proc/self/fd")
    except FileNotFoundError:
        return {}
    for number in map(int, numbers):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the descriptor of listdir itself
            continue
    return found
