"""One attempt of a run: the interface for ``_send``, and the path of each buffer."""

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
    """The waits and the progress of an attempt, by which the server's speed is checked.

    Attributes:
        fetched (int): The bytes of the content that the attempt has fetched.
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
        """Wait for something on our side, so that the wait doesn't count as a slow server.

        Args:
            wait: The function that waits.

        Raises:
            Cancelled: The run was cancelled.
        """
        self._is_waiting = self._has_waited = True
        wait()
        self._is_waiting = False

    def progress(self) -> int | None:
        """Return the number of fetched bytes; None if the attempt waited since the last call."""
        waited, self._has_waited = self._has_waited, self._is_waiting
        return None if waited else self.fetched


class Attempt(_Waits):
    """One attempt. Each attempt has a new object.

    Attributes:
        protocol (Protocol): What the protocol knows in this run.
        content (Content): The content fetched so far.
        chosen (str | None): The mirror's URL to ask; None for the URL of the download.
        began (float): When it began, after its last wait for a place (``time.monotonic()``).
        breaker (Breaker | None): The circuit breaker of the host.
        is_announced (bool): The head of the reply was received, and handlers were called.
        is_sending (bool): ``_send`` was called.
        is_exchanged (bool): It ended because a handler replaced the writer or a validation.
        limits (tuple[Limits, ...]): The limits of the download.
        is_full (bool): It ended because the limits allowed no more connections to a host.
        answer (Any): The accepted reply to a pipelined request; None if there is none.
        trace (Requests | None): Traces the requests of the run; None without tracing.
        tour (Tour | None): The sources of the file; None if its URL is the only one.
        helped (int): The bytes of it that other sources sent.
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
        """Return the current attempt of a download, for its ``_send``.

        Args:
            download: The download. A class that overrides ``__call__`` may call its ``_send``
                outside of a run. It then gets an attempt without a run.
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
        """The URL that this attempt requests: the download's, or one of its mirrors."""
        return self._download.url if self.chosen is None else self.chosen

    @property
    def position(self) -> int:
        """The number of bytes fetched so far."""
        return self.content.position

    def announce(self, reply: Any = None) -> None:
        """Report that the head of the reply was received. Only an attempt's first call counts.

        Args:
            reply: The reply.

        Raises:
            DownloadError: A handler replaced the writer or a validation when it was too late.
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
        """Report the size of the whole content.

        Args:
            total: The size (bytes); None if unknown.
        """
        self._run.total = total

    def note(self, note: str | None) -> None:
        """Have the writer keep the content for a later run, if it has ``resume=True``.

        Args:
            note: A text that identifies the version of the content; None if it is unknown.

        Raises:
            DownloadFailed: The note can't be written.
        """
        partial.remember(self._run.writer, note)

    def can_start_over(self) -> bool:
        """Return whether :meth:`start_over` would work."""
        return self.content.can_restart(self._run.writer, self._run.validations)

    def start_over(self, problem: str = "it can't be started again") -> None:
        """Restart at byte 0, even in the middle of an attempt, if bytes were fetched.

        Args:
            problem: The beginning of the error message.

        Raises:
            DownloadFailed: The writer or a validation can't restart.
        """
        if not self.content.is_begun:
            return
        if not self.can_start_over():
            raise DownloadFailed(f"{problem}: its writer or a validation can't be reset")
        _restart(self.content, self._download, self._run)

    @property
    def is_mixed(self) -> bool:
        """Whether the content so far came from more than one source."""
        return self.content.is_mixed

    def can_mix(self) -> bool:
        """Return whether another source may continue the content.

        If the digest then shows that the bytes don't belong together, the whole content must be
        fetched anew. The reader of a stream can't go back, so a stream can't be continued.
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
        """Note that another source continues the content."""
        self.content.is_mixed = True

    def connect_timeout(self) -> float | None:
        """Return the time-out for connecting, which is at most the time that the run has left.

        Returns:
            The limit in seconds; None for no limit.
        """
        timeout, left = self._download.timeout, self._run.time_left()
        seconds = timeout.connect if isinstance(timeout, Timeout) else None
        return seconds if left is None else left if seconds is None else min(seconds, left)

    def note_life(self) -> None:
        """Tell the circuit breaker that the host is up, before the whole content was fetched."""
        if self.breaker is not None and self.breaker.has_failed:
            self.breaker.succeeded()

    def note_success(self) -> None:
        """Remember for other files that the host is up, and that the source worked."""
        if self.breaker is not None and self.breaker.has_failed:
            self.breaker.succeeded()
        if self.tour is not None:
            size, seconds = self.fetched - self.helped, time.monotonic() - self.began
            self.tour.succeeded(size, seconds, is_alone=not self._run.may_mix)

    # For the engine.

    def write(self, buffer: bytes) -> None:
        """Pass the next bytes to the writer, to the validations, and to handlers of Fetched.

        Args:
            buffer: The bytes.

        Raises:
            DownloadError: The bytes can't be written, or a validation failed.
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
        """Set writer and validations to the position where the attempt begins.

        Args:
            can_resume: According to the protocol, it may begin where the last attempt ended.
            breaker: The circuit breaker of the host.

        Raises:
            DownloadFailed: The writer or a validation can't restart, or the breaker is open.
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
        """Use the writer and the validations that a handler has set.

        Raises:
            DownloadError: The former ones have received bytes already.
        """
        run, content, download = self._run, self.content, self._download
        if download.writer is run.writer and list(download.validations) == run.validations:
            return
        if content.is_begun:
            self.is_exchanged = True
            raise transient("its writer or a validation was replaced after bytes had arrived")
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
    """Restart writer, validations and the stream's reader at byte 0, and tell handlers."""
    content.restart(run.writer, run.validations)
    if run.outlet is not None:
        run.outlet.restart()
    if Event.RESTARTED in download.router:
        download.router.send(Restarted(download))


def _tell(attempt: Attempt, download: Download, run: Run, buffer: bytes) -> None:
    """Pass a buffer to the handlers and to the stream's reader. Wait until the reader is ready."""
    if Event.FETCHED in download.router:
        download.router.send(Fetched(download, buffer, attempt.position - len(buffer)))
    if run.outlet is not None:
        run.outlet.put(buffer)
        if not run.outlet.has_room():
            attempt.wait_by(functools.partial(run.pause, run.outlet.wait_for_room))


class Record:
    """The engine's state of a download, which is kept between its runs.

    Attributes:
        context (Context | None): The context; None until it is needed.
        owns_context (bool): The download creates its own context, because nobody has set one.
        running (set[int]): The runs that use the context now: this download's and its clones'.
        content (Content): The content fetched so far.
        run (Run | Ended | None): The last run.
        protocol (Protocol | None): What the protocol learned in the last run.
        attempt (Attempt | None): The current attempt.
        limits (Limits | None): The limits of the batch that runs it.
        wait (Wait | None): What the run waits for now, or what the batch waits for to begin it.
        watchers (tuple[Callable[[Record], object], ...]): Called with this when a wait begins.
        outlet (Outlet | None): Where the content of the next run goes if it is read as a stream.
        tracing (Tracing | None): Traces the runs; None without tracing.
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
        """Create the record of a download that was not run.

        Args:
            context: The context; None to create one when it is needed.
            owns_context: Nobody has set the context.
            running: The runs that use the context now.
        """
        self.context = context
        self.owns_context = owns_context
        self.running = set() if running is None else running
        self.content = Content()

    def show(self, wait: Wait | None) -> None:
        """Tell progress monitors that a wait begins.

        Args:
            wait: The wait; None if a run in another process makes progress.
        """
        self.wait = wait
        for tell in self.watchers:
            tell(self)


# Python mangles the name, so no subclass uses it by chance. As an attribute, the record lives as
# long as the download and is found without a lock.
record_of: Callable[[Any], Record] = operator.attrgetter("_Download__record")
"""The record of a download."""
