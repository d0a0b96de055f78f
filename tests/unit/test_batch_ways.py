"""What a batch promises however it is iterated: by `for`, and by `async for` over either iterable.

Each scenario is a coroutine function, which gets the way: a `for` never waits in it.
"""

import asyncio
import gc
import itertools
import threading
import tracemalloc
from contextlib import asynccontextmanager
from contextvars import ContextVar

import pytest
from stubs import SECONDS, Nop, Stub

from pulpcore.plugin.download.futures import Batch, Event


class End(Exception):
    """There are no more plans."""


class Sync:
    """By `for`."""

    source = staticmethod(iter)

    @staticmethod
    def run(scenario):
        """Run a scenario, in which nothing waits for an event loop."""
        coroutine = scenario
        with pytest.raises(StopIteration):
            coroutine.send(None)

    @staticmethod
    @asynccontextmanager
    async def opened(downloads, *args, **options):
        """The ``with`` of a batch."""
        with Batch(downloads, *args, **options) as batch:
            yield batch

    @staticmethod
    async def next(plans):
        """The next plan."""
        try:
            return next(plans)
        except StopIteration:
            raise End from None

    @staticmethod
    async def pause():
        """Let others run."""


class Async:
    """By `async for`."""

    def __init__(self, source):
        self.source = source

    @staticmethod
    def run(scenario):
        """Run a scenario on an event loop; it must end."""

        async def bounded():
            async with asyncio.timeout(SECONDS):
                await scenario

        asyncio.run(bounded(), debug=False)

    @staticmethod
    @asynccontextmanager
    async def opened(downloads, *args, **options):
        """The ``async with`` of a batch."""
        async with Batch(downloads, *args, **options) as batch:
            yield batch

    @staticmethod
    async def next(plans):
        """The next plan."""
        try:
            return await anext(plans)
        except StopAsyncIteration:
            raise End from None

    @staticmethod
    async def pause():
        """Let others run."""
        await asyncio.sleep(0)


async def drip(downloads):
    """An async iterable that has the loop go round before each download."""
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
    """How the batch is iterated."""
    return request.param


async def rest(way, plans):
    """All plans that are left."""
    found = []
    while True:
        try:
            found.append(await way.next(plans))
        except End:
            return found


def batch_threads():
    """The threads of batches that are alive."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("batch-")]


@pytest.mark.parametrize("size", [0, 1, 3, 300])
def test_each_once(way, size):
    """Each download comes back once, whatever their number; then the batch has ended."""

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
    """Never more than the backlog is taken and not handed back."""
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
    """What the iterable raises comes after the plans of what it gave, and once."""

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
    """What is no download is an error that names its type, after the plans before it."""

    async def scenario():
        async with way.opened(way.source([Nop(1), thing, Nop(2)]), concurrent=1) as batch:
            plans = batch()
            assert (await way.next(plans)).result().attachment == 1
            with pytest.raises(TypeError, match=type(thing).__name__):
                await way.next(plans)
            assert await rest(way, plans) == []

    way.run(scenario())


def test_endless(way):
    """An endless iterable can be used as far as one likes."""

    async def scenario():
        async with way.opened(way.source(map(Nop, itertools.count())), 2, 16) as batch:
            plans = batch()
            found = {(await way.next(plans)).result().attachment for _ in range(500)}
        assert len(found) == 500
        assert batch_threads() == []

    way.run(scenario())


def test_before_start(way):
    """A batch that was shut down before it was started refuses to start; nothing is taken."""
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
    """A download and its handlers see the variables as they were when it was taken."""
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
    """Plans, downloads and results of a long batch are let go of as they are handed back."""
    size = 10_000

    async def scenario():
        early = 0
        downloads = way.source(map(Nop, range(size)))
        async with way.opened(downloads, concurrent=2, backlog=64) as batch:
            plans = batch()
            for count in range(size):
                (await way.next(plans)).result()
                if count == 2_000:
                    early = tracemalloc.get_traced_memory()[0]
            gc.collect()
            late = tracemalloc.get_traced_memory()[0]
        assert late - early < 200_000

    tracemalloc.start()
    try:
        way.run(scenario())
    finally:
        tracemalloc.stop()
