"""Running many downloads at once, on a pool of threads."""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import Any, Self

from .cancel import Cancellation, current, scope
from .context import Context
from .download import Download
from .error import DownloadFailed
from .workers import Workers

log = logging.getLogger(__name__)

CONCURRENT = 4
"""How many downloads run at once by default."""

BACKLOG = 1024
"""How many downloads are taken from the iterable and not yet handed back, at most, by default."""

_QUICK = 0.001
_HEARING = 1.0
_SHUT_DOWN = "the batch was shut down"
_names = itertools.count(1)


class Plan:
    """A download of a batch, and how it ended.

    Attributes:
        download (Download): The download.
        executed (bool): It was run.
        error (BaseException | None): What the download raised; None if it succeeded.
    """

    def __init__(self, download: Download) -> None:
        """Make a plan.

        Args:
            download: The download.
        """
        self.download = download
        self.executed = False
        self.error: BaseException | None = None

    def result(self) -> Download:
        """Return the download.

        Returns:
            The download, which succeeded.

        Raises:
            BaseException: What the download raised. A plan that was never run because the batch was
                shut down raises DownloadFailed.
        """
        if self.error is not None:
            raise self.error
        return self.download

    def execute(self, cancellation: Cancellation) -> None:
        """Run the download, and keep what it raises.

        Args:
            cancellation: What stops the batch.
        """
        if cancellation.reason is not None:
            self.error = DownloadFailed(self.download, cancellation.reason)
            return
        self.executed = True
        try:
            self.download()
        except BaseException as error:  # noqa: BLE001 - it is raised by result()
            self.error = error
            # Or its traceback would hold this frame, which holds the plan, which holds it.
            del self

    def __repr__(self) -> str:
        state = "failed" if self.error is not None else "succeeded" if self.executed else "planned"
        return f"<Plan {state}: {self.download}>"


class PlanIterator(Iterator[Plan]):
    """The plans of a batch, in the order in which they are completed.

    The iterable of downloads is only ever advanced by the thread that iterates here, and at most as
    far as the backlog
    allows: a consumer that is slow slows the batch.
    """

    def __init__(
        self,
        downloads: Iterable[Download],
        start: Callable[[Plan, queue.SimpleQueue[Plan]], None],
        finish: Callable[[], None],
        is_stopped: Callable[[], bool],
        backlog: int,
    ) -> None:
        """Make an iterator; a batch does.

        Args:
            downloads: The downloads.
            start: Has a plan executed, and put into the queue then.
            finish: Called when there is nothing left.
            is_stopped: Whether no more is to be taken.
            backlog: How many may be taken and not handed back.
        """
        self._downloads = downloads
        self._source: Iterator[Download] | None = None
        self._start = start
        self._finish = finish
        self._is_stopped = is_stopped
        self._backlog = backlog
        self._completed: queue.SimpleQueue[Plan] = queue.SimpleQueue()
        # How many were started and not handed back.
        self._outstanding = 0
        self._exhausted = False
        self._error: Exception | None = None
        self._quick = True

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Plan:
        plan = self._next_completed()
        if plan is not None:
            # This one is still ours, until it is returned.
            if self._quick and self._outstanding + 1 < self._backlog:
                # The place of what is handed back, so that the threads are kept busy by a consumer
                # that is not idle.
                self._take()
            return plan
        if self._outstanding:
            return self._await_completed()
        self._exhausted = True
        self._finish()
        error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def _next_completed(self) -> Plan | None:
        """Return a completed plan; take from the iterable until there is one.

        Returns:
            The plan, or None if the window is full, or the iterable at its end.
        """
        while True:
            try:
                plan = self._completed.get_nowait()
            except queue.Empty:
                if not self._take():
                    return None
            else:
                self._outstanding -= 1
                return plan

    def _await_completed(self) -> Plan:
        while True:
            # A signal that comes just before a wait is heard only after it: so none is for ever.
            with contextlib.suppress(queue.Empty):
                plan = self._completed.get(timeout=_HEARING)
                self._outstanding -= 1
                return plan

    def _take(self) -> bool:
        """Take one download from the iterable, and have it run."""
        if self._exhausted or self._outstanding >= self._backlog or self._is_stopped():
            return False
        began = time.monotonic()
        try:
            if self._source is None:
                self._source = iter(self._downloads)
            download = _checked(next(self._source))
        except StopIteration:
            self._exhausted = True
            return False
        except Exception as error:  # noqa: BLE001 - raised once the plans that were started are yielded
            self._exhausted = True
            self._error = error
            return False
        self._quick = time.monotonic() - began < _QUICK
        self._outstanding += 1
        self._start(Plan(download), self._completed)
        return True


class Batch:
    """Runs downloads on a pool of threads.

    ::

        with Batch(downloads) as batch:
            for plan in batch():
                try:
                    plan.result()
                except DownloadError as error:
                    print(error)

    Leaving the ``with``, by an exception or Ctrl-C too, shuts the batch down. All downloads get the
    batch's context and share sessions, connections and tokens by it. Each runs in a copy of the
    ``contextvars`` context in which it was taken from the iterable.

    Attributes:
        downloads (Iterable[Download]): The downloads.
        concurrent (int): How many run at once.
        backlog (int): How many may be taken from the iterable and not yet handed back.
        context (Context): What the downloads share.
        iterator (PlanIterator): The plans.
    """

    def __init__(
        self,
        downloads: Iterable[Download],
        concurrent: int = CONCURRENT,
        backlog: int = BACKLOG,
        context: Context | None = None,
    ) -> None:
        """Make a batch.

        Args:
            downloads: Any iterable of downloads, lazy and endless ones included. It is only ever
                advanced by the thread that iterates the plans.
            concurrent: How many run at once; 1 or more.
            backlog: How many may be taken from the iterable and not yet handed back; no fewer than
                ``concurrent``.
            context: What the downloads share. By default one of the batch's own, which ends with
                it.

        Raises:
            ValueError: A number is too small.
            TypeError: The downloads can't be iterated.
        """
        for name, number in (("concurrent", concurrent), ("backlog", backlog)):
            if not isinstance(number, int):
                raise ValueError(  # noqa: TRY004 - as for any other number that can't be
                    f"{name}: must be a whole number, not {number!r}"
                )
        if concurrent < 1:
            raise ValueError(f"concurrent: must be 1 or more, not {concurrent}")
        if backlog < concurrent:
            raise ValueError(
                f"backlog: must be no fewer than concurrent ({concurrent}), not {backlog}"
            )
        if not isinstance(downloads, Iterable):
            raise TypeError(f"downloads: must be an iterable, not {type(downloads).__name__}")
        self.downloads = downloads
        self.concurrent = concurrent
        self.backlog = backlog
        self.context = Context() if context is None else context
        self._owns_context = context is None
        # A batch that is run by a handler of another batch stops with that one.
        self._cancellation = Cancellation(current())
        self._workers = Workers(concurrent, f"batch-{next(_names)}")
        self.iterator = PlanIterator(
            downloads, self._start, self._finish, lambda: self.is_shutdown, backlog
        )
        self._is_started = False

    @property
    def is_shutdown(self) -> bool:
        """Whether it was shut down, or has come to its end."""
        return self._cancellation.reason is not None

    def download(self) -> PlanIterator:
        """Start the batch.

        Returns:
            The one iterator of plans, in the order in which they are completed.

        Raises:
            RuntimeError: The batch was shut down before it was started.
        """
        if self.is_shutdown and not self._is_started:
            raise RuntimeError("a batch can't be started after it was shut down")
        self._is_started = True
        return self.iterator

    def __call__(self) -> PlanIterator:
        """Start the batch; the same as :meth:`download`."""
        return self.download()

    def shutdown(self) -> None:
        """End the batch: start nothing new, stop what runs, and wait until it has stopped.

        What waits and what runs ends with DownloadFailed, and nothing partial is left. A download
        is stopped at once, also in the middle of a read or a back-off; only the look-up of a name
        and a connection that is being made can't be cut short. The wait is bounded by them: by the
        resolver's own limit, and ``timeout.connect`` seconds for each address of the host. Called
        by a handler of one of its downloads, it doesn't wait. It can be called again.
        """
        self._cancellation.cancel(_SHUT_DOWN)
        here = current()
        is_inside = here is not None and here.within(self._cancellation)
        self._workers.stop(wait=not is_inside)
        if not is_inside:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        return f"<Batch concurrent={self.concurrent} backlog={self.backlog}>"

    def _start(self, plan: Plan, completed: queue.SimpleQueue[Plan]) -> None:
        plan.download.context = self.context
        context = copy_context()
        try:
            self._workers.run(partial(context.run, _work, plan, self._cancellation, completed))
        except RuntimeError as error:
            # Shut down by another thread since it was taken; or there are no threads to be had.
            reason = self._cancellation.reason
            plan.error = DownloadFailed(plan.download, reason) if reason else error
            completed.put(plan)

    def _finish(self) -> None:
        """Stop the threads at the end of the iteration; they are idle."""
        self._cancellation.cancel("the batch has come to its end")
        self._workers.stop()
        self._end()

    def _end(self) -> None:
        self._cancellation.close()
        if self._owns_context:
            self.context.close()


def _checked(download: Any) -> Download:
    if not isinstance(download, Download):
        raise TypeError(f"a batch takes downloads, and {type(download).__name__} is none")
    return download


def _work(plan: Plan, cancellation: Cancellation, completed: queue.SimpleQueue[Plan]) -> None:
    try:
        with scope(cancellation):
            plan.execute(cancellation)
    finally:
        # Whatever happens, or whoever iterates would wait for ever.
        completed.put(plan)
