"""Plans, and the window of those that were taken and not yet handed back."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import Any, Protocol

from ..download import Download
from ..engine import machine
from ..error import DownloadFailed
from ..waiting.atomic import HEARING, Waiter
from ..waiting.cancellation import Cancellation, scope

Downloads = Iterable[Download] | AsyncIterable[Download]

_QUICK = 0.001


class NotYet(Exception):
    """A source has nothing to give now, but may have later."""


class Life(Protocol):
    """A run of a download that is advanced in steps, in between which it holds no thread."""

    @property
    def token(self) -> Cancellation | None:
        """What stops it."""

    def advance(self) -> float | None:
        """Go on to the next wait, and return its end (``time.monotonic()``); None at the end."""


class _Call:
    """The run of a download that can only be called: it waits in its thread."""

    token = None

    def __init__(self, download: Download) -> None:
        self._download = download

    def advance(self) -> None:
        self._download()


def begin(download: Download) -> Life:
    """Begin a run of a download. A class that overrides ``__call__`` is simply called."""
    if type(download).__call__ is Download.__call__:
        return machine.begin(download)
    return _Call(download)


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
        self._traceback: TracebackType | None = None
        self._life: Life | None = None
        self._claimed = threading.Lock()

    def result(self) -> Download:
        """Return the download.

        Returns:
            The download, which succeeded.

        Raises:
            BaseException: What the download raised. A plan that was never run because the batch was
                shut down raises DownloadFailed.
        """
        if self.error is not None:
            # As it was raised first. Else each call would add its own frames to the traceback.
            raise self.error.with_traceback(self._traceback)
        return self.download

    def claim(self) -> bool:
        """Tell whether the caller is the first, who is to run it. For threads without signals."""
        return self._claimed.acquire(blocking=False)

    @property
    def token(self) -> Cancellation | None:
        """What stops the run; None while there is none."""
        return None if self._life is None else self._life.token

    def advance(self, cancellation: Cancellation) -> float | None:
        """Run the download up to where it waits, or to its end, and keep what it raises.

        Args:
            cancellation: What stops the batch.

        Returns:
            When to call it again (``time.monotonic()``), unless it is cancelled before; None when
            the download has ended.
        """
        try:
            if self._life is None and cancellation.is_cancelled():
                self.error = DownloadFailed(self.download, cancellation.reason or "")
                return None
            self.executed = True
            with scope(cancellation):
                if self._life is None:
                    self._life = begin(self.download)
                until = self._life.advance()
            if until is None:
                self._life = None
            return until
        except BaseException as error:  # noqa: BLE001 - it is raised by result()
            self._life = None
            self.error = error
            self._traceback = error.__traceback__
            # Or its traceback would hold this frame, which holds the plan, which holds it.
            del self
            return None

    def __repr__(self) -> str:
        state = "failed" if self.error is not None else "succeeded" if self.executed else "planned"
        return f"<Plan {state}: {self.download}>"


class Window:
    """What was taken from the downloads of a batch, and not handed back.

    Only one thread may :meth:`poll`, which is the one thread that advances the downloads. An
    interrupt may come between any two of its steps, and after each of them the next call goes on
    where this one was cut short: a download waits in ``_taken`` until its plan was given to the
    threads, and a plan stays completed until the call after the one that has handed it back.

    Attributes:
        downloads (Downloads): The downloads.
        source (Iterator | None): The iterator of the downloads; None before the first is taken.
            It may raise NotYet, and :meth:`add` later.
        completed (deque[Plan]): The plans that have ended; the first may have been handed back.
        given (Plan | None): The plan that was handed back last. Whoever hands it back sets it.
        bell (Callable | None): Called in a thread of the batch when a plan has ended; None to wake
            :meth:`wait`.
    """

    def __init__(
        self,
        downloads: Downloads,
        start: Callable[[Plan, Callable[[Plan], object]], object],
        finish: Callable[[], object],
        is_stopped: Callable[[], bool],
        backlog: int,
    ) -> None:
        """Make a window in which nothing is.

        Args:
            downloads: The downloads.
            start: Has a plan executed, and a function called with it then. It may be called twice
                with one plan.
            finish: Called when there is nothing left.
            is_stopped: Whether no more is to be taken.
            backlog: How many may be taken and not handed back.
        """
        self.downloads = downloads
        self.source: Iterator[Download] | None = None
        self.completed: deque[Plan] = deque()
        self.given: Plan | None = None
        self.bell: Callable[[], object] | None = None
        self.is_stopped = is_stopped
        self._start = start
        self._finish = finish
        self._backlog = backlog
        # Downloads that were taken, or their plans, until the plans were started.
        self._taken: deque[Any] = deque()
        # The plans that were started and not handed back.
        self._started: dict[Plan, None] = {}
        self._exhausted = False
        self._error: Exception | None = None
        self._quick = True
        self._waiter: Waiter | None = None

    @property
    def outstanding(self) -> int:
        """How many plans were started and not handed back."""
        return len(self._started)

    @property
    def has_room(self) -> bool:
        """Whether one more download may be taken."""
        return not self._exhausted and self.outstanding < self._backlog and not self.is_stopped()

    def poll(self) -> Plan | None:
        """Return a completed plan to hand back; take from the downloads until there is one.

        Returns:
            The plan; None if there is none now, but will be.

        Raises:
            StopIteration: There is nothing left.
            Exception: What the iterable raised, once the plans that were started are handed back.
        """
        if self.given is not None:
            self._commit()
        if self._taken:
            self._start_taken()
        plan = self._next_completed()
        if plan is not None:
            if self._quick:
                # The place of what is handed back, so that the threads are kept busy by a consumer
                # that is not idle.
                self._take()
            return plan
        if self._started or not (self._exhausted or self.is_stopped()):
            return None
        self._exhausted = True
        self._finish()
        error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def wait(self) -> None:
        """Wait until a plan has ended, or for a moment: a signal is to be heard."""
        waiter = self._waiter = Waiter()
        if not self.completed:
            waiter.wait(HEARING)

    def add(self, download: Download) -> None:
        """Have a download run that a source has given late, after it had nothing to give.

        Args:
            download: The download. There must be room for it.

        Raises:
            TypeError: It is no download.
        """
        if not isinstance(download, Download):
            raise _not_a_download(download)
        self._taken.append(download)
        self._start_taken()

    def complete(self, plan: Plan) -> None:
        """Take note that a plan has ended, in whichever thread.

        Args:
            plan: The plan.
        """
        self.completed.append(plan)
        waiter = self._waiter
        if self.bell is not None:
            self.bell()
        elif waiter is not None:
            waiter.wake()

    def _commit(self) -> None:
        """Let go of the plan that was handed back last."""
        given = self.given
        if self.completed and self.completed[0] is given:
            self.completed.popleft()
        if given in self._started:
            del self._started[given]
        self.given = None

    def _next_completed(self) -> Plan | None:
        """Return a completed plan; take from the iterable until there is one.

        Returns:
            The plan, or None if the window is full, or the iterable has nothing to give.
        """
        while True:
            completed = self.completed
            while completed:
                plan = completed[0]
                if plan in self._started:
                    return plan
                # It was started twice because of an interrupt, and failed twice.
                completed.popleft()
            if not self._take():
                return None

    def _take(self) -> bool:
        """Take one download from the iterable, and have it run."""
        # As has_room, which costs three calls.
        if self._exhausted or len(self._started) >= self._backlog or self.is_stopped():
            return False
        began = time.monotonic()
        try:
            if self.source is None:
                self.source = iterate(self.downloads)
            # One step: no signal comes between taking it and keeping it.
            self._taken.extend(islice(self.source, 1))
        except NotYet:
            return False
        except Exception as error:  # noqa: BLE001 - raised once the plans that were started are yielded
            self._error = error
            self._exhausted = True
            return False
        if not self._taken:
            self._exhausted = True
            return False
        self._quick = time.monotonic() - began < _QUICK
        self._start_taken()
        return True

    def _start_taken(self) -> None:
        """Start the plans of what was taken; begin again where an interrupt has cut it short."""
        while self._taken:
            plan: Any = self._taken[0]
            if type(plan) is not Plan:
                if not isinstance(plan, Download):
                    self._error = _not_a_download(plan)
                    self._exhausted = True
                    self._taken.clear()
                    return
                plan = self._taken[0] = Plan(plan)
            # A plan that is started twice is executed once, and handed back once.
            self._started[plan] = None
            self._start(plan, self.complete)
            self._taken.popleft()


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


def _not_a_download(thing: object) -> TypeError:
    return TypeError(f"a batch takes downloads, and {type(thing).__name__} is none")
