"""Tests of events, and of the router that calls their handlers."""

import logging
import threading

import pytest

from pulpcore.plugin.download.futures import Download, DownloadFailed
from pulpcore.plugin.download.futures import event as module
from pulpcore.plugin.download.futures.event import (
    Error,
    Event,
    EventRouter,
    Failed,
    Fetched,
    Prepared,
    Replied,
    Restarted,
    Sent,
    Succeeded,
)

CLASSES = [Prepared, Sent, Replied, Fetched, Restarted, Succeeded, Failed, Error]
NAMES = [
    "PREPARED",
    "SENT",
    "REPLIED",
    "FETCHED",
    "RESTARTED",
    "SUCCEEDED",
    "FAILED",
    "ERROR",
]


class Nothing(Download):
    def _send(self):
        pass


@pytest.fixture
def download():
    """Make a download whose URL has secrets."""
    return Nothing("http://bob:hunter2@example.org/?token=t0ps3cret", None)


@pytest.fixture
def router():
    """Make a router without handlers."""
    return EventRouter()


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    """Event names are strings equal to the names of the class attributes."""
    assert getattr(Event, name) == name


@pytest.mark.parametrize(("cls", "name"), list(zip(CLASSES, NAMES, strict=True)))
def test_classes(cls, name, download):
    """Each event name has a class of that name, which takes the download."""
    more = {Fetched: [b""], Error: [ValueError()]}.get(cls, [])
    event = cls(download, *more)
    assert isinstance(event, Event)
    assert (cls.NAME, event.NAME, event.name) == (name, name, name)
    assert event.download is download


def test_what_events_carry(download):
    """Fetched has buffer and offset, Error has an error and two flags, Failed has an error."""
    error = DownloadFailed("why")
    fetched = Fetched(download, b"abc", 7)
    assert (fetched.buffer, fetched.offset) == (b"abc", 7)
    assert Fetched(download, b"abc").offset == 0
    event = Error(download, error)
    assert (event.error, event.retrying, event.repaired) == (error, False, False)
    assert Error(download, error, retrying=True).retrying is True
    assert Failed(download, error).error is error
    assert Failed(download).error is None


def test_no_secret(download):
    """The repr of an event shows no secret of its download."""
    assert repr(Prepared(download)) == "<Prepared http://example.org/?token=***>"


def test_order(router, download):
    """The router calls handlers in the order registered, and twice if registered twice."""
    called = []
    one, two = (lambda event: called.append((1, event))), (lambda event: called.append((2, event)))
    for handler in (one, two, one):
        router.register(Event.SENT, handler)
    event = Sent(download)
    assert router.send(event) is event
    assert called == [(1, event), (2, event), (1, event)]


def test_only_those_registered(router, download):
    """The router calls only the handlers registered for the event's name."""
    called = []
    router.register(Event.SENT, called.append)
    router.send(Replied(download))
    assert called == []


def test_contains(router):
    """`in` tells whether the router has a handler for an event name."""
    assert Event.SENT not in router
    router.register(Event.SENT, print)
    assert Event.SENT in router
    router.unregister(Event.SENT, print)
    assert Event.SENT not in router


def test_unregister(router, download):
    """unregister() removes one registration and raises if there is none."""
    called = []
    router.register(Event.SENT, called.append)
    router.register(Event.SENT, called.append)
    router.unregister(Event.SENT, called.append)
    router.send(Sent(download))
    assert len(called) == 1
    router.unregister(Event.SENT, called.append)
    for name in (Event.SENT, Event.ERROR, "NO_EVENT"):
        with pytest.raises(ValueError, match="not registered"):
            router.unregister(name, called.append)


def test_clear(router, download):
    """clear() removes all handlers of the router."""
    router.register(Event.SENT, pytest.fail)
    router.clear()
    router.send(Sent(download))


@pytest.mark.parametrize("name", ["", "sent", "NO_EVENT", None])
def test_unknown_name(router, name):
    """Registering a handler for an unknown event name raises at once."""
    with pytest.raises(ValueError, match="no event is named"):
        router.register(name, print)


@pytest.mark.parametrize("handler", [None, "print", 7])
def test_handler_that_cannot_be_called(router, handler):
    """Registering a handler that isn't callable raises at once."""
    with pytest.raises(TypeError, match="must be callable"):
        router.register(Event.SENT, handler)


def test_events_of_a_plugin(router, download):
    """A plugin may define event classes of its own."""

    class Paused(Event):
        NAME = "PAUSED"

    called = []
    router.register("PAUSED", called.append)
    event = router.send(Paused(download))
    assert called == [event]


def test_handler_that_raises(router, download, caplog):
    """A handler's exception is logged without secrets, and the next handler is called."""
    called = []

    def broken(event):
        raise LookupError("broken handler")

    router.register(Event.SENT, broken)
    router.register(Event.SENT, called.append)
    with caplog.at_level(logging.ERROR, module.__name__):
        router.send(Sent(download))
    assert len(called) == 1
    (record,) = caplog.records
    assert record.exc_info[0] is LookupError
    assert record.getMessage() == (
        "A handler of the event SENT failed: http://example.org/?token=***"
    )


def test_interrupt_in_a_handler(router, download):
    """A KeyboardInterrupt in a handler isn't swallowed."""

    def interrupted(event):
        raise KeyboardInterrupt

    router.register(Event.SENT, interrupted)
    with pytest.raises(KeyboardInterrupt):
        router.send(Sent(download))


def test_changes_by_a_handler(router, download):
    """Handlers added or removed by a handler take effect with the next event."""
    called = []

    def first(event):
        called.append("first")
        router.unregister(Event.SENT, first)
        router.register(Event.SENT, lambda event: called.append("third"))

    router.register(Event.SENT, first)
    router.register(Event.SENT, lambda event: called.append("second"))
    router.send(Sent(download))
    assert called == ["first", "second"]
    router.send(Sent(download))
    assert called == ["first", "second", "second", "third"]


def test_changes_by_other_threads(router, download):
    """Threads may register and clear handlers while another thread sends events."""
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            router.register(Event.SENT, lambda event: None)
            router.clear()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(2000):
            router.send(Sent(download))
    finally:
        stop.set()
        thread.join()
