"""The life of one download, and the loop that everything hangs on."""

from __future__ import annotations

import copy
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from . import redact
from .context import Context
from .engine import backoff
from .engine.backoff import Budget
from .engine.breaker import Health
from .engine.run import Run
from .engine.speed import Pace
from .error import DownloadError, DownloadFailed, Facts, ValidationError, transient
from .event import (
    Error,
    Event,
    EventRouter,
    Failed,
    Fetched,
    Handler,
    Prepared,
    Replied,
    Restarted,
    Sent,
    Succeeded,
)
from .settings import Settings, Timeout
from .validation import SizeValidation, Validation, can_reset
from .waiting.cancellation import Cancelled, current, scope
from .writer import StrPath, Writer, writer_of

if TYPE_CHECKING:
    from urllib3.util import Retry

    from .rate import RateLimiter

log = logging.getLogger(__name__)

BLOCK = 256 * 1024
"""Bytes that are asked for at a time, unless a download says otherwise."""

# Have the memory of such buffers used again. glibc would get each from the system and give it back,
# with its pages to be cleared each time, which costs as much as a transfer: until something larger
# was freed once (mallopt(3), M_MMAP_THRESHOLD). What was cut to the size that came isn't.
bytes(16 * BLOCK)


class Download(ABC):
    """One file to download, as a callable.

    Calling it runs it: it returns None, or raises what went wrong; it can be called again, and
    starts over then. The life of a run (contract section 2)::

        Prepared → (Sent → Replied → Fetched* → validations → published) → Succeeded
                      ↑                                        ↓
                      └──────── repaired, or tried again ←── Error → Failed

    A subclass implements :meth:`_send`, which obtains the content and hands every buffer to
    :meth:`_write`.

    Attributes:
        url (str): Where the content is. It stays as given, whatever is redirected.
        writer (Writer | None): Where the content goes. None for nowhere.
        validations (list[Validation]): What the content must pass, applied in order.
        retries (int): How often a handler of the Error event may repair and have the download tried
            again.
        retry (urllib3.util.Retry | None): The policy for trying again without help what is
            transient; None for never.
        timeout (Timeout | None): How long to wait, for protocols that do.
        rate_limiter (RateLimiter | None): What keeps requests to a number a second.
        retry_after_max (float): The longest wait that a server may ask for (seconds); beyond it the
            download fails.
        router (EventRouter): Knows the handlers of events.
        attachment (Any): Anything; yours.
        reply (Any): The server's reply, None before there is one.
    """

    BLOCK = BLOCK
    """Bytes that are asked for at a time."""

    RETRIES = 1
    """The default of ``retries``."""

    retry: Retry | None = None
    retry_after_max: float = 120
    reply: Any = None
    timeout: Timeout | None = None
    rate_limiter: RateLimiter | None = None

    # How much of the content the writer and the validations have seen; it outlives a run, so that
    # the next one knows.
    _position = 0
    # They have seen something, if only a part of a buffer.
    _is_begun = False
    # How much has come, whether or not they took it.
    _received = 0

    # What begins with two underscores is for no subclass: Python keeps it apart from whatever a
    # plugin calls its own.

    def __init__(self, url: str, writer: Writer | StrPath | None) -> None:
        """Make a download.

        Args:
            url: Where the content is.
            writer: Where the content goes: a writer, or the path of a file. None for a download
                that does nothing, or whose content goes nowhere.

        Raises:
            TypeError: The writer is none of these.
        """
        self.url = url
        self.writer = writer_of(writer)
        self.validations: list[Validation] = []
        self.retries = self.RETRIES
        self.router = EventRouter()
        self.attachment: Any = None
        self.__context: Context | None = None
        self.__owns_context = True
        self.__running = threading.Lock()
        # Not made late: another thread may ask for it just when a run begins.
        self._run = Run(None)

    @property
    def context(self) -> Context:
        """What is shared with other downloads. One of its own, until one is set."""
        if self.__context is None:
            self.__context = Context()
        return self.__context

    @context.setter
    def context(self, context: Context) -> None:
        self.__context = context
        self.__owns_context = False

    @property
    def expected_size(self) -> int | None:
        """The size of the content (bytes), where the server or a validation says it; else None."""
        if self._run.total is not None:
            return self._run.total
        for validation in self.validations:
            if isinstance(validation, SizeValidation):
                return validation.expected
        return None

    @property
    def position(self) -> int:
        """How much of the content was fetched so far (bytes)."""
        return self._position

    def register(self, event_name: str, handler: Handler) -> None:
        """Have a handler called for each event of a name.

        It is called in the thread of the download. What it raises is logged, and stops nothing.

        Args:
            event_name: The event's name, such as ``Event.SUCCEEDED``.
            handler: Called with the event as its only argument.

        Raises:
            ValueError: No event has this name.
            TypeError: The handler can't be called.
        """
        self.router.register(event_name, handler)

    def clone(self) -> Download:
        """Return a copy that can be run by itself.

        Settings are copied; the writer is copied and not open; context and attachment are shared;
        handlers, validations and the reply stay behind.
        """
        clone = copy.copy(self)
        for name, value in vars(clone).items():
            if name != "attachment" and isinstance(value, Settings | MutableMapping | list):
                setattr(clone, name, copy.copy(value))
        clone.writer = copy.copy(self.writer)
        clone.validations = []
        clone.router = EventRouter()
        # Sharing is what a clone is for. Ending the context closes what is idle, and that only: so
        # each of them may.
        clone.__context = self.context
        clone.__owns_context = self.__owns_context
        clone.__running = threading.Lock()
        clone._run = Run(None)
        clone._position = clone._received = 0
        clone._is_begun = False
        clone._forget_reply()
        return clone

    def __call__(self) -> None:
        """Run the download.

        Raises:
            DownloadError: It failed; nothing of it is left at the target.
            RuntimeError: It is running already.
        """
        if not self.__running.acquire(blocking=False):
            raise RuntimeError(f"{self} is running already")
        self._run = run = Run(current(), Budget(self.retry, self.retry_after_max))
        try:
            with scope(run.token):
                self.__live(run)
        finally:
            run.close()
            if self.__owns_context and self.__context is not None:
                self.__context.close()
            self.__running.release()

    def __str__(self) -> str:
        return redact.url(str(self.url))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    # What a protocol does and knows.

    @abstractmethod
    def _send(self) -> None:
        """Obtain the content, and hand every buffer to :meth:`_write`.

        It is called once an attempt. An attempt begins at byte 0, unless a protocol says that it
        can resume.

        Raises:
            DownloadError: What was anticipated went wrong.
        """

    def _settings_to_check(self) -> Iterable[tuple[str, Settings | None]]:
        """The settings to validate before anything is sent, by name."""
        return ()

    def _check_settings(self) -> None:  # noqa: B027 - most protocols have nothing to add
        """Check what the settings don't.

        Raises:
            ValueError: A value can't work; the message names the attribute.
        """

    def _has_content(self) -> bool:
        """Whether there will be content; if not, the target isn't touched."""
        return True

    def _forget_reply(self) -> None:
        """Forget what the last run learned from the other side."""
        self.reply = None

    def _can_resume(self) -> bool:
        """Whether the next attempt may ask for the rest only."""
        return False

    def _recognizes(self, note: str) -> bool:
        """Whether an earlier run left what the next attempt can go on with.

        Args:
            note: What the writer was given to remember then.
        """
        return False

    def _host(self) -> Hashable:
        """What is down if attempts fail: the host; None if there is none."""
        return None

    def _is_up(self, error: DownloadError) -> bool | None:
        """Whether the host is up, as far as a failure tells; None if it doesn't."""
        return False if error.transient else None

    def _status(self) -> int:
        """The status of the last reply; 0 without one."""
        return 0

    def _announce(self, reply: Any = None) -> None:
        """Say that the head of the reply is there. Only the first time in an attempt counts.

        Args:
            reply: The reply.
        """
        if self._run.announced:
            return
        self._run.announced = True
        self.reply = reply
        if Event.SENT in self.router:
            self.router.send(Sent(self))
        if Event.REPLIED in self.router:
            self.router.send(Replied(self))

    def _expect(self, total: int | None) -> None:
        """Say which size the whole of the content has.

        Args:
            total: The size (bytes); None where it isn't known.
        """
        self._run.total = total

    def _connect_timeout(self) -> float | None:
        """How long a connection may take to be made (seconds): no longer than the run has left."""
        seconds = None if self.timeout is None else self.timeout.connect
        limits = [limit for limit in (seconds, self._run.time_left()) if limit is not None]
        return min(limits, default=None)

    def _keep_to_rate(self) -> None:
        """Wait until another request may be sent.

        Raises:
            Cancelled: The download is to stop.
        """
        self._run.token.check()
        if self.rate_limiter is not None and (delay := self.rate_limiter.delay()) > 0:
            self._run.is_waiting = self._run.has_waited = True
            self._run.token.wait(delay)
            self._run.is_waiting = False

    def _write(self, buffer: bytes) -> None:
        """Take the next bytes of the content: writer, then validations, then the Fetched event.

        Args:
            buffer: The bytes; they must not be changed afterwards.

        Raises:
            DownloadError: They can't be written, or a validation failed.
            Cancelled: The download is to stop.
        """
        if not buffer:
            return
        run = self._run
        run.token.check()
        if not run.announced:
            self._announce()
        run.torn = self._is_begun = True
        self._received = self._position + len(buffer)
        if self.writer is not None:
            try:
                self.writer.append(buffer)
            except OSError as error:
                raise self._unwritable(error) from error
        self.__take(buffer)
        run.torn = False

    def __take(self, buffer: bytes) -> None:
        self._is_begun = True
        for validation in self.validations:
            validation.update(buffer)
        offset = self._position
        self._position = self._received = offset + len(buffer)
        self._run.received += len(buffer)
        if Event.FETCHED in self.router:
            self.router.send(Fetched(self, buffer, offset))

    def _restart(self) -> None:
        """Start again at byte 0: the one operation that does, for all that have seen the content.

        Raises:
            DownloadFailed: The writer can't.
        """
        self._run.torn = True
        if self.writer is not None:
            try:
                self.writer.restart()
            except OSError as error:
                raise self._unwritable(error) from error
        for validation in self.validations:
            validation.reset()
        self._position = self._received = 0
        self._is_begun = self._run.torn = False
        if Event.RESTARTED in self.router:
            self.router.send(Restarted(self))

    # The machine.

    def __live(self, run: Run) -> None:
        try:
            self.__prepare(run)
            while not self.__attempt(run):
                pass
        except BaseException as error:
            if isinstance(error, DownloadError):
                self.__describe(error)
            try:
                self.__abandon(error)
            finally:
                self.router.send(Failed(self, error))
            raise
        run.is_done = True
        if Event.SUCCEEDED in self.router:
            self.router.send(Succeeded(self))

    def __prepare(self, run: Run) -> None:
        self._forget_reply()
        if Event.PREPARED in self.router:
            self.router.send(Prepared(self))
        try:
            for name, setting in self._settings_to_check():
                if setting is not None:
                    _validate(name, setting)
            backoff.check(self.retry, self.retry_after_max)
            self._check_settings()
        except ValueError as error:
            raise DownloadFailed(self, f"a setting is wrong: {error}") from error
        if not self._is_begun:
            for validation in self.validations:
                if can_reset(validation):
                    validation.reset()
        if self.timeout is not None and self.timeout.total is not None:
            run.limit(self.timeout.total)

    def __attempt(self, run: Run) -> bool:
        """Try once; tell whether it worked. What failed for good is raised."""
        run.attempt += 1
        run.announced = run.is_begun = False
        run.total = None
        health = run.health = self.__health()
        began = time.monotonic()
        try:
            run.token.check()
            self.__begin(run)
            if health is not None:
                health.admit()
            run.is_begun = True
            self.__send_watched(run)
            self._announce()
            self.__commit()
        except DownloadError as error:
            failure = error
        except Exception as error:
            if run.token.reason is None:
                raise
            failure = DownloadFailed(self, run.token.reason)
            failure.__cause__ = None if isinstance(error, Cancelled) else error
        else:
            if health is not None:
                health.lives()
            return True
        try:
            run.expire()
            if health is not None and run.is_begun and run.token.reason is None:
                self.__examine(health, failure, began)
            self.__recover(run, failure, health)
        finally:
            # Or it would hold this frame, which holds it, until the garbage is collected.
            del failure
        return False

    def __send_watched(self, run: Run) -> None:
        """Send under the limit of speed, which ends an attempt and not the run."""
        timeout = self.timeout
        if timeout is None or timeout.least_speed is None:
            self._send()
            # A reader that was woken saw an end of file. It isn't one.
            run.token.check()
            return
        with Pace(run.token, timeout.least_speed, timeout.window, run.progress) as pace:
            try:
                self._send()
            except Exception as error:
                if pace.reason is None or run.token.reason is not None:
                    raise
                raise transient(pace.reason) from error
            run.token.check()
            if pace.reason is not None:
                raise transient(pace.reason)

    def __health(self) -> Health | None:
        """The health of the host, as those see it who share the context."""
        host = None if self.__owns_context else self._host()
        if host is None:
            return None
        key = ("health", host)
        try:
            health: Health = self.context.cache.get(key)
        except LookupError:
            health = self.context.cache.setdefault(key, Health())
        return health

    def __examine(self, health: Health, error: DownloadError, began: float) -> None:
        """Learn from a failure whether the host lives."""
        is_up = self._is_up(error)
        if is_up:
            health.lives()
        elif is_up is not None:
            health.failed(began)

    def _note_life(self) -> None:
        """Take note of a sign of life of the host, before all of the content is here."""
        if self._run.health is not None:
            self._run.health.lives()

    def __begin(self, run: Run) -> None:
        """Have everything stand at the position where the attempt begins."""
        if self._is_begun and not (run.resume and self._can_resume()):
            if not self._can_restart():
                raise DownloadFailed(
                    self, "it can't be started again: its writer or a validation can't be reset"
                )
            self._restart()
        writer = self.writer
        if writer is None or not self._has_content():
            return
        try:
            if not writer.is_open:
                writer.open()
            if not self._is_begun:
                self.__recall(writer)
        except OSError as error:
            raise self._unwritable(error) from error

    def __recall(self, writer: Writer) -> None:
        """Go on with what an earlier run left, if it is any good."""
        note = writer.recall()
        if note is None:
            return
        if not self._can_restart() or not self._recognizes(note):
            writer.truncate()
            return
        try:
            for buffer in writer.replay(self.BLOCK):
                self._run.token.check()
                self.__take(buffer)
        except ValidationError:
            self._restart()
        self._run.resume = True

    def __commit(self) -> None:
        """Validate, and publish."""
        if not self._has_content():
            if self.writer is not None:
                self.writer.discard()
            return
        for validation in self.validations:
            validation()
        if self.writer is not None:
            # What a writer has that fails to publish isn't known.
            self._run.torn = True
            try:
                self.writer.close()
            except OSError as error:
                raise self._unwritable(error) from error

    def __recover(self, run: Run, error: DownloadError, health: Health | None) -> None:
        """Find out how to try again after an attempt failed, and wait; else raise."""
        if run.token.reason is not None and error.reason != run.token.reason:
            error, cause = DownloadFailed(self, run.token.reason), error
            error.__cause__ = cause
        self.__describe(error)
        run.budget.progress(self._position)
        run.resume = run.is_begun and not run.torn and not isinstance(error, ValidationError)
        possible = not self._is_begun or self._can_restart() or (run.resume and self._can_resume())
        hopeless = run.token.reason is not None or (health is not None and health.is_down)
        delay = run.budget.delay(error) if possible and not hopeless else None
        event = Error(self, error, retrying=delay is not None)
        self.router.send(event)
        if run.token.reason is None and possible and event.repaired and run.repairs < self.retries:
            run.repairs += 1
        elif delay is not None:
            run.budget.spend()
            log.info("%s; trying again in %.1f s", error, delay)
            try:
                run.token.wait(delay)
            except Cancelled as cancelled:
                raise DownloadFailed(self, cancelled.reason) from None
        else:
            try:
                raise error
            finally:
                del error

    def _can_restart(self) -> bool:
        return (self.writer is None or self.writer.can_restart()) and all(
            can_reset(validation) for validation in self.validations
        )

    def __abandon(self, error: BaseException) -> None:
        """Leave nothing of a run that failed, but what a later run can go on with."""
        if self.writer is not None:
            try:
                if isinstance(error, ValidationError):
                    self.writer.remember(None)
                self.writer.discard()
            except Exception:
                # What the run failed for is what is to be told.
                log.exception("The writer of %s could not be discarded", self)

    def __describe(self, error: DownloadError) -> None:
        if error.download is None:
            error.download = self
        if error.facts is None and error.download is self:
            error.facts = Facts(
                url=str(self),
                received=self._received if self._run.attempt else 0,
                expected=self.expected_size,
                status=self._status(),
                attempt=self._run.attempt,
                seconds=time.monotonic() - self._run.began,
            )

    def _unwritable(self, error: OSError) -> DownloadFailed:
        reason = error.strerror or str(error) or type(error).__name__
        return DownloadFailed(self, f"can't write to {self.writer}: {reason}")


def _validate(name: str, setting: Settings) -> None:
    try:
        setting.validate()
    except ValueError as error:
        raise ValueError(f"{name}.{error}") from error
