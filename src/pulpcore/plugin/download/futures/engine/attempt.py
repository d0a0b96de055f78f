"""One attempt of a run: what ``_send`` may ask of the engine, and the way of each buffer."""

from __future__ import annotations

import functools
import operator
import time
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from ..error import DownloadFailed, ValidationError, transient
from ..event import Event, Fetched, Replied, Restarted, Sent
from ..settings import Limits, Timeout
from ..waiting.cancellation import current
from . import partial
from .claim import Claims
from .content import Content, can_restart, unwritable
from .protocol import protocol_of
from .run import Ended, Run, Wait

if TYPE_CHECKING:
    from ..context import Context
    from ..writer import Writer
    from .breaker import Breaker
    from .outlet import Outlet
    from .protocol import Protocol
    from .sources import Tour
    from .subject import Download
    from .tracing import Tracing


class _Waits:
    """What the check of the server's speed asks of an attempt: how much came, and our own waits.

    Attributes:
        fetched (int): How much of the content came in the attempt (bytes).
    """

    fetched = 0
    _is_waiting = _has_waited = False
    _is_first = True

    def __init__(self, download: Download, run: Run, protocol: Protocol) -> None:
        """Begin an attempt.

        Args:
            download: The download.
            run: The run.
            protocol: What the protocol knows in this run.
        """
        self._download, self._run, self.protocol = download, run, protocol
        self.content, self.trace = record_of(download).content, run.trace
        self.chosen: str | None = None
        self.is_announced = False

    def wait_for_turn(self, host: Hashable = None) -> None:
        """Wait until another request may be sent.

        Args:
            host: Where it is sent to; None for the host of the download.

        Raises:
            Cancelled: The run was cancelled.
        """
        if self._run.token.reason is not None:
            # It may have been cancelled since the attempt began, such as while ``auth`` ran.
            self._run.token.check()
        if self._is_first:
            # The engine has just asked the rate limiter, before the attempt.
            self._is_first = False
            return
        limiter = self._download.rate_limiter
        if limiter is not None and (delay := limiter.delay()) > 0:
            self.wait_by(functools.partial(self._run.token.wait, delay))

    def wait_by(self, wait: Callable[[], object]) -> None:
        """Wait for something of our own, which isn't slowness of the server's.

        Args:
            wait: What waits.

        Raises:
            Cancelled: The run was cancelled.
        """
        self._is_waiting = self._has_waited = True
        wait()
        self._is_waiting = False

    def progress(self) -> int | None:
        """Return all bytes that came so far; None if it waited for its turn since the last call."""
        waited, self._has_waited = self._has_waited, self._is_waiting
        return None if waited else self.fetched


class Attempt(_Waits):
    """One attempt. It is made anew for each.

    Attributes:
        protocol (Protocol): What the protocol knows in this run.
        content (Content): What is here of the content.
        chosen (str | None): The URL to ask in place of that of the download; None for that.
        began (float): When it last stopped waiting for its turn (``time.monotonic()``).
        breaker (Breaker | None): The circuit breaker of the host.
        is_announced (bool): The head of the reply is there, and handlers know it.
        is_sending (bool): It got as far as to send.
        is_exchanged (bool): It ended because a handler exchanged the writer or a validation.
        limits (tuple[Limits, ...]): The limits of the download.
        is_full (bool): It ended because the limits allow no more connections to a host now.
        answer (Any): The reply if its request was pipelined and the reply counts; else None.
        trace (Requests | None): Traces the requests of the run; None for nothing.
        tour (Tour | None): The sources of the file; None if its URL is the only one.
        helped (int): How much of the content other sources brought in it (bytes).
    """

    began: float
    limits: tuple[Limits, ...] = ()
    breaker: Breaker | None = None
    answer: Any = None
    tour: Tour | None = None
    helped = 0
    is_sending = is_exchanged = is_full = False

    @classmethod
    def of(cls, download: Download) -> Attempt:
        """Return the attempt that a download is making; for its ``_send``.

        Args:
            download: The download. A class that overrides ``__call__`` may call its ``_send``
                outside of a run: then this is an attempt that belongs to none.
        """
        record = record_of(download)
        if record.attempt is None:
            # No engine drives this run, so it must claim nothing. The claims of a generator that
            # never starts don't count.
            run = record.run = Run(current(), Claims(None for _ in range(0)))
            run.writer, run.validations = download.writer, list(download.validations)
            protocol = record.protocol = protocol_of(type(download))()
            record.attempt = cls(download, run, protocol)
        return record.attempt

    # For protocols.

    @property
    def source(self) -> str:
        """The URL that this attempt asks: that of the download, or one of its mirrors."""
        return self._download.url if self.chosen is None else self.chosen

    @property
    def position(self) -> int:
        """How much of the content is here (bytes)."""
        return self.content.position

    def announce(self, reply: Any = None) -> None:
        """Say that the head of the reply is there. Only the first time in an attempt counts.

        Args:
            reply: The reply.

        Raises:
            DownloadError: A handler exchanged the writer or a validation, and that can't be.
        """
        if self.is_announced:
            return
        self.is_announced = True
        download, run = self._download, self._run
        download.reply = reply
        if Event.SENT in download.router.handlers:
            download.router.send(Sent(download))
        if Event.REPLIED in download.router.handlers:
            download.router.send(Replied(download))
        if download.writer is not run.writer or download.validations != run.validations:
            # Not only handlers change them: hooks of ``auth`` may, too.
            self.adopt()

    def expect(self, total: int | None) -> None:
        """Say which size the whole of the content has.

        Args:
            total: The size (bytes); None where it isn't known.
        """
        self._run.total = total

    def note(self, note: str | None) -> None:
        """Have the writer keep what comes for a later run, if it was made with ``resume=True``.

        Args:
            note: What tells the version of the content; None if it can't be told.

        Raises:
            DownloadFailed: It can't be written.
        """
        partial.remember(self._run.writer, note)

    def can_start_over(self) -> bool:
        """Return whether :meth:`start_over` would work."""
        return self.content.can_restart(self._run.writer, self._run.validations)

    def start_over(self, problem: str = "it can't be started again") -> None:
        """Start again at byte 0, also in the middle of an attempt, if anything is here.

        Args:
            problem: What to say where that isn't possible.

        Raises:
            DownloadFailed: It isn't possible.
        """
        if not self.content.is_begun:
            return
        if not self.can_start_over():
            raise DownloadFailed(f"{problem}: its writer or a validation can't be reset")
        _restart(self.content, self._download, self._run)

    @property
    def is_mixed(self) -> bool:
        """Whether what is here came from more than one source."""
        return self.content.is_mixed

    def can_mix(self) -> bool:
        """Return whether what is here may be continued from another source of the same content.

        It may as long as it can be fetched anew, if the digest shows that it doesn't belong
        together. The reader of a stream has seen the first bytes, so they can't.
        """
        run = self._run
        return (
            self.chosen is not None
            and run.may_mix
            and run.outlet is None
            # Not can_start_over(): before the first byte it is always True, and a mirror may
            # already be asked for a part.
            and can_restart(run.writer, run.validations)
        )

    def mix(self) -> None:
        """Note that what comes next is from another source than what is here."""
        self.content.is_mixed = True

    def connect_timeout(self) -> float | None:
        """Return how long a connection may take to be made: no longer than the run has left.

        Returns:
            The limit in seconds; None for no limit.
        """
        timeout, left = self._download.timeout, self._run.time_left()
        seconds = timeout.connect if isinstance(timeout, Timeout) else None
        return seconds if left is None else left if seconds is None else min(seconds, left)

    def note_life(self) -> None:
        """Tell the circuit breaker that the host is up, before all of the content is here."""
        if self.breaker is not None and self.breaker.has_failed:
            self.breaker.succeeded()

    def note_success(self) -> None:
        """Remember for other files that the host is up, and which source has brought this one."""
        if self.breaker is not None and self.breaker.has_failed:
            self.breaker.succeeded()
        if self.tour is not None:
            size, seconds = self.fetched - self.helped, time.monotonic() - self.began
            self.tour.succeeded(size, seconds, is_alone=not self._run.may_mix)

    # For the engine.

    def write(self, buffer: bytes) -> None:
        """Take the next bytes of the content: writer, validations, then the Fetched event.

        Args:
            buffer: The bytes.

        Raises:
            DownloadError: They can't be written, or a validation failed.
            Cancelled: The run was cancelled.
        """
        if not buffer:
            return
        run, content, download = self._run, self.content, self._download
        if run.token.reason is not None:
            run.token.check()
        if not self.is_announced:
            self.announce()
        if download.writer is not run.writer or download.validations != run.validations:
            self.adopt()
        if not content.is_begun:
            content.begin(run.writer, run.validations)
        self.fetched += content.take(buffer, run.writer, run.validations)
        if run.outlet is not None or Event.FETCHED in download.router.handlers:
            _tell(self, download, run, buffer)

    def begin(self, can_resume: bool, breaker: Breaker | None) -> None:
        """Have writer and validations stand where the attempt begins.

        Args:
            can_resume: It may begin where the last one ended, for all that the protocol knows.
            breaker: The circuit breaker of the host.

        Raises:
            DownloadFailed: That isn't possible, or the breaker is open.
        """
        run, content = self._run, self.content
        if run.attempts > 1:
            run.use(self._download, content)
        if content.is_begun and not (
            can_resume and content.belongs_to(run.writer, run.validations)
        ):
            self.start_over()
        self._open(may_recall=True)
        self.breaker = breaker
        if breaker is not None and breaker.has_failed:
            breaker.admit()

    def adopt(self) -> None:
        """Go on with the writer and the validations that a handler has set.

        Raises:
            DownloadError: The others have bytes already.
        """
        run, content, download = self._run, self.content, self._download
        if download.writer is run.writer and list(download.validations) == run.validations:
            return
        if content.is_begun:
            self.is_exchanged = True
            raise transient("its writer or a validation was exchanged after bytes had come")
        run.use(download, content)
        # The reply begins at byte 0, so a partial file of an earlier run is useless.
        self._open(may_recall=False)

    def _open(self, may_recall: bool) -> None:
        writer = self._run.writer
        if writer is None or not self.protocol.has_content(self._download):
            return
        try:
            if not writer.is_open:
                writer.open()
            if not self.content.is_begun:
                if (note := writer.recall()) is not None:
                    self._recall(writer, note, may_recall)
                elif writer.resume:
                    # There is no partial file. Remove its note, or a later run would apply it to
                    # the bytes of this one.
                    writer.remember(None)
        except OSError as error:
            raise unwritable(writer, error) from error

    def _recall(self, writer: Writer, note: str, may_recall: bool) -> None:
        run, content = self._run, self.content
        known = partial.recall(
            writer, note, self._download, run, self.protocol, content, may_recall
        )
        try:
            for buffer in known:
                _tell(self, self._download, run, buffer)
        except ValidationError:
            self.start_over()


def _restart(content: Content, download: Download, run: Run) -> None:
    """Have writer, validations, the reader of a stream, and handlers start again at byte 0."""
    content.restart(run.writer, run.validations)
    if run.outlet is not None:
        run.outlet.restart()
    if Event.RESTARTED in download.router:
        download.router.send(Restarted(download))


def _tell(attempt: Attempt, download: Download, run: Run, buffer: bytes) -> None:
    """Give a buffer to the handlers, and to the reader of a stream, for which this waits."""
    if Event.FETCHED in download.router:
        download.router.send(Fetched(download, buffer, attempt.position - len(buffer)))
    if run.outlet is not None:
        run.outlet.put(buffer)
        if not run.outlet.has_room():
            attempt.wait_by(functools.partial(run.pause, run.outlet.wait_for_room))


class Record:
    """What the engine keeps of a download between its runs.

    Attributes:
        context (Context | None): What is shared with other downloads; None until it is needed.
        owns_context (bool): Nobody has set it.
        running (set[int]): The runs that use the context now: this download's and its clones'.
        content (Content): What is here of the content.
        run (Run | Ended | None): The last run.
        protocol (Protocol | None): What the protocol learned in the last run.
        attempt (Attempt | None): The attempt that is being made.
        limits (Limits | None): The limits of the batch that runs it.
        wait (Wait | None): What the run waits for now, or the batch before it lets the run begin.
        watchers (tuple[Callable[[Record], object], ...]): Called with this when a wait begins.
        outlet (Outlet | None): Where the content of the next run goes if it is read as a stream.
        tracing (Tracing | None): What traces the runs; None for nothing.
    """

    run: Run | Ended | None = None
    protocol: Protocol | None = None
    attempt: Attempt | None = None
    limits: Limits | None = None
    wait: Wait | None = None
    watchers: tuple[Callable[[Record], object], ...] = ()
    outlet: Outlet | None = None
    tracing: Tracing | None = None

    def __init__(
        self,
        context: Context | None = None,
        owns_context: bool = True,
        running: set[int] | None = None,
    ) -> None:
        """Make the record of a download that was not run.

        Args:
            context: What is shared with other downloads.
            owns_context: Nobody has set it.
            running: The runs that use the context now.
        """
        self.context = context
        self.owns_context = owns_context
        self.running = set() if running is None else running
        self.content = Content()

    def show(self, wait: Wait | None) -> None:
        """Tell those who show progress that a wait begins.

        Args:
            wait: What for; None if a run in another process gets on.
        """
        self.wait = wait
        for tell in self.watchers:
            tell(self)


# A name that Python mangles: no subclass has it by chance. It is an attribute of the download, so
# that it lives as long and is found without a lock.
record_of: Callable[[Any], Record] = operator.attrgetter("_Download__record")
"""The record of a download."""
