"""Batches with many threads that share all they can. On a free-threaded build they race."""

import hashlib
import itertools
import os
from collections import Counter

import pytest

from pulpcore.plugin.download.futures import (
    Batch,
    BufferWriter,
    DigestValidation,
    DownloadFailed,
    Event,
    HttpDownload,
    Limits,
    NotFound,
)
from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.storage.digest import LARGE, PIECE

THREADS = 32
SIZES = [*range(0, 30_000, 100), *[LARGE + 3 * PIECE] * 3]
FILES = {f"/{number}": os.urandom(size) for number, size in enumerate(SIZES)}


@pytest.fixture
def context():
    """Give a context that all downloads of a test share."""
    context = Context()
    yield context
    context.close()


def downloads(server, context, limits, told):
    """Yield a download of each file, and one of a missing file between any two."""
    for number, (path, content) in enumerate(FILES.items()):
        for url in (server.url(path), *[server.url(f"/missing{number}")] * (number % 9 == 0)):
            download = HttpDownload(url, BufferWriter(4 * LARGE))
            download.context, download.limits = context, limits
            digest = hashlib.sha256(content).hexdigest()
            download.validations.append(DigestValidation("sha256", digest))
            for name in (Event.SUCCEEDED, Event.FAILED):
                download.register(name, lambda event: told.append(event.NAME))
            yield download


@pytest.mark.parametrize("pipeline", [1, 8])
def test_all_shared(file_server, context, no_leaks, pipeline):
    """Each file comes whole, each download tells its end once, and the limits hold."""
    server, told = file_server(FILES), []
    own, shared = Limits(per_host=12), Limits(per_host=9, in_flight=8 * LARGE)
    source = downloads(server, context, own, told)
    with Batch(source, concurrent=THREADS, limits=shared, pipeline=pipeline) as batch:
        plans = list(batch())
    context.close()
    found = Counter(type(plan.error) for plan in plans)
    assert found == {type(None): len(FILES), NotFound: len(range(0, len(FILES), 9))}
    for plan in plans:
        if plan.error is None:
            path = plan.download.url.removeprefix(server.url(""))
            assert plan.download.writer.getvalue() == FILES[path]
    assert Counter(told) == {
        Event.SUCCEEDED: found[type(None)],
        Event.FAILED: found[NotFound],
    }
    assert server.most_connections <= 9


def test_shut_down(file_server, context, no_leaks):
    """After a shutdown in the middle the batch ends, and each plan that was cut short says so."""
    server = file_server(FILES)
    for end in range(1, 100, 20):
        told = []
        source = downloads(server, context, Limits(per_host=THREADS), told)
        with Batch(source, concurrent=THREADS) as batch:
            plans = batch()
            ended = list(itertools.islice(plans, end))
            batch.shutdown()
            ended += plans
        errors = {type(plan.error) for plan in ended}
        assert errors <= {type(None), NotFound, DownloadFailed}
        assert len(told) == sum(plan.executed for plan in ended)
