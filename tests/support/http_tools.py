"""What the tests of HTTP share: quick retries, downloads into memory, records of events."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers.tls import Certificate
from urllib3.util import Retry

from pulpcore.plugin.download.futures import (
    SSL,
    BufferWriter,
    DownloadError,
    Event,
    HttpDownload,
)

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
    """A policy that retries without a wait."""
    return Retry(total=total, **{"backoff_factor": 0, "status_forcelist": TRANSIENT, **options})


def into_memory(url: str, retry: Retry | None = None, **options: Any) -> HttpDownload:
    """A download into a buffer, by default without retries."""
    download = HttpDownload(url, BufferWriter(), **options)
    download.retry = retry
    return download


def content(download: HttpDownload) -> bytes:
    """The bytes that a download into a buffer brings, run now."""
    download()
    assert isinstance(download.writer, BufferWriter)
    return download.writer.getvalue()


def failure(download: HttpDownload, kind: type[DownloadError] = DownloadError) -> DownloadError:
    """The error that a download fails with, of exactly that class if it is not the root."""
    with pytest.raises(kind) as caught:
        download()
    assert kind is DownloadError or type(caught.value) is kind, repr(caught.value)
    return caught.value


def trust(ca: Path, certificate: Certificate | None = None, **options: Any) -> SSL:
    """TLS settings that trust one CA, and show a certificate."""
    if certificate is not None:
        options["client_certificate"] = str(certificate.both)
    return SSL(ca_certificate=str(ca), **options)


def record(download: HttpDownload) -> list[Any]:
    """A list that each event of a download is put into."""
    events: list[Any] = []
    for name in EVENTS:
        download.register(name, events.append)
    return events


def names(events: list[Any]) -> list[str]:
    """The names of recorded events; Fetched that follow each other as one."""
    found: list[str] = []
    for event in events:
        if not found or event.NAME != Event.FETCHED or found[-1] != Event.FETCHED:
            found.append(event.NAME)
    return found


def chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and all those behind it."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop()
        if current is not None and id(current) not in seen:
            seen.add(id(current))
            yield current
            pending += [current.__cause__, current.__context__]
            pending += [item for item in current.args if isinstance(item, BaseException)]
