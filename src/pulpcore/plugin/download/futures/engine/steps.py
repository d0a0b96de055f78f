"""The steps of a run, one for each state of the machine (see ``engine.machine``)."""

from __future__ import annotations

import functools
import logging
import operator
import time
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from .. import redact
from ..error import DownloadError, DownloadFailed, Facts, MismatchError, ValidationError
from ..event import Error, Event, Prepared
from ..net.used_up import used_up
from ..settings import Limits, Timeout
from . import backoff, existing
from .attempt import Attempt, Record, record_of
from .content import unwritable
from .host import PAUSE, Host, host_of
from .limited import LimitedAttempt, RunLimits
from .pipeline import Request
from .protocol import Protocol, protocol_of, validate
from .run import Run, Wait
from .sources import Site, Tour
from .speed import send_at_pace
from .tracing import Requests

if TYPE_CHECKING:
    from .subject import Download

log = logging.getLogger(__name__)

FULL = "full"
"""A step returns this if the host has no free place. The step is then repeated."""

KEPT = "kept"
"""The first step returns this if the target already has the content."""

# Ways to try the same source again without spending a retry: fetch the whole file from it alone,
# because the parts from several sources don't belong to one version; have the protocol read the
# content in its other way; or use the writer and validations that a handler has replaced.
_ALONE, _OTHERWISE, _EXCHANGED = "alone", "otherwise", "exchanged"

# Calls the method that obtains the content.
_send = operator.methodcaller("_send")


class _Prospects:
    """Decides what a run can still do after an attempt failed."""

    download: Download
    _run: Run
    _record: Record
    _protocol: Protocol
    _attempt: Attempt
    _has_content: bool
    # The host's state, its key, and the number of the attempt that they belong to.
    _host: Host | None = None
    _host_key: Hashable = None
    _host_of = 0
    # The mismatch after which the protocol reads the content in its other way.
    _mismatch: DownloadError | None = None
    _has_switched = False
    _limits: RunLimits | None = None
    _tour: Tour | None = None
    until: float | None = None
    answer: Any = None

    def _can_go_on(self, error: DownloadError) -> bool:
        """Return whether another attempt is possible. Note whether it may resume."""
        run, attempt, content = self._run, self._attempt, self._record.content
        run.budget.progress(content.position)
        run.can_continue = (
            attempt.is_sending and not content.is_torn and not isinstance(error, ValidationError)
        )
        if run.token.reason is not None:
            return False
        return (
            not content.is_begun
            or attempt.can_start_over()
            or (run.can_continue and self._protocol.can_resume(self.download))
        )

    def _has_alternative(self, error: DownloadError) -> bool:
        """Return whether the protocol can read the wrong content in another way, once a run."""
        return (
            self._protocol.has_alternative
            and not self._has_switched
            and isinstance(error, MismatchError)
        )

    def _free_way(self, error: DownloadError) -> str | None:
        """Return how to try the same source again without a retry; None if it wouldn't help."""
        if self._record.content.is_mixed and isinstance(error, ValidationError):
            return _ALONE
        if self._has_alternative(error):
            return _OTHERWISE
        return _EXCHANGED if self._attempt.is_exchanged and self._can_repair() else None

    def _can_move(self, error: DownloadError) -> bool:
        """Return whether to ask the next source, which may have to begin at byte 0."""
        return (
            self._tour is not None
            and self._tour.has_next
            and not error.local
            and not self._attempt.is_exchanged
            and self._run.token.reason is None
            and (not self._record.content.is_begun or self._attempt.can_start_over())
        )

    def _delay(self, error: DownloadError) -> float | None:
        """Return the back-off before the next attempt (seconds); None if there is none."""
        breaker, budget = self._attempt.breaker, self._run.budget
        if self._tour is not None and not (error.local or self._attempt.is_exchanged):
            found = self._tour.transient(self.download.retry_after_max)
            return None if found is None else budget.delay(found)
        return None if breaker is not None and breaker.is_open else budget.delay(error)

    def _can_repair(self) -> bool:
        return self._run.repairs < self.download.retries


class Steps(_Prospects):
    """The steps of one run. The machine decides on their order.

    Attributes:
        download (Download): The download.
        failure (DownloadError): The error of the last attempt, until :meth:`recover` handles it.
        until (float | None): When the next step is due (``time.monotonic()``); None for at once.
        answer (Any): The reply to a pipelined request, for the next attempt; None without one.
    """

    failure: DownloadError

    def prepare(self) -> str | None:
        """Call the handlers of Prepared, claim the writer, and check the settings.

        Returns:
            KEPT if the target has the content already, and ``skip_existing`` is set; else None.

        Raises:
            DownloadFailed: A setting is invalid.
            RuntimeError: Another running download uses the writer or a validation.
        """
        download, run = self.download, self._run
        if self._record.tracing is not None:
            run.trace = Requests(self._record.tracing.begin(download))
        download.reply = None
        self._protocol = self._record.protocol = protocol_of(type(download))()
        if Event.PREPARED in download.router.handlers:
            download.router.send(Prepared(download))
        run.use(download, self._record.content)
        _check(download, self._protocol, self._record.limits)
        if download.limits is not None or self._record.limits is not None:
            self._limits = RunLimits(run, download)
        run.policy = download.retry, download.retry_after_max
        timeout = download.timeout
        if isinstance(timeout, Timeout) and timeout.total is not None:
            run.limit(timeout.total)
        # A stream needs the content itself, even if the target has it already.
        is_read = run.outlet is not None
        if download.skip_existing and not is_read and self._protocol.has_content(download):
            self._record.show(Wait("checking the file that is there"))
            self._protocol.is_unchanged = existing.has_content(download, run)
            self._record.wait = None
        return KEPT if self._protocol.is_unchanged else None

    def take_turn(self) -> None:
        """Create the next attempt, and ask the rate limiter when it may begin."""
        download, run, limiter = self.download, self._run, self.download.rate_limiter
        run.attempts += 1
        run.total, self._protocol.status = None, 0
        if self._limits is None:
            attempt = Attempt(download, run, self._protocol)
        else:
            attempt = LimitedAttempt(download, run, self._protocol, self._limits)
        self._attempt = self._record.attempt = attempt
        if download.mirrors:
            self._tour = attempt.tour = _tour(self._tour, download, self._protocol)
            attempt.chosen = None if self._tour is None else self._tour.source
        if limiter is not None and (delay := limiter.delay()) > 0:
            self._wait(time.monotonic() + delay, "the limit of requests a second")

    def attempt(self) -> str | None:
        """Make the attempt: take a place at the host, and let the protocol send.

        Returns:
            FULL if the host admits no more attempts now; else None.

        Raises:
            DownloadError: The attempt failed.
            Exception: A bug, or how the protocol reacted to a cancellation.
        """
        run, attempt = self._run, self._attempt
        attempt.began = time.monotonic()
        if run.token.reason is not None:
            run.token.check()
        if run.attempts > 1:
            # A handler of Error may have changed them.
            _check(self.download, self._protocol, self._record.limits)
        # Before the writer is opened: whoever waits for a place holds no file descriptor.
        host, limits = self._find_host(), self._limits
        if limits is not None:
            until = limits.enter(self._host_key)
            if until is not None:
                self._wait(until, "the limit of connections to a host")
                return FULL
        if host is not None and (until := host.enter(run)) is not None:
            self._wait(until, "the server admits no more connections")
            if limits is not None:
                limits.leave()
            return FULL
        attempt.begin(
            run.can_continue and self._protocol.can_resume(self.download),
            None if host is None else host.breaker,
        )
        attempt.is_sending = True
        attempt.answer, self.answer = self.answer, None
        self._send(attempt)
        if not attempt.is_announced:
            attempt.announce()
        if host is not None:
            host.leave(run)
        if limits is not None:
            limits.leave()
        return None

    def validate(self) -> None:
        """Apply the validations.

        Raises:
            ValidationError: The content is not what was expected.
        """
        if self._run.trace is not None:
            self._run.trace.end()
        self._has_content = self._protocol.has_content(self.download)
        if self._has_content:
            self._attempt.adopt()
            for validation in self._run.validations:
                validation()

    def commit(self) -> None:
        """Have the writer publish the content. A stream's reader must have asked for the end.

        Raises:
            DownloadFailed: The writer can't publish it.
            Cancelled: The stream was closed before its end.
        """
        writer, attempt, outlet = self._run.writer, self._attempt, self._run.outlet
        if outlet is not None:
            outlet.complete()
            self._run.pause(outlet.wait_for_end)
        if writer is not None:
            if self._has_content:
                # If close() fails, the writer's content is unknown.
                self._record.content.is_torn = True
                try:
                    writer.close()
                except OSError as error:
                    raise unwritable(writer, error) from error
            else:
                writer.discard()
        attempt.note_success()

    def recover(self) -> None:
        """Decide how to continue after an attempt failed.

        Raises:
            DownloadError: The run fails with this error.
        """
        run = self._run
        error = self.failure
        del self.failure
        try:
            if self._mismatch is not None and isinstance(error, MismatchError):
                # The content is wrong both ways. Report the error of the usual way, and retry in
                # that way.
                error, self._mismatch = self._mismatch, None
                self._protocol.is_alternative = False
            run.expire()
            if self._is_crowded(error):
                self._wait(time.monotonic() + PAUSE, "the server admits no more connections")
                return
            self._examine(error)
            if run.token.reason is not None and error.reason != run.token.reason:
                error, cause = DownloadFailed(self.download, run.token.reason), error
                error.__cause__ = cause
            self.describe(error)
            if not self._go_on(error):
                if (summary := _summary(self._tour, error, run)) is None:
                    raise error
                raise summary from error
        finally:
            # Otherwise the error and this frame would refer to each other.
            del error

    def leave(self) -> None:
        """Give back the place at the host. Do nothing if the run has none."""
        if self._limits is not None:
            self._limits.leave()
        if self._host is not None:
            self._host.forget(self._run)

    def _is_crowded(self, error: DownloadError) -> bool:
        """Return whether the host only refused a surplus attempt, which costs no retry."""
        self.leave()
        if self._attempt.is_full:
            return self._can_go_on(error)
        return (
            error.refused
            and self._host is not None
            and not self._can_move(error)
            and self._can_go_on(error)
            and self._host.is_crowded(self._run, self._attempt.began)
        )

    def _go_on(self, error: DownloadError) -> bool:
        """Call the handlers of Error. Return whether there is another attempt."""
        run, download = self._run, self.download
        possible = self._can_go_on(error)
        free = self._free_way(error) if possible else None
        moves = possible and free is None and self._can_move(error)
        if self._tour is not None and not (free or error.local or run.token.reason):
            self._tour.failed(error, time.monotonic() - self._attempt.began)
        delay = self._delay(error) if possible and not moves else None
        retrying = moves or free is not None or delay is not None
        event = Error(download, error, retrying=retrying)
        download.router.send(event)
        is_repaired = possible and event.repaired and self._can_repair()
        if run.token.reason is None and (free or is_repaired):
            if free == _ALONE:
                run.may_mix = False
            elif free == _OTHERWISE and not is_repaired:
                # Without the traceback, whose frames hold this object.
                self._mismatch, self._has_switched = error.with_traceback(None), True
                self._protocol.is_alternative = True
            else:
                run.repairs += 1
        elif moves and self._tour is not None and run.token.reason is None:
            self._tour.advance()
        elif delay is not None:
            run.budget.spend()
            until = time.monotonic() + delay
            if self._tour is not None:
                self._tour.again(download.retry_after_max, until)
            log.info("%s; trying again in %.1f s", error, delay)
            asked = run.budget.asked(error)
            why = "the server asked for it" if asked else "it then tries again"
            self._wait(until, f"{why} ({error.reason})")
        else:
            return False
        return True

    def pipelined(self) -> Request | None:
        """Return the request of the first attempt; None if it may not be pipelined."""
        host = self._find_host() if self._run.attempts == 1 else None
        return None if host is None else self._protocol.pipelined(self.download, host.health)

    # Helpers of the steps.

    def _find_host(self) -> Host | None:
        """Return the state of the attempt's host; None if no context shares it."""
        if self._host_of != self._run.attempts:
            record, self._host = self._record, None
            shared = None if record.owns_context else record.context
            if shared is not None or self._limits is not None:
                key = self._host_key = self._protocol.host(self.download)
                if shared is not None and key is not None:
                    # All downloads that share the context share the host's state.
                    self._host = host_of(shared, key)
            self._host_of = self._run.attempts
        return self._host

    def _wait(self, until: float, why: str) -> None:
        """Let the machine wait before the next step."""
        self.until = until
        self._record.show(Wait(why, until))

    def _send(self, attempt: Attempt) -> None:
        """Let the protocol send. Too low a speed ends the attempt, but not the run."""
        timeout, token = self.download.timeout, self._run.token
        if self._run.trace is not None and not self._protocol.has_requests:
            self._run.trace.begin("", redact.url(attempt.source), {})
        if not isinstance(timeout, Timeout) or timeout.least_speed is None:
            _send(self.download)
            if token.reason is not None:
                # Cancelling shuts the socket down, which the reader sees as an end of file.
                token.check()
            return
        send = functools.partial(_send, self.download)
        send_at_pace(send, token, timeout.least_speed, timeout.window, attempt.progress)

    def _examine(self, error: DownloadError) -> None:
        """Tell the circuit breaker what a failure says about the host."""
        attempt = self._attempt
        if not error.local and (what := used_up(error)) is not None:
            error.local, error.reason = True, f"{what}: {error.reason}"
        if error.local:
            return
        if self._can_move(error):
            # The breaker doesn't count this failure, because another source may have the file.
            return
        if attempt.breaker is not None and attempt.is_sending and self._run.token.reason is None:
            is_up = self._protocol.is_up(error)
            if is_up:
                attempt.breaker.succeeded()
            elif is_up is not None:
                attempt.breaker.failed(attempt.began)

    def describe(self, error: DownloadError) -> None:
        """Store the download and its facts in an error.

        Args:
            error: The error.
        """
        if error.download is None:
            error.download = self.download
        # A handler may run another download, whose error has its own facts.
        if error.facts is None and error.download is self.download:
            error.facts = _facts(self.download, self._run, self._protocol)


def _summary(tour: Tour | None, error: DownloadError, run: Run) -> DownloadError | None:
    """Return an error that names every source; None if the last error is enough."""
    if tour is None or error.local or run.token.reason is not None:
        return None
    return tour.summary()


def _facts(download: Download, run: Run, protocol: Protocol) -> Facts:
    return Facts(
        url=str(download),
        received=record_of(download).content.received if run.attempts else 0,
        expected=download.expected_size,
        status=protocol.status,
        attempt=run.attempts,
        seconds=time.monotonic() - run.began,
    )


def _tour(tour: Tour | None, download: Download, protocol: Protocol) -> Tour | None:
    """Return the tour through the sources of a file; None if its URL is the only one.

    Args:
        tour: The tour so far. It is replaced if a handler has changed the URL.
        download: The download.
        protocol: Its protocol.
    """
    if tour is not None and tour.home == download.url:
        return tour
    sources, once = protocol.sources(download), download.context.cache.once
    if not sources:
        return None
    return Tour(
        sources,
        # Downloads with the same context share the state of an origin.
        lambda url: once(("site", protocol.site(url)), Site),
        keep_first=protocol.is_conditional(download),
    )


def _check(download: Download, protocol: Protocol, shared: Limits | None) -> None:
    """Check the settings of a download.

    Args:
        download: The download.
        protocol: Its protocol.
        shared: The limits of the batch.

    Raises:
        DownloadFailed: A setting is wrong.
    """
    try:
        policy, longest = download.retry, download.retry_after_max
        if policy is not backoff.DEFAULT or longest is not backoff.RETRY_AFTER_MAX:
            backoff.check(policy, longest)
        protocol.check(download)
        if download.rate_limiter is not None:
            _check_limiter(download.rate_limiter)
        if download.limits is not None:
            validate(limits=Limits.of(download.limits))
        if shared is not None:
            validate(limits=Limits.of(shared))
    except (TypeError, ValueError) as error:
        raise DownloadFailed(download, f"a setting is wrong: {error}") from error


def _check_limiter(limiter: object) -> None:
    if not hasattr(limiter, "delay"):
        kind = type(limiter).__name__
        raise TypeError(f"rate_limiter: must be a RateLimiter or None, not {kind}")
