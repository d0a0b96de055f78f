"""Tests of one file in parts: ranges over several connections, handed on in order."""

import errno
import hashlib
import io
import mmap
import pickle
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
from http_tools import Opened, content, failure, into_memory, names, quick, record
from servers.files import (
    CutAfter,
    Fault,
    File,
    FileServer,
    Hold,
    HoldAfter,
    Redirect,
    ResetAfter,
    Slow,
    StallAfter,
    Status,
)
from servers.message import Request

from pulpcore.plugin.download.futures import (
    Batch,
    DigestMismatch,
    DigestValidation,
    DownloadFailed,
    Event,
    FileWriter,
    HttpDownload,
    Limits,
    NotAuthorized,
    NotFound,
    Timeout,
    Validation,
    Writer,
)
from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.engine import breaker, ramp, sources
from pulpcore.plugin.download.futures.engine.host import host_of
from pulpcore.plugin.download.futures.http import part as one_part
from pulpcore.plugin.download.futures.http import parts
from pulpcore.plugin.download.futures.net.url import parse
from pulpcore.plugin.download.futures.waiting.threads import Workers

KIB = 1024
SIZE = 64 * KIB
BODY = random.Random(1).randbytes(8 * SIZE + 123)
OTHER = random.Random(2).randbytes(len(BODY))
FILE = File(BODY, etag='"e"')
LAST = len(BODY) - 1


class Eager(ramp.Ramp):
    """A policy that uses all connections from the beginning."""

    def __init__(self, most: int, now: float, trip: float, size: int) -> None:
        super().__init__(most, now, trip, size)
        self.wanted = most

    def update(self, now: float, progress: ramp.Progress, active: int) -> None:
        """Measure nothing."""


class Capped(ramp.Ramp):
    """The real policy, on a clock by which each connection brings 4 MB/s on a busy machine, too."""

    def __init__(self, most: int, now: float, trip: float, size: int) -> None:
        super().__init__(most, 0.0, 0.001, size)
        self.clock, self.received = 0.0, 0

    def update(self, now: float, progress: ramp.Progress, active: int) -> None:
        """Measure by that clock, as if the reader only waited."""
        self.clock += (progress.received - self.received) / max(active, 1) / 4e6
        self.received = progress.received
        super().update(self.clock, ramp.Progress(self.received, self.clock), active)

    def refuse(self, now: float, active: int) -> None:
        """Note by that clock that a connection was refused."""
        super().refuse(self.clock, active)

    def give_up(self, now: float) -> None:
        """Go back to one connection by that clock."""
        super().give_up(self.clock)


# Downloads a file in small parts, and says when half of it has been handed on.
PROGRAM = """
import sys
from pulpcore.plugin.download.futures import Event, FileWriter, HttpDownload
from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.engine import ramp
from pulpcore.plugin.download.futures.http import parts

class Eager(ramp.Ramp):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.wanted = self.most
    def update(self, *unused):
        pass

def tell(event):
    if event.offset + len(event.buffer) > event.download.expected_size // 2:
        event.download.router.unregister(Event.FETCHED, tell)
        print("half", flush=True)

parts.SIZE, parts.SMALLEST, parts.Ramp = 65536, 131072, Eager
HttpDownload.BLOCK = 16384
download = HttpDownload(sys.argv[1], FileWriter(sys.argv[2], resume=True), parts=3)
download.register(Event.FETCHED, tell)
download()
"""


class Fetched:
    """Knows which parts have been fetched, well or not."""

    def __init__(self) -> None:
        self._gates: list[tuple[set[int], threading.Event]] = []

    def ended(self, first: int) -> None:
        """Note that the fetching of the part that begins there has ended."""
        for awaited, event in self._gates:
            awaited.discard(first)
            if not awaited:
                event.set()

    def after(self, count: int) -> threading.Event:
        """Return an event that is set when each of the first parts was fetched, from now on.

        They are those that the stream reaches first, whichever thread is faster.
        """
        event = threading.Event()
        self._gates.append(({SIZE * number for number in range(1, count + 1)}, event))
        return event


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Count the connections that are open."""
    return Opened.watch(monkeypatch)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Fetched:
    """Make parts of 64 KiB, all connections at once, and know which were fetched."""
    counts = Fetched()
    monkeypatch.setattr(parts, "SIZE", SIZE)
    monkeypatch.setattr(parts, "SMALLEST", 2 * SIZE)
    monkeypatch.setattr(parts, "ADVANCE", SIZE // 4)
    monkeypatch.setattr(one_part, "ADVANCE", SIZE // 4)
    monkeypatch.setattr(one_part, "PAUSE", 0.001)
    monkeypatch.setattr(parts, "Ramp", Eager)
    # A mirror isn't slow because the machine is busy.
    monkeypatch.setattr(parts, "_PATIENCE", 60.0)
    monkeypatch.setattr(parts, "_SILENCE", 60.0)
    monkeypatch.setattr(sources, "SLOW_FAILURE", 60.0)
    monkeypatch.setattr(HttpDownload, "BLOCK", 16 * KIB)
    fetch = parts.Team._fetch

    def counted(team: parts.Team, part: parts.Part) -> None:
        fetch(team, part)
        counts.ended(part.first)

    monkeypatch.setattr(parts.Team, "_fetch", counted)
    return counts


Serve = Callable[..., FileServer]


@pytest.fixture
def held(file_server: Serve, fetched: Fetched) -> Callable[..., FileServer]:
    """Start a server whose first reply stops after some bytes until parts were fetched.

    The function takes the number of the first parts to wait for, and further faults by the range
    that is asked for: a list, of which each request takes the next one.
    """

    def start(
        until: int = 2,
        faults: dict[str, Sequence[Fault]] | None = None,
        files: dict[str, Any] | None = None,
        **options: Any,
    ) -> FileServer:
        left = {name: list(each) for name, each in (faults or {}).items()}
        gate = fetched.after(until)
        is_first = [True]

        def fault(_: int, request: Request) -> Fault | None:
            asked = request.header("Range") or ""
            if not asked and is_first.pop() if is_first else False:
                return HoldAfter(KIB, gate)
            return left[asked].pop(0) if left.get(asked) else None

        return file_server(files or {"/a": FILE}, faults=fault, **options)

    return start


def ranges(server: FileServer) -> list[str]:
    """Return the ranges that were asked for, '' for none, in the order of their beginning."""
    asked = [request.header("Range") or "" for request in server.requests]
    return sorted(asked, key=lambda value: int(value.strip("bytes=").partition("-")[0] or -1))


def span(number: int) -> str:
    """Return the header Range of a part, counted from 0."""
    return f"bytes={number * SIZE}-{min((number + 1) * SIZE - 1, LAST)}"


ALL = ["", *(span(number) for number in range(1, 9))]


FIFTH = BODY[5 * SIZE : 6 * SIZE]


def damaged(status: int = 206, body: bytes = FIFTH, **headers: str) -> Status:
    """Return a wrong reply to the request for part 5."""
    named = {"Content-Range": f"bytes {5 * SIZE}-{6 * SIZE - 1}/{len(BODY)}", "ETag": '"e"'}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    return Status(status, named, body)


class TestInOrder:
    """Writer, validations and handlers see the same as with one connection."""

    def test_content(self, held: Serve, opened: Opened) -> None:
        """Each range is asked for once, with the validator, and no event is added."""
        server = held()
        download = into_memory(server.url("/a"), parts=3)
        download.validations.append(DigestValidation("sha256", hashlib.sha256(BODY).hexdigest()))
        events = record(download)
        assert content(download) == BODY
        assert ranges(server) == ALL
        assert [each.header("If-Range") for each in server.requests[1:]] == ['"e"'] * 8
        assert names(events) == ["PREPARED", "SENT", "REPLIED", "FETCHED", "SUCCEEDED"]
        offset = 0
        for event in events:
            if event.NAME == Event.FETCHED:
                assert event.offset == offset
                offset += len(event.buffer)
        assert (download.status, download.reply.status_code) == (200, 200)
        assert "Range" not in download.reply.request.headers
        assert opened.most in (2, 3)

    def test_stream(self, held: Serve) -> None:
        """The content of a stream is fetched in parts, too."""
        download = into_memory(held().url("/a"), parts=3)
        with download.stream() as file:
            assert file.read() == BODY

    def test_stream_closed_early(self, held: Serve, no_leaks: None) -> None:
        """A stream that is closed early ends the threads."""
        download = into_memory(held().url("/a"), parts=3)
        with download.stream() as file:
            assert file.read(SIZE) == BODY[:SIZE]

    def test_clone_and_pickle(self, held: Serve, tmp_path: Path) -> None:
        """Clones and unpickled downloads have the same number of connections."""
        download = HttpDownload(held().url("/a"), tmp_path / "a", parts=3)
        assert download.clone().parts == 3
        again = pickle.loads(pickle.dumps(download))
        again()
        assert (tmp_path / "a").read_bytes() == BODY

    @pytest.mark.parametrize("value", [0, -1])
    def test_too_few(self, value: int) -> None:
        """A download refuses less than one connection, also if it is set after the constructor."""
        with pytest.raises(ValueError, match="parts: must be at least 1"):
            HttpDownload("http://a/", None, parts=value)
        download = into_memory("http://a/")
        download.parts = value
        assert "parts: must be at least 1" in failure(download).reason

    @pytest.mark.parametrize("value", [True, 2.0, "2"])
    def test_wrong_type(self, value: Any) -> None:
        """A number of connections that is no int is refused."""
        with pytest.raises(TypeError, match="parts: must be an int"):
            HttpDownload("http://a/", None, parts=value)

    def test_memory(self, held: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """No more parts lie in memory than there may be connections."""
        most = []
        start = parts.Team.start

        def counted(team: parts.Team, part: parts.Part, has_stream: bool) -> bool:
            most.append(len(team.parts))
            return start(team, part, has_stream)

        monkeypatch.setattr(parts.Team, "start", counted)
        assert content(into_memory(held(2).url("/a"), parts=3)) == BODY
        assert max(most) == 3


class TestOneConnection:
    """Files that aren't fetched in parts."""

    @pytest.mark.parametrize(
        "file",
        [
            File(BODY[: 2 * SIZE - 1], etag='"e"'),
            File(BODY, etag='W/"e"'),
            File(BODY),
            File(BODY, etag='"e"', ranges=False),
            File(BODY, etag='"e"', content_encoding="x-own", headers={"Content-Type": "x/y"}),
        ],
        ids=["small", "weak", "no validator", "no ranges", "coding"],
    )
    def test_file(self, fetched: Fetched, file_server: Serve, file: File) -> None:
        """One request fetches a small file, or one without a size, ranges or a strong validator."""
        server = file_server({"/a": file})
        headers = {"Accept-Encoding": "x-own"} if file.content_encoding else {}
        assert content(into_memory(server.url("/a"), parts=4, headers=headers)) == file.body
        assert server.count == 1

    def test_own_range(self, fetched: Fetched, file_server: Serve) -> None:
        """One request is sent if the caller's headers have a Range."""
        server = file_server({"/a": FILE})
        download = into_memory(server.url("/a"), parts=4, headers={"Range": f"bytes=1-{LAST}"})
        assert content(download) == BODY[1:]
        assert server.count == 1

    def test_head(self, fetched: Fetched, file_server: Serve) -> None:
        """A HEAD request is never split into parts."""
        server = file_server({"/a": FILE})
        into_memory(server.url("/a"), method="HEAD", parts=4)()
        assert server.count == 1

    def test_one(self, fetched: Fetched, file_server: Serve) -> None:
        """By default a file is fetched over one connection."""
        server = file_server({"/a": FILE})
        assert content(into_memory(server.url("/a"))) == BODY
        assert server.count == 1


BAD = {
    "404": Status(404),
    "401": Status(401),
    "503": Status(503),
    "whole": Status(200, {"ETag": '"e"'}, BODY),
    "range": damaged(Content_Range=f"bytes 0-{SIZE - 1}/{len(BODY)}"),
    "short range": damaged(
        body=FIFTH[:-1], Content_Range=f"bytes {5 * SIZE}-{6 * SIZE - 2}/{len(BODY)}"
    ),
    "no range": damaged(Content_Range=""),
    "total": damaged(Content_Range=f"bytes {5 * SIZE}-{6 * SIZE - 1}/{len(BODY) + 1}"),
    "etag": damaged(ETag='"f"'),
    "no etag": damaged(ETag=""),
    "coding": damaged(Content_Encoding="gzip"),
    "long": damaged(
        body=b"%x\r\n%s!\r\n0\r\n\r\n" % (SIZE + 1, FIFTH), Transfer_Encoding="chunked"
    ),
    "short": damaged(
        body=b"%x\r\n%s\r\n0\r\n\r\n" % (SIZE - 1, FIFTH[1:]), Transfer_Encoding="chunked"
    ),
    "cut": CutAfter(KIB),
    "reset": ResetAfter(0),
}


class TestFailures:
    """A part that fails is fetched again alone."""

    @pytest.mark.parametrize("fault", BAD.values(), ids=BAD)
    def test_once(self, held: Serve, fault: Fault) -> None:
        """A part that fails once is fetched once more: that is no attempt, and causes no event."""
        server = held(faults={span(5): [fault]})
        download = into_memory(server.url("/a"), parts=3)
        events = record(download)
        assert content(download) == BODY
        assert names(events) == ["PREPARED", "SENT", "REPLIED", "FETCHED", "SUCCEEDED"]
        begins = [int(each[6:].partition("-")[0]) for each in ranges(server)[1:]]
        assert len([begin for begin in begins if 5 * SIZE <= begin < 6 * SIZE]) == 2

    @pytest.mark.parametrize(
        ("fault", "kind"),
        [(BAD["404"], NotFound), (BAD["401"], NotAuthorized), (BAD["etag"], DownloadFailed)],
        ids=["404", "401", "etag"],
    )
    def test_four_times(self, held: Serve, fault: Fault, kind: Any) -> None:
        """When a part fails four times in a row, the attempt fails. What is before it is kept."""
        server = held(faults={span(5): [fault] * 9})
        download = into_memory(server.url("/a"), parts=3)
        events = record(download)
        error = failure(download, kind)
        assert ranges(server).count(span(5)) == 4
        assert f"bytes {5 * SIZE} to {6 * SIZE - 1} could not be fetched" in error.reason
        assert error.facts is not None
        assert error.facts.received == 5 * SIZE
        assert names(events)[-2:] == ["ERROR", "FAILED"]

    def test_next_attempt(self, held: Serve) -> None:
        """After parts have failed too often, the next attempt asks for all missing bytes."""
        server = held(faults={span(5): [Status(404)] * 4})
        download = into_memory(server.url("/a"), quick(), parts=3)
        events = record(download)
        assert content(download) == BODY
        assert names(events).count("ERROR") == 1
        assert "RESTARTED" not in names(events)
        assert f"bytes={5 * SIZE}-" in ranges(server)

    def test_progress(self, held: Serve) -> None:
        """A part may break off more than four times if each request brings some bytes."""
        step = SIZE // 4
        faults = {f"bytes={5 * SIZE + i * step}-{6 * SIZE - 1}": [CutAfter(step)] for i in range(4)}
        server = held(faults=faults)
        assert content(into_memory(server.url("/a"), parts=3)) == BODY

    def test_other_version(self, held: Serve) -> None:
        """A file that is replaced on the server is fetched anew: versions are never joined."""
        files = {"/a": FILE}
        server = held(files=files)
        download = into_memory(server.url("/a"), quick(), parts=3)
        events = record(download)

        def replace(event: Any) -> None:
            if event.offset >= 2 * SIZE:
                files["/a"] = File(OTHER, etag='"f"')

        download.register(Event.FETCHED, replace)
        assert content(download) == OTHER
        assert names(events).count("RESTARTED") == 1

    @pytest.mark.parametrize("fault", [CutAfter(KIB), CutAfter(0)])
    def test_first_connection(
        self, fetched: Fetched, file_server: Serve, monkeypatch: pytest.MonkeyPatch, fault: Fault
    ) -> None:
        """When the first connection breaks, its rest is asked for again, without an event."""
        monkeypatch.setattr(parts, "Ramp", ramp.Ramp)
        # Then the number of connections is checked before each read.
        monkeypatch.setattr(parts, "_LOOK", 0.0)
        server = file_server({"/a": FILE}, faults={0: CutAfter(KIB), 1: fault, 2: fault})
        download = into_memory(server.url("/a"), parts=3)
        events = record(download)
        assert content(download) == BODY
        assert names(events) == ["PREPARED", "SENT", "REPLIED", "FETCHED", "SUCCEEDED"]
        assert server.count == 4

    def test_first_connection_gone(
        self, fetched: Fetched, file_server: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When the first connection fails for the fourth time in a row, the attempt fails."""
        monkeypatch.setattr(parts, "Ramp", ramp.Ramp)
        server = file_server({"/a": FILE}, faults=lambda *_: CutAfter(0))
        failure(into_memory(server.url("/a"), parts=3), DownloadFailed)
        assert server.count == 4

    def test_too_long_a_wait(self, held: Serve) -> None:
        """If Retry-After of a part is beyond the cap, the attempt fails."""
        server = held(faults={span(5): [Status(503, {"Retry-After": "1000"})] * 9})
        error = failure(into_memory(server.url("/a"), parts=3), DownloadFailed)
        assert error.retry_after == 1000
        assert ranges(server).count(span(5)) == 1

    def test_in_the_way_of_the_stream(self, held: Serve) -> None:
        """A part that fails too often is left to the first connection, if that works."""
        server = held(1, faults={span(1): [Status(404)] * 9})
        download = into_memory(server.url("/a"), parts=2)
        assert content(download) == BODY

    def test_slow_part(self, file_server: Serve, fetched: Fetched) -> None:
        """The first connection doesn't wait for a part that has hardly begun."""
        asked, never = threading.Event(), threading.Event()

        def fault(index: int, request: Request) -> Fault | None:
            if index == 0:
                return HoldAfter(KIB, asked)
            asked.set()
            return Hold(never)

        server = file_server({"/a": FILE}, faults=fault)
        assert content(into_memory(server.url("/a"), parts=2)) == BODY

    def test_read_by_a_handler(self, held: Serve) -> None:
        """If a handler has read bytes of the first reply, the attempt fails."""
        download = into_memory(held().url("/a"), parts=3)
        download.register(Event.REPLIED, lambda event: event.download.reply.raw.read(10))
        assert "somebody else has read" in failure(download).reason

    def test_no_threads(
        self, fetched: Fetched, file_server: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If no thread can be started, one connection fetches the whole file."""

        def run(*_: Any) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(Workers, "run", run)
        server = file_server({"/a": FILE})
        assert content(into_memory(server.url("/a"), parts=3)) == BODY
        assert server.count == 1

    @pytest.mark.parametrize("granted", [0, 1])
    def test_no_memory(
        self, held: Serve, file_server: Serve, monkeypatch: pytest.MonkeyPatch, granted: int
    ) -> None:
        """Where the system grants no memory for parts, or for one only, fewer connections do it."""
        left, made = [None] * granted, mmap.mmap

        def granting(descriptor: int, size: int) -> mmap.mmap:
            if not left:
                raise OSError(errno.ENOMEM, "Cannot allocate memory")
            left.pop()
            return made(descriptor, size)

        monkeypatch.setattr(mmap, "mmap", granting)
        server = held(1) if granted else file_server({"/a": FILE})
        assert content(into_memory(server.url("/a"), parts=3)) == BODY
        assert server.count == (9 if granted else 1)

    def test_failed_before_no_thread(
        self, fetched: Fetched, held: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A part that failed just before a thread couldn't be started is fetched again."""
        run, calls, has_failed = Workers.run, [0], fetched.after(1)

        def once(workers: Workers, work: Any) -> None:
            calls[0] += 1
            if calls[0] == 2:
                assert has_failed.wait(60)
                raise RuntimeError("can't start new thread")
            run(workers, work)

        monkeypatch.setattr(Workers, "run", once)
        home = held(1, faults={span(1): [CutAfter(SIZE * 3 // 4)]})
        download = into_memory(home.url("/a"), parts=3, timeout=Timeout(total=30))
        assert content(download) == BODY
        assert f"bytes={SIZE * 7 // 4}-{2 * SIZE - 1}" in ranges(home)

    @pytest.mark.parametrize("which", ["stream", "part"])
    def test_ended_early(self, held: Serve, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
        """A body that ends too early, as an adapter of the caller's may allow, is no content."""
        take = parts.Fetcher.take
        left = {which}

        def shortened(fetcher: parts.Fetcher, reply: Any, size: int) -> bytes:
            is_part = threading.current_thread().name.startswith("futures_part")
            name = "part" if is_part else "stream"
            if name not in left:
                return take(fetcher, reply, size)
            left.discard(name)
            return b""

        monkeypatch.setattr(parts.Fetcher, "take", shortened)
        assert content(into_memory(held(1).url("/a"), parts=2)) == BODY
        assert not left

    def test_a_bug(self, held: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """A bug in a thread is raised as it is."""
        ask = parts.Fetcher.ask

        def buggy(fetcher: parts.Fetcher, first: int, *rest: Any) -> Any:
            if first == 3 * SIZE:
                raise ZeroDivisionError
            return ask(fetcher, first, *rest)

        monkeypatch.setattr(parts.Fetcher, "ask", buggy)
        with pytest.raises(ZeroDivisionError):
            into_memory(held().url("/a"), parts=3)()


class TestWhere:
    """Which URL the parts come from, and with which credentials."""

    def test_redirect(self, fetched: Fetched, file_server: Serve) -> None:
        """Parts go to where the first request was redirected to."""
        server = file_server({"/a": Redirect("/b"), "/b": FILE})
        server.faults = {1: HoldAfter(KIB, fetched.after(2))}
        assert content(into_memory(server.url("/a"), parts=3)) == BODY
        assert server.paths.count("/a") == 1

    def test_expired(self, fetched: Fetched, file_server: Serve) -> None:
        """A signed URL that has expired is asked for again."""
        dated = File(BODY, etag='"e"', last_modified="Sun, 06 Nov 1994 08:49:37 GMT")
        files = {"/a": Redirect("/b?1"), "/b": dated}

        def fault(index: int, request: Request) -> Fault | None:
            if index == 1:
                return HoldAfter(KIB, fetched.after(2))
            if request.header("Range") == span(5) and request.target == "/b?1":
                files["/a"] = Redirect("/b?2")
                return Status(403)
            return None

        server = file_server(files, faults=fault)
        assert content(into_memory(server.url("/a"), parts=3)) == BODY
        assert server.paths.count("/a") == 2
        assert server.paths.count("/b?2") == 1

    def test_credentials(self, held: Serve) -> None:
        """Each part has the credentials of the download."""
        server = held(user=("u", "p"))
        assert content(into_memory(server.url("/a"), user=("u", "p"), parts=3)) == BODY


def digest(body: bytes = BODY) -> DigestValidation:
    """The validation of a digest."""
    return DigestValidation("sha256", hashlib.sha256(body).hexdigest())


def with_mirrors(home: FileServer, *mirrors: FileServer, **options: Any) -> Any:
    """Make a download in parts into memory, whose digest is enforced."""
    urls = [mirror.url("/a") for mirror in mirrors]
    options = {"parts": 3} | options
    download = into_memory(home.url("/a"), mirrors=urls, **options)
    download.validations.append(digest())
    return download


class Unrepeatable(Validation):
    """A validation that can't be reset."""

    def update(self, buffer: bytes) -> None:
        """Take bytes."""


class Pipe(io.RawIOBase):
    """A file that can't seek."""

    def __init__(self) -> None:
        self.buffers: list[bytes] = []

    def write(self, buffer: Any) -> int:
        """Keep the bytes."""
        self.buffers.append(bytes(buffer))
        return len(buffer)


BAD_AT_A_MIRROR = {
    "404": Status(404),
    "503": Status(503, {"Retry-After": "1000"}),
    "cut": CutAfter(KIB),
    "whole": Status(200, {}, BODY),
    "another part": Status(206, {"Content-Range": f"bytes 0-{SIZE - 1}/{len(BODY)}"}, BODY[:SIZE]),
}


class Brought:
    """Sets an event when a mirror has brought three quarters of a part.

    Attributes:
        size: So many bytes.
        event: The event.
    """

    size = SIZE * 3 // 4

    def __init__(self) -> None:
        self.event = threading.Event()


@pytest.fixture
def brought(fetched: Fetched, monkeypatch: pytest.MonkeyPatch) -> Brought:
    """Tell when a mirror has brought so much of a part that the stream ends before it."""
    found, came = Brought(), parts.Team._came

    def counted(team: parts.Team, part: parts.Part) -> None:
        if part.fetcher.is_helper and part.received == found.size:
            found.event.set()
        came(team, part)

    monkeypatch.setattr(parts.Team, "_came", counted)
    return found


class TestMirrors:
    """Parts from mirrors, where an enforced digest checks the whole."""

    def test_content(self, held: Serve, file_server: Serve, opened: Opened) -> None:
        """Each range is asked for once, from any source, whatever its validator is."""
        home = held(user=("u", "p"))
        mirror = file_server({"/a": File(BODY, etag='"other"')})
        secrets = {"X-Secret": "s3cret", "Cookie": "a=s3cret"}
        download = with_mirrors(home, mirror, user=("u", "p"), headers=secrets)
        events = record(download)
        assert content(download) == BODY
        assert set(ranges(home)).isdisjoint(ranges(mirror))
        assert sorted(ranges(home) + ranges(mirror)) == sorted(ALL)
        assert mirror.count > 0
        for request in mirror.requests:
            assert request.header("If-Range") is None
            assert request.header("Authorization") is None
            assert "s3cret" not in str(request.headers)
        assert {each.header("If-Range") for each in home.requests[1:]} <= {'"e"'}
        assert names(events) == ["PREPARED", "SENT", "REPLIED", "FETCHED", "SUCCEEDED"]
        last = home if ALL[-1] in ranges(home) else mirror
        assert (download.source, download.etag) == (last.url("/a"), None)
        assert opened.most in (2, 3)

    def test_no_digest(self, held: Serve, file_server: Serve) -> None:
        """Without an enforced digest, and in a stream, only the source of the attempt is asked."""
        mirror = file_server({"/a": FILE})
        download = with_mirrors(held(), mirror)
        download.validations[0].enforced = False
        assert content(download) == BODY
        assert download.etag == '"e"'
        with with_mirrors(held(), mirror).stream() as stream:
            assert stream.read() == BODY
        assert mirror.count == 0

    def test_unrepeatable(self, held: Serve, file_server: Serve) -> None:
        """No mirror is asked if its bytes can't be taken back from a pipe or from a validation."""
        mirror = file_server({"/a": File(OTHER, etag='"e"')})
        download = with_mirrors(held(), mirror)
        download.validations.append(Unrepeatable())
        assert content(download) == BODY
        download, pipe = with_mirrors(held(), mirror), Pipe()
        download.writer = Writer(pipe)
        download()
        assert b"".join(pipe.buffers) == BODY
        assert mirror.count == 0

    @pytest.mark.parametrize("fault", BAD_AT_A_MIRROR.values(), ids=BAD_AT_A_MIRROR)
    def test_failure(self, held: Serve, file_server: Serve, fault: Fault) -> None:
        """A part that fails at a mirror is fetched elsewhere, and the mirror gets no others."""
        home, mirror = held(1), file_server({"/a": FILE}, faults=lambda *_: fault)
        download = with_mirrors(home, mirror, parts=2)
        events = record(download)
        assert content(download) == BODY
        assert mirror.count == 1
        assert names(events) == ["PREPARED", "SENT", "REPLIED", "FETCHED", "SUCCEEDED"]
        assert download.source == home.url("/a")

    def test_other_size(self, held: Serve, file_server: Serve) -> None:
        """A mirror whose file has another size brings no part."""
        home, mirror = held(1), file_server({"/a": OTHER + b"more"})
        download = with_mirrors(home, mirror, parts=2)
        assert content(download) == BODY
        assert (mirror.count, download.etag) == (1, '"e"')

    def test_failure_at_home(self, held: Serve, file_server: Serve) -> None:
        """A part that fails at the source of the attempt is fetched from a mirror."""
        home = held(faults={span(number): [Status(404)] * 9 for number in range(2, 9)})
        mirror = file_server({"/a": FILE})
        download = with_mirrors(home, mirror)
        assert content(download) == BODY
        assert len(set(ranges(home))) == len(ranges(home))
        assert download.source == mirror.url("/a")

    @pytest.mark.parametrize("is_first", [True, False])
    def test_liar(self, held: Serve, file_server: Serve, is_first: bool) -> None:
        """After a wrong digest the file is fetched once more, from one source alone."""
        files = [OTHER, BODY] if is_first else [BODY, OTHER]
        home = held(files={"/a": File(files[0], etag='"e"')})
        mirror = file_server({"/a": File(files[1], etag='"e"')})
        download = with_mirrors(home, mirror)
        asked: list[int] = []
        download.register(Event.ERROR, lambda _: asked.append(mirror.count))
        events = record(download)
        assert content(download) == BODY
        assert asked[0] > 0
        errors = [event for event in events if event.NAME == Event.ERROR]
        assert [type(event.error) for event in errors] == [DigestMismatch] * (1 + is_first)
        assert all(event.retrying for event in errors)
        # The mirror is asked only after the home was wrong alone.
        assert (mirror.count > asked[0]) == is_first
        assert asked[0] == asked[-1]

    def test_liar_is_remembered(self, held: Serve, file_server: Serve) -> None:
        """A mirror whose parts made the digest wrong four times in a row is asked for no others."""
        context = Context()
        mirror = file_server({"/a": File(OTHER, etag='"e"')})
        counts = [0]
        for _ in range(6):
            # The first part after the stream comes from the mirror, as long as that may be asked.
            download = with_mirrors(held(), mirror)
            download.context = context
            assert content(download) == BODY
            counts.append(mirror.count)
        assert counts[0] < counts[1] < counts[2] < counts[3] < counts[4] == counts[5] == counts[6]

    def test_slow_mirror(
        self, file_server: Serve, brought: Brought, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A mirror that is much slower gets no more parts, and another source brings the rest."""
        monkeypatch.setattr(parts, "_PATIENCE", 0.01)
        home = file_server({"/a": FILE}, faults={0: HoldAfter(KIB, brought.event)})
        mirror = file_server({"/a": FILE}, faults=lambda *_: StallAfter(brought.size))
        assert content(with_mirrors(home, mirror, timeout=1000)) == BODY
        assert ranges(mirror) == [span(1)]
        assert f"bytes={SIZE + brought.size}-{2 * SIZE - 1}" in ranges(home)

    def test_silent_mirror(
        self,
        file_server: Serve,
        brought: Brought,
        no_leaks: None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A mirror that stalls in a part gets no others, and after four files in a row none."""
        monkeypatch.setattr(parts, "_SILENCE", 0.01)
        monkeypatch.setattr(sources, "RETEST", 0)
        context, is_asked = Context(), [True]

        def hold(_: int, request: Request) -> Fault | None:
            is_held = is_asked[0] and not request.header("Range")
            return HoldAfter(KIB, brought.event) if is_held else None

        home = file_server({"/a": FILE}, faults=hold)
        mirror = file_server({"/a": FILE}, faults=lambda *_: StallAfter(brought.size))
        rest = f"bytes={SIZE + brought.size}-{2 * SIZE - 1}"
        for count in (1, 2, 3, 4, 4):
            is_asked[0] = mirror.count < 4
            brought.event.clear()
            download = with_mirrors(home, mirror, timeout=1000, retry=None)
            download.context = context
            events = record(download)
            assert content(download) == BODY
            assert names(events) == ["PREPARED", "SENT", "REPLIED", "FETCHED", "SUCCEEDED"]
            assert ranges(mirror) == [span(1)] * count
            assert ranges(home).count(rest) == count

    def test_all_pause(
        self, file_server: Serve, brought: Brought, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A mirror that is silent while the source of the attempt is silent, too, is kept."""
        resumed = threading.Event()
        measure, looks = parts.Team.measure, []
        was_still = [False]

        def paused(team: parts.Team, _: float, has_stream: bool, *rest: Any) -> None:
            # Each look takes an hour, as soon as all bytes before the pause were seen.
            is_still = not has_stream and all(
                part.received == (brought.size if part.fetcher.is_helper else KIB) == part.seen
                for part in team.parts
            )
            is_paused = is_still and was_still[0] and not resumed.is_set()
            was_still[0] = is_still
            measure(team, 3600.0 * is_paused, has_stream, *rest)
            if is_paused:
                looks.append(len(team.fetchers))
            if len(looks) == 5:
                resumed.set()

        monkeypatch.setattr(parts.Team, "measure", paused)
        home = file_server(
            {"/a": FILE},
            faults=lambda index, _: HoldAfter(KIB, resumed if index else brought.event),
        )
        mirror = file_server({"/a": FILE}, faults=lambda *_: HoldAfter(brought.size, resumed))
        download = with_mirrors(home, mirror, timeout=1000, retry=None)
        events = record(download)
        assert content(download) == BODY
        assert names(events) == ["PREPARED", "SENT", "REPLIED", "FETCHED", "SUCCEEDED"]
        assert looks[:5] == [2] * 5
        assert len(set(ranges(home) + ranges(mirror))) == home.count + mirror.count

    def test_mirror_in_the_way_of_the_stream(
        self,
        fetched: Fetched,
        file_server: Serve,
        no_leaks: None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The first connection doesn't wait for a part of which a mirror has brought little."""
        # Then parts are started before each read.
        monkeypatch.setattr(parts, "_LOOK", 0.0)
        asked, never = threading.Event(), threading.Event()

        def hold(_: int, request: Request) -> Fault:
            asked.set()
            return Hold(never)

        home = file_server({"/a": FILE}, faults={0: HoldAfter(KIB, asked)})
        mirror = file_server({"/a": FILE}, faults=hold)
        download = with_mirrors(home, mirror, parts=2)
        assert content(download) == BODY
        assert (mirror.count, download.etag) == (1, '"e"')

    def test_per_host(self, held: Serve, file_server: Serve, opened: Opened) -> None:
        """At each source no more connections are open than the limit allows."""
        home = held(1, faults={span(number): [Status(404)] for number in range(1, 9)})
        mirror = file_server({"/a": FILE})
        download = with_mirrors(home, mirror, parts=4)
        download.limits = Limits(per_host=1)
        assert content(download) == BODY
        assert opened.most == 2
        # All places were given back.
        download.context = Context()
        assert content(download) == BODY

    def test_redirect(self, held: Serve, file_server: Serve) -> None:
        """Where a mirror redirects to another host, a limit of connections rules it out."""
        other = file_server({"/a": FILE})
        for limits, count in ((None, 1), (Limits(per_host=2), 0)):
            mirror = file_server({"/a": Redirect(other.url("/a"))})
            before = other.count
            download = with_mirrors(held(1), mirror, parts=2)
            download.limits = limits
            assert content(download) == BODY
            assert (other.count - before >= count, bool(other.count - before)) == (True, count)

    def test_resume(self, held: Serve, file_server: Serve, tmp_path: Path) -> None:
        """What several sources brought in parts is continued by a later run, in parts too."""
        begin = f"bytes={5 * SIZE}-"
        is_broken = [True]

        def fault(_: int, request: Request) -> Fault | None:
            is_it = (request.header("Range") or begin).startswith(begin)
            return Status(404) if is_broken and is_it else None

        home = held(faults={span(5): [Status(404)] * 9})
        mirror = file_server({"/a": FILE}, faults=fault)
        for _ in range(2):
            download = with_mirrors(home, mirror)
            download.writer, download.retry = FileWriter(tmp_path / "a", resume=True), None
            if is_broken:
                failure(download)
                is_broken.clear()
            else:
                download()
        assert (tmp_path / "a").read_bytes() == BODY
        assert ranges(home).count(begin) == 1

    def test_resting(self, held: Serve, file_server: Serve) -> None:
        """A mirror that failed four times in a row is asked for no part."""
        context = Context()
        mirror = file_server({"/a": FILE}, faults=lambda *_: Status(500))
        for count in (1, 2, 3, 4, 4):
            download = with_mirrors(held(1), mirror, parts=2)
            download.context = context
            assert content(download) == BODY
            assert mirror.count == count

    @pytest.mark.parametrize("is_due", [False, True])
    def test_breaker(
        self, held: Serve, file_server: Serve, monkeypatch: pytest.MonkeyPatch, is_due: bool
    ) -> None:
        """While a mirror's host is down, it is asked for no part, except for one to test it."""
        home, mirror = held(1), file_server({"/a": FILE})
        download = with_mirrors(home, mirror, parts=2)
        download.context = Context()
        download.limits = Limits(per_host=4)
        origin = parse(mirror.url("/a"), ("http",)).origin
        found = host_of(download.context, origin).breaker
        for _ in range(breaker.FAILURES):
            found.failed(time.monotonic() - breaker.SILENCE)
        monkeypatch.setattr(breaker, "PROBE", 0.0 if is_due else 1000.0)
        assert content(download) == BODY
        assert (mirror.count > 0, found.is_open) == (is_due, not is_due)


class TestAdapters:
    """Sessions on which the caller has mounted an adapter."""

    def test_adapter(self, held: Serve) -> None:
        """A caller's adapter sends the requests for parts, too."""
        server = held()
        download = into_memory(server.url("/a"), parts=3)
        with download.session as session:
            session.mount("http://", requests.adapters.HTTPAdapter())
            assert content(download) == BODY
        assert ranges(server) == ALL


class TestLimits:
    """Limits, cancellation and resuming are those of any download."""

    def test_per_host(self, held: Serve, opened: Opened) -> None:
        """No more connections are open at once than the limit allows."""
        server = held(1)
        limits = Limits(per_host=2)
        download = into_memory(server.url("/a"), parts=4)
        download.limits = limits
        assert content(download) == BODY
        assert opened.most == 2
        # All places were given back.
        download()

    def test_bandwidth(self, held: Serve) -> None:
        """A limit of bandwidth counts what is handed on."""
        download = into_memory(held().url("/a"), parts=3)
        download.limits = Limits(bandwidth=100_000_000)
        assert content(download) == BODY

    @pytest.mark.parametrize("stage", ["stream", "part"])
    def test_shutdown(
        self, fetched: Fetched, file_server: Serve, no_leaks: None, stage: str
    ) -> None:
        """A batch that is shut down ends the threads and connections, wherever they wait."""

        def fault(index: int, request: Request) -> Fault | None:
            if index == 0:
                return StallAfter(KIB) if stage == "stream" else HoldAfter(KIB, fetched.after(1))
            return StallAfter(KIB) if request.header("Range") == span(3) or index > 2 else None

        server = file_server({"/a": FILE}, faults=fault)
        batch = Batch([into_memory(server.url("/a"), parts=3)])

        def stop() -> None:
            server.until(lambda: server.count >= 3)
            batch.shutdown()

        thread = threading.Thread(target=stop)
        thread.start()
        with batch:
            for plan in batch():
                with pytest.raises(DownloadFailed, match="shut down"):
                    plan.result()
        thread.join()
        server.until(lambda: server.open_connections == 0)

    def test_resume(self, held: Serve, tmp_path: Path) -> None:
        """A partial file is continued by a later run, in parts too."""
        path = tmp_path / "a"
        server = held(faults={span(5): [Status(404)] * 4})
        url = server.url("/a")
        broken = HttpDownload(url, FileWriter(path, resume=True), parts=3)
        broken.retry = None
        error = failure(broken)
        assert error.facts is not None
        HttpDownload(url, FileWriter(path, resume=True), parts=3)()
        assert path.read_bytes() == BODY
        assert f"bytes={5 * SIZE}-" in ranges(server)

    def test_killed(self, fetched: Fetched, file_server: Serve, tmp_path: Path) -> None:
        """A process that is killed leaves the bytes so far, and the next run continues them."""
        path = tmp_path / "a"
        # Neither the first connection nor a part brings more than six parts.
        stalls = {None: StallAfter(6 * SIZE), span(6): StallAfter(KIB), span(7): StallAfter(KIB)}
        server = file_server(
            {"/a": FILE}, faults=lambda _, request: stalls.get(request.header("Range"))
        )
        command = [sys.executable, "-c", PROGRAM, server.url("/a"), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "half\n"
            process.kill()
        assert not path.exists()
        server.faults = {}
        HttpDownload(server.url("/a"), FileWriter(path, resume=True), parts=3)()
        assert path.read_bytes() == BODY
        (again,) = [name for name in ranges(server) if name.endswith("-")]
        assert int(again[6:-1]) >= len(BODY) // 2

    def test_rate(self, held: Serve) -> None:
        """A rate limiter counts each part as a request."""
        taken = []

        class Limiter:
            def delay(self) -> float:
                taken.append(1)
                return 0.0001

        download = into_memory(held().url("/a"), parts=3)
        download.rate_limiter = Limiter()  # type: ignore[assignment]
        assert content(download) == BODY
        assert len(taken) == 9


class TestAdaptation:
    """The number of connections is chosen while the file is fetched."""

    @pytest.fixture(autouse=True)
    def quick(self, fetched: Fetched, monkeypatch: pytest.MonkeyPatch) -> None:
        """Measure for a short time, and use the real policy."""
        monkeypatch.setattr(parts, "Ramp", ramp.Ramp)
        monkeypatch.setattr(parts, "SIZE", 4 * SIZE)
        monkeypatch.setattr(ramp, "PERIOD", 0.03)
        monkeypatch.setattr(parts, "_LOOK", 0.005)

    def test_capped(self, file_server: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the server caps each connection, all four are used."""
        monkeypatch.setattr(parts, "Ramp", Capped)
        # If a busy machine starts the second connection too late, there is time for another trial.
        monkeypatch.setattr(ramp, "PAUSE", 0.01)
        file = File(BODY * 20, etag='"e"')
        server = file_server({"/a": file}, faults=lambda *_: Slow(16 * KIB, 0.004))
        download = into_memory(server.url("/a"), parts=4)
        assert content(download) == file.body
        assert server.most_connections >= 4

    def test_refused(self, file_server: Serve) -> None:
        """From a server that admits only one connection, the file is fetched over that one."""
        file = File(BODY * 10, etag='"e"')
        server = file_server(
            {"/a": file}, faults=lambda index, _: Status(503) if index else Slow(16 * KIB, 0.002)
        )
        download = into_memory(server.url("/a"), parts=4)
        events = record(download)
        assert content(download) == file.body
        assert Event.ERROR not in names(events)
        # It isn't asked again and again.
        assert server.count <= 3
