"""Tests of state that threads share without locks."""

import gc
import signal
import threading
import time
import weakref

import pytest

from pulpcore.plugin.download.futures.waiting import atomic
from pulpcore.plugin.download.futures.waiting.atomic import Cell, Waiter

SECONDS = 20


def test_woken_before_and_twice():
    """A waiter that was woken before doesn't wait, and waking it twice is harmless."""
    waiter = Waiter()
    assert not waiter.wait(0)
    assert not waiter.wait(0.001)
    waiter.wake()
    waiter.wake()
    assert waiter.wait(SECONDS)


@pytest.mark.parametrize("hearing", [1.0, 0.001])
def test_woken_by_another_thread(monkeypatch, hearing):
    """A waiting thread is woken by another thread, however often signals are checked."""
    monkeypatch.setattr(atomic, "HEARING", hearing)
    waiter = Waiter()
    thread = threading.Thread(target=lambda: (time.sleep(0.02), waiter.wake()))
    thread.start()
    assert waiter.wait(SECONDS)
    thread.join(SECONDS)


def test_woken_by_a_signal_handler():
    """A signal handler may wake the thread that it runs in."""
    waiter = Waiter()
    before = signal.signal(signal.SIGALRM, lambda *_: waiter.wake())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert waiter.wait(SECONDS)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_cell_many_threads():
    """A cell loses no change when many threads change it at once."""
    cell = Cell(0)
    threads = [
        threading.Thread(target=lambda: [cell.change(lambda n: n + 1) for _ in range(500)])
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert cell.value == 16 * 500


def test_cell_changed_meanwhile():
    """If a cell changes during an update, the update is repeated with the new value."""
    cell = Cell([])

    def meanwhile(value):
        if not value:
            cell.change(lambda value: [*value, "other"])
        return [*value, "mine"]

    assert cell.change(meanwhile) == ["other", "mine"]
    assert cell.value == ["other", "mine"]


def test_cell_reads_on_from_an_old_version():
    """A slow thread that stores an old version in a cell hides no newer value."""
    cell = Cell(0)
    old = cell._version
    cell.change(lambda n: n + 1)
    cell._version = old
    assert cell.value == 1
    assert cell.change(lambda n: n + 1) == 2


def test_cell_forgets():
    """A cell keeps no earlier values in memory."""

    class Value:
        pass

    first = Value()
    cell = Cell(first)
    gone = weakref.ref(first)
    del first
    cell.change(lambda _: Value())
    gc.collect()
    assert gone() is None


def test_waits_to_the_end(monkeypatch):
    """A waiter that nobody wakes returns False in the end, however often it hears signals."""
    monkeypatch.setattr(atomic, "HEARING", 0.001)
    assert not Waiter().wait(0.01)
