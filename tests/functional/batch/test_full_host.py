"""A host that allows fewer connections than a batch has threads: no file is lost by it."""

import contextlib
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from http_tools import failure, into_memory, quick, record
from servers.connection import Connection
from servers.files import FileServer, Hold, Status
from servers.ftp import FtpServer
from servers.listener import HOST

from pulpcore.plugin.download.futures import Batch, BufferWriter, Event, FtpDownload, Limits
from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.engine import breaker
from pulpcore.plugin.download.futures.engine.host import Host

MOST = 2
FILES = 60
BODY = b"content"
SECONDS = 60
WORK = 0.02
"""Seconds that a server works at a file."""


class FullServer(FileServer):
    """Serves only so many connections at a time, and refuses others in its own way.

    Attributes:
        refused: How many were refused; not those that the system refused.
    """

    def __init__(self, way: str) -> None:
        self.way = way
        self.refused = 0
        self._served: set[Connection] = set()
        super().__init__({"/a": BODY}, faults=self._work)

    @staticmethod
    def _work(*_: object) -> None:
        time.sleep(WORK)

    def serve(self, connection: Connection) -> None:
        """Serve a connection, or refuse it."""
        with self.changed:
            is_full = len(self._served) >= MOST
            if is_full:
                self.refused += 1
            else:
                self._served.add(connection)
        if is_full:
            self._refuse(connection)
            return
        try:
            super().serve(connection)
        finally:
            with self.changed:
                self._served.discard(connection)

    def _refuse(self, connection: Connection) -> None:
        if self.way == "reset":
            connection.reset()
        elif self.way != "closed":
            connection.read_request()
            connection.send(self._reply(int(self.way), {"Connection": "close"}, b"full").head)

    def _accept(self) -> None:
        if self.way != "nobody listens":
            super()._accept()
            return
        index = 0
        while not self.closing.is_set():
            with contextlib.suppress(OSError):
                sock, _ = self._listening.accept()
                self._begin(Connection(index, sock, None))
                index += 1
            if len(self._open) < MOST:
                continue
            self._listening.close()
            with self.changed:
                while len(self._open) >= MOST and not self.closing.is_set():
                    self.changed.wait(0.05)
            self._listening = socket.create_server((HOST, self.port), backlog=1)

    def _begin(self, connection: Connection) -> None:
        thread = self._thread(self._run, connection)
        with self.changed:
            self.connections += 1
            self._open[connection] = thread
        thread.start()


def busy(server: FileServer, most: int) -> Any:
    """Faults of a server that replies 429 while it is at so many requests."""
    at_work: list[int] = []

    def fault(index: int, _: object) -> Status | None:
        if len(at_work) >= most:
            return Status(429)
        at_work.append(index)
        time.sleep(WORK)
        at_work.remove(index)
        return None

    return fault


def fetch(downloads: list[Any], concurrent: int = 4) -> list[Any]:
    """Run downloads in a batch; return what they failed of, also for a time."""
    errors: list[Any] = []
    for download in downloads:
        download.register(Event.ERROR, lambda event: errors.append(event.error))
    with Batch(downloads, concurrent=concurrent) as batch:
        errors += [plan.error for plan in batch() if plan.error is not None]
    return errors


@pytest.fixture
def one_failure_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The circuit breaker opens by the first failure that it counts."""
    monkeypatch.setattr(breaker, "FAILURES", 1)
    monkeypatch.setattr(breaker, "SILENCE", 0.0)


@pytest.mark.usefixtures("one_failure_is_an_outage")
class TestNoFileIsLost:
    @pytest.mark.parametrize("way", ["503", "429", "reset", "closed", "nobody listens"])
    def test_connections(self, running: Any, way: str) -> None:
        """A refused surplus connection is no failure: no retry, no Error event, no open breaker."""
        server = running(FullServer, way)
        downloads = [into_memory(server.url("/a")) for _ in range(FILES)]
        assert fetch(downloads) == []
        assert {download.writer.getvalue() for download in downloads} == {BODY}
        # The host was asked for a place only a few times more.
        assert server.refused <= 20

    def test_with_a_limit(self, running: Any) -> None:
        """Downloads that wait because a host is full take no place of their own limit."""
        server = running(FullServer, "429")
        limits = Limits(per_host=FILES)
        downloads = [into_memory(server.url("/a")) for _ in range(FILES)]
        for download in downloads:
            download.limits = limits
        assert fetch(downloads) == []
        assert {download.writer.getvalue() for download in downloads} == {BODY}

    def test_requests(self, file_server: Any) -> None:
        """A refused surplus request on a connection that stays open is no failure, either."""
        server = file_server({"/a": BODY})
        server.faults = busy(server, MOST)
        downloads = [into_memory(server.url("/a")) for _ in range(FILES)]
        assert fetch(downloads) == []
        assert {download.writer.getvalue() for download in downloads} == {BODY}
        assert server.count <= FILES + 20


def at_full_http(file_server: Any, go_on: threading.Event, _: Path) -> Any:
    """Two downloads from a server that serves one at a time; the first is held."""
    replies = iter([Hold(go_on)])
    server = file_server({"/a": BODY})
    server.faults = lambda *_: next(replies, None if go_on.is_set() else Status(503))
    first, second = (into_memory(server.url("/a")) for _ in range(2))
    yield first
    server.until(lambda: server.count == 1)
    yield second
    server.until(lambda: server.count == 2)


def at_full_ftp(running: Any, go_on: threading.Event, folder: Path) -> Any:
    """The same by FTP."""
    (folder / "a").write_bytes(BODY)
    server = running(FtpServer, folder, most=1)
    first, second = (FtpDownload(server.url("/a"), BufferWriter()) for _ in range(2))
    entered = threading.Event()
    first.register(Event.REPLIED, lambda _: (entered.set(), go_on.wait(SECONDS)))
    yield first
    entered.wait(SECONDS)
    yield second


@pytest.mark.parametrize("scheme", ["http", "ftp"])
def test_other_hosts_go_on(scheme: str, running: Any, file_server: Any, tmp_path: Path) -> None:
    """Downloads that wait for a place at a full host hold no threads, which serve another host."""
    go_on = threading.Event()
    full = {
        "http": lambda: at_full_http(file_server, go_on, tmp_path),
        "ftp": lambda: at_full_ftp(running, go_on, tmp_path),
    }[scheme]()
    other = file_server({"/b": BODY})
    errors: list[Any] = []

    def downloads() -> Any:
        for download in full:
            download.retry = None
            download.register(Event.ERROR, errors.append)
            yield download
        for _ in range(20):
            yield into_memory(other.url("/b"))

    order = []
    with Batch(downloads(), concurrent=2) as batch:
        for plan in batch():
            plan.result()
            order.append(plan.download.url)
            if len(order) == 20:
                go_on.set()
    assert order[:20] == [other.url("/b")] * 20
    assert len(order) == 22
    assert errors == []


class TestOrdinaryFailures:
    @pytest.mark.parametrize("way", ["503", "429", "reset", "closed"])
    def test_alone(self, running: Any, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the host refuses the only download that is running there, that costs a retry."""
        monkeypatch.setattr(f"{__name__}.MOST", 0)
        server = running(FullServer, way)
        download = into_memory(server.url("/a"), quick(total=2))
        with contextlib.closing(Context()) as context:
            download.context = context
            events = record(download)
            error = failure(download)
        assert error.facts is not None
        assert error.facts.attempt == 3
        assert [event.NAME for event in events].count(Event.ERROR) == 3

    def test_one_file_that_is_refused(self, file_server: Any) -> None:
        """A file that is always refused fails soon, and doesn't slow down the host's others."""

        def reply(_: int, request: Any) -> Status | None:
            if request.target == "/bad":
                return Status(503)
            time.sleep(WORK)
            return None

        server = file_server({"/a": BODY}, faults=reply)
        bad = into_memory(server.url("/bad"), quick(total=2))
        downloads = [bad, *(into_memory(server.url("/a")) for _ in range(500))]
        with Batch(downloads, concurrent=4) as batch:
            failed = [number for number, plan in enumerate(batch()) if plan.error is not None]
        assert len(failed) == 1
        assert failed[0] < 400
        assert server.paths.count("/bad") <= 10

    def test_retry_after_is_heard(self, file_server: Any) -> None:
        """A server that sends Retry-After isn't asked earlier, and the refusal costs a retry."""
        go_on = threading.Event()
        replies = iter([Hold(go_on), Status(503, {"Retry-After": "1"}.items())])
        server = file_server({"/a": BODY}, faults=lambda *_: next(replies, None))
        first, second = (into_memory(server.url("/a"), quick(total=1)) for _ in range(2))
        errors: list[Any] = []
        second.register(Event.ERROR, lambda event: (errors.append(event.error), go_on.set()))

        def downloads() -> Any:
            yield first
            server.until(lambda: server.count == 1)
            yield second

        with Batch(downloads(), concurrent=2) as batch:
            for plan in batch():
                plan.result()
        assert [error.retry_after for error in errors] == [1]

    def test_bug(self, file_server: Any) -> None:
        """A run that ends with a bug frees its place at the host."""
        server = file_server({"/a": BODY})
        download = into_memory(server.url("/a"))
        with contextlib.closing(Context()) as context:
            download.context = context
            download.validations.append(Buggy())
            with pytest.raises(ZeroDivisionError):
                download()
            (host,) = (
                item.object
                for item in context.cache._items.values()
                if isinstance(item.object, Host)
            )
            assert not host._active


class Buggy:
    """A validation with a bug."""

    def update(self, _: bytes) -> None:
        """Fail."""
        raise ZeroDivisionError
