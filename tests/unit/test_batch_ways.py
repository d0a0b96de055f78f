"""Tests of batches in each way of iteration: `for`, and `async for` with both kinds of iterable."""

import asyncio
import gc
import itertools
import threading
import time
import tracemalloc
from contextlib import asynccontextmanager
from contextvars import ContextVar

import pytest
from stubs import SECONDS, Nop, Stub

from pulpcore.plugin.download.futures import Batch, Event


class End(Exception):
    """Raised when there are no more plans."""


class Sync:
    """Iterates with `for`."""

    source = staticmethod(iter)

    @staticmethod
    def run(scenario):
        """Run a scenario in which nothing waits for an event loop."""
        coroutine = scenario
        with pytest.raises(StopIteration):
            coroutine.send(None)

    @staticmethod
    @asynccontextmanager
    async def opened(downloads, *args, **options):
        """Return the ``with`` of a batch."""
        with Batch(downloads, *args, **options) as batch:
            yield batch

    @staticmethod
    async def next(plans):
        """Return the next plan."""
        try:
            return next(plans)
        except StopIteration:
            raise End from None

    @staticmethod
    async def pause():
        """Let other threads run."""


class Async:
    """Iterates with `async for`."""

    def __init__(self, source):
        self.source = source

    @staticmethod
    def run(scenario):
        """Run a scenario on an event loop. It must end."""

        async def bounded():
            async with asyncio.timeout(SECONDS):
                await scenario

        asyncio.run(bounded(), debug=False)

    @staticmethod
    @asynccontextmanager
    async def opened(downloads, *args, **options):
        """Return the ``async with`` of a batch."""
        async with Batch(downloads, *args, **options) as batch:
            yield batch

    @staticmethod
    async def next(plans):
        """Return the next plan."""
        try:
            return await anext(plans)
        except StopAsyncIteration:
            raise End from None

    @staticmethod
    async def pause():
        """Let other tasks and threads run."""
        await asyncio.sleep(0)


async def drip(downloads):
    """An async iterable that lets the event loop run before each download."""
    for download in downloads:
        await asyncio.sleep(0)
        yield download


async def pour(downloads):
    """An async iterable that never waits."""
    for download in downloads:
        yield download


@pytest.fixture(
    params=[Sync(), Async(iter), Async(drip), Async(pour)],
    ids=["for", "async for", "async for, async iterable", "async for, eager async iterable"],
)
def way(request):
    """Give each way to iterate a batch."""
    return request.param


async def rest(way, plans):
    """Return all remaining plans."""
    found = []
    while True:
        try:
            found.append(await way.next(plans))
        except End:
            return found


def batch_threads():
    """Return the threads of batches that are alive."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("batch-")]


@pytest.mark.parametrize("size", [0, 1, 3, 300])
def test_each_once(way, size):
    """A batch returns each download once, however many there are, and then ends."""

    async def scenario():
        downloads = way.source([Nop(n) for n in range(size)])
        async with way.opened(downloads, concurrent=3, backlog=5) as batch:
            found = [plan.result().attachment for plan in await rest(way, batch())]
            assert sorted(found) == list(range(size))
            assert batch.is_shutdown
            assert await rest(way, batch()) == []
        assert batch_threads() == []

    way.run(scenario())


@pytest.mark.parametrize(("concurrent", "backlog"), [(1, 1), (1, 7), (4, 4), (4, 10)])
def test_backlog_bound(way, concurrent, backlog):
    """A batch never takes more downloads than its backlog before it returns their plans."""
    taken = most = handed = 0

    def downloads():
        nonlocal taken, most
        for n in range(200):
            taken += 1
            most = max(most, taken - handed)
            yield Nop(n)

    async def scenario():
        nonlocal handed
        async with way.opened(way.source(downloads()), concurrent, backlog) as batch:
            plans = batch()
            for number in range(200):
                await way.next(plans)
                handed += 1
                if number % 3:
                    await way.pause()

    way.run(scenario())
    assert taken == handed == 200
    assert 0 < most <= backlog


def test_raises_after_the_plans(way):
    """An exception of the iterable is raised once, after the plans of its earlier downloads."""

    def downloads():
        yield from (Nop(n) for n in range(60))
        raise OSError("the database went away")

    async def scenario():
        async with way.opened(way.source(downloads()), concurrent=3) as batch:
            plans = batch()
            found = [(await way.next(plans)).result().attachment for _ in range(60)]
            with pytest.raises(OSError, match="database"):
                await way.next(plans)
            assert sorted(found) == list(range(60))
            assert await rest(way, batch()) == []
            assert batch_threads() == []

    way.run(scenario())


@pytest.mark.parametrize("thing", [None, "http://host/file", 5, ("a",), object(), Nop])
def test_no_download(way, thing):
    """An object that isn't a download is an error that names its type, after earlier plans."""

    async def scenario():
        async with way.opened(way.source([Nop(1), thing, Nop(2)]), concurrent=1) as batch:
            plans = batch()
            assert (await way.next(plans)).result().attachment == 1
            with pytest.raises(TypeError, match=type(thing).__name__):
                await way.next(plans)
            assert await rest(way, plans) == []

    way.run(scenario())


def test_endless(way):
    """A batch of an endless iterable can be iterated as far as needed and then closed."""

    async def scenario():
        async with way.opened(way.source(map(Nop, itertools.count())), 2, 16) as batch:
            plans = batch()
            found = {(await way.next(plans)).result().attachment for _ in range(500)}
        assert len(found) == 500
        assert batch_threads() == []

    way.run(scenario())


def test_before_start(way):
    """A batch that was shut down before its start refuses to start and takes no download."""
    taken = []

    async def scenario():
        batch = Batch(way.source(taken.append(n) or Nop() for n in range(3)))
        batch.shutdown()
        with pytest.raises(RuntimeError, match="shut down"):
            batch()
        assert await rest(way, batch.iterator) == []
        assert batch.iterator.tasks() == []

    way.run(scenario())
    assert taken == []


def test_contextvars(way):
    """A download and its handlers see the context variables of when it was taken."""
    tenant = ContextVar("tenant", default="nobody")
    seen = []

    def note(download):
        seen.append((download.attachment, tenant.get()))

    def downloads():
        for n in range(20):
            tenant.set(n)
            download = Stub(note)
            download.attachment = n
            download.register(Event.SUCCEEDED, lambda event: note(event.download))
            yield download

    async def scenario():
        async with way.opened(way.source(downloads()), concurrent=4) as batch:
            for plan in await rest(way, batch()):
                plan.result()

    way.run(scenario())
    assert len(seen) == 40
    assert all(expected == found for expected, found in seen)


def test_memory_is_flat(way):
    """A long batch frees plans, downloads and results after it has returned them."""
    size = 10_000

    def size_since(early):
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - early

    async def scenario():
        early = 0
        downloads = way.source(map(Nop, range(size)))
        async with way.opened(downloads, concurrent=2, backlog=64) as batch:
            plans = batch()
            for count in range(size):
                (await way.next(plans)).result()
                if count == 2_000:
                    early = tracemalloc.get_traced_memory()[0]
            # Without the interpreter lock, threads free each other's objects a little later.
            grown = [size_since(early)]
            while grown[-1] >= 200_000 and len(grown) < 100:
                time.sleep(0.05)
                grown.append(size_since(early))
        assert min(grown) < 200_000, grown

    tracemalloc.start()
    try:
        way.run(scenario())
    finally:
        tracemalloc.stop()
