"""Tests of downloads that are skipped, because the target has the content already."""

import hashlib
import os

import pytest
from stubs import Stub

from pulpcore.plugin.download.futures import (
    BufferWriter,
    DigestValidation,
    DownloadFailed,
    Event,
    FileWriter,
    HttpDownload,
    SizeValidation,
    Validation,
)
from pulpcore.plugin.download.futures.progress import ProgressMonitor
from pulpcore.plugin.download.futures.waiting.cancellation import Cancellation, scope

CONTENT = b"content"
SIZE = len(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Unresettable(Validation):
    """A validation that can't be started again."""

    def update(self, buffer):
        """Accept any bytes."""

    def apply(self):
        """Accept the content."""


class NoLink(FileWriter):
    """A writer whose file can't be read."""

    def existing(self, size, block):
        """Fail as an unreadable file does."""
        raise PermissionError(13, "Permission denied")


def make(target, *validations, writer=FileWriter):
    """Make a download that skips its target, and a list of the events that it sends."""
    download = Stub(lambda self: self._write(CONTENT), writer(target))
    download.skip_existing = True
    download.validations.extend(validations or (size(), digest()))
    seen = []
    for name in vars(Event).values():
        if isinstance(name, str) and name.isupper():
            download.register(name, lambda event: seen.append(event.name))
    return download, seen


def size(expected=SIZE, **options):
    """Make a size validation."""
    return SizeValidation(expected, **options)


def digest(expected=SHA256, **options):
    """Make a digest validation."""
    return DigestValidation("sha256", expected, **options)


def test_skipped(tmp_path):
    """A target with the right size and digest is a success without Sent, Replied and Fetched."""
    target = tmp_path / "a"
    target.write_bytes(CONTENT)
    before = target.stat()
    download, seen = make(target)
    download()
    assert seen == ["PREPARED", "SUCCEEDED"]
    assert download.unchanged
    assert target.stat().st_ino == before.st_ino
    target.unlink()
    download()
    assert not download.unchanged
    assert target.read_bytes() == CONTENT


def test_through_a_link(tmp_path):
    """The file that a link at the target points to counts."""
    (tmp_path / "file").write_bytes(CONTENT)
    (tmp_path / "a").symlink_to("file")
    download, _ = make(tmp_path / "a")
    download()
    assert download.unchanged


@pytest.mark.parametrize("content", [None, b"short", b"CONTENT"])
def test_fetched(tmp_path, content):
    """A target that is missing, or has another size or digest, is fetched and replaced."""
    target = tmp_path / "a"
    if content is not None:
        target.write_bytes(content)
    download, seen = make(target)
    download()
    assert seen == ["PREPARED", "SENT", "REPLIED", "FETCHED", "SUCCEEDED"]
    assert not download.unchanged
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "validations",
    [
        [size()],
        [digest()],
        [size(), digest(enforced=False)],
        [size(enforced=False), digest()],
        [size(), digest(), Unresettable()],
    ],
)
def test_not_sure(tmp_path, validations):
    """Without an enforced size and an enforced digest, the file is fetched."""
    target = tmp_path / "a"
    target.write_bytes(CONTENT)
    download, seen = make(target, *validations)
    download()
    assert "FETCHED" in seen


@pytest.mark.parametrize("writer", [NoLink, lambda _: BufferWriter(), lambda _: None])
def test_nothing_to_read(tmp_path, writer):
    """If the writer keeps no content, or can't read it, the content is fetched."""
    (tmp_path / "a").write_bytes(CONTENT)
    download, seen = make(tmp_path / "a", writer=writer)
    download()
    assert "FETCHED" in seen


def test_off(tmp_path):
    """By default the content is fetched, even if the target has it."""
    (tmp_path / "a").write_bytes(CONTENT)
    download, seen = make(tmp_path / "a")
    del download.skip_existing
    download()
    assert "FETCHED" in seen


def test_head(tmp_path, file_server):
    """A HEAD request is never skipped."""
    (tmp_path / "a").write_bytes(CONTENT)
    server = file_server({"/a": CONTENT})
    for method, count in ("GET", 0), ("HEAD", 1):
        download = HttpDownload(server.url("/a"), tmp_path / "a", method=method)
        download.validations.extend([size(), digest()])
        download.skip_existing = True
        download()
        assert (server.count, download.unchanged) == (count, method == "GET")
        assert download.etag is None


def test_cancelled(tmp_path):
    """A run that is cancelled while the file is read fails, and the file stays."""
    (tmp_path / "a").write_bytes(CONTENT)
    download, seen = make(tmp_path / "a")
    token = Cancellation()
    with scope(token):
        token.cancel("shut down")
        with pytest.raises(DownloadFailed, match="shut down"):
            download()
    assert seen == ["PREPARED", "FAILED"]
    assert os.listdir(tmp_path) == ["a"]


def test_shown(tmp_path):
    """While a file is checked the progress says so, and the file counts as no bytes."""
    (tmp_path / "a").write_bytes(CONTENT)
    download, _ = make(tmp_path / "a")
    texts = []
    monitor = ProgressMonitor(lambda *_: texts.append(monitor.waiting))
    monitor.watch(download)
    download()
    assert texts == ["", "checking the file that is there", ""]
    assert monitor.figures == (0, 0)
