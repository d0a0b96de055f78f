"""Events of a download, and the router that calls their handlers.

The thread of the download calls the handlers of an event, in the order in which they were
registered. An exception that a handler raises is logged. It stops neither the other handlers nor
the download.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .download import Download
    from .error import DownloadError

log = logging.getLogger(__name__)


class Event:
    """The base class of the events of a download.

    Its constants are the names for which handlers are registered.

    Attributes:
        download (Download): The download that sends the event.
    """

    PREPARED = "PREPARED"
    """A run begins, and nothing was sent yet (:class:`Prepared`)."""

    SENT = "SENT"
    """The request was sent (:class:`Sent`)."""

    REPLIED = "REPLIED"
    """The head of the reply was received (:class:`Replied`)."""

    FETCHED = "FETCHED"
    """A buffer of the content was written (:class:`Fetched`)."""

    RESTARTED = "RESTARTED"
    """The content starts again at byte 0 (:class:`Restarted`)."""

    SUCCEEDED = "SUCCEEDED"
    """The file is complete and published (:class:`Succeeded`)."""

    FAILED = "FAILED"
    """The run raises (:class:`Failed`)."""

    ERROR = "ERROR"
    """An attempt failed (:class:`Error`)."""

    NAME = ""
    """The name for which handlers of this class are registered."""

    def __init__(self, download: Download) -> None:
        """Store the download.

        Args:
            download: The download that sends the event.
        """
        self.download = download

    @property
    def name(self) -> str:
        """The name of the event."""
        return self.NAME

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.download}>"


class Prepared(Event):
    """A run begins. The download hasn't sent anything yet.

    Sent once in each run. A handler may still change the URL, headers, user and other settings.
    """

    NAME = Event.PREPARED


class Sent(Event):
    """The download has sent the request. Sent once in each attempt."""

    NAME = Event.SENT


class Replied(Event):
    """The download has received the head of the reply (``download.reply``), and not read the body.

    Sent once in each attempt. A handler must not read or close the body: the download fails then.
    """

    NAME = Event.REPLIED


class Fetched(Event):
    """The download has fetched and written a buffer of the content.

    Attributes:
        buffer (bytes):
            The bytes.
        offset (int):
            The position of the buffer in the content (bytes).
    """

    NAME = Event.FETCHED

    def __init__(self, download: Download, buffer: bytes, offset: int = 0) -> None:
        """Store the buffer and its position.

        Args:
            download: The download that sends the event.
            buffer: The bytes.
            offset: The position of the buffer in the content (bytes).
        """
        super().__init__(download)
        self.buffer = buffer
        self.offset = offset


class Restarted(Event):
    """The download has dropped all fetched bytes, and starts again at byte 0."""

    NAME = Event.RESTARTED


class Error(Event):
    """An attempt failed.

    An attempt also fails if several mirrors brought the content in turn and it is then wrong.
    ``retrying`` is True, because the file is fetched once more from one of them alone.

    A handler that has removed the cause sets ``repaired`` to True. The download then retries
    without back-off, at most ``download.retries`` times in a run.

    Attributes:
        error (DownloadError):
            The error of the attempt.
        retrying (bool):
            The download retries even if no handler sets ``repaired``.
        repaired (bool):
            A handler sets it to request a retry.
    """

    NAME = Event.ERROR

    def __init__(self, download: Download, error: DownloadError, retrying: bool = False) -> None:
        """Store the error.

        Args:
            download: The download that sends the event.
            error: The error of the attempt.
            retrying: The download retries even if no handler sets ``repaired``.
        """
        super().__init__(download)
        self.error = error
        self.retrying = retrying
        self.repaired = False


class Succeeded(Event):
    """The content is valid and published. The last event of a run that succeeds.

    If the server has no newer version, the old file stays (:attr:`HttpDownload.unchanged
    <pulpcore.plugin.download.futures.HttpDownload.unchanged>`).
    """

    NAME = Event.SUCCEEDED


class Failed(Event):
    """The run failed. The last event of a run that raises.

    Attributes:
        error (BaseException | None): The exception that the run raises.
    """

    NAME = Event.FAILED

    def __init__(self, download: Download, error: BaseException | None = None) -> None:
        """Store the exception.

        Args:
            download: The download that sends the event.
            error: The exception that the run raises.
        """
        super().__init__(download)
        self.error = error


Handler = Callable[[Any], object]
E = TypeVar("E", bound=Event)


class EventRouter:
    """Registers handlers for events by name, and calls them."""

    def __init__(self) -> None:
        # By the names of their events. The engine only reads them. The tuples are immutable, since
        # send() may iterate over one while a handler is registered.
        self.handlers: dict[str, tuple[Handler, ...]] = {}

    def __contains__(self, name: object) -> bool:
        """Whether an event has handlers. A caller need not create an event without handlers."""
        return name in self.handlers

    def register(self, name: str, handler: Handler) -> None:
        """Register a handler for the events of a name.

        Args:
            name:
                The event's name, such as ``Event.SUCCEEDED``.
            handler:
                A callable. The event is its only argument.

        Raises:
            ValueError:
                No event has this name.
            TypeError:
                The handler isn't callable.
        """
        if name not in _names(Event):
            raise ValueError(f"no event is named {name!r}: use one of {sorted(_names(Event))}")
        if not callable(handler):
            raise TypeError(f"an event handler must be callable, and {handler!r} is not")
        self.handlers[name] = (*self.handlers.get(name, ()), handler)

    @property
    def is_empty(self) -> bool:
        """Whether no event has handlers."""
        return not self.handlers

    def registered(self) -> list[tuple[str, Handler]]:
        """Return all handlers, each with the name of its event."""
        return [(name, handler) for name, handlers in self.handlers.items() for handler in handlers]

    def unregister(self, name: str, handler: Handler) -> None:
        """Remove a handler.

        Args:
            name:
                The event's name.
            handler:
                The handler that was registered.

        Raises:
            ValueError: The handler was not registered for this event.
        """
        handlers = list(self.handlers.get(name, ()))
        if handler not in handlers:
            raise ValueError(f"{handler!r} is not registered for {name!r}")
        handlers.remove(handler)
        if handlers:
            self.handlers[name] = tuple(handlers)
        else:
            del self.handlers[name]

    def send(self, event: E) -> E:
        """Call the handlers of an event, one after the other.

        Args:
            event: The event.

        Returns:
            The event, which handlers may have changed (``Error.repaired``).
        """
        for handler in self.handlers.get(event.NAME, ()):
            try:
                handler(event)
            except Exception:
                log.exception("A handler of the event %s failed: %s", event.NAME, event.download)
        return event

    def clear(self) -> None:
        """Remove all handlers."""
        self.handlers.clear()


def _names(cls: type[Event]) -> set[str]:
    # Computed at each registration, because a plugin may define event classes of its own.
    names = {cls.NAME} if cls.NAME else set()
    return names.union(*(_names(subclass) for subclass in cls.__subclasses__()))
