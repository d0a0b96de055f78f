"""Plans, and the window of those that were taken and not yet handed back."""

from __future__ import annotations

import queue
import time
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from typing import Any

from ..download import Download
from ..error import DownloadFailed
from ..waiting.cancellation import Cancellation

Downloads = Iterable[Download] | AsyncIterable[Download]

_QUICK = 0.001


class NotYet(Exception):
    """A source has nothing to give now, but may have later."""


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


class Window:
    """What was taken from the downloads of a batch, and not handed back.

    It never waits: whoever iterates does that, each in his way. Only one thread may :meth:`poll`,
    which is the one thread that advances the downloads.

    Attributes:
        downloads (Downloads): The downloads.
        source (Iterator | None): The iterator of the downloads; None before the first is taken.
            It may raise NotYet, and :meth:`add` later.
        completed (queue.SimpleQueue[Plan]): The plans that have ended.
        complete (Callable): Called in a thread of the batch with each plan that has ended.
        outstanding (int): How many were started and not handed back.
    """

    def __init__(
        self,
        downloads: Downloads,
        start: Callable[[Plan, Callable[[Plan], object]], None],
        finish: Callable[[], None],
        is_stopped: Callable[[], bool],
        backlog: int,
    ) -> None:
        """Make a window in which nothing is.

        Args:
            downloads: The downloads.
            start: Has a plan executed, and a function called with it then.
            finish: Called when there is nothing left.
            is_stopped: Whether no more is to be taken.
            backlog: How many may be taken and not handed back.
        """
        self.downloads = downloads
        self.source: Iterator[Download] | None = None
        self.completed: queue.SimpleQueue[Plan] = queue.SimpleQueue()
        self.complete: Callable[[Plan], object] = self.completed.put
        self.outstanding = 0
        self.is_stopped = is_stopped
        self._start = start
        self._finish = finish
        self._backlog = backlog
        self._exhausted = False
        self._error: Exception | None = None
        self._quick = True

    @property
    def has_room(self) -> bool:
        """Whether one more download may be taken."""
        return not self._exhausted and self.outstanding < self._backlog and not self.is_stopped()

    def poll(self) -> Plan | None:
        """Hand a completed plan back; take from the downloads until there is one.

        Returns:
            The plan; None if there is none now, but will be.

        Raises:
            StopIteration: There is nothing left.
            Exception: What the iterable raised, once the plans that were started are handed back.
        """
        plan = self._next_completed()
        if plan is not None:
            # This one is still ours, until it is returned.
            if self._quick and self.outstanding + 1 < self._backlog:
                # The place of what is handed back, so that the threads are kept busy by a consumer
                # that is not idle.
                self._take()
            return plan
        if self.outstanding or not (self._exhausted or self.is_stopped()):
            return None
        self._exhausted = True
        self._finish()
        error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def add(self, download: Download) -> None:
        """Have a download run that a source has given late, after it had nothing to give.

        Args:
            download: The download. There must be room for it.

        Raises:
            TypeError: It is no download.
        """
        plan = Plan(_checked(download))
        self.outstanding += 1
        self._start(plan, self.complete)

    def _next_completed(self) -> Plan | None:
        """Return a completed plan; take from the iterable until there is one.

        Returns:
            The plan, or None if the window is full, or the iterable has nothing to give.
        """
        while True:
            try:
                plan = self.completed.get_nowait()
            except queue.Empty:
                if not self._take():
                    return None
            else:
                self.outstanding -= 1
                return plan

    def _take(self) -> bool:
        """Take one download from the iterable, and have it run."""
        if self._exhausted or self.outstanding >= self._backlog or self.is_stopped():
            return False
        began = time.monotonic()
        try:
            if self.source is None:
                self.source = iterate(self.downloads)
            download = _checked(next(self.source))
        except StopIteration:
            self._exhausted = True
            return False
        except NotYet:
            return False
        except Exception as error:  # noqa: BLE001 - raised once the plans that were started are yielded
            self._exhausted = True
            self._error = error
            return False
        self._quick = time.monotonic() - began < _QUICK
        self.outstanding += 1
        self._start(Plan(download), self.complete)
        return True


def iterate(downloads: Downloads) -> Iterator[Download]:
    """Return the iterator of an iterable of downloads.

    Raises:
        TypeError: It can only be iterated by ``async for``.
    """
    if not isinstance(downloads, Iterable):
        raise TypeError(
            f"the downloads are an async iterable ({type(downloads).__name__}), which can only be "
            "used in async code: `async with Batch(...) as batch: async for plan in batch():`"
        )
    return iter(downloads)


def _checked(download: Any) -> Download:
    if not isinstance(download, Download):
        raise TypeError(f"a batch takes downloads, and {type(download).__name__} is none")
    return download
