"""Traces by OpenTelemetry: which spans there are, whose children they are, and what they say."""

import hashlib
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from http_tools import content, failure, into_memory, quick
from servers.connection import ClientGone
from servers.files import CutAfter, File, Hold, HoldAfter, Redirect, ResetAfter, Status
from servers.message import basic
from servers.message import reply as raw_reply
from servers.train import TrainServer

from pulpcore.plugin.download.futures import (
    Batch,
    DigestValidation,
    Download,
    DownloadFailed,
    Event,
    FileDownload,
    FtpDownload,
    HttpDownload,
    NotFound,
    SizeValidation,
    ValidationError,
)
from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.engine import ramp
from pulpcore.plugin.download.futures.http import parts

trace = pytest.importorskip("opentelemetry.trace")
sdk = pytest.importorskip("opentelemetry.sdk.trace")
export = pytest.importorskip("opentelemetry.sdk.trace.export")
in_memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
telemetry = pytest.importorskip("pulpcore.plugin.download.futures.telemetry")

CONTENT = bytes(range(256)) * 1000
ETAG = {"etag": '"1"'}


class Spans:
    """A tracer provider that keeps the spans which have ended, in that order."""

    def __init__(self):
        self._exporter = in_memory.InMemorySpanExporter()
        self.provider = sdk.TracerProvider()
        self.provider.add_span_processor(export.SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")

    def instrumented(self, download):
        """Instrument a download, or a batch, and return it."""
        telemetry.instrument(download, self.provider)
        return download

    @property
    def all(self):
        """Every span."""
        return self._exporter.get_finished_spans()

    @property
    def requests(self):
        """The CLIENT spans, in the order in which they began."""
        found = [span for span in self.all if span.kind is trace.SpanKind.CLIENT]
        return sorted(found, key=lambda span: span.start_time)

    @property
    def runs(self):
        """The spans of runs."""
        return [span for span in self.all if span.name == "download"]


@pytest.fixture
def spans():
    """The spans of a test."""
    return Spans()


def of_request(span):
    """Return the `traceparent` that a request must carry if a span is its own."""
    found = span.context
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"


def sent(server):
    """Return the `traceparent` of each request that a server got."""
    return [request.header("traceparent") for request in server.requests]


def is_child(span, parent):
    """Return whether a span is a child of another, in the same trace."""
    return (span.parent.span_id, span.context.trace_id) == (
        parent.context.span_id,
        parent.context.trace_id,
    )


def texts(spans):
    """Return everything that spans say, as one text."""
    return "\n".join(span.to_json() for span in spans)


def validated(download, data):
    """Add validations of size and digest, and return the download."""
    digest = hashlib.sha256(data).hexdigest()
    download.validations += [SizeValidation(len(data)), DigestValidation("sha256", digest)]
    return download


def test_attributes(file_server, spans):
    """A request is a CLIENT span below the INTERNAL span of its download, below the caller's."""
    server = file_server({"/a": CONTENT})
    download = spans.instrumented(into_memory(server.url("/a?x=1#end")))
    with spans.tracer.start_as_current_span("caller"):
        download()
    request, run, caller = spans.all
    assert (request.name, request.kind) == ("GET", trace.SpanKind.CLIENT)
    assert request.attributes == {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "url.full": server.url("/a?x=***"),
        "http.response.status_code": 200,
    }
    assert request.status.status_code is trace.StatusCode.UNSET
    assert (run.name, run.kind) == ("download", trace.SpanKind.INTERNAL)
    assert run.attributes == {"url.full": server.url("/a?x=***")}
    assert run.status.status_code is trace.StatusCode.UNSET
    assert is_child(request, run)
    assert is_child(run, caller)
    assert sent(server) == [of_request(request)]
    assert request.instrumentation_scope.name == "pulpcore-futures"
    # The body belongs to it.
    assert run.start_time <= request.start_time <= request.end_time <= run.end_time


def test_head(file_server, spans):
    """The span of a HEAD request is named after the method. A second run counts no resend."""
    server = file_server({"/": CONTENT})
    download = spans.instrumented(HttpDownload(server.url("/"), None, method="HEAD"))
    download()
    download()
    assert [span.name for span in spans.requests] == ["HEAD", "HEAD"]
    assert not any("http.request.resend_count" in span.attributes for span in spans.requests)
    assert len({span.context.trace_id for span in spans.all}) == 2


def test_retries(file_server, spans):
    """Each attempt has a span with its number: a refused one, a broken one, and the rest."""
    server = file_server(
        {"/": File(CONTENT, **ETAG)}, faults={0: Status(503), 1: ResetAfter(100_000)}
    )
    spans.instrumented(into_memory(server.url("/"), quick()))()
    first, second, third = spans.requests
    assert sent(server) == [of_request(span) for span in (first, second, third)]
    assert [span.attributes.get("http.request.resend_count") for span in spans.requests] == [
        *(None, 1, 2)
    ]
    codes = [span.attributes["http.response.status_code"] for span in spans.requests]
    assert codes == [503, 200, 206]
    assert (first.status.status_code, first.attributes["error.type"]) == (
        *(trace.StatusCode.ERROR, "503"),
    )
    assert second.status.status_code is trace.StatusCode.ERROR
    assert second.attributes["error.type"] == "ConnectionResetError"
    assert third.status.status_code is trace.StatusCode.UNSET
    (run,) = spans.runs
    assert run.status.status_code is trace.StatusCode.UNSET
    assert all(is_child(span, run) for span in spans.requests)


def test_redirect(file_server, spans):
    """A redirect is two requests, of which each has its own URL and its own `traceparent`."""
    there = file_server({"/b": CONTENT})
    server = file_server({"/a": Redirect(there.url("/b"))})
    spans.instrumented(into_memory(server.url("/a")))()
    first, second = spans.requests
    assert (first.attributes["url.full"], second.attributes["url.full"]) == (
        *(server.url("/a"), there.url("/b")),
    )
    assert second.attributes["server.port"] == there.port
    assert first.attributes["http.response.status_code"] == 302
    assert first.status.status_code is trace.StatusCode.UNSET
    assert second.attributes["http.request.resend_count"] == 1
    assert [*sent(server), *sent(there)] == [of_request(first), of_request(second)]


def test_authentication(file_server, spans):
    """A request that a hook of `auth` sends again has a span and a `traceparent` of its own."""
    server = file_server({"/": CONTENT}, user=("me", "secret"))

    def again(response, **_):
        if response.status_code != 401:
            return response
        request = response.request.copy()
        request.headers["Authorization"] = basic("me", "secret")
        return response.connection.send(request)

    def auth(request):
        request.register_hook("response", again)
        return request

    spans.instrumented(into_memory(server.url("/"), auth=auth))()
    first, second = spans.requests
    assert (first.attributes["error.type"], second.attributes["http.request.resend_count"]) == (
        *("401", 1),
    )
    assert sent(server) == [of_request(first), of_request(second)]


def test_not_found(file_server, spans):
    """A failure is the status at the request, and the class of the error at the download."""
    server = file_server({})
    error = failure(spans.instrumented(into_memory(server.url("/?key=hidden"))), NotFound)
    (request,), (run,) = spans.requests, spans.runs
    assert (request.attributes["error.type"], run.attributes["error.type"]) == ("404", "NotFound")
    assert (request.status.status_code, request.status.description) == (
        *(trace.StatusCode.ERROR, None),
    )
    assert (run.status.status_code, run.status.description) == (trace.StatusCode.ERROR, str(error))


def test_no_server(file_server, spans):
    """If the connection is refused, error.type of the request names the exception's class."""
    server = file_server({})
    server.close()
    failure(spans.instrumented(into_memory(server.url("/"))))
    (request,) = spans.requests
    assert request.attributes["error.type"] == "ConnectionRefusedError"
    assert request.attributes["server.port"] == server.port
    assert "http.response.status_code" not in request.attributes


def test_wrong_content(file_server, spans):
    """Content that fails its validation is a failure of the download, not of the request."""
    server = file_server({"/": CONTENT})
    download = spans.instrumented(validated(into_memory(server.url("/")), CONTENT[::-1]))
    with pytest.raises(ValidationError):
        download()
    (request,), (run,) = spans.requests, spans.runs
    assert request.status.status_code is trace.StatusCode.UNSET
    assert run.attributes["error.type"] == "DigestMismatch"


def test_bug_in_a_plugin(spans):
    """An error of a plugin is named by its class. Its text isn't redacted, so it isn't shown."""

    class Buggy(HttpDownload):
        def _send(self):
            raise RuntimeError("token=hidden")

    with pytest.raises(RuntimeError):
        spans.instrumented(Buggy("http://127.0.0.1/", None))()
    (run,) = spans.all
    assert run.attributes["error.type"] == "RuntimeError"
    assert "hidden" not in texts(spans.all)


def test_nothing_is_sent(spans):
    """A run that fails before it sends anything is a span without requests."""
    failure(spans.instrumented(HttpDownload("http://[::1/", None)))
    (run,) = spans.all
    assert run.attributes["error.type"] == "ValueError"


def test_stale_connection(file_server, spans):
    """A request that is sent again after its connection closed has a second span."""
    server = file_server({"/": b"1", "/next": b"2"})
    with Context() as context:
        first = into_memory(server.url("/"))
        first.context = context
        first()
        # The server answers nothing on the connection that is kept.
        server.faults = {1: CutAfter(0, whole=True)}
        second = spans.instrumented(into_memory(server.url("/next")))
        second.context = context
        second()
    stale, request = spans.requests
    assert (stale.attributes["error.type"], stale.status.status_code) == (
        *("RemoteDisconnected", trace.StatusCode.ERROR),
    )
    assert request.attributes["http.request.resend_count"] == 1
    assert sent(server) == [None, of_request(stale), of_request(request)]


def test_refused_rest(file_server, spans):
    """A refused request for the rest and the request for the whole file have a span each."""
    files = {"/": File(CONTENT, **ETAG)}
    server = file_server(files, faults={0: ResetAfter(100_000), 1: Status(416)})
    spans.instrumented(into_memory(server.url("/"), quick()))()
    codes = [span.attributes["http.response.status_code"] for span in spans.requests]
    assert codes == [200, 416, 200]
    assert sent(server) == [of_request(span) for span in spans.requests]


def test_parents_in_a_batch(file_server, spans):
    """Each download of a batch is a child of the span in which it was taken from the iterable.

    Four threads run them, and the span is current in handlers, so that what they do belongs to it.
    """
    paths = [f"/{number}" for number in range(40)]
    server = file_server(dict.fromkeys(paths, b"content"))
    seen = {}

    def note(event):
        seen[event.download.url] = trace.get_current_span().get_span_context().span_id

    def downloads():
        for path in paths:
            with spans.tracer.start_as_current_span(server.url(path)):
                download = HttpDownload(server.url(path), None)
                download.register(Event.SUCCEEDED, note)
                yield download

    with Batch(downloads()) as batch:
        telemetry.instrument(batch, spans.provider)
        for plan in batch():
            plan.result()
    callers = {span.name: span for span in spans.all if span.name.startswith("http")}
    runs = {span.attributes["url.full"]: span for span in spans.runs}
    requests = {span.attributes["url.full"]: span for span in spans.requests}
    assert len(callers) == len(runs) == len(requests) == 40
    for url, run in runs.items():
        assert is_child(run, callers[url])
        assert is_child(requests[url], run)
        assert seen[url] == run.context.span_id
    assert len({span.context.trace_id for span in callers.values()}) == 40
    for request in server.requests:
        assert request.header("traceparent") == of_request(requests[server.url(request.path)])
    assert not trace.get_current_span().get_span_context().is_valid


def test_back_off_in_a_batch(file_server, spans):
    """A run that continues in another thread after its back-off stays in its trace."""
    server = file_server({"/": CONTENT}, faults={0: Status(503), 1: Status(503)})
    with Batch([into_memory(server.url("/"), quick())], concurrent=2) as batch:
        spans.instrumented(batch)
        (plan,) = batch()
    plan.result()
    (run,) = spans.runs
    assert [is_child(span, run) for span in spans.requests] == [True] * 3


def test_threads_of_an_executor(file_server, spans):
    """A batch in the threads of an executor is traced as any other."""
    server = file_server({"/": CONTENT})
    with ThreadPoolExecutor(2) as executor:
        with Batch([HttpDownload(server.url("/"), None)], executor=executor) as batch:
            spans.instrumented(batch)
            (plan,) = batch()
        plan.result()
    assert sent(server) == [of_request(span) for span in spans.requests]


@pytest.mark.parametrize("whole", [True, False])
def test_processes_are_refused(file_server, spans, whole):
    """An executor of worker processes refuses a traced download."""
    server = file_server({"/": CONTENT})
    download = HttpDownload(server.url("/"), None)
    with ProcessPoolExecutor(1) as executor, Batch([download], executor=executor) as batch:
        spans.instrumented(batch if whole else download)
        (plan,) = batch()
    with pytest.raises(ValueError, match="can't be traced"):
        plan.result()
    assert server.count == 0


def test_stream(file_server, spans):
    """A stream is a child of the span in which it was opened, resumed after a break."""
    server = file_server({"/": File(CONTENT, **ETAG)}, faults={0: CutAfter(100_000)})
    download = spans.instrumented(HttpDownload(server.url("/"), None))
    download.retry = quick()
    with spans.tracer.start_as_current_span("caller"), download.stream() as file:
        assert file.read() == CONTENT
    (run,) = spans.runs
    assert is_child(run, spans.all[-1])
    assert sent(server) == [of_request(span) for span in spans.requests]
    assert len(spans.requests) == 2


def test_mirrors(file_server, spans):
    """A mirror that is asked after the URL has failed gets a request with its own address."""
    server, mirror = file_server({}), file_server({"/": CONTENT})
    download = into_memory(server.url("/"), mirrors=[mirror.url("/")])
    spans.instrumented(download)()
    assert [span.attributes["server.port"] for span in spans.requests] == [server.port, mirror.port]
    assert [*sent(server), *sent(mirror)] == [of_request(span) for span in spans.requests]


def test_ftp_and_files(ftp_server, spans, tmp_path):
    """An attempt by FTP is a CLIENT span and one of a file isn't; neither has headers or status."""
    (tmp_path / "file").write_bytes(CONTENT)
    server = ftp_server(tmp_path, users={"me": "hidden"})
    url = server.url("/file")
    spans.instrumented(FtpDownload(url.replace("://", "://me:hidden@"), None))()
    ftp, run = spans.all
    assert (ftp.name, ftp.kind) == ("ftp", trace.SpanKind.CLIENT)
    assert ftp.attributes == {
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "url.full": url,
    }
    assert is_child(ftp, run)
    failure(spans.instrumented(FileDownload(f"file://{tmp_path}/none", None)))
    file, run = spans.all[2:]
    assert (file.name, file.kind) == ("file", trace.SpanKind.INTERNAL)
    assert set(file.attributes) == {"url.full", "error.type"}
    assert file.attributes["error.type"] == run.attributes["error.type"] == "FileNotFoundError"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("zoo://lion:8/a", {"server.address": "lion", "server.port": 8}),
        ("zoo://lion/a", {"server.address": "lion"}),
        # Whatever the protocol makes of it: tracing fails no download.
        ("zoo://lion:99999/", {}),
    ],
)
def test_protocol_of_a_plugin(spans, url, place):
    """An attempt of a plugin's own protocol has a span, with the host and port of its URL."""

    class ZooDownload(Download):
        def _send(self):
            self._write(b"roar")

    spans.instrumented(ZooDownload(url, None))()
    attempt, run = spans.all
    assert attempt.name == "zoo"
    assert attempt.attributes == {"url.full": run.attributes["url.full"], **place}


# Trains.

FILES = {f"/{number}": bytes([65 + number % 26]) * 2000 for number in range(24)}


def run_trains(running, spans, answer=None):
    """Run a batch whose requests are sent in trains, and return the server.

    The server answers nothing until all downloads are in the queue.
    """
    server = running(TrainServer, FILES)
    ready = threading.Event()
    right = answer or server.right

    def wait(paths, connection):
        server.wait(ready)
        yield from right(paths, connection)

    def downloads():
        for path, data in FILES.items():
            yield validated(HttpDownload(server.url(path), None), data)
        ready.set()

    server.answer = wait
    with Batch(downloads(), concurrent=1, pipeline=8) as batch:
        spans.instrumented(batch)
        for plan in batch():
            plan.result()
    return server


def test_trains(running, spans):
    """Each request of a train carries its own span, which is below the span of its download."""
    server = run_trains(running, spans)
    assert server.depth == 8
    runs = {span.attributes["url.full"]: span for span in spans.runs}
    requests = {span.attributes["url.full"]: span for span in spans.requests}
    assert len(runs) == len(requests) == len(spans.requests) == len(FILES)
    for request in server.requests:
        span = requests[server.url(request.path)]
        assert request.header("traceparent") == of_request(span)
        assert is_child(span, runs[server.url(request.path)])
        assert span.attributes["http.response.status_code"] == 200
        assert span.status.status_code is trace.StatusCode.UNSET


def test_train_with_wrong_replies(running, spans):
    """If a reply of a train is rejected, its span fails, and the repeated request's doesn't."""

    def answer(paths, _):
        for path in paths:
            # The second of each train isn't there, and the others never come.
            if len(paths) > 1 and path == paths[1]:
                yield raw_reply(404, body=b"none")
            elif len(paths) > 1 and path in paths[2:]:
                raise ClientGone
            else:
                yield raw_reply(body=FILES[path])

    server = run_trains(running, spans, answer)
    found = {}
    for span in spans.requests:
        found.setdefault(span.attributes["url.full"], []).append(span)
    again = [each for each in found.values() if len(each) > 1]
    assert again
    for first, second in again:
        assert first.status.status_code is trace.StatusCode.ERROR
        assert first.attributes["error.type"] in ("404", "DownloadFailed")
        assert second.status.status_code is trace.StatusCode.UNSET
        assert second.attributes["http.request.resend_count"] == 1
    assert {first.attributes["error.type"] for first, _ in again} >= {"404"}
    assert sorted(sent(server)) == sorted(map(of_request, spans.requests))


# Parts.


class Eager(ramp.Ramp):
    """Uses all connections from the beginning."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.wanted = self.most

    def update(self, now, progress, active):
        """Measure nothing."""


def test_parts(file_server, spans, monkeypatch):
    """Each part of a file is a request of its own below the download, also one that fails first.

    The first reply stops until three parts were asked for.
    """
    monkeypatch.setattr(parts, "SIZE", 16_000)
    monkeypatch.setattr(parts, "SMALLEST", 32_000)
    monkeypatch.setattr(parts, "Ramp", Eager)
    asked = threading.Event()

    def fault(index, request):
        if index == 3:
            asked.set()
        return {0: HoldAfter(1000, asked), 2: Status(503)}.get(index)

    server = file_server({"/": File(CONTENT, **ETAG)}, faults=fault)
    download = spans.instrumented(into_memory(server.url("/"), parts=4))
    assert content(download) == CONTENT
    (run,) = spans.runs
    assert all(is_child(span, run) for span in spans.requests)
    by_header = {of_request(span): span for span in spans.requests}
    assert len(by_header) == len(spans.requests)
    found = [by_header[header] for header in sent(server)]
    codes = [span.attributes.get("http.response.status_code") for span in found]
    assert codes[0] == 200
    assert codes.count(503) == 1
    assert 206 in codes
    assert found[codes.index(503)].attributes["error.type"] == "503"
    assert not any("http.request.resend_count" in span.attributes for span in found[1:4])


def test_parts_from_a_mirror(file_server, spans, monkeypatch):
    """A part that a mirror brings is a request to that mirror, below the same download."""
    monkeypatch.setattr(parts, "SIZE", 16_000)
    monkeypatch.setattr(parts, "SMALLEST", 32_000)
    monkeypatch.setattr(parts, "Ramp", Eager)
    asked = threading.Event()

    def fault(index, request):
        asked.set()

    home = file_server({"/": File(CONTENT, **ETAG)}, faults={0: HoldAfter(1000, asked)})
    mirror = file_server({"/": File(CONTENT)}, faults=fault)
    download = spans.instrumented(
        into_memory(home.url("/"), mirrors=[mirror.url("/")], parts=2),
    )
    download.validations.append(DigestValidation("sha256", hashlib.sha256(CONTENT).hexdigest()))
    assert content(download) == CONTENT
    (run,) = spans.runs
    assert all(is_child(span, run) for span in spans.requests)
    urls = [span.attributes["url.full"] for span in spans.requests]
    assert urls.count(mirror.url("/")) == mirror.count > 0


def test_stream_between_parts(file_server, spans, monkeypatch):
    """If a connection breaks between parts, its request's span fails, and the next has its own."""
    monkeypatch.setattr(parts, "SIZE", 16_000)
    monkeypatch.setattr(parts, "SMALLEST", 32_000)
    server = file_server({"/": File(CONTENT, **ETAG)}, faults={0: ResetAfter(100_000)})
    assert content(spans.instrumented(into_memory(server.url("/"), parts=2))) == CONTENT
    first, *others = spans.requests
    assert first.attributes["error.type"] == "ConnectionResetError"
    assert others
    assert sorted(sent(server)) == sorted(map(of_request, spans.requests))


# What isn't shown, and what costs nothing.


def test_no_secrets(file_server, spans):
    """No attribute, event, status or name of a span has a secret of any kind."""
    there = file_server({})
    moved = f"{there.url('/zq7secret')}?sig=zq7moved".replace("://", "://zq7you:zq7word@")
    server = file_server({"/a": Redirect(moved)}, user=("zq7user", "zq7secret"))
    url = server.url("/a?token=zq7query&zq7bare#zq7end").replace("://", "://zq7user:zq7secret@")
    download = HttpDownload(url, None, headers={"Cookie": "a=zq7cookie", "X-Amz-Key": "zq7key"})
    failure(spans.instrumented(download), NotFound)
    bare = HttpDownload(server.url("/a"), None, headers={"Authorization": "Bearer zq7token"})
    failure(spans.instrumented(bare))
    assert (server.count, there.count) == (2, 1)
    assert len(spans.requests) == 3
    assert spans.requests[1].attributes["url.full"] == there.url("/***")
    assert "zq7" not in texts(spans.all)


def test_secret_in_the_host_of_a_redirect(file_server, spans):
    """A host name made from the password isn't shown, neither as URL nor as address."""
    server = file_server({"/": Redirect("http://zq7secret.invalid/")}, user=("me", "zq7secret"))
    failure(spans.instrumented(into_memory(server.url("/"), user=("me", "zq7secret"))))
    assert len(spans.requests) == 2
    assert spans.requests[1].attributes["server.address"] == "***"
    assert "zq7" not in texts(spans.all)


def test_header_of_the_caller(file_server, spans):
    """The `traceparent` of the span is sent, and not an older one among the headers."""
    server = file_server({"/": CONTENT})
    download = HttpDownload(server.url("/"), None, headers={"traceparent": "00-old"})
    spans.instrumented(download)()
    assert sent(server) == [of_request(spans.requests[0])]
    assert download.headers == {"traceparent": "00-old"}


def test_without_a_provider(file_server):
    """If the program has set no provider, nothing is recorded and nothing is sent."""
    server = file_server({"/": CONTENT})
    download = into_memory(server.url("/"), quick())
    telemetry.instrument(download)
    download()
    assert sent(server) == [None]


def test_clone(file_server, spans):
    """A clone isn't instrumented, as it has no handlers."""
    server = file_server({"/": CONTENT})
    spans.instrumented(HttpDownload(server.url("/"), None)).clone()()
    assert spans.all == ()


def test_end_of_a_batch(file_server, spans):
    """A download that a shutdown cancels ends its spans."""
    server = file_server({"/": CONTENT}, faults={0: Hold(threading.Event())})
    batch = spans.instrumented(Batch([HttpDownload(server.url("/"), None)]))
    with batch:
        consumer = threading.Thread(target=list, args=(batch(),))
        consumer.start()
        server.until(lambda: server.count)
        batch.shutdown()
        consumer.join()
    assert len(spans.runs) == 1
    assert all(span.status.status_code is trace.StatusCode.ERROR for span in spans.all)


def test_wrong_type():
    """Anything but a batch or a download is refused, with its type."""
    with pytest.raises(TypeError, match="a Batch or a Download, not a str"):
        telemetry.instrument("http://example.org/")


def test_not_imported():
    """The package imports nothing of OpenTelemetry, with all its other modules."""
    program = """
import importlib, pkgutil, sys
name = 'pulpcore.plugin.download.futures'
for _, module, _ in pkgutil.walk_packages(importlib.import_module(name).__path__, name + '.'):
    if module not in (name + '.pulp', name + '.telemetry'):
        importlib.import_module(module)
print([name for name in sys.modules if name.startswith('opentelemetry')])
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True
    )
    assert run.stdout == "[]\n"


def test_interrupted_run(spans):
    """An interrupt ends the spans, too."""

    class Interrupted(HttpDownload):
        def _send(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spans.instrumented(Interrupted("http://127.0.0.1/", None))()
    assert [span.attributes["error.type"] for span in spans.all] == ["KeyboardInterrupt"]


def test_cancelled_before_it_began(spans):
    """A download that a batch never began has no span."""
    batch = spans.instrumented(Batch([HttpDownload("http://127.0.0.1/", None)]))
    batch()
    batch.shutdown()
    for plan in batch():
        assert isinstance(plan.error, DownloadFailed)
    assert spans.all == ()
