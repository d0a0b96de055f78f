"""What differs between the executors on which a batch can run.

``Threads`` takes any object with ``submit()`` that runs functions in threads of this process.
Executors with workers in other processes have one of the classes below.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import time
from collections.abc import Callable
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from multiprocessing import get_context
from typing import Any

from .. import redact
from ..waiting.threads import Start, start
from . import killed

DEFAULT_WORKERS = 4
"""The number of workers where the executor doesn't tell."""

_COUNTED = 5.0
"""How often an executor that can grow is asked for its number of workers (seconds)."""

_TRIES = 5
"""How many pools may break while they get a function, because their workers are killed."""

SHUT_DOWN = "the executor was shut down"


def has_threads(executor: Executor) -> bool:
    """Return whether an executor runs functions in threads of this process.

    Args:
        executor: The executor of the caller.

    Raises:
        TypeError: It is no executor.
        ValueError: It is one that a batch can't use.
    """
    if not isinstance(executor, Executor):
        raise TypeError(
            "executor: must be a concurrent.futures.Executor or None, not "
            f"{type(executor).__name__}"
        )
    # By its name: it exists from Python 3.14 on, and is a subclass of ThreadPoolExecutor.
    if any(kind.__name__ == "InterpreterPoolExecutor" for kind in type(executor).__mro__):
        raise ValueError(
            "executor: an InterpreterPoolExecutor isn't supported; use a ThreadPoolExecutor or a "
            "ProcessPoolExecutor"
        )
    return isinstance(executor, ThreadPoolExecutor)


def lend(executor: Executor, refuse: Callable[[str], object]) -> Start:
    """Return a function that has an executor's threads run functions.

    Args:
        executor: The executor, which runs functions in threads.
        refuse: Called with the reason when the executor takes no more functions.
    """

    def submit(function: Callable[[], object]) -> None:
        try:
            executor.submit(function)
        except RuntimeError:
            refuse(SHUT_DOWN)
            # The batch is cancelled now. The function ends the plans that wait.
            function()

    # The main thread must not call submit(), which takes locks: see ``waiting.atomic``.
    return lambda function, name: start(functools.partial(submit, function), name)


class Processes:
    """An executor with worker processes, such as a ProcessPoolExecutor, loky's or MPI's.

    When one worker dies the whole executor is broken.

    Attributes:
        ends_all (bool): A worker that dies ends all chunks, also those that no worker has begun,
            and the executor goes on after that.
        is_local (bool): The workers are children of this process, so they see its files.
    """

    ends_all = False

    def __init__(self, executor: Executor) -> None:
        """Wrap an executor.

        Args:
            executor: The executor.
        """
        self._executor = executor
        # Undocumented, see ``net.dependencies``. Only Python's executor and loky's have it.
        self.is_local = hasattr(executor, "_processes")
        self._unnoticed: set[Any] = set()

    def workers(self) -> int:
        """Return the number of chunks that the workers can run at the same time."""
        # Undocumented, see ``net.dependencies``. Python's executor, loky's and mpi4py's have it.
        number = getattr(self._executor, "_max_workers", None)
        return number if isinstance(number, int) and number > 0 else DEFAULT_WORKERS

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a worker run a function.

        Args:
            function: The function.
            arguments: Its arguments.

        Raises:
            Exception: The executor takes no more work.
        """
        return killed.submit(self._executor, function, *arguments)

    def look(self) -> None:
        """End the executor if it waits for a worker that was killed. Call this once a second."""
        self._end_stuck(self._executor)

    def _end_stuck(self, executor: Executor) -> None:
        unnoticed = killed.unnoticed(executor)
        # One look may come just before the executor has noticed by itself.
        if unnoticed & self._unnoticed:
            killed.end(executor)
        self._unnoticed = unnoticed

    def is_broken(self, error: BaseException) -> bool:
        """Return whether the executor can't run any more chunks.

        Args:
            error: What the future of a chunk raised.
        """
        if isinstance(error, BrokenExecutor):
            killed.release(self._executor)
        # Nobody but the batch and the executor itself can cancel the futures.
        return isinstance(error, BrokenExecutor | CancelledError)


class Cluster(Processes):
    """Dask's executor, which goes on with the other workers when one has died."""

    def __init__(self, executor: Executor, client: Any) -> None:
        """Wrap an executor.

        Args:
            executor: What ``client.get_executor()`` returned.
            client: The client.
        """
        super().__init__(executor)
        self._client = client
        self._number = DEFAULT_WORKERS
        self._counted = float("-inf")

    def workers(self) -> int:
        """Return the number of threads of all workers that are there now."""
        if time.monotonic() - self._counted > _COUNTED:
            with contextlib.suppress(Exception):
                self._number = sum(self._client.nthreads().values()) or 1
            self._counted = time.monotonic()
        return self._number


def processes(executor: Executor) -> Processes:
    """Wrap an executor with workers in other processes, for a batch.

    Args:
        executor: The executor.
    """
    if isinstance(executor, Renewed):
        return executor
    client = getattr(executor, "_client", None)
    if callable(getattr(client, "nthreads", None)):
        return Cluster(executor, client)
    return Processes(executor)


def broken(error: BaseException) -> str:
    """Return the reason why plans fail after an executor was broken.

    Args:
        error: What the executor raised.
    """
    if isinstance(error, BrokenExecutor):
        return f"a worker process died, which broke the executor ({type(error).__name__})"
    if isinstance(error, CancelledError) or "shutdown" in str(error):
        return SHUT_DOWN
    return f"the executor failed: {redact.text(f'{type(error).__name__}: {error}')}"


class Renewed(Processes, Executor):
    """A pool of worker processes that is made anew when a worker has died.

    For a program, which has no executor of its own. Give it to a batch, and shut it down after.
    """

    ends_all = True

    def __init__(self, number: int) -> None:
        """Create a pool; the first chunk starts its processes.

        Args:
            number: The number of worker processes.
        """
        super().__init__(self)
        self.is_local = True
        self._number = number
        self._pool: ProcessPoolExecutor | None = None

    def workers(self) -> int:
        """Return the number of processes."""
        return self._number

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:  # type: ignore[override]
        """Have a worker run a function. If the pool is broken, make another one.

        Args:
            function: The function.
            arguments: Its arguments.

        Raises:
            BrokenExecutor: Several pools broke while they got the function.
            OSError: A process can't be started.
            EOFError: The same.
            RuntimeError: The pool was shut down.
        """
        tries = _TRIES
        while True:
            # "forkserver": forking this process, which has threads, could deadlock.
            self._pool = self._pool or ProcessPoolExecutor(
                self._number, mp_context=get_context("forkserver"), initializer=_ignore_interrupts
            )
            try:
                return killed.submit(self._pool, function, *arguments)
            except (BrokenExecutor, OSError, EOFError):
                # The last two: the fork server was killed while it started a process.
                killed.shut_down(self._pool, wait=False, cancel_futures=True)
                self._pool, tries = None, tries - 1
                if not tries:
                    raise

    def look(self) -> None:
        """End the pool if it waits for a process that was killed."""
        if self._pool is not None:
            self._end_stuck(self._pool)

    def is_broken(self, error: BaseException) -> bool:
        """Return False: there will be another pool.

        Args:
            error: What the future of a chunk raised.
        """
        return False

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes.

        Args:
            wait: Wait until they have ended.
            cancel_futures: Cancel what has not begun.
        """
        if self._pool is not None:
            killed.shut_down(self._pool, wait, cancel_futures)


def _ignore_interrupts() -> None:
    # A terminal sends Ctrl-C to all processes. The program alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
