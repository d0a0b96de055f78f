"""Tests of the state that FTP downloads share about a server with a connection limit."""

import threading
from collections.abc import Callable

import pytest

from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.ftp import server as module
from pulpcore.plugin.download.futures.ftp.server import Server
from pulpcore.plugin.download.futures.waiting.cancellation import Cancellation, Cancelled, scope

LOGIN = ("me", "word")


class Connection:
    """Stands for an FTP connection."""


def elsewhere(*calls: Callable[[], object]) -> None:
    """Call the functions in another thread, one after the other."""
    thread = threading.Thread(target=lambda: [call() for call in calls])
    thread.start()
    thread.join()


def test_shared() -> None:
    """Downloads with the same context share one Server object for each host and port."""
    context = Context()
    server = Server.of(context, "h", 21)
    assert Server.of(context, "h", 21) is server
    assert Server.of(context, "h", 22) is not server
    assert Server.of(Context(), "h", 21) is not server


def test_others() -> None:
    """`has_others` counts the logged-in FTP connections of other threads only."""
    server, own, other = Server(), Connection(), Connection()
    server.arrive(own)
    server.enter(own, LOGIN)
    assert not server.has_others()
    elsewhere(lambda: server.arrive(other))
    assert not server.has_others()
    elsewhere(lambda: server.enter(other, LOGIN))
    assert server.has_others()
    server.leave(other)
    assert not server.has_others()


def test_admitted() -> None:
    """A login that succeeded once stays known as correct after its connection has ended."""
    server, connection = Server(), Connection()
    assert not server.admits(LOGIN)
    server.arrive(connection)
    server.enter(connection, LOGIN)
    server.leave(connection)
    assert server.admits(LOGIN)
    assert not server.admits(("me", "wrong"))


@pytest.mark.parametrize("is_admitted", [True, False])
def test_just_logging_in(is_admitted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`admits` waits for the result of FTP logins that are in progress in other threads."""
    server, first = Server(), Connection()
    elsewhere(lambda: server.arrive(first))

    def answer(seconds: float) -> None:
        (server.enter if is_admitted else lambda it, _: server.leave(it))(first, LOGIN)

    monkeypatch.setattr(module, "_wait", answer)
    assert server.admits(LOGIN) == is_admitted


def test_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """`wait_for_room` returns as soon as one connection has ended, even if others remain."""
    server, one, two = Server(), Connection(), Connection()
    elsewhere(*(lambda it=it: (server.arrive(it), server.enter(it, LOGIN)) for it in (one, two)))
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            server.leave(one)

    monkeypatch.setattr(module, "_wait", wait)
    server.wait_for_room()
    assert len(waits) == 3
    assert server.has_others()


def test_forgotten() -> None:
    """A connection object that was garbage collected no longer counts as a connection."""
    server = Server()
    connections = [Connection()]
    elsewhere(lambda: server.arrive(connections[0]), lambda: server.enter(connections[0], LOGIN))
    assert server.has_others()
    connections.clear()
    assert not server.has_others()


def test_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """`wait_for_room` gives up after its time limit, as another client may have disconnected."""
    server, one = Server(), Connection()
    elsewhere(lambda: (server.arrive(one), server.enter(one, LOGIN)))
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    server.wait_for_room()
    assert server.has_others()


def test_cancelled() -> None:
    """Cancelling the current token ends `wait_for_room` with Cancelled."""
    server, one, token = Server(), Connection(), Cancellation()
    elsewhere(lambda: (server.arrive(one), server.enter(one, LOGIN)))
    token.cancel("enough")
    with scope(token), pytest.raises(Cancelled, match="enough"):
        server.wait_for_room()


def test_outside_of_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """`wait_for_room` also waits where no cancellation token is set."""
    server, one = Server(), Connection()
    elsewhere(lambda: (server.arrive(one), server.enter(one, LOGIN)))
    monkeypatch.setattr(module, "_PATIENCE", 0.02)
    monkeypatch.setattr(module, "_POLL", 0.01)
    server.wait_for_room()
    assert server.has_others()
