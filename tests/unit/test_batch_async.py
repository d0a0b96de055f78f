"""Tests of batches in async code: the same guarantees, without blocking the event loop."""

import asyncio
import gc
import threading
from contextlib import aclosing, suppress
from contextvars import ContextVar

import pytest
from stubs import SECONDS, Blocking, Held, Nop, Stub

from pulpcore.plugin.download.futures import Batch, DownloadError, FileWriter
from pulpcore.plugin.download.futures.pool import aio

SHUT_DOWN = "the batch was shut down"


async def drip(downloads):
    """An async iterable that lets the event loop run before each download."""
    for download in downloads:
        await asyncio.sleep(0)
        yield download


async def pour(downloads):
    """An async iterable that never waits."""
    for download in downloads:
        yield download


SOURCES = pytest.mark.parametrize("source", [iter, drip, pour])
ASYNC = pytest.mark.parametrize("source", [drip, pour])


def run(main):
    """Run a coroutine function, which must end."""

    async def bounded():
        async with asyncio.timeout(SECONDS):
            return await main()

    return asyncio.run(bounded(), debug=False)


async def until(condition):
    """Let the event loop run until the condition holds."""
    while not condition():
        await asyncio.sleep(0.001)


def batch_threads():
    """Return the threads of batches that are alive."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("batch-")]


async def outcomes(plans):
    """Return the download of each plan, or the reason of its failure."""
    found = []
    async for plan in plans:
        try:
            found.append(plan.result())
        except DownloadError as error:
            found.append(error.reason)
    return found


class TestPlans:
    def test_order_completed(self):
        """An async batch gives plans in the order completed, not in that of the iterable."""

        async def main():
            downloads = [Held() for _ in range(3)]
            async with Batch(drip(downloads), concurrent=3, backlog=3) as batch:
                plans = aiter(batch())
                for index in (2, 0, 1):
                    waiting = asyncio.ensure_future(anext(plans))
                    await until(downloads[index].running.is_set)
                    downloads[index].released.set()
                    assert (await waiting).download is downloads[index]

        run(main)

    @SOURCES
    def test_loop_runs(self, source):
        """While an async batch waits for a plan, other tasks of the event loop run."""

        async def main():
            held = Held()

            async def release():
                await until(held.running.is_set)
                held.released.set()

            async with asyncio.TaskGroup() as group, Batch(source([held])) as batch:
                group.create_task(release())
                assert await outcomes(batch()) == [held]

        run(main)

    @SOURCES
    def test_takes_turns(self, source, monkeypatch):
        """Filling or emptying a large window lets other tasks of the event loop run."""
        monkeypatch.setattr(aio, "_TURN", 0.0)

        async def main():
            turns = 0
            filled, emptied = set(), set()

            async def others():
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            def note():
                for _ in range(20):
                    filled.add(turns)
                    yield held

            held = Held()
            task = asyncio.create_task(others())
            async with Batch(source(note()), concurrent=1) as batch:
                plans = aiter(batch())
                waiting = asyncio.create_task(anext(plans))
                await until(lambda: len(filled) > 10)
                held.released.set()
                await waiting
                async for _ in plans:
                    emptied.add(turns)
            assert len(emptied) > 10
            task.cancel()

        run(main)

    def test_cancelled_wait_loses_nothing(self):
        """If waiting for a plan is cancelled, the next wait gets that plan."""

        async def main():
            held = Held()
            async with Batch([held]) as batch:
                plans = aiter(batch())
                waiting = asyncio.ensure_future(anext(plans))
                await until(held.running.is_set)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                held.released.set()
                assert (await anext(plans)).result() is held

        run(main)

    def test_one_task_at_a_time(self):
        """A second task that waits for a plan is refused, and the first gets its plan."""

        async def main():
            held = Held()
            async with Batch([held]) as batch:
                first = asyncio.ensure_future(anext(batch()))
                await until(held.running.is_set)
                with pytest.raises(RuntimeError, match="another task"):
                    await anext(batch())
                held.released.set()
                assert (await first).result() is held

        run(main)

    def test_ends_by_itself(self):
        """An async batch iterated to its end leaves no thread, without `async with`."""

        async def main():
            batch = Batch(drip([Nop(), Nop()]))
            assert len(await outcomes(batch())) == 2
            assert batch_threads() == []
            assert batch.is_shutdown

        run(main)

    def test_inside_a_handler(self):
        """A handler may run an event loop with a batch of its own."""
        inner = [Stub() for _ in range(5)]

        async def main():
            async with Batch(drip(inner)) as batch:
                return await outcomes(batch())

        found = []
        with Batch([Stub(lambda _: found.extend(run(main)))]) as batch:
            next(batch()).result()
        assert set(found) == set(inner)


class TestIterable:
    @pytest.mark.parametrize("use", [iter, next, list])
    def test_async_in_sync_for(self, use):
        """Iterating an async iterable with `for` is refused at once, with advice."""
        with Batch(drip([Nop()])) as batch, pytest.raises(TypeError, match="async for"):
            use(batch())

    def test_both_ways(self):
        """An object iterable in both ways is iterated by the kind of `for` that the caller uses."""

        class Both:
            def __iter__(self):
                return iter([Nop("sync")])

            def __aiter__(self):
                return pour([Nop("async")])

        async def main():
            async with Batch(Both()) as batch:
                return await outcomes(batch())

        assert [download.attachment for download in run(main)] == ["async"]
        with Batch(Both()) as batch:
            assert [plan.result().attachment for plan in batch()] == ["sync"]

    @SOURCES
    def test_backlog_fills(self, source):
        """An async batch takes slow downloads up to the backlog and no further."""

        async def main():
            downloads = [Held() for _ in range(8)]
            taken = []

            def note():
                for download in downloads:
                    taken.append(download)
                    yield download

            async with Batch(source(note()), concurrent=2, backlog=5) as batch:
                waiting = asyncio.ensure_future(outcomes(batch()))
                await until(lambda: len(taken) == 5)
                for _ in range(20):
                    await asyncio.sleep(0)
                assert len(taken) == 5
                for download in downloads:
                    download.released.set()
                assert len(await waiting) == 8

        run(main)

    def test_slow_holds_nothing_back(self):
        """A plan is returned while the async iterable is still waiting, here for that plan."""

        async def main():
            handed = asyncio.Queue()

            async def source():
                for n in range(20):
                    yield Nop(n)
                    assert await handed.get() == n

            async with Batch(source()) as batch:
                async for plan in batch():
                    handed.put_nowait(plan.result().attachment)

        run(main)

    def test_completed_first(self, monkeypatch):
        """If the iterable never yields to the event loop, completed plans are returned first."""
        monkeypatch.setattr(aio, "_TURN", float("inf"))
        taken = handed = 0

        async def source():
            nonlocal taken
            for _ in range(20):
                taken += 1
                assert taken - handed <= 3
                yield Nop()
                # Until the download has completed.
                while handed + len(batch.iterator._window.completed) < taken:
                    pass

        async def main():
            nonlocal batch, handed
            async with Batch(source(), concurrent=1) as batch:
                async for plan in batch():
                    plan.result()
                    handed += 1

        batch = None
        run(main)
        assert handed == 20

    def test_reads_ahead(self):
        """While the consumer works with a plan, an async batch starts the next download."""

        async def main():
            second = Held()
            async with Batch(drip([Nop(), second]), concurrent=1) as batch:
                plans = aiter(batch())
                await anext(plans)
                await until(second.running.is_set)
                second.released.set()
                assert (await anext(plans)).result() is second

        run(main)

    @pytest.mark.parametrize("name", ["__aiter__", "__iter__"])
    def test_raises_at_once(self, name):
        """An async iterable whose iteration can't begin raises its error."""

        def begin(_):
            raise LookupError(name)

        async def main():
            async with Batch(type("Source", (), {name: begin})()) as batch:
                await outcomes(batch())

        with pytest.raises(LookupError, match=name):
            run(main)

    def test_cancelled_by_itself(self):
        """A CancelledError raised by an async iterable is raised at once, as in any `async for`."""

        async def main():
            async def source():
                yield Nop()
                gone = asyncio.get_running_loop().create_future()
                gone.cancel()
                await gone

            async with Batch(source()) as batch:
                with pytest.raises(asyncio.CancelledError):
                    await outcomes(batch())

        run(main)

    def test_mixed(self):
        """Changing between `for` and `async for` on one batch is refused and doesn't hang."""

        async def main():
            held = Held()
            async with Batch([Nop(), held], concurrent=1) as batch:
                next(batch())
                with pytest.raises(RuntimeError, match="by `for`"):
                    aiter(batch())
                held.released.set()

            async def slow():
                yield Nop()
                await asyncio.Event().wait()

            async with Batch(slow()) as batch:
                await anext(batch())
                with pytest.raises(RuntimeError, match="by `async for`"):
                    next(batch())

        run(main)


class TestContext:
    def test_one_task(self):
        """An async generator runs in one task and context. It may hold a `with` across yields."""
        variable = ContextVar("variable", default=0)
        tasks = set()

        async def source():
            token = variable.set(variable.get() + 1)
            async with asyncio.timeout(SECONDS):
                for _ in range(5):
                    tasks.add(asyncio.current_task())
                    yield Stub(lambda _: seen.append(variable.get()))
            variable.reset(token)

        seen = []

        async def main():
            variable.set(1)
            async with Batch(source(), concurrent=1) as batch:
                async for plan in batch():
                    plan.result()
            assert variable.get() == 1

        run(main)
        assert seen == [2] * 5
        assert len(tasks) == 1


class TestEnd:
    @pytest.mark.parametrize("error", [None, ZeroDivisionError, asyncio.CancelledError])
    def test_leaving(self, tmp_path, error):
        """Leaving `async with` in any way stops running downloads.

        It leaves no thread and no partial file.
        """

        async def main():
            downloads = [Blocking(FileWriter(tmp_path / f"{n}")) for n in range(5)]
            with suppress(error or ()):
                async with Batch(drip([Nop(), *downloads]), concurrent=2) as batch:
                    await anext(batch())
                    await until(downloads[0].running.is_set)
                    if error is not None:
                        raise error
            assert batch.is_shutdown
            assert batch_threads() == []
            assert list(tmp_path.iterdir()) == []
            assert set(await outcomes(batch.iterator)) == {SHUT_DOWN}

        run(main)

    def test_cancelled_twice(self):
        """Leaving `async with` doesn't block the loop and completes even if cancelled meanwhile."""

        async def main():
            held = Held()

            async def work():
                async with Batch([held]) as batch:
                    batches.append(batch)
                    await outcomes(batch())

            batches = []
            task = asyncio.create_task(work())
            await until(held.running.is_set)
            task.cancel()
            await until(lambda: batches[0].is_shutdown)
            for word in ("again", "and again"):
                task.cancel(word)
                for _ in range(5):
                    await asyncio.sleep(0)
            assert not task.done()
            held.released.set()
            with pytest.raises(asyncio.CancelledError, match="and again"):
                await task
            assert batch_threads() == []

        run(main)

    @SOURCES
    def test_timeout(self, source):
        """A time-out around an async batch ends it."""
        blocking = Blocking()

        async def main():
            async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as group:

                async def expire():
                    await until(blocking.running.is_set)
                    limit.reschedule(0)

                group.create_task(expire())
                async with Batch(source([blocking])) as batch:
                    await outcomes(batch())

        with pytest.raises(TimeoutError):
            run(main)
        assert batch_threads() == []

    def test_iterable_that_waits(self):
        """Ending an async batch cancels its waiting iterable and waits for its clean-up."""
        done = []

        async def main():
            began = asyncio.Event()

            async def source():
                yield Nop()
                try:
                    began.set()
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(0)
                    done.append("cleaned up")

            async with Batch(source()) as batch:
                await anext(batch())
                await began.wait()
            assert done == ["cleaned up"]

        run(main)

    def test_clean_up_goes_on(self):
        """Waiting for a plan neither waits for an iterable's clean-up nor interrupts it."""
        done = []

        async def main():
            waits, cleaning, going = asyncio.Event(), asyncio.Event(), asyncio.Event()

            async def source():
                yield Nop()
                try:
                    waits.set()
                    await asyncio.Event().wait()
                finally:
                    cleaning.set()
                    await going.wait()
                    done.append("cleaned up")

            batch = Batch(source())
            plans = aiter(batch())
            await anext(plans)
            waiting = asyncio.create_task(outcomes(plans))
            await waits.wait()
            await asyncio.to_thread(batch.shutdown)
            await cleaning.wait()
            assert await waiting == []
            for _ in range(3):
                batch.shutdown()
                assert await outcomes(plans) == []
                await asyncio.sleep(0)
            going.set()
            await asyncio.wait(batch.iterator.tasks())

        run(main)
        assert done == ["cleaned up"]

    def test_clean_up_that_takes_too_long(self):
        """Cancelling the task a second time cancels an iterable's clean-up, too."""

        async def main():
            waits, cleaning = asyncio.Event(), asyncio.Event()

            async def source():
                try:
                    yield Nop()
                    waits.set()
                    await asyncio.Event().wait()
                finally:
                    cleaning.set()
                    await asyncio.Event().wait()

            async def work():
                async with Batch(source()) as batch:
                    await outcomes(batch())

            task = asyncio.create_task(work())
            await waits.wait()
            task.cancel()
            await cleaning.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        run(main)

    def test_iterable_that_survives(self, monkeypatch, caplog):
        """An async iterable that ignores cancellation doesn't block `async with`.

        It is cancelled again and finally abandoned, which is logged.
        """
        monkeypatch.setattr(aio, "_PATIENCE", 0.01)
        cancelled, free = [], []

        async def main(most):
            async def source():
                yield Nop()
                while len(cancelled) < most:
                    try:
                        await asyncio.Event().wait()
                    except asyncio.CancelledError:
                        cancelled.append(1)
                yield Nop()

            async with Batch(source()) as batch:
                await anext(batch())
                await asyncio.sleep(0.01)
            free.append(1)
            for task in batch.iterator.tasks():
                task.cancel()
                await asyncio.wait([task])

        for most in (1, 3):
            cancelled.clear()
            run(lambda most=most: main(most))
            assert len(cancelled) == most
        assert not caplog.records
        cancelled.clear()
        run(lambda: main(6))
        assert "goes on" in caplog.text
        assert len(free) == 3

    def test_generator_of_the_caller(self):
        """An async generator that the caller passed is left open unless it is waiting."""

        async def main():
            async with aclosing(pour(map(Nop, range(3)))) as source:
                async with Batch(source, concurrent=1, backlog=1) as batch:
                    assert (await anext(batch())).result().attachment == 0
                return (await anext(source)).attachment

        assert run(main) == 1

    def test_generator_of_the_iterable(self):
        """An async generator that the iterable made for this batch is closed at its end."""
        closed = []

        class Source:
            async def __aiter__(self):
                try:
                    yield Nop()
                    yield Nop()
                finally:
                    closed.append(True)

        async def main():
            async with Batch(Source(), concurrent=1, backlog=1) as batch:
                await anext(batch())
            assert closed == [True]

        run(main)

    @pytest.mark.parametrize("how", ["thread", "task"])
    def test_wakes_who_waits(self, how):
        """A task that waits only for the iterable is woken by a shutdown."""

        async def main():
            waits = asyncio.Event()

            async def source():
                waits.set()
                await asyncio.Event().wait()
                yield

            batch = Batch(source())
            waiting = asyncio.create_task(outcomes(batch()))
            await waits.wait()
            if how == "thread":
                await asyncio.to_thread(batch.shutdown)
            else:
                await batch.__aexit__(None, None, None)
            assert await waiting == []

        run(main)

    def test_closed_loop(self):
        """Threads that end after the event loop has closed do no harm, and the batch can end."""
        held = Held()

        async def main():
            batch = Batch(drip([held]))
            waiting = asyncio.create_task(outcomes(batch()))
            await until(held.running.is_set)
            assert not waiting.done()
            return batch

        batch = run(main)
        held.released.set()
        batch.shutdown()
        assert [plan.download for plan in batch.iterator] == [held]
        gc.collect()

    def test_from_handler(self):
        """A handler may leave the batch that it runs in without a deadlock."""

        async def end():
            async with batch:
                pass

        trigger = Stub(lambda _: run(end))
        batch = Batch([trigger])
        with batch:
            assert [plan.error.reason for plan in batch()] == [SHUT_DOWN]

    def test_no_thread_to_be_had(self, monkeypatch):
        """An async batch can be ended even if the system gives no thread for waiting."""

        async def main():
            async with Batch([Nop(), Nop()]) as batch:
                await outcomes(batch())

                def refuse(_):
                    raise RuntimeError("can't start new thread")

                monkeypatch.setattr(threading.Thread, "start", refuse)
            assert batch.is_shutdown

        run(main)

    def test_failing_end(self):
        """An exception raised while an async batch ends is not swallowed."""

        class Stubborn(Batch):
            def shutdown(self):
                super().shutdown()
                raise ArithmeticError("can't close")

        async def main():
            async with Stubborn([Nop()]) as batch:
                await outcomes(batch())

        with pytest.raises(ArithmeticError):
            run(main)


class TestBell:
    def test_once(self, monkeypatch):
        """Ringing the bell often wakes the event loop once for each time that it listens."""

        async def main():
            loop = asyncio.get_running_loop()
            calls = []
            real = loop.call_soon_threadsafe
            monkeypatch.setattr(
                loop, "call_soon_threadsafe", lambda *a, **k: (calls.append(a), real(*a, **k))
            )
            bell = aio.Bell()
            for expected in (1, 2, 3):
                rung = bell.listen()
                for _ in range(100):
                    bell.ring()
                await rung
                bell.ring_here()
                assert len(calls) == expected

        run(main)

    def test_closed_loop(self):
        """Ringing the bell of a closed event loop does nothing."""
        bell = aio.Bell()

        async def main():
            return bell.listen()

        rung = run(main)
        bell.ring()
        assert not rung.done()

    def test_cancelled(self):
        """Ringing the bell after its waiting task was cancelled does nothing."""

        async def main():
            bell = aio.Bell()
            bell.listen().cancel()
            bell.ring_here()
            rung = bell.listen()
            bell.ring_here()
            assert rung.done()

        run(main)
