"""The engine of a batch: it executes plans in a thread pool.

A batch calls three methods of its engine: ``start()``, ``stop()`` and ``join()``.
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
from typing import Protocol

from ..engine.machine import HELD, Hold
from ..engine.pipeline import Depth
from ..error import DownloadFailed
from ..waiting.cancellation import Cancellation, Cancelled
from ..waiting.threads import Start, Workers
from ..waiting.timer import Alarm, timer
from .contention import contention
from .gate import Gate
from .train import Run, Trains
from .window import Plan

_LAST = 1.5
"""How long the exiting interpreter waits for the threads of unclosed batches (seconds)."""

EXITING = "the program is exiting"

_LATER = 1.0
"""How long a plan waits before it asks for a thread again (seconds)."""


class Threads:
    """Executes plans in daemon threads.

    ``concurrent.futures`` won't do: its pools accept no work after the main thread has ended, while
    other threads may still iterate over a batch.
    """

    def __init__(
        self,
        most: int,
        name: str,
        cancellation: Cancellation,
        lend: Start | None = None,
        pipeline: int | None = 1,
    ) -> None:
        """Create an engine; :meth:`start` starts its threads.

        Args:
            most: How many plans run at the same time.
            name: The prefix of the threads' names.
            cancellation: The token that stops the plans.
            lend: Runs a function in a thread of the caller's; None for threads of the engine's own.
            pipeline: How many requests are sent together; None for the default.
        """
        self.cancellation = cancellation
        depth = Depth.of(pipeline)
        self.trains = None if depth is None else Trains(depth, most)
        self.workers = Workers(most, name, lend, self.trains)
        self.gate = Gate(self.workers, cancellation)
        self.contention = contention(self.workers, most)
        stop_at_exit(self)

    @property
    def queued(self) -> int:
        """The number of plans that wait for a thread."""
        return self.workers.queued

    @property
    def is_single(self) -> bool:
        """Whether a single thread executes the plans, because that is faster than all of them."""
        return self.workers.is_single

    def start(self, plan: Plan, complete: Callable[[Plan], object]) -> None:
        """Execute a plan in a thread, in a copy of the caller's ``contextvars`` context.

        If it is called twice with the same plan, the plan runs once.

        Args:
            plan: The plan.
            complete: Called with the plan when it has ended.
        """
        run = _Run(plan, complete, self, self.trains)
        try:
            self.workers.run(run)
        except RuntimeError as error:
            # The system can't start a thread. Python 3.12 refuses after the main thread has ended.
            if _may_block():
                _Run(plan, complete, self, None)()
                return
            reason = self.cancellation.reason
            plan.error = DownloadFailed(plan.download, reason) if reason else error
            complete(plan)

    def stop(self) -> None:
        """Make the threads end once every plan that was started has ended."""
        self.workers.stop()

    def join(self, seconds: float = float("inf")) -> None:
        """Wait until the threads have ended, after :meth:`stop`.

        Args:
            seconds: The time-out (seconds).
        """
        self.workers.join(seconds)
        forget(self)


class _Run(Run):
    """The execution of one plan. Different threads may run its steps."""

    def __init__(
        self,
        plan: Plan,
        complete: Callable[[Plan], object],
        engine: Threads,
        trains: Trains | None,
    ) -> None:
        self._plan = plan
        self._complete = complete
        self._engine = engine
        self._trains = trains
        self.context = copy_context()

    @property
    def token(self) -> Cancellation | None:
        return self._plan.token

    @property
    def may_join(self) -> bool:
        # A plan that is limited has to be admitted first.
        return not (self._plan.is_limited or self._plan.download.limits is not None)

    def __call__(self) -> None:
        if not self._plan.claim():
            return
        if not self.may_join:
            if self._engine.gate.admit(self._plan, self.go_on):
                self.go_on()
        elif self._trains is None:
            self.go_on()
        else:
            self._trains.run(self, self._engine.workers)

    def claim(self) -> bool:
        return self._plan.claim()

    def go_on(self, hold: Hold | None = None) -> None:
        until = None
        try:
            until = self.context.run(self._plan.advance, self._engine.cancellation, hold)
        finally:
            if until is None:
                # Even after an unexpected exception: the iterating thread waits for this.
                self._complete(self._plan)
                if self._engine.contention is not None:
                    self._engine.contention.count()
                if self._plan.hand_back is not None:
                    # What failed takes no space any more.
                    self._engine.gate.wake()
        if until is not None and until != HELD:
            token = self._plan.token or self._engine.cancellation
            _Sleep(self, self._engine.workers, token).begin(until - time.monotonic())


class _Sleep:
    """A pause of a run, such as a back-off, which occupies no thread.

    The run resumes when the time is up or when its token is cancelled, whichever comes first.
    """

    def __init__(self, run: _Run, workers: Workers, token: Cancellation) -> None:
        self._run = run
        self._workers = workers
        self._token = token
        self._alarm: Alarm | None = None
        # The first thread to take it resumes the run: the timer and the token may both wake it.
        self._ended = threading.Lock()

    def begin(self, seconds: float) -> None:
        try:
            self._alarm = timer.set(seconds, self.wake)
        except RuntimeError:
            # The system can't start the timer's thread, so this worker thread sleeps itself.
            with contextlib.suppress(Cancelled):
                self._token.wait(seconds)
            self._run.go_on()
        else:
            self._token.attach(self)

    def wake(self) -> None:
        try:
            self._workers.run(self._end)
        except RuntimeError:
            # The system can't start a thread now. Try again when other plans may have freed theirs.
            self._alarm = timer.set(_LATER, self.wake)

    def _end(self) -> None:
        if self._ended.acquire(blocking=False):
            self._token.detach(self)
            if self._alarm is not None:
                timer.cancel(self._alarm)
            self._run.go_on()


def _may_block() -> bool:
    """Return whether this thread may run a download: not the main thread, nor an event loop's."""
    if threading.current_thread() is threading.main_thread():
        return False
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            return False
    return True


class Engine(Protocol):
    """The interface of an engine, which executes the plans of a batch."""

    cancellation: Cancellation

    def start(self, plan: Plan, complete: Callable[[Plan], object]) -> None:
        """Execute a plan, once, and call ``complete`` with it when it has ended."""

    def stop(self) -> None:
        """End once every plan that was started has ended."""

    def join(self, seconds: float = float("inf")) -> None:
        """Wait for that end."""


# Engines that weren't joined yet. Not a WeakSet: an interrupt in its callbacks would get lost.
_engines: dict[int, weakref.ref[Engine]] = {}


def stop_at_exit(engine: Engine) -> None:
    """Have an engine stopped when the program exits, unless it is forgotten before.

    Args:
        engine: The engine.
    """
    for key, reference in list(_engines.items()):
        if reference() is None:
            _engines.pop(key, None)
    _engines[id(engine)] = weakref.ref(engine)


def forget(engine: Engine) -> None:
    """Forget an engine that has ended.

    Args:
        engine: The engine.
    """
    _engines.pop(id(engine), None)


def open_engines() -> list[Engine]:
    """Return the engines that weren't joined yet."""
    return [engine for reference in list(_engines.values()) if (engine := reference())]


@atexit.register
def _end_all() -> None:
    """Cancel the batches that were left open, so that they remove their staging files.

    Python calls this at exit, after the main thread and all non-daemon threads have ended.
    """
    engines = open_engines()
    for engine in engines:
        engine.cancellation.cancel(EXITING)
        engine.stop()
    end = time.monotonic() + _LAST
    for engine in engines:
        engine.join(end - time.monotonic())
