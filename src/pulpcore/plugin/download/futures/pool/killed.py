"""Makes a ProcessPoolExecutor end after one of its processes was killed.

It can wait for ever then: for a process that it has forgotten, for one that waits for the lock of
the killed one, for one that reads from its queue, or for the rest of a result that the killed one
was writing. The functions here end these waits.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_any
from multiprocessing.process import BaseProcess
from typing import Any

from ..waiting.threads import start

_LOOK = 0.05
"""How often :func:`release` and :func:`end` look at a pool (seconds)."""

_PADDING = bytes(select.PIPE_BUF)
"""Bytes that replace the rest of a result. They aren't a valid pickle.

A pipe that is ready takes so many bytes without blocking.
"""


def submit(executor: Executor, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Have an executor run a function.

    A pool that breaks while ``submit()`` runs may forget the new future, and wait for a process
    that ``submit()`` has started. So this looks again, and kills the processes.

    Args:
        executor: The executor, which need not be a ProcessPoolExecutor.
        function: The function.
        arguments: Its arguments.

    Raises:
        BrokenExecutor: The executor broke meanwhile.
        Exception: The executor takes no more work.
    """
    future = executor.submit(function, *arguments)
    if isinstance(executor, ProcessPoolExecutor) and getattr(executor, "_broken", False):
        _kill(_processes(executor))
        raise BrokenProcessPool("a worker process died when the executor got more work")
    return future


def release(executor: Executor) -> None:
    """Let a broken pool end although its queue is full.

    Before Python 3.11.5 a thread of the pool waits for a process to read from the queue
    (https://github.com/python/cpython/issues/94777).

    Args:
        executor: The executor, which need not be a ProcessPoolExecutor.
    """
    queue = getattr(executor, "_call_queue", None)
    reader, writer = getattr(queue, "_reader", None), getattr(queue, "_writer", None)
    manager: Any = getattr(executor, "_executor_manager_thread", None)
    # One is None before the first submit() and after shutdown().
    if isinstance(executor, ProcessPoolExecutor) and None not in (reader, writer, manager):
        function = functools.partial(_close_when_full, reader, writer, manager)
        start(function, "download-processes")


def _close_when_full(reader: Any, writer: Any, manager: threading.Thread) -> None:
    # OSError and ValueError: the pool has closed its queue.
    with contextlib.suppress(OSError, ValueError):
        while manager.is_alive():
            if not _is_ready(writer):
                # The thread that writes gets an error.
                reader.close()
                return
            time.sleep(_LOOK)


def _is_ready(writer: Any) -> bool:
    """Whether a pipe takes bytes without blocking."""
    # Unlike select(), poll() takes descriptors above 1023.
    poll = select.poll()
    poll.register(writer, select.POLLOUT)
    return bool(poll.poll(0))


def unnoticed(executor: Executor) -> set[BaseProcess]:
    """Return the processes of a pool that have ended, and that the pool still counts.

    Usually there are none: a pool notices at once that a process has ended.

    Args:
        executor: The executor, which need not have processes.
    """
    manager = getattr(executor, "_executor_manager_thread", None)
    if manager is None or not manager.is_alive():
        return set()
    # ValueError: the pool has closed one meanwhile.
    with contextlib.suppress(OSError, ValueError):
        processes = {process.sentinel: process for process in _processes(executor)}
        return {processes[sentinel] for sentinel in wait_for_any(list(processes), 0)}  # type: ignore[index]
    return set()


def end(executor: Executor) -> None:
    """Let a pool end that waits for the rest of a result, whose writer was killed.

    The pool's other processes are killed. All have the other end of the pipe, and so has this one,
    so the pool never reads an end of file.

    Args:
        executor: A ProcessPoolExecutor, or loky's.
    """
    _kill(_processes(executor))
    start(functools.partial(_pad, *_results(executor)), "download-processes")


def _results(executor: Executor) -> tuple[Any, Any]:
    """Return the pipe for a pool's results, and the thread that reads them, or None."""
    writer = getattr(getattr(executor, "_result_queue", None), "_writer", None)
    return writer, getattr(executor, "_executor_manager_thread", None)


def _pad(writer: Any, manager: threading.Thread | None) -> None:
    # They are None before the first submit() and after shutdown().
    if writer is None or manager is None:
        return
    # OSError and ValueError: the pool has closed its queue.
    with contextlib.suppress(OSError, ValueError):
        while manager.is_alive():
            if _is_ready(writer):
                os.write(writer.fileno(), _PADDING)
            else:
                time.sleep(_LOOK)


def shut_down(pool: ProcessPoolExecutor, wait: bool, cancel_futures: bool = False) -> None:
    """Shut a pool down, which may be broken.

    A process that is killed meanwhile may hold the lock of the pool's queue. The others wait for
    that lock, and the pool for them. Or the pool waits for the rest of its result. So the others
    are killed, and the pool gets something else instead of the rest.

    Args:
        pool: The pool.
        wait: Wait until the processes have ended.
        cancel_futures: Cancel what has not begun.
    """
    release(pool)
    watch = functools.partial(_kill_with_the_first, _processes(pool), *_results(pool))
    start(watch, "download-processes")
    pool.shutdown(wait, cancel_futures=cancel_futures)


def _processes(pool: Executor) -> list[BaseProcess]:
    return list(dict(getattr(pool, "_processes", None) or {}).values())


def _kill(processes: Iterable[BaseProcess]) -> None:
    for process in processes:
        try:
            process.kill()
        except AttributeError:
            # Those of loky have no kill().
            process.terminate()


def _kill_with_the_first(
    processes: list[BaseProcess], writer: Any, manager: threading.Thread | None
) -> None:
    while processes:
        wait_for_any([process.sentinel for process in processes])
        ended = [process for process in processes if process.exitcode is not None]
        processes = [process for process in processes if process not in ended]
        if any(process.exitcode for process in ended):
            _kill(processes)
            _pad(writer, manager)
