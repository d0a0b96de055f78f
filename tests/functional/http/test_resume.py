"""Tests of resuming within a run, which never mixes two versions of a file."""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from http_tools import content, failure, into_memory, names, quick, record
from servers.files import CutAfter, File, Status
from servers.raw import Recv, Send, chunked, reply, serve

from pulpcore.plugin.download.futures import (
    DigestValidation,
    DownloadFailed,
    DownloadMonitor,
    Event,
    FileWriter,
    HttpDownload,
    SizeValidation,
    Writer,
)
from pulpcore.plugin.download.futures.validation import DigestMismatch

OLD = b"0123456789" * 4
NEW = b"abcdefghij" * 5
CUT = 25
LATER = "Sun, 06 Nov 1994 08:49:38 GMT"
EARLIER = "Sun, 06 Nov 1994 08:49:37 GMT"
BOUNDARY = {"Content-Type": "multipart/byteranges; boundary=x"}


def first(body: bytes = OLD, cut: int = CUT, **headers: str) -> bytes:
    """Make a response that is cut within its body."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return reply(headers=headers, body=body)[: cut - len(body)]


def part(
    begin: int, total: object, body: bytes = OLD, end: int | None = None, **headers: str
) -> bytes:
    """Make a 206 with the rest of a body from a position."""
    last = len(body) - 1 if end is None else end
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    headers["Content-Range"] = f"bytes {begin}-{last}/{total}"
    return reply(206, headers, body[begin : last + 1])


def whole(body: bytes = OLD, **headers: str) -> bytes:
    """Make a 200 with a whole body."""
    return reply(headers={name.replace("_", "-"): v for name, v in headers.items()}, body=body)


@dataclass
class Case:
    """One way in which an attempt can resume.

    Attributes:
        name: What is special about the case.
        replies: The responses, each on its own connection. The last one is repeated.
        asked: (Range, If-Range) of the second request.
        restarts: The number of restarts.
        content: The expected content; None for an error.
        requests: The total number of requests.
    """

    name: str
    replies: list[bytes]
    asked: tuple[str | None, str | None] = (None, None)
    restarts: int = 0
    content: bytes | None = OLD
    requests: int = 2


E = '"e"'
RANGE = f"bytes={CUT}-"
BY_ETAG = (RANGE, E)
GOOD = first(ETag=E)
NAMED = {"ETag": E, "Content-Range": "bytes 25-39/40"}
LARGER = part(CUT, "*", NEW, ETag=E)
BAD_PART = {"asked": BY_ETAG, "restarts": 1, "requests": 3}

CASES = [
    # Validators that identify a version for certain, and others.
    Case("strong etag", [GOOD, part(CUT, 40, ETag=E)], BY_ETAG),
    Case("empty etag", [first(ETag='""'), part(CUT, 40, ETag='""')], (RANGE, '""')),
    Case(
        "etag with odd characters",
        [first(ETag='"W/!\xe9"'), part(CUT, 40, ETag='"W/!\xe9"')],
        (RANGE, '"W/!\xe9"'),
    ),
    Case("weak etag", [first(ETag='W/"e"'), whole()], restarts=1),
    Case("etag without quotes", [first(ETag="e"), whole()], restarts=1),
    Case("several etags", [first(ETag='"e", "f"'), whole()], restarts=1),
    Case("nothing", [first(), whole()], restarts=1),
    Case(
        "modified earlier",
        [first(Date=LATER, Last_Modified=EARLIER), part(CUT, 40, Last_Modified=EARLIER)],
        (RANGE, EARLIER),
    ),
    Case("modified now", [first(Date=EARLIER, Last_Modified=EARLIER), whole()], restarts=1),
    Case("modified later", [first(Date=EARLIER, Last_Modified=LATER), whole()], restarts=1),
    Case("modified, no date", [first(Last_Modified=EARLIER), whole()], restarts=1),
    Case("modified nonsense", [first(Date=LATER, Last_Modified="then"), whole()], restarts=1),
    Case("date nonsense", [first(Date="now", Last_Modified=EARLIER), whole()], restarts=1),
    Case(
        "modified without a zone",
        [first(Date=LATER, Last_Modified=EARLIER[:-4]), whole()],
        restarts=1,
    ),
    Case(
        "weak etag, modified earlier",
        [first(ETag='W/"e"', Date=LATER, Last_Modified=EARLIER), whole()],
        restarts=1,
    ),
    Case(
        "etag before modified",
        [first(ETag=E, Date=LATER, Last_Modified=EARLIER), part(CUT, 40, ETag=E)],
        BY_ETAG,
    ),
    Case("cut before the first byte", [first(cut=0, ETag=E), whole()], (None, None)),
    Case(
        "cut before the last byte", [first(cut=39, ETag=E), part(39, 40, ETag=E)], ("bytes=39-", E)
    ),
    # The server's responses to the range.
    Case("no total", [GOOD, part(CUT, "*", ETag=E)], BY_ETAG),
    Case("no etag in the part", [GOOD, part(CUT, 40), whole()], **BAD_PART),
    Case(
        "no modified in the part",
        [first(Date=LATER, Last_Modified=EARLIER), part(CUT, 40), whole()],
        (RANGE, EARLIER),
        restarts=1,
        requests=3,
    ),
    Case(
        "another modified beside the etag",
        [first(ETag=E, Last_Modified=EARLIER), part(CUT, 40, ETag=E, Last_Modified=LATER), whole()],
        **BAD_PART,
    ),
    Case(
        "an etag beside the modified",
        [
            first(Date=LATER, Last_Modified=EARLIER),
            part(CUT, 40, Last_Modified=EARLIER, ETag=E),
            whole(),
        ],
        (RANGE, EARLIER),
        restarts=1,
        requests=3,
    ),
    Case(
        "a total that nobody says",
        [
            reply(headers={"ETag": E, "Transfer-Encoding": "chunked"}, body=chunked(OLD, [20, 15]))[
                :-18
            ],
            part(34, "*", ETag=E, end=36),
            whole(),
        ],
        ("bytes=34-", E),
        restarts=1,
        requests=3,
    ),
    Case(
        "a part as a 200",
        [GOOD, reply(200, {"ETag": E, "Content-Range": "bytes 25-39/40"}, OLD[CUT:]), whole()],
        **BAD_PART,
    ),
    Case(
        "the whole with a Content-Range",
        [GOOD, reply(200, {"ETag": E, "Content-Range": "bytes 0-39/40"}, OLD)],
        BY_ETAG,
        restarts=1,
    ),
    Case(
        "coded alike",
        [
            first(ETag=E, Content_Encoding="xz", Content_Type="application/x-xz"),
            part(CUT, 40, ETag=E, Content_Encoding="xz"),
        ],
        BY_ETAG,
    ),
    *(
        Case(f"refused by {status}", [GOOD, reply(status), whole(NEW)], BY_ETAG, 1, NEW, 3)
        for status in (204, 304, 400, 403, 404, 405, 412, 501)
    ),
    Case(
        "units in capitals",
        [GOOD, part(CUT, 40, ETag=E).replace(b": bytes", b": Bytes")],
        BY_ETAG,
    ),
    Case(
        "cut again",
        [GOOD, part(CUT, 40, ETag=E)[:-5], part(35, 40, ETag=E)],
        BY_ETAG,
        requests=3,
    ),
    Case("unavailable between", [GOOD, reply(503), part(CUT, 40, ETag=E)], BY_ETAG, requests=3),
    Case("nothing between", [GOOD, b"", part(CUT, 40, ETag=E)], BY_ETAG, requests=3),
    Case(
        "chunked part",
        [
            GOOD,
            reply(
                206,
                {"ETag": E, "Content-Range": "bytes 25-39/40", "Transfer-Encoding": "chunked"},
                chunked(OLD[CUT:], [3]),
            ),
        ],
        BY_ETAG,
    ),
    Case(
        "chunked at first",
        [
            reply(headers={"ETag": E, "Transfer-Encoding": "chunked"}, body=chunked(OLD, [20, 15]))[
                :-18
            ],
            part(34, 40, ETag=E),
        ],
        ("bytes=34-", E),
    ),
    Case(
        "chunked, all but the end",
        [
            reply(headers={"ETag": E, "Transfer-Encoding": "chunked"}, body=chunked(OLD, end=b"")),
            reply(416, {"Content-Range": "bytes */40"}),
            whole(),
        ],
        ("bytes=40-", E),
        restarts=1,
        requests=3,
    ),
    Case("the same again", [GOOD, whole(ETag=E)], BY_ETAG, restarts=1),
    Case("203 with all", [GOOD, reply(203, {"ETag": E}, OLD)], BY_ETAG, restarts=1),
    Case("another version", [GOOD, whole(NEW, ETag='"f"')], BY_ETAG, 1, NEW),
    Case("another, shorter", [GOOD, whole(NEW[:3], ETag='"f"')], BY_ETAG, 1, NEW[:3]),
    Case("another, empty", [GOOD, whole(b"", ETag='"f"')], BY_ETAG, 1, b""),
    Case(
        "another, cut too",
        [GOOD, first(NEW, 30, ETag='"f"'), part(30, 50, NEW, ETag='"f"')],
        BY_ETAG,
        1,
        NEW,
        3,
    ),
    Case(
        "no such range",
        [GOOD, reply(416, {"Content-Range": "bytes */9"}), whole(NEW)],
        BY_ETAG,
        1,
        NEW,
        3,
    ),
    Case("gone", [GOOD, reply(404)], BY_ETAG, content=None, requests=3),
    Case("nothing to say", [GOOD, reply(204)], BY_ETAG, content=None, requests=3),
    # Parts that don't continue the content received so far.
    Case("part from 0", [GOOD, part(0, 40, ETag=E), whole()], **BAD_PART),
    Case("part from before", [GOOD, part(CUT - 1, 40, ETag=E), whole()], **BAD_PART),
    Case("part from behind", [GOOD, part(CUT + 1, 40, ETag=E), whole()], **BAD_PART),
    Case("part that ends early", [GOOD, part(CUT, 40, end=30, ETag=E), whole()], **BAD_PART),
    Case("part of a larger file", [GOOD, part(CUT, 50, NEW, ETag=E), whole()], **BAD_PART),
    Case("part of a smaller file", [GOOD, part(CUT, 30, OLD[:30], ETag=E), whole()], **BAD_PART),
    Case("part of a larger file, no total", [GOOD, LARGER, whole()], **BAD_PART),
    Case("part of another version", [GOOD, part(CUT, 40, ETag='"f"'), whole()], **BAD_PART),
    Case("part of a weak version", [GOOD, part(CUT, 40, ETag='W/"f"'), whole()], **BAD_PART),
    Case("part with another total", [GOOD, part(CUT, 41, ETag=E), whole()], **BAD_PART),
    Case("no Content-Range", [GOOD, reply(206, {"ETag": E}, OLD[CUT:]), whole()], **BAD_PART),
    Case(
        "nonsense of a Content-Range",
        [GOOD, reply(206, {"ETag": E, "Content-Range": "bytes 25-39"}, OLD[CUT:]), whole()],
        **BAD_PART,
    ),
    Case("multipart", [GOOD, reply(206, BOUNDARY, b"--x\r\n\r\n--x--"), whole()], **BAD_PART),
    Case(
        "encoded part",
        [GOOD, part(CUT, 40, ETag=E, Content_Encoding="gzip"), whole()],
        **BAD_PART,
    ),
    Case(
        "fewer bytes than the part has",
        [GOOD, reply(206, NAMED, OLD[CUT:-1]), whole()],
        **BAD_PART,
    ),
    Case(
        "more bytes than the part has",
        [
            GOOD,
            reply(206, NAMED, OLD[CUT:] + b"x"),
            whole(),
        ],
        **BAD_PART,
    ),
    Case(
        "part as long as the whole",
        [GOOD, reply(206, NAMED, OLD), whole()],
        **BAD_PART,
    ),
    Case(
        "part as long as the whole, which nothing delimits",
        [GOOD, reply(206, NAMED, OLD, length=False), whole()],
        **BAD_PART,
    ),
    Case(
        "multipart that names the rest",
        [GOOD, reply(206, {**NAMED, **BOUNDARY}, OLD[CUT:]), whole()],
        **BAD_PART,
    ),
    Case(
        "a part that nobody asked for",
        [first(cut=0, ETag=E), reply(206, {"ETag": E}, OLD[:20])],
        content=None,
    ),
    Case(
        "a rest that nobody asked for",
        [first(cut=0, ETag=E), part(CUT, 40, ETag=E)],
        content=None,
    ),
    Case(
        "part that only the end delimits",
        [
            GOOD,
            reply(206, NAMED, OLD[CUT:-1], length=False),
            whole(),
        ],
        **BAD_PART,
    ),
]


def test_rest_without_length(raw_server: Any, tmp_path: Path) -> None:
    """A rest without a length, which can't be resumed itself, is appended to the partial file."""
    rest = reply(206, NAMED | {"Transfer-Encoding": "chunked"}, chunked(OLD[CUT:], [3]))
    server = raw_server([[Recv(), Send(GOOD)], serve(rest)])
    download = HttpDownload(server.url(), FileWriter(tmp_path / "file", resume=True))
    download.retry = quick(1)
    download()
    assert (tmp_path / "file").read_bytes() == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("validated", [False, True], ids=["alone", "validated"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_resume(raw_server: Any, tmp_path: Path, case: Case, validated: bool) -> None:
    """Each way to resume ends with one complete version, with right digests and facts."""
    server = raw_server(
        [*([Recv(), Send(data)] for data in case.replies[:-1]), serve(case.replies[-1])]
    )
    target = tmp_path / "file"
    target.write_bytes(b"before")
    download = HttpDownload(server.url(), FileWriter(target))
    download.retry = quick(3)
    monitor = DownloadMonitor(download)
    events = record(download)
    expected = b"before" if case.content is None else case.content
    if validated:
        sha = hashlib.sha256(expected).hexdigest()
        download.validations.append(DigestValidation("sha256", sha))
    if case.content is None:
        failure(download)
    else:
        download()
        md5 = hashlib.md5(case.content).hexdigest()
        assert {**monitor.facts(), "size": len(case.content), "md5": md5} == monitor.facts()
    assert (target.read_bytes(), list(tmp_path.iterdir())) == (expected, [target])
    second = server.requests[1]
    assert (second.header("Range"), second.header("If-Range")) == case.asked
    assert len(server.requests) == case.requests
    assert names(events).count("RESTARTED") == case.restarts
    offset = 0
    for event in events:
        if event.NAME == Event.RESTARTED:
            offset = 0
        elif event.NAME == Event.FETCHED:
            assert event.offset == offset
            offset += len(event.buffer)


class TestWhoMay:
    """Content that must not be resumed."""

    @staticmethod
    def served(file_server: Any, faults: Any, body: bytes = OLD) -> Any:
        """Start a server of a file with a strong validator."""
        return file_server({"/a": File(body, etag=E)}, faults=faults)

    def test_never_after_a_mismatch(self, file_server: Any) -> None:
        """Content that failed validation restarts from 0, also after a handler's repair."""
        server = self.served(file_server, {})
        download = into_memory(server.url("/a"))
        download.validations.append(DigestValidation("md5", "0" * 32))
        events = record(download)

        def repair(event: Any) -> None:
            event.repaired = True

        download.register(Event.ERROR, repair)
        failure(download, DigestMismatch)
        assert [r.header("Range") for r in server.requests] == [None, None]
        assert names(events).count("RESTARTED") == 1

    def test_never_with_own_range(self, file_server: Any) -> None:
        """A download with the caller's own Range repeats that range after a failure."""
        server = self.served(file_server, {0: CutAfter(5)})
        download = into_memory(server.url("/a"), quick(), headers={"Range": "bytes=10-29"})
        events = record(download)
        assert content(download) == OLD[10:30]
        assert [r.header("Range") for r in server.requests] == ["bytes=10-29"] * 2
        assert [r.header("If-Range") for r in server.requests] == [None, None]
        assert names(events).count("RESTARTED") == 1

    def test_never_across_runs(self, file_server: Any) -> None:
        """A second call of a download starts from 0 without resuming."""
        server = self.served(file_server, {0: CutAfter(5)})
        download = into_memory(server.url("/a"))
        failure(download, DownloadFailed)
        assert content(download) == OLD
        assert [r.header("Range") for r in server.requests] == [None, None]

    def test_never_what_was_decoded(self, file_server: Any) -> None:
        """Decoded content isn't resumed, because its offsets mean nothing to the server."""
        body = gzip.compress(OLD * 100)
        files = {"/a": File(body, etag=E, content_encoding="gzip")}
        server = file_server(files, faults={0: CutAfter(len(body) - 1)})
        assert content(into_memory(server.url("/a"), quick())) == OLD * 100
        assert [r.header("Range") for r in server.requests] == [None, None]

    def test_never_another_url(self, file_server: Any) -> None:
        """If a handler changes the URL, the content of the new URL is downloaded whole."""
        files = {"/a": File(OLD, etag=E), "/b": File(NEW, etag=E)}
        server = file_server(files, faults={0: CutAfter(5)})
        download = into_memory(server.url("/a"))

        def repair(event: Any) -> None:
            event.download.url = server.url("/b")
            event.repaired = True

        download.register(Event.ERROR, repair)
        assert content(download) == NEW

    def test_no_ranges(self, file_server: Any) -> None:
        """If the server doesn't support ranges, the download restarts."""
        files = {"/a": File(OLD, etag=E, ranges=False)}
        server = file_server(files, faults={0: CutAfter(5)})
        download = into_memory(server.url("/a"), quick())
        events = record(download)
        assert content(download) == OLD
        assert names(events).count("RESTARTED") == 1

    def test_repaired(self, file_server: Any) -> None:
        """After a handler's repair the download resumes as after a retry."""
        server = self.served(file_server, {0: CutAfter(5), 1: Status(401)})
        download = into_memory(server.url("/a"), quick())

        def repair(event: Any) -> None:
            event.repaired = event.download.status == 401

        download.register(Event.ERROR, repair)
        assert content(download) == OLD
        assert [r.header("Range") for r in server.requests] == [None, "bytes=5-", "bytes=5-"]

    @pytest.mark.parametrize("what", ["validation", "writer"])
    def test_what_cant_be_started_again(self, file_server: Any, tmp_path: Path, what: str) -> None:
        """A writer that can't restart is resumed, and fails if the file has changed."""

        class Counting(SizeValidation):
            def update(self, buffer: bytes) -> None:
                super().update(buffer)

        class Pipe:
            """A file object that can't seek."""

            def __init__(self) -> None:
                self.content = b""

            def write(self, buffer: bytes) -> int:
                self.content += buffer
                return len(buffer)

            def seekable(self) -> bool:
                return False

            def close(self) -> None:
                pass

        files = {"/a": File(OLD, etag=E)}
        server = file_server(files, faults={0: CutAfter(5), 2: CutAfter(5)})
        for changes in (False, True):
            pipe = Pipe()
            writer = Writer(pipe) if what == "writer" else FileWriter(tmp_path / "file")  # type: ignore[arg-type]
            download = HttpDownload(server.url("/a"), writer)
            download.retry = quick()
            size = Counting(len(OLD))
            if what == "validation":
                download.validations.append(size)

            def change(event: Any) -> None:
                files["/a"] = File(NEW, etag='"f"')

            if changes:
                download.register(Event.ERROR, change)
                error = failure(download, DownloadFailed)
                assert "changed" in error.reason
                assert NEW[:5] not in pipe.content
            else:
                download()
                assert OLD in (
                    pipe.content,
                    (tmp_path / "file").read_bytes() if what == "validation" else b"",
                )

    def test_torn_buffer(self, file_server: Any) -> None:
        """If a buffer reached only some consumers, the next attempt restarts from 0."""

        class Failing(SizeValidation):
            failed = False

            def update(self, buffer: bytes) -> None:
                if not self.failed:
                    self.failed = True
                    raise DownloadFailed("not today")
                super().update(buffer)

            def reset(self) -> None:
                super().reset()

        server = self.served(file_server, {})
        download = into_memory(server.url("/a"))
        download.validations.append(Failing(len(OLD)))

        def repair(event: Any) -> None:
            event.repaired = True

        download.register(Event.ERROR, repair)
        assert content(download) == OLD
        assert server.requests[1].header("Range") is None

    def test_many_cuts(self, file_server: Any) -> None:
        """A large file that is cut many times is resumed to the right content."""
        body = hashlib.shake_256(b"x").digest(1_000_000)
        server = file_server(
            {"/a": File(body, etag=E)}, faults=lambda index, request: CutAfter(70_000)
        )
        download = into_memory(server.url("/a"), quick(1))
        monitor = DownloadMonitor(download, ["sha256"])
        events = record(download)
        assert content(download) == body
        assert monitor.facts()["sha256"] == hashlib.sha256(body).hexdigest()
        assert "RESTARTED" not in names(events)
        assert server.count == 15


@pytest.mark.parametrize("is_hook", [False, True])
def test_of_an_exchanged_writer(file_server: Any, tmp_path: Path, is_hook: bool) -> None:
    """A resuming writer keeps its content, even if the handlers that set it are gone."""
    server = file_server({"/a": File(OLD, etag='"e"')})
    server.faults = {0: CutAfter(CUT)}
    target = tmp_path / "a"
    download = HttpDownload(server.url("/a"), None)
    download.retry = None

    def exchange(*_: Any, **__: Any) -> None:
        download.writer = FileWriter(target, resume=True)  # type: ignore[assignment]
        download.router.clear()

    def auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.register_hook("response", exchange)
        return request

    if is_hook:
        download.auth = auth
    else:
        download.register(Event.REPLIED, exchange)
    failure(download, DownloadFailed)
    HttpDownload(server.url("/a"), FileWriter(target, resume=True))()
    assert target.read_bytes() == OLD
    assert server.requests[1].header("Range") == f"bytes={CUT}-"
