"""What is known of a server that allows only so many connections."""

import threading
from collections.abc import Callable

import pytest

from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.ftp import server as module
from pulpcore.plugin.download.futures.ftp.server import Server
from pulpcore.plugin.download.futures.waiting.cancellation import Cancellation, Cancelled, scope

LOGIN = ("me", "word")


class Connection:
    """A connection, as far as it matters here."""


def elsewhere(*calls: Callable[[], object]) -> None:
    """Call functions in another thread, one after the other."""
    thread = threading.Thread(target=lambda: [call() for call in calls])
    thread.start()
    thread.join()


def test_shared() -> None:
    """Those who share a context share what is known of a server, by host and port."""
    context = Context()
    server = Server.of(context, "h", 21)
    assert Server.of(context, "h", 21) is server
    assert Server.of(context, "h", 22) is not server
    assert Server.of(Context(), "h", 21) is not server


def test_others() -> None:
    """Another thread counts from its login to its end; the own one can't end while it waits."""
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
    """A login that has worked is right, also when nobody is logged in any more."""
    server, connection = Server(), Connection()
    assert not server.admits(LOGIN)
    server.arrive(connection)
    server.enter(connection, LOGIN)
    server.leave(connection)
    assert server.admits(LOGIN)
    assert not server.admits(("me", "wrong"))


@pytest.mark.parametrize("is_admitted", [True, False])
def test_just_logging_in(is_admitted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a login is right is known when those who are just logging in have an answer."""
    server, first = Server(), Connection()
    elsewhere(lambda: server.arrive(first))

    def answer(seconds: float) -> None:
        (server.enter if is_admitted else lambda it, _: server.leave(it))(first, LOGIN)

    monkeypatch.setattr(module, "_wait", answer)
    assert server.admits(LOGIN) == is_admitted


def test_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait ends when a connection has ended, though others are still there."""
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
    """A connection of which nobody could say that it has ended doesn't count for ever."""
    server = Server()
    connections = [Connection()]
    elsewhere(lambda: server.arrive(connections[0]), lambda: server.enter(connections[0], LOGIN))
    assert server.has_others()
    connections.clear()
    assert not server.has_others()


def test_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while the server is asked again all the same: others may have made room."""
    server, one = Server(), Connection()
    elsewhere(lambda: (server.arrive(one), server.enter(one, LOGIN)))
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    server.wait_for_room()
    assert server.has_others()


def test_cancelled() -> None:
    """A cancellation ends the wait."""
    server, one, token = Server(), Connection(), Cancellation()
    elsewhere(lambda: (server.arrive(one), server.enter(one, LOGIN)))
    token.cancel("enough")
    with scope(token), pytest.raises(Cancelled, match="enough"):
        server.wait_for_room()


def test_outside_of_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cancellation token it waits all the same."""
    server, one = Server(), Connection()
    elsewhere(lambda: (server.arrive(one), server.enter(one, LOGIN)))
    monkeypatch.setattr(module, "_PATIENCE", 0.02)
    monkeypatch.setattr(module, "_POLL", 0.01)
    server.wait_for_room()
    assert server.has_others()
