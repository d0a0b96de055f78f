"""Tests of continuing from one source what another one brought: only where a digest decides."""

import gzip
import hashlib
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from http_tools import content, failure, into_memory, names, quick, record
from servers.files import CutAfter, Fault, File, FileServer, Status
from servers.message import Request
from servers.raw import chunked

from pulpcore.plugin.download.futures import (
    DigestMismatch,
    DigestValidation,
    DownloadFailed,
    Event,
    FileWriter,
    HttpDownload,
    SizeValidation,
    Validation,
    Writer,
)
from pulpcore.plugin.download.futures.engine.attempt import record_of
from pulpcore.plugin.download.futures.engine.run import Run

BODY = bytes(range(256)) * 32
OTHER = bytes(reversed(BODY))
CUT = 1000
REST = f"bytes={CUT}-"
FILE = File(BODY, etag='"e"')

Serve = Callable[..., FileServer]


def digest(body: bytes = BODY, enforced: bool = True) -> DigestValidation:
    """The validation of a digest."""
    return DigestValidation("sha256", hashlib.sha256(body).hexdigest(), enforced)


def cut(size: int = CUT) -> Callable[[int, Request], Fault]:
    """Cut each reply."""
    return lambda _number, _request: CutAfter(size)


def ranges(server: FileServer) -> list[str | None]:
    """Return the Range of each request."""
    return [request.header("Range") for request in server.requests]


def download_of(servers: Sequence[FileServer], *validations: Validation, **options: Any) -> Any:
    """Make a download into memory whose sources are these servers."""
    home, *mirrors = [server.url("/a") for server in servers]
    download = into_memory(home, mirrors=mirrors, **options)
    download.validations = list(validations) or [digest()]
    return download


class Own(DigestValidation):
    """A digest of the caller's, of whatever."""


class TestContinued:
    @pytest.mark.parametrize("at", [1, CUT, len(BODY) - 1])
    @pytest.mark.parametrize("etag", ['"e"', None])
    def test_cut(self, file_server: Serve, at: int, etag: str | None) -> None:
        """If a source breaks off anywhere, the next one continues, whatever its validator is."""
        home = file_server({"/a": File(BODY, etag=etag)}, faults=cut(at))
        mirror = file_server({"/a": File(BODY, etag='"other"')})
        download = download_of([home, mirror])
        events = record(download)
        assert content(download) == BODY
        assert ranges(mirror) == [f"bytes={at}-"]
        assert mirror.requests[0].header("If-Range") is None
        assert "RESTARTED" not in names(events)
        position = 0
        for event in events:
            if event.NAME == Event.FETCHED:
                assert event.offset == position
                position += len(event.buffer)
        assert position == len(BODY)
        assert [e.retrying for e in events if e.NAME == Event.ERROR] == [True]
        assert (download.source, download.etag) == (mirror.url("/a"), None)

    def test_several(self, file_server: Serve) -> None:
        """Three sources send a part each, and the first one then sends the rest."""
        home = file_server({"/a": FILE}, faults={0: CutAfter(CUT)})
        mirrors = [file_server({"/a": FILE}, faults=cut(500)) for _ in range(2)]
        assert content(download_of([home, *mirrors], retry=quick(1))) == BODY
        assert [ranges(each) for each in mirrors] == [["bytes=1000-"], ["bytes=1500-"]]
        assert ranges(home) == [None, "bytes=2000-"]
        assert home.requests[1].header("If-Range") is None

    def test_home_last(self, file_server: Serve) -> None:
        """If another source sent the beginning, its validators don't count as the URL's."""
        home = file_server({"/a": FILE}, faults={0: Status(503)})
        mirror = file_server({"/a": FILE}, faults=cut())
        download = download_of([home, mirror], retry=quick(1))
        assert content(download) == BODY
        assert ranges(home) == [None, REST]
        assert (download.source, download.etag) == (home.url("/a"), None)

    def test_missing(self, file_server: Serve) -> None:
        """A source that replies 404 doesn't discard the bytes of the first source."""
        home = file_server({"/a": FILE}, faults={0: CutAfter(CUT)})
        mirror = file_server({})
        download = download_of([home, mirror], retry=quick(1))
        assert content(download) == BODY
        assert ranges(mirror) == [REST, None]
        assert (ranges(home), home.requests[1].header("If-Range")) == ([None, REST], '"e"')
        assert download.etag == '"e"'

    def test_no_ranges(self, file_server: Serve) -> None:
        """A source that doesn't support ranges starts at byte 0."""
        home = file_server({"/a": FILE}, faults=cut())
        mirror = file_server({"/a": File(BODY, ranges=False)})
        download = download_of([home, mirror])
        events = record(download)
        assert content(download) == BODY
        assert (ranges(mirror), names(events).count("RESTARTED")) == ([REST], 1)

    def test_other_size(self, file_server: Serve) -> None:
        """A source with another file size doesn't continue; it is asked for its whole file."""
        home = file_server({"/a": FILE}, faults=cut())
        mirror = file_server({"/a": OTHER + b"more"})
        assert content(download_of([home, mirror], digest(OTHER + b"more"))) == OTHER + b"more"
        assert ranges(mirror) == [REST, None]

    def test_size_validation(self, file_server: Serve) -> None:
        """If the first source doesn't tell the size, an enforced size validation does."""
        coded = File(chunked(BODY, [100]), headers={"Transfer-Encoding": "chunked"})
        home, mirror = file_server({"/a": coded}, faults=cut()), file_server({"/a": FILE})
        assert content(download_of([home, mirror], digest(), SizeValidation(len(BODY)))) == BODY
        (asked,) = ranges(mirror)
        assert asked is not None
        assert 900 <= int(asked[6:-1]) < CUT

    def test_chunked_rest(self, file_server: Serve) -> None:
        """A rest of unknown length counts, but if it breaks off, the next source starts at 0."""
        headers = {"Transfer-Encoding": "chunked", "Content-Range": "bytes 1000-8191/8192"}
        rest = File(chunked(BODY[CUT:], [100]), status=206, headers=headers)
        home = file_server({"/a": FILE}, faults=cut())
        mirrors = [file_server({"/a": rest}, faults={0: CutAfter(500)}), file_server({"/a": FILE})]
        assert content(download_of([home, *mirrors])) == BODY
        assert [ranges(each) for each in mirrors] == [[REST], [None]]
        mirrors[0].faults = {}
        assert content(download_of([home, mirrors[0]])) == BODY


class TestMixedUp:
    def test_liar_first(self, file_server: Serve) -> None:
        """If the digest is wrong, the file is fetched once more, from the last source alone."""
        home, mirror = file_server({"/a": OTHER}, faults=cut()), file_server({"/a": FILE})
        download = download_of([home, mirror])
        events = record(download)
        assert content(download) == BODY
        assert (ranges(mirror), home.count) == ([REST, None], 1)
        assert names(events).count("RESTARTED") == 1
        errors = [event for event in events if event.NAME == Event.ERROR]
        assert [event.retrying for event in errors] == [True, True]
        assert isinstance(errors[1].error, DigestMismatch)
        assert (download.source, download.etag) == (mirror.url("/a"), None)

    def test_lie_that_was_not_fetched(self, file_server: Serve) -> None:
        """A source's wrong bytes do no harm if they lie behind those that it sent."""
        home = file_server({"/a": BODY[:5000] + OTHER[5000:]}, faults=cut())
        mirror = file_server({"/a": FILE})
        download = download_of([home, mirror])
        events = record(download)
        assert content(download) == BODY
        assert ranges(mirror) == [REST]
        assert "RESTARTED" not in names(events)

    def test_liar_second(self, file_server: Serve) -> None:
        """A source that is wrong alone, too, has failed. The run mixes no sources any more."""
        home = file_server({"/a": FILE}, faults=cut())
        liar = file_server({"/a": OTHER})
        third = file_server({"/a": FILE}, faults=cut())
        fourth = file_server({"/a": FILE})
        assert content(download_of([home, liar, third, fourth])) == BODY
        assert ranges(liar) == [REST, None]
        assert (ranges(third), ranges(fourth)) == ([None], [None])

    def test_once(self, file_server: Serve) -> None:
        """If the last source is wrong alone, too, the download fails, and the error names both."""
        home, liar = file_server({"/a": FILE}, faults=cut()), file_server({"/a": OTHER})
        error = failure(download_of([home, liar]), DownloadFailed)
        assert "all 2 sources" in error.reason
        assert (home.count, liar.count) == (1, 2)

    def test_retry_is_kept(self, file_server: Serve) -> None:
        """The second fetch spends neither a retry nor a repair."""
        home = file_server({"/a": OTHER}, faults={0: CutAfter(CUT)})
        mirror = file_server({"/a": FILE}, faults={1: Status(503)})
        download = download_of([home, mirror], retry=quick(1))
        download.retries = 0
        assert content(download) == BODY
        assert ranges(mirror) == [REST, None, None]

    def test_cancelled(self, file_server: Serve) -> None:
        """A cancelled run isn't fetched once more."""
        home, mirror = file_server({"/a": OTHER}, faults=cut()), file_server({"/a": FILE})
        download = download_of([home, mirror])

        def cancel(event: Any) -> None:
            run = record_of(download).run
            if isinstance(event.error, DigestMismatch):
                assert isinstance(run, Run)
                run.token.cancel("enough")

        download.register(Event.ERROR, cancel)
        failure(download)
        assert ranges(mirror) == [REST]


class TestNotContinued:
    @pytest.mark.parametrize(
        "validations",
        [
            [SizeValidation(len(BODY))],
            [digest(enforced=False)],
            [Own("sha256", digest().expected)],
        ],
        ids=["no digest", "not enforced", "another class"],
    )
    def test_no_digest(self, file_server: Serve, validations: list[Validation]) -> None:
        """Without an enforced digest of the whole file, the next source starts at byte 0."""
        home, mirror = file_server({"/a": FILE}, faults=cut()), file_server({"/a": FILE})
        assert content(download_of([home, mirror], *validations)) == BODY
        assert ranges(mirror) == [None]

    @pytest.mark.parametrize(
        "first",
        [
            File(chunked(BODY, [100]), headers={"Transfer-Encoding": "chunked"}),
            File(gzip.compress(BODY * 99, 0), content_encoding="gzip"),
        ],
        ids=["size unknown", "coded"],
    )
    def test_unknown(self, file_server: Serve, first: File) -> None:
        """A mirror doesn't continue a file of unknown size, or with a Content-Encoding."""
        home, mirror = file_server({"/a": first}, faults=cut()), file_server({"/a": FILE})
        assert content(download_of([home, mirror])) == BODY
        assert ranges(mirror) == [None]

    def test_sizes_differ(self, file_server: Serve) -> None:
        """A mirror doesn't continue a file whose size differs from the validated one."""
        home, mirror = file_server({"/a": FILE}, faults=cut()), file_server({"/a": FILE})
        failure(download_of([home, mirror], digest(), SizeValidation(len(BODY) + 1)))
        assert ranges(mirror) == [None]

    def test_own_range(self, file_server: Serve) -> None:
        """With a Range of the caller's, a mirror is asked for that range."""
        home, mirror = file_server({"/a": FILE}, faults=cut()), file_server({"/a": FILE})
        download = download_of([home, mirror], headers={"Range": "bytes=0-"})
        assert content(download) == BODY
        assert ranges(mirror) == ["bytes=0-"]

    def test_stream(self, file_server: Serve) -> None:
        """A mirror doesn't continue the content of a stream."""
        home, mirror = file_server({"/a": FILE}, faults=cut()), file_server({"/a": FILE})
        with download_of([home, mirror]).stream() as stream:
            assert stream.read() == BODY
        assert ranges(mirror) == [None]

    def test_append(self, file_server: Serve, tmp_path: Path) -> None:
        """Content behind other bytes in the caller's file is continued, and can restart, too."""
        home, liar = file_server({"/a": FILE}, faults=cut()), file_server({"/a": OTHER})
        third = file_server({"/a": FILE})
        (tmp_path / "a").write_bytes(b"before")
        download = download_of([home, liar, third])
        with (tmp_path / "a").open("ab") as file:
            download.writer = Writer(file)
            download()
        assert (tmp_path / "a").read_bytes() == b"before" + BODY
        assert [ranges(each) for each in (liar, third)] == [[REST, None], [None]]

    def test_skip_existing(self, file_server: Serve, tmp_path: Path) -> None:
        """A target with the content is kept; one without it is replaced by what two brought."""
        home, mirror = file_server({"/a": FILE}, faults=cut()), file_server({"/a": FILE})
        (tmp_path / "a").write_bytes(OTHER)
        for expected in ([REST], [REST]):
            download = download_of([home, mirror], digest(), SizeValidation(len(BODY)))
            download.writer, download.skip_existing = FileWriter(tmp_path / "a"), True
            download()
            assert (tmp_path / "a").read_bytes() == BODY
            assert ranges(mirror) == expected

    def test_query(self, file_server: Serve) -> None:
        """Two URLs that differ only in their query are two sources, so nothing is continued."""
        server = file_server({"/a": FILE}, faults={0: CutAfter(CUT)})
        download = into_memory(server.url("/a?m=1"), mirrors=[server.url("/a?m=2")])
        assert content(download) == BODY
        assert ranges(server) == [None, None]

    def test_complete(self, file_server: Serve) -> None:
        """If only the last chunk's end is missing, the mirror is asked for the whole file."""
        coded = File(chunked(BODY, end=b""), headers={"Transfer-Encoding": "chunked"})
        home = file_server({"/a": coded}, faults=cut(len(coded.body)))
        mirror = file_server({"/a": FILE})
        assert content(download_of([home, mirror], digest(), SizeValidation(len(BODY)))) == BODY
        assert ranges(mirror) == [None]


def file_of(folder: Path, servers: Sequence[FileServer]) -> Any:
    """Make a download into a file that resumes, whose sources are these servers."""
    download = download_of(servers)
    download.writer = FileWriter(folder / "a", resume=True)
    return download


def left_by(server: FileServer, path: Path) -> None:
    """Have a run leave a partial file of what a server cuts."""
    alone = HttpDownload(server.url("/a"), FileWriter(path, resume=True))
    alone.retry = None
    failure(alone)


PROGRAM = """
import os, signal, sys
from pulpcore.plugin.download.futures import DigestValidation, FileWriter, HttpDownload
home, mirror, path, digest = sys.argv[1:]
download = HttpDownload(home, FileWriter(path, resume=True), mirrors=[mirror])
download.validations.append(DigestValidation('sha256', digest))
def kill(event):
    if event.offset >= 1000:
        os.kill(os.getpid(), signal.SIGKILL)
download.register('FETCHED', kill)
download()
"""


class TestPartialFile:
    def test_killed(self, file_server: Serve, tmp_path: Path) -> None:
        """After kill -9, no note on disk claims that mixed bytes are a version of one source."""
        path = tmp_path / "a"
        home = file_server({"/a": File(OTHER, etag='"e"')}, faults={0: CutAfter(CUT)})
        mirror = file_server({"/a": FILE})
        urls = [home.url("/a"), mirror.url("/a")]
        command = [sys.executable, "-c", PROGRAM, *urls, str(path), digest().expected]
        assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
        assert ranges(mirror) == [REST]
        (left,) = tmp_path.glob("*.partial")
        assert left.stat().st_size > CUT
        HttpDownload(urls[0], FileWriter(path, resume=True))()
        assert path.read_bytes() == OTHER
        assert ranges(home) == [None, None]
        assert list(tmp_path.iterdir()) == [path]

    def test_failed(self, file_server: Serve, tmp_path: Path) -> None:
        """The mixed bytes of a failed run are continued by the next run."""
        home, mirror = (file_server({"/a": FILE}, faults=cut()) for _ in range(2))
        failure(file_of(tmp_path, [home, mirror]))
        assert ranges(mirror) == [REST]
        mirror.faults = {}
        file_of(tmp_path, [mirror, home])()
        assert (tmp_path / "a").read_bytes() == BODY
        assert (ranges(mirror)[1:], home.count) == (["bytes=2000-"], 1)
        assert mirror.requests[1].header("If-Range") is None
        assert list(tmp_path.iterdir()) == [tmp_path / "a"]

    def test_failed_with_a_lie(self, file_server: Serve, tmp_path: Path) -> None:
        """If the digest shows that mixed bytes don't fit, the file is fetched once more."""
        home = file_server({"/a": File(OTHER, etag='"e"')}, faults=cut())
        mirror = file_server({"/a": FILE}, faults=cut())
        failure(file_of(tmp_path, [home, mirror]))
        mirror.faults = {}
        download = file_of(tmp_path, [mirror, home])
        events = record(download)
        download()
        assert (tmp_path / "a").read_bytes() == BODY
        assert (ranges(mirror)[1:], home.count) == (["bytes=2000-", None], 1)
        assert [event.retrying for event in events if event.NAME == Event.ERROR] == [True]

    def test_last_one_lies(self, file_server: Serve, tmp_path: Path) -> None:
        """Wrong bytes that the last source sent alone are not kept."""
        home = file_server({"/a": FILE}, faults=cut())
        liar = file_server({"/a": File(OTHER, etag='"e"')})
        error = failure(file_of(tmp_path, [home, liar]))
        assert type(error) is DownloadFailed
        assert list(tmp_path.iterdir()) == []

    def test_failed_without_a_digest(self, file_server: Serve, tmp_path: Path) -> None:
        """A run without a digest, or without those sources, discards mixed bytes."""
        for count in (1, 2):
            home, mirror = (file_server({"/a": FILE}, faults=cut()) for _ in range(2))
            failure(file_of(tmp_path, [home, mirror]))
            home.faults = {}
            download = file_of(tmp_path, [home, mirror][:count])
            if count > 1:
                download.validations = [SizeValidation(len(BODY))]
            download()
            assert (tmp_path / "a").read_bytes() == BODY
            assert ranges(home) == [None, None]

    @pytest.mark.parametrize("note", ["[]", "7", "[7, 8192]", "no JSON"])
    def test_damaged_note(self, file_server: Serve, tmp_path: Path, note: str) -> None:
        """An invalid note is ignored."""
        home = file_server({"/a": FILE}, faults=cut())
        writer = FileWriter(tmp_path / "a", resume=True)
        writer.open()
        writer.remember(note)
        writer.append(OTHER[:CUT])
        writer.discard()
        home.faults = {}
        file_of(tmp_path, [home, home])()
        assert (tmp_path / "a").read_bytes() == BODY
        assert ranges(home) == [None]

    def test_earlier_run(self, file_server: Serve, tmp_path: Path) -> None:
        """A partial file of one source is continued by that source, and then by another one."""
        home, mirror = file_server({"/a": FILE}, faults=cut()), file_server({"/a": FILE})
        left_by(home, tmp_path / "a")
        download = file_of(tmp_path, [home, mirror])
        download()
        assert (tmp_path / "a").read_bytes() == BODY
        assert (ranges(home)[1:], ranges(mirror)) == ([REST], ["bytes=2000-"])

    def test_earlier_run_of_another(self, file_server: Serve, tmp_path: Path) -> None:
        """A partial file of one source is continued by the source that is asked first."""
        home, mirror = file_server({"/a": FILE}, faults=cut()), file_server({"/a": FILE})
        left_by(home, tmp_path / "a")
        download = file_of(tmp_path, [mirror, home])
        download()
        assert (tmp_path / "a").read_bytes() == BODY
        assert (ranges(mirror), home.count) == ([REST], 1)

    def test_earlier_run_that_lies(self, file_server: Serve, tmp_path: Path) -> None:
        """If a continued partial file is wrong, the last source is asked for the whole file."""
        home = file_server({"/a": File(OTHER, etag='"e"')}, faults=cut())
        mirror = file_server({"/a": FILE})
        left_by(home, tmp_path / "a")
        download = file_of(tmp_path, [mirror, home])
        download()
        assert (tmp_path / "a").read_bytes() == BODY
        assert (ranges(mirror), home.count) == ([REST, None], 1)

    @pytest.mark.parametrize(
        "validations",
        [
            [SizeValidation(len(BODY))],
            [digest(), SizeValidation(len(BODY), enforced=False), SizeValidation(len(BODY) + 1)],
        ],
        ids=["no digest", "another size"],
    )
    def test_earlier_run_alone(
        self, file_server: Serve, tmp_path: Path, validations: list[Validation]
    ) -> None:
        """Without a digest, or if sizes differ, another source's partial file isn't used."""
        home, mirror = file_server({"/a": FILE}, faults=cut()), file_server({"/a": FILE})
        left_by(home, tmp_path / "a")
        download = download_of([mirror, home], *validations, retry=None)
        download.writer = FileWriter(tmp_path / "a", resume=True)
        events = record(download)
        with suppress(DownloadFailed):  # the size that can't be
            download()
        assert ranges(mirror) == [None]
        assert names(events)[:3] == ["PREPARED", "SENT", "REPLIED"]
