"""Tests of the places for connections to one host."""

from unittest.mock import Mock

import pytest
import runs
from runs import Clock

from pulpcore.plugin.download.futures import BufferWriter, HttpDownload, Limits
from pulpcore.plugin.download.futures.engine import places as module
from pulpcore.plugin.download.futures.engine.attempt import Attempt
from pulpcore.plugin.download.futures.engine.limited import (
    LimitedAttempt,
    RunLimits,
    leave_place,
    take_place,
)
from pulpcore.plugin.download.futures.engine.places import Places, enter_all


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Replace the clock of the places."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


class Runner(runs.Runner):
    """A run that counts how often it was woken."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self.run.token.attach(self)
        self.woken = 0

    def wake(self):
        """Count."""
        self.woken += 1


class Connection:
    """An idle connection."""

    is_closed = False

    def close(self):
        """Note that it is closed."""
        self.is_closed = True


@pytest.fixture
def runners():
    """Return runs."""
    return [Runner() for _ in range(20)]


def test_places(runners):
    """As many runs enter as there are places. The next one enters when one has left."""
    places = Places()
    assert [places.enter(each.run, 2) is None for each in runners[:4]] == [True, True, False, False]
    assert places.enter(runners[0].run, 2) is None
    places.leave(runners[1].run)
    assert (runners[2].woken, runners[3].woken) == (1, 0)
    assert places.enter(runners[4].run, 2) is not None, "it came last"
    assert places.enter(runners[2].run, 2) is None
    places.forget(runners[3].run)
    places.forget(runners[3].run)


def test_an_interrupted_run(runners):
    """An interrupted run frees its place, and its wait ends."""
    places = Places()
    places.enter(runners[0].run, 1)
    places.enter(runners[1].run, 1)
    runners[0].interrupt()
    runners[1].interrupt()
    assert places.enter(runners[2].run, 1) is not None, "it may not overtake who waited"
    assert places.enter(runners[2].run, 1) is None


def test_many_interrupted_runs():
    """The first waiting run that wasn't interrupted polls often, and is woken."""
    places, holder = Places(), Runner()
    places.enter(holder.run, 1)
    waiting = [Runner() for _ in range(20)]
    for each in waiting:
        places.enter(each.run, 1)
    for each in waiting[:8]:
        each.interrupt()
    assert places.enter(waiting[8].run, 1) - 1000 == pytest.approx(0.05)
    places.leave(holder.run)
    assert [each.woken for each in waiting[7:10]] == [0, 1, 0]


def test_a_run_within_another():
    """A handler's download doesn't wait for the place of the handler's own download."""
    places, outer, other = Places(), Runner(), Runner()
    assert places.enter(outer.run, 1) is None
    assert places.enter(other.run, 1) is not None
    assert places.enter(Runner(outer).run, 1) is None


def test_further_places(runners):
    """A run may take further places, which count. It never waits for them."""
    places = Places()
    places.enter(runners[0].run, 2)
    assert places.take("part", runners[0].run, 2)
    assert places.take("part", runners[0].run, 2), "it has it already"
    assert not places.take("another", runners[0].run, 2)
    assert places.enter(runners[1].run, 2) is not None
    places.leave("part")
    assert places.enter(runners[1].run, 2) is None


def test_parts_keep_nobody_waiting(runners):
    """A part takes no place that a run waits for, unless that run was interrupted."""
    download = HttpDownload("http://host/", BufferWriter())
    download.limits = Limits(per_host=2)
    first, second, third = (RunLimits(each.run, download) for each in runners[:3])
    assert first.enter("host") is None
    assert first.take("part", ["host"])
    assert second.enter("host") is not None
    first.give_back("part")
    assert not first.take("another", ["host"])
    assert second.enter("host") is None
    assert third.enter("host") is not None
    second.leave()
    runners[2].interrupt()
    assert first.take("another", ["host"])


def test_who_waits_asks_seldom(runners):
    """The first waiting runs poll often. The others poll more seldom the more there are."""
    places = Places()
    times = [places.enter(Runner().run, 0) - 1000 for _ in range(500)]
    assert times[0] == pytest.approx(0.05)
    assert times[-1] == pytest.approx(2.0)


def test_all_or_none(runners):
    """A run that needs places at two hosts holds none while it waits for one."""
    here, there = Places(), Places()
    there.enter(runners[0].run, 1)
    wanted = [(here, 1), (there, 1)]
    assert enter_all(runners[1].run, wanted) is not None
    assert here.enter(runners[2].run, 1) is None
    here.forget(runners[2].run)
    there.forget(runners[0].run)
    assert enter_all(runners[1].run, wanted) is None


def test_make_room(runners):
    """To make room for one connection, those that were idle longest are closed."""
    places = Places()
    connections = [Connection() for _ in range(4)]
    tickets = [[each] for each in connections]
    for connection, ticket in zip(connections, tickets, strict=True):
        places.add_idle(connection, ticket)
    places.add_idle(connections[0], tickets[0])
    tickets[1].clear()  # somebody uses it
    places.enter(runners[0].run, 3)
    places.make_room(3)
    assert [each.is_closed for each in connections] == [False, False, True, False]
    places.make_room(1)
    assert [each.is_closed for each in connections] == [True, False, True, True]
    places.add_idle(connections[1], [connections[1]])
    places.make_room(1)
    assert connections[1].is_closed


def test_a_connection_that_is_taken_meanwhile(runners):
    """A connection that another thread takes at the same moment isn't closed."""

    class Ticket(list):
        def pop(self):
            raise IndexError

    places, connection = Places(), Connection()
    places.add_idle(connection, Ticket([connection]))
    places.enter(runners[0].run, 1)
    places.make_room(1)
    assert not connection.is_closed


def test_further_connection():
    """A further connection takes a place of an attempt with limits, and gives it back."""
    attempt = Mock(spec=LimitedAttempt)
    attempt.take_place.return_value = False
    assert not take_place(attempt, "part", ["host"])
    leave_place(attempt, "part")
    attempt.take_place.assert_called_once_with("part", ["host"])
    attempt.leave_place.assert_called_once_with("part")


def test_further_connection_without_limits():
    """An attempt without limits has no places to take."""
    attempt = Mock(spec=Attempt)
    assert take_place(attempt, "part", ["host"])
    leave_place(attempt, "part")
