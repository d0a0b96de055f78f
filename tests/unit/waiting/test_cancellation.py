"""Tests of the cancellation token that every wait observes."""

import contextlib
import signal
import socket
import sys
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
    """Make two connected sockets."""
    one, two = socket.socketpair()
    with one, two:
        one.settimeout(30)
        yield one, two


def in_thread(work):
    """Start work in a thread. Return a function that waits for its result."""
    result = []
    thread = threading.Thread(target=lambda: result.append(work()))
    thread.start()

    def finish():
        thread.join(30)
        assert not thread.is_alive()
        return result[0]

    return finish


def test_nobody_has_cancelled():
    """Without a cancellation check() returns and wait() waits its full time."""
    cancellation = Cancellation()
    assert cancellation.reason is None
    cancellation.check()
    cancellation.wait(0)
    cancellation.close()


def test_cancelled():
    """After a cancellation check() and wait() raise its first reason."""
    cancellation = Cancellation()
    cancellation.cancel("first")
    cancellation.cancel("second")
    assert cancellation.reason == "first"
    for act in (cancellation.check, lambda: cancellation.wait(3600)):
        with pytest.raises(Cancelled, match=r"^first$"):
            act()


def test_a_wait_is_woken():
    """A cancellation wakes a thread in wait() at once."""
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
    """A cancellation ends a socket read, whether it comes before or during the read."""
    cancellation = Cancellation()
    if early:
        cancellation.cancel("stop")
    cancellation.watch(pair[0])
    finish = in_thread(lambda: pair[0].recv(1))
    cancellation.cancel("stop")
    assert finish() == b""
    cancellation.unwatch(pair[0])


def test_a_socket_that_is_not_watched_any_more(pair):
    """A cancellation leaves a socket alone that is no longer watched.

    unwatch() may be called twice.
    """
    cancellation = Cancellation()
    cancellation.watch(pair[0])
    cancellation.unwatch(pair[0])
    cancellation.unwatch(pair[0])
    cancellation.cancel("stop")
    pair[1].send(b"x")
    assert pair[0].recv(1) == b"x"


def test_sockets_that_are_closed(pair):
    """A closed socket doesn't prevent the shutdown of the other watched sockets."""
    cancellation = Cancellation()
    closed = socket.socket()
    closed.close()
    for sock in (closed, pair[0]):
        cancellation.watch(sock)
    cancellation.cancel("stop")
    assert pair[0].recv(1) == b""


def test_tree():
    """A cancellation of a token cancels its descendants and no ancestors."""
    root = Cancellation()
    child, sibling = Cancellation(root), Cancellation(root)
    grandchild = Cancellation(child)
    child.cancel("stop")
    assert (root.reason, sibling.reason) == (None, None)
    assert (child.reason, grandchild.reason) == ("stop", "stop")
    root.cancel("all")
    assert (sibling.reason, grandchild.reason) == ("all", "stop")


def test_child_of_one_that_was_cancelled():
    """The child of a cancelled token is cancelled from the start."""
    root = Cancellation()
    root.cancel("stop")
    assert Cancellation(root).reason == "stop"


def test_close():
    """A closed child token isn't cancelled with its parent nor kept in memory."""
    root = Cancellation()
    child = Cancellation(root)
    child.close()
    child.close()
    root.cancel("stop")
    assert child.reason is None
    assert not root._children


def test_within():
    """within() is true for the token itself and its ancestors only."""
    root = Cancellation()
    child = Cancellation(Cancellation(root))
    assert child.within(child)
    assert child.within(root)
    assert not root.within(child)
    assert not child.within(Cancellation())


def test_signal_handler():
    """A signal handler may cancel the wait of its own thread."""
    cancellation = Cancellation()
    before = signal.signal(signal.SIGALRM, lambda *args: cancellation.cancel("signal"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(Cancelled, match="signal"):
            cancellation.wait(3600)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_cancel_goes_on_where_it_was_interrupted():
    """A second cancel() completes the first one, which an interrupt had cut short."""
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
    """An attached waiter is woken by the cancellation, even an earlier one, until detached."""
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
    """A socket whose reader unwatches it during cancel() is already shut down.

    Otherwise its next user would find the connection alive and lose it a moment later.
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
    """If many threads cancel at once, one gives the reason and all children are cancelled."""
    root = Cancellation()
    children = [Cancellation(root) for _ in range(32)]
    finishes = [in_thread(lambda number=number: root.cancel(str(number))) for number in range(32)]
    for finish in finishes:
        finish()
    assert {child.reason for child in children} == {root.reason}


def test_scope():
    """Within a scope its token is the current one. Scopes nest and end also by exceptions."""
    one, two = Cancellation(), Cancellation()
    assert current() is None
    with scope(one):
        with contextlib.suppress(KeyError), scope(two):
            assert current() is two
            raise KeyError
        assert current() is one
        # A thread begins with a copy of its creator's context if Python is told so (3.14), which is
        # the default of a free-threaded build.
        inherits = getattr(sys.flags, "thread_inherit_context", False)
        assert in_thread(current)() is (one if inherits else None)
    assert current() is None


def test_watched(pair):
    """Within the ``with`` of watched() a cancellation wakes the reader, and not afterwards."""
    one, _ = pair
    cancellation = Cancellation()
    with scope(cancellation), watched(one):
        cancellation.cancel("enough")
        assert one.recv(1) == b""


@pytest.mark.parametrize("has_socket", [True, False])
def test_nothing_to_watch(pair, has_socket):
    """watched() does nothing without a socket or outside of any work."""
    work = contextlib.nullcontext() if has_socket else scope(Cancellation())
    with work, watched(pair[0] if has_socket else None):
        pair[0].send(b"a")


def test_sockets_of_the_parent_process(pair, monkeypatch):
    """A cancellation in a forked child leaves the sockets of its parent alone."""
    token = Cancellation()
    with scope(token), watched(pair[0]):
        monkeypatch.setattr(module.Process, "current", module.Process())
        token.cancel("stop")
        pair[0].sendall(b"a")
        assert pair[1].recv(1) == b"a"
