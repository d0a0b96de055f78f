"""Tests of the gate that holds downloads back while too many bytes are in flight."""

from collections import deque

import pytest

from pulpcore.plugin.download.futures import Download, Limits, Plan
from pulpcore.plugin.download.futures.engine.limited import Shared
from pulpcore.plugin.download.futures.pool import window
from pulpcore.plugin.download.futures.pool.gate import Gate
from pulpcore.plugin.download.futures.waiting.cancellation import Cancellation


class Sized(Download):
    """A download that expects the next of some sizes each time that it is asked."""

    def __init__(self, limits, *sizes):
        super().__init__("", None)
        self.limits = limits
        self._sizes = deque(sizes)

    @property
    def expected_size(self):
        """The next size; the last one stays."""
        return self._sizes.popleft() if len(self._sizes) > 1 else self._sizes[0]

    def _send(self):
        pass


class Idle:
    """Threads that run nothing."""

    def run(self, function):
        """Do nothing."""


@pytest.fixture
def limits():
    """Return a limit of ten bytes."""
    return Limits(in_flight=10)


def test_room_that_is_made_while_nobody_looks(limits):
    """If limits free a plan while it is being parked, it begins at once."""
    gate, begun = Gate(Idle(), Cancellation()), []
    assert gate.admit(Plan(Sized(limits, 5)), begun.append)
    assert not gate.admit(Plan(Sized(limits, 100, 100, 5)), lambda: begun.append(1))
    assert begun == [1]


class Own(Sized):
    """A download that runs in its own way."""

    def __call__(self):
        """Run without a life."""
        self._send()


@pytest.mark.parametrize("kind", [Sized, Own])
def test_begun(limits, monkeypatch, kind):
    """A plan that has just begun counts with its expected size until its run exists."""
    gate, token, admitted = Gate(Idle(), Cancellation()), Cancellation(), []
    plan = Plan(kind(limits, 10))
    make = window.begin

    def ask(*arguments):
        admitted.append(gate.admit(Plan(Sized(limits, 1)), print))
        return make(*arguments)

    monkeypatch.setattr(window, "begin", ask)
    assert gate.admit(plan, print)
    monkeypatch.setattr(kind, "_send", lambda _: ask(plan.download, token))
    plan.advance(token)
    assert admitted == [False, False]


def test_a_batch_that_was_shut_down(limits):
    """After its shutdown, a batch's fetched bytes no longer count."""
    token = Cancellation()
    ended, gate = Gate(Idle(), token), Gate(Idle(), Cancellation())
    first = Plan(Sized(limits, 10))
    assert ended.admit(first, print)
    assert gate.admit(Plan(Sized(limits, 5)), print)
    assert not gate.admit(Plan(Sized(limits, 5)), print)
    token.cancel("shut down")
    assert first in Shared.of(limits).flights
    other = Gate(Idle(), Cancellation())
    assert other.admit(Plan(Sized(limits, 5)), print)
    assert first not in Shared.of(limits).flights


def test_no_limit_meanwhile(limits):
    """A limit that is taken away lets the next plan begin."""
    gate = Gate(Idle(), Cancellation())
    assert gate.admit(Plan(Sized(limits, 10)), print)
    plan = Plan(Sized(limits, 5))
    begun = []
    assert not gate.admit(plan, lambda: begun.append(1))
    limits.in_flight = None
    plan.hand_back()
    gate.wake()
    assert not begun, "a worker thread would do it"
