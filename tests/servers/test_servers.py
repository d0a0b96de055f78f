"""Downloads from servers that people run, with pipelining and without."""

import hashlib
import socket
import threading
import time
from contextlib import closing, suppress

import pytest
from http_tools import names, quick, record
from servers.connection import ClientGone, Connection
from servers.listener import Listener

from pulpcore.plugin.download.futures import (
    Batch,
    BufferWriter,
    DigestValidation,
    Event,
    FileWriter,
    HttpDownload,
    SizeValidation,
)

LARGE = "large"
ONCE = [Event.PREPARED, Event.SENT, Event.REPLIED, Event.FETCHED, Event.SUCCEEDED]


class Cutting(Listener):
    """Forwards to a port, and cuts the first connection after so many bytes of replies."""

    def __init__(self, port, after):
        self._origin, self._after = port, after
        super().__init__()

    def serve(self, connection: Connection) -> None:
        """Forward both ways until one side ends."""
        with closing(socket.create_connection(("127.0.0.1", self._origin))) as far:
            ends = connection.socket, far
            back = threading.Thread(target=self._pass_on, args=ends, daemon=True)
            back.start()
            left = self._after if connection.index == 0 else float("inf")
            try:
                while left > 0 and (data := far.recv(min(left, 65536))):
                    connection.socket.sendall(data)
                    left -= len(data)
            finally:
                for each in ends:
                    with suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)
                back.join()
        raise ClientGone

    @staticmethod
    def _pass_on(source, target):
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            # So the other direction ends too.
            target.shutdown(socket.SHUT_RDWR)


def download_of(front, files, name, folder):
    """Make a download of a file with size and digest."""
    data = files[name]
    options = {} if front.proxy is None else {"proxy_url": front.proxy}
    download = HttpDownload(f"{front.base}/{name}", FileWriter(str(folder / name)), **options)
    download.validations += [
        SizeValidation(len(data)),
        DigestValidation("sha256", hashlib.sha256(data).hexdigest()),
    ]
    return download


@pytest.mark.parametrize("pipeline", [1, 8, None])
def test_small_files(front, files, tmp_path, trains, noted, pipeline):
    """The same 300 files are right with pipelining and without, and each has its events once."""
    small = [name for name in files if name != LARGE]
    downloads = [download_of(front.far, files, name, tmp_path) for name in small]
    events = [record(download) for download in downloads]
    began = time.monotonic()
    with Batch(downloads, concurrent=4, pipeline=pipeline) as batch:
        plans = list(batch())
    seconds = time.monotonic() - began
    errors = [event for found in events for event in found if event.NAME == Event.ERROR]
    noted(
        [
            *(front.kind.name, pipeline, seconds, len(trains.depths), trains.depth),
            *(trains.broken, trains.unfit, trains.is_off, len(errors)),
        ]
    )
    assert sorted(plan.result().url for plan in plans) == sorted(each.url for each in downloads)
    assert {name: (tmp_path / name).read_bytes() for name in small} == {
        name: files[name] for name in small
    }
    empty = [Event.PREPARED, Event.SENT, Event.REPLIED, Event.SUCCEEDED]
    for download, found in zip(downloads, events, strict=True):
        if not front.kind.refuses:
            assert names(found) == (ONCE if download.expected_size else empty)
    if pipeline == 1:
        assert trains.depth == 1
    else:
        assert trains.depth >= front.kind.depth


def test_large_file(front, files, tmp_path):
    """A large file whose transfer is cut is resumed, if the server supports ranges."""
    with Cutting(front.port, 1_000_000) as cutting:
        download = download_of(front.through(cutting.port), files, LARGE, tmp_path)
        download.retry = quick()
        events = record(download)
        download()
    assert (tmp_path / LARGE).read_bytes() == files[LARGE]
    assert [event.NAME for event in events].count(Event.ERROR) == 1
    assert (Event.RESTARTED not in names(events)) == front.kind.ranges


def test_range(front, files):
    """A range that the caller requests has the right part of the file."""
    if not front.kind.ranges:
        pytest.skip("the server answers no ranges")
    options = {} if front.proxy is None else {"proxy_url": front.proxy}
    for first, last in [(0, 0), (1000, 70_000), (5_000_000, len(files[LARGE]) - 1)]:
        download = HttpDownload(
            f"{front.base}/{LARGE}",
            BufferWriter(),
            headers={"Range": f"bytes={first}-{last}"},
            **options,
        )
        download()
        assert download.writer.getvalue() == files[LARGE][first : last + 1]
