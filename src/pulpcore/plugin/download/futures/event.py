"""Events: what happens during a download, and to whom it is told.

An event is sent to its handlers in the thread of the download, in the order in which they were
registered. What a handler raises is logged, and stops neither the other handlers nor the download.
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
    """Something that happened during a download.

    The names that handlers are registered for are constants here: ``Event.PREPARED``, ``SENT``,
    ``REPLIED``, ``FETCHED``, ``RESTARTED``, ``ERROR``, ``SUCCEEDED`` and ``FAILED``.

    Attributes:
        download (Download): The download that it happened to.
    """

    PREPARED = "PREPARED"
    SENT = "SENT"
    REPLIED = "REPLIED"
    FETCHED = "FETCHED"
    RESTARTED = "RESTARTED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    ERROR = "ERROR"

    NAME = ""
    """The name of the event, which handlers are registered for."""

    def __init__(self, download: Download) -> None:
        """Make an event.

        Args:
            download: The download that it happens to.
        """
        self.download = download

    @property
    def name(self) -> str:
        """The name of the event."""
        return self.NAME

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.download}>"


class Prepared(Event):
    """A run begins, and nothing was sent yet.

    It comes once in a run. A handler may still change the URL, headers, user and other settings.
    """

    NAME = Event.PREPARED


class Sent(Event):
    """The request was sent. It comes once an attempt."""

    NAME = Event.SENT


class Replied(Event):
    """The head of the reply is there, in ``download.reply``, and nothing of the body was used yet.

    It comes once an attempt. The body is the download's to read: one that a handler reads or closes
    makes the download fail.
    """

    NAME = Event.REPLIED


class Fetched(Event):
    """A buffer of the content was fetched and written.

    Attributes:
        buffer (bytes): The content.
        offset (int): The position of the buffer in the content (bytes).
    """

    NAME = Event.FETCHED

    def __init__(self, download: Download, buffer: bytes, offset: int = 0) -> None:
        """Make an event.

        Args:
            download: The download that it happens to.
            buffer: The content.
            offset: The position of the buffer in the content (bytes).
        """
        super().__init__(download)
        self.buffer = buffer
        self.offset = offset


class Restarted(Event):
    """What was fetched so far was thrown away, and the content starts again at byte 0."""

    NAME = Event.RESTARTED


class Error(Event):
    """An attempt failed.

    A handler that puts things right sets ``repaired`` to True, and the download is tried again at
    once, but at most ``download.retries`` times a run.

    Attributes:
        error (DownloadError): What happened.
        retrying (bool): It will be tried again without help.
        repaired (bool): To be set by a handler.
    """

    NAME = Event.ERROR

    def __init__(self, download: Download, error: DownloadError, retrying: bool = False) -> None:
        """Make an event.

        Args:
            download: The download that it happens to.
            error: What happened.
            retrying: It will be tried again without help.
        """
        super().__init__(download)
        self.error = error
        self.retrying = retrying
        self.repaired = False


class Succeeded(Event):
    """The content was validated and stands at its final place.

    It is the last event of a run that succeeded. Where the server had nothing new, what was there
    stays (:attr:`HttpDownload.unchanged
    <pulpcore.plugin.download.futures.HttpDownload.unchanged>`).
    """

    NAME = Event.SUCCEEDED


class Failed(Event):
    """The run failed. The last event of a run that raises.

    Attributes:
        error (BaseException | None): What is raised.
    """

    NAME = Event.FAILED

    def __init__(self, download: Download, error: BaseException | None = None) -> None:
        """Make an event.

        Args:
            download: The download that it happens to.
            error: What is raised.
        """
        super().__init__(download)
        self.error = error


Handler = Callable[[Any], object]
E = TypeVar("E", bound=Event)


class EventRouter:
    """Knows which handlers listen to which events, and sends events to them."""

    def __init__(self) -> None:
        # The tuples are replaced and never changed: they may be walked while somebody registers.
        self._handlers: dict[str, tuple[Handler, ...]] = {}

    def __contains__(self, name: object) -> bool:
        """Whether anybody listens: spares making events that nobody hears."""
        return name in self._handlers

    def register(self, name: str, handler: Handler) -> None:
        """Have a handler called for each event of a name.

        Args:
            name: The event's name, such as ``Event.SUCCEEDED``.
            handler: Called with the event as its only argument.

        Raises:
            ValueError: No event has this name.
            TypeError: The handler can't be called.
        """
        if name not in _names(Event):
            raise ValueError(f"no event is named {name!r}: use one of {sorted(_names(Event))}")
        if not callable(handler):
            raise TypeError(f"an event handler must be callable, and {handler!r} is not")
        self._handlers[name] = (*self._handlers.get(name, ()), handler)

    def unregister(self, name: str, handler: Handler) -> None:
        """Undo :meth:`register`.

        Args:
            name: The event's name.
            handler: The handler that was registered.

        Raises:
            ValueError: The handler was not registered for this event.
        """
        handlers = list(self._handlers.get(name, ()))
        if handler not in handlers:
            raise ValueError(f"{handler!r} is not registered for {name!r}")
        handlers.remove(handler)
        if handlers:
            self._handlers[name] = tuple(handlers)
        else:
            del self._handlers[name]

    def send(self, event: E) -> E:
        """Call the handlers of an event, one after the other.

        Args:
            event: The event.

        Returns:
            The event, in which handlers may have left word.
        """
        for handler in self._handlers.get(event.NAME, ()):
            try:
                handler(event)
            except Exception:
                log.exception("A handler of the event %s failed: %s", event.NAME, event.download)
        return event

    def clear(self) -> None:
        """Forget all handlers."""
        self._handlers.clear()


def _names(cls: type[Event]) -> set[str]:
    # Walked at each registration, so that the events of a protocol of a plugin's own count too.
    names = {cls.NAME} if cls.NAME else set()
    return names.union(*(_names(subclass) for subclass in cls.__subclasses__()))
