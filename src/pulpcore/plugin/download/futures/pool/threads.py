"""How a batch has its plans executed: what differs between engines.

An engine has four methods, which the batch calls: ``start()``, ``stop()`` and ``join()``, and a
``name`` for people. This one has threads of its own.
"""

from __future__ import annotations

import atexit
import time
import weakref
from collections.abc import Callable
from contextvars import copy_context
from functools import partial

from ..error import DownloadFailed
from ..waiting.cancellation import Cancellation, scope
from ..waiting.threads import Workers
from .window import Plan

_LAST = 1.5
"""Seconds that a program waits at its end for the threads of batches that were left open."""


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
        _engines.add(self)

    def start(self, plan: Plan, complete: Callable[[Plan], object]) -> None:
        """Have a plan executed, in a copy of the caller's contextvars context.

        It may be called twice with one plan, which is executed once.

        Args:
            plan: The plan.
            complete: Called with the plan when it has ended.
        """
        work = partial(copy_context().run, self._execute, plan, complete)
        try:
            self._workers.run(work)
        except RuntimeError as error:
            # There are no threads to be had.
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

    def _execute(self, plan: Plan, complete: Callable[[Plan], object]) -> None:
        if not plan.claim():
            return
        try:
            with scope(self.cancellation):
                plan.execute(self.cancellation)
        finally:
            # Whatever happens, or whoever iterates would wait for ever.
            complete(plan)


_engines: weakref.WeakSet[Threads] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """Stop the batches that were left open, so that they leave nothing partial behind.

    Python comes here when the main thread, and all threads that are no daemons, have ended.
    """
    engines = list(_engines)
    for engine in engines:
        engine.cancellation.cancel("the program has come to its end")
        engine.stop()
    end = time.monotonic() + _LAST
    for engine in engines:
        engine.join(end - time.monotonic())
