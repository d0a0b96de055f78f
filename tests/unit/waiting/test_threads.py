"""Tests of the pool of threads for many short tasks."""

import _thread
import gc
import queue
import threading
import time
import weakref

import pytest
from processes import forked

from pulpcore.plugin.download.futures.waiting import threads as module
from pulpcore.plugin.download.futures.waiting.threads import Workers

SECONDS = 20


def until(condition):
    """Wait until the condition holds."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def end(workers):
    """Stop a pool and wait for its threads."""
    workers.stop()
    workers.join(SECONDS)


@pytest.fixture
def refused(monkeypatch):
    """Make the system refuse new threads while this event is set."""
    refused, real = threading.Event(), _thread.start_new_thread

    def start(function, arguments):
        if refused.is_set():
            raise RuntimeError("can't start new thread")
        return real(function, arguments)

    monkeypatch.setattr(_thread, "start_new_thread", start)
    return refused


@pytest.mark.parametrize("most", [1, 3])
def test_runs_all(most):
    """The pool runs every task with no more threads than its limit."""
    workers, names = Workers(most, "w"), queue.SimpleQueue()
    for _ in range(200):
        workers.run(lambda: names.put(threading.current_thread().name))
    end(workers)
    found = [names.get_nowait() for _ in range(200)]
    assert 1 <= len(set(found)) <= most
    assert all(name.startswith("w_") for name in found)


def test_goes_on_after_a_bug(monkeypatch):
    """A task that raises ends its thread, and the pool starts another one in its place."""
    bugs = []
    monkeypatch.setattr(threading, "excepthook", bugs.append)
    workers, done = Workers(1, "w"), threading.Event()
    workers.run(lambda: 1 / 0)
    until(lambda: bugs)
    workers.run(done.set)
    assert done.wait(SECONDS)
    end(workers)
    assert bugs[0].exc_type is ZeroDivisionError


def test_many_at_once():
    """The pool runs as many tasks at once as its limit, in daemon threads."""
    workers, barrier = Workers(4, "w"), threading.Barrier(5)
    for _ in range(4):
        workers.run(lambda: barrier.wait(SECONDS))
    assert {t.daemon for t in threading.enumerate() if t.name.startswith("w_")} <= {True}
    barrier.wait(SECONDS)
    end(workers)


def test_given_by_many_threads():
    """Tasks submitted by many threads at once all run within the limit of threads."""
    workers, done = Workers(3, "w"), queue.SimpleQueue()

    def give():
        for _ in range(200):
            workers.run(lambda: done.put(threading.get_ident()))

    givers = [threading.Thread(target=give) for _ in range(8)]
    for giver in givers:
        giver.start()
    for giver in givers:
        giver.join(SECONDS)
    end(workers)
    assert done.qsize() == 1600
    assert workers._running == 0


def test_again_after_a_rest(monkeypatch):
    """Idle threads of the pool end, and new tasks start new ones."""
    monkeypatch.setattr(module, "_IDLE", 0)
    workers = Workers(2, "w")
    for _ in range(3):
        done = threading.Event()
        workers.run(done.set)
        assert done.wait(SECONDS)
        until(lambda: not workers._workers)
    end(workers)


def test_woken():
    """An idle thread stays for a moment and takes the next task."""
    workers, idents = Workers(8, "w"), queue.SimpleQueue()
    for _ in range(3):
        workers.run(lambda: idents.put(threading.get_ident()))
        until(lambda: workers._idle)
    end(workers)
    assert len({idents.get_nowait() for _ in range(3)}) == 1


def test_stopped():
    """Tasks submitted before and after the pool's stop are run."""
    workers, first, second = Workers(1, "w"), threading.Event(), threading.Event()
    workers.run(first.set)
    end(workers)
    end(workers)
    assert first.is_set()
    workers.run(second.set)
    workers.join(SECONDS)
    assert second.is_set()


def test_join_is_bounded():
    """join() waits for a thread only as long as the caller says."""
    workers, go_on = Workers(1, "w"), threading.Event()
    workers.run(lambda: go_on.wait(SECONDS))
    workers.stop()
    workers.join(0.01)
    assert workers._workers
    go_on.set()
    workers.join(SECONDS)
    assert not workers._workers


def test_no_thread_to_be_had(refused):
    """If no thread can be started, the submission fails and the task isn't kept."""
    workers, done = Workers(1, "w"), threading.Event()
    refused.set()
    with pytest.raises(RuntimeError, match="new thread"):
        workers.run(print)
    refused.clear()
    workers.run(done.set)
    assert done.wait(SECONDS)
    end(workers)


def test_no_more_threads_to_be_had(refused):
    """If no more threads can be started, the existing ones run the tasks."""
    workers, go_on, done = Workers(2, "w"), threading.Event(), threading.Event()
    workers.run(lambda: go_on.wait(SECONDS))
    until(lambda: workers._running)
    refused.set()
    workers.run(done.set)
    go_on.set()
    assert done.wait(SECONDS)
    end(workers)


def test_last_thread_of_the_system(monkeypatch):
    """A thread started only to start another one runs the task if no other can be started."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = []
    module._start(lambda: done.append(1), "w")
    assert done == [1]


def test_interrupted_before_the_thread_was_asked_for(monkeypatch):
    """A task left without a thread by an interrupt is run by the next call or join()."""
    for follow in (lambda workers: workers.run(int), lambda workers: None):
        workers, done = Workers(1, "w"), threading.Event()
        with monkeypatch.context() as patch:
            patch.setattr(module, "start", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                workers.run(done.set)
        follow(workers)
        end(workers)
        assert done.is_set()


def test_interrupted_after_the_thread_was_asked_for(monkeypatch):
    """A thread that was requested twice because of an interrupt counts once."""
    real = module.start
    workers, done = Workers(1, "w"), threading.Event()

    def interrupted(function, name):
        real(function, name)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            workers.run(lambda: done.wait(SECONDS))
    workers.run(int)
    done.set()
    end(workers)
    assert workers._running == 0


def test_one_too_many():
    """If several callers started too many threads, the surplus ends at once."""
    workers, go_on = Workers(1, "w"), threading.Event()
    workers.run(lambda: go_on.wait(SECONDS))
    until(lambda: workers._running)
    extra = module._Worker()
    workers._workers[extra] = None
    workers._work(extra)
    assert extra not in workers._workers
    go_on.set()
    end(workers)


def test_given_while_the_last_one_leaves(monkeypatch):
    """A task submitted just when the last thread ends is still run."""
    monkeypatch.setattr(module, "_IDLE", 0)
    workers, done = Workers(1, "w"), threading.Event()
    real = workers._next

    def next_function():
        function = real()
        if function is None and not done.is_set():
            workers.run(done.set)
        return function

    monkeypatch.setattr(workers, "_next", next_function)
    workers.run(int)
    assert done.wait(SECONDS)
    end(workers)


@pytest.mark.parametrize("given", [True, False])
def test_woken_late(monkeypatch, given):
    """A thread that is woken just when it gives up waiting checks for tasks before it ends."""
    workers, done = Workers(1, "w"), threading.Event()

    class Late(module.Waiter):
        def wait(self, seconds):
            if not done.is_set():
                # Like a caller that was interrupted after it took the waiter.
                if workers._idle and given:
                    workers._idle.pop()
                workers._functions.append(done.set)
            return False

    monkeypatch.setattr(module, "Waiter", Late)
    monkeypatch.setattr(workers, "_running", 1)
    function = workers._next()
    function()
    assert done.is_set()
    assert workers._next() is None


def test_pool_that_nobody_holds():
    """A pool without references is freed and its threads end, even if nobody stopped it."""
    workers = Workers(8, "w")
    pool = weakref.ref(workers)
    for _ in range(500):
        workers.run(int)
    del workers

    def is_gone():
        gc.collect()
        # Not Thread.join(): enumerate() also lists threads that are only about to start.
        return pool() is None and not any(t.name.startswith("w_") for t in threading.enumerate())

    until(is_gone)


def test_forked_child():
    """A forked child doesn't wait for its parent's threads and starts its own."""
    workers, go_on = Workers(1, "w"), threading.Event()
    workers.run(lambda: go_on.wait(SECONDS))
    until(lambda: workers._running)

    def child():
        workers.join(SECONDS)
        done = threading.Event()
        workers.run(done.set)
        assert done.wait(SECONDS)

    assert forked(child) == 0
    go_on.set()
    end(workers)


def test_idle_thread_gone():
    """If the idle thread is taken just before it can be woken, another one is started."""

    class Idle(module.Waiters):
        def pop(self):
            super().pop()
            raise IndexError

    workers, done = Workers(1, "w"), threading.Event()
    workers._idle = Idle([module.Waiter()])
    workers.run(done.set)
    assert done.wait(SECONDS)
    end(workers)


def test_thread_that_threading_did_not_start():
    """A thread that the threading module didn't start works, and join() doesn't wait for it."""
    workers, done = Workers(1, "w"), []
    worker = module._Worker()
    workers._workers[worker] = None
    workers._functions.append(lambda: done.append(1))
    workers.stop()
    workers._work(worker)
    assert done == [1]
    assert worker.thread is None
    assert not workers._workers
    workers.join(SECONDS)


def test_join_sees_that_the_last_thread_has_ended(monkeypatch):
    """`join()` doesn't wait for a thread that ended just before it would begin to wait."""
    workers, answers = Workers(1, "w"), iter([True, False, False])
    monkeypatch.setattr(workers, "_is_working", lambda: next(answers))
    workers.join()
    assert next(answers, None) is None


def test_queue():
    """A queued function can be looked at, taken out once, and put first."""
    workers, go_on, done = Workers(1, "w"), threading.Event(), queue.SimpleQueue()

    def later():
        done.put("later")

    workers.run(lambda: (go_on.wait(SECONDS), workers.run_next(lambda: done.put("first"))))
    workers.run(later)
    workers.run(lambda: done.put("last"))
    until(lambda: workers.queued == 2)
    assert later in workers.queue()
    assert workers.remove(later)
    assert not workers.remove(later)
    go_on.set()
    assert [done.get(timeout=SECONDS) for _ in range(2)] == ["first", "last"]
    end(workers)


def test_reserve():
    """Idle threads run what the reserve has, and wait as long as it may have more."""

    class Reserve(list):
        """A reserve that is never empty until the test says so."""

        def take(self):
            """Return the last function but one."""
            return self.pop() if len(self) > 1 else None

    reserve, done = Reserve([None]), queue.SimpleQueue()
    workers = Workers(1, "w", None, reserve)
    workers.run(lambda: done.put("queued"))
    assert done.get(timeout=SECONDS) == "queued"
    reserve.append(lambda: done.put("reserve"))
    assert done.get(timeout=SECONDS) == "reserve"
    reserve.clear()
    end(workers)


def named(names, count):
    """Return functions that note the name of their thread."""
    return [lambda: names.append(threading.current_thread().name)] * count


class Line:
    """A pool, and a first function in it that runs until the test lets it go on."""

    def __init__(self, most=4, reserve=None):
        self.workers = Workers(most, "w", reserve=reserve)
        self.go_on, self.is_begun = threading.Event(), threading.Event()

    def block(self):
        """Run the first function."""
        self.workers.run(self._wait)
        assert self.is_begun.wait(SECONDS)

    def _wait(self):
        self.is_begun.set()
        self.go_on.wait(SECONDS)


@pytest.fixture
def patient(monkeypatch):
    """Let no function count as one that takes long."""
    monkeypatch.setattr(module, "_STUCK", SECONDS)


def test_single(patient):
    """A single thread runs all functions, while the others sleep. `stop()` ends them at once."""
    line, names = Line(), []
    line.block()
    workers = line.workers
    workers.is_single = True
    for function in named(names, 500):
        workers.run(function)
    until(lambda: workers._idle or workers._running == 1)
    line.go_on.set()
    until(lambda: len(names) == 500)
    assert len(set(names)) == 1
    end(workers)
    assert not workers._workers


def test_single_is_stuck():
    """If the function of a single thread takes long, the other threads run the others."""
    line, done = Line(), threading.Event()
    line.workers.is_single = True
    line.block()
    line.workers.run(done.set)
    assert done.wait(SECONDS)
    assert not line.workers.is_single
    line.go_on.set()
    end(line.workers)


def test_single_starts_one_that_watches():
    """A single thread without another one that watches starts one before it runs a function."""
    line, done = Line(most=2), threading.Event()
    line.workers.run(lambda: setattr(line.workers, "is_single", True))
    until(lambda: line.workers.is_single)
    line.block()
    until(lambda: line.workers._idle)
    line.workers.run(done.set)
    assert done.wait(SECONDS)
    line.go_on.set()
    end(line.workers)


def test_single_that_nobody_can_watch(refused):
    """If the system can't start a thread that watches, a single thread works all the same."""
    line, done = Line(), threading.Event()
    line.block()
    line.workers.is_single = True
    refused.set()
    line.workers.run(done.set)
    line.go_on.set()
    assert done.wait(SECONDS)
    refused.clear()
    end(line.workers)


def test_single_with_a_reserve():
    """The thread that watches takes what a stuck function holds, also if the queue is empty."""

    class Reserve(list):
        def take(self):
            return self.pop() if self else None

    done, reserve = threading.Event(), Reserve()
    line = Line(reserve=reserve)
    line.workers.is_single = True
    line.block()
    until(lambda: line.workers._idle)
    reserve.append(done.set)
    assert done.wait(SECONDS)
    line.go_on.set()
    end(line.workers)


@pytest.mark.parametrize(("others", "goes_on"), [(1, False), (0, True)])
def test_one_is_enough_to_watch(monkeypatch, others, goes_on):
    """A thread that watches ends after a moment if another one watches, too."""
    workers, waiter = Workers(4, "w"), module.Waiter()
    workers.is_single = True
    # The single thread makes progress: it takes ten functions, of which the last one takes long.
    heads = iter([*range(10), 9, 9])
    monkeypatch.setattr(module, "_first", lambda _: next(heads))
    monkeypatch.setattr(module, "_STUCK", 0)
    monkeypatch.setattr(module, "_IDLE", 0)
    workers._idle.extend([waiter, *(module.Waiter() for _ in range(others))])
    workers._running = 2 + others
    assert workers._watch(waiter) is goes_on
    assert workers.is_single is not goes_on


def test_watching_an_empty_queue(monkeypatch):
    """As long as the single thread runs a function, another one watches for those that come."""
    workers, waiter = Workers(4, "w"), module.Waiter()
    workers.is_single = True
    heads = iter([None] * 10 + [1, 1])
    monkeypatch.setattr(module, "_first", lambda _: next(heads))
    monkeypatch.setattr(module, "_STUCK", 0)
    monkeypatch.setattr(module, "_IDLE", 0)
    workers._idle.append(waiter)
    workers._running = 2
    assert workers._watch(waiter)
    assert not workers.is_single


def test_stopped_just_before_watching(monkeypatch):
    """A thread that watches ends soon even if `stop()` came before it could be woken."""
    workers, waiter = Workers(4, "w"), module.Waiter()
    workers.stop()
    workers.is_single = True
    heads = iter(range(10))
    monkeypatch.setattr(module, "_first", lambda _: next(heads))
    monkeypatch.setattr(module, "_STUCK", 0)
    workers._idle.append(waiter)
    workers._running = 2
    assert workers._watch(waiter)


def test_nobody_watches(monkeypatch):
    """If nobody watches a single thread, the next function starts a thread that does."""
    line, done = Line(), threading.Event()
    monkeypatch.setattr(line.workers, "_stand_by", lambda: None)
    line.workers.is_single = True
    line.block()
    line.workers.run(done.set)
    assert done.wait(SECONDS)
    line.go_on.set()
    end(line.workers)


def test_nobody_is_awake():
    """A thread doesn't sleep if the other one becomes idle at the same moment."""

    class Idle(module.Waiters):
        def append(self, waiter):
            super().append(module.Waiter())
            super().append(waiter)

    workers = Workers(4, "w")
    workers._idle = Idle()
    workers._running = 2
    assert workers._stand_by() is None
    assert len(workers._idle) == 1


def test_single_forked():
    """A forked child of a pool with a single thread uses all."""
    workers = Workers(4, "w")
    workers.is_single = True

    def child():
        workers.run(int)
        assert not workers.is_single
        end(workers)

    assert forked(child) == 0


def test_thread_that_ends_before_it_was_noted_that_it_was_asked_for(monkeypatch):
    """What comes while a thread leaves is run even if the one that started it is still busy."""
    monkeypatch.setattr(module, "_IDLE", 0)
    done = []
    workers = Workers(1, "w", lambda work, name: work())
    real = workers._leave

    def leave(worker):
        real(worker)
        if not done:
            done.append("came")
            workers._functions.append(lambda: done.append("ran"))

    monkeypatch.setattr(workers, "_leave", leave)
    workers.run(int)
    assert done == ["came", "ran"]


def test_reserve_filled_while_the_last_one_leaves(monkeypatch):
    """What a running function holds is taken even if the thread that watched is just leaving."""
    monkeypatch.setattr(module, "_IDLE", 0)

    class Reserve(list):
        def take(self):
            return self.pop() if self else None

    reserve, done = Reserve(), threading.Event()
    workers = Workers(1, "w", None, reserve)
    real = workers._next

    def next_function():
        function = real()
        if function is None and not done.is_set():
            reserve.append(done.set)
        return function

    monkeypatch.setattr(workers, "_next", next_function)
    workers.run(int)
    assert done.wait(SECONDS)
    end(workers)


def test_nothing_to_watch(monkeypatch):
    """A thread that watches ends after a moment if the queue stays empty."""
    workers, waiter = Workers(4, "w"), module.Waiter()
    workers.is_single = True
    monkeypatch.setattr(module, "_STUCK", 0)
    monkeypatch.setattr(module, "_IDLE", 0)
    workers._idle.append(waiter)
    assert not workers._watch(waiter)
    assert not workers._idle


@pytest.mark.parametrize("is_single", [True, False])
def test_watch_that_is_woken_late(monkeypatch, is_single):
    """A thread that watches goes on if it is woken just as it gives up waiting."""
    workers = Workers(2, "w")
    monkeypatch.setattr(module, "_STUCK", 0)
    monkeypatch.setattr(module, "_IDLE", 0)
    workers.is_single = is_single
    # Another thread has taken its waiter.
    assert workers._watch(module.Waiter())


def test_watch_ends_with_the_single_thread(monkeypatch):
    """A thread that watches goes on as usual when all threads are to run functions again."""
    workers = Workers(2, "w")
    monkeypatch.setattr(module, "_STUCK", 0)
    waiter = module.Waiter()
    workers._idle.append(waiter)
    assert workers._watch(waiter)
    assert not workers._idle


def test_single_starts_one_at_a_time(monkeypatch, patient):
    """While the thread that is to watch is starting, no function starts another one."""
    line, asked = Line(most=8), []
    line.block()
    line.workers.is_single = True
    monkeypatch.setattr(line.workers, "_lend", lambda *_: asked.append(1))
    for _ in range(5):
        line.workers.run(int)
    assert len(asked) == 1
    line.go_on.set()
    line.workers.stop()


def test_single_after_an_interrupt(monkeypatch):
    """A thread whose start was interrupted is asked for, and then watches a single thread."""
    line, done = Line(), threading.Event()
    line.block()
    line.workers.is_single = True
    # What an interrupt leaves that comes just before the thread is asked for.
    worker = line.workers._latest = module._Worker()
    line.workers._workers[worker] = None
    line.workers.run(done.set)
    assert done.wait(SECONDS)
    line.go_on.set()
    end(line.workers)
