"""A pool of threads for many short pieces of work."""

import queue
import threading
import time
import weakref
from types import SimpleNamespace

import pytest

from pulpcore.plugin.download.futures.pool import workers as module
from pulpcore.plugin.download.futures.pool.workers import Workers


def test_runs_all():
    """All that is given is run, by no more threads than were named."""
    workers, names = Workers(3, "w"), queue.SimpleQueue()
    for _ in range(200):
        workers.run(lambda: names.put(threading.current_thread().name))
    workers.stop()
    found = [names.get_nowait() for _ in range(200)]
    assert 1 <= len(set(found)) <= 3


def test_again_after_a_rest():
    """Threads that had nothing to do come again."""
    workers = Workers(2, "w")
    for _ in range(3):
        done = threading.Event()
        workers.run(done.set)
        assert done.wait(20)
        # Until the thread has gone back to the executor.
        while workers._work._busy:
            time.sleep(0.001)
    workers.stop()


def test_stopped():
    """What was given before is run; what is given afterwards is refused."""
    workers, done = Workers(1, "w"), threading.Event()
    workers.run(done.set)
    workers.stop()
    workers.stop()
    assert done.is_set()
    with pytest.raises(RuntimeError, match="stopped"):
        workers.run(print)


def test_no_thread_to_be_had(monkeypatch):
    """Where there is no thread at all, nothing stays to be run some time."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    workers, done = Workers(1, "w"), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            workers.run(print)
    workers.run(done.set)
    assert done.wait(20)
    workers.stop()


def test_thread_that_came_late(monkeypatch):
    """Where a thread was refused, but another has done the work meanwhile, all is well."""
    workers, done = Workers(1, "w"), threading.Event()

    def late(function):
        # As one does that had been refused before, and whose work is still in the queue.
        workers._work._functions.popleft()()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(workers._pool, "submit", late)
    workers.run(done.set)
    assert done.is_set()
    workers.stop()


def test_no_thread_waits_for_ever():
    """Threads that were woken for what another took meanwhile go, though nobody stops them."""
    workers = Workers(8, "w")
    pool = weakref.ref(workers._pool)
    for _ in range(500):
        for _ in range(3):
            workers.run(int)
        time.sleep(0.0003)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("w_")]
    assert threads
    del workers
    for thread in threads:
        thread.join(20)
    assert pool() is None
    assert not any(thread.is_alive() for thread in threads)


def test_woken_late(monkeypatch):
    """A thread that is given something just when it gave up waiting does it, and no other comes."""
    workers, done = Workers(1, "w"), threading.Event()

    class Late:
        """A lock whose wait ends in vain, and after which there is something to do."""

        def acquire(self, timeout=None):
            if timeout is not None and not done.is_set():
                workers.run(done.set)
            return False

        def release(self):
            """Too late."""

    with monkeypatch.context() as patch:
        # For this pool alone: other threads of the process may need a lock meanwhile.
        patch.setattr(module, "threading", SimpleNamespace(Lock=Late))
        assert workers._work.put(int, 1)
        workers._work.run()
    assert done.is_set()
    assert workers._work._busy == 0
    workers.stop()
