"""Tests of how the consumer of a batch waits for plans."""

from itertools import count

import pytest
from stubs import Nop

from pulpcore.plugin.download.futures.pool import window as module
from pulpcore.plugin.download.futures.pool.window import COALESCE, Window

BACKLOG = 2 * module._PLENTY


class Waits:
    """A window whose plans complete while the consumer waits.

    Attributes:
        slept (int): How often the consumer slept without anybody who would wake it.
        woken (int): How often it waited to be woken.
    """

    def __init__(self, monkeypatch, backlog):
        self.slept = self.woken = 0
        self.now = 0.0
        self._completing, self._seconds = 0, 0.0
        self._running = []
        downloads = (Nop() for _ in count())
        self.window = Window(
            downloads, lambda plan, _: self._running.append(plan), int, bool, backlog
        )
        waits = self

        class Waiter:
            def wait(self, _):
                waits.woken += 1
                waits.complete()

            def wake(self):
                pass

        monkeypatch.setattr(module, "Waiter", Waiter)
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(module.time, "sleep", self._sleep)
        assert self.window.poll() is None

    def _sleep(self, _):
        self.slept += 1
        self.complete()

    def complete(self):
        """Complete plans, which takes a while."""
        self.now += self._seconds
        for _ in range(self._completing):
            self.window.complete(self._running.pop(0))

    def wait(self, completing, seconds=0.0):
        """Wait once, while so many plans complete, and take them."""
        self._completing, self._seconds = completing, seconds
        self.window.wait()
        while (plan := self.window.poll()) is not None:
            self.window.given = plan


@pytest.fixture
def waits(monkeypatch):
    """Return what makes a window."""
    return lambda backlog=BACKLOG: Waits(monkeypatch, backlog)


def test_many_in_a_moment(waits):
    """If plans complete in quick succession, the consumer isn't woken for each of them."""
    consumer = waits()
    consumer.wait(1)
    assert (consumer.slept, consumer.woken) == (0, 1)
    for _ in range(5):
        consumer.wait(3)
    assert (consumer.slept, consumer.woken) == (5, 1)
    # It sleeps as long as that brings several.
    consumer.wait(1, 1.0)
    assert (consumer.slept, consumer.woken) == (6, 1)
    consumer.wait(1)
    assert (consumer.slept, consumer.woken) == (6, 2)


def test_none_in_a_moment(waits):
    """If no plan completes while the consumer sleeps, the next one wakes it."""
    consumer = waits()
    consumer.wait(1)
    consumer.wait(0)
    assert (consumer.slept, consumer.woken) == (1, 2)


def test_seldom(waits):
    """The consumer is woken for each plan if they take long."""
    consumer = waits()
    for _ in range(5):
        consumer.wait(1, 2 * COALESCE)
    assert (consumer.slept, consumer.woken) == (0, 5)


def test_few_are_left(waits):
    """The consumer doesn't sleep if the threads could run out of work meanwhile."""
    consumer = waits(module._PLENTY - 1)
    for _ in range(5):
        consumer.wait(1)
    assert (consumer.slept, consumer.woken) == (0, 5)
