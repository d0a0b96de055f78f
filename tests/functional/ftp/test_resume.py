"""Tests that FtpDownload resumes an interrupted transfer when that is safe, and else restarts."""

import hashlib
import os
import random
import time

import pytest
from http_tools import failure, names, quick, record
from servers.ftp import Cut
from servers.raw import Close, RawServer, Read, Send

from pulpcore.plugin.download.futures import (
    BufferWriter,
    DigestValidation,
    DownloadFailed,
    DownloadMonitor,
    Event,
    FileWriter,
    FtpDownload,
    SizeValidation,
    User,
    Validation,
)
from pulpcore.plugin.download.futures.ftp import version

CONTENT = random.Random(1).randbytes(1_000_000)
OTHER = random.Random(2).randbytes(1_000_000)
SHA = hashlib.sha256(CONTENT).hexdigest()
DAY = 24 * 3600
HALF = 500_000
# The server reports success, so only the size shows that the transfer was cut. All bytes sent have
# arrived.
CUT = Cut(HALF, claim=True)


def put(path, content, age=3 * DAY):
    """Write a new file whose modification time is so many seconds ago."""
    beside = path.with_name("beside")
    beside.write_bytes(content)
    os.utime(beside, (time.time() - age,) * 2)
    beside.replace(path)


@pytest.fixture
def folder(tmp_path):
    """Create the served folder with a file that is days old."""
    folder = tmp_path / "served"
    folder.mkdir()
    put(folder / "file", CONTENT)
    return folder


@pytest.fixture
def target(tmp_path):
    """Return the path of the target."""
    path = tmp_path / "out" / "target"
    path.parent.mkdir()
    return path


def into_memory(server, total=3):
    """Make a download into memory with so many retries without delay."""
    download = FtpDownload(server.url("/file"), BufferWriter())
    download.retry = quick(total)
    return download


def rests(server):
    """Return the offsets of the REST commands that the server got."""
    return [int(argument) for _, argument in server.told("REST")]


def restarts(events):
    """Count how often the download restarted."""
    return names(events).count(Event.RESTARTED)


class TestWithinARun:
    def test_goes_on(self, ftp_server, folder, no_leaks):
        """A retried FTP transfer resumes, and handlers and validations see each byte once."""
        server = ftp_server(folder, cuts={0: CUT, 1: Cut(1), 2: Cut(100_000, claim=True)})
        download = into_memory(server)
        download.validations += [SizeValidation(len(CONTENT)), DigestValidation("sha256", SHA)]
        monitor = DownloadMonitor(download)
        events = record(download)
        broken, offsets = [], []
        download.register(Event.ERROR, lambda _: broken.append(download.position))
        download.register(Event.FETCHED, lambda event: offsets.append(event.offset))
        download()
        assert download.writer.getvalue() == CONTENT
        assert monitor.facts()["size"] == len(CONTENT)
        assert broken[0] == HALF
        assert rests(server) == broken
        assert len(broken) == 3
        assert restarts(events) == 0
        assert offsets == sorted(offsets)
        assert download.expected_size == len(CONTENT)

    def test_only_the_end_was_missing(self, ftp_server, folder):
        """If only the final FTP reply was lost, the content isn't sent again."""
        server = ftp_server(folder, cuts={0: Cut(len(CONTENT))})
        download = into_memory(server)
        broken = []
        download.register(Event.ERROR, lambda _: broken.append(download.position))
        download()
        assert download.writer.getvalue() == CONTENT
        assert rests(server) == broken

    @pytest.mark.parametrize(
        ("content", "age"),
        [(OTHER, 2 * DAY), (OTHER, 4 * DAY), (OTHER + b"x", 3 * DAY), (OTHER[:400_000], 3 * DAY)],
        ids=["newer", "older", "longer", "shorter than what is here"],
    )
    def test_changed(self, ftp_server, folder, content, age):
        """A file that changed before the FTP retry is downloaded from the beginning."""
        server = ftp_server(folder, cuts={0: CUT})
        stamp = (folder / "file").stat()
        download = into_memory(server)
        events = record(download)

        def change(_):
            put(folder / "file", content, age)
            if age == 3 * DAY:
                os.utime(folder / "file", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

        download.register(Event.ERROR, change)
        download()
        assert download.writer.getvalue() == content
        assert rests(server) == []
        assert restarts(events) == 1

    @pytest.mark.parametrize("command", ["MDTM", "RETR"])
    def test_changed_in_between(self, ftp_server, folder, command):
        """An FTP file that changes between the version check and RETR is downloaded whole."""
        server = ftp_server(folder, cuts={0: CUT})
        download = into_memory(server)
        events = record(download)

        def change(_):
            server.before = {command: lambda: put(folder / "file", OTHER, 2 * DAY)}

        download.register(Event.ERROR, lambda event: events.count(event) == 1 and change(event))
        download()
        assert download.writer.getvalue() == OTHER
        assert restarts(events) == 1

    @pytest.mark.parametrize("unknown", ["MDTM", "SIZE"])
    def test_no_version(self, ftp_server, folder, unknown):
        """If the FTP server reports no modification time, the file is downloaded whole."""
        server = ftp_server(folder, cuts={0: Cut(HALF)}, unknown={unknown})
        download = into_memory(server)
        events = record(download)
        download()
        assert download.writer.getvalue() == CONTENT
        assert rests(server) == []
        assert restarts(events) == 1

    def test_no_version_any_more(self, ftp_server, folder):
        """If the FTP server stops reporting the modification time, the file is downloaded whole."""
        server = ftp_server(folder, cuts={0: CUT})
        download = into_memory(server)

        def hide(_):
            server.before = {"SIZE": lambda: (folder / "file").rename(folder / "hidden")}
            server.before["MDTM"] = server.before["RETR"] = lambda: None
            server.before["PASV"] = lambda: (folder / "hidden").rename(folder / "file")

        download.register(Event.ERROR, hide)
        download()
        assert download.writer.getvalue() == CONTENT
        assert rests(server) == []

    def test_no_rest(self, ftp_server, folder):
        """If the FTP server doesn't support REST, the file is downloaded whole at once."""
        server = ftp_server(folder, cuts={0: CUT}, unknown={"REST"})
        download = into_memory(server, 1)
        events = record(download)
        download()
        assert download.writer.getvalue() == CONTENT
        assert restarts(events) == 1
        assert server.connections == 2

    def test_new_file(self, ftp_server, folder, monkeypatch):
        """An FTP file modified within this second isn't resumed, as it may change again."""
        monkeypatch.setattr(version, "_SECONDS", 1e9)
        put(folder / "file", CONTENT, 0)
        server = ftp_server(folder, cuts={0: CUT, 1: CUT})
        download = into_memory(server)
        events = record(download)
        download()
        assert download.writer.getvalue() == CONTENT
        assert rests(server) == []
        assert restarts(events) == 2

    def test_new_file_that_was_seen_before(self, ftp_server, folder, monkeypatch):
        """A recent FTP file resumes if it was seen unchanged seconds before."""
        monkeypatch.setattr(version, "_SECONDS", 0)
        put(folder / "file", CONTENT, 0)
        server = ftp_server(folder, cuts={0: CUT, 1: CUT})
        download = into_memory(server)
        events = record(download)
        download()
        assert download.writer.getvalue() == CONTENT
        assert rests(server) == [HALF]
        assert restarts(events) == 1

    def test_small_file(self, ftp_server, folder):
        """The modification time of a small FTP file isn't requested."""
        content = CONTENT[: FtpDownload.BLOCK]
        put(folder / "file", content)
        server = ftp_server(folder, cuts={0: Cut(9, claim=True)})
        download = into_memory(server)
        download()
        assert download.writer.getvalue() == content
        assert server.told("MDTM", "REST") == []

    @pytest.mark.parametrize("changes", [False, True])
    def test_what_cant_be_started_again(self, ftp_server, folder, changes):
        """FTP to a writer that can't restart resumes, or fails with an error that says so."""

        class Count(Validation):
            seen = 0

            def update(self, buffer):
                self.seen += len(buffer)

            def apply(self):
                assert self.seen == len(CONTENT)

        server = ftp_server(folder, cuts={0: CUT})
        download = into_memory(server)
        download.validations.append(Count())
        if changes:
            download.register(Event.ERROR, lambda _: put(folder / "file", OTHER, 2 * DAY))
            assert "can't be started again" in failure(download, DownloadFailed).reason
        else:
            download()
            assert download.writer.getvalue() == CONTENT

    def test_other_user(self, ftp_server, folder):
        """If the FTP user changes before a retry, the file is downloaded whole.

        FTP paths are relative to the user, so the path may now name another file.
        """
        server = ftp_server(folder, users={"me": "", "you": ""}, cuts={0: CUT})
        download = into_memory(server)
        download.user = User("me")
        download.register(Event.ERROR, lambda _: setattr(download, "user", User("you")))
        download()
        assert download.writer.getvalue() == CONTENT
        assert rests(server) == []


SIZE = 400_000
BODY = CONTENT[:SIZE]


def conversation(*commands):
    """Make the steps that answer commands in order."""
    steps = [Send(b"220 welcome\r\n")]
    for name, answer in (("USER", b"230 hello"), ("TYPE", b"200 yes"), *commands):
        steps += [Read(until=name.encode()), Read(until=b"\r\n"), Send(answer + b"\r\n")]
    return steps


def passive(data):
    """Make the answer that names the port of a data server."""
    return ("PASV", b"227 there (127,0,0,1,%d,%d)" % divmod(data.port, 256))


VERSION = (("SIZE", b"213 %d" % SIZE), ("MDTM", b"213 20200101000000"))


class TestScripts:
    """FTP servers that don't do what they say."""

    @pytest.mark.parametrize(
        "refusal",
        [
            [("REST", b"200 whatever")],
            [("REST", b"502 no such thing")],
            [("REST", b"350 well"), ("RETR", b"554 not there")],
        ],
        ids=["strange", "refused", "refused late"],
    )
    def test_refused(self, raw_server, running, refusal):
        """FTP resumes only if REST gets 350 and RETR is accepted. Otherwise it downloads all."""
        data = running(RawServer, [[Send(BODY[:9])], [], [Send(BODY)]])
        whole = (passive(data), ("RETR", b"150 here\r\n226 done"))
        server = raw_server(
            [
                conversation(*VERSION, *whole),
                conversation(*VERSION, passive(data), *refusal, *whole),
            ]
        )
        download = FtpDownload(f"ftp://{server.host}/file", BufferWriter())
        download.retry = quick(1)
        download()
        assert download.writer.getvalue() == BODY
        assert server.connections == 2

    def test_rest_that_does_nothing(self, raw_server, running):
        """An FTP server that accepts REST but sends from 0 is detected in time."""
        data = running(RawServer, [[Send(BODY[:-9])], [Send(BODY)], [Send(BODY)]])
        whole = (*VERSION, passive(data), ("RETR", b"150 here\r\n226 done"))
        rest = (*VERSION, passive(data), ("REST", b"350 yes"), ("RETR", b"150 here\r\n226 done"))
        server = raw_server([conversation(*whole), conversation(*rest), conversation(*whole)])
        download = FtpDownload(f"ftp://{server.host}/file", BufferWriter())
        download.retry = quick(2)
        events = record(download)
        positions = []
        download.register(Event.FETCHED, lambda _: positions.append(download.position))
        download()
        assert download.writer.getvalue() == BODY
        assert max(positions) == SIZE
        assert restarts(events) == 1

    @pytest.mark.parametrize(
        "told",
        [b"213 2020", b"213 19120010100000000", b"200 20200101000000", b"213 20209901000000"],
    )
    def test_time_that_is_none(self, raw_server, running, monkeypatch, told):
        """An invalid modification time from an FTP server identifies no version."""
        monkeypatch.setattr(version, "_SECONDS", 1e9)
        data = running(RawServer, [[Send(BODY[:9])], [Send(BODY)]])
        script = conversation(
            VERSION[0], ("MDTM", told), passive(data), ("RETR", b"150 here\r\n226 done")
        )
        server = raw_server([[*script, Close()]])
        download = FtpDownload(f"ftp://{server.host}/file", BufferWriter())
        download.retry = quick(1)
        download()
        assert download.writer.getvalue() == BODY


class TestAcrossRuns:
    """Resuming in a later run, with ``FileWriter(path, resume=True)``."""

    @staticmethod
    def make(server, target, user=None):
        """Make a download without retries that keeps its partial file."""
        download = FtpDownload(server.url("/file"), FileWriter(target, resume=True), user)
        download.retry = None
        return download

    @pytest.fixture
    def server(self, ftp_server, folder, target):
        """Start a server, after a first transfer that was cut and left a partial file."""
        server = ftp_server(folder, users={"me": "pass-word", "you": ""}, cuts={0: CUT})
        failure(self.make(server, target, User("me", "pass-word")), DownloadFailed)
        return server

    @staticmethod
    def kept(target):
        """Return the paths of the partial file and its note."""
        note, partial = sorted(target.parent.iterdir())
        assert (note.suffix, partial.suffix) == (".note", ".partial")
        return partial, note

    def test_goes_on(self, server, target):
        """The next run resumes the FTP transfer and validates the digest of the whole file."""
        partial, note = self.kept(target)
        assert partial.read_bytes() == CONTENT[:HALF]
        assert "pass-word" not in note.read_text()
        download = self.make(server, target, User("me", "pass-word"))
        download.validations.append(DigestValidation("sha256", SHA))
        download()
        assert target.read_bytes() == CONTENT
        assert list(target.parent.iterdir()) == [target]
        assert rests(server) == [HALF]

    def test_changed(self, server, folder, target):
        """If the file changed between two runs, the second FTP run downloads it whole."""
        put(folder / "file", OTHER, 2 * DAY)
        self.make(server, target, User("me", "pass-word"))()
        assert target.read_bytes() == OTHER
        assert rests(server) == []

    def test_other_user(self, server, target):
        """A partial file of another FTP user isn't resumed."""
        self.make(server, target, User("you"))()
        assert target.read_bytes() == CONTENT
        assert rests(server) == []

    def test_longer_than_the_file(self, server, target):
        """A partial file that is longer than the file on the FTP server isn't resumed."""
        with self.kept(target)[0].open("ab") as file:
            file.write(OTHER)
        self.make(server, target, User("me", "pass-word"))()
        assert target.read_bytes() == CONTENT
        assert rests(server) == []

    @pytest.mark.parametrize("note", ["5", '["x"]', '["a", 1, "b"]', "{", "{}"])
    def test_strange_note(self, server, target, note):
        """A partial file with an unreadable note isn't resumed over FTP."""
        path = self.kept(target)[1]
        whole = path.read_text()
        inner = whole[whole.index('"note"') :]
        path.write_text(whole.replace(inner, f'"note": {note!r}}}'.replace("'", '"')))
        self.make(server, target, User("me", "pass-word"))()
        assert target.read_bytes() == CONTENT
        assert rests(server) == []

    def test_changed_in_between(self, server, folder, target):
        """Content that may mix two versions of an FTP file is deleted instead of kept."""
        server.before = {"RETR": lambda: put(folder / "file", OTHER, 2 * DAY)}
        download = self.make(server, target, User("me", "pass-word"))
        assert "changed" in failure(download, DownloadFailed).reason
        assert rests(server) == [HALF]
        assert list(target.parent.iterdir()) == []
        download()
        assert target.read_bytes() == OTHER
        assert rests(server) == [HALF]

    def test_note_cant_be_written(self, ftp_server, folder, target, monkeypatch, no_leaks):
        """If the note of a partial file can't be written, the FTP error names the file."""

        def fail(*unused):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(FileWriter, "remember", fail)
        reason = failure(self.make(ftp_server(folder), target), DownloadFailed).reason
        assert "No space left" in reason
        assert str(target) in reason
