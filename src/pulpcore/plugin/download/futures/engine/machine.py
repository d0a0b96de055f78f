"""The life of one run of a download: its states, and the moves between them.

::

       ┌──────────────────────────────────────────────┐
       ↑                                              ↓
    PREPARE → TURN → ATTEMPT → VALIDATE → COMMIT → SUCCEEDED
               ↑        ↓         ↓         ↓
               └───────────── RECOVER ──→ FAILED

A step does what belongs to a state, and its outcome decides on the next one. Between two steps the
run may have to wait: for a back-off, for what a server asked for by Retry-After, for the rate
limiter, or for a place at a host that admits only so many attempts at once. A wait needs no thread:
:meth:`Life.advance` returns until when it waits.

A pool of threads creates a life by :func:`begin` and calls :meth:`Life.advance` until that returns
None. Each time it calls again at the returned time, or when ``life.token`` is cancelled. Each life
is advanced in its own copy of the context (``copy_context()``), because several lives may take
turns in one thread.

:meth:`Download.__call__` has a thread of its own to wait in, and advances its life once.
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
"""Where each outcome of a state leads. What a state raises that has no FAILURE ends the run."""

STEPS: dict[str, Callable[[Steps], str | None]] = {
    PREPARE: Steps.prepare,
    TURN: Steps.take_turn,
    ATTEMPT: Steps.attempt,
    VALIDATE: Steps.validate,
    COMMIT: Steps.commit,
    RECOVER: Steps.recover,
}
"""What is done in each state. It returns the outcome; None for DONE."""

HELD = 0.0
"""What :meth:`Life.advance` returns when the run was held."""

Hold = Callable[["Life"], bool]
"""Whether a run is to be held before its next attempt."""


class Life(Steps):
    """One run of a download, advanced in steps.

    Attributes:
        download (Download): The download.
        token (Cancellation): What cancels the run.
        state (str): The state that comes next.
    """

    # What nearly every step reads is set in the constructor: the interpreter finds it sooner there.
    _request: Request | None = None
    _error: BaseException | None = None
    _hold: Hold | None = None

    def __init__(
        self,
        download: Download,
        parent: Cancellation | None = None,
        has_thread: bool = False,
    ) -> None:
        """Make a run that has not begun. What cancels the caller's work cancels it too.

        Args:
            download: The download.
            parent: The token of the work that the run is part of; None for that of the caller.
            has_thread: The thread that advances the run waits where that has to be.
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
        """Whether the host may be sent several requests together, for all that is known."""
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
        """Go on until the run waits, or has ended.

        Args:
            hold: Called before an attempt, with this object. If it returns True, the run stops
                there, and this method returns HELD. The attempt is made by the next call.

        Returns:
            When to call this again (``time.monotonic()``), unless the token is cancelled before;
            None when the run has succeeded.

        Raises:
            DownloadError: It failed; nothing of it is left at the target.
            RuntimeError: The download is running already, or shares a writer or a validation with
                one that is.
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
                # Or this frame and the error would hold each other.
                del error
        return until

    def join(self, train: Driver) -> None:
        """Note that the attempt of a run that is held waits for its turn in a train.

        Args:
            train: What advances the train.
        """
        self._run.train = train

    def receive(self, line: Line) -> bool:
        """Read the reply to the request of a run that is held.

        Args:
            line: The connection, of which the reply is the next one.

        Returns:
            Whether it counts. Then :meth:`advance` makes the attempt with it. If not, the attempt
            sends the request again.
        """
        with scope(self.token):
            self.answer = line.receive()
        return self.answer is not None

    def _live(self) -> Iterator[float]:
        """Run. A generator, so that the interpreter keeps whether it still runs: see Claims."""
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
        """Take steps, each where the outcome of the last one leads, until a wait or a hold."""
        try:
            while self.state in MOVES:
                self.state = MOVES[self.state][STEPS[self.state](self) or DONE]
                if self.until is not None or (self.state == ATTEMPT and self._hold is not None):
                    return
        except Exception as error:
            # Nothing here keeps the error, whose traceback holds this frame.
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
        """Whether it is a failure of the attempt and no bug; noted for the step that recovers."""
        reason = self.token.reason
        if isinstance(error, DownloadError):
            self.failure = error
            if isinstance(error, ValidationError):
                # Empty content isn't kept anyway.
                self._record.content.is_wrong = self._record.content.is_begun
        elif reason is not None:
            self.failure = DownloadFailed(self.download, reason)
            self.failure.__cause__ = None if isinstance(error, Cancelled) else error
        return reason is not None or isinstance(error, DownloadError)

    def _fail(self, error: BaseException) -> None:
        """Leave nothing of the run, but what a later run can go on with."""
        self.state = FAILED
        self.leave()
        if isinstance(error, DownloadError):
            self.describe(error)
        writer = self._run.writer
        try:
            if writer is not None:
                # The error may be another one: that of all sources, or of the end of a wait.
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
                # If nobody has set the context, it ends with the last run that uses it.
                record.running.discard(id(self))
                if record.owns_context and record.context is not None and not record.running:
                    record.context.close()
        finally:
            self._run.claims.release()


def begin(download: Download, parent: Cancellation | None = None) -> Life:
    """Return a run of a download that is driven by :meth:`Life.advance`.

    What cancels the work that it is part of cancels the run.

    Args:
        download: The download.
        parent: The token of that work; None for that of the caller
            (``waiting.cancellation.current()``).
    """
    return Life(download, parent)
