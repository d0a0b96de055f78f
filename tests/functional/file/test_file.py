"""Tests of FileDownload on the real file system."""

import contextlib
import errno
import hashlib
import io
import os
import socket
import threading
from pathlib import Path
from urllib.parse import quote

import pytest

from pulpcore.plugin.download.futures import (
    Batch,
    BufferWriter,
    DigestValidation,
    DownloadFailed,
    DownloadMonitor,
    Event,
    FileDownload,
    FileWriter,
    NotAuthorized,
    NotFound,
    SizeValidation,
    ValidationError,
    Writer,
)

CONTENT = os.urandom(3_000_000)  # more than two blocks of the reader


def url(path, prefix="file://"):
    """Make the URL of a path."""
    return prefix + quote(str(path))


def events(download):
    """Collect the event names of a download. Consecutive Fetched events count as one."""
    names = []
    for name in ("PREPARED", "SENT", "REPLIED", "FETCHED", "ERROR", "SUCCEEDED", "FAILED"):
        download.register(
            name, lambda event: names[-1:] == [event.name] or names.append(event.name)
        )
    return names


@pytest.fixture
def source(tmp_path):
    """Create the file to download."""
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def unprivileged(tmp_path):
    """Give the test the rights of an ordinary user, who may write to the test's folder."""
    if os.geteuid() == 0:
        with contextlib.ExitStack() as stack:
            # Other users can't enter the folders that pytest creates above this one.
            for folder in (tmp_path, *tmp_path.parents):
                mode = folder.stat().st_mode & 0o7777
                if folder == tmp_path or mode & 0o001 == 0:
                    stack.callback(folder.chmod, mode)
                    folder.chmod(mode | (0o777 if folder == tmp_path else 0o001))
            os.seteuid(65534)
            stack.callback(os.seteuid, 0)
            yield
    else:
        yield


@pytest.mark.parametrize("content", [b"", b"x", CONTENT], ids=["empty", "a byte", "blocks"])
def test_file(tmp_path, content, no_leaks):
    """FileDownload copies a file byte by byte and publishes the usual events, run after run."""
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    source.write_bytes(content)
    download = FileDownload(url(source), FileWriter(target))
    download.validations += [
        SizeValidation(len(content)),
        DigestValidation("sha256", hashlib.sha256(content).hexdigest()),
    ]
    monitor = DownloadMonitor(download)
    names = events(download)
    for _ in range(2):
        names.clear()
        assert download() is None
        assert target.read_bytes() == content
        assert monitor.facts()["size"] == len(content)
        assert monitor.facts()["sha512"] == hashlib.sha512(content).hexdigest()
        fetched = ["FETCHED"] if content else []
        assert names == ["PREPARED", "SENT", "REPLIED", *fetched, "SUCCEEDED"]
        assert download.error == 0
    assert download.expected_size == len(content)
    assert list(target.parent.iterdir()) == [target]
    assert source.read_bytes() == content


def test_expected_size(source):
    """expected_size is the size of the file from Replied on, also if a validation says another."""
    download = FileDownload(url(source), None)
    assert download.expected_size is None
    sizes = []
    for name in (Event.PREPARED, Event.REPLIED, Event.SUCCEEDED):
        download.register(name, lambda event: sizes.append(event.download.expected_size))
    download()
    assert sizes == [None, len(CONTENT), len(CONTENT)]
    download.validations.append(SizeValidation(1, enforced=False))
    assert download.clone().expected_size is None
    download()
    assert sizes[3:] == [1, len(CONTENT), len(CONTENT)]


@pytest.mark.parametrize(
    "name", ["a b", "100%", "50%25", "ü", "a#b", "a?b", "a;b", "a+b", b"\xff\xfe".decode("latin-1")]
)
def test_percent_decoded(tmp_path, name):
    """FileDownload percent-decodes the path of its URL and changes nothing else in it."""
    (tmp_path / name).write_bytes(name.encode())
    download = FileDownload(url(tmp_path / name), BufferWriter())
    download()
    assert download.writer.content() == name


def test_bytes_that_are_no_text(tmp_path):
    """A file URL can name a file whose name isn't valid UTF-8."""
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")).write_bytes(b"content")
    download = FileDownload(url(tmp_path) + "/%FF%fe", BufferWriter())
    download()
    assert download.writer.content() == "content"


def test_question_mark_that_nobody_encoded(tmp_path):
    """In a file URL an unencoded `?` belongs to the file name, because files have no query."""
    (tmp_path / "a?b").write_bytes(b"right")
    (tmp_path / "a").write_bytes(b"wrong")
    download = FileDownload(f"file://{tmp_path}/a?b", BufferWriter())
    download()
    assert download.writer.content() == "right"


@pytest.mark.parametrize("prefix", ["file://", "file://localhost", "FILE://LocalHost", "file:"])
def test_this_host(source, prefix):
    """A file URL without a host, or with `localhost` in any case, means this machine."""
    download = FileDownload(url(source, prefix), BufferWriter())
    download()
    assert download.writer.getvalue() == CONTENT


@pytest.mark.parametrize(
    "bad",
    [
        "file://otherhost{path}",
        "file://127.0.0.1{path}",
        "file://user@localhost{path}",
        "file://localhost:80{path}",
        "file://[::1{path}",
        "file://",
        "file:relative",
        "file:///a%00b",
        "http://localhost{path}",
        "{path}",
        "",
    ],
)
def test_url_refused(source, tmp_path, bad):
    """A file URL with another host or an invalid path fails and leaves the old target."""
    target = tmp_path / "target"
    target.write_bytes(b"old")
    download = FileDownload(bad.format(path=source), FileWriter(target))
    with pytest.raises(DownloadFailed):
        download()
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


class _Refused:
    """Paths that can't be downloaded. Each method creates one in a folder and returns it."""

    @staticmethod
    def missing(folder):
        return folder / "missing"

    @staticmethod
    def file_as_folder(folder):
        (folder / "file").write_bytes(b"x")
        return folder / "file" / "below"

    @staticmethod
    def folder(folder):
        return folder

    @staticmethod
    def pipe(folder):
        os.mkfifo(folder / "pipe")
        return folder / "pipe"

    @staticmethod
    def device(folder):
        return Path("/dev/zero")

    @staticmethod
    def socket(folder):
        with contextlib.chdir(folder), socket.socket(socket.AF_UNIX) as listening:
            listening.bind("socket")
        return folder / "socket"

    @staticmethod
    def dangling_link(folder):
        (folder / "link").symlink_to("nowhere")
        return folder / "link"

    @staticmethod
    def circle(folder):
        (folder / "link").symlink_to("link")
        return folder / "link"

    @staticmethod
    def long_name(folder):
        return folder / ("x" * 300)


@pytest.mark.parametrize(
    ("what", "kind", "number"),
    [
        ("missing", NotFound, errno.ENOENT),
        ("file_as_folder", NotFound, errno.ENOTDIR),
        ("dangling_link", NotFound, errno.ENOENT),
        ("folder", DownloadFailed, errno.EISDIR),
        ("pipe", DownloadFailed, errno.EINVAL),
        ("device", DownloadFailed, errno.EINVAL),
        ("socket", DownloadFailed, errno.ENXIO),
        ("circle", DownloadFailed, errno.ELOOP),
        ("long_name", DownloadFailed, errno.ENAMETOOLONG),
    ],
)
def test_refused(tmp_path, what, kind, number, no_leaks):
    """Anything but a readable regular file raises an error that says why. A pipe never blocks."""
    target = tmp_path / "target"
    target.write_bytes(b"old")
    (tmp_path / "sub").mkdir()
    path = getattr(_Refused, what)(tmp_path / "sub")
    download = FileDownload(url(path), FileWriter(target))
    names = events(download)
    with pytest.raises(DownloadFailed) as caught:
        download()
    assert type(caught.value) is kind
    assert str(path)[:50] in str(caught.value)
    assert caught.value.reason
    assert caught.value.download is download
    assert download.error == number
    assert names == ["PREPARED", "ERROR", "FAILED"]
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sub", "target"]


@pytest.mark.parametrize("where", ["file", "folder"])
def test_not_authorized(tmp_path, source, unprivileged, where):
    """An unreadable file, or a file in a folder that can't be entered, raises NotAuthorized."""
    path = source
    with contextlib.ExitStack() as stack:
        if os.getuid() == 0:
            os.seteuid(0)
        if where == "folder":
            path = tmp_path / "locked" / "file"
            path.parent.mkdir()
            path.parent.chmod(0o700)
            path.write_bytes(b"x")
        path.chmod(0)
        if os.getuid() == 0:
            os.seteuid(65534)
        elif where == "folder":
            path.parent.chmod(0)
            stack.callback(path.parent.chmod, 0o700)
        download = FileDownload(url(path), BufferWriter())
        with pytest.raises(NotAuthorized, match="read"):
            download()
    assert download.error == errno.EACCES
    assert download.writer.content() == ""


def test_error_is_of_the_last_run(source, tmp_path):
    """A successful run resets the errno which the failed run before it stored in `error`."""
    late = tmp_path / "late"
    download = FileDownload(url(late), BufferWriter())
    with pytest.raises(NotFound):
        download()
    assert download.error == errno.ENOENT
    late.write_bytes(b"there")
    download()
    assert (download.error, download.writer.content()) == (0, "there")


def _same(source):
    return source


def _link(source):
    path = source.parent / "link"
    path.symlink_to(source)
    return path


def _hard_link(source):
    path = source.parent / "hard"
    path.hardlink_to(source)
    return path


def _other_way(source):
    (source.parent / "sub").mkdir()
    return source.parent / "sub" / ".." / "source"


@pytest.mark.parametrize("way", [_same, _link, _hard_link, _other_way])
@pytest.mark.parametrize("turned", [False, True])
def test_same_file(source, way, turned):
    """A download whose source and target are the same file fails and leaves the file intact."""
    target = way(source)
    before = sorted(source.parent.iterdir())
    url_of, path = (target, source) if turned else (source, target)
    download = FileDownload(url(url_of), FileWriter(path))
    with pytest.raises(DownloadFailed, match="same"):
        download()
    assert source.read_bytes() == CONTENT
    assert sorted(source.parent.iterdir()) == before
    assert target.is_symlink() is (way is _link)


@pytest.mark.parametrize("mode", ["r+b", "ab"])
def test_same_file_by_object(source, mode):
    """A download whose writer appends to its own source file fails, because it would never end."""

    class Limited(io.FileIO):
        def write(self, buffer, /):
            assert os.fstat(self.fileno()).st_size < 4 * len(CONTENT), "it doesn't end"
            return super().write(buffer)

    with Limited(source, mode.replace("b", "")) as fp:
        download = FileDownload(url(source), Writer(fp))
        with pytest.raises(DownloadFailed, match="same"):
            download()
    assert source.read_bytes() == CONTENT


def test_writer_without_a_path_on_disk(source, tmp_path):
    """The same-file check accepts a writer to another file object or to a path not on disk."""
    with (tmp_path / "target").open("wb") as fp:
        FileDownload(url(source), Writer(fp))()
    assert (tmp_path / "target").read_bytes() == CONTENT
    with pytest.raises(DownloadFailed, match="NUL"):
        FileDownload(url(source), FileWriter("a\0b"))()

    class Odd(BufferWriter):
        path = "a\0b"

    download = FileDownload(url(source), Odd())
    download()
    assert download.writer.getvalue() == CONTENT


def test_no_writer(source):
    """A file download without a writer still validates the content and publishes its events."""
    download = FileDownload(url(source), None)
    monitor = DownloadMonitor(download)
    download()
    assert monitor.size == len(CONTENT)


def test_cancelled_in_the_middle(source, tmp_path):
    """A shutdown stops a file download at the next block.

    The old target stays, without a partial file.
    """
    target = tmp_path / "target"
    target.write_bytes(b"old")
    download = FileDownload(url(source), FileWriter(target))
    sizes = []

    def stop(event):
        sizes.append(len(event.buffer))
        batch.shutdown()

    download.register(Event.FETCHED, stop)
    with Batch([download]) as batch:
        (plan,) = batch()
    with pytest.raises(DownloadFailed, match="shut down"):
        plan.result()
    assert sizes == [FileDownload.BLOCK]
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


@pytest.mark.parametrize(
    "validation", [SizeValidation(5), DigestValidation("sha256", "0" * 64)], ids=["size", "digest"]
)
def test_validation_fails(source, tmp_path, validation):
    """A file that fails its validation never replaces the target."""
    target = tmp_path / "target"
    target.write_bytes(b"old")
    download = FileDownload(url(source), FileWriter(target))
    download.validations.append(validation)
    with pytest.raises(ValidationError):
        download()
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_vanishes(source, tmp_path):
    """If the source is replaced during the download, FileDownload reads the old file to its end."""
    download = FileDownload(url(source), FileWriter(tmp_path / "target"))

    def replace(_):
        other = tmp_path / "other"
        other.write_bytes(b"new")
        other.replace(source)

    download.register(Event.REPLIED, replace)
    download()
    assert (tmp_path / "target").read_bytes() == CONTENT


@pytest.mark.parametrize("size", [0, 1_500_000, len(CONTENT) + 1])
def test_changes(source, tmp_path, size):
    """A source whose size changes during the download raises an error. Versions are never mixed."""
    target = tmp_path / "target"
    target.write_bytes(b"old")
    download = FileDownload(url(source), FileWriter(target))
    download.register(Event.REPLIED, lambda _: os.truncate(source, size))
    with pytest.raises(DownloadFailed, match="changed"):
        download()
    assert download.error == errno.EIO
    assert target.read_bytes() == b"old"


def test_size_unknown():
    """Files in /proc, whose reported size is 0, are downloaded with their real content."""
    download = FileDownload("file:///proc/self/status", BufferWriter())
    download()
    assert f"Pid:\t{os.getpid()}\n" in download.writer.content()


def test_read_fails(monkeypatch, source, tmp_path):
    """A read error of the source, as from a bad disk, is reported as an error of the source."""
    real, reads = os.read, []

    def broken(descriptor, size):
        reads.append(size)
        if len(reads) > 1:
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, size)

    monkeypatch.setattr("os.read", broken)
    download = FileDownload(url(source), FileWriter(tmp_path / "target"))
    with pytest.raises(DownloadFailed, match=r"can't be read: Input/output error"):
        download()
    assert download.error == errno.EIO
    assert download.position == FileDownload.BLOCK
    assert not (tmp_path / "target").exists()


def test_unwritable(source, tmp_path):
    """A failure of the writer is reported as a writer error and not as an error of the source."""
    (tmp_path / "folder").mkdir()
    download = FileDownload(url(source), FileWriter(tmp_path / "folder"))
    with pytest.raises(DownloadFailed, match="can't write"):
        download()
    assert download.error == 0


def test_many_in_a_batch(tmp_path, no_leaks):
    """A batch downloads many file URLs from several threads."""
    for n in range(50):
        (tmp_path / f"in{n}").write_bytes(b"%d" % n)
    downloads = [
        FileDownload(url(tmp_path / f"in{n}"), FileWriter(tmp_path / f"out{n}")) for n in range(50)
    ]
    threads = set()
    for download in downloads:
        download.register(
            Event.SUCCEEDED, lambda event: threads.add(threading.current_thread().name)
        )
    with Batch(downloads, concurrent=3) as batch:
        assert len([plan.result() for plan in batch()]) == 50
    assert [(tmp_path / f"out{n}").read_bytes() for n in range(50)] == [
        b"%d" % n for n in range(50)
    ]
    assert threading.current_thread().name not in threads
