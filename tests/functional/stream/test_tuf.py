"""python-tuf downloads by our streams: its own client, with a short fetcher."""

import random
from itertools import chain

import pytest
from servers.files import CutAfter, File

from pulpcore.plugin.download.futures import HttpDownload
from pulpcore.plugin.download.futures.error import DownloadError

exceptions = pytest.importorskip("tuf.api.exceptions")
FetcherInterface = pytest.importorskip("tuf.ngclient").FetcherInterface

CONTENT = random.Random(1).randbytes(700_000)


class Fetcher(FetcherInterface):
    """That of the recipe."""

    chunk_size = 64 * 1024

    def _fetch(self, url):
        pieces = self._read(url)
        return chain([next(pieces, b"")], pieces)

    def _read(self, url):
        download = HttpDownload(url, None)
        try:
            with download.stream() as file:
                yield from file.iter_content(self.chunk_size)
        except DownloadError as error:
            if download.status >= 400:
                raise exceptions.DownloadHTTPError(str(error), download.status) from error
            raise exceptions.DownloadError(str(error)) from error


def test_fetch(file_server):
    """If a transfer breaks, tuf still gets each byte once."""
    server = file_server({"/": File(CONTENT, etag='"1"')}, faults={0: CutAfter(300_000)})
    assert Fetcher().download_bytes(server.url("/"), len(CONTENT)) == CONTENT
    with Fetcher().download_file(server.url("/"), len(CONTENT)) as file:
        assert file.read() == CONTENT


def test_pieces(file_server):
    """Tuf gets pieces of the size that it asks for; an empty file has no content."""
    server = file_server({"/": b"junk data", "/empty": b""})
    fetcher = Fetcher()
    fetcher.chunk_size = 4
    assert list(fetcher.fetch(server.url("/"))) == [b"junk", b" dat", b"a"]
    assert b"".join(fetcher.fetch(server.url("/empty"))) == b""


def test_raises_at_once(file_server):
    """The call of `fetch` itself raises if there is no content, as tuf's own fetchers do."""
    with pytest.raises(exceptions.DownloadHTTPError):
        Fetcher().fetch(file_server({}).url("/"))
    with pytest.raises(exceptions.DownloadError):
        Fetcher().fetch("ftp://127.0.0.1/")


def test_left(file_server):
    """An iterator that is abandoned, or was never started, leaves no thread."""
    server = file_server({"/": CONTENT})
    Fetcher().fetch(server.url("/"))
    next(Fetcher().fetch(server.url("/")))


def test_status(file_server):
    """Tuf sees the status 404, by which it finds the newest root."""
    with pytest.raises(exceptions.DownloadHTTPError) as caught:
        Fetcher().download_bytes(file_server({}).url("/"), 10)
    assert caught.value.status_code == 404


def test_too_long(file_server):
    """A transfer longer than tuf allows is ended and leaves no thread."""
    server = file_server({"/": CONTENT})
    with pytest.raises(exceptions.DownloadLengthMismatchError):
        Fetcher().download_bytes(server.url("/"), 100_000)


def test_failure(file_server):
    """Tuf's error has our error as its cause."""
    with pytest.raises(exceptions.DownloadError) as caught:
        Fetcher().download_bytes("ftp://127.0.0.1/", 10)
    assert isinstance(caught.value.__cause__, DownloadError)
