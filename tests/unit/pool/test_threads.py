"""Tests of the thread pool that executes plans, in which waiting plans hold no thread."""

import gc
import sys
import threading
import time
from contextvars import ContextVar
from unittest.mock import Mock

import pytest
from stubs import Nop, Stub
from urllib3.util import Retry

from pulpcore.plugin.download.futures import Batch, DownloadFailed
from pulpcore.plugin.download.futures.batch import Plan
from pulpcore.plugin.download.futures.error import transient
from pulpcore.plugin.download.futures.pool import threads as module
from pulpcore.plugin.download.futures.pool import window
from pulpcore.plugin.download.futures.waiting.cancellation import Cancellation

SECONDS = 20
FAR = 3600.0


class Life:
    """A run that waits as often as its download says and then calls it."""

    def __init__(self, download, parent):
        self.download = download
        self.token = Cancellation(parent)
        self.waits = list(getattr(download, "waits", ()))

    def advance(self, hold=None):
        """Return the next wait, or end."""
        if self.token.reason is not None:
            raise DownloadFailed(self.download, self.token.reason)
        self.download.steps = getattr(self.download, "steps", 0) + 1
        if self.waits:
            return time.monotonic() + self.waits.pop(0)
        self.download()
        return None


@pytest.fixture(autouse=True)
def lives(monkeypatch):
    """Advance all downloads in steps, by the class that the test gives."""
    monkeypatch.setattr(window, "begin", Life)
    return lambda cls: monkeypatch.setattr(window, "begin", cls)


def waiting(*waits):
    """Make a download that waits so many times, so many seconds each."""
    download = Stub()
    download.waits = waits
    return download


def test_waits_hold_no_thread():
    """While 100 downloads wait, 4 threads complete 1,000 others. A shutdown ends the waits."""
    slow = [waiting(FAR) for _ in range(100)]
    batch = Batch([*slow, *(Nop() for _ in range(1000))], concurrent=4, backlog=1100)
    plans = batch()
    done = [next(plans) for _ in range(1000)]
    assert not {id(plan.download) for plan in done} & set(map(id, slow))
    assert not any(plan.error for plan in done)
    batch.shutdown()
    left = list(plans)
    assert {id(plan.download) for plan in left} == set(map(id, slow))
    assert all("shut down" in plan.error.reason for plan in left)


def test_goes_on_when_the_time_has_come():
    """A waiting plan continues when its time has come, however often it waits."""
    with Batch([waiting(0.01, 0, 0.02), waiting(-1)], concurrent=1) as batch:
        found = [plan.result() for plan in batch()]
    assert sorted(download.steps for download in found) == [2, 4]


def test_cancelled_alone(lives):
    """A waiting plan continues at once when its own run is cancelled, as by a total limit."""

    class Limited(Life):
        def advance(self, hold=None):
            threading.Timer(0.01, self.token.cancel, ["the total limit"]).start()
            return super().advance(hold)

    lives(Limited)
    with Batch([waiting(FAR)]) as batch:
        plan = next(batch())
    assert plan.error.reason == "the total limit"


def test_context(lives):
    """Each step runs in the copy of the context made when the download was taken."""
    variable = ContextVar("variable")
    seen = []

    class Seeing(Life):
        def advance(self, hold=None):
            seen.append(variable.get())
            variable.set(variable.get() + 1)
            return super().advance(hold)

    lives(Seeing)

    def source():
        for start in (0, 10):
            variable.set(start)
            yield waiting(0.01, 0.01)

    with Batch(source(), concurrent=1) as batch:
        assert all(plan.error is None for plan in batch())
    assert sorted(seen) == [0, 1, 2, 10, 11, 12]


def test_no_thread_for_the_timer(monkeypatch):
    """If no timer thread can be started, a plan waits in its own thread until a shutdown."""

    def refuse(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module.timer, "set", refuse)
    with Batch([waiting(0.01)]) as batch:
        assert next(batch()).result()
    with Batch([waiting(FAR)]) as batch:
        threading.Timer(0.05, batch.shutdown).start()
        assert "shut down" in next(batch()).error.reason


def test_no_thread_to_begin(monkeypatch):
    """If a batch that was shut down can't start a thread for a plan, the plan tells the reason."""
    engine = module.Threads(1, "test", Cancellation())
    monkeypatch.setattr(engine.workers, "run", Mock(side_effect=RuntimeError("no new thread")))
    engine.cancellation.cancel("it was shut down")
    plan, ended = Plan(Nop()), []
    engine.start(plan, ended.append)
    assert ended == [plan]
    assert (plan.error.download, plan.error.reason) == (plan.download, "it was shut down")


def test_no_thread_to_go_on(monkeypatch):
    """If no thread can be started when a wait is over, the plan tries again later."""
    monkeypatch.setattr(module, "_LATER", 0.01)
    refused = []

    class Workers(module.Workers):
        def run(self, function):
            if getattr(function, "__name__", "") == "_end" and len(refused) < 3:
                refused.append(function)
                raise RuntimeError("can't start new thread")
            super().run(function)

    monkeypatch.setattr(module, "Workers", Workers)
    with Batch([waiting(0.01)]) as batch:
        assert next(batch()).result()
    assert len(refused) == 3


def test_forgotten_engines_are_not_kept():
    """The list of batches to stop at exit doesn't keep finished ones."""
    gc.collect()
    Batch([])
    before = len(module._engines)
    for _ in range(50):
        Batch([])
    gc.collect()
    Batch([])
    assert len(module._engines) <= before + 1


def test_waits_of_real_downloads(monkeypatch):
    """A real download that waits for Retry-After holds no thread."""
    monkeypatch.undo()

    def busy(_):
        error = transient("busy")
        error.retry_after = 100.0
        raise error

    slow = [Stub(busy) for _ in range(20)]
    for download in slow:
        download.retry = Retry(total=3)
    batch = Batch([*slow, *(Stub() for _ in range(100))], concurrent=2, backlog=120)
    plans = batch()
    assert all(next(plans).result() not in slow for _ in range(100))
    batch.shutdown()
    assert {id(plan.download) for plan in plans} == set(map(id, slow))


def test_traceback_does_not_grow():
    """Each result() raises with the traceback of the failure and of this call only."""

    def fail(_):
        raise DownloadFailed("gone")

    with Batch([Stub(fail)]) as batch:
        plan = next(batch())
    lengths = set()
    for _ in range(5):
        with pytest.raises(DownloadFailed) as caught:
            plan.result()
        lengths.add(len(list(caught.traceback)))
    assert len(lengths) == 1


def test_woken_twice():
    """A run that the timer and the token both wake continues once, even before it has its alarm."""
    run, token = Mock(), Cancellation()
    sleep = module._Sleep(run, Mock(), token)
    sleep._end()
    sleep._end()
    run.go_on.assert_called_once_with()


def test_may_block_without_asyncio(monkeypatch):
    """In a program without asyncio any thread but the main one may run downloads."""
    monkeypatch.delitem(sys.modules, "asyncio", raising=False)
    found = []
    thread = threading.Thread(target=lambda: found.append(module._may_block()))
    thread.start()
    thread.join(SECONDS)
    assert found == [True]
    assert not module._may_block()


def test_exit(monkeypatch):
    """At exit the batches that were left open end their downloads and their threads."""
    monkeypatch.setattr(module, "_engines", {})
    batch = Batch([waiting(FAR), Nop()], concurrent=1)
    plans = batch()
    next(plans)
    module._engines[0] = lambda: None  # an engine that nobody holds
    module._end_all()
    assert module._engines.keys() == {0}
    assert next(plans).error.reason == "the program is exiting"
    assert list(plans) == []


def test_started_twice():
    """A plan that was started twice, after an interrupt, runs and completes once."""
    plan, completed = window.Plan(Nop()), []
    engine = module.Threads(1, "twice", Cancellation())
    for _ in range(2):
        engine.start(plan, completed.append)
    engine.stop()
    engine.join(SECONDS)
    assert completed == [plan]
