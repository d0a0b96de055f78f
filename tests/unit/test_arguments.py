"""Tests of a download's arguments: their short forms, and clear errors for wrong types."""

from pathlib import Path

import pytest
from http_tools import chain

from pulpcore.plugin.download.futures import (
    SSL,
    BufferWriter,
    Download,
    DownloadFailed,
    Event,
    FileDownload,
    FileWriter,
    FtpDownload,
    HttpDownload,
    Timeout,
    User,
)

# The test never gets as far as connecting.
HTTP = ("http://192.0.2.1/a", None)
FTP = ("ftp://192.0.2.1/a", None)
FILE = ("file:///nothing/there", None)
NET = pytest.mark.parametrize(
    ("kind", "arguments"), [(HttpDownload, HTTP), (FtpDownload, FTP)], ids=["http", "ftp"]
)


ALL = pytest.mark.parametrize(
    ("kind", "arguments"),
    [(HttpDownload, HTTP), (FtpDownload, FTP), (FileDownload, FILE)],
    ids=["http", "ftp", "file"],
)


class Nop(Download):
    """A download without arguments of its own."""

    def _send(self):
        pass


@NET
@pytest.mark.parametrize(
    ("given", "made"),
    [
        (None, Timeout()),
        (5, Timeout(5, 5)),
        (0.5, Timeout(0.5, 0.5)),
        ((3, 5), Timeout(3, 5)),
        ([3, None], Timeout(3, None)),
        (Timeout(1, 2, 3), Timeout(1, 2, 3)),
    ],
)
def test_timeout(kind, arguments, given, made):
    """A timeout may be one number for connect and read, or a pair of numbers, as in requests."""
    download = kind(*arguments, timeout=given)
    assert download.timeout == made
    assert (download.timeout is given) is isinstance(given, Timeout)


@NET
@pytest.mark.parametrize(
    ("given", "made"),
    [
        (None, User()),
        (("a", "b"), User("a", "b")),
        (["a", None], User("a")),
        (User("a"), User("a")),
    ],
)
def test_user(kind, arguments, given, made):
    """A user may be a pair of name and password, as in requests."""
    download = kind(*arguments, user=given)
    assert download.user == made


@pytest.mark.parametrize("kind", [HttpDownload, FtpDownload, FileDownload, Nop])
@pytest.mark.parametrize("path", ["x.iso", Path("x.iso")])
def test_writer(kind, path):
    """A path as writer makes a FileWriter, and a writer is used as it is."""
    download = kind("url", path)
    assert type(download.writer) is FileWriter
    assert download.writer.path == "x.iso"
    writer = BufferWriter()
    assert kind("url", writer).writer is writer
    assert kind("url", None).writer is None


WRONG = {
    "timeout": ["5", True, (1,), (1, 2, 3), ("1", 2), {}, User()],
    "user": ["s3cret:s3cret", 5, ("s3cret",), ("s3cret", 5), b"s3cret", Timeout()],
    "ssl": [False, "/ca.pem", ("cert", "key")],
    "headers": [["X: s3cret"], [("X", "s3cret")], "X: s3cret", 5],
    "proxy_url": [{"http": "http://me:s3cret@h"}, b"http://h", 5],
    "writer": [b"a", 5, open, ["a"], BufferWriter],
}
OWN = {"headers": (HttpDownload,), "proxy_url": (HttpDownload,)}


@NET
@pytest.mark.parametrize("name", WRONG)
def test_wrong_types(kind, arguments, name):
    """An argument of a wrong type is a TypeError that names it and doesn't show the value."""
    if kind not in OWN.get(name, (kind,)):
        return
    for value in WRONG[name]:
        with pytest.raises(TypeError, match=f"^{name}: must be ") as caught:
            kind(**{"url": arguments[0], "writer": None, name: value})
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("kind", [FileDownload, Nop])
def test_wrong_writer(kind):
    """A wrong type in place of a writer is a TypeError for each download class."""
    for value in WRONG["writer"]:
        with pytest.raises(TypeError, match=r"^writer: must be "):
            kind("url", value)


@ALL
@pytest.mark.parametrize("name", WRONG)
def test_assigned(kind, arguments, name, tmp_path, monkeypatch):
    """A wrong type assigned later fails the run with a DownloadFailed, before anything is sent."""
    monkeypatch.chdir(tmp_path)
    if not hasattr(kind(*arguments), name):
        return
    for value in WRONG[name]:
        download = kind(*arguments)
        if name == "writer":
            download.register(
                Event.PREPARED, lambda e, value=value: setattr(e.download, name, value)
            )
        else:
            setattr(download, name, value)
        with pytest.raises(DownloadFailed, match=f"a setting is wrong: {name}: must be ") as caught:
            download()
        assert "s3cret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_rate_limiter():
    """A number in place of a rate limiter is refused, because downloads couldn't share it."""
    download = HttpDownload(*HTTP)
    download.rate_limiter = 5
    with pytest.raises(DownloadFailed, match="a setting is wrong: rate_limiter: must be "):
        download()


@ALL
def test_assigned_short_forms(kind, arguments, tmp_path):
    """Short forms of settings may be assigned later, and None stands for the default."""
    download = kind(*arguments)
    given = {"timeout": (3, 5), "user": ("a", "b"), "writer": str(tmp_path / "a"), "ssl": None}
    for name, value in given.items():
        if hasattr(download, name):
            setattr(download, name, value)
    download.url = "gopher://h/"
    with pytest.raises(DownloadFailed):
        download()
    assert download.timeout == Timeout(3, 5)
    assert isinstance(download.writer, FileWriter)
    if kind is not FileDownload:
        assert (download.user, download.ssl) == (User("a", "b"), SSL())


def test_url_in_place_of_a_path(tmp_path):
    """If a URL is given as a path, the error and its cause show no secret of it."""
    source = tmp_path / "source"
    source.write_bytes(b"content")
    download = FileDownload(source.as_uri(), "http://me:s3cret@h/?key=s3cret/")
    with pytest.raises(DownloadFailed, match="can't write to") as caught:
        download()
    error = caught.value
    for text in (str(error), error.reason, repr(error.args), *map(repr, chain(error))):
        assert "s3cret" not in text
