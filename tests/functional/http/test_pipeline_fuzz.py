"""Random trains: whatever a server does, every download ends once, and right or failed."""

import hashlib
import itertools
import random
import threading
import time

import pytest
from http_tools import names, quick, record, trust
from servers.connection import ClientGone
from servers.message import chunked, reply
from servers.train import TrainServer

from pulpcore.plugin.download.futures import (
    Batch,
    BufferWriter,
    DigestValidation,
    DownloadError,
    Event,
    HttpDownload,
    SizeValidation,
)
from pulpcore.plugin.download.futures.engine.pipeline import Health

pytestmark = pytest.mark.timeout(120)

ONCE = [Event.PREPARED, Event.SENT, Event.REPLIED, Event.FETCHED, Event.SUCCEEDED]
# What doesn't end the connection. Each takes the content, and returns what is sent instead.
WRONG = {
    "404": lambda data: reply(404, body=b"gone"),
    "500": lambda data: reply(500, body=data),
    "503": lambda data: reply(503),
    "304": lambda data: reply(304),
    "302": lambda data: reply(302, {"Location": "/elsewhere"}, b"there"),
    "203": lambda data: reply(203, body=data[:-1]),
    "206": lambda data: reply(206, {"Content-Range": f"bytes 0-{len(data) - 1}/*"}, data),
    "other content": lambda data: reply(body=b"!" * len(data)),
    "short": lambda data: reply(body=data[:-1]),
    "long": lambda data: reply(body=data + b"!"),
    "gzip": lambda data: reply(headers={"Content-Encoding": "gzip"}, body=data),
    "empty": lambda data: reply(body=b""),
}
# What ends it.
ENDS = {
    "twice": lambda data: reply(body=data) * 2,
    "nothing": lambda data: b"",
    "half a head": lambda data: reply(body=data)[:25],
    "no head": lambda data: b"\r\nnonsense\r\n\r\n",
    "bad chunk": lambda data: reply(
        headers={"Transfer-Encoding": "chunked"}, body=b"5\r\nabcde!\r\n"
    ),
    "no length": lambda data: reply(body=data, length=False),
    "too large": lambda data: reply(headers={"Content-Length": "999999"}, body=data),
}
RIGHT = {
    "plain": lambda data: reply(body=data),
    "chunked": lambda data: reply(headers={"Transfer-Encoding": "chunked"}, body=chunked(data)),
    "interim": lambda data: reply(103, {"Link": "</x>"}, length=False) + reply(body=data),
    "announced": lambda data: reply(headers={"Connection": "close"}, body=data),
    "by 1.0": lambda data: reply(body=data, version="HTTP/1.0"),
}
# A failed attempt of the download, also within a train.
CUTS = {
    "cut": lambda data: reply(body=data)[: -len(data) // 2],
    "cut chunks": lambda data: reply(
        headers={"Transfer-Encoding": "chunked"}, body=chunked(data)[:-7]
    ),
}


class Fuzzed(TrainServer):
    """Does something at random for each request.

    Attributes:
        faults: What was done, for each path: the fault, and how many requests came together.
    """

    def __init__(self, files, seed, share, tls):
        self._random, self._share = random.Random(seed), share
        self._lock = threading.Lock()
        self.faults = {path: [] for path in files}
        super().__init__(files, self.choose, tls=tls)

    def content_of(self, download):
        """Return the right content of a download."""
        return self.files["/" + download.url.rpartition("/")[2]]

    def choose(self, paths, _):
        """Yield the replies, of which some are wrong."""
        if paths[0] not in self.files:
            yield reply(404)
            return
        chosen = [self._pick() for _ in paths]
        if chosen[-1] == "twice":
            # No client can tell a reply that nobody asked for from one to the request after it.
            chosen[-1] = "nothing"
        with self._lock:
            swap = len(paths) > 2 and self._random.random() < self._share / 4
        order = [paths[1], paths[0], *paths[2:]] if swap else paths
        for path, asked, kind in zip(order, paths, chosen, strict=True):
            fault = "swapped" if kind in RIGHT and path != asked else kind
            self.faults[asked].append((fault, len(paths)))
            data = self.files[path]
            make = {**RIGHT, **WRONG, **ENDS, **CUTS}[kind]
            yield make(data)
            if kind in ENDS or kind in CUTS or kind in ("announced", "by 1.0"):
                raise ClientGone

    def _pick(self):
        with self._lock:
            if self._random.random() > self._share:
                return self._random.choice(["plain"] * 8 + ["chunked", "interim"])
            kinds = [*WRONG, *ENDS, *CUTS, "announced", "by 1.0"]
            return self._random.choice(kinds)


def check(server, download, found, plan):
    """Check the events and the outcome of a download."""
    data = server.content_of(download)
    seen = names(found)
    faults = server.faults["/" + download.url.rpartition("/")[2]]
    context = (seen, faults, plan.error)
    assert seen[0] == Event.PREPARED, context
    assert seen.count(Event.PREPARED) == 1, context
    last = Event.SUCCEEDED if plan.error is None else Event.FAILED
    assert seen[-1] == last, context
    assert seen.count(Event.SUCCEEDED) + seen.count(Event.FAILED) == 1, context
    for before, after in itertools.pairwise(seen):
        assert (before == Event.SENT) == (after == Event.REPLIED), context
    if plan.error is None:
        assert download.writer.getvalue() == data, context
    else:
        assert isinstance(plan.error, DownloadError), context
    visible = [
        fault
        for fault, together in faults
        if fault not in RIGHT and (together == 1 or fault in CUTS)
    ]
    if not visible:
        assert seen == ONCE, context
    # A 503 may mean too many connections. Then it is no Error.
    assert seen.count(Event.ERROR) <= len(visible), context
    assert seen.count(Event.SENT) == seen.count(Event.REPLIED) <= 1 + len(visible), context


def fuzzed(running, tls, chosen, seed):
    """Start a server, and make downloads of its files; return them with their events."""
    sizes = [chosen.choice([1, 10, 3000, 40_000]) + number for number in range(60)]
    files = {f"/{number}": chosen.randbytes(size) for number, size in enumerate(sizes)}
    is_secure = chosen.random() < 0.25
    share = chosen.choice([0.02, 0.1, 0.3])
    server = running(Fuzzed, files, seed, share, tls.server() if is_secure else None)
    options = {"ssl": trust(tls.ca)} if is_secure else {}
    downloads = []
    for path, data in files.items():
        download = HttpDownload(server.url(path), BufferWriter(), **options)
        digest = DigestValidation("sha256", hashlib.sha256(data).hexdigest())
        download.validations += [SizeValidation(len(data)), digest]
        download.retry = quick(20)
        downloads.append(download)
    return server, {download: record(download) for download in downloads}


def settings(chosen):
    """Return settings of a batch."""
    return {"pipeline": chosen.choice([2, 5, 8]), "concurrent": chosen.choice([1, 1, 2, 4])}


@pytest.fixture(params=range(4))
def seed(request, monkeypatch):
    """A seed. For each other one trains go on, whatever the server does."""
    if request.param % 2:
        monkeypatch.setattr(Health, "stop", lambda _: None)
        monkeypatch.setattr(Health, "ended", lambda _: None)
    return request.param


def test_random(running, no_leaks, tls, seed):
    """A fault within a train changes no event, unless it cuts a body."""
    chosen = random.Random(seed)
    server, events = fuzzed(running, tls, chosen, seed)
    with Batch(events, **settings(chosen)) as batch:
        plans = list(batch())
    assert sorted(map(id, events)) == sorted(id(plan.download) for plan in plans)
    for plan in plans:
        check(server, plan.download, events[plan.download], plan)


def test_shut_down(running, no_leaks, tls, seed):
    """A batch that is shut down at any moment returns each plan once, complete or failed."""
    chosen = random.Random(seed)
    server, events = fuzzed(running, tls, chosen, seed)
    event = chosen.choice([Event.PREPARED, Event.REPLIED, Event.FETCHED, Event.SUCCEEDED])
    chosen.choice([*events]).register(event, lambda _: threading.Thread(target=stop).start())
    batch = Batch(events, **settings(chosen), backlog=100)

    def stop():
        batch.shutdown()

    plans = list(batch())
    batch.shutdown()
    assert len({id(plan.download) for plan in plans}) == len(plans)
    for plan in plans:
        if plan.error is None:
            assert plan.download.writer.getvalue() == server.content_of(plan.download)
    for found in map(names, events.values()):
        ends = [name for name in found if name in (Event.SUCCEEDED, Event.FAILED)]
        assert len(ends) == (1 if found else 0)
        assert found[-1:] == ends


def test_handlers(running, no_leaks, tls, seed):
    """Handlers that raise or block until other downloads have ended disturb no train."""
    chosen = random.Random(seed)
    server, events = fuzzed(running, tls, chosen, seed)
    done = []
    for download in events:
        download.register(Event.SUCCEEDED, done.append)

    def fail(_):
        raise ZeroDivisionError

    def wait(_):
        before = len(done)
        end = time.monotonic() + 0.3
        while len(done) == before and time.monotonic() < end:
            time.sleep(0.001)

    for download in chosen.sample([*events], 12):
        name = chosen.choice([Event.SENT, Event.REPLIED, Event.FETCHED, Event.SUCCEEDED])
        download.register(name, chosen.choice([fail, wait]))
    with Batch(events, **settings(chosen)) as batch:
        plans = list(batch())
    assert sorted(map(id, events)) == sorted(id(plan.download) for plan in plans)
    for plan in plans:
        check(server, plan.download, events[plan.download], plan)
