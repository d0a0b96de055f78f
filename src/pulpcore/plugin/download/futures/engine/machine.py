"""The life of one run of a download: its states, and the moves between them.

::

       ┌──────────────────────────────────────────────┐
       ↑                                              ↓
    PREPARE → TURN → ATTEMPT → VALIDATE → COMMIT → SUCCEEDED
               ↑        ↓         ↓         ↓
               └───────────── RECOVER ──→ FAILED

Each state has a step, whose outcome determines the next state. Between two steps the run may have
to wait: for a back-off, a Retry-After, the rate limiter, or a place at a host that limits its
connections. A wait occupies no thread: :meth:`Life.advance` returns the time at which it ends.

A pool of threads creates a life by :func:`begin` and calls :meth:`Life.advance` until that returns
None. Each time it calls again at the returned time, or when ``life.token`` is cancelled. Each life
is advanced in its own copy of the context (``copy_context()``), because several lives may take
turns in one thread.

:meth:`Download.__call__` blocks its thread while the run waits, so it advances its life only once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ..error import DownloadError, DownloadFailed, ValidationError
from ..event import Event, Failed, Succeeded
from ..waiting.cancellation import Cancellation, Cancelled, current, enter, leave, scope
from .attempt import record_of
from .claim import Claims
from .pipeline import Driver, Line, Request
from .run import Run, discard
from .steps import FULL, KEPT, Steps

if TYPE_CHECKING:
    from .subject import Download

PREPARE = "prepare"
TURN = "turn"
ATTEMPT = "attempt"
VALIDATE = "validate"
COMMIT = "commit"
RECOVER = "recover"
SUCCEEDED = "succeeded"
FAILED = "failed"

DONE = "done"
FAILURE = "failure"

MOVES = {
    PREPARE: {DONE: TURN, KEPT: SUCCEEDED},
    TURN: {DONE: ATTEMPT},
    ATTEMPT: {DONE: VALIDATE, FULL: ATTEMPT, FAILURE: RECOVER},
    VALIDATE: {DONE: COMMIT, FAILURE: RECOVER},
    COMMIT: {DONE: SUCCEEDED, FAILURE: RECOVER},
    RECOVER: {DONE: TURN},
}
"""The next state for each outcome of a state. Without a FAILURE, an exception ends the run."""

STEPS: dict[str, Callable[[Steps], str | None]] = {
    PREPARE: Steps.prepare,
    TURN: Steps.take_turn,
    ATTEMPT: Steps.attempt,
    VALIDATE: Steps.validate,
    COMMIT: Steps.commit,
    RECOVER: Steps.recover,
}
"""The step of each state. It returns its outcome; None means DONE."""

HELD = 0.0
"""What :meth:`Life.advance` returns when the run was held."""

Hold = Callable[["Life"], bool]
"""Returns whether to hold a run before its next attempt."""


class Life(Steps):
    """One run of a download, advanced in steps.

    Attributes:
        download (Download): The download.
        token (Cancellation): What cancels the run.
        state (str): The state that comes next.
    """

    # Defaults of rarely used attributes. The constructor sets the others on the object, where the
    # interpreter finds them faster.
    _request: Request | None = None
    _error: BaseException | None = None
    _hold: Hold | None = None

    def __init__(
        self,
        download: Download,
        parent: Cancellation | None = None,
        has_thread: bool = False,
    ) -> None:
        """Create a run that has not begun. Cancelling its parent token cancels it.

        Args:
            download: The download.
            parent: The parent token; None for the caller's current token.
            has_thread: A wait blocks the thread that advances the run.
        """
        self.download = download
        self.state = PREPARE
        self.until = self._limits = None
        self._record = record_of(download)
        self._moves = self._live()
        self._run = Run(parent or current(), Claims(self._moves))
        self.token = self._run.token
        self._has_thread = has_thread

    @property
    def may_be_pipelined(self) -> bool:
        """Whether the host may get pipelined requests, as far as known."""
        if self._run.attempts > 1:
            return False
        host = self._find_host()
        return host is not None and not host.health.is_resting

    @property
    def request(self) -> Request | None:
        """The request of the next attempt, for ``hold``; None if it may not be pipelined."""
        if self._request is None or self._run.attempts > 1:
            self._request = self.pipelined()
            if self._request is not None:
                self._request.trace = self._run.trace
        return self._request

    def advance(self, hold: Hold | None = None) -> float | None:
        """Continue until the run waits, or has ended.

        Args:
            hold: Called before an attempt, with this object. If it returns True, the run stops
                there, and this method returns HELD. The attempt is made by the next call.

        Returns:
            When to call this again (``time.monotonic()``), unless the token is cancelled before;
            None when the run has succeeded.

        Raises:
            DownloadError: The run failed; the target is unchanged.
            RuntimeError: The download is already running, or another running download uses its
                writer or one of its validations.
        """
        self._hold, self._request, self._run.train = hold, None, None
        outer = enter(self.token)
        try:
            until = next(self._moves, None)
        finally:
            leave(outer)
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                # Break a reference cycle between this frame and the error.
                del error
        return until

    def join(self, train: Driver) -> None:
        """Note that the held run's attempt waits for its reply in a train.

        Args:
            train: The train.
        """
        self._run.train = train

    def receive(self, line: Line) -> bool:
        """Read the reply to the held run's request.

        Args:
            line: The connection, whose next reply it is.

        Returns:
            Whether the reply is accepted. Then :meth:`advance` makes the attempt with it.
            Otherwise the attempt sends the request again.
        """
        with scope(self.token):
            self.answer = line.receive()
        return self.answer is not None

    def _live(self) -> Iterator[float]:
        """Run. The interpreter knows whether a generator is still alive, as Claims require."""
        run = self._run
        if run.claims.add((self.download,)) is not None:
            self._error = RuntimeError(f"{self.download} is running already")
            run.token.close()
            return
        self._record.run, self._record.wait = run, None
        run.outlet = self._record.outlet
        try:
            if self._record.owns_context:
                self._record.running.add(id(self))
            while self.state in MOVES:
                if self._hold is not None and self.state == ATTEMPT and self._hold(self):
                    yield HELD
                self._move()
                if (until := self.until) is not None:
                    self.until = None
                    if not self._has_thread:
                        yield min(until, run.deadline or until)
                    self._sleep(until)
                    self._record.wait = None
        except BaseException as error:  # noqa: BLE001 - advance() raises it
            self._error = error
            self._fail(error)
        else:
            run.is_done = True
            if Event.SUCCEEDED in self.download.router.handlers:
                self.download.router.send(Succeeded(self.download))
        finally:
            self._end()

    def _move(self) -> None:
        """Execute steps until the run waits or may be held."""
        try:
            while self.state in MOVES:
                self.state = MOVES[self.state][STEPS[self.state](self) or DONE]
                if self.until is not None or (self.state == ATTEMPT and self._hold is not None):
                    return
        except Exception as error:
            # Don't store the error here: its traceback refers to this frame.
            if self._run.trace is not None:
                self._run.trace.end(error)
            if FAILURE not in MOVES[self.state] or not self._is_failure(error):
                raise
            self.state = MOVES[self.state][FAILURE]

    def _sleep(self, until: float) -> None:
        run = self._run
        left = until - time.monotonic()
        if self._has_thread and left > 0:
            with contextlib.suppress(Cancelled):
                run.token.wait(left)
        run.expire()
        if run.token.reason is not None:
            raise DownloadFailed(self.download, run.token.reason)

    def _is_failure(self, error: Exception) -> bool:
        """Whether the error is a failure and not a bug. If so, store it for the step RECOVER."""
        reason = self.token.reason
        if isinstance(error, DownloadError):
            self.failure = error
            if isinstance(error, ValidationError):
                # If no bytes were fetched, there is nothing to mark as wrong.
                self._record.content.is_wrong = self._record.content.is_begun
        elif reason is not None:
            self.failure = DownloadFailed(self.download, reason)
            self.failure.__cause__ = None if isinstance(error, Cancelled) else error
        return reason is not None or isinstance(error, DownloadError)

    def _fail(self, error: BaseException) -> None:
        """Clean up after a failed run. Keep only what a later run can resume."""
        self.state = FAILED
        self.leave()
        if isinstance(error, DownloadError):
            self.describe(error)
        writer = self._run.writer
        try:
            if writer is not None:
                # Not by the error's type: it may be a later error than the one about the content.
                discard(writer, self._record.content.is_wrong)
        finally:
            self.download.router.send(Failed(self.download, error))

    def _end(self) -> None:
        record, trace = self._record, self._run.trace
        record.attempt = None
        self._run.close()
        try:
            if trace is not None:
                trace.end(self._error)
                trace.run.end(self._error)
            if record.running:
                # The last run that uses an automatic context closes it.
                record.running.discard(id(self))
                if record.owns_context and record.context is not None and not record.running:
                    record.context.close()
        finally:
            self._run.claims.release()


def begin(download: Download, parent: Cancellation | None = None) -> Life:
    """Return a run of a download, for calls of :meth:`Life.advance`.

    Args:
        download: The download.
        parent: The token whose cancellation cancels the run; None for the caller's current token
            (``waiting.cancellation.current()``).
    """
    return Life(download, parent)
