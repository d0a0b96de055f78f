"""The base class of all downloads."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from . import redact
from .context import Context
from .engine.attempt import Attempt, Record, record_of
from .engine.backoff import RETRY_AFTER_MAX
from .engine.machine import Life
from .engine.protocol import Protocol
from .event import EventRouter, Handler
from .settings import Limits, Settings, Timeout, copied
from .stream import Stream
from .validation import SizeValidation, Validation
from .writer import StrPath, W_co, Writer, writer_of

if TYPE_CHECKING:
    from urllib3.util import Retry

    from .rate import RateLimiter
    from .writer import FileWriter

BLOCK = 256 * 1024
"""Bytes that are asked for at a time, unless a download says otherwise."""

# glibc unmaps blocks above its mmap threshold when they are freed, so every buffer of this size
# would fault its pages in again, which costs as much as a transfer. Freeing one larger block raises
# the threshold (mallopt(3), M_MMAP_THRESHOLD).
bytes(16 * BLOCK)

T = TypeVar("T")


class derived(Generic[T]):  # noqa: N801 - used as property is
    """A property that a subclass or an object may replace by an attribute."""

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: object, owner: type) -> T:
        # A class has none of it; whoever asks there wants the documentation.
        return self if instance is None else self._function(instance)  # type: ignore[return-value]


class Download(ABC, Generic[W_co]):
    """One file to download, as a callable.

    Calling it runs it: the call returns None, or raises an error. It can be called again, and then
    starts over. The life of a run::

        Prepared → (Sent → Replied → Fetched* → validations → published) → Succeeded
                      ↑                                        ↓
                      └──────── repaired, or tried again ←── Error → Failed

    A subclass implements :meth:`_send`, which obtains the content and passes each buffer to
    :meth:`_write`.

    Attributes:
        url (str):
            The URL of the content. It stays as given, also after a redirect.
        writer (Writer | None):
            Where the content goes. None discards it.
        validations (list[Validation]):
            The checks that the content must pass. They are applied in order.
        retries (int):
            The number of retries that handlers of the Error event may request in one run.
        retry (urllib3.util.Retry | None):
            The policy for automatic retries of transient failures. None disables them.
        timeout (Timeout | None):
            The time-outs, for protocols that use a network.
        rate_limiter (RateLimiter | None):
            Limits the number of requests a second.
        limits (Limits | None):
            Limits that the download shares with others. Those of its batch also apply.
        retry_after_max (float):
            The longest Retry-After that the download obeys (seconds). It fails if the server asks
            for a longer wait.
        mirrors (Sequence[str]):
            More URLs of the same content, for protocols that ask them.
        skip_existing (bool):
            Succeed without a request if the target already has the content (:attr:`unchanged`). It
            has an effect only with an enforced :class:`.SizeValidation` and
            :class:`.DigestValidation`, which check the file.
        router (EventRouter):
            The handlers of events.
        attachment (Any):
            Any object of yours. The library doesn't use it.
        reply (Any):
            The server's reply. None before the first one.
    """

    BLOCK = BLOCK
    """The largest buffer that is read at a time (bytes)."""

    RETRIES = 1
    """The default of ``retries``."""

    retry: Retry | None = None
    retry_after_max: float = RETRY_AFTER_MAX
    reply: Any = None
    timeout: Timeout | None = None
    rate_limiter: RateLimiter | None = None
    limits: Limits | None = None
    mirrors: Sequence[str] = ()
    skip_existing: bool = False

    _protocol: type[Protocol] = Protocol
    """The protocol's class: see
    :class:`~pulpcore.plugin.download.futures.engine.protocol.Protocol`."""

    # Python mangles names with two underscores, so they can't collide with those of a plugin's
    # subclass. The only names with one underscore are _send, _write and _protocol.

    @overload
    def __init__(self: Download[FileWriter], url: str, writer: StrPath) -> None: ...

    @overload
    def __init__(self, url: str, writer: W_co | StrPath | None) -> None: ...

    def __init__(self, url: str, writer: Writer | StrPath | None) -> None:
        """Create a download.

        Args:
            url: The URL of the content.
            writer: A writer, or the path of the file to write. None discards the content.

        Raises:
            TypeError: The writer is none of these.
        """
        self.url = url
        self.writer: W_co = writer_of(writer)
        self.validations: list[Validation] = []
        self.retries = self.RETRIES
        self.router = EventRouter()
        self.attachment: Any = None
        self.__record = Record()

    @property
    def context(self) -> Context:
        """The state shared with other downloads. By default a new context."""
        record = self.__record
        if record.context is None:
            record.context = Context()
        return record.context

    @context.setter
    def context(self, context: Context) -> None:
        record = self.__record
        record.context, record.owns_context = context, False

    @derived
    def expected_size(self) -> int | None:
        """The size of the content (bytes) by the server or a validation; None if unknown."""
        run = record_of(self).run
        if run is not None and run.total is not None:
            return run.total
        for validation in self.validations:
            if isinstance(validation, SizeValidation):
                return validation.expected
        return None

    @derived
    def position(self) -> int:
        """The number of bytes received so far."""
        return record_of(self).content.position

    @derived
    def unchanged(self) -> bool:
        """Whether the last run left the target as it is, because it already has the content.

        With ``skip_existing`` the run sends no request, and only the events Prepared and Succeeded.
        """
        protocol = record_of(self).protocol
        return protocol is not None and protocol.is_unchanged

    def register(self, event_name: str, handler: Handler) -> None:
        """Register a handler for the events of a name.

        The thread of the download calls it. An exception that it raises is logged, and doesn't stop
        the download.

        Args:
            event_name:
                The event's name, such as ``Event.SUCCEEDED``.
            handler:
                Called with the event as its only argument.

        Raises:
            ValueError:
                No event has this name.
            TypeError:
                The handler can't be called.
        """
        self.router.register(event_name, handler)

    def clone(self) -> Self:
        """Return a copy that can run independently.

        Settings and the writer are copied, and the copied writer isn't open. Context and attachment
        are shared. The copy has no handlers, validations or reply. A context that nobody has set is
        closed when none of the downloads that share it is running.

        ``copy.copy`` and ``copy.deepcopy`` return a clone as well: attachments are often ORM
        objects, and contexts hold locks.
        """
        clone = type(self).__new__(type(self))
        state: Any = object.__getstate__(self)
        # A subclass may have slots.
        values, slots = state if isinstance(state, tuple) else (state, {})
        for name, value in (values | slots).items():
            object.__setattr__(clone, name, value if name == "attachment" else copied(value))
        clone.writer = copy.copy(self.writer)
        clone.validations = []
        clone.router = EventRouter()
        # A policy has attributes that can be set; that of a class is shared anyway.
        if "retry" in values:
            clone.retry = copy.copy(self.retry)
        record = self.__record
        clone.__record = Record(self.context, record.owns_context, record.running)
        clone.reply = None
        return clone

    def __getstate__(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the state of a clone with validations and no attachment, for pickle.

        So a pickle has no handlers, context and reply either. It has the passwords in clear.
        """
        # A pickle copies all values, so a clone is only needed for what a subclass makes of it.
        has_own = type(self).clone is not Download.clone
        state: Any = object.__getstate__(self.clone() if has_own else self)
        values, slots = state if isinstance(state, tuple) else (state, {})
        values = {
            name: value.portable() if isinstance(value, Settings) else value
            for name, value in values.items()
        }
        del values["_Download__record"], values["router"]
        values |= {"attachment": None, "reply": None, "validations": list(self.validations)}
        return values, slots

    def __setstate__(self, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
        values, slots = state
        # Not by vars(), which would give each download a dict of its own, several times as large.
        for name, value in (values | slots).items():
            object.__setattr__(self, name, value)
        self.router = EventRouter()
        self.__record = Record()

    def __copy__(self) -> Self:
        return self.clone()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.clone()

    def __call__(self) -> None:
        """Run the download.

        Raises:
            DownloadError:
                The download failed, and the target is unchanged.
            RuntimeError:
                The download is already running, or another running download uses its writer or one
                of its validations.
        """
        # The interpreter itself restores the context at the end, whenever an interrupt comes.
        copy_context().run(Life(self, has_thread=True).advance)

    def stream(self) -> Stream:
        """Return the content as a readable binary file, which is fetched while it is read.

        Use it as ``with download.stream() as file:``. It is a run like any other, in a thread of
        its own: with retries, resume, validations, limits and events. A writer saves the content
        while it is read. See :class:`~pulpcore.plugin.download.futures.stream.Stream`.
        """
        return Stream(self)

    def __str__(self) -> str:
        return redact.url(str(self.url))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    @abstractmethod
    def _send(self) -> None:
        """Obtain the content, and pass each buffer to :meth:`_write`.

        Each attempt calls it once. An attempt begins at byte 0, unless the protocol can resume
        (``_protocol``).

        Raises:
            DownloadError: The attempt failed.
        """

    def _write(self, buffer: bytes) -> None:
        """Pass the next bytes to the writer, to the validations, and to handlers of Fetched.

        Args:
            buffer: The bytes; they must not be changed afterwards.

        Raises:
            DownloadError: The bytes can't be written, or a validation failed.
            Exception: The download must stop. Don't catch it.
        """
        (self.__record.attempt or Attempt.of(self)).write(buffer)
