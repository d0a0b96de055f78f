"""Tests of Ctrl-C at each place where CPython checks for signals in the main thread.

Each test places a SIGINT at one place after the other. No plan may be lost, no lock stay held and
no thread wait for ever.
"""

import contextlib
import hashlib
import itertools
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from interrupts import at_each_place
from stubs import Stub

from pulpcore.plugin.download import futures
from pulpcore.plugin.download.futures import Batch, DigestValidation, DownloadMonitor
from pulpcore.plugin.download.futures.context import Cache, Context
from pulpcore.plugin.download.futures.progress import ProgressMonitor
from pulpcore.plugin.download.futures.rate import RateLimiter
from pulpcore.plugin.download.futures.storage import digest as digests
from pulpcore.plugin.download.futures.waiting.cancellation import Cancellation, Cancelled
from pulpcore.plugin.download.futures.waiting.timer import Timer

SECONDS = 20
SIZE = 5


def batch_of(downloads):
    """Make a batch whose window is smaller than its number of downloads."""
    return Batch(iter(downloads), concurrent=2, backlog=3)


def no_thread_left(prefix="batch-"):
    """Wait until the threads of the batches have ended."""
    end = time.monotonic() + SECONDS
    while any(thread.name.startswith(prefix) for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.001)


def test_iterating_on():
    """After Ctrl-C at any place, iterating a batch further gives each plan once, to the end."""

    def scenario(armed):
        downloads = [Stub() for _ in range(SIZE)]
        batch, seen = batch_of(downloads), []
        plans, is_done = batch(), False
        while not is_done:
            with armed:
                for plan in plans:
                    seen.append(plan.download)  # noqa: PERF401 - it is interrupted
                is_done = True
        assert sorted(map(id, seen)) == sorted(map(id, downloads))
        assert batch.is_shutdown

    assert at_each_place(scenario) > 40 * SIZE
    no_thread_left()


def test_leaving_the_with():
    """Ctrl-C at any place while a batch is iterated ends the `with` and all downloads."""

    def scenario(armed):
        batch = batch_of(Stub() for _ in range(SIZE))
        with armed, batch:
            for plan in batch():
                plan.result()
        batch.shutdown()
        assert batch.is_shutdown

    at_each_place(scenario)
    no_thread_left()


def test_shutdown():
    """A shutdown that Ctrl-C interrupted is completed by the next one."""

    def scenario(armed):
        go_on = threading.Event()
        batch = batch_of(Stub(lambda _: go_on.wait(SECONDS)) for _ in range(SIZE))
        batch().__iter__()
        batch.iterator._window._take()
        go_on.set()
        with armed:
            batch.shutdown()
        batch.shutdown()
        assert [plan.download for plan in batch.iterator]

    at_each_place(scenario)
    no_thread_left()


def test_handler_that_shuts_down(monkeypatch):
    """A signal handler may shut a batch down at any place, and all plans are returned."""

    def scenario(armed):
        batch, seen = batch_of(Stub() for _ in range(SIZE)), []
        plans = batch()
        signal.signal(signal.SIGINT, lambda *_: batch.shutdown())
        with armed:
            for plan in plans:
                seen.append(plan)  # noqa: PERF402 - it is interrupted
        assert len(seen) <= SIZE
        batch.shutdown()

    at_each_place(scenario)
    no_thread_left()


def test_digest(monkeypatch):
    """After Ctrl-C in the update of a large digest, no thread blocks on it."""
    monkeypatch.setattr(digests, "LARGE", 4096)
    monkeypatch.setattr(digests, "LEAST", 1024)
    monkeypatch.setattr(digests, "PIECE", 4096)
    monkeypatch.setattr(digests, "WINDOW", 8192)
    buffer = b"a" * 3000

    def run(validation):
        for _ in range(8):
            validation.update(buffer)
        return validation.actual

    def scenario(armed):
        first, second = (DigestValidation("sha256", "0" * 64) for _ in range(2))
        with armed:
            run(first)
        assert run(second) == hashlib.sha256(buffer * 8).hexdigest()
        assert len(first.actual) == 64

    assert at_each_place(scenario) > 50
    no_thread_left("download-digest")


def test_timer():
    """After Ctrl-C in the timer, new alarms ring and cancelled ones don't."""

    def scenario(armed):
        timer, rung = Timer(), threading.Event()
        with armed:
            timer.cancel(timer.set(3600, print))
        timer.set(0, rung.set)
        assert rung.wait(SECONDS)
        for alarm in list(timer._alarms):
            timer.cancel(alarm)

    at_each_place(scenario)
    no_thread_left("download-timer")


def test_wait():
    """After Ctrl-C in a wait, the next wait works."""

    def scenario(armed):
        parent = Cancellation()
        with armed:
            child = Cancellation(parent)
            child.wait(0.001)
            child.close()
        with armed:
            parent.cancel("stop")
        parent.cancel("stop")
        with pytest.raises(Cancelled):
            Cancellation(parent).wait(SECONDS)

    at_each_place(scenario)


def test_shared_state():
    """After Ctrl-C in a context, cache, limiter or monitor, other threads can use it."""

    def use(context, cache, limiter, monitor, facts):
        with context:
            context.number = 1
        cache.setdefault("a", 1)
        cache.get("a")
        cache.evict()
        cache.put("a", 2)
        limiter.delay()
        monitor.add(1)
        facts.update(b"a")
        facts.facts()
        return monitor.figures

    def scenario(armed):
        shared = (
            Context(),
            Cache(),
            RateLimiter(1000),
            ProgressMonitor(lambda *_: None),
            DownloadMonitor(algorithms=["md5"]),
        )
        with armed:
            use(*shared)
        found = []
        thread = threading.Thread(target=lambda: found.append(use(*shared)), daemon=True)
        thread.start()
        thread.join(SECONDS)
        assert found

    assert at_each_place(scenario) > 30


def test_handler_that_reads():
    """A signal handler may read the state that the main thread is changing."""

    def scenario(armed):
        monitor, limiter, cache = ProgressMonitor(lambda *_: None), RateLimiter(1000), Cache()
        seen = []

        def handler(*_):
            seen.append(monitor.figures)
            limiter.delay()
            cache.put("b", 1)
            cache.evict()
            monitor.add(1)

        signal.signal(signal.SIGINT, handler)
        with armed:
            for _ in range(3):
                monitor.add(1)
                limiter.delay()
                cache.put("a", 1)
        assert monitor.completed == 3 + len(seen)

    at_each_place(scenario)


def test_at_random():
    """Interrupts at random moments, for some seconds: each leaves the with, and loses no plan.

    They come in the library's code and in the consumer's loop only. Python swallows an exception
    in a callback of the garbage collector or of a weak reference, such as those of `threading`.
    """
    draw = random.Random(1)
    armed, raised = [], 0
    package = str(Path(futures.__file__).parent)

    def interrupt(_, frame):
        nonlocal raised
        if not armed:
            return
        code = frame.f_code
        # The next signal may come within this handler, which may run in such a callback.
        if code is interrupt.__code__ or not code.co_filename.startswith((package, __file__)):
            signal.setitimer(signal.ITIMER_REAL, 0.0002)
            return
        armed.clear()
        raised += 1
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    end = time.monotonic() + 5
    try:
        for number in itertools.count():
            if time.monotonic() > end and raised:
                break
            downloads = [Stub(lambda _: time.sleep(0.0002)) for _ in range(60)]
            batch, seen = Batch(iter(downloads), concurrent=4, backlog=8), []
            # An interrupt that comes while the with is left ends it, too.
            with contextlib.suppress(KeyboardInterrupt):
                armed.append(True)
                signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.0002, 0.02))
                with batch:
                    while len(seen) < len(downloads):
                        with contextlib.suppress(KeyboardInterrupt):
                            for plan in batch():
                                seen.append(plan)  # noqa: PERF402 - it is interrupted
                            assert len(seen) == len(downloads), number
                armed.clear()
            signal.setitimer(signal.ITIMER_REAL, 0)
            armed.clear()
            assert len(set(map(id, seen))) == len(seen), number
    finally:
        armed.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    no_thread_left()
