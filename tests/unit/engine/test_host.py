"""How many attempts a host seems to admit, and who may make one."""

import functools
import gc
from types import SimpleNamespace

import pytest
from runs import Clock, Runner

from pulpcore.plugin.download.futures.engine import host as module
from pulpcore.plugin.download.futures.engine.host import LAG, MEMORY, Host
from pulpcore.plugin.download.futures.waiting.lock import Process


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The clock of the host."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def runners():
    """Runs."""
    return [Runner() for _ in range(20)]


def enter(host, runners):
    """Begin attempts; tell which of them were let in."""
    return [host.enter(runner.run) is None for runner in runners]


def refuse(host, runner, clock):
    """Refuse an attempt that began now; tell whether the host counts as crowded."""
    host.forget(runner.run)
    return host.is_crowded(runner.run, clock.now)


@pytest.fixture
def full(runners, clock):
    """A host at which two of three attempts were admitted."""
    host = Host()
    enter(host, runners[:3])
    assert refuse(host, runners[2], clock)
    return host


def test_unlimited(runners):
    """A host that has refused nothing admits any number of attempts."""
    assert enter(Host(), runners) == [True] * 20


def test_as_many_as_were_admitted(full, runners):
    """After a refusal, a host admits as many attempts as were running beside the refused one."""
    assert enter(full, runners[2:4]) == [False, False]
    full.leave(runners[0].run)
    assert enter(full, runners[2:4]) == [True, False]


def test_each_refusal_lowers_it(runners, clock):
    """Each of several refusals lowers the limit, but never below one attempt."""
    host = Host()
    enter(host, runners[:5])
    for runner in runners[1:5]:
        assert refuse(host, runner, clock)
    assert enter(host, runners[1:3]) == [False, False]
    host.leave(runners[0].run)
    assert enter(host, runners[1:3]) == [True, False]


def test_an_earlier_number_isnt_raised(full, runners, clock):
    """A later refusal beside more attempts doesn't raise the limit."""
    for runner in runners[3:6]:
        full._active[runner.run] = None
    assert refuse(full, runners[5], clock)
    for runner in runners[3:5]:
        full.leave(runner.run)
    assert enter(full, runners[2:3]) == [False]


def test_forgotten_after_a_minute(full, runners, clock):
    """A minute after the last refusal the limit ends, and the waiting runs enter first."""
    clock.now += MEMORY - 0.1
    assert enter(full, runners[2:4]) == [False, False]
    clock.now += 0.1
    assert enter(full, runners[2:]) == [True] * 18
    assert not full._waiting


def test_each_refusal_begins_the_minute_anew(full, runners, clock):
    """The minute starts at the last refusal."""
    clock.now += MEMORY / 2
    full.leave(runners[0].run)
    assert enter(full, runners[2:3]) == [True]
    assert refuse(full, runners[2], clock)
    clock.now += MEMORY - 0.1
    assert enter(full, runners[3:4]) == [False]


def test_alone(runners, clock):
    """If the only attempt is refused, that is an ordinary failure and sets no limit."""
    host = Host()
    enter(host, runners[:1])
    assert not refuse(host, runners[0], clock)
    assert enter(host, runners) == [True] * 20


def test_refused_alone(full, runners, clock):
    """If a run is refused although it is alone, the limit ends, and its refusals set no limit."""
    for runner in runners[:2]:
        full.forget(runner.run)
    assert enter(full, runners[2:3]) == [True]
    assert not refuse(full, runners[2], clock)
    assert enter(full, runners) == [True] * 20
    assert not refuse(full, runners[2], clock)
    assert enter(full, runners) == [True] * 20
    clock.now += MEMORY
    assert refuse(full, runners[2], clock)


def test_a_server_notices_late_that_a_connection_has_ended(runners, clock):
    """Another run's attempt that ended just before the refusal counts; an earlier one doesn't."""
    host = Host()
    enter(host, runners[:1])
    host.leave(runners[0].run)
    assert not host.is_crowded(runners[0].run, clock.now)
    assert not host.is_crowded(runners[1].run, clock.now + LAG + 0.01)
    assert host.is_crowded(runners[2].run, clock.now)
    assert not host.is_crowded(runners[2].run, clock.now)


def test_those_who_wait_come_first(full, runners):
    """A new run doesn't get the place that others wait for."""
    assert enter(full, runners[2:3]) == [False]
    full.leave(runners[0].run)
    assert enter(full, runners[3:4]) == [False]
    assert enter(full, runners[2:3]) == [True]
    full.leave(runners[1].run)
    assert enter(full, runners[3:4]) == [True]


def test_those_who_were_refused_look_often(full, runners, clock):
    """A refused run, which had a place, doesn't wait behind newer ones."""
    assert enter(full, runners[3:]) == [False] * 17
    assert full.enter(runners[2].run) - clock.now == pytest.approx(0.02)
    full.leave(runners[0].run)
    assert enter(full, runners[2:3]) == [True]
    assert runners[2].run not in full._refused


def test_how_long_to_wait(full, runners, clock):
    """The first waiting runs poll often, the others more seldom, and all if nothing happens."""
    waits = [full.enter(runner.run) - clock.now for runner in runners[2:]]
    assert waits[:8] == pytest.approx([0.02] * 8)
    assert waits[8:] == pytest.approx([number / 200 for number in range(8, 18)])
    clock.now += 8
    assert full.enter(runners[2].run) - clock.now == pytest.approx(1)
    full.leave(runners[0].run)
    assert full.enter(runners[3].run) is None
    assert full.enter(runners[2].run) - clock.now == pytest.approx(0.02)


def test_interrupted(full, runners):
    """An interrupted run keeps no place, and nobody waits behind it for ever."""
    assert enter(full, runners[2:4]) == [False, False]
    runners[0].interrupt()
    runners[2].interrupt()
    assert enter(full, runners[3:4]) == [True]
    assert enter(full, runners[4:5]) == [False]
    full.forget(runners[3].run)
    # It sees that the first one who waits has ended.
    assert enter(full, runners[5:6]) == [False]
    assert enter(full, runners[4:5]) == [True]
    gc.collect()
    assert runners[0].run not in full._active
    assert runners[2].run not in full._waiting


def test_nobody_is_behind_a_run_that_was_interrupted(full, runners):
    """When a waiting run is found to be dead, the next run gets a free place at once."""
    assert enter(full, runners[2:3]) == [False]
    runners[2].interrupt()
    full.leave(runners[0].run)
    assert enter(full, runners[3:4]) == [False]
    assert enter(full, runners[3:4]) == [True]
    full.leave(runners[1].run)
    assert enter(full, runners[4:5]) == [True]


def test_a_run_within_another_doesnt_wait_for_it(runners, clock):
    """A handler's download gets a place, even if the handler's own download has the only one."""
    host = Host()
    enter(host, runners[:2])
    assert refuse(host, runners[1], clock)
    inner = Runner(runners[0])
    # It lets those who wait have a look first.
    assert enter(host, [inner, inner]) == [False, True]
    assert not refuse(host, inner, clock)


@pytest.mark.parametrize(("waits", "others"), [(False, 1), (True, 0)])
def test_a_train_is_one_attempt(runners, clock, waits, others):
    """Downloads of one train count as one attempt, or as none if the train waits for the run."""

    class Driver:
        def waits_for(self, token):
            return waits

    host, driver = Host(), Driver()
    enter(host, runners[:9])
    for runner in runners[:8]:
        runner.run.train = driver
    assert host._others(runners[8].run) == others


def test_a_forked_child_has_no_attempts_of_its_parent(full, runners, monkeypatch):
    """The attempts that run during a fork count in the parent only."""
    assert enter(full, runners[2:3]) == [False]
    process = Process()
    monkeypatch.setattr(Process, "current", process)
    assert enter(full, runners[3:4]) == [False]
    assert enter(full, runners[3:6]) == [True, True, False]


def test_where_the_circuit_breaker_is_open_nobody_waits(full, runners):
    """An attempt that the circuit breaker refuses needs no place."""
    full.breaker = SimpleNamespace(is_open=True)
    assert enter(full, runners[2:]) == [True] * 18


@pytest.mark.parametrize("has_succeeded", [True, False])
def test_next_one_is_woken(full, runners, has_succeeded):
    """When an attempt ends, the run that has waited longest polls at once."""
    woken = []

    class Sleeper:
        def __init__(self, runner):
            self.wake = functools.partial(woken.append, runner)

    sleepers = [Sleeper(runner) for runner in runners[2:5]]
    assert enter(full, runners[3:5]) == [False, False]
    for runner, sleeper in zip(runners[2:5], sleepers, strict=True):
        runner.run.token.attach(sleeper)
    if has_succeeded:
        full.leave(runners[0].run)
    full.forget(runners[0].run)
    # The one that was refused pauses still, so that the server notices the end of the attempt.
    assert woken == [runners[3]]
    assert enter(full, [runners[3]]) == [True]
    assert enter(full, [runners[2]]) == [False]
    full.forget(runners[1].run)
    assert woken == [runners[3], runners[2]]


def test_nobody_is_woken_without_a_limit(runners):
    """At a host without a limit, the end of an attempt wakes nobody."""
    host = Host()
    assert enter(host, runners[:2]) == [True, True]
    host.forget(runners[0].run)
    assert enter(host, runners[:3]) == [True, True, True]
