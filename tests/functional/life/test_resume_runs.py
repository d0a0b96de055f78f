"""Tests of resuming in a later run, with ``FileWriter(path, resume=True)``."""

import contextlib
import hashlib
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from http_tools import failure, names, quick, record
from processes import program
from servers.files import CutAfter, File, FileServer, ResetAfter, StallAfter, Status
from servers.ftp import Cut
from servers.raw import Loop, Recv, Send, Signal, Wait, reply, serve

from pulpcore.plugin.download.futures import (
    Batch,
    DigestValidation,
    DownloadFailed,
    DownloadMonitor,
    Event,
    FileDownload,
    FileWriter,
    FtpDownload,
    HttpDownload,
    SizeValidation,
)
from pulpcore.plugin.download.futures.validation import DigestMismatch, SizeMismatch

SECONDS = 100
BODY = bytes(range(256)) * 2000
OTHER = BODY[::-1] + b"longer"
HALF = 200_000
SHA = hashlib.sha256(BODY).hexdigest()
TAG = '"v1"'
OLD_DATE = "Mon, 01 Jan 2024 00:00:00 GMT"

# A run in its own process, which reports its progress.
RUN = """
import sys
from pulpcore.plugin.download.futures import *
url, path, sha, resume = sys.argv[1:]
download = HttpDownload(url, FileWriter(path, resume=resume == "yes"))
download.validations.append(DigestValidation("sha256", sha))
download.register(Event.FETCHED, lambda event: print(download.position, flush=True))
download()
print("done", flush=True)
"""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return the path of the target."""
    return tmp_path / "out" / "file"


@pytest.fixture
def server(file_server: Any) -> FileServer:
    """Serve /a with ranges. The first response is cut in the middle."""
    server: FileServer = file_server({"/a": File(BODY, etag=TAG)}, faults={0: CutAfter(HALF)})
    return server


def make(server: Any, target: Path, path: str = "/a", **options: Any) -> HttpDownload:
    """Make a download that resumes, without validations and retries."""
    download = HttpDownload(server.url(path), FileWriter(target, resume=True), **options)
    download.retry = None
    return download


def beside(target: Path) -> list[str]:
    """Return what is in the folder beside the target."""
    if not target.parent.exists():
        return []
    return sorted(path.name for path in target.parent.iterdir() if path != target)


def kept(target: Path) -> tuple[Path, Path]:
    """Return the partial file and its note, which must exist alone."""
    note, partial = (target.parent / name for name in beside(target))
    assert (note.suffix, partial.suffix) == (".note", ".partial")
    return partial, note


def ranges(server: Any) -> list[str | None]:
    """Return the Range header of each request."""
    return [request.header("Range") for request in server.requests]


REST = f"bytes={HALF}-"


class TestKilled:
    @pytest.mark.parametrize("old", [None, b"old"])
    def test_next_run_goes_on(self, file_server: Any, target: Path, old: bytes | None) -> None:
        """After kill -9 the next run requests only the rest and validates the whole digest."""
        server = file_server({"/a": File(BODY, etag=TAG)}, faults={0: StallAfter(HALF)})
        if old is not None:
            target.parent.mkdir()
            target.write_bytes(old)
        _kill_in_the_middle(server, target)
        assert (target.read_bytes() if target.exists() else None) == old
        partial, note = kept(target)
        assert partial.read_bytes() == BODY[:HALF]
        assert stat.S_IMODE(note.stat().st_mode) == 0o600
        with program(RUN, server.url("/a"), target, SHA, "yes") as process:
            out, error = process.communicate(timeout=SECONDS)
        assert (process.returncode, error) == (0, "")
        assert out.endswith("done\n")
        assert target.read_bytes() == BODY
        assert beside(target) == []
        assert ranges(server) == [None, REST]
        assert server.requests[1].header("If-Range") == TAG

    def test_again_and_again(self, file_server: Any, target: Path) -> None:
        """After two kills the third run resumes where the second stopped."""
        server = file_server(
            {"/a": File(BODY, etag=TAG)}, faults={0: StallAfter(HALF), 1: StallAfter(100_000)}
        )
        _kill_in_the_middle(server, target)
        _kill_in_the_middle(server, target, HALF + 100_000)
        download = make(server, target)
        download.validations.append(DigestValidation("sha256", SHA))
        download()
        assert target.read_bytes() == BODY
        assert ranges(server) == [None, REST, f"bytes={HALF + 100_000}-"]

    def test_off_by_default(self, file_server: Any, target: Path) -> None:
        """Without ``resume`` the file of a killed run isn't resumed but downloaded whole."""
        server = file_server({"/a": File(BODY, etag=TAG)}, faults={0: StallAfter(HALF)})
        _kill_in_the_middle(server, target, resume="no")
        HttpDownload(server.url("/a"), FileWriter(target))()
        make(server, target)()
        assert target.read_bytes() == BODY
        assert ranges(server) == [None] * 3


class TestFailed:
    @pytest.mark.parametrize("fault", [CutAfter(HALF), ResetAfter(HALF)], ids=["cut", "reset"])
    @pytest.mark.parametrize(
        ("file", "condition"),
        [
            (File(BODY, etag=TAG), TAG),
            (File(BODY, last_modified=OLD_DATE), OLD_DATE),
            (File(BODY, etag=TAG, last_modified=OLD_DATE), TAG),
        ],
        ids=["etag", "date", "both"],
    )
    def test_next_run_goes_on(
        self, file_server: Any, target: Path, file: File, condition: str, fault: Any, no_leaks: None
    ) -> None:
        """A failed run keeps its partial file, and the next run requests the rest."""
        server = file_server({"/a": file}, faults={0: fault})
        failure(make(server, target), DownloadFailed)
        assert not target.exists()
        partial, _ = kept(target)
        assert BODY.startswith(partial.read_bytes())
        size = partial.stat().st_size
        download = make(server, target)
        download.validations += [DigestValidation("sha256", SHA), SizeValidation(len(BODY))]
        download()
        assert target.read_bytes() == BODY
        assert beside(target) == []
        assert ranges(server) == [None, f"bytes={size}-" if size else None]
        assert server.requests[1].header("If-Range") == (condition if size else None)

    def test_same_object(self, server: FileServer, target: Path) -> None:
        """Calling the same download again resumes its partial file, too."""
        download = make(server, target)
        download.validations.append(DigestValidation("sha256", SHA))
        failure(download, DownloadFailed)
        download()
        assert target.read_bytes() == BODY
        assert ranges(server) == [None, REST]

    def test_within_a_run_too(self, file_server: Any, target: Path) -> None:
        """A run that resumed a partial file can itself be cut and resume."""
        server = file_server(
            {"/a": File(BODY, etag=TAG)}, faults={0: CutAfter(HALF), 1: CutAfter(100_000)}
        )
        failure(make(server, target), DownloadFailed)
        download = make(server, target)
        download.retry = quick()
        download()
        assert target.read_bytes() == BODY
        assert ranges(server) == [None, REST, f"bytes={HALF + 100_000}-"]

    def test_run_without_a_reply(self, server: FileServer, target: Path) -> None:
        """A run that reaches no server keeps the existing partial file."""
        failure(make(server, target), DownloadFailed)
        server.faults = {1: Status(503), 2: CutAfter(0, whole=True)}
        for _ in range(2):
            failure(make(server, target), DownloadFailed)
        assert kept(target)[0].read_bytes() == BODY[:HALF]
        make(server, target)()
        assert target.read_bytes() == BODY
        assert ranges(server) == [None, REST, REST, REST]

    def test_shutdown(self, file_server: Any, target: Path) -> None:
        """A download stopped by a shutdown keeps its partial file for the next run."""
        server = file_server({"/a": File(BODY, etag=TAG)}, faults={0: StallAfter(HALF)})
        download = make(server, target)
        fetched = threading.Event()
        download.register(
            Event.FETCHED, lambda _: fetched.set() if download.position == HALF else None
        )
        with Batch([download]) as batch:
            plans = batch()
            stopper = threading.Thread(target=lambda: (fetched.wait(SECONDS), batch.shutdown()))
            stopper.start()
            assert "shut down" in str(next(plans).error)
            stopper.join(SECONDS)
        assert kept(target)[0].read_bytes() == BODY[:HALF]
        make(server, target)()
        assert target.read_bytes() == BODY

    def test_success(self, file_server: Any, target: Path) -> None:
        """A run that succeeds at once leaves no partial file."""
        server = file_server({"/a": File(BODY, etag=TAG)})
        make(server, target)()
        assert target.read_bytes() == BODY
        assert beside(target) == []

    def test_mode_of_the_old_file(self, server: FileServer, target: Path) -> None:
        """A resumed download keeps the permissions of the existing file."""
        target.parent.mkdir()
        target.write_bytes(b"old")
        target.chmod(0o640)
        failure(make(server, target), DownloadFailed)
        assert target.read_bytes() == b"old"
        make(server, target)()
        assert target.read_bytes() == BODY
        assert stat.S_IMODE(target.stat().st_mode) == 0o640


class TestEvents:
    def test_monitor_and_events(self, server: FileServer, target: Path) -> None:
        """Validations, monitors and handlers of a resumed run see the whole content once."""
        failure(make(server, target), DownloadFailed)
        download = make(server, target)
        monitor = DownloadMonitor(download)
        events = record(download)
        seen = bytearray()

        def look(event: Any) -> None:
            assert event.offset == len(seen)
            seen.extend(event.buffer)

        download.register(Event.FETCHED, look)
        download()
        assert bytes(seen) == BODY
        assert monitor.facts()["sha256"] == SHA
        assert monitor.facts()["size"] == len(BODY)
        assert names(events).count(Event.RESTARTED) == 0
        assert names(events)[-1] == Event.SUCCEEDED
        assert (download.position, download.expected_size) == (len(BODY), len(BODY))

    def test_restarted(self, file_server: Any, target: Path) -> None:
        """If resuming turns out to be impossible, validations and handlers see a restart."""
        files = {"/a": File(BODY, etag=TAG)}
        server = file_server(files, faults={0: CutAfter(HALF)})
        failure(make(server, target), DownloadFailed)
        files["/a"] = File(OTHER, etag='"v2"')
        download = make(server, target)
        monitor = DownloadMonitor(download)
        download.validations += [
            DigestValidation("sha256", hashlib.sha256(OTHER).hexdigest()),
            SizeValidation(len(OTHER)),
        ]
        events = record(download)
        download()
        assert target.read_bytes() == OTHER
        assert monitor.facts()["sha256"] == hashlib.sha256(OTHER).hexdigest()
        assert names(events).count(Event.RESTARTED) == 1
        assert beside(target) == []

    def test_error_tells(self, server: FileServer, target: Path) -> None:
        """An error of a resumed run counts the partial file as received bytes."""
        failure(make(server, target), DownloadFailed)
        server.faults = {1: CutAfter(1000)}
        error = failure(make(server, target), DownloadFailed)
        assert f"received {HALF + 1000} of {len(BODY)} bytes" in str(error)


def _part(first: int, tag: str = TAG) -> bytes:
    """Make a response with the rest of a file of the same size."""
    part = f"bytes {first}-{len(BODY) - 1}/{len(BODY)}"
    return reply(206, {"ETag": tag, "Content-Range": part}, OTHER[first : len(BODY)])


class TestServer:
    """The server changes between two runs."""

    def test_changed(self, file_server: Any, target: Path) -> None:
        """A file that changed between two runs is downloaded whole and never mixed."""
        files = {"/a": File(BODY, etag=TAG)}
        server = file_server(files, faults={0: CutAfter(HALF)})
        failure(make(server, target), DownloadFailed)
        files["/a"] = File(OTHER, etag='"v2"')
        make(server, target)()
        assert target.read_bytes() == OTHER
        assert ranges(server) == [None, REST]

    def test_changed_and_cut(self, file_server: Any, target: Path) -> None:
        """If the new version is cut, the partial file that stays is of the new version."""
        files = {"/a": File(BODY, etag=TAG)}
        server = file_server(files, faults={0: CutAfter(HALF), 1: CutAfter(1000)})
        failure(make(server, target), DownloadFailed)
        files["/a"] = File(OTHER, etag='"v2"')
        failure(make(server, target), DownloadFailed)
        assert kept(target)[0].read_bytes() == OTHER[:1000]
        make(server, target)()
        assert target.read_bytes() == OTHER
        assert server.requests[2].header("If-Range") == '"v2"'

    @pytest.mark.parametrize("change", ["method", "range", "coding"])
    def test_other_request(self, file_server: Any, target: Path, change: str) -> None:
        """A partial file isn't resumed by a request with other headers."""
        server = file_server({"/a": File(BODY, etag=TAG)}, faults={0: CutAfter(HALF)})
        failure(make(server, target), DownloadFailed)
        download = make(server, target)
        if change == "method":
            download.method = "HEAD"
        else:
            download.headers[{"range": "Range", "coding": "Accept-Encoding"}[change]] = {
                "range": "bytes=0-",
                "coding": "identity",
            }[change]
        download()
        assert server.requests[1].header("If-Range") is None
        assert download.position == (0 if change == "method" else len(BODY))

    def test_no_ranges(self, file_server: Any, target: Path) -> None:
        """If the server ignores the range, the file is downloaded whole and correctly."""
        server = file_server({"/a": File(BODY, etag=TAG, ranges=False)}, faults={0: CutAfter(HALF)})
        failure(make(server, target), DownloadFailed)
        make(server, target)()
        assert target.read_bytes() == BODY
        assert beside(target) == []

    @pytest.mark.parametrize(
        "answer",
        [
            reply(416, {"Content-Range": "bytes */1000"}),
            reply(416),
            _part(HALF, '"v2"'),
            _part(0),
            reply(206, {"ETag": TAG}, b"evil"),
            _part(HALF + 1),
        ],
        ids=["shorter now", "shorter", "other version", "other part", "no part", "a gap"],
    )
    @pytest.mark.parametrize("tries", [0, 3])
    def test_odd_answers(self, raw_server: Any, target: Path, answer: bytes, tries: int) -> None:
        """Any unexpected response to the range leads to a download from 0 in one attempt."""
        whole = reply(headers={"ETag": TAG}, body=BODY)
        server = raw_server(
            [
                [Recv(), Send(whole[: HALF - len(BODY)])],
                serve(lambda request: answer if request.header("Range") else whole),
            ]
        )
        failure(make(server, target), DownloadFailed)
        download = make(server, target)
        download.retry = quick(total=tries)
        download.validations.append(DigestValidation("sha256", SHA))
        download()
        assert target.read_bytes() == BODY
        assert beside(target) == []

    def test_all_of_it_is_here(self, server: FileServer, target: Path) -> None:
        """If a run is killed when all bytes have arrived, the next run completes the file."""
        failure(make(server, target), DownloadFailed)
        with kept(target)[0].open("ab") as file:
            file.write(BODY[HALF:])
        # Without a retry one run may fail to find out.
        with contextlib.suppress(DownloadFailed):
            make(server, target)()
        if not target.exists():
            make(server, target)()
        assert target.read_bytes() == BODY
        assert beside(target) == []


class TestNothingKept:
    @pytest.mark.parametrize(
        "file",
        [
            File(BODY),
            File(BODY, etag='W/"1"'),
            File(BODY, etag='W/"1"', last_modified=OLD_DATE),
            File(BODY, etag="no quotes"),
            File(BODY, last_modified=OLD_DATE, headers={"Date": OLD_DATE}),
            File(BODY, last_modified="yesterday"),
            File(BODY, content_encoding="gzip"),
        ],
        ids=["none", "weak", "weak and a date", "malformed", "just now", "no date", "no coding"],
    )
    def test_no_strong_validator(self, file_server: Any, target: Path, file: File) -> None:
        """Without a strong validator no partial file is kept."""
        server = file_server({"/a": file}, faults={0: CutAfter(HALF)})
        failure(make(server, target), DownloadFailed)
        assert beside(target) == []

    @pytest.mark.parametrize("headers", [{"Range": "bytes=5-"}, {"Accept-Encoding": "gzip"}])
    def test_own_headers(self, server: FileServer, target: Path, headers: dict[str, str]) -> None:
        """A download with the caller's own Range or Accept-Encoding keeps no partial file."""
        failure(make(server, target, headers=headers), DownloadFailed)
        assert beside(target) == []

    @pytest.mark.parametrize(
        ("validation", "kind"),
        [
            (DigestValidation("sha256", "0" * 64), DigestMismatch),
            (SizeValidation(1000), SizeMismatch),
            (SizeValidation(len(BODY) + 1), SizeMismatch),
        ],
    )
    def test_mismatch(self, file_server: Any, target: Path, validation: Any, kind: Any) -> None:
        """Content that fails a validation is deleted instead of kept."""
        server = file_server({"/a": File(BODY, etag=TAG)})
        download = make(server, target)
        download.validations.append(validation)
        failure(download, kind)
        assert not target.exists()
        assert beside(target) == []

    def test_mismatch_after_going_on(self, server: FileServer, target: Path) -> None:
        """A manipulated partial file that looks unchanged fails the digest, and is deleted."""
        failure(make(server, target), DownloadFailed)
        partial = kept(target)[0]
        before = partial.stat()
        with partial.open("r+b") as file:
            file.write(b"tampered")
        os.utime(partial, ns=(before.st_atime_ns, before.st_mtime_ns))
        download = make(server, target)
        download.validations.append(DigestValidation("sha256", SHA))
        failure(download, DigestMismatch)
        assert beside(target) == []
        download()
        assert target.read_bytes() == BODY

    def test_too_long_already(self, server: FileServer, target: Path) -> None:
        """A partial file longer than the expected size isn't resumed."""
        failure(make(server, target), DownloadFailed)
        with kept(target)[0].open("ab") as file:
            file.write(BODY * 2)
        download = make(server, target)
        download.validations.append(SizeValidation(len(BODY)))
        download()
        assert target.read_bytes() == BODY
        assert ranges(server) == [None, None]

    @pytest.mark.parametrize("kind", ["file", "ftp"])
    def test_other_protocols(
        self, ftp_server: Any, tmp_path: Path, target: Path, kind: str
    ) -> None:
        """Local files and recent FTP files have no sure version, so nothing is kept."""
        source = tmp_path / "served"
        source.mkdir()
        (source / "a").write_bytes(BODY)
        url = f"file://{source}/a"
        server = None
        if kind == "ftp":
            server = ftp_server(source, cuts={0: Cut(HALF)})
            url = server.url("/a")
        cls = FtpDownload if server else FileDownload
        download = cls(url, FileWriter(target, resume=True))
        download.retry = None
        if server:
            failure(download, DownloadFailed)
            assert beside(target) == []
        download()
        assert target.read_bytes() == BODY

    def test_head(self, server: FileServer, target: Path) -> None:
        """A HEAD request neither reads nor changes a partial file."""
        failure(make(server, target), DownloadFailed)
        make(server, target, method="HEAD")()
        assert kept(target)[0].read_bytes() == BODY[:HALF]

    def test_default(self, server: FileServer, target: Path) -> None:
        """Without ``resume`` no partial file is kept or used."""
        assert FileWriter(target).resume is False
        failure(make(server, target), DownloadFailed)
        before = beside(target)
        server.faults = {1: CutAfter(HALF)}
        download = HttpDownload(server.url("/a"), FileWriter(target))
        download.retry = None
        failure(download, DownloadFailed)
        assert ranges(server) == [None, None]
        assert beside(target) == before


class TestForeign:
    def test_other_url(self, file_server: Any, target: Path) -> None:
        """A partial file of one URL isn't resumed for another, whatever its validator."""
        server = file_server(
            {"/a": File(OTHER, etag=TAG), "/b": File(BODY, etag=TAG)}, faults={0: CutAfter(HALF)}
        )
        failure(make(server, target), DownloadFailed)
        make(server, target, "/b")()
        assert target.read_bytes() == BODY
        assert ranges(server) == [None, None]

    def test_other_target(self, server: FileServer, target: Path) -> None:
        """A partial file of one target isn't used for another target."""
        failure(make(server, target), DownloadFailed)
        other = target.with_name("other")
        make(server, other)()
        assert other.read_bytes() == BODY
        assert ranges(server) == [None, None]
        make(server, target)()
        assert ranges(server) == [None, None, REST]

    @pytest.mark.parametrize(
        "version",
        [
            "",
            '"a"\r\nEvil: 1',
            '"\u2028"',
            "\x00",
            'W/"1"',
            "no quotes",
            "None",
            '"' + "x" * 4000 + '"',
        ],
    )
    def test_tampered_note(self, server: FileServer, target: Path, version: str) -> None:
        """A note with an invalid version is deleted, and nothing of it is sent to the server."""
        failure(make(server, target), DownloadFailed)
        _, note = kept(target)
        content = json.loads(note.read_text())
        validator = json.dumps(TAG)[1:-1]
        assert content["note"].count(validator) == 1
        tampered = content["note"].replace(validator, json.dumps(version)[1:-1])
        note.write_text(json.dumps(content | {"note": tampered}))
        make(server, target)()
        assert target.read_bytes() == BODY
        assert beside(target) == []
        assert ranges(server) == [None, None]

    @pytest.mark.parametrize(
        "content", [b"", b"\xff\x00garbage", b"[" * 4096, b"{}", b'{"kind": 1}', b"x" * 100_000]
    )
    def test_garbage(self, server: FileServer, target: Path, content: bytes) -> None:
        """An unreadable note is deleted, and the file is downloaded whole."""
        failure(make(server, target), DownloadFailed)
        kept(target)[1].write_bytes(content)
        make(server, target)()
        assert target.read_bytes() == BODY
        assert beside(target) == []
        assert ranges(server) == [None, None]

    def test_link(self, server: FileServer, target: Path, tmp_path: Path) -> None:
        """A symbolic link in place of the partial file is replaced, and its target stays."""
        failure(make(server, target), DownloadFailed)
        partial, _ = kept(target)
        partial.rename(tmp_path / "elsewhere")
        partial.symlink_to(tmp_path / "elsewhere")
        make(server, target)()
        assert target.read_bytes() == BODY
        assert not target.is_symlink()
        assert (tmp_path / "elsewhere").read_bytes() == BODY[:HALF]
        assert ranges(server) == [None, None]

    @pytest.mark.parametrize("which", [0, 1], ids=["partial", "note"])
    def test_folder(self, server: FileServer, target: Path, which: int) -> None:
        """If a folder takes the place of the partial file, the download succeeds without it."""
        failure(make(server, target), DownloadFailed)
        path = kept(target)[which]
        path.unlink()
        path.mkdir()
        make(server, target)()
        assert target.read_bytes() == BODY
        assert ranges(server) == [None, None]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
    def test_other_owner(self, server: FileServer, target: Path) -> None:
        """A partial file owned by another user is deleted."""
        failure(make(server, target), DownloadFailed)
        os.chown(kept(target)[0], 65534, 65534)
        make(server, target)()
        assert target.read_bytes() == BODY
        assert target.stat().st_uid == 0
        assert ranges(server) == [None, None]

    def test_no_secret(self, server: FileServer, target: Path) -> None:
        """The partial file's name and note contain neither the URL nor a token of it."""
        failure(make(server, target, "/a?token=SECRET"), DownloadFailed)
        text = kept(target)[1].read_text()
        assert "SECRET" not in text
        assert "/a" not in text
        make(server, target, "/a?token=SECRET")()
        assert ranges(server) == [None, REST]


class TestTwoAtOnce:
    @pytest.mark.parametrize("where", ["process", "thread"])
    def test_both_succeed(self, raw_server: Any, target: Path, where: str) -> None:
        """Two simultaneous runs for one target both succeed and leave only the complete file."""
        whole = reply(headers={"ETag": TAG}, body=BODY)
        first = whole[: HALF - len(BODY)]
        half, go_on = threading.Event(), threading.Event()
        server = raw_server(
            [
                [Recv(), Send(first), Signal(half), Wait(go_on), Send(BODY[HALF:])],
                [Loop([Recv(), Send(whole)])],
            ]
        )
        with contextlib.ExitStack() as stack:
            if where == "process":
                process = stack.enter_context(program(RUN, server.url(), target, SHA, "yes"))
                while int(process.stdout.readline()) < HALF:
                    pass
            else:
                other = make(server, target, "/")
                thread = threading.Thread(target=other)
                thread.start()
                assert half.wait(SECONDS)
            download = make(server, target, "/")
            download()
            assert target.read_bytes() == BODY
            target.unlink()
            go_on.set()
            if where == "process":
                _, error = process.communicate(timeout=SECONDS)
                assert (process.returncode, error) == (0, "")
            else:
                thread.join(SECONDS)
        assert target.read_bytes() == BODY
        assert beside(target) == []
        assert ranges(server) == [None, None]

    def test_many(self, file_server: Any, target: Path) -> None:
        """Many downloads to one target at once leave one complete file of one version."""
        files = {f"/{n}": File(bytes([n]) * 50_000, etag=TAG) for n in range(30)}
        server = file_server(files, faults=lambda n, _: CutAfter(20_000) if n % 7 == 0 else None)
        downloads = [make(server, target, path) for path in files]
        for download in downloads:
            download.retry = quick(total=10)
        with Batch(downloads, concurrent=8) as batch:
            errors = [plan.error for plan in batch() if plan.error]
        assert errors == []
        content = target.read_bytes()
        assert len(content) == 50_000
        assert len(set(content)) == 1
        assert beside(target) == []


def _kill_in_the_middle(
    server: FileServer, target: Path, position: int = HALF, resume: str = "yes"
) -> None:
    with program(RUN, server.url("/a"), target, SHA, resume) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < position:
            pass
        process.kill()
        process.communicate(timeout=SECONDS)


@pytest.mark.parametrize("when", ["open", "publish"])
def test_repaired(file_server: Any, target: Path, monkeypatch: Any, when: str) -> None:
    """After a handler's repair, the partial file isn't written twice."""
    server = file_server({"/a": File(BODY, etag=TAG)}, faults={0: CutAfter(HALF)})
    failure(make(server, target), DownloadFailed)
    download = make(server, target)
    download.validations.append(DigestValidation("sha256", SHA))

    def repair(event: Any) -> None:
        target.rmdir()
        event.repaired = True

    if when == "open":
        target.mkdir()
    else:
        download.register(Event.REPLIED, lambda _: target.exists() or target.mkdir())
    download.register(Event.ERROR, repair)
    if when == "publish":
        # The next attempt is answered, too, so nothing gets in its way.
        download.register(Event.ERROR, lambda _: download.router.clear())
    download()
    assert target.read_bytes() == BODY
    assert beside(target) == []
