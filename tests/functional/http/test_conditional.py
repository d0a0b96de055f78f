"""Tests of conditional downloads: unchanged files are not sent, changed ones are sent whole."""

from pathlib import Path
from typing import Any

import pytest
from http_tools import content, failure, into_memory, names, quick, record
from servers.files import CutAfter, File, Redirect, Status
from servers.raw import Recv, Send, reply, serve

from pulpcore.plugin.download.futures import (
    Batch,
    BufferWriter,
    DigestValidation,
    DownloadFailed,
    DownloadMonitor,
    Event,
    FileWriter,
    HttpDownload,
    SizeValidation,
    Timeout,
)
from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.progress import ProgressMonitor
from pulpcore.plugin.download.futures.validation import SizeMismatch

OLD = b"0123456789" * 4
NEW = b"abcdefghij" * 5
EARLIER = "Sun, 06 Nov 1994 08:49:37 GMT"
LATER = "Sun, 06 Nov 1994 08:49:38 GMT"
E = '"e"'
F = '"f"'
UNCHANGED = [Event.PREPARED, Event.SENT, Event.REPLIED, Event.SUCCEEDED]
FILES = 300


def conditions(server: Any) -> list[tuple[str | None, str | None]]:
    """Return If-None-Match and If-Modified-Since of each request."""
    return [
        (request.header("If-None-Match"), request.header("If-Modified-Since"))
        for request in server.requests
    ]


def ranges(server: Any) -> list[tuple[str | None, str | None]]:
    """Return Range and If-Range of each request."""
    return [(request.header("Range"), request.header("If-Range")) for request in server.requests]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Create a file that was downloaded before."""
    path = tmp_path / "file"
    path.write_bytes(OLD)
    return path


def again(url: str, target: Path, **options: Any) -> HttpDownload:
    """Make a download to a path, with retries without delay."""
    download = HttpDownload(url, FileWriter(target), **options)
    download.retry = quick()
    return download


class TestUnchanged:
    """The server still has the known version."""

    @pytest.mark.parametrize(
        ("file", "known"),
        [
            (File(OLD, etag=E), {"known_etag": E}),
            (File(OLD, etag='W/"e"'), {"known_etag": 'W/"e"'}),
            (File(OLD, etag='W/"e"'), {"known_etag": E}),
            (File(OLD, last_modified=EARLIER), {"known_last_modified": EARLIER}),
            (
                File(OLD, etag=E, last_modified=EARLIER),
                {"known_etag": E, "known_last_modified": EARLIER},
            ),
            # The ETag takes precedence.
            (
                File(OLD, etag=E, last_modified=LATER),
                {"known_etag": E, "known_last_modified": EARLIER},
            ),
            (File(OLD, etag='"\xe9,!"'), {"known_etag": '"x", "\xe9,!", *'}),
        ],
    )
    def test_success(
        self, file_server: Any, target: Path, file: File, known: dict[str, str]
    ) -> None:
        """An unchanged file (304) is a success without content and keeps the target."""
        server = file_server({"/a": file})
        before = target.stat()
        download = again(server.url("/a"), target, **known)
        events = record(download)
        download()
        assert download.unchanged
        assert (download.status, download.position, download.reply.content) == (304, 0, b"")
        assert names(events) == UNCHANGED
        assert conditions(server) == [(known.get("known_etag"), known.get("known_last_modified"))]
        after = target.stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        assert list(target.parent.iterdir()) == [target]

    def test_second_sync(self, file_server: Any, tmp_path: Path) -> None:
        """A second sync transfers nothing and a third only new files, over few connections."""
        files = {f"/{i}": File(b"%d" % i * 99, etag=f'"{i}"') for i in range(FILES)}
        server = file_server(files, record=False)
        known: dict[str, str | None] = {}
        fetched: list[int] = []

        def downloads() -> Any:
            for path in list(files):
                url = server.url(path)
                download = HttpDownload(
                    url, FileWriter(f"{tmp_path}{path}"), known_etag=known.get(url)
                )
                download.register(Event.FETCHED, lambda event: fetched.append(len(event.buffer)))
                yield download

        def sync() -> tuple[int, int]:
            """Return how many files were unchanged and how many bytes arrived."""
            fetched.clear()
            unchanged = 0
            with Batch(downloads()) as batch:
                for plan in batch():
                    download: Any = plan.result()
                    known[download.url] = download.etag
                    unchanged += download.unchanged
            return unchanged, sum(fetched)

        assert sync() == (0, sum(len(file.body) for file in files.values()))
        assert sync() == (FILES, 0)
        files["/7"] = File(NEW, etag=E)
        assert sync() == (FILES - 1, len(NEW))
        assert sync() == (FILES, 0)
        assert server.count == 4 * FILES
        assert server.connections <= 4 * 4
        for path, file in files.items():
            assert Path(f"{tmp_path}{path}").read_bytes() == file.body
        assert len(list(tmp_path.iterdir())) == FILES

    def test_nothing_to_validate(self, file_server: Any, target: Path) -> None:
        """After a 304 validations aren't applied, a monitor has no facts and progress is zero."""
        server = file_server({"/a": File(OLD, etag=E)})
        download = again(server.url("/a"), target, known_etag=E)
        download.validations += [SizeValidation(5), DigestValidation("md5", "0" * 32)]
        monitor = DownloadMonitor(download, ["md5"])
        progress = ProgressMonitor()
        progress.watch(download)
        assert progress.figures == (0, 5)
        download()
        assert download.unchanged
        assert monitor.facts()["size"] == 0
        assert progress.figures == (0, 0)

    def test_into_memory(self, file_server: Any) -> None:
        """A buffer writer stays empty after a 304, whether we or the caller set the condition."""
        server = file_server({"/a": File(OLD, etag=E)})
        download = into_memory(server.url("/a"), known_etag=E)
        assert content(download) == b""
        assert download.unchanged

    def test_without_writer(self, file_server: Any) -> None:
        """A download without a writer may be conditional, too."""
        server = file_server({"/a": File(OLD, etag=E)})
        download = HttpDownload(server.url("/a"), None, known_etag=E)
        download()
        assert download.unchanged

    def test_connection_is_kept(self, raw_server: Any, target: Path) -> None:
        """A 304 has no body whatever its Content-Length, and its connection is reused."""
        server = raw_server([serve(reply(304, {"Content-Length": "40", "ETag": E}))])
        download = again(server.url(), target, known_etag=E)
        download.context = Context()
        for _ in range(3):
            download()
            assert download.unchanged
            assert download.expected_size is None
        download.context.close()
        assert server.connections == 1

    def test_slow_is_no_matter(self, file_server: Any, target: Path) -> None:
        """The least speed doesn't apply to a 304, which has no content."""
        server = file_server({"/a": File(OLD, etag=E)})
        timeout = Timeout(least_speed=1_000_000, window=60)
        download = again(server.url("/a"), target, known_etag=E, timeout=timeout)
        download()
        assert download.unchanged

    def test_redirected(self, file_server: Any, target: Path) -> None:
        """The condition is sent again to the target of a redirect."""
        server = file_server({"/a": Redirect("/b"), "/b": File(OLD, etag=E)})
        download = again(server.url("/a"), target, known_etag=E)
        download()
        assert download.unchanged
        assert conditions(server) == [(E, None)] * 2

    def test_through_a_proxy(self, file_server: Any, proxy: Any, target: Path) -> None:
        """A conditional download through a proxy gets its 304."""
        server = file_server({"/a": File(OLD, etag=E)})
        proxy_url = f"http://127.0.0.1:{proxy().port}"
        download = again(server.url("/a"), target, known_etag=E, proxy_url=proxy_url)
        download()
        assert download.unchanged

    def test_seen_by_handlers(self, file_server: Any, target: Path) -> None:
        """Handlers see `unchanged` from Replied on and the validators from Succeeded on."""
        server = file_server({"/a": File(OLD, etag=E)})
        download = again(server.url("/a"), target, known_etag=E)
        seen: list[Any] = []
        for name in (Event.SENT, Event.REPLIED, Event.SUCCEEDED):
            download.register(name, lambda e: seen.append((e.download.unchanged, e.download.etag)))
        download()
        assert seen[1:] == [(True, None), (True, E)]


class TestChanged:
    """The server has another version, or can't tell."""

    @pytest.mark.parametrize(
        ("file", "known"),
        [
            (File(NEW, etag=F), {"known_etag": E}),
            (File(NEW, last_modified=LATER), {"known_last_modified": EARLIER}),
            (
                File(NEW, etag=F, last_modified=EARLIER),
                {"known_etag": E, "known_last_modified": EARLIER},
            ),
            (File(NEW), {"known_etag": E, "known_last_modified": EARLIER}),
            (File(NEW), {"known_etag": None, "known_last_modified": ""}),
        ],
    )
    def test_comes(self, file_server: Any, target: Path, file: File, known: dict[str, str]) -> None:
        """A changed file is downloaded whole, and its new validators are available."""
        server = file_server({"/a": file})
        download = again(server.url("/a"), target, **known)
        download.validations.append(SizeValidation(len(NEW)))
        download()
        assert target.read_bytes() == NEW
        assert not download.unchanged
        assert (download.etag, download.last_modified) == (file.etag, file.last_modified)

    def test_is_validated(self, file_server: Any, target: Path) -> None:
        """A changed file that fails its validation keeps the old file and gives no validators."""
        server = file_server({"/a": File(NEW, etag=F)})
        download = again(server.url("/a"), target, known_etag=E)
        download.validations.append(SizeValidation(5))
        failure(download, SizeMismatch)
        assert target.read_bytes() == OLD
        assert (download.etag, download.last_modified) == (None, None)

    def test_missing(self, file_server: Any, tmp_path: Path) -> None:
        """If the target is missing, no condition is sent and the file is downloaded."""
        server = file_server({"/a": File(OLD, etag=E, last_modified=EARLIER)})
        path = tmp_path / "folder" / "file"
        download = again(server.url("/a"), path, known_etag=E, known_last_modified=EARLIER)
        download()
        assert path.read_bytes() == OLD
        assert conditions(server) == [(None, None)]
        download()
        assert download.unchanged
        assert path.read_bytes() == OLD

    def test_called_again(self, file_server: Any, target: Path) -> None:
        """A second call sends the same condition, and not the validators of the first run."""
        server = file_server({"/a": File(NEW, etag=F)})
        download = again(server.url("/a"), target)
        monitor = DownloadMonitor(download, ["md5"])
        download()
        download()
        assert not download.unchanged
        download.known_etag = download.etag
        download()
        assert download.unchanged
        # The monitor describes the last run.
        assert monitor.facts()["size"] == 0
        assert target.read_bytes() == NEW
        server.files["/a"] = File(OLD, etag=E)
        download()
        assert not download.unchanged
        assert target.read_bytes() == OLD
        assert monitor.facts()["size"] == len(OLD)
        assert conditions(server) == [(None, None)] * 2 + [(F, None)] * 2

    def test_clone(self, file_server: Any, target: Path) -> None:
        """A clone has the same condition and none of the results."""
        server = file_server({"/a": File(OLD, etag=E, last_modified=EARLIER)})
        download = again(server.url("/a"), target, known_etag=E, known_last_modified=EARLIER)
        download()
        clone: Any = download.clone()
        assert (clone.unchanged, clone.etag, clone.last_modified) == (False, None, None)
        clone()
        assert clone.unchanged
        assert conditions(server) == [(E, EARLIER)] * 2


class TestNotAskedFor:
    """A 304 that answers no condition."""

    def test_is_an_error(self, raw_server: Any, target: Path) -> None:
        """A 304 to an unconditional request is an error without a retry."""
        server = raw_server([serve(reply(304, {"ETag": E}))])
        download = again(server.url(), target)
        events = record(download)
        error = failure(download, DownloadFailed)
        assert "304 Not Modified" in error.reason
        assert "nobody asked" in error.reason
        assert names(events)[-2:] == [Event.ERROR, Event.FAILED]
        assert not download.unchanged
        assert download.etag is None
        assert len(server.requests) == 1
        assert target.read_bytes() == OLD

    def test_where_the_file_is_missing(self, raw_server: Any, tmp_path: Path) -> None:
        """A 304 is an error if the target was missing, so that no condition was sent."""
        server = raw_server([serve(reply(304, {"ETag": E}))])
        failure(again(server.url(), tmp_path / "file", known_etag=E), DownloadFailed)
        assert list(tmp_path.iterdir()) == []

    def test_to_a_resumed_attempt(self, raw_server: Any, target: Path) -> None:
        """If a resumed request gets a 304, the whole file is requested conditionally."""
        first = reply(headers={"ETag": F}, body=NEW)[:-5]
        unchanged = reply(304, {"ETag": E})
        server = raw_server([[Recv(), Send(first)], serve(unchanged), serve(unchanged)])
        download = again(server.url(), target, known_etag=E)
        download()
        assert download.unchanged
        assert target.read_bytes() == OLD
        assert conditions(server) == [(E, None), (None, None), (E, None)]
        assert ranges(server) == [(None, None), ("bytes=45-", F), (None, None)]


class TestWithFaults:
    """Conditional downloads with failures on the way."""

    def test_retried(self, file_server: Any, target: Path) -> None:
        """A retry from byte 0 sends the condition again."""
        files = {"/a": File(OLD, etag=E)}
        server = file_server(files, faults={0: Status(503), 1: CutAfter(9, whole=True)})
        download = again(server.url("/a"), target, known_etag=E)
        events = record(download)
        download()
        assert download.unchanged
        assert conditions(server) == [(E, None)] * 3
        assert names(events)[-3:] == [Event.SENT, Event.REPLIED, Event.SUCCEEDED]
        assert names(events).count(Event.ERROR) == 2

    def test_resumed(self, file_server: Any, target: Path) -> None:
        """A resumed request has If-Range and none of the conditions."""
        files = {"/a": File(NEW, etag=F, last_modified=LATER)}
        server = file_server(files, faults={0: CutAfter(5)})
        download = again(server.url("/a"), target, known_etag=E, known_last_modified=EARLIER)
        download()
        assert target.read_bytes() == NEW
        assert conditions(server) == [(E, EARLIER), (None, None)]
        assert ranges(server) == [(None, None), ("bytes=5-", F)]
        assert (download.unchanged, download.etag, download.last_modified) == (False, F, LATER)

    def test_what_a_part_doesnt_repeat(self, raw_server: Any, target: Path) -> None:
        """If a 206 omits Last-Modified, the one of the first response is remembered."""
        first = reply(headers={"ETag": F, "Last-Modified": LATER}, body=NEW)[:-5]
        rest = reply(206, {"ETag": F, "Content-Range": "bytes 45-49/50"}, NEW[45:])
        server = raw_server([[Recv(), Send(first)], serve(rest)])
        download = again(server.url(), target)
        download()
        assert target.read_bytes() == NEW
        assert (download.etag, download.last_modified) == (F, LATER)

    @pytest.mark.parametrize("validator", [{"etag": F}, {"last_modified": EARLIER}])
    def test_resumed_by_another_run(
        self, raw_server: Any, file_server: Any, target: Path, validator: dict[str, str]
    ) -> None:
        """A partial file is resumed without the condition, and its version is remembered."""
        server = file_server({"/a": File(NEW, **validator)}, faults={0: CutAfter(5)})
        known = {"known_etag": E, "known_last_modified": EARLIER[:-6] + "0 GMT"}
        download = HttpDownload(server.url("/a"), FileWriter(target, resume=True), **known)
        download.retry = None
        failure(download, DownloadFailed)
        assert (download.etag, download.last_modified) == (None, None)
        download()
        assert target.read_bytes() == NEW
        assert download.status == 206
        assert conditions(server)[1] == (None, None)
        assert (download.etag, download.last_modified) == (
            validator.get("etag"),
            validator.get("last_modified"),
        )
        assert list(target.parent.iterdir()) == [target]

    def test_version_of_another_run(self, raw_server: Any, target: Path) -> None:
        """A run that resumes an earlier run's partial file reports that file's version."""
        first = reply(headers={"ETag": F}, body=NEW)[:-5]
        fields = {"Content-Range": "bytes 45-49/50", "ETag": F}
        server = raw_server([[Recv(), Send(first)], serve(reply(206, fields, NEW[45:]))])
        broken = HttpDownload(server.url(), FileWriter(target, resume=True))
        broken.retry = None
        failure(broken, DownloadFailed)
        download = HttpDownload(server.url(), FileWriter(target, resume=True))
        download()
        assert download.status == 206
        assert target.read_bytes() == NEW
        assert (download.etag, download.last_modified) == (F, None)

    def test_nothing_left_to_resume(self, file_server: Any, target: Path) -> None:
        """With a resumable writer an unchanged file leaves no partial file."""
        server = file_server({"/a": File(OLD, etag=E)})
        download = HttpDownload(server.url("/a"), FileWriter(target, resume=True), known_etag=E)
        download()
        assert download.unchanged
        assert list(target.parent.iterdir()) == [target]

    def test_changed_back(self, file_server: Any, target: Path) -> None:
        """If the known version is back at the retry (304), the newer partial file is deleted."""
        files = {"/a": File(NEW)}
        server = file_server(files, faults={0: CutAfter(5)})
        download = again(server.url("/a"), target, known_etag=E)
        events = record(download)

        def change(event: Any) -> None:
            files["/a"] = File(OLD, etag=E)

        download.register(Event.ERROR, change)
        download()
        assert download.unchanged
        assert conditions(server) == [(E, None)] * 2
        assert names(events)[-5:] == [Event.ERROR, Event.RESTARTED, *UNCHANGED[1:]]
        assert target.read_bytes() == OLD

    def test_changed_back_while_resumed(self, file_server: Any, target: Path) -> None:
        """If the known version is back at a resumed request, the file is downloaded whole."""
        files = {"/a": File(NEW, etag=F)}
        server = file_server(files, faults={0: CutAfter(5)})
        download = again(server.url("/a"), target, known_etag=E)

        def change(event: Any) -> None:
            files["/a"] = File(OLD, etag=E)

        download.register(Event.ERROR, change)
        download()
        assert (download.unchanged, download.etag) == (False, E)
        assert conditions(server) == [(E, None), (None, None)]
        assert target.read_bytes() == OLD

    def test_another_version_in_the_rest(self, raw_server: Any, target: Path) -> None:
        """If a 206 has another version, the next request from 0 is conditional again."""
        first = reply(headers={"ETag": F}, body=NEW)[:-5]
        other = reply(206, {"ETag": E, "Content-Range": "bytes 45-49/50"}, NEW[45:])
        scripts = [[Recv(), Send(first)], [Recv(), Send(other)], serve(reply(304, {"ETag": E}))]
        server = raw_server(scripts)
        download = again(server.url(), target, known_etag=E)
        download()
        assert download.unchanged
        assert conditions(server) == [(E, None), (None, None), (E, None)]
        assert target.read_bytes() == OLD

    def test_repaired(self, file_server: Any, target: Path) -> None:
        """A conditional download succeeds after a handler repaired its credentials."""
        server = file_server({"/a": File(OLD, etag=E)}, faults={0: Status(401)})
        download = again(server.url("/a"), target, known_etag=E)

        def repair(event: Any) -> None:
            event.repaired = True

        download.register(Event.ERROR, repair)
        download()
        assert download.unchanged
        assert conditions(server) == [(E, None)] * 2


class TestHead:
    """HEAD with a condition asks only whether the file has changed."""

    def test_unchanged(self, file_server: Any, target: Path) -> None:
        """A conditional HEAD request reports an unchanged file as GET does."""
        server = file_server({"/a": File(OLD, etag=E)})
        download = again(server.url("/a"), target, method="HEAD", known_etag=E)
        download()
        assert (download.unchanged, download.etag) == (True, E)
        assert conditions(server) == [(E, None)]

    def test_changed(self, file_server: Any, target: Path) -> None:
        """A HEAD request for a changed file gives the new headers and writes nothing."""
        server = file_server({"/a": File(NEW, etag=F)})
        download = again(server.url("/a"), target, method="HEAD", known_etag=E)
        download()
        assert (download.unchanged, download.etag) == (False, F)
        assert target.read_bytes() == OLD


class TestOwnHeaders:
    """The caller's own conditional headers."""

    @pytest.mark.parametrize(
        ("headers", "asked"),
        [
            ({"if-none-match": E}, (E, None)),
            ({"If-Modified-Since": LATER}, (None, LATER)),
            ({"If-None-Match": E.encode()}, (E, None)),
        ],
    )
    def test_counts_as_asked(
        self, file_server: Any, tmp_path: Path, headers: Any, asked: tuple[str | None, str | None]
    ) -> None:
        """The caller's own condition replaces ours and is sent even without a target file."""
        server = file_server({"/a": File(OLD, etag=E, last_modified=EARLIER)})
        path = tmp_path / "file"
        download = again(server.url("/a"), path, headers=headers, known_last_modified=EARLIER)
        download()
        assert download.unchanged
        assert (download.etag, download.last_modified) == (E, EARLIER)
        assert list(tmp_path.iterdir()) == []
        assert conditions(server) == [asked]

    def test_wins(self, file_server: Any, target: Path) -> None:
        """With the caller's own condition no conditional header of ours is sent."""
        server = file_server({"/a": File(OLD, etag=E)})
        download = again(
            server.url("/a"),
            target,
            headers={"If-None-Match": F},
            known_etag=E,
            known_last_modified=EARLIER,
        )
        download()
        assert not download.unchanged
        assert conditions(server) == [(F, None)]

    def test_changed_back(self, file_server: Any, target: Path) -> None:
        """The caller's condition is sent with a resumed request, too. A 304 then drops the part."""
        files = {"/a": File(NEW, etag=F)}
        server = file_server(files, faults={0: CutAfter(5)})
        download = again(server.url("/a"), target, headers={"If-None-Match": E})
        monitor = DownloadMonitor(download, ["md5"])
        events = record(download)

        def change(event: Any) -> None:
            files["/a"] = File(OLD, etag=E)

        download.register(Event.ERROR, change)
        download()
        assert download.unchanged
        assert ranges(server)[1] == ("bytes=5-", F)
        assert names(events)[-4:] == [
            Event.SENT,
            Event.REPLIED,
            Event.RESTARTED,
            Event.SUCCEEDED,
        ]
        assert (monitor.facts()["size"], download.position, download.etag) == (0, 0, E)
        assert target.read_bytes() == OLD
        assert list(target.parent.iterdir()) == [target]


class TestRemembered:
    """The validators to remember, also after a 304."""

    def test_304_says_nothing(self, raw_server: Any, target: Path) -> None:
        """Validators that a 304 doesn't repeat stay as they were known."""
        server = raw_server([serve(reply(304))])
        download = again(server.url(), target, known_etag=E, known_last_modified=EARLIER)
        download()
        assert (download.etag, download.last_modified) == (E, EARLIER)

    def test_304_says_more(self, raw_server: Any, target: Path) -> None:
        """Validators in a 304 replace the known ones."""
        server = raw_server([serve(reply(304, {"ETag": F, "Last-Modified": LATER}))])
        download = again(server.url(), target, known_etag=f"{E}, {F}", known_last_modified=EARLIER)
        download()
        assert (download.etag, download.last_modified) == (F, LATER)

    def test_sent_as_it_came(self, raw_server: Any, target: Path) -> None:
        """A malformed ETag is sent back unchanged, because the server may recognize it."""
        server = raw_server([serve(reply(headers={"ETag": "odd \xe9"}, body=NEW))])
        download = again(server.url(), target)
        download()
        download.known_etag = download.etag
        download()
        assert conditions(server)[1] == ("odd \xe9", None)

    def test_own_range(self, raw_server: Any) -> None:
        """Each response to a caller's own Range gives the validators of that run and attempt."""
        span = {"Content-Range": "bytes 0-4/50"}
        named = reply(206, {**span, "ETag": F}, NEW[:5])
        scripts = [
            [Recv(), Send(named)],
            [Recv(), Send(named[:-1])],
            serve(reply(206, span, NEW[:5])),
        ]
        download = into_memory(raw_server(scripts).url(), quick(), headers={"Range": "bytes=0-4"})
        assert content(download) == NEW[:5]
        assert download.etag == F
        assert content(download) == NEW[:5]
        assert download.etag is None

    def test_not_while_it_runs(self, file_server: Any) -> None:
        """An unfinished or failed run has no validators to remember."""
        server = file_server({"/a": File(OLD, etag=E)})
        download = HttpDownload(server.url("/a"), BufferWriter())
        seen: list[Any] = []
        download.register(Event.FETCHED, lambda event: seen.append(event.download.etag))
        download()
        assert (seen, download.etag) == ([None], E)
        server.faults = {1: Status(404)}
        failure(download)
        assert download.etag is None

    @pytest.mark.parametrize("name", ["known_etag", "known_last_modified"])
    @pytest.mark.parametrize("value", [5, "a\r\nX: y", "\u20ac", " a"])
    def test_what_cant_be_sent(self, file_server: Any, target: Path, name: str, value: Any) -> None:
        """A known validator that isn't a valid header value is refused by name before sending."""
        server = file_server({"/a": OLD})
        download = again(server.url("/a"), target, **{name: value})
        assert f"{name}: " in failure(download, DownloadFailed).reason
        assert server.count == 0
