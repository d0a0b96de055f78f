"""A thread pool for many short functions whose state stays consistent when a signal interrupts."""

from __future__ import annotations

import _thread
import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from .atomic import HEARING, Waiter, Waiters
from .lock import Process

_IDLE = 0.05
"""How long an idle thread waits for work before it ends (seconds)."""

_STUCK = 0.02
"""How long a function may take while other threads leave the queue to its thread (seconds)."""


# Keeps references to the threads that started last. Freeing a Thread runs a callback of the
# threading module, and Python swallows an exception in it. If the main thread freed one, a
# KeyboardInterrupt could get lost there. So the worker threads, which handle no signals, free each
# other when they append to this deque.
_begun: deque[threading.Thread] = deque(maxlen=256)


def start(function: Callable[[], object], name: str) -> None:
    """Run a function in a daemon thread.

    ``Thread.start()`` waits for the new thread with a lock that an interrupt may leave held. So a
    helper thread calls it, and ``_thread`` starts the helper in one atomic step.

    Args:
        function: The function. It must not raise.
        name: The name of the thread.

    Raises:
        RuntimeError: The system can't start another thread.
    """
    _thread.start_new_thread(_start, (function, name))


def _start(function: Callable[[], object], name: str) -> None:
    try:
        threading.Thread(target=function, name=name, daemon=True).start()
    except RuntimeError:
        # The helper was the last thread that the system allows, so it runs the function itself.
        function()


Start = Callable[[Callable[[], object], str], object]


class _Worker:
    """One thread of a pool.

    Attributes:
        is_asked (bool): ``start()`` has returned for it, or its thread has begun before that.
        is_begun (bool): The thread is running, or has ended.
        thread (threading.Thread | None): The thread, once it is running; None if the threading
            module has no object for it.
    """

    def __init__(self) -> None:
        self.is_asked = self.is_begun = False
        self.thread: threading.Thread | None = None


class Reserve(Protocol):
    """Functions that a thread runs when the queue is empty. Several threads ask at a time."""

    def __len__(self) -> int:
        """Return a number above 0 as long as there may be functions later."""

    def take(self) -> Callable[[], object] | None:
        """Remove and return a function; None if there is none now."""


class Workers:
    """Runs functions in daemon threads, in first-in, first-out order.

    A thread runs many functions in a row, which costs much less than a future for each. An idle
    thread ends after a moment, so an abandoned pool disappears by itself.

    Any thread and any signal handler may call :meth:`run` and :meth:`join`, which take no lock. If
    an interrupt cuts :meth:`run` short, the function may stay queued until the next call.

    Attributes:
        is_single (bool): One thread runs all functions, while the others sleep. When a function
            takes long, they wake up as by :meth:`use_all`. Only threads of the pool set this.
    """

    def __init__(
        self,
        most: int,
        name: str,
        lend: Start | None = None,
        reserve: Reserve | None = None,
    ) -> None:
        """Create a pool; :meth:`run` starts its threads.

        Args:
            most: The maximum number of threads.
            name: The prefix of their names.
            lend: Runs a function in a thread of the caller's, which may come late or never. It has
                the arguments of :func:`start`. None for daemon threads of the pool's own.
            reserve: What threads run when the queue is empty.
        """
        self._lend = lend
        self._most = most
        self._reserve = reserve
        self._name = name
        self._numbers = itertools.count()
        self._is_stopped = False
        self._begin()

    def _begin(self) -> None:
        self._process = Process.current
        self._functions: deque[Callable[[], object]] = deque()
        # One waiter for each idle thread.
        self._idle = Waiters()
        # The threads that are starting or running, and the one that was started last.
        self._workers: dict[_Worker, None] = {}
        self._latest: _Worker | None = None
        # One waiter for each caller of join().
        self._joining = Waiters()
        # Guards _running. Only worker threads take it, and they handle no signals.
        self._lock = threading.Lock()
        self._running = 0
        self.is_single = False

    def run(self, function: Callable[[], object]) -> None:
        """Queue a function for the threads.

        Args:
            function: The function. It must not raise.

        Raises:
            RuntimeError: The system can't start a thread, and the pool has none yet.
        """
        if self._process is not Process.current:
            # A forked child has neither the threads of its parent nor the parent's work.
            self._begin()
        self._functions.append(function)
        try:
            self._call()
        except RuntimeError:
            # The threads that exist will run it.
            if not self._workers:
                with contextlib.suppress(ValueError):
                    self._functions.remove(function)
                raise

    def use_all(self) -> None:
        """Have all threads run functions again. Only a thread of the pool may call this."""
        self.is_single = False
        # The calling thread runs them if no other can be started.
        with contextlib.suppress(RuntimeError):
            for _ in range(min(len(self._functions), self._most)):
                self._call(is_interruptible=False)

    @property
    def queued(self) -> int:
        """The number of functions in the queue."""
        return len(self._functions)

    def queue(self) -> deque[Callable[[], object]]:
        """Return a copy of the queue."""
        return self._functions.copy()

    def remove(self, function: Callable[[], object]) -> bool:
        """Remove a function from the queue. Return whether it was there, and no thread has it.

        Args:
            function: The function.
        """
        try:
            self._functions.remove(function)
        except ValueError:
            return False
        return True

    def run_next(self, function: Callable[[], object]) -> None:
        """Put a function first in the queue. Only a thread of the pool may call this.

        Args:
            function: The function. It must not raise.
        """
        self._functions.appendleft(function)
        # The calling thread runs it if no other can be started.
        with contextlib.suppress(RuntimeError):
            self._call(is_interruptible=False)

    def stop(self) -> None:
        """Make the threads end once the queue is empty.

        If the threads are lent and none has come yet, another thread empties the queue.
        """
        self._is_stopped = True
        if self._lend is not None and self._functions and not self._is_working():
            with contextlib.suppress(RuntimeError):
                start(self._drain, self._name)
        self._idle.wake_all()

    def join(self, seconds: float = float("inf")) -> None:
        """Wait until the threads have ended, after :meth:`stop`.

        Args:
            seconds: The time-out (seconds).
        """
        if self._process is not Process.current:
            return
        workers = self._workers.copy()
        end = time.monotonic() + seconds
        while self._is_working() and (left := end - time.monotonic()) > 0:
            if self._latest is not None and not self._latest.is_asked:
                with contextlib.suppress(RuntimeError):
                    self._ask(self._latest)
            waiter = Waiter()
            self._joining.append(waiter)
            if self._is_working():
                waiter.wait(min(left, HEARING))
        for worker in workers:
            if worker not in self._workers and worker.thread is not None:
                # The worker has left the pool, so this returns almost at once.
                worker.thread.join()

    def _is_working(self) -> bool:
        """Whether threads have to end. A lent one that comes later finds an empty queue."""
        if self._lend is None:
            return bool(self._workers)
        # Not any() of a generator: an interrupt while a generator is closed would get lost.
        return bool([worker for worker in self._workers.copy() if worker.is_begun])

    def _drain(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._functions.popleft()()

    def _call(self, *, is_interruptible: bool = True) -> None:
        """Wake an idle thread, or start another if the pool may have more.

        Args:
            is_interruptible: A signal handler may interrupt the calling thread.
        """
        latest = self._latest
        is_interrupted = latest is not None and not latest.is_asked
        is_watched = self._idle or len(self._workers) > self._running
        if self.is_single and is_watched and self._running > len(self._idle) and not is_interrupted:
            # The awake thread runs it. Another thread watches, or is about to.
            return
        if self._idle and self._idle.wake():
            return
        if latest is not None and is_interrupted:
            # An interrupt came between creating the worker and starting its thread.
            self._ask(latest)
        elif len(self._workers) < self._most:
            worker = _Worker()
            if is_interruptible:
                self._latest = worker
            self._workers[worker] = None
            self._ask(worker)

    def _ask(self, worker: _Worker) -> None:
        try:
            (self._lend or start)(lambda: self._work(worker), f"{self._name}_{next(self._numbers)}")
        except RuntimeError:
            worker.is_asked = True
            self._leave(worker)
            raise
        worker.is_asked = True

    def _work(self, worker: _Worker) -> None:
        """Run functions until the queue stays empty. This is the main function of each thread."""
        with self._lock:
            # After an interrupt _call() may start a second thread for a worker that has one.
            is_twice, is_needless = worker.is_begun, self._running >= self._most
            if not is_twice and not is_needless:
                worker.is_begun = worker.is_asked = True
                thread = threading.current_thread()
                if thread.name.startswith(self._name):
                    worker.thread = thread
                    _begun.append(thread)
                self._running += 1
        if is_twice:
            return
        try:
            while not is_needless and (function := self._next()) is not None:
                function()
                # Otherwise this frame would keep the function alive while the thread is idle.
                del function
        finally:
            # Also after a bug: the pool must not count a thread that has ended.
            if not is_needless:
                with self._lock:
                    self._running -= 1
            self._leave(worker)
        if self._functions or (self._reserve and not self._is_stopped):
            # They came while this thread still counted as one that would take them.
            with contextlib.suppress(RuntimeError):
                self._call(is_interruptible=False)

    def _next(self) -> Callable[[], object] | None:
        """Return the next function; None if the thread has been idle for too long, or must end."""
        while True:
            if self.is_single and (waiter := self._stand_by()) is not None:
                if self._watch(waiter):
                    continue
                return None
            try:
                return self._functions.popleft()
            except IndexError:
                pass
            reserve = self._reserve
            if reserve and (function := reserve.take()) is not None:
                return function
            if self._is_stopped:
                return None
            waiter = Waiter()
            self._idle.append(waiter)
            # Check again: run() may have queued a function before it could see the waiter.
            if self._functions or self._is_stopped or not waiter.wait(_IDLE):
                if not self._idle.withdraw(waiter):
                    # Another thread has just woken it, so there is work.
                    continue
                if not self._functions and (self._is_stopped or not reserve):
                    return None

    def _stand_by(self) -> Waiter | None:
        """Return what wakes this thread if it is to sleep, because another one is awake."""
        if self._is_stopped:
            return None
        with self._lock:
            if self._running - len(self._idle) > 1:
                waiter = Waiter()
                self._idle.append(waiter)
                # Check again: if the other one has become idle, this one has to run what run() has
                # queued.
                if self._running > len(self._idle) or not self._idle.withdraw(waiter):
                    return waiter
        if not self._idle and self._running == len(self._workers) < self._most:
            # Somebody must notice when a function takes long.
            worker = _Worker()
            self._workers[worker] = None
            with contextlib.suppress(RuntimeError):
                self._ask(worker)
        return None

    def _watch(self, waiter: Waiter) -> bool:
        """Sleep while another thread runs the functions, and notice when one takes long.

        Args:
            waiter: What wakes this thread. It is among the idle ones.

        Returns:
            Whether the thread goes on. If not, it must end: another one watches.
        """
        end = time.monotonic() + _IDLE
        first = _first(self._functions)
        while not waiter.wait(_STUCK):
            seen, first = first, _first(self._functions)
            is_stuck = first is seen and (first is not None or bool(self._reserve))
            # As long as a thread runs a function, somebody watches: more may be queued later.
            is_needed = len(self._idle) <= 1 < self._running
            is_idle = time.monotonic() >= end and not is_needed
            if self.is_single and not (is_stuck or is_idle or self._is_stopped):
                continue
            if not self._idle.withdraw(waiter):
                break
            if self.is_single and is_stuck:
                self.use_all()
            return is_stuck or not is_idle
        return True

    def _leave(self, worker: _Worker) -> None:
        self._workers.pop(worker, None)
        if not self._workers:
            self._joining.wake_all()


def _first(functions: deque[Callable[[], object]]) -> Callable[[], object] | None:
    """Return the first item; None if the queue is empty."""
    try:
        return functions[0]
    except IndexError:
        return None
