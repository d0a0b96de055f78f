"""Plans, and the window: the plans that a batch has started and not yet returned."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol

from ..download import Download
from ..engine import machine
from ..error import DownloadFailed
from ..waiting.atomic import HEARING, Waiter
from ..waiting.cancellation import Cancellation, scope

if TYPE_CHECKING:
    # With a default, for type checkers (PEP 696): see ``W_co`` in the module ``writer``.
    from typing_extensions import TypeVar

    D_co = TypeVar("D_co", bound=Download, default=Download, covariant=True)
else:
    from typing import TypeVar

    D_co = TypeVar("D_co", covariant=True)

Downloads = Iterable[D_co] | AsyncIterable[D_co]

_QUICK = 0.001

COALESCE = 0.002
"""If plans complete faster than this, how long the consumer sleeps to collect several (seconds)."""

_PLENTY = 256
"""The consumer sleeps only while at least this many plans run or wait, so no thread goes idle."""


class NotYet(Exception):
    """An iterator of downloads has none at the moment, but may have one later."""


class Life(Protocol):
    """A run of a download in steps. Between two steps it occupies no thread."""

    @property
    def token(self) -> Cancellation | None:
        """The cancellation token of the run; None if it has none."""

    def advance(self, hold: machine.Hold | None = None) -> float | None:
        """Run until the next wait. Return when it ends (``time.monotonic()``); None at the end."""


class _Call:
    """The run of a download that overrides ``__call__``. It has one step, which blocks."""

    token = None

    def __init__(self, download: Download, parent: Cancellation) -> None:
        self._download, self._parent = download, parent

    def advance(self, hold: machine.Hold | None = None) -> None:
        with scope(self._parent):
            self._download()


def begin(download: Download, parent: Cancellation) -> Life:
    """Start a run. If the class overrides ``__call__``, the run just calls it."""
    if type(download).__call__ is Download.__call__:
        return machine.Life(download, parent)
    return _Call(download, parent)


class Plan(Generic[D_co]):
    """A download of a batch and its outcome.

    Attributes:
        download (Download):
            The download.
        executed (bool):
            The download was started.
        error (BaseException | None):
            What the download raised; None if it succeeded.
    """

    # Called in the thread of the consumer just before the plan is returned; None for nothing.
    deliver: Callable[[], object] | None = None
    # Called in the thread of the consumer when the consumer asks for the next plan.
    hand_back: Callable[[], object] | None = None
    # Whether the batch has limits.
    is_limited = False

    def __init__(self, download: D_co) -> None:
        """Create a plan that has not been started.

        Args:
            download: The download.
        """
        self.download = download
        self.executed = False
        self.error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._life: Life | None = None
        self._claimed = threading.Lock()

    def result(self) -> D_co:
        """Return the download if it succeeded.

        Returns:
            The download.

        Raises:
            BaseException:
                What the download raised. It is DownloadFailed if the batch was shut down before it
                started the download.
        """
        if self.error is not None:
            # The original traceback. Without this, each call would add its frames to the exception.
            raise self.error.with_traceback(self._traceback)
        return self.download

    def claim(self) -> bool:
        """Return True to the first caller only: it must run the plan. Call it in worker threads."""
        return self._claimed.acquire(blocking=False)

    @property
    def token(self) -> Cancellation | None:
        """The cancellation token of the run; None if no run is in progress."""
        return None if self._life is None else self._life.token

    @property
    def has_ended(self) -> bool:
        """Whether the download was run, and no run is in progress."""
        return self.executed and self._life is None

    def advance(self, cancellation: Cancellation, hold: machine.Hold | None = None) -> float | None:
        """Run the download until its next wait or its end. Record an exception in :attr:`error`.

        Args:
            cancellation: The token of the batch.
            hold: Called before each attempt: see :meth:`machine.Life.advance`.

        Returns:
            When to call this again (``time.monotonic()``), unless :attr:`token` is cancelled
            earlier. None if the download has ended.
        """
        try:
            if self._life is None and cancellation.is_cancelled():
                self.error = DownloadFailed(self.download, cancellation.reason or "")
                return None
            life = self._life
            if life is None:
                # In this order: has_ended must not be true in between.
                life = self._life = begin(self.download, cancellation)
                self.executed = True
            until = life.advance(hold)
            if until is None:
                self._life = None
            return until
        except BaseException as error:  # noqa: BLE001 - result() raises it
            self._life = None
            self.error = error
            self._traceback = error.__traceback__
            # Break a reference cycle: the traceback refers to this frame, and so to the plan.
            del self, life
            return None

    def __repr__(self) -> str:
        state = "failed" if self.error is not None else "succeeded" if self.executed else "planned"
        return f"<Plan {state}: {self.download}>"


class Window(Generic[D_co]):
    """The plans that a batch has started and not yet returned to its caller.

    One thread calls :meth:`poll`. An interrupt may come between any two of its steps, and the next
    call continues where this one was cut short. For that, a download stays in ``_taken`` until the
    engine has its plan, and a plan stays in ``completed`` until the call after the one that
    returned it.

    Attributes:
        downloads (Downloads):
            The iterable of downloads.
        source (Iterator | None):
            The iterator of ``downloads``; None before the first is taken. It may raise NotYet; its
            owner then calls :meth:`add` later.
        completed (deque[Plan]):
            The plans that have ended. The first may have been returned.
        given (Plan | None):
            The plan that was returned last. The caller of :meth:`poll` sets it.
        backlog (int):
            The maximum number of plans that are started and not returned.
        bell (Callable | None):
            Called in a worker thread whenever a plan has ended; None to wake :meth:`wait`.
    """

    def __init__(
        self,
        downloads: Downloads[D_co],
        start: Callable[[Plan[D_co], Callable[[Plan[D_co]], object]], object],
        finish: Callable[[], object],
        is_stopped: Callable[[], bool],
        backlog: int,
    ) -> None:
        """Create an empty window.

        Args:
            downloads: The iterable of downloads.
            start: Executes a plan, and calls the given function with the plan when it has ended.
                The window may call it twice with the same plan.
            finish: Called when all plans were returned.
            is_stopped: Returns whether the window must take no more downloads.
            backlog: The maximum number of plans that are started and not returned.
        """
        self.downloads = downloads
        self.source: Iterator[D_co] | None = None
        self.completed: deque[Plan[D_co]] = deque()
        self.given: Plan[D_co] | None = None
        self.bell: Callable[[], object] | None = None
        self.is_stopped = is_stopped
        self._start = start
        self._finish = finish
        self.backlog = backlog
        # Downloads, or their plans, that were taken from the source and not given to the engine.
        self._taken: deque[Any] = deque()
        # The plans that were started and not returned.
        self._started: dict[Plan[D_co], None] = {}
        # The class of the download that was taken last.
        self._kind: type[object] = Plan
        self._exhausted = False
        self._error: Exception | None = None
        self._quick = True
        self._is_busy = False
        self._waiter: Waiter | None = None

    @property
    def outstanding(self) -> int:
        """The number of plans that were started and not returned."""
        return len(self._started)

    @property
    def has_room(self) -> bool:
        """Whether the window may take one more download."""
        return not self._exhausted and self.outstanding < self.backlog and not self.is_stopped()

    def poll(self) -> Plan[D_co] | None:
        """Return a completed plan, and take more downloads from the source.

        Returns:
            The plan; None if no plan has completed yet.

        Raises:
            StopIteration:
                All plans were returned.
            Exception:
                What the iterable raised. It is raised after all started plans were returned.
        """
        if self.given is not None:
            self._commit()
        if self._taken:
            self._start_taken()
        plan = self._next_completed()
        if plan is not None:
            if plan.deliver is not None:
                deliver, plan.deliver = plan.deliver, None
                deliver()
            if self._quick:
                # Refill the slot of the returned plan now: while the caller processes it, the
                # threads must not run out of work. A slow source has to wait for the next call.
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
        """Block until a plan completes, or for a moment, so that Python can run signal handlers."""
        if self._is_busy and len(self._started) - len(self.completed) >= _PLENTY:
            # Waking this thread for each plan takes the interpreter lock from the workers.
            time.sleep(COALESCE)
            self._is_busy = len(self.completed) > 1
            if self.completed:
                return
        began = time.monotonic()
        waiter = self._waiter = Waiter()
        if not self.completed:
            waiter.wait(HEARING)
        # Worker threads need not wake this thread any more.
        self._waiter = None
        self._is_busy = time.monotonic() - began < COALESCE

    def add(self, download: Download) -> None:
        """Start a download that an async iterable has yielded.

        Args:
            download: The download. The window must have room for it.

        Raises:
            TypeError: It isn't a Download.
        """
        if not isinstance(download, Download):
            raise _not_a_download(download)
        self._taken.append(download)
        self._start_taken()

    def complete(self, plan: Plan[Any]) -> None:
        """Record that a plan has ended. Worker threads call this.

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
        """Forget the plan that was returned last."""
        given = self.given
        if self.completed and self.completed[0] is given:
            self.completed.popleft()
        if given in self._started:
            del self._started[given]
        if given is not None and given.hand_back is not None:
            given.hand_back()
        self.given = None

    def _next_completed(self) -> Plan[D_co] | None:
        """Take downloads until a plan has completed.

        Returns:
            The plan; None if the window is full or the source has no download now.
        """
        while True:
            completed = self.completed
            while completed:
                plan = completed[0]
                if plan in self._started:
                    return plan
                # After an interrupt it was started twice, and the engine completed it twice.
                completed.popleft()
            if not self._take():
                return None

    def _take(self) -> bool:
        """Take one download from the source and start it. Return whether there was one."""
        # The same condition as has_room, inlined: this runs for each download.
        if self._exhausted or len(self._started) >= self.backlog or self.is_stopped():
            return False
        began = time.monotonic()
        try:
            if self.source is None:
                self.source = iterate(self.downloads)
            # One atomic step: no signal handler can run between the source and the deque.
            self._taken.extend(islice(self.source, 1))
        except NotYet:
            return False
        except Exception as error:  # noqa: BLE001 - poll() raises it after the started plans
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
        """Start the plans that were taken. After an interrupt, continue with the rest."""
        while self._taken:
            plan: Any = self._taken[0]
            if type(plan) is not Plan:
                if type(plan) is not self._kind and not isinstance(plan, Download):
                    self._error = _not_a_download(plan)
                    self._exhausted = True
                    self._taken.clear()
                    return
                # Remember the class, because isinstance() is slow for an abstract class.
                self._kind = type(plan)
                plan = self._taken[0] = Plan(plan)
            # An interrupt may start a plan twice. Plan.claim() and this dict make it count once.
            self._started[plan] = None
            self._start(plan, self.complete)
            self._taken.popleft()


def iterate(downloads: Downloads[D_co]) -> Iterator[D_co]:
    """Return the iterator of an iterable of downloads.

    Args:
        downloads: The iterable.

    Raises:
        TypeError: It supports only ``async for``.
    """
    if not isinstance(downloads, Iterable):
        raise TypeError(
            f"the downloads are an async iterable ({type(downloads).__name__}), which can only be "
            "used in async code: `async with Batch(...) as batch: async for plan in batch():`"
        )
    return iter(downloads)


def _not_a_download(thing: object) -> TypeError:
    return TypeError(f"a batch takes downloads, and {type(thing).__name__} is none")
