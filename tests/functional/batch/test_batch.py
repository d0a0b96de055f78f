"""Tests of batches with real servers: shared connections, shutdown and signals."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from servers.files import File, FileServer, Hold, StallAfter, Status

from pulpcore.plugin.download import futures
from pulpcore.plugin.download.futures import (
    SSL,
    Batch,
    BufferWriter,
    DownloadFailed,
    Event,
    FileWriter,
    HttpDownload,
    NotFound,
    Timeout,
)
from pulpcore.plugin.download.futures.context import Context

SECONDS = 100
AT_ONCE = 20  # seconds: every time-out, back-off and retry here takes longer
SHUT_DOWN = "the batch was shut down"
SOURCES = str(Path(futures.__file__).parents[4])


@pytest.fixture(params=["http", "https"])
def secure(request, tls):
    """Give `(server options, download settings)`, without TLS and with it."""
    if request.param == "http":
        return {}, {}
    return {"tls": tls.server()}, {"ssl": SSL(str(tls.ca))}


def stopped(batch, when):
    """Iterate a batch that another thread shuts down. Return the plans and the seconds it took."""
    took = []

    def stop():
        when()
        began = time.monotonic()
        batch.shutdown()
        took.append(time.monotonic() - began)

    stopper = threading.Thread(target=stop)
    stopper.start()
    plans = list(batch())
    stopper.join()
    return plans, took[0]


class TestTransfers:
    def test_many(self, file_server, tmp_path, secure, no_leaks):
        """A batch downloads each file once, with at most one connection a thread."""
        server_options, options = secure
        files = {f"/{n}": os.urandom(n * 37) for n in range(200)}
        server = file_server(files, **server_options)
        downloads = (
            HttpDownload(server.url(path), FileWriter(f"{tmp_path}/new{path}"), **options)
            for path in files
        )
        with Batch(downloads, concurrent=4, backlog=16) as batch:
            assert len([plan.result() for plan in batch()]) == len(files)
        for path, content in files.items():
            assert Path(f"{tmp_path}/new{path}").read_bytes() == content
        assert server.count == len(files)
        assert server.connections <= 4
        server.until(lambda: server.open_connections == 0)

    def test_some_fail(self, file_server, tmp_path):
        """A plan reports the file that failed, and the other files are downloaded."""
        server = file_server({f"/{n}": b"x" * n for n in range(20)})
        downloads = [
            HttpDownload(server.url(f"/{n}"), FileWriter(tmp_path / f"{n}")) for n in range(40)
        ]
        with Batch(downloads) as batch:
            failed = {plan.download for plan in batch() if isinstance(plan.error, NotFound)}
        assert failed == set(downloads[20:])
        assert {path.name for path in tmp_path.iterdir()} == {str(n) for n in range(20)}

    @pytest.mark.parametrize("given", [False, True])
    def test_connections(self, file_server, given):
        """At its end a batch closes the connections of its own context and no others."""
        server = file_server({"/a": b"content"})
        context = Context() if given else None
        downloads = [HttpDownload(server.url("/a"), BufferWriter()) for _ in range(10)]
        for download in downloads[:1], downloads[1:]:
            with Batch(download, concurrent=1, context=context) as batch:
                for plan in batch():
                    plan.result()
            if not given:
                server.until(lambda: server.open_connections == 0)
        if given:
            assert server.open_connections == 1
            context.close()
            server.until(lambda: server.open_connections == 0)
        assert server.connections == (1 if given else 2)

    def test_again_after_the_batch(self, file_server, no_leaks):
        """A download can be called again after its batch, and leaves nothing open."""
        server = file_server({"/a": b"content"}, faults={0: Status(404)})
        with Batch([HttpDownload(server.url("/a"), BufferWriter())]) as batch:
            (plan,) = batch()
        with pytest.raises(NotFound):
            plan.result()
        plan.download()
        assert plan.download.writer.content() == "content"

    def test_different_tls(self, file_server, tls):
        """Downloads of a batch with different TLS settings share no connection and no trust."""
        server = file_server({"/a": b"content"}, tls=tls.server())
        settings = [
            SSL(str(tls.ca)),
            SSL(str(tls.other_ca)),
            SSL(),
            SSL(validation=False),
        ] * 3
        downloads = [HttpDownload(server.url("/a"), BufferWriter(), ssl=ssl) for ssl in settings]
        with Batch(downloads, concurrent=1) as batch:
            good = {plan.download for plan in batch() if plan.error is None}
        assert good == {d for n, d in enumerate(downloads) if n % 4 in (0, 3)}


class TestShutdown:
    """A shutdown stops running downloads at once and leaves nothing behind."""

    @pytest.mark.parametrize(
        "fault",
        [StallAfter(0, whole=True), StallAfter(20, whole=True), StallAfter(0), StallAfter(70_000)],
        ids=["no reply", "in the head", "no body", "in the body"],
    )
    def test_read(self, file_server, tmp_path, secure, fault, no_leaks):
        """A shutdown interrupts blocked reads, with or without TLS, and keeps the old file."""
        server_options, options = secure
        server = file_server({"/a": os.urandom(200_000)}, faults=lambda *_: fault, **server_options)
        (tmp_path / "0").write_bytes(b"old")
        all_taken = threading.Event()

        def downloads():
            for n in range(6):
                writer = FileWriter(tmp_path / f"{n}")
                yield HttpDownload(server.url("/a"), writer, timeout=Timeout(50, 50), **options)
            all_taken.set()

        def when():
            all_taken.wait(SECONDS)
            server.until(lambda: server.count == 3)

        plans, took = stopped(Batch(downloads(), concurrent=3), when)
        assert took < AT_ONCE
        assert len(plans) == 6
        assert [plan.error.reason for plan in plans] == [SHUT_DOWN] * 6
        assert [plan.executed for plan in plans].count(True) == 3
        assert [path.name for path in tmp_path.iterdir()] == ["0"]
        assert (tmp_path / "0").read_bytes() == b"old"
        assert server.count == 3
        server.until(lambda: server.open_connections == 0)

    def test_chunked_read(self, raw_server, secure):
        """A shutdown interrupts a read that blocks within a chunk."""
        from servers.raw import Recv, Send, Signal, Stall, reply

        server_options, options = secure
        stalled = threading.Event()
        head = reply(headers={"Transfer-Encoding": "chunked"}, body=b"ff\r\nsome")
        server = raw_server([[Recv(), Send(head), Signal(stalled), Stall()]], **server_options)
        download = HttpDownload(
            server.url("/a"), BufferWriter(), timeout=Timeout(50, 50), **options
        )
        plans, took = stopped(Batch([download]), lambda: stalled.wait(SECONDS))
        assert took < AT_ONCE
        assert plans[0].error.reason == SHUT_DOWN

    def test_body_to_the_end_of_the_connection(self, raw_server):
        """A read interrupted by a shutdown isn't taken for the end of a body without length."""
        from servers.raw import Recv, Send, Signal, Stall, reply

        stalled = threading.Event()
        script = [Recv(), Send(reply(length=False, body=b"some")), Signal(stalled), Stall()]
        download = HttpDownload(raw_server([script]).url("/a"), BufferWriter())
        batch = Batch([download])
        download.register(Event.FETCHED, lambda _: fetched.set())
        fetched = threading.Event()
        plans, _ = stopped(batch, lambda: fetched.wait(SECONDS))
        assert plans[0].error.reason == SHUT_DOWN
        assert download.writer.content() == ""

    @pytest.mark.parametrize("status", [503, 429])
    def test_backoff(self, file_server, status, no_leaks):
        """A shutdown interrupts the back-off before a retry."""
        server = file_server({}, faults=lambda *_: Status(status, {"Retry-After": "100"}))
        download = HttpDownload(server.url("/a"), BufferWriter())
        waiting = threading.Event()
        download.register(Event.ERROR, lambda event: event.retrying and waiting.set())
        plans, took = stopped(Batch([download]), lambda: waiting.wait(SECONDS))
        assert took < AT_ONCE
        assert plans[0].error.reason == SHUT_DOWN
        assert server.count == 1

    def test_kept_connections_of_others(self, file_server):
        """The next batch of a context reuses connections that a stopped batch gave back."""
        server = file_server({"/a": b"a", "/slow": b"slow"})
        all_taken = threading.Event()
        faults = {"/a": Hold(all_taken), "/slow": StallAfter(0)}
        server.faults = lambda _, request: faults[request.path]

        def downloads():
            for path in ("/a", "/slow"):
                yield HttpDownload(server.url(path), BufferWriter())
            all_taken.set()

        with Context() as context:
            with Batch(downloads(), concurrent=1, context=context) as batch:
                next(batch())
                server.until(lambda: server.count == 2)
            again = HttpDownload(server.url("/a"), BufferWriter())
            with Batch([again], context=context) as batch:
                assert next(batch()).result() is again
        context.close()

    @pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, SystemExit])
    def test_leaving(self, file_server, tmp_path, error, no_leaks):
        """Leaving a batch's `with` in any way leaves no thread, file or connection."""
        server = file_server({"/a": b"content", "/slow": os.urandom(100_000)})
        all_taken = threading.Event()
        faults = {"/a": Hold(all_taken), "/slow": StallAfter(7)}
        server.faults = lambda _, request: faults[request.path]

        def downloads():
            yield HttpDownload(server.url("/a"), FileWriter(tmp_path / "a"))
            for n in range(5):
                yield HttpDownload(server.url("/slow"), FileWriter(tmp_path / f"{n}"))
            all_taken.set()

        expected = contextlib.nullcontext() if error is None else pytest.raises(error)
        with expected, Batch(downloads(), concurrent=2) as batch:
            next(batch()).result()
            server.until(lambda: server.count == 3)
            if error is not None:
                raise error
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
        assert {plan.error.reason for plan in batch.iterator} == {SHUT_DOWN}
        server.until(lambda: server.open_connections == 0)

    def test_from_handler(self, file_server, tmp_path, no_leaks):
        """A handler may shut its batch down during the transfer, without a deadlock."""
        server = file_server({"/a": os.urandom(500_000), "/slow": b"slow"})
        server.faults = lambda _, request: StallAfter(1) if request.path == "/slow" else None
        trigger = HttpDownload(server.url("/a"), FileWriter(tmp_path / "a"))
        slow = HttpDownload(server.url("/slow"), FileWriter(tmp_path / "slow"))

        def stop(_):
            server.until(lambda: server.count == 2)
            batch.shutdown()

        trigger.register(Event.FETCHED, stop)
        with Batch([trigger, slow], concurrent=2) as batch:
            plans = list(batch())
        assert [plan.error.reason for plan in plans] == [SHUT_DOWN] * 2
        assert list(tmp_path.iterdir()) == []

    def test_nested(self, file_server, tmp_path, no_leaks):
        """Shutting down a batch also interrupts reads of a batch that runs in its handler."""
        server = file_server({"/list": b"slow", "/slow": b"content"})
        server.faults = lambda _, request: StallAfter(3) if request.path == "/slow" else None
        ends = []

        def fetch_listed(event):
            name = event.download.writer.content()
            inner = HttpDownload(server.url(f"/{name}"), FileWriter(tmp_path / name))
            with Batch([inner], context=event.download.context) as batch:
                ends.extend(plan.error.reason for plan in batch())

        outer = HttpDownload(server.url("/list"), BufferWriter())
        outer.register(Event.SUCCEEDED, fetch_listed)
        plans, took = stopped(Batch([outer]), lambda: server.until(lambda: server.count == 2))
        assert took < AT_ONCE
        assert ends == [SHUT_DOWN]
        assert plans[0].result() is outer
        assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def program(code, *arguments):
    """Run a Python program, which is killed at the end of the `with`."""
    paths = [SOURCES, *filter(None, [os.environ.get("PYTHONPATH")])]
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, paths))},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


FETCH = """
import signal, sys, threading
from pulpcore.plugin.download.futures import Batch, FileWriter, HttpDownload

folder, *urls = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)
if {handled}:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
downloads = [HttpDownload(url, FileWriter(f"{{folder}}/{{n}}")) for n, url in enumerate(urls)]
try:
    with Batch(downloads, concurrent=2) as batch:
        for plan in batch():
            plan.result()
            print("first", flush=True)
except BaseException as error:
    print(type(error).__name__, batch.is_shutdown, threading.active_count(), flush=True)
    raise
"""


class TestSignals:
    @pytest.fixture
    def server(self, running):
        """Start a server with one good file and others that stall in the middle."""
        server = running(FileServer, {"/a": b"content", "/slow": os.urandom(300_000)})
        server.faults = lambda _, request: StallAfter(200_000) if request.path == "/slow" else None
        return server

    @pytest.mark.parametrize(
        ("number", "code", "said"),
        [
            (signal.SIGINT, -signal.SIGINT, "KeyboardInterrupt True 1\n"),
            (signal.SIGTERM, 143, "SystemExit True 1\n"),
        ],
    )
    def test_handled(self, server, tmp_path, number, code, said):
        """Ctrl-C, or a SIGTERM turned into an exit, ends a batch at once without partial files."""
        (tmp_path / "1").write_bytes(b"old")
        urls = [server.url("/a"), *[server.url("/slow")] * 4]
        with program(FETCH.format(handled=True), tmp_path, *urls) as process:
            assert process.stdout.readline() == "first\n"
            server.until(lambda: server.count == 3)
            process.send_signal(number)
            out, err = process.communicate(timeout=SECONDS)
        assert (out, process.returncode) == (said, code), err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
        assert (tmp_path / "0").read_bytes() == b"content"
        assert (tmp_path / "1").read_bytes() == b"old"

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_killed(self, server, tmp_path, number):
        """After kill -9 of a batch, each path has its complete old file or complete new file."""
        (tmp_path / "1").write_bytes(b"old")
        urls = [server.url("/a"), *[server.url("/slow")] * 4]
        with program(FETCH.format(handled=False), tmp_path, *urls) as process:
            assert process.stdout.readline() == "first\n"
            server.until(lambda: server.count == 3)
            process.send_signal(number)
            process.communicate(timeout=SECONDS)
        assert process.returncode == -number
        names = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
        assert names == {"0", "1"}
        assert (tmp_path / "0").read_bytes() == b"content"
        assert (tmp_path / "1").read_bytes() == b"old"


MEMORY = """
import resource, sys
from pulpcore.plugin.download.futures import Batch, Download

class Nop(Download):
    def __init__(self, x):
        super().__init__('', None)
        self.attachment = x
    def _send(self):
        pass
    def __call__(self):
        pass

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

size = int(sys.argv[1])
count = 0
# A small backlog: how much of it is used is a matter of which thread gets its turn.
with Batch((Nop(n) for n in range(size)), backlog=16) as batch:
    for plan in batch():
        plan.result()
        count += 1
        if count == size // 20:
            early = peak()
print(count, peak() - early)
"""


def test_flat_memory():
    """A batch of many downloads from a generator needs no more memory than one of few."""
    size = 60_000
    with program(MEMORY, size) as process:
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    count, grown = map(int, out.split())
    assert count == size
    assert grown < 4_000  # KiB; a Nop that is kept takes 1 KiB or more


def test_exits_with_an_open_batch(running):
    """A program can end without closing its batch, because idle threads don't block the exit."""
    server = running(FileServer, {"/a": File(b"content")})
    code = """
    import sys
    from pulpcore.plugin.download.futures import Batch, BufferWriter, HttpDownload
    batch = Batch(HttpDownload(sys.argv[1], BufferWriter()) for _ in range(100))
    next(batch()).result()
    """
    with program(code, server.url("/a")) as process:
        out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out, err) == (0, "", "")


def test_failed_plan_of_a_stopped_server(file_server):
    """If the server disappears during a batch, the plans report it and nothing hangs."""
    server = file_server({"/a": b"content"})
    downloads = [HttpDownload(server.url("/a"), BufferWriter()) for _ in range(20)]
    for download in downloads:
        download.retry = None
    with Batch(downloads, concurrent=2, backlog=2) as batch:
        next(batch()).result()
        server.close()
        rest = list(batch())
    assert len(rest) == 19
    assert all(isinstance(plan.error, DownloadFailed) for plan in rest[3:])
