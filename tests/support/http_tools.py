"""Helpers of the HTTP tests: quick retries, downloads into memory, recorded events."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from servers.tls import Certificate
from urllib3 import HTTPResponse
from urllib3.util import Retry

from pulpcore.plugin.download.futures import (
    SSL,
    BufferWriter,
    DownloadError,
    Event,
    HttpDownload,
)
from pulpcore.plugin.download.futures.http.wire.connect import Connector
from pulpcore.plugin.download.futures.http.wire.connection import Connection

TRANSIENT = [408, 425, 429, 500, 502, 503, 504]

EVENTS = [
    Event.PREPARED,
    Event.SENT,
    Event.REPLIED,
    Event.FETCHED,
    Event.RESTARTED,
    Event.SUCCEEDED,
    Event.FAILED,
    Event.ERROR,
]


def quick(total: int | None = 3, **options: Any) -> Retry:
    """Make a policy that retries without a wait."""
    return Retry(total=total, **{"backoff_factor": 0, "status_forcelist": TRANSIENT, **options})


def into_memory(url: str, retry: Retry | None = None, **options: Any) -> HttpDownload:
    """Make a download into a buffer, by default without retries."""
    download = HttpDownload(url, BufferWriter(), **options)
    download.retry = retry
    return download


def content(download: HttpDownload) -> bytes:
    """Run a download into a buffer and return its content."""
    download()
    assert isinstance(download.writer, BufferWriter)
    return download.writer.getvalue()


def failure(download: HttpDownload, kind: type[DownloadError] = DownloadError) -> DownloadError:
    """Run a download and return its error, of exactly that class unless that is the base class."""
    with pytest.raises(kind) as caught:
        download()
    assert kind is DownloadError or type(caught.value) is kind, repr(caught.value)
    return caught.value


def trust(ca: Path, certificate: Certificate | None = None, **options: Any) -> SSL:
    """Make TLS settings that trust one CA and have a client certificate."""
    if certificate is not None:
        options["client_certificate"] = str(certificate.both)
    return SSL(ca_certificate=str(ca), **options)


def record(download: HttpDownload) -> list[Any]:
    """Record each event of a download in a list."""
    events: list[Any] = []
    for name in EVENTS:
        download.register(name, events.append)
    return events


def names(events: list[Any]) -> list[str]:
    """Return the names of recorded events. Consecutive Fetched events count as one."""
    found: list[str] = []
    for event in events:
        if not found or event.NAME != Event.FETCHED or found[-1] != Event.FETCHED:
            found.append(event.NAME)
    return found


def chain(error: BaseException) -> Iterator[BaseException]:
    """Return an exception with all its causes and contexts."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop()
        if current is not None and id(current) not in seen:
            seen.add(id(current))
            yield current
            pending += [current.__cause__, current.__context__]
            pending += [item for item in current.args if isinstance(item, BaseException)]


class Opened:
    """Counts the client's connections. A server notices later that one was closed.

    Attributes:
        most: The greatest number that was open at once.
    """

    def __init__(self) -> None:
        self.most = 0
        self._lock = threading.Lock()
        self._open: set[object] = set()

    def begin(self, connection: object) -> None:
        """Count one more: one that is opened now."""
        with self._lock:
            self._open.add(connection)
            self.most = max(self.most, len(self._open))

    def end(self, connection: object) -> None:
        """Count one less."""
        with self._lock:
            self._open.discard(connection)

    @classmethod
    def watch(cls, monkeypatch: pytest.MonkeyPatch) -> "Opened":
        """Begin to count."""
        counts = cls()
        connect, close = Connector.connect, Connection.close

        def counted(connector: Connector, timeout: float | None) -> Connection:
            attempt = object()
            counts.begin(attempt)
            try:
                connection = connect(connector, timeout)
            finally:
                counts.end(attempt)
            counts.begin(connection)
            return connection

        def closed(connection: Connection) -> None:
            close(connection)
            counts.end(connection)

        monkeypatch.setattr(Connector, "connect", counted)
        monkeypatch.setattr(Connection, "close", closed)
        return counts


def response_with(**headers: str) -> requests.Response:
    """Make a response with headers, `_` for `-`, and without a body."""
    response = requests.Response()
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    response.request = requests.Request("GET", "http://example.org/a").prepare()
    response.raw = HTTPResponse(io.BytesIO(), response.headers, preload_content=False)
    return response
