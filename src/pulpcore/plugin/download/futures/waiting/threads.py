"""A pool of threads for many short pieces of work, which signals can't bring out of step."""

from __future__ import annotations

import _thread
import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable

from .atomic import HEARING, Waiter
from .lock import this_process

_IDLE = 0.05
"""Seconds that a thread waits for more work before it ends."""


# The threads that began last. Whoever frees a Thread runs a callback of the threading module, in
# which an interrupt would be lost: so a thread that gets none frees them, when it begins.
_begun: deque[threading.Thread] = deque(maxlen=256)


def start(function: Callable[[], object], name: str) -> None:
    """Run a function in a daemon thread.

    ``Thread.start()`` waits for the thread, with a lock that an interrupt may leave held. So it is
    called by another thread, which ``_thread`` starts in one step.

    Args:
        function: The function. It must not raise.
        name: The name of the thread.

    Raises:
        RuntimeError: The system gives no more threads.
    """
    _thread.start_new_thread(_start, (function, name))


def _start(function: Callable[[], object], name: str) -> None:
    try:
        threading.Thread(target=function, name=name, daemon=True).start()
    except RuntimeError:
        # This thread was the last that the system gave.
        function()


class _Worker:
    """One thread of a pool.

    Attributes:
        is_asked (bool): The system was asked for the thread.
        is_begun (bool): The thread runs, or has run.
        thread (threading.Thread | None): The thread, once it runs; None for one that the threading
            module doesn't know.
    """

    def __init__(self) -> None:
        self.is_asked = self.is_begun = False
        self.thread: threading.Thread | None = None


class Workers:
    """Runs functions by daemon threads, in the order given.

    A thread takes one function after the other, which costs much less than a future for each. A
    thread that finds nothing to do for a moment ends; so does the pool that nobody holds any more.

    Any thread may call :meth:`run` and :meth:`join`, and a signal handler too. They take no lock: a
    call that an interrupt cuts short leaves at worst a function that waits until the next call.
    """

    def __init__(self, most: int, name: str) -> None:
        """Make a pool without threads.

        Args:
            most: How many threads there may be.
            name: What their names begin with.
        """
        self._most = most
        self._name = name
        self._numbers = itertools.count()
        self._is_stopped = False
        self._begin()

    def _begin(self) -> None:
        self._process = this_process()
        self._functions: deque[Callable[[], object]] = deque()
        # The threads that wait for a function.
        self._idle: deque[Waiter] = deque()
        # Threads that were asked for, or run, and the last one that was asked for.
        self._workers: deque[_Worker] = deque()
        self._latest: _Worker | None = None
        # Who waits for the threads to end.
        self._joining: deque[Waiter] = deque()
        # Guards how many threads run. Only they take it, and they get no signals.
        self._lock = threading.Lock()
        self._running = 0

    def run(self, function: Callable[[], object]) -> None:
        """Have a function run.

        Args:
            function: The function. It must not raise.

        Raises:
            RuntimeError: There is no thread to be had.
        """
        if self._process is not this_process():
            # The threads are the parent's, and so is what they were given.
            self._begin()
        self._functions.append(function)
        try:
            self._call()
        except RuntimeError:
            # If there are threads already, they will do.
            if not self._workers:
                with contextlib.suppress(ValueError):
                    self._functions.remove(function)
                raise

    def stop(self) -> None:
        """Let the threads end as soon as all that was given is done."""
        self._is_stopped = True
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().wake()

    def join(self, seconds: float = float("inf")) -> None:
        """Wait until the threads have ended, after :meth:`stop`.

        Args:
            seconds: How long at most.
        """
        if self._process is not this_process():
            return
        workers = list(self._workers)
        end = time.monotonic() + seconds
        while self._workers and (left := end - time.monotonic()) > 0:
            if self._latest is not None and not self._latest.is_asked:
                with contextlib.suppress(RuntimeError):
                    self._ask(self._latest)
            waiter = Waiter()
            self._joining.append(waiter)
            if self._workers:
                waiter.wait(min(left, HEARING))
        for worker in workers:
            if worker not in self._workers and worker.thread is not None:
                # It has nothing left to do but to end.
                worker.thread.join()

    def _call(self) -> None:
        """See to it that a thread takes what was given."""
        if self._idle:
            try:
                self._idle.pop().wake()
            except IndexError:
                pass
            else:
                return
        latest = self._latest
        if latest is not None and not latest.is_asked:
            # An interrupt came in between.
            self._ask(latest)
        elif len(self._workers) < self._most:
            self._latest = worker = _Worker()
            self._workers.append(worker)
            self._ask(worker)

    def _ask(self, worker: _Worker) -> None:
        try:
            start(lambda: self._work(worker), f"{self._name}_{next(self._numbers)}")
        except RuntimeError:
            worker.is_asked = True
            self._leave(worker)
            raise
        worker.is_asked = True

    def _work(self, worker: _Worker) -> None:
        """Run functions as long as there are any."""
        with self._lock:
            # Two threads are started for one worker where an interrupt hides that the first was.
            is_twice, is_needless = worker.is_begun, self._running >= self._most
            if not is_twice and not is_needless:
                worker.is_begun = True
                thread = threading.current_thread()
                if thread.name.startswith(self._name):
                    worker.thread = thread
                    _begun.append(thread)
                self._running += 1
        if is_twice:
            return
        if not is_needless:
            while (function := self._next()) is not None:
                function()
                # Or it is kept alive until there is another.
                del function
            with self._lock:
                self._running -= 1
        self._leave(worker)
        if self._functions:
            # They were given while this thread still counted as one that would take them.
            with contextlib.suppress(RuntimeError):
                self._call()

    def _next(self) -> Callable[[], object] | None:
        """Return the next function; None if there is none."""
        while True:
            try:
                return self._functions.popleft()
            except IndexError:
                pass
            if self._is_stopped:
                return None
            waiter = Waiter()
            self._idle.append(waiter)
            # Look again, for what came before this thread could be woken.
            if self._functions or self._is_stopped or not waiter.wait(_IDLE):
                try:
                    self._idle.remove(waiter)
                except ValueError:
                    # It was woken after all.
                    continue
                if not self._functions:
                    return None

    def _leave(self, worker: _Worker) -> None:
        with contextlib.suppress(ValueError):
            self._workers.remove(worker)
        if not self._workers:
            with contextlib.suppress(IndexError):
                while True:
                    self._joining.pop().wake()
