"""The cancellation token that every wait listens to."""

import contextlib
import signal
import socket
import threading
from unittest.mock import Mock

import pytest

from pulpcore.plugin.download.futures.waiting import cancellation as module
from pulpcore.plugin.download.futures.waiting.cancellation import (
    Cancellation,
    Cancelled,
    current,
    scope,
    watched,
)


@pytest.fixture
def pair():
    """Two sockets that are connected with each other."""
    one, two = socket.socketpair()
    with one, two:
        one.settimeout(30)
        yield one, two


def in_thread(work):
    """Start work in a thread; return a function that waits for it and returns its result."""
    result = []
    thread = threading.Thread(target=lambda: result.append(work()))
    thread.start()

    def finish():
        thread.join(30)
        assert not thread.is_alive()
        return result[0]

    return finish


def test_nobody_has_cancelled():
    """Until somebody cancels, work goes on and waits are waited."""
    cancellation = Cancellation()
    assert cancellation.reason is None
    cancellation.check()
    cancellation.wait(0)
    cancellation.close()


def test_cancelled():
    """After it, checks and waits say why, and only the first reason counts."""
    cancellation = Cancellation()
    cancellation.cancel("first")
    cancellation.cancel("second")
    assert cancellation.reason == "first"
    for act in (cancellation.check, lambda: cancellation.wait(3600)):
        with pytest.raises(Cancelled, match=r"^first$"):
            act()


def test_a_wait_is_woken():
    """A thread that waits hears of it at once."""
    cancellation = Cancellation()
    begun = threading.Event()

    def work():
        begun.set()
        with pytest.raises(Cancelled, match="stop"):
            cancellation.wait(3600)
        return True

    finish = in_thread(work)
    begun.wait(30)
    cancellation.cancel("stop")
    assert finish()


@pytest.mark.parametrize("early", [True, False])
def test_a_read_is_woken(pair, early):
    """A thread that reads a socket sees its end, cancelled before or while it is watched."""
    cancellation = Cancellation()
    if early:
        cancellation.cancel("stop")
    cancellation.watch(pair[0])
    finish = in_thread(lambda: pair[0].recv(1))
    cancellation.cancel("stop")
    assert finish() == b""
    cancellation.unwatch(pair[0])


def test_a_socket_that_is_not_watched_any_more(pair):
    """It is left alone: somebody else may have it by now. To let go of it twice does no harm."""
    cancellation = Cancellation()
    cancellation.watch(pair[0])
    cancellation.unwatch(pair[0])
    cancellation.unwatch(pair[0])
    cancellation.cancel("stop")
    pair[1].send(b"x")
    assert pair[0].recv(1) == b"x"


def test_sockets_that_are_closed(pair):
    """A socket that can't be shut down any more doesn't keep the others from it."""
    cancellation = Cancellation()
    closed = socket.socket()
    closed.close()
    for sock in (closed, pair[0]):
        cancellation.watch(sock)
    cancellation.cancel("stop")
    assert pair[0].recv(1) == b""


def test_tree():
    """What stops a parent stops its children and theirs, but not the other way round."""
    root = Cancellation()
    child, sibling = Cancellation(root), Cancellation(root)
    grandchild = Cancellation(child)
    child.cancel("stop")
    assert (root.reason, sibling.reason) == (None, None)
    assert (child.reason, grandchild.reason) == ("stop", "stop")
    root.cancel("all")
    assert (sibling.reason, grandchild.reason) == ("all", "stop")


def test_child_of_one_that_was_cancelled():
    """It is cancelled from the beginning."""
    root = Cancellation()
    root.cancel("stop")
    assert Cancellation(root).reason == "stop"


def test_close():
    """A child that let go isn't stopped any more, nor kept in memory; twice does no harm."""
    root = Cancellation()
    child = Cancellation(root)
    child.close()
    child.close()
    root.cancel("stop")
    assert child.reason is None
    assert not root._children


def test_within():
    """It is within itself and its ancestors, and in nothing else."""
    root = Cancellation()
    child = Cancellation(Cancellation(root))
    assert child.within(child)
    assert child.within(root)
    assert not root.within(child)
    assert not child.within(Cancellation())


def test_signal_handler():
    """A signal handler may cancel what its own thread waits for."""
    cancellation = Cancellation()
    before = signal.signal(signal.SIGALRM, lambda *args: cancellation.cancel("signal"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(Cancelled, match="signal"):
            cancellation.wait(3600)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_cancel_goes_on_where_it_was_interrupted():
    """A second cancel() wakes what the first, cut short by an interrupt, has not come to."""
    root = Cancellation()
    sleepers = [Mock(), Mock()]
    for sleeper in sleepers:
        root.attach(sleeper)
    for sleeper in sleepers:
        sleeper.wake.side_effect = KeyboardInterrupt
    child = Cancellation(root)
    with pytest.raises(KeyboardInterrupt):
        root.cancel("stop")
    assert child.reason is None
    for sleeper in sleepers:
        sleeper.wake.side_effect = None
    root.cancel("again")
    assert child.reason == "stop"
    assert all(sleeper.wake.called for sleeper in sleepers)


def test_attach():
    """What is attached is woken once it is cancelled, at once if it was before, not once let go."""
    cancellation = Cancellation()
    early, gone, late = Mock(), Mock(), Mock()
    for sleeper in (early, gone):
        cancellation.attach(sleeper)
    cancellation.detach(gone)
    cancellation.detach(gone)
    assert not early.wake.called
    cancellation.cancel("stop")
    cancellation.attach(late)
    assert (early.wake.called, gone.wake.called, late.wake.called) == (True, False, True)


def test_a_socket_let_go_while_it_is_cancelled(pair, monkeypatch):
    """A socket that cancel() was about to shut down is dead when its reader has let go of it.

    Whoever gets the connection next must not find it alive, only to lose it in a moment.
    """
    cancellation = Cancellation()
    cancellation.watch(pair[0])
    real = module._shut_down

    def late(sock):
        monkeypatch.setattr(module, "_shut_down", real)
        cancellation.unwatch(sock)
        assert sock.recv(1) == b""
        real(sock)

    monkeypatch.setattr(module, "_shut_down", late)
    cancellation.cancel("stop")
    assert module._shut_down is real


def test_from_many_threads():
    """Of many threads that cancel at once, one gives the reason, and all children hear it."""
    root = Cancellation()
    children = [Cancellation(root) for _ in range(32)]
    finishes = [in_thread(lambda number=number: root.cancel(str(number))) for number in range(32)]
    for finish in finishes:
        finish()
    assert {child.reason for child in children} == {root.reason}


def test_scope():
    """Within a scope its cancellation is the current one; scopes nest and end, by an error too."""
    one, two = Cancellation(), Cancellation()
    assert current() is None
    with scope(one):
        with contextlib.suppress(KeyError), scope(two):
            assert current() is two
            raise KeyError
        assert current() is one
        assert in_thread(current)() is None
    assert current() is None


def test_watched(pair):
    """Within the ``with`` a reader is woken by what the work is part of, and not afterwards."""
    one, _ = pair
    cancellation = Cancellation()
    with scope(cancellation), watched(one):
        cancellation.cancel("enough")
        assert one.recv(1) == b""


@pytest.mark.parametrize("has_socket", [True, False])
def test_nothing_to_watch(pair, has_socket):
    """Without a socket, or outside of any work, there is nothing to do."""
    work = contextlib.nullcontext() if has_socket else scope(Cancellation())
    with work, watched(pair[0] if has_socket else None):
        pair[0].send(b"a")
