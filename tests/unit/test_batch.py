"""Tests of batches without network: plans, the backlog, and every way to end."""

import _thread
import asyncio
import gc
import itertools
import logging
import sys
import threading
import time
import tracemalloc
from contextlib import suppress
from contextvars import ContextVar
from types import SimpleNamespace

import pytest
from stubs import SECONDS, Blocking, Held, Nop, Stub

from pulpcore.plugin.download.futures import (
    Batch,
    BufferWriter,
    DownloadError,
    DownloadFailed,
    Event,
    FileWriter,
)
from pulpcore.plugin.download.futures.batch import BACKLOG, CONCURRENT, Plan, PlanIterator
from pulpcore.plugin.download.futures.context import Context, Resource
from pulpcore.plugin.download.futures.pool import window as module
from pulpcore.plugin.download.futures.waiting.cancellation import Cancellation, Cancelled, current

SHUT_DOWN = "the batch was shut down"
QUICK = module._QUICK


def failing(error):
    """Make a download that raises."""

    def send(_):
        raise error

    return Stub(send)


def outcomes(plans):
    """Return the download of each plan, or the reason of its failure."""
    found = []
    for plan in plans:
        try:
            found.append(plan.result())
        except DownloadError as error:
            found.append(error.reason)
    return found


BEFORE = []


@pytest.fixture(autouse=True)
def reads_ahead(monkeypatch):
    """Make reading from the iterable count as quick, even on a slow machine."""
    monkeypatch.setattr(module, "_QUICK", float("inf"))


@pytest.fixture(autouse=True)
def threads_before():
    """Return the threads that were alive before the test."""
    BEFORE[:] = threading.enumerate()


def threads_left():
    """Return the threads of this test's batches that are alive."""
    return [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("batch-") and thread not in BEFORE
    ]


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "name"),
        [
            ({"concurrent": 0}, "concurrent"),
            ({"concurrent": -1}, "concurrent"),
            ({"concurrent": 5, "backlog": 4}, "backlog"),
            ({"backlog": 0}, "backlog"),
            ({"backlog": -1}, "backlog"),
        ],
    )
    def test_too_small(self, options, name):
        """A batch refuses numbers that are too small at once, by name."""
        with pytest.raises(ValueError, match=name):
            Batch([], **options)

    def test_no_iterable(self):
        """A batch refuses an object that isn't iterable at once."""
        with pytest.raises(TypeError, match="downloads"):
            Batch(Nop())

    def test_defaults(self):
        """A batch has the documented default arguments and attributes."""
        downloads = []
        batch = Batch(downloads)
        assert (CONCURRENT, BACKLOG) == (4, 1024)
        assert (batch.concurrent, batch.backlog) == (CONCURRENT, BACKLOG)
        assert batch.downloads is downloads
        assert isinstance(batch.context, Context)
        assert isinstance(batch.iterator, PlanIterator)
        assert batch.is_shutdown is False
        assert repr(batch) == "<Batch concurrent=4 backlog=1024>"
        batch.shutdown()

    def test_by_position(self):
        """The arguments that a batch had in 2017 may be positional."""
        context = Context()
        with Batch([], 2, 3, context) as batch:
            assert (batch.concurrent, batch.backlog, batch.context) == (2, 3, context)

    def test_backlog_as_small_as_concurrent(self):
        """A batch works with the smallest allowed backlog."""
        with Batch([Nop(n) for n in range(10)], concurrent=1, backlog=1) as batch:
            assert [plan.result().attachment for plan in batch()] == list(range(10))


class TestPlans:
    def test_same_iterator(self):
        """Calling a batch, download() and its attribute all give the same iterator."""
        with Batch([Nop()]) as batch:
            iterator = batch()
            assert iter(iterator) is iterator is batch.download() is batch.iterator
            assert len(list(iterator)) == 1
            assert batch() is iterator
            assert list(batch()) == []
            with pytest.raises(StopIteration):
                next(iterator)

    def test_order_completed(self):
        """A batch gives plans in the order completed, not in the order of the iterable."""
        downloads = [Held() for _ in range(3)]
        with Batch(downloads, concurrent=3, backlog=3) as batch:
            plans = batch()
            for index in (2, 0, 1):
                download = downloads[index]
                # The iterating thread starts the downloads, so another thread has to release them.
                timer = threading.Thread(
                    target=lambda d=download: (d.running.wait(SECONDS), d.released.set())
                )
                timer.start()
                assert next(plans).download is download
                timer.join()

    def test_result(self):
        """A plan has its download and state, and result() raises the original error."""
        failure, bug = DownloadFailed(None, "gone"), ZeroDivisionError("a bug")
        with Batch([Stub(), failing(failure), failing(bug)], concurrent=1) as batch:
            good, bad, broken = batch()
        assert (good.executed, good.error, good.result()) == (True, None, good.download)
        assert (bad.executed, bad.error) == (True, failure)
        assert (broken.executed, broken.error) == (True, bug)
        with pytest.raises(DownloadFailed) as caught:
            bad.result()
        assert caught.value is failure
        assert failure.download is bad.download
        with pytest.raises(ZeroDivisionError):
            broken.result()

    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
    def test_no_exception_is_swallowed(self, error):
        """result() raises whatever was raised in the thread, and the batch goes on."""
        with Batch([failing(error), Nop()], concurrent=1) as batch:
            plan, other = batch()
            assert plan.error is error
            with pytest.raises(type(error)):
                plan.result()
            assert other.result()

    def test_repr(self):
        """The repr of a plan shows its state and its URL without secrets."""
        plan = Plan(Stub(url="http://user:secret@host/a?key=secret"))
        assert repr(plan) == "<Plan planned: http://host/a?key=***>"
        plan.advance(Cancellation())
        assert repr(plan) == "<Plan succeeded: http://host/a?key=***>"
        plan.error = DownloadFailed("no")
        assert repr(plan) == "<Plan failed: http://host/a?key=***>"

    def test_same_download_again(self):
        """A batch may get the same download twice, even while it runs, without a hang."""
        download = Blocking()
        with Batch([download, download], concurrent=2) as batch:
            first = next(batch())
            with pytest.raises(RuntimeError, match="running"):
                first.result()
            download.released.set()
            assert next(batch()).result() is download
        with Batch([Stub()] * 2, concurrent=1) as batch:
            assert outcomes(batch()) == [*batch.downloads]


class TestIterable:
    def test_consumers_thread_only(self):
        """The iterable of downloads is used only in the thread that iterates the plans."""
        seen = set()

        class Source:
            def __iter__(self):
                seen.add(threading.get_ident())
                for n in range(200):
                    seen.add(threading.get_ident())
                    yield Nop(n)
                seen.add(threading.get_ident())

        batch = Batch(Source(), concurrent=4, backlog=8)
        assert seen == set()
        found = []

        def consume():
            found.append(threading.get_ident())
            found.append(len(list(batch())))

        thread = threading.Thread(target=consume)
        thread.start()
        thread.join()
        assert found[1] == 200
        assert seen == {found[0]}

    def test_lazy(self):
        """A batch takes nothing from its iterable before the first plan is requested."""
        taken = []

        def source():
            for n in range(3):
                taken.append(n)
                yield Nop()

        with Batch(source()) as batch:
            iterator = batch()
            assert taken == []
            next(iterator)
            assert taken

    @pytest.mark.parametrize("backlog", [1, 2, 5])
    def test_backlog_bound_of_the_quick(self, backlog):
        """The backlog bounds the taken downloads even if each completes at once."""
        taken, most, handed = 0, 0, 0

        def source():
            nonlocal taken, most
            for n in range(20):
                taken += 1
                most = max(most, taken - handed)
                yield Nop(n)

        def start(plan, complete):
            plan.advance(Cancellation())
            complete(plan)

        with Batch(source(), concurrent=1, backlog=backlog) as batch:
            batch.iterator._window._start = start
            for _ in batch():
                handed += 1
        assert taken == handed == 20
        assert most <= backlog

    def test_backlog_fills(self):
        """A batch takes slow downloads up to the backlog and no further."""
        backlog, size = 10, 100
        downloads = [Held() for _ in range(size)]
        taken, changed = [], threading.Condition()
        handed, most = 0, []

        def source():
            for download in downloads:
                with changed:
                    taken.append(download)
                    changed.notify()
                most.append(len(taken) - handed)
                yield download

        def release():
            for index, download in enumerate(downloads):
                with changed:
                    wanted = min(backlog + index, size)
                    assert changed.wait_for(lambda n=wanted: len(taken) >= n, SECONDS)
                download.released.set()

        releaser = threading.Thread(target=release)
        with Batch(source(), concurrent=2, backlog=backlog) as batch:
            releaser.start()
            for _ in batch():
                handed += 1
        releaser.join()
        assert handed == size
        assert max(most) == backlog

    def test_slow_consumer_slows(self):
        """While the consumer takes no plan, the batch takes nothing from the iterable."""
        taken = itertools.count()
        downloads = []

        def source():
            for _ in taken:
                downloads.append(Nop())
                yield downloads[-1]

        with Batch(source(), concurrent=2, backlog=4) as batch:
            plans = batch()
            for handed in range(1, 50):
                next(plans)
                assert handed <= len(downloads) <= handed + 4

    def test_slow_iterable_holds_nothing_back(self, monkeypatch):
        """If the iterable is slow, completed plans are returned before more is taken."""
        monkeypatch.setattr(module, "_QUICK", QUICK)
        taken = handed = 0

        def source():
            nonlocal taken
            for _ in range(40):
                done = threading.Event()
                download = Stub()
                download.register(Event.SUCCEEDED, lambda _, done=done: done.set())
                taken += 1
                # One that each thread is about to return, one that the consumer has, and this one.
                assert taken - handed <= 4 + 2, "completed plans are held back"
                yield download
                # The next download doesn't exist before this one has completed.
                assert done.wait(SECONDS)

        with Batch(source(), concurrent=4, backlog=1024) as batch:
            for plan in batch():
                plan.result()
                handed += 1
        assert handed == 40

    @pytest.mark.parametrize(("seconds", "ahead"), [(0, 1), (0.0009, 1), (0.0011, 0), (3600, 0)])
    def test_how_quick(self, monkeypatch, seconds, ahead):
        """If taking a download took up to a millisecond, the next one is taken ahead."""
        clock = SimpleNamespace(now=0.0)
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
        monkeypatch.setattr(module, "_QUICK", QUICK)
        taken = []

        def source():
            for n in range(5):
                clock.now += seconds
                taken.append(n)
                yield Nop(n)

        def start(plan, complete):
            plan.advance(Cancellation())
            complete(plan)

        with Batch(source()) as batch:
            batch.iterator._window._start = start
            next(batch())
            assert len(taken) == 1 + ahead
            assert len(list(batch())) == 4

    def test_completed_first(self, monkeypatch):
        """With a slow iterable, completed plans are returned before anything more is taken."""
        monkeypatch.setattr(module, "_QUICK", -1.0)
        taken = []

        def source():
            for n in range(20):
                taken.append(n)
                yield Nop(n)

        with Batch(source(), concurrent=1) as batch:
            plans = batch()
            next(plans)
            before = len(taken)
            while len(batch.iterator._window.completed) < before - 1:
                time.sleep(0.001)
            for _ in range(before - 1):
                next(plans)
                assert len(taken) == before
            list(plans)
        assert taken == list(range(20))

    @pytest.mark.parametrize("where", ["iter", "next"])
    def test_raises_at_once(self, where):
        """An iterable that raises at once raises from the batch, and no thread hangs."""

        class Source:
            def __iter__(self):
                if where == "iter":
                    raise LookupError(where)
                return self

            def __next__(self):
                raise LookupError(where)

        batch = Batch(Source())
        with pytest.raises(LookupError, match=where):
            next(batch())
        assert list(batch()) == []
        assert batch.is_shutdown

    def test_raises_keyboard_interrupt(self):
        """Ctrl-C in the iterable is raised at once, and the `with` stops what runs."""
        download = Blocking()

        def source():
            yield download
            assert download.running.wait(SECONDS)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), Batch(source()) as batch:
            list(batch())
        assert batch.is_shutdown
        assert outcomes(batch.iterator) == [SHUT_DOWN]

    @pytest.mark.parametrize("thing", [print, Nop, len], ids=["print", "class", "len"])
    def test_callable_but_no_download(self, thing):
        """A function or class in place of a download is refused and not changed."""
        before = dict(vars(thing)) if isinstance(thing, type) else None
        try:
            with Batch([Nop(1), thing, Nop(2)], concurrent=1) as batch:
                plans = batch()
                assert next(plans).result().attachment == 1
                with pytest.raises(TypeError):
                    next(plans).result()
            if before is not None:
                assert dict(vars(thing)) == before
        finally:
            if before is not None and "context" in vars(thing) and "context" not in before:
                del thing.context  # or the tests that follow would break

    def test_iterable_shuts_down(self):
        """If the iterable shuts the batch down, the download it then yields isn't run."""
        late = Nop()

        def source():
            yield Nop()
            batch.shutdown()
            yield late

        batch = Batch(source(), concurrent=1)
        *_, plan = batch()
        assert (plan.download, plan.executed) == (late, False)
        assert plan.error.reason == SHUT_DOWN

    def test_reading_ahead_keeps_threads_busy(self):
        """While the consumer works with a plan, the batch starts another download."""
        first, second = Nop(), Blocking()
        with Batch([first, second], concurrent=1) as batch:
            plans = batch()
            assert next(plans).download is first
            assert second.running.wait(SECONDS)
            second.released.set()
            assert next(plans).result() is second


class TestMemory:
    def test_failures_too(self):
        """A batch of many failing downloads keeps neither them nor their tracebacks in memory."""
        with Batch((Stub(_fail) for _ in range(2_000)), concurrent=2, backlog=4) as batch:
            sizes = []
            tracemalloc.start()
            try:
                for count, plan in enumerate(batch(), 1):
                    assert plan.error
                    if count % 400 == 0:
                        gc.collect()
                        sizes.append(tracemalloc.get_traced_memory()[0])
            finally:
                tracemalloc.stop()
        # A leak grows with each round. Free-threaded Python frees some objects later.
        assert min(late - early for early, late in itertools.pairwise(sizes)) < 80_000


def _fail(_):
    raise DownloadFailed(None, "no")


class TestSharing:
    @pytest.mark.parametrize("context", [None, Context(token=1)], ids=["own", "given"])
    def test_context(self, context):
        """Every download gets the context of the batch, given by the caller or its own."""
        with Batch([Stub() for _ in range(3)], context=context) as batch:
            assert {plan.result().context for plan in batch()} == {batch.context}
        assert context is None or batch.context is context

    @pytest.mark.parametrize("given", [False, True])
    @pytest.mark.parametrize("end", ["iterated", "with", "shutdown", "unused"])
    def test_who_ends_the_context(self, given, end):
        """A batch closes the context that it made, however it ends, and no other one."""

        class Connections(Resource):
            closed = 0

            def close(self):
                self.closed += 1

        context = Context() if given else None
        batch = Batch([Nop(), Nop()], context=context)
        connections = Connections()
        batch.context.cache.put("connections", connections)
        if end == "iterated":
            list(batch())
        elif end == "with":
            with batch:
                next(batch())
        elif end == "shutdown":
            next(batch())
            batch.shutdown()
        else:
            batch.shutdown()
        assert connections.closed == (0 if given else 1)

    def test_contextvars_are_copies(self):
        """Context variables that a download sets are seen by no other and not by the consumer."""
        variable = ContextVar("variable", default=0)
        seen = []

        def send(_):
            seen.append(variable.get())
            variable.set(1)

        with Batch([Stub(send) for _ in range(5)], concurrent=1) as batch:
            assert len(list(batch())) == 5
        assert seen == [0] * 5
        assert variable.get() == 0

    def test_threads(self):
        """At most `concurrent` downloads run at once, in threads other than the consumer's."""
        running, most, lock = 0, 0, threading.Lock()
        barrier = threading.Barrier(3)
        threads = set()

        def send(_):
            nonlocal running, most
            threads.add(threading.current_thread())
            with lock:
                running += 1
                most = max(most, running)
            barrier.wait(SECONDS)
            with lock:
                running -= 1

        with Batch([Stub(send) for _ in range(30)], concurrent=3) as batch:
            assert len(outcomes(batch())) == 30
        assert most == 3
        assert len(threads) == 3
        assert threading.current_thread() not in threads
        assert all(thread.name.startswith("batch-") for thread in threads)


class TestEnd:
    def test_by_itself(self):
        """A batch that is iterated to its end stops its threads without `with` or shutdown()."""
        batch = Batch(map(Nop, range(20)))
        assert len(list(batch())) == 20
        assert threads_left() == []
        assert batch.is_shutdown
        batch.shutdown()

    def test_in_the_middle(self, tmp_path):
        """A shutdown stops running downloads, fails waiting ones and takes no more.

        It leaves no partial file.
        """
        downloads = [Blocking(FileWriter(tmp_path / f"{n}")) for n in range(6)]
        (tmp_path / "0").write_bytes(b"old")
        done = Nop()
        taken = []

        def source():
            for download in [done, *downloads, *(Nop() for _ in range(1_000))]:
                taken.append(download)
                yield download

        batch = Batch(source(), concurrent=2, backlog=7)
        plans = batch()
        assert next(plans).result() is done
        waker = threading.Thread(
            target=lambda: (
                downloads[0].running.wait(SECONDS),
                downloads[1].running.wait(SECONDS),
                batch.shutdown(),
            )
        )
        waker.start()
        remaining = list(plans)
        waker.join()
        assert threads_left() == []
        assert batch.is_shutdown
        assert len(remaining) == len(taken) - 1
        assert outcomes(remaining) == [SHUT_DOWN] * len(remaining)
        for plan in remaining:
            with pytest.raises(DownloadFailed):
                plan.result()
            assert SHUT_DOWN in str(plan.error)
            assert plan.error.download is plan.download
        assert {plan.download for plan in remaining if plan.executed} == set(downloads[:2])
        assert [path.name for path in tmp_path.iterdir()] == ["0"]
        assert (tmp_path / "0").read_bytes() == b"old"
        assert list(plans) == []

    @pytest.mark.parametrize("error", [None, ZeroDivisionError, KeyboardInterrupt, SystemExit])
    def test_leaving(self, tmp_path, error):
        """Leaving the `with` of a batch, by any exception, first stops everything."""
        downloads = [Blocking(FileWriter(tmp_path / f"{n}")) for n in range(3)]
        with suppress(error or ()), Batch([Nop(), *downloads], concurrent=2, backlog=2) as batch:
            next(batch())
            assert downloads[0].running.wait(SECONDS)
            if error is not None:
                raise error
        assert batch.is_shutdown
        assert threads_left() == []
        assert list(tmp_path.iterdir()) == []
        assert set(outcomes(batch.iterator)) == {SHUT_DOWN}

    def test_twice(self):
        """shutdown() of a batch may be called again, after the end, and from any thread."""
        batch = Batch([Nop(), Blocking()])
        next(batch())
        for _ in range(2):
            batch.shutdown()
        threads = [threading.Thread(target=batch.shutdown) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert threads_left() == []

    def test_from_two_threads_at_once(self):
        """If two threads call shutdown(), both return only when everything has stopped."""
        download = Held()
        batch = Batch([Nop(), download], concurrent=2)
        next(batch())
        assert download.running.wait(SECONDS)
        left = []

        def end():
            batch.shutdown()
            left.append(threads_left())

        threads = [threading.Thread(target=end) for _ in range(2)]
        for thread in threads:
            thread.start()
        while not batch.is_shutdown:
            time.sleep(0.001)
        assert left == []
        download.released.set()
        for thread in threads:
            thread.join()
        assert left == [[], []]

    @pytest.mark.parametrize(
        "event", [Event.PREPARED, Event.SENT, Event.FETCHED, Event.ERROR, Event.FAILED]
    )
    def test_from_handler(self, event, tmp_path):
        """A handler may call shutdown() without a deadlock, and its own download stops, too."""

        def send(download):
            download._write(b"content")
            raise DownloadFailed(None, "of itself")

        trigger = Stub(send, FileWriter(tmp_path / "file"))
        others = [Nop() for _ in range(10)]
        batch = Batch([trigger, *others], concurrent=1, backlog=11)
        trigger.register(event, lambda _: batch.shutdown())
        with batch:
            plans = list(batch())
        assert plans[0].download is trigger
        assert isinstance(plans[0].error, DownloadFailed)
        # An attempt that has failed by then keeps its own error.
        early = event in (Event.PREPARED, Event.SENT, Event.FETCHED)
        assert plans[0].error.reason == (SHUT_DOWN if early else "of itself")
        assert [plan.executed for plan in plans[1:]] == [False] * (len(plans) - 1)
        assert threads_left() == []
        assert list(tmp_path.iterdir()) == []

    def test_from_last_handler(self):
        """A download that has succeeded stays so if its handler calls shutdown()."""
        trigger = Stub()
        batch = Batch([trigger, *(Blocking() for _ in range(5))], concurrent=1, backlog=6)
        trigger.register(Event.SUCCEEDED, lambda _: batch.shutdown())
        with batch:
            plans = list(batch())
        assert plans[0].result() is trigger
        assert set(outcomes(plans[1:])) <= {SHUT_DOWN}
        assert threads_left() == []

    def test_backoff_is_cut(self):
        """A shutdown interrupts the back-off of a download at once."""
        from urllib3.util import Retry

        waiting = threading.Event()

        def send(_):
            error = DownloadFailed(None, "later")
            error.transient, error.retry_after = True, 100
            raise error

        download = Stub(send)
        download.retry = Retry(total=3)
        download.register(Event.ERROR, lambda event: waiting.set())
        batch = Batch([Nop(), download], concurrent=1)
        next(batch())
        assert waiting.wait(SECONDS)
        batch.shutdown()
        assert outcomes(batch.iterator) == [SHUT_DOWN]

    def test_bug_after_cancel(self):
        """Any exception of a read that a shutdown interrupted is reported as the shutdown."""
        running = threading.Event()

        def send(_):
            running.set()
            # A read is interrupted after its own download was cancelled, and not before.
            with suppress(Cancelled):
                current().wait(SECONDS)
            raise ValueError("I/O operation on closed file")

        batch = Batch([Nop(), Stub(send)], concurrent=1)
        next(batch())
        assert running.wait(SECONDS)
        batch.shutdown()
        (plan,) = batch.iterator
        assert plan.error.reason == SHUT_DOWN
        assert isinstance(plan.error.__cause__, ValueError)

    def test_shut_down_while_taken(self):
        """A download taken while another thread calls shutdown() gives a plan that says so."""
        taken = Nop()

        def source():
            ender = threading.Thread(target=batch.shutdown)
            ender.start()
            ender.join()
            yield taken

        batch = Batch(source(), concurrent=1)
        (plan,) = batch()
        assert (plan.download, plan.executed) == (taken, False)
        assert plan.error.reason == SHUT_DOWN

    def test_shut_down_at_any_moment(self):
        """Whenever another thread calls shutdown(), each plan is returned and nothing hangs."""
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for moment in range(300):
                batch = Batch(map(Nop, itertools.count()), concurrent=2, backlog=4)
                reached = threading.Event()

                def end(batch=batch, reached=reached):
                    reached.wait(SECONDS)
                    batch.shutdown()

                ender = threading.Thread(target=end)
                ender.start()
                numbers = []
                for plan in batch():
                    numbers.append(plan.download.attachment)
                    if len(numbers) == moment % 7 + 1:
                        reached.set()
                ender.join()
                assert sorted(numbers) == list(range(len(numbers)))
        finally:
            sys.setswitchinterval(interval)
        assert threads_left() == []

    def test_abandoned(self):
        """A batch that nobody references leaves no thread, even if it wasn't shut down."""
        batch = Batch(map(Nop, range(100)))
        next(batch())
        del batch
        gc.collect()
        end = time.monotonic() + SECONDS
        while threads_left():
            assert time.monotonic() < end
            time.sleep(0.001)

    @pytest.mark.parametrize("allowed", [0, 1, 2])
    def test_no_thread_to_be_had(self, monkeypatch, allowed):
        """If the system gives no more threads, each download is run or fails, exactly once."""
        real, starts = _thread.start_new_thread, []

        def start(function, arguments):
            starts.append(function)
            if len(starts) > allowed:
                raise RuntimeError("can't start new thread")
            return real(function, arguments)

        downloads = [Stub(lambda _: first.wait(SECONDS)) for _ in range(4)]
        first = threading.Event()
        releaser = threading.Timer(0.05, first.set)
        releaser.start()
        monkeypatch.setattr(_thread, "start_new_thread", start)
        with Batch(downloads, concurrent=4, backlog=4) as batch:
            found = list(batch())
        releaser.join()
        assert sorted(map(id, downloads)) == sorted(id(plan.download) for plan in found)
        assert not any(plan.error and SHUT_DOWN in str(plan.error) for plan in found)

    def test_no_thread_for_a_consumer_in_a_thread(self, monkeypatch):
        """If no thread can be started, a consumer in a thread runs the downloads itself.

        This happens in Python 3.12 when the main thread has ended. A thread with an event loop
        doesn't run them.
        """

        def refuse(function, arguments):
            raise RuntimeError("can't start new thread")

        async def iterate():
            async with Batch([Stub()]) as batch:
                return [plan.error async for plan in batch()]

        found = []

        def consume():
            with Batch([Stub() for _ in range(9)], backlog=4) as batch:
                found.extend(plan.result() for plan in batch())
            found.append(str(*asyncio.run(iterate())))

        thread = threading.Thread(target=consume)
        monkeypatch.setattr(_thread, "start_new_thread", refuse)
        thread.start()
        thread.join(SECONDS)
        assert len(found) == 10
        assert "new thread" in found[-1]

    def test_nothing_logged(self, caplog):
        """An orderly end of a batch logs nothing."""
        caplog.set_level(logging.WARNING)
        with Batch([Nop(), Blocking()]) as batch:
            next(batch())
        assert caplog.records == []


class TestNested:
    def test_inside_a_handler(self):
        """A handler may run a batch of its own, also with the same context."""
        inner = []

        def run(event):
            with Batch([Stub() for _ in range(5)], context=event.download.context) as batch:
                inner.extend(plan.result() for plan in batch())

        outer = Stub()
        outer.register(Event.SUCCEEDED, run)
        with Batch([outer]) as batch:
            assert outcomes(batch()) == [outer]
        assert len(inner) == 5

    def test_outer_stops_inner(self):
        """Shutting down a batch stops a batch that runs in its handler."""
        blocking, ends = Blocking(), []

        def run(_):
            with Batch([blocking]) as inner:
                ends.extend(outcomes(inner()))

        outer = Stub()
        outer.register(Event.PREPARED, run)
        batch = Batch([Nop(), outer], concurrent=1)
        next(batch())
        assert blocking.running.wait(SECONDS)
        batch.shutdown()
        assert ends == [SHUT_DOWN]
        assert outcomes(batch.iterator) == [SHUT_DOWN]

    def test_outer_stops_endless_inner(self):
        """Shutting down a batch stops an inner batch even if that has an endless iterable."""
        running = threading.Event()
        inner = []
        limit = 2_000  # stands for endless, so that a failure isn't a hang
        last = 0

        def source():
            nonlocal last
            while last < limit:
                last += 1
                yield Nop()

        def run(_):
            with Batch(source(), concurrent=1, backlog=4) as batch:
                inner.append(batch)
                for plan in batch():
                    running.set()
                    with suppress(DownloadError):
                        plan.result()
                    gate.wait(SECONDS)

        gate = threading.Event()
        outer = Stub()
        outer.register(Event.PREPARED, run)
        batch = Batch([Nop(), outer], concurrent=1)
        next(batch())
        assert running.wait(SECONDS)
        ender = threading.Thread(target=batch.shutdown)
        ender.start()
        # The outer batch stops a moment earlier.
        while not inner[0].is_shutdown:
            time.sleep(0.001)
        gate.set()
        ender.join()
        assert last < 100

    def test_inner_stops_outer(self):
        """A handler in an inner batch may shut down the outer one without a deadlock."""
        ends = []

        def run(_):
            trigger = Stub()
            trigger.register(Event.PREPARED, lambda _: batch.shutdown())
            with Batch([trigger]) as inner:
                ends.extend(outcomes(inner()))

        outer = Stub()
        outer.register(Event.PREPARED, run)
        with Batch([outer], concurrent=1) as batch:
            assert outcomes(batch()) == [SHUT_DOWN]
        assert ends == [SHUT_DOWN]

    def test_inner_of_a_stopped_outer(self):
        """An inner batch that begins after the outer one was shut down stops, too."""
        ends = []

        def run(_):
            batch.shutdown()
            inner = Batch([Nop()])
            assert inner.is_shutdown
            with suppress(RuntimeError), inner:
                ends.extend(outcomes(inner()))

        outer = Stub()
        outer.register(Event.PREPARED, run)
        with Batch([outer], concurrent=1) as batch:
            assert outcomes(batch()) == [SHUT_DOWN]
        assert set(ends) <= {SHUT_DOWN}

    def test_alone_stops_nothing_else(self):
        """Ending an inner batch affects neither the outer batch nor its download."""

        def run(_):
            with Batch([Nop(), Blocking()]) as inner:
                next(inner())

        outer = Stub()
        outer.register(Event.PREPARED, run)
        with Batch([outer, Nop()], concurrent=1) as batch:
            assert all(plan.result() for plan in batch())


class TestAmongOthers:
    def test_nops(self):
        """Downloads of 2017 that override __call__ are returned like any others."""
        downloads = [Nop(n) if n % 3 else Stub(writer=BufferWriter()) for n in range(300)]
        with Batch(downloads) as batch:
            assert {plan.result() for plan in batch()} == set(downloads)


@pytest.mark.parametrize(
    ("name", "number"),
    [("concurrent", 2.5), ("concurrent", "4"), ("concurrent", None), ("backlog", 2.5)],
)
def test_no_whole_number(name, number):
    """A batch refuses numbers that aren't whole, by name."""
    with pytest.raises(ValueError, match=f"^{name}: must be a whole number"):
        Batch([], **{name: number})


class TestTurn:
    """Only one call of ``next()`` at a time advances a batch."""

    def test_taken(self):
        """A call that comes while another one advances the batch fails and does no harm."""

        def source():
            with pytest.raises(RuntimeError, match="iterated already"):
                next(batch.iterator)
            yield download

        download = Nop()
        with Batch(source()) as batch:
            assert [plan.download for plan in batch()] == [download]

    def test_interrupted_before(self):
        """An interrupt that comes before a call has its turn blocks no later call."""

        class Interrupted(dict):
            def setdefault(self, *_):
                raise KeyboardInterrupt

        with Batch([Nop()]) as batch:
            batch.iterator._turn = Interrupted()
            with pytest.raises(KeyboardInterrupt):
                next(batch())
            batch.iterator._turn = {}
            assert len(list(batch())) == 1


class TestWindow:
    """The window of a batch, with an engine that the test plays."""

    @staticmethod
    def make(downloads, start):
        """Make a window of these downloads."""
        return module.Window(downloads, start, lambda: None, lambda: False, 8)

    def test_completed_twice(self):
        """A plan that the engine completes twice, after an interrupt, is returned once."""

        def start(plan, complete):
            complete(plan)
            complete(plan)

        downloads = [Nop(), Nop()]
        window, found = self.make(downloads, start), []
        for _ in downloads:
            window.given = window.poll()
            found.append(window.given.download)
        with pytest.raises(StopIteration):
            window.poll()
        assert found == downloads

    def test_interrupted_commit(self):
        """An interrupt just after the window forgot a returned plan does no harm."""

        class Interrupted(dict):
            def __delitem__(self, key):
                super().__delitem__(key)
                raise KeyboardInterrupt

        window = self.make([Nop()], lambda plan, complete: complete(plan))
        window._started = Interrupted()
        window.given = window.poll()
        with pytest.raises(KeyboardInterrupt):
            window.poll()
        with pytest.raises(StopIteration):
            window.poll()
        assert window.given is None

    def test_interrupted_start(self):
        """An interrupt while a plan is given to the engine makes the next call give it again."""
        given = []

        def start(plan, complete):
            given.append(plan)
            if len(given) == 1:
                raise KeyboardInterrupt
            complete(plan)

        window = self.make([Nop()], start)
        with pytest.raises(KeyboardInterrupt):
            window.poll()
        assert window.poll() is given[0]
        assert given[0] is given[1]
