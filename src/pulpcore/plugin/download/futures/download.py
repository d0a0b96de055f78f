"""The life of one download, and the loop that everything hangs on."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from . import redact
from .context import Context
from .engine.attempt import Attempt, Record, record_of
from .engine.machine import Life
from .engine.protocol import Protocol
from .event import EventRouter, Handler
from .settings import Limits, Settings, Timeout, copied
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
    """A property that a subclass, or one object of it, may replace by an attribute of its own."""

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: object, owner: type) -> T:
        # A class has none of it; whoever asks there wants the documentation.
        return self if instance is None else self._function(instance)  # type: ignore[return-value]


class Download(ABC, Generic[W_co]):
    """One file to download, as a callable.

    Calling it runs it: it returns None, or raises what went wrong; it can be called again, and
    starts over then. The life of a run::

        Prepared → (Sent → Replied → Fetched* → validations → published) → Succeeded
                      ↑                                        ↓
                      └──────── repaired, or tried again ←── Error → Failed

    A subclass implements :meth:`_send`, which obtains the content and hands every buffer to
    :meth:`_write`.

    Attributes:
        url (str):
            Where the content is. It stays as given, whatever is redirected.
        writer (Writer | None):
            Where the content goes. None for nowhere.
        validations (list[Validation]):
            What the content must pass, applied in order.
        retries (int):
            How often a handler of the Error event may repair and have the download tried again.
        retry (urllib3.util.Retry | None):
            The policy for trying again without help what is transient; None for never.
        timeout (Timeout | None):
            How long to wait, for protocols that do.
        rate_limiter (RateLimiter | None):
            What keeps requests to a number a second.
        limits (Limits | None):
            Limits that the download shares with others. They hold beside those of its batch.
        retry_after_max (float):
            The longest wait that a server may ask for (seconds); beyond it the download fails.
        skip_existing (bool):
            If the target has the content already, succeed without a request: see :attr:`unchanged`.
            It counts where a :class:`.SizeValidation` and a :class:`.DigestValidation` are
            enforced, since the file is checked by them: its size first, then its digest.
        router (EventRouter):
            Knows the handlers of events.
        attachment (Any):
            Anything; yours.
        reply (Any):
            The server's reply, None before there is one.
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
    limits: Limits | None = None
    skip_existing: bool = False

    _protocol: type[Protocol] = Protocol
    """What the protocol does beside ``_send``: see
    :class:`~pulpcore.plugin.download.futures.engine.protocol.Protocol`."""

    # What begins with two underscores is for no subclass: Python keeps it apart from whatever a
    # plugin calls its own. There are no other names with one underscore but _send, _write and
    # _protocol.

    @overload
    def __init__(self: Download[FileWriter], url: str, writer: StrPath) -> None: ...

    @overload
    def __init__(self, url: str, writer: W_co | StrPath | None) -> None: ...

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
        self.writer: W_co = writer_of(writer)
        self.validations: list[Validation] = []
        self.retries = self.RETRIES
        self.router = EventRouter()
        self.attachment: Any = None
        self.__record = Record()

    @property
    def context(self) -> Context:
        """What is shared with other downloads. One of its own, until one is set."""
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
        """The size of the content (bytes), where the server or a validation says it; else None."""
        run = record_of(self).run
        if run is not None and run.total is not None:
            return run.total
        for validation in self.validations:
            if isinstance(validation, SizeValidation):
                return validation.expected
        return None

    @derived
    def position(self) -> int:
        """How much of the content was fetched so far (bytes)."""
        return record_of(self).content.position

    @derived
    def unchanged(self) -> bool:
        """Whether the last run succeeded without content, because the target has it already.

        There was no request then, and of the events only Prepared and Succeeded. It needs
        ``skip_existing``.
        """
        protocol = record_of(self).protocol
        return protocol is not None and protocol.is_unchanged

    def register(self, event_name: str, handler: Handler) -> None:
        """Have a handler called for each event of a name.

        It is called in the thread of the download. What it raises is logged, and stops nothing.

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
        """Return a copy that can be run by itself.

        Settings are copied; the writer is copied and not open; context and attachment are shared;
        handlers, validations and the reply stay behind. A context that nobody has set is closed
        when none of those that share it runs.

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
        state: Any = object.__getstate__(self.clone())
        values, slots = state if isinstance(state, tuple) else (state, {})
        values = {
            name: value.portable() if isinstance(value, Settings) else value
            for name, value in values.items()
        }
        del values["_Download__record"], values["router"]
        values |= {"attachment": None, "validations": list(self.validations)}
        return values, slots

    def __setstate__(self, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
        values, slots = state
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
                It failed; nothing of it is left at the target.
            RuntimeError:
                It is running already, or another download that is running has its writer or one of
                its validations.
        """
        # In a context of its own: it is left by the interpreter, whenever an interrupt comes.
        copy_context().run(Life(self).finish)

    def __str__(self) -> str:
        return redact.url(str(self.url))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    @abstractmethod
    def _send(self) -> None:
        """Obtain the content, and hand every buffer to :meth:`_write`.

        It is called once an attempt. An attempt begins at byte 0, unless the protocol can resume
        (``_protocol``).

        Raises:
            DownloadError: What was anticipated went wrong.
        """

    def _write(self, buffer: bytes) -> None:
        """Take the next bytes of the content: writer, then validations, then the Fetched event.

        Args:
            buffer: The bytes; they must not be changed afterwards.

        Raises:
            DownloadError: They can't be written, or a validation failed.
            Exception: The download is to stop. Let it pass.
        """
        (self.__record.attempt or Attempt.of(self)).write(buffer)
