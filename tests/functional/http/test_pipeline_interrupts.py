"""Ctrl-C while a batch pipelines, and handlers of a train that raise what ends a program."""

import hashlib
import random
import threading

import pytest
from http_tools import names, record
from interrupts import at_each_place
from servers.train import TrainServer

from pulpcore.plugin.download.futures import (
    Batch,
    BufferWriter,
    DigestValidation,
    Event,
    HttpDownload,
    SizeValidation,
)
from pulpcore.plugin.download.futures.context import Context

pytestmark = pytest.mark.timeout(120)

FILES = {f"/{number}": bytes([65 + number]) * (2000 + number) for number in range(12)}
ONCE = [Event.PREPARED, Event.SENT, Event.REPLIED, Event.FETCHED, Event.SUCCEEDED]
STEP = 3


def small(server, path):
    """Make a download of a file with its size and digest."""
    download = HttpDownload(server.url(path), BufferWriter())
    download.validations += [
        SizeValidation(len(FILES[path])),
        DigestValidation("sha256", hashlib.sha256(FILES[path]).hexdigest()),
    ]
    return download


@pytest.fixture
def context():
    """A context whose connection is used again, so that trains begin at once."""
    context = Context()
    yield context
    context.close()


@pytest.fixture
def server(running, context):
    """Start a server that has proved itself on one connection."""
    server = running(TrainServer, FILES)
    downloads = [small(server, f"/{number}") for number in range(4)]
    with Batch(downloads, concurrent=1, context=context) as batch:
        assert all(plan.error is None for plan in batch())
    return server


def test_iterating_on(server, context, from_terminal):
    """After Ctrl-C during trains, further iteration returns each plan once, with its events."""

    def scenario(armed):
        downloads = [small(server, path) for path in FILES]
        events = [record(download) for download in downloads]
        batch = Batch(iter(downloads), concurrent=1, pipeline=8, context=context)
        plans, seen, is_done = batch(), [], False
        while not is_done:
            with armed:
                for plan in plans:
                    seen.append(plan)  # noqa: PERF402 - it is interrupted
                is_done = True
        assert sorted(id(plan.download) for plan in seen) == sorted(map(id, downloads))
        assert [download.writer.getvalue() for download in downloads] == list(FILES.values())
        assert [names(found) for found in events] == [ONCE] * len(downloads)
        batch.shutdown()

    assert at_each_place(scenario, STEP) > 200
    assert server.depth > 2


def test_leaving_the_with(server, context, from_terminal):
    """Ctrl-C during trains ends the `with` block. Each started download ends once."""

    def scenario(armed):
        downloads = [small(server, path) for path in FILES]
        events = [record(download) for download in downloads]
        batch = Batch(iter(downloads), concurrent=1, pipeline=8, context=context)
        with armed, batch:
            for plan in batch():
                plan.result()
        batch.shutdown()
        for found in map(names, events):
            ends = [name for name in found if name in (Event.SUCCEEDED, Event.FAILED)]
            assert len(ends) == bool(found)
            assert found[-1:] == ends

    at_each_place(scenario, STEP)
    # Longer trains may never come, because interrupts end the first ones.
    assert server.depth >= 2


def test_at_random(server, context, from_terminal):
    """A shutdown at any moment of a train ends each started download once."""
    chosen = random.Random(1)
    for _ in range(40):
        downloads = [small(server, path) for path in FILES]
        events = [record(download) for download in downloads]
        batch = Batch(iter(downloads), concurrent=1, pipeline=8, context=context)
        iterator = batch()
        timer = threading.Timer(chosen.uniform(0, 0.012), batch.shutdown)
        timer.start()
        plans = list(iterator)
        timer.join()
        for plan in plans:
            assert plan.error is None or "shut down" in str(plan.error)
        for found in map(names, events):
            assert found in ([], ONCE) or found[-1] == Event.FAILED


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(
    "place",
    [Event.PREPARED, Event.SENT, Event.REPLIED, Event.FETCHED, Event.SUCCEEDED, "auth", "append"],
)
def test_raised_by_a_download(server, context, place, error):
    """KeyboardInterrupt or SystemExit of a handler or an `auth` ends only its own download."""

    def fail(_):
        raise error

    class Writer(BufferWriter):
        def append(self, _):
            raise error

    downloads = [small(server, path) for path in FILES]
    chosen = [downloads[number] for number in (0, 3, 7)]
    for download in chosen:
        if place == "append":
            download.writer = Writer()
        elif place == "auth":
            download.auth = fail
        else:
            download.register(place, fail)
    with Batch(downloads, concurrent=1, pipeline=8, context=context) as batch:
        plans = list(batch())
    assert sorted(id(plan.download) for plan in plans) == sorted(map(id, downloads))
    failed = [plan for plan in plans if plan.error is not None]
    assert {id(plan.download) for plan in failed} == set(map(id, chosen))
    assert all(isinstance(plan.error, error) for plan in failed)
    for path, download in zip(FILES, downloads, strict=True):
        assert download in chosen or download.writer.getvalue() == FILES[path]
