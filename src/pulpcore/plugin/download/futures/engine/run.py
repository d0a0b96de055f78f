"""The state of one run of a download."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from math import ceil, inf
from typing import TYPE_CHECKING, Any, NamedTuple

from ..error import DownloadFailed
from ..waiting.cancellation import Cancellation
from ..waiting.timer import Alarm, timer
from ..writer import Writer, writer_of
from .backoff import Budget
from .claim import Claims
from .content import Content, reset

if TYPE_CHECKING:
    from urllib3.util import Retry

    from ..validation import Validation
    from .outlet import Outlet
    from .pipeline import Driver
    from .subject import Download
    from .tracing import Requests

log = logging.getLogger(__name__)


class Wait(NamedTuple):
    """A wait of a run, for progress monitors.

    Attributes:
        why (str): What the run waits for, or what it does instead of fetching.
        until (float | None): When the wait ends (``time.monotonic()``); ``math.inf`` if nobody
            knows; None if it isn't a wait, but work.
    """

    why: str
    until: float | None = None

    @property
    def left(self) -> float:
        """How long the wait still takes (seconds)."""
        return 0.0 if self.until is None else max(self.until - time.monotonic(), 0.0)

    def moved(self, seconds: float) -> Wait:
        """Return the same wait on another clock.

        Args:
            seconds: The time of that clock minus the time of this one.
        """
        return Wait(self.why, None if self.until is None else self.until + seconds)

    def __str__(self) -> str:
        if self.until is None:
            return self.why
        return f"waiting{'' if self.until == inf else f' {ceil(self.left)} s'}: {self.why}"


class Ended(NamedTuple):
    """The outcome of a run in another process.

    Attributes:
        total (int | None): The size of the content (bytes), if the server has sent it.
        is_done (bool): The run has succeeded.
    """

    total: int | None
    is_done: bool


class Run:
    """One run of a download.

    Attributes:
        token (Cancellation): The cancellation token of the run.
        policy (tuple[Retry | None, float]): The retry policy, and the longest accepted Retry-After.
        began (float): When it began (``time.monotonic()``).
        attempts (int): The number of attempts so far.
        repairs (int): How often handlers have set ``repaired``.
        is_done (bool): The run has succeeded.
        can_continue (bool): The last attempt failed, but its bytes can be continued.
        may_mix (bool): One source may continue the content of another one.
        total (int | None): The size of the content (bytes), if the server has sent it.
        left (float): When an attempt of it last ended successfully.
        refused_alone (float): When the host last refused it although no other attempt was there.
        was_late (bool): The host may have refused it because it hadn't seen another one end yet.
        deadline (float | None): The end of its total time limit (``time.monotonic()``).
        claims (Claims): The objects that no other run may use meanwhile.
        writer (Writer | None): The writer that it has claimed.
        validations (list[Validation]): The validations that it has claimed.
        train (Driver | None): The train in which its attempt waits for its turn.
        outlet (Outlet | None): Passes the content to the reader of a stream.
        trace (Requests | None): Traces the requests, while it runs.
    """

    # Class attributes for values that most runs never set and rarely read. Setting these for each
    # run would take longer.
    policy: tuple[Retry | None, float]
    repairs = 0
    is_done = can_continue = was_late = False
    may_mix = True
    total: int | None = None
    left = refused_alone = -inf
    deadline: float | None = None
    train: Driver | None = None
    _budget: Budget | None = None
    _late = ""
    _alarm: Alarm | None = None

    def __init__(self, parent: Cancellation | None, claims: Claims) -> None:
        """Begin a run.

        Args:
            parent: What cancels the run, too.
            claims: The claims of the run.
        """
        self.claims = claims
        self.attempts = 0
        self.writer: Writer | None = None
        self.validations: list[Validation] = []
        self.outlet: Outlet | None = None
        self.trace: Requests | None = None
        self.token = Cancellation(parent)
        self.began = time.monotonic()

    @property
    def budget(self) -> Budget:
        """The retry budget. Few runs need one, so the first failure creates it."""
        if self._budget is None:
            self._budget = Budget(*self.policy)
        return self._budget

    def use(self, download: Download, content: Content) -> None:
        """Claim the writer and the validations that a download has now, and release others.

        Args:
            download: The download.
            content: The content fetched so far.

        Raises:
            DownloadFailed: The writer has a wrong type.
            RuntimeError: Another running download uses one of them.
        """
        writer: Any = download.writer
        if writer is not None and not isinstance(writer, Writer):
            # A path that was set later becomes a writer.
            try:
                writer = download.writer = writer_of(writer)
            except TypeError as error:
                raise DownloadFailed(f"a setting is wrong: {error}") from error
        validations = list(download.validations)
        used: list[object] = list(validations)
        if writer is not None:
            # Two writers may share a file object of the caller's, such as those of a clone.
            used += [writer] if (fp := writer.fp) is None else [writer, fp]
        if (thing := self.claims.add(used)) is not None:
            raise RuntimeError(f"{download} shares {thing!r} with a download that is running")
        before, self.writer, self.validations = self.writer, writer, validations
        if before is not None and before is not writer:
            discard(before)
        if before is not None or self.attempts:
            self.claims.keep([download, *used])
        if not content.is_begun:
            reset(validations)

    def time_left(self) -> float | None:
        """Return how much of the total time limit is left (seconds); None without one."""
        if self.deadline is None:
            return None
        # A time-out of 0 would mean something else to a socket.
        return max(self.deadline - time.monotonic(), 0.001)

    def limit(self, seconds: float) -> None:
        """Set the total time limit, after which the run is cancelled.

        Args:
            seconds: The limit, counted from the beginning of the run.
        """
        self._late = f"it was not done within the total limit of {seconds:g} s"
        self.deadline = self.began + seconds
        left = self.deadline - time.monotonic()
        self._alarm = timer.set(left, functools.partial(self.token.cancel, self._late))

    def pause(self, wait: Callable[[], object]) -> None:
        """Wait for something that the time limit doesn't count, such as the reader of a stream.

        Args:
            wait: The function that waits.

        Raises:
            Cancelled: The run was cancelled.
        """
        if self.deadline is None or self._alarm is None:
            wait()
            return
        timer.cancel(self._alarm)
        left = self.deadline - time.monotonic()
        wait()
        self.deadline = time.monotonic() + left
        self._alarm = timer.set(left, functools.partial(self.token.cancel, self._late))

    def expire(self) -> None:
        """Cancel the run if its time is over.

        The time-out of a connection is at most the time that is left. So it expires at the same
        moment as the alarm, and the outcome must not depend on which of them is first.
        """
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.token.cancel(self._late)

    def close(self) -> None:
        """Unregister from the parent token, cancel the timer, and release the stream."""
        self.outlet = None
        self.token.close()
        if self._alarm is not None:
            timer.cancel(self._alarm)


def discard(writer: Writer, is_wrong: bool = False) -> None:
    """Discard a writer. An exception is only logged: the run has failed with another error.

    Args:
        writer: The writer.
        is_wrong: The content failed a validation, so no later run may resume from it.
    """
    try:
        if is_wrong:
            writer.remember(None)
        writer.discard()
    except Exception:
        log.exception("The writer %s could not be discarded", writer)
