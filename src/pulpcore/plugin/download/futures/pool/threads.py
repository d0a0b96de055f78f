"""How a batch has its plans executed: what differs between engines.

An engine has four methods, which the batch calls: ``start()``, ``stop()`` and ``join()``, and a
``name`` for people. This one has threads of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextvars import copy_context

from ..error import DownloadFailed
from ..waiting.cancellation import Cancellation, Cancelled, scope
from ..waiting.threads import Workers
from ..waiting.timer import Alarm, timer
from .window import Plan

_LAST = 1.5
"""Seconds that a program waits at its end for the threads of batches that were left open."""

_LATER = 1.0
"""Seconds until a plan that waited tries again to get a thread."""


class Threads:
    """Executes plans by daemon threads.

    They aren't those of concurrent.futures, which takes no more work once the main thread has come
    to its end, while other threads may still iterate a batch.
    """

    def __init__(self, most: int, name: str, cancellation: Cancellation) -> None:
        """Make an engine without threads.

        Args:
            most: How many plans are executed at once.
            name: What the names of the threads begin with.
            cancellation: What stops the plans.
        """
        self.cancellation = cancellation
        self._workers = Workers(most, name)
        for key, reference in list(_engines.items()):
            if reference() is None:
                _engines.pop(key, None)
        _engines[id(self)] = weakref.ref(self)

    def start(self, plan: Plan, complete: Callable[[Plan], object]) -> None:
        """Have a plan executed, in a copy of the caller's contextvars context.

        It may be called twice with one plan, which is executed once.

        Args:
            plan: The plan.
            complete: Called with the plan when it has ended.
        """
        run = _Run(plan, complete, self._workers, self.cancellation)
        try:
            self._workers.run(run.begin)
        except RuntimeError as error:
            # There are no threads to be had, as in Python 3.12 once the main thread has ended.
            if _may_block():
                run.begin()
                return
            reason = self.cancellation.reason
            plan.error = DownloadFailed(plan.download, reason) if reason else error
            complete(plan)

    def stop(self) -> None:
        """Let the threads end when all that was started is done."""
        self._workers.stop()

    def join(self, seconds: float = float("inf")) -> None:
        """Wait until the threads have ended, after :meth:`stop`.

        Args:
            seconds: How long at most.
        """
        self._workers.join(seconds)
        _engines.pop(id(self), None)


class _Run:
    """A plan that is executed, now by one thread and now by another."""

    def __init__(
        self,
        plan: Plan,
        complete: Callable[[Plan], object],
        workers: Workers,
        cancellation: Cancellation,
    ) -> None:
        self._plan = plan
        self._complete = complete
        self._workers = workers
        self._cancellation = cancellation
        self._context = copy_context()

    def begin(self) -> None:
        if self._plan.claim():
            self.go_on()

    def go_on(self) -> None:
        """Execute the plan up to its next wait."""
        until = None
        try:
            until = self._context.run(self._step)
        finally:
            if until is None:
                # Whatever happens, or whoever iterates would wait for ever.
                self._complete(self._plan)
        if until is not None:
            token = self._plan.token or self._cancellation
            _Sleep(self, self._workers, token).begin(until - time.monotonic())

    def _step(self) -> float | None:
        with scope(self._cancellation):
            return self._plan.advance(self._cancellation)


class _Sleep:
    """A run that waits, and holds no thread meanwhile.

    It goes on when the time has come or its token is cancelled, whichever is first.
    """

    def __init__(self, run: _Run, workers: Workers, token: Cancellation) -> None:
        self._run = run
        self._workers = workers
        self._token = token
        self._alarm: Alarm | None = None
        # Taken by the thread with which the run goes on.
        self._ended = threading.Lock()

    def begin(self, seconds: float) -> None:
        try:
            self._alarm = timer.set(seconds, self.wake)
        except RuntimeError:
            # There is no thread to be had for the timer: wait in this one.
            with contextlib.suppress(Cancelled):
                self._token.wait(seconds)
            self._run.go_on()
        else:
            self._token.attach(self)

    def wake(self) -> None:
        try:
            self._workers.run(self._end)
        except RuntimeError:
            # There is no thread to be had now; there are those of other plans, which come back.
            self._alarm = timer.set(_LATER, self.wake)

    def _end(self) -> None:
        if self._ended.acquire(blocking=False):
            self._token.detach(self)
            if self._alarm is not None:
                timer.cancel(self._alarm)
            self._run.go_on()


def _may_block() -> bool:
    """Whether this thread may run a download: it gets no signals, and runs no event loop."""
    if threading.current_thread() is threading.main_thread():
        return False
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            return False
    return True


# The engines that weren't waited for. No WeakSet: in its callbacks an interrupt would be lost.
_engines: dict[int, weakref.ref[Threads]] = {}


@atexit.register
def _end_all() -> None:
    """Stop the batches that were left open, so that they leave nothing partial behind.

    Python comes here when the main thread, and all threads that are no daemons, have ended.
    """
    engines = [engine for reference in list(_engines.values()) if (engine := reference())]
    for engine in engines:
        engine.cancellation.cancel("the program has come to its end")
        engine.stop()
    end = time.monotonic() + _LAST
    for engine in engines:
        engine.join(end - time.monotonic())
