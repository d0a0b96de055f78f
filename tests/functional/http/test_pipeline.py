"""Pipelining: when a batch sends several requests together, and what it makes of the replies."""

import asyncio
import contextvars
import functools
import hashlib
import threading
import time

import pytest
import requests.adapters
from executors import Inline
from http_tools import names, quick, record, trust
from servers.connection import ClientGone
from servers.message import chunked, reply
from servers.train import TrainServer

from pulpcore.plugin.download.futures import (
    Batch,
    BufferWriter,
    DigestValidation,
    DownloadFailed,
    Event,
    FileWriter,
    HttpDownload,
    Limits,
    NotFound,
    SizeValidation,
    Timeout,
    Validation,
    ValidationError,
)
from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.engine.machine import Life
from pulpcore.plugin.download.futures.pool import train as trains
from pulpcore.plugin.download.futures.rate import RateLimiter

pytestmark = pytest.mark.timeout(120)

FILES = {f"/{number}": bytes([65 + number % 26]) * (2000 + number // 2) for number in range(40)}
ONCE = [Event.PREPARED, Event.SENT, Event.REPLIED, Event.FETCHED, Event.SUCCEEDED]


def validated(download, data):
    """Add the validations of size and digest."""
    download.validations += [
        SizeValidation(len(data)),
        DigestValidation("sha256", hashlib.sha256(data).hexdigest()),
    ]
    return download


def small(server, path, cls=HttpDownload, **options):
    """Make a download of a file of the server, with size and digest."""
    return validated(cls(server.url(path), BufferWriter(), **options), server.files[path])


@pytest.fixture
def serving(running):
    """`serving(answer=None, **options)` starts a server, which waits until all is in the queue.

    Until the iterable has come to its end (`server.ready`) it answers nothing. So the trains are
    always the same.
    """

    def start(answer=None, files=FILES, **options):
        server = running(TrainServer, files, **options)
        server.ready = threading.Event()
        chosen = answer or server.right

        def wait(paths, connection):
            server.wait(server.ready)
            yield from chosen(paths, connection)

        server.answer = wait
        return server

    return start


def queued(server, downloads):
    """Yield downloads, and let the server begin when there are no more."""
    yield from downloads
    server.ready.set()


def run(server, downloads, concurrent=1, pipeline=8, **options):
    """Run downloads by a batch; return its plans in the order of completion."""
    source = queued(server, downloads)
    with Batch(source, concurrent=concurrent, pipeline=pipeline, **options) as batch:
        return list(batch())


def fetched(plans):
    """Check that each download has succeeded with the right content, and return the downloads."""
    for plan in plans:
        download = plan.result()
        path = "/" + download.url.rpartition("/")[2]
        assert download.writer.getvalue() == FILES[path]
    return [plan.download for plan in plans]


def test_depth(serving):
    """The first train of a connection, after three replies, has two requests; others have more."""
    server = serving()
    plans = run(server, [small(server, path) for path in FILES])
    assert len(fetched(plans)) == len(FILES)
    assert list(map(len, server.trains)) == [1, 1, 1, 2, 8, 8, 8, 8, 3]
    assert server.connections == 1
    assert sorted(request.path for request in server.requests) == sorted(FILES)


@pytest.mark.parametrize(("pipeline", "depth"), [(8, 8), (1, 1)])
def test_workers(serving, tmp_path, pipeline, depth):
    """Workers of an executor send as many requests together as the batch allows."""
    server = serving()
    downloads = [small(server, path) for path in FILES]
    for number, download in enumerate(downloads):
        download.writer = FileWriter(tmp_path / str(number))
    with Inline(1) as executor:
        plans = run(server, downloads, pipeline=pipeline, executor=executor)
    assert [plan.error for plan in plans] == [None] * len(FILES)
    assert server.depth == depth
    assert [(tmp_path / path[1:]).read_bytes() for path in FILES] == list(FILES.values())


def test_events(serving):
    """Each download of a train has its own events, once each and in their order."""
    server = serving()
    downloads = [small(server, path) for path in FILES]
    events = [record(download) for download in downloads]
    fetched(run(server, downloads))
    assert server.depth == 8
    for download, found in zip(downloads, events, strict=True):
        assert names(found) == ONCE
        assert all(event.download is download for event in found)
        assert (download.status, download.reply.status_code, download.reply.url) == (
            *(200, 200),
            download.url,
        )
        assert download.etag == f'"/{download.url.rpartition("/")[2]}"'
        assert download.reply.history == []
        assert download.reply.raw.headers["ETag"] == download.etag


def test_prepared_changes_the_request(serving):
    """What a handler of Prepared sets is sent in a train, too."""
    server = serving()
    downloads = [small(server, path) for path in FILES]
    for number, download in enumerate(downloads):
        download.register(
            Event.PREPARED,
            lambda event, number=number: event.download.headers.update({"X-Number": str(number)}),
        )
    fetched(run(server, downloads))
    assert server.depth == 8
    assert all(request.header("X-Number") == request.path[1:] for request in server.requests)


@pytest.mark.parametrize(
    ("pipeline", "delay", "depths"),
    [(1, 0.02, {1}), (None, 0.02, {1, 2, 8}), (3, 0.0, {1, 2, 3}), (2, 0.0, {1, 2})],
)
def test_argument(serving, pipeline, delay, depths):
    """The argument `pipeline` sets the depth; None is up to 8 where a round trip takes long."""
    server = serving(delay=delay)
    fetched(run(server, [small(server, f"/{number}") for number in range(24)], pipeline=pipeline))
    assert depths <= set(map(len, server.trains))
    assert server.depth == max(depths)


def test_no_time_out(serving):
    """Downloads without a read time-out are pipelined, too."""
    server = serving()
    timeout = Timeout(read=None)
    fetched(run(server, [small(server, path, timeout=timeout) for path in FILES]))
    assert server.depth == 8


def test_near_by_default(serving, monkeypatch):
    """By default there are no trains if round trips are short."""
    monkeypatch.setattr("pulpcore.plugin.download.futures.engine.pipeline.TRIP", 60.0)
    server = serving()
    fetched(run(server, [small(server, path) for path in FILES], pipeline=None))
    assert server.depth == 1


def test_wrong_argument():
    """A depth that isn't a whole number of at least 1 raises ValueError."""
    for pipeline in (0, -1, 2.5, "8"):
        with pytest.raises(ValueError, match="pipeline: must be"):
            Batch([], pipeline=pipeline)


class Calls(HttpDownload):
    """A plugin's download that overrides `__call__`."""

    def __call__(self):
        """Call the method of the base class."""
        super().__call__()


class Sends(HttpDownload):
    """A plugin's download that overrides `_send`."""

    def _send(self):
        super()._send()


class Writes(HttpDownload):
    """A plugin's download that overrides `_write`."""

    def _write(self, buffer):
        super()._write(buffer)


class OwnProtocol(HttpDownload):
    """A plugin's download with a protocol of its own."""

    class _protocol(HttpDownload._protocol):  # noqa: N801 - as it is looked up
        """A protocol that changes nothing."""


def without_size(download):
    """Remove the validation of the size."""
    del download.validations[0]


def without_digest(download):
    """Remove the validation of the digest."""
    del download.validations[1]


def lenient_size(download):
    """Don't enforce the size."""
    download.validations[0].enforced = False


def lenient_digest(download):
    """Don't enforce the digest."""
    download.validations[1].enforced = False


def contradictory(download):
    """Add another size, which is not the right one; it isn't reached."""
    download.validations.append(SizeValidation(10**6))


def shadowed(download):
    """Replace `_write` in the object."""
    download._write = functools.partial(download._write)


def own_validation(download):
    """Replace the validation of the digest by one of a subclass."""

    class Own(DigestValidation):
        """A validation of a plugin."""

    download.validations[1] = Own("sha256", download.validations[1].expected)


def setting(name, value):
    """Return a function that sets an attribute of a download."""

    def change(download):
        setattr(download, name, value)

    change.__name__ = f"{name}={type(value).__name__}"
    return change


def header(name, value):
    """Return a function that sets a header of a download."""

    def change(download):
        download.headers[name] = value

    change.__name__ = name
    return change


def resuming(download):
    """Exchange the writer for one that resumes what an earlier run left."""

    class Writer(BufferWriter):
        """A writer that says that it resumes."""

        resume = True

    download.writer = Writer()


@pytest.mark.parametrize(
    "change",
    [
        *(without_size, without_digest, lenient_size, lenient_digest, shadowed, own_validation),
        *(setting("method", "HEAD"), setting("known_etag", '"old"')),
        setting("known_last_modified", "Tue, 15 Nov 1994 12:45:26 GMT"),
        setting("rate_limiter", RateLimiter(10**6)),
        setting("limits", Limits(bandwidth=10**9)),
        setting("mirrors", ["http://127.0.0.1:9/"]),
        *(setting("timeout", Timeout(total=60)), setting("timeout", Timeout(least_speed=1.0))),
        *(header("Range", "bytes=0-"), header("If-None-Match", '"x"')),
        *(header("if-modified-since", "Tue, 15 Nov 1994 12:45:26 GMT"), header("TE", "trailers")),
        resuming,
    ],
)
def test_conditions(serving, change):
    """If a request doesn't fulfil a single condition of pipelining, it is sent alone."""
    server = serving()
    downloads = [small(server, f"/{number}") for number in range(16)]
    for download in downloads:
        change(download)
        download.retry = None
    plans = run(server, downloads)
    assert len(plans) == 16
    assert server.depth == 1


def test_contradictory_sizes(serving):
    """A download that expects two different sizes is sent alone, and fails."""
    server = serving()
    downloads = [small(server, f"/{number}") for number in range(8)]
    for download in downloads:
        contradictory(download)
    assert all(isinstance(plan.error, ValidationError) for plan in run(server, downloads))
    assert server.depth == 1


@pytest.mark.parametrize("cls", [Calls, Sends, Writes, OwnProtocol])
def test_overridden(serving, cls):
    """A class that overrides how it is run, sent or written is never pipelined."""
    server = serving()
    fetched(run(server, [small(server, f"/{number}", cls) for number in range(16)]))
    assert server.depth == 1


def test_plain_subclass(serving):
    """A class that overrides something else is pipelined."""

    class Plain(HttpDownload):
        """A plugin's download with a method of its own."""

        def describe(self):
            """Describe the download."""

    server = serving()
    fetched(run(server, [small(server, f"/{number}", Plain) for number in range(16)]))
    assert server.depth == 8


@pytest.mark.parametrize(("size", "depth"), [(256 * 1024, 8), (256 * 1024 + 1, 1)])
def test_large(serving, size, depth):
    """Content of up to 256 KiB is asked for in trains."""
    files = {f"/{number}": bytes([number]) * size for number in range(16)}
    server = serving(files=files)
    plans = run(server, [small(server, path) for path in files])
    assert all(
        plan.result().writer.getvalue() == files["/" + plan.download.url.rpartition("/")[2]]
        for plan in plans
    )
    assert server.depth == depth


def test_mounted_adapter(serving):
    """If the caller has mounted an adapter, each request is sent alone."""
    server = serving()
    downloads = [small(server, f"/{number}") for number in range(16)]
    context = downloads[0].context = Context()
    downloads[0].session.mount("http://", requests.adapters.HTTPAdapter())
    fetched(run(server, downloads, context=context))
    context.close()
    assert server.depth == 1


def test_proxy(serving):
    """Through a proxy each request is sent alone."""
    server = serving()
    server.files = {f"http://files.example{path}": data for path, data in FILES.items()}
    downloads = []
    for number in range(16):
        download = HttpDownload(
            f"http://files.example/{number}", BufferWriter(), proxy_url=server.url("")
        )
        downloads.append(validated(download, FILES[f"/{number}"]))
    fetched(run(server, downloads))
    assert server.depth == 1


def test_unsendable(serving):
    """A request that can't be sent, or has an invalid setting, fails alone."""
    server = serving()
    downloads = [small(server, path) for path in FILES]
    bad = downloads[20]
    bad.register(Event.PREPARED, lambda event: event.download.headers.update({"X": "€"}))
    plans = run(server, downloads)
    assert [plan.download for plan in plans if plan.error is not None] == [bad]
    assert server.depth == 8


@pytest.mark.parametrize("number", [8, 20])
def test_bug_among_others(serving, number):
    """A bug during the preparation of a request fails only its download, and ends no thread."""
    server = serving()
    downloads = [small(server, path) for path in FILES]
    bad = downloads[number]

    def spoil(_):
        (size,) = (v for v in bad.validations if isinstance(v, SizeValidation))
        size.expected = "250"

    bad.register(Event.PREPARED, spoil)
    plans = run(server, downloads)
    assert len(plans) == len(downloads)
    assert [(plan.download, type(plan.error)) for plan in plans if plan.error is not None] == [
        (bad, TypeError)
    ]
    assert server.depth == 8


def test_bug_while_a_reply_is_checked(serving, monkeypatch):
    """If checking a pipelined reply raises, its request is sent again alone."""
    server = serving()
    downloads = [small(server, path) for path in FILES]
    original, bugs = Life.receive, []

    def receive(self, line):
        if self.download is downloads[20]:
            bugs.append(original(self, line))
            raise ZeroDivisionError
        return original(self, line)

    monkeypatch.setattr(Life, "receive", receive)
    fetched(run(server, downloads))
    assert len(bugs) == 1


def test_wrong_setting_among_others(serving):
    """A setting whose error shows when a connection is made fails only its download."""
    server = serving()
    downloads = [small(server, path) for path in FILES]
    downloads[8].proxy_url = "nonsense://somewhere"
    plans = run(server, downloads)
    assert [plan.download for plan in plans if plan.error is not None] == [downloads[8]]
    assert server.depth == 8


def test_log(serving, caplog):
    """At the level DEBUG each reply of a train is logged, without the values of a query."""
    server = serving(files={f"/{number}": b"content" for number in range(16)})
    downloads = []
    for number in range(16):
        download = HttpDownload(server.url(f"/{number}?token=secret"), BufferWriter())
        downloads.append(validated(download, b"content"))
    with caplog.at_level("DEBUG", logger="pulpcore.plugin.download.futures"):
        assert all(plan.error is None for plan in run(server, downloads))
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if line.endswith("200, pipelined")]) == 13
    assert "secret" not in "".join(lines)


def test_room(serving):
    """A train has at most 16 KiB."""
    files = {f"/{number}?{'x' * 3000}": b"content" for number in range(24)}
    server = serving(files={path.partition("?")[0]: data for path, data in files.items()})
    downloads = [
        validated(HttpDownload(server.url(path), BufferWriter()), data)
        for path, data in files.items()
    ]
    assert all(plan.error is None for plan in run(server, downloads))
    assert max(map(len, server.trains)) == 5
    assert max(server.sizes) <= 16 * 1024


def test_origins(serving):
    """Requests to two origins, or with two users, are never in one train."""
    servers = serving(), serving()
    downloads = []
    for number in range(24):
        server = servers[number // 2 % 2]
        user = ("someone", "secret") if number % 3 else None
        downloads.append(small(server, f"/{number}", user=user))
    servers[1].ready = servers[0].ready
    fetched(run(servers[0], downloads))
    for server in servers:
        # A connection has one user.
        logins = {request.path: request.header("Authorization") for request in server.requests}
        assert all(len({logins[path] for path in paths}) == 1 for paths in server.trains)
        assert {number for number, value in logins.items() if value} == {
            f"/{n}" for n in range(24) if n % 3 and servers[n // 2 % 2] is server
        }


def test_tls(serving, tls):
    """Requests are pipelined by TLS, too."""
    server = serving(tls=tls.server())
    downloads = [small(server, path, ssl=trust(tls.ca)) for path in FILES]
    fetched(run(server, downloads))
    assert server.depth == 8
    assert server.connections == 1


def test_async(serving):
    """An `async for` pipelines requests as a `for` does."""
    server = serving()

    async def main():
        downloads = [small(server, path) for path in FILES]
        async with Batch(queued(server, downloads), concurrent=1, pipeline=8) as batch:
            return [plan async for plan in batch()]

    assert len(fetched(asyncio.run(main()))) == len(FILES)
    assert server.depth == 8


def test_contextvars(serving):
    """Each download of a train runs in the context in which it was taken from the iterable."""
    server, variable, found = serving(), contextvars.ContextVar("variable"), {}

    def look(event):
        found.setdefault(event.download.url, []).append(variable.get())
        variable.set(None)

    def source():
        for path in FILES:
            download = small(server, path)
            download.register(Event.PREPARED, look)
            download.register(Event.SUCCEEDED, look)
            variable.set(path)
            yield download

    fetched(run(server, source()))
    assert server.depth == 8
    assert found == {server.url(path): [path, None] for path in FILES}


# What a server sends in a train instead of one right reply. Each ends the train or doesn't; the
# request is sent again alone.
UNFIT = {
    "404": reply(404, body=b"gone?"),
    "500": reply(500),
    "203": lambda data: reply(203, body=data),
    "206": lambda data: reply(206, {"Content-Range": f"bytes 0-{len(data) - 1}/{len(data)}"}, data),
    "304": reply(304),
    "redirect": reply(302, {"Location": "/0"}),
    "other content": lambda data: reply(body=b"!" * len(data)),
    "other size": lambda data: reply(body=data[:-1]),
    "a part": lambda data: reply(headers={"Content-Range": "bytes 5-9/99"}, body=data),
    "coded": lambda data: reply(
        headers={"Content-Encoding": "gzip", "Transfer-Encoding": "chunked"}, body=chunked(data)
    ),
}
ENDING = {
    "no length": lambda data: reply(body=data, length=False),
    "too large": lambda data: reply(headers={"Content-Length": "999999"}, body=data),
    "chunked, too large": lambda data: reply(
        headers={"Transfer-Encoding": "chunked"}, body=chunked(b"!" * 300_000)
    ),
    "no head": b"nonsense\r\n\r\n",
    "bad chunk": reply(headers={"Transfer-Encoding": "chunked"}, body=b"zz\r\n"),
    "closed": b"",
    "cut in the head": b"HTTP/1.1 200 OK\r\nContent-",
}


def at(server, number, data, *, ends):
    """Return what answers as ever, but for one reply of the first train of eight."""
    is_done = []

    def answer(paths, connection):
        for index, path in enumerate(paths):
            if len(paths) == 8 and index == number and not is_done:
                is_done.append(path)
                yield data(server.files[path]) if callable(data) else data
                if ends:
                    raise ClientGone
            else:
                yield server.reply(path)

    return answer


@pytest.mark.parametrize("number", [0, 3, 7])
@pytest.mark.parametrize("fault", [*UNFIT, *ENDING])
def test_faults(serving, fault, number):
    """A reply that doesn't fit costs one more request, but no event, attempt or retry."""
    ends = fault in ENDING
    server = serving()
    server.ready.set()
    server.answer = at(server, number, {**UNFIT, **ENDING}[fault], ends=ends)
    server.ready.clear()
    right = server.answer

    def answer(paths, connection):
        server.wait(server.ready)
        yield from right(paths, connection)

    server.answer = answer
    downloads = [small(server, path) for path in FILES]
    events = [record(download) for download in downloads]
    for download in downloads:
        download.retry, download.retries = None, 0
    fetched(run(server, downloads))
    assert [names(found) for found in events] == [ONCE] * len(FILES)
    again = [path for path in FILES if server.times(path) == 2]
    train = next(paths for paths in server.trains if len(paths) == 8)
    assert again == (train[number:] if ends else [train[number]])
    assert all([path] in server.trains for path in again)
    assert server.connections == (2 if ends else 1)


def test_chunked(serving):
    """A chunked reply is accepted if its content fits."""

    def answer(paths, _):
        for path in paths:
            body = chunked(FILES[path], [100, 1000])
            yield reply(headers={"Transfer-Encoding": "chunked"}, body=body)

    server = serving(answer)
    fetched(run(server, [small(server, path) for path in FILES]))
    assert server.depth == 8
    assert all(server.times(path) == 1 for path in FILES)


def test_cut_in_the_body(serving):
    """If a body breaks off, its download fails one attempt, and the others don't."""
    cut = []

    def answer(paths, _):
        for index, path in enumerate(paths):
            data = server.reply(path)
            if len(paths) == 8 and index == 2 and not cut:
                cut.extend(paths)
                yield data[:-100]
                raise ClientGone
            yield data

    server = serving(answer)
    downloads = [small(server, path) for path in FILES]
    events = {download: record(download) for download in downloads}
    for download in downloads:
        download.retry = quick()
    fetched(run(server, downloads))
    for download, found in events.items():
        if download.url == server.url(cut[2]):
            (error,) = [event for event in found if event.NAME == Event.ERROR]
            assert error.retrying
            assert names(found) == [
                *(Event.PREPARED, Event.SENT, Event.REPLIED, Event.ERROR),
                *(Event.SENT, Event.REPLIED, Event.FETCHED, Event.SUCCEEDED),
            ]
            assert download.reply.elapsed.total_seconds() >= 0
        else:
            assert names(found) == ONCE
    assert [path for path in FILES if server.times(path) == 2] == cut[2:]


def test_swapped(serving):
    """If a server mixes up replies, that is detected, and the host gets no more trains."""

    def answer(paths, _):
        order = [paths[1], paths[0], *paths[2:]] if len(paths) == 8 else paths
        for path in order:
            yield server.reply(path)

    server = serving(answer)
    downloads = [small(server, path) for path in FILES]
    events = [record(download) for download in downloads]
    fetched(run(server, downloads))
    assert [names(found) for found in events] == [ONCE] * len(FILES)
    assert list(map(len, server.trains)) == [1, 1, 1, 2, 8] + [1] * (40 - 13 + 2)


def test_one_reply_too_many(serving):
    """If a server answers a request twice, no later request gets the reply to the one before it."""
    late = {}

    def answer(paths, connection):
        # Those that were not answered yet. The last reply to a train comes after the next request.
        left = late.setdefault(connection, [])
        left += [*paths[:1], *paths] if len(paths) == 8 else paths
        for _ in paths:
            yield server.reply(left.pop(0))

    server = serving(answer)
    downloads = [small(server, path) for path in FILES]
    for download in downloads:
        download.retry = None
    for download in downloads[13:]:
        # Only the framing shows whose content it is.
        download.validations.clear()
    fetched(run(server, downloads))
    assert list(map(len, server.trains[:5])) == [1, 1, 1, 2, 8]


def test_run_again(serving):
    """Replies to downloads count also if their validations have seen content before."""
    server = serving()
    downloads = [small(server, path) for path in FILES]
    fetched(run(server, downloads))
    server.trains.clear()
    fetched(run(server, downloads))
    assert [server.times(path) for path in FILES] == [1] * len(FILES)
    assert server.depth == 8


def test_ends_twice(serving):
    """A host that ends the connection within two trains in a row gets no more of them."""

    def answer(paths, _):
        for path in paths[:3]:
            yield server.reply(path)
        if len(paths) > 3:
            raise ClientGone

    server = serving(answer)
    fetched(run(server, [small(server, path) for path in FILES]))
    assert [len(paths) for paths in server.trains if len(paths) > 1] == [2, 8, 2, 8]


@pytest.mark.parametrize("status", [429, 503])
def test_refuses(serving, status):
    """A host that refuses requests in two trains in a row gets no more of them."""

    def answer(paths, _):
        for index, path in enumerate(paths):
            yield reply(status) if index > 3 else server.reply(path)

    server = serving(answer)
    downloads = [small(server, path) for path in FILES]
    events = [record(download) for download in downloads]
    fetched(run(server, downloads))
    assert [names(found) for found in events] == [ONCE] * len(FILES)
    assert [len(paths) for paths in server.trains if len(paths) > 1] == [2, 8, 8]


def test_ends_now_and_then(serving):
    """A host that ends connections after whole trains gets more trains."""
    count = {}

    def answer(paths, connection):
        for path in paths:
            number = count[connection] = count.get(connection, 0) + 1
            if number == 22:
                raise ClientGone
            yield server.reply(path)

    server = serving(answer)
    fetched(run(server, [small(server, path) for path in FILES]))
    assert [len(paths) for paths in server.trains if len(paths) > 1] == [2, 8, 8, 8, 2, 8]


def test_drops_the_second(serving, monkeypatch):
    """A server that answers only the first request of a train costs one second, once."""
    monkeypatch.setattr("pulpcore.plugin.download.futures.http.pipeline.PATIENCE", 0.05)

    def answer(paths, _):
        yield server.reply(paths[0])

    server = serving(answer)
    downloads = [small(server, path) for path in FILES]
    events = [record(download) for download in downloads]
    fetched(run(server, downloads))
    assert [names(found) for found in events] == [ONCE] * len(FILES)
    assert [len(paths) for paths in server.trains if len(paths) > 1] == [2]


def test_stalls(serving):
    """If a reply times out, its request and those behind it are sent again."""

    def answer(paths, connection):
        for path in paths:
            if len(paths) == 8 and path in stalled:
                # This train has its time-outs already. Alone the request may be slow.
                stalled[path].read = 60
                connection.wait_until_gone()
            yield server.reply(path)

    server = serving(answer)
    # The fifth of each train of eight. The server may be slow with all others.
    stalled = {path: Timeout(read=0.3) for path in ("/9", "/19")}
    downloads = [small(server, path, timeout=stalled.get(path, Timeout(read=60))) for path in FILES]
    events = [record(download) for download in downloads]
    fetched(run(server, downloads))
    assert [names(found) for found in events] == [ONCE] * len(FILES)
    assert [len(paths) for paths in server.trains if len(paths) > 1] == [2, 8, 2, 8]


def test_timeout_begins_when_the_reply_is_next(serving):
    """The time-out of a reply starts only when the replies before it are complete."""

    def answer(paths, _):
        for path in paths:
            if len(paths) == 8:
                time.sleep(0.28)
            yield server.reply(path)

    server = serving(answer)
    # All eight together take longer, and each of them much less, also if the server is late.
    downloads = [small(server, f"/{n}", timeout=Timeout(read=2.0)) for n in range(13)]
    fetched(run(server, downloads))
    assert list(map(len, server.trains)) == [1, 1, 1, 2, 8]


@pytest.mark.parametrize("fault", ["404", "mismatch"])
def test_fails_alone(serving, fault):
    """A missing or wrong file fails only by the reply to a request that was sent alone."""

    def answer(paths, _):
        for path in paths:
            if path != "/7":
                yield server.reply(path)
            elif fault == "404":
                yield reply(404)
            else:
                yield reply(body=b"!" * len(FILES[path]))

    server = serving(answer)
    downloads = [small(server, path) for path in FILES]
    events = [record(download) for download in downloads]
    plans = run(server, downloads)
    (failed,) = [plan for plan in plans if plan.error is not None]
    assert isinstance(failed.error, NotFound if fault == "404" else ValidationError)
    assert "attempt 1" in str(failed.error) or failed.error.facts.attempt == 1
    assert names(events[7])[0] == Event.PREPARED
    assert names(events[7])[-2:] == [Event.ERROR, Event.FAILED]
    assert names(events[7]).count(Event.REPLIED) == 1
    assert server.times("/7") == 2


def test_repaired_after_the_train(serving):
    """A download that fails after its reply came is retried when the train is over."""

    class Picky(Validation):
        """Fails once."""

        is_content = False

        def apply(self):
            """Fail at the first call."""
            if not self.is_content:
                self.is_content = True
                raise ValidationError(reason="not yet")

    server = serving()
    downloads = [small(server, path) for path in FILES]
    for download in downloads:
        download.validations.append(Picky())
        download.register(Event.ERROR, lambda event: setattr(event, "repaired", True))
    fetched(run(server, downloads))
    assert all(server.times(path) == 2 for path in FILES)
    assert server.depth == 8
    assert server.connections == 1


def test_disk_full(serving):
    """A failing writer ends only its own download."""

    class Full(BufferWriter):
        """A writer without room."""

        def append(self, buffer):
            """Refuse."""
            raise OSError(28, "No space left on device")

    server = serving()
    downloads = [small(server, path) for path in FILES]
    downloads[8].writer = Full()
    plans = run(server, downloads)
    assert [plan.download for plan in plans if plan.error is not None] == [downloads[8]]
    assert server.connections == 1


def test_failed_before_it_is_sent(serving):
    """A download with a wrong setting fails before the train is sent, at no cost to the train."""
    server = serving()
    downloads = [small(server, path) for path in FILES]
    downloads[8].retry = 5
    plans = run(server, downloads)
    assert [plan.download for plan in plans if plan.error is not None] == [downloads[8]]
    assert server.depth == 8


def test_files(serving, tmp_path):
    """Files that a train fetches are published like others."""
    server = serving()
    downloads = []
    for path, data in FILES.items():
        writer = FileWriter(str(tmp_path / path[1:]))
        downloads.append(validated(HttpDownload(server.url(path), writer), data))
    assert all(plan.error is None for plan in run(server, downloads))
    assert {f"/{path.name}": path.read_bytes() for path in tmp_path.iterdir()} == FILES


def test_shutdown(serving):
    """A shutdown ends a train that waits for a reply at once, and no download is lost."""
    waiting = threading.Event()

    def answer(paths, connection):
        for index, path in enumerate(paths):
            if len(paths) == 8 and index == 2:
                waiting.set()
                connection.wait_until_gone()
            yield server.reply(path)

    server = serving(answer)
    downloads = [small(server, path) for path in FILES]
    events = [record(download) for download in downloads]
    batch = Batch(queued(server, downloads), concurrent=1, pipeline=8)
    ended = []

    def consume():
        ended.extend(batch())

    thread = threading.Thread(target=consume)
    thread.start()
    assert waiting.wait(60)
    batch.shutdown()
    thread.join(60)
    failed = [plan for plan in ended if plan.error is not None]
    assert len(ended) == len(FILES)
    assert len(ended) - len(failed) in (5, 6, 7)
    assert all(isinstance(plan.error, DownloadFailed) for plan in failed)
    assert all("shut down" in plan.error.reason for plan in failed)
    for found in events:
        assert [name for name in names(found) if name in (Event.SUCCEEDED, Event.FAILED)][1:] == []


def test_idle_threads_help(serving, monkeypatch):
    """If a train makes no progress, idle threads take over its other plans, one by one."""
    monkeypatch.setattr(trains, "PATIENCE", 0.1)
    stuck, done = threading.Event(), threading.Event()

    def answer(paths, connection):
        for path in paths:
            if path == blocked[0] and len(paths) > 1:
                stuck.set()
                server.wait(done)
            yield server.reply(path)

    blocked = [None]
    server = serving(answer)

    downloads = [small(server, path) for path in FILES]
    original = server.answer

    def choose(paths, connection):
        if len(paths) > 2 and blocked[0] is None:
            blocked[0] = paths[0]
        yield from original(paths, connection)

    server.answer = choose
    plans = []
    with Batch(queued(server, downloads), concurrent=2, pipeline=8) as batch:
        for plan in batch():
            plans.append(plan)
            if len(plans) == len(FILES) - 1:
                assert stuck.is_set()
                done.set()
    fetched(plans)
    assert plans[-1].download.url == server.url(blocked[0])


def test_no_plan_is_held_back_before_it_is_sent(serving):
    """While a handler of Prepared blocks, idle threads take over the train's other plans."""
    server, blocked, done = serving(), threading.Event(), threading.Event()

    def block(_):
        blocked.set()
        assert done.wait(60)

    downloads = [small(server, path) for path in FILES]
    downloads[-1].register(Event.PREPARED, block)
    plans = []
    with Batch(queued(server, downloads), concurrent=2, pipeline=8) as batch:
        for plan in batch():
            plans.append(plan)
            if len(plans) == len(FILES) - 1:
                done.set()
    assert blocked.is_set()
    fetched(plans)
    assert plans[-1].download is downloads[-1]


def test_few_plans(serving):
    """With no more plans than threads, each request is sent on a connection of its own."""
    server = serving()
    context = Context()
    fetched(run(server, [small(server, f"/{n}") for n in range(20)], context=context))
    server.trains.clear()
    arrived = threading.Barrier(4, timeout=60)

    def answer(paths, connection):
        arrived.wait()
        yield from server.right(paths, connection)

    server.answer = answer
    downloads = [small(server, f"/{n}") for n in range(20, 24)]
    with Batch(downloads, concurrent=4, pipeline=8, context=context) as batch:
        fetched(list(batch()))
    context.close()
    assert server.depth == 1


def test_more_threads(serving, monkeypatch):
    """Several threads have trains at once, each on at most one connection."""
    monkeypatch.setattr(trains, "PATIENCE", 60)
    server = serving(delay=0.005)
    seen = []
    downloads = [small(server, path) for path in FILES]
    for download in downloads:
        download.register(Event.SUCCEEDED, lambda event: seen.append(event.download))
    fetched(run(server, downloads, concurrent=3))
    assert len(seen) == len(FILES)
    assert server.connections <= 3
    assert server.depth > 2


def test_not_kept_alive(serving):
    """A server that closes each connection, or speaks HTTP/1.0, gets no trains."""
    for options in ({"headers": {"Connection": "close"}}, {"version": "HTTP/1.0"}):

        def answer(paths, _, options=options):
            for path in paths:
                yield reply(body=FILES[path], **options)
            raise ClientGone

        server = serving(answer)
        fetched(run(server, [small(server, f"/{n}") for n in range(12)]))
        assert server.depth == 1


def test_close_is_announced(serving):
    """If a reply's head ends the connection, the requests behind it are sent again."""

    def answer(paths, _):
        for index, path in enumerate(paths):
            if len(paths) == 8 and index == 4:
                yield reply(body=FILES[path], headers={"Connection": "close"})
                raise ClientGone
            yield server.reply(path)

    server = serving(answer)
    downloads = [small(server, path) for path in FILES]
    events = [record(download) for download in downloads]
    fetched(run(server, downloads))
    assert [names(found) for found in events] == [ONCE] * len(FILES)


def test_body_read_by_a_handler(serving):
    """A handler that reads the reply's body makes its download fail, as without a train."""
    server = serving()
    downloads = [small(server, path) for path in FILES]
    for download in downloads:
        download.retry = None
    downloads[10].register(Event.REPLIED, lambda event: event.download.reply.content)
    downloads[11].register(Event.REPLIED, lambda event: event.download.reply.headers)
    plans = run(server, downloads)
    (failed,) = [plan for plan in plans if plan.error is not None]
    assert failed.download is downloads[10]
