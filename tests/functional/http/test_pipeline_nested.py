"""Downloads that handlers of a pipelined download run, at a server that allows one connection."""

import hashlib
import threading

import pytest
from http_tools import names, record
from servers.connection import ClientGone
from servers.message import reply
from servers.train import TrainServer

from pulpcore.plugin.download.futures import (
    Batch,
    BufferWriter,
    DigestValidation,
    Event,
    HttpDownload,
    SizeValidation,
)
from pulpcore.plugin.download.futures.context import Context

pytestmark = pytest.mark.timeout(120)

FILES = {f"/{number}": bytes([65 + number % 26]) * (2000 + number // 2) for number in range(40)}
ONCE = [Event.PREPARED, Event.SENT, Event.REPLIED, Event.FETCHED, Event.SUCCEEDED]
NESTING = (8, 9, 24)


class OneConnection(TrainServer):
    """Serves one connection at a time; what becomes of others depends on `mode`."""

    def __init__(self, mode):
        self._mode, self._free = mode, threading.Lock()
        super().__init__(FILES)

    def serve(self, connection):
        """Serve it in turn, or refuse it."""
        while not self._free.acquire(timeout=0.02):
            if self.closing.is_set() or self._mode != "waits":
                if self._mode == "refuses":
                    connection.read_some()
                    connection.send(reply(503, {"Connection": "close"}))
                raise ClientGone
        try:
            super().serve(connection)
        finally:
            self._free.release()


def validated(server, path):
    """Make a download of a file with its size and digest."""
    download = HttpDownload(server.url(path), BufferWriter())
    download.validations += [
        SizeValidation(len(FILES[path])),
        DigestValidation("sha256", hashlib.sha256(FILES[path]).hexdigest()),
    ]
    return download


@pytest.mark.parametrize("mode", ["waits", "refuses", "closes"])
@pytest.mark.parametrize("event", [Event.PREPARED, Event.SUCCEEDED])
@pytest.mark.parametrize("way", ["download", "batch"])
def test_one_connection(running, mode, event, way):
    """A handler's download takes over its train's connection, whose requests are sent again."""
    server = running(OneConnection, mode)
    context, nested = Context(), []

    def nest(_):
        inner = validated(server, "/0")
        inner.context = context
        if way == "batch":
            with Batch([inner], concurrent=1, context=context) as batch:
                for plan in batch():
                    plan.result()
        else:
            inner()
        nested.append(inner.writer.getvalue())

    downloads = [validated(server, path) for path in FILES]
    events = [record(download) for download in downloads]
    for number in NESTING:
        downloads[number].register(event, nest)
    with Batch(downloads, concurrent=1, pipeline=8, context=context) as batch:
        for plan in batch():
            plan.result()
    context.close()
    assert nested == [FILES["/0"]] * len(NESTING)
    assert [download.writer.getvalue() for download in downloads] == list(FILES.values())
    assert [names(found) for found in events] == [ONCE] * len(FILES)
    assert server.depth > 2


def test_many_connections(running):
    """If handlers download from a host during two trains in a row, it gets no more trains."""
    server = running(TrainServer, FILES)
    context = Context()

    def nest(_):
        inner = validated(server, "/0")
        inner.context = context
        inner()

    downloads = [validated(server, path) for path in FILES]
    for download in downloads:
        download.register(Event.SUCCEEDED, nest)
    with Batch(downloads, concurrent=1, pipeline=8, context=context) as batch:
        for plan in batch():
            plan.result()
    context.close()
    assert len([paths for paths in server.trains if len(paths) > 1]) == 2
