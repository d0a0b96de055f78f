"""Valid uses of the API and their types. Type checkers read this file; nobody runs it."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_type

import requests
from requests.auth import HTTPDigestAuth
from urllib3.util import Retry

from pulpcore.plugin.download import futures
from pulpcore.plugin.download.futures import (
    SSL,
    Batch,
    BufferWriter,
    DigestValidation,
    Download,
    DownloadError,
    DownloadFailed,
    DownloadMonitor,
    Event,
    Factory,
    FileDownload,
    FileWriter,
    FtpDownload,
    HttpDownload,
    Limits,
    Metalink,
    Mirrors,
    NotAuthorized,
    NotFound,
    Settings,
    SizeValidation,
    Timeout,
    User,
    Validation,
    ValidationError,
    Writer,
)
from pulpcore.plugin.download.futures.address import is_public
from pulpcore.plugin.download.futures.auth import BearerAuth
from pulpcore.plugin.download.futures.batch import BACKLOG, CONCURRENT, Plan, PlanIterator
from pulpcore.plugin.download.futures.context import Cache, Context
from pulpcore.plugin.download.futures.engine.protocol import Protocol
from pulpcore.plugin.download.futures.error import Facts
from pulpcore.plugin.download.futures.event import (
    Error,
    EventRouter,
    Failed,
    Fetched,
    Prepared,
    Replied,
    Restarted,
    Sent,
    Succeeded,
)
from pulpcore.plugin.download.futures.mirrors import MetalinkFile, MetalinkURL
from pulpcore.plugin.download.futures.progress import ProgressMonitor
from pulpcore.plugin.download.futures.rate import RateLimiter
from pulpcore.plugin.download.futures.stream import Stream
from pulpcore.plugin.download.futures.telemetry import instrument
from pulpcore.plugin.download.futures.validation import (
    DigestMismatch,
    MismatchError,
    SizeMismatch,
)
from pulpcore.plugin.download.futures.writer import W_co


def version() -> None:
    assert_type(futures.__version__, str)


def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
    request.headers["X-Signature"] = "abc"
    return request


def fetch_token() -> tuple[str, float]:
    return "abc", 60


def credentials(path: Path) -> None:
    assert_type(HttpDownload("https://h/", path, auth=sign), HttpDownload[FileWriter])
    assert_type(HttpDownload("https://h/", BufferWriter(), auth=sign), HttpDownload[BufferWriter])
    bearer = BearerAuth(fetch_token)
    BearerAuth(lambda: "abc")
    for auth in (HTTPDigestAuth("ann", "secret"), bearer, BearerAuth(user=("ann", "secret")), None):
        HttpDownload("https://h/", path, auth=auth)
        Factory(auth=auth)
    download = HttpDownload("https://h/", path)
    download.auth = bearer


def one_file(path: Path) -> None:
    download = HttpDownload(
        "https://example.org/tiger.iso",
        FileWriter(path, resume=True),
        timeout=Timeout(connect=5, total=3600.5),
        user=User("ann", "secret"),
        ssl=SSL(
            ca_certificate=SSL.SYSTEM, client_certificate="me.pem", client_key_password="sesame"
        ),
        proxy_url="http://proxy.example.org:3128",
        headers={"User-Agent": "zoo"},
        known_etag='W/"1"',
        known_last_modified=None,
        public_only=is_public("192.0.2.1"),
    )
    download.rate_limiter = RateLimiter(per_second=10)
    download.known_etag = download.etag
    download.limits = Limits(bandwidth=1024, per_host=2, in_flight=2**30)
    assert_type(download.unchanged, bool)
    assert_type(download.etag, str | None)
    assert_type(download.last_modified, str | None)
    download.validations.append(SizeValidation(5))
    download.validations.append(DigestValidation("sha256", "0" * 64, enforced=False))
    download.retry = Retry(total=3)
    download.retry = None
    download.attachment = object()
    assert_type(download(), None)
    assert_type(download.url, str)
    assert_type(download.writer, FileWriter)
    assert_type(download.status, int)
    assert_type(download.position, int)
    assert_type(download.expected_size, int | None)
    assert_type(download.session, requests.Session)
    assert_type(download.timeout, Timeout)
    assert_type(download.context, Context)
    assert_type(download.router, EventRouter)
    assert_type(download.validations, list[Validation])
    download.headers["X-Keeper"] = "Ann"


def other_protocols() -> list[Download]:
    return [
        FileDownload("file:///srv/tiger.iso", FileWriter("tiger.iso"), allowed_paths=["/srv"]),
        FtpDownload("ftp://example.org/tiger.iso", None, user=User("ann", "secret")),
        FtpDownload("ftp://example.org/tiger.iso", None, ssl=SSL("ca.pem"), tls=True),
        FtpDownload("ftp://example.org/tiger.iso", "tiger.iso", ("ann", "secret"), timeout=5),
        HttpDownload("https://example.org/tiger.iso", "tiger.iso", timeout=(3, 60.5)),
        HttpDownload("https://example.org/tiger.iso", Path("tiger.iso"), timeout=(3, None)),
        HttpDownload("https://example.org/tiger.iso", None, user=("ann", "secret")),
        Factory().build("https://example.org/tiger.iso"),
    ]


def many_files(downloads: Iterator[HttpDownload]) -> None:
    with Batch(downloads, concurrent=CONCURRENT, backlog=BACKLOG, context=Context()) as batch:
        assert_type(batch, Batch[HttpDownload])
        assert_type(batch.download(), PlanIterator[HttpDownload])
        for plan in batch():
            assert_type(plan, Plan[HttpDownload])
            assert_type(plan.result().status, int)
            assert_type(plan.executed, bool)
            assert_type(plan.error, BaseException | None)
        assert_type(batch.is_shutdown, bool)
        batch.shutdown()


async def in_async_code(downloads: AsyncIterator[HttpDownload]) -> list[Download]:
    async with Batch(downloads) as batch:
        assert_type(batch, Batch[HttpDownload])
        async for plan in batch():
            assert_type(plan, Plan[HttpDownload])
            assert_type(plan.download, HttpDownload)
    async with Batch([HttpDownload("https://example.org/tiger.iso", None)]) as batch:
        return [plan.result() async for plan in batch()]


def writers(path: Path, given: BufferWriter, maybe: str | None) -> None:
    """Each download knows its writer, and so does each plan."""
    assert_type(HttpDownload("https://example.org/tiger.iso", "tiger.iso").writer.path, str)
    assert_type(FtpDownload("ftp://example.org/tiger.iso", path).writer.path, str)
    assert_type(FileDownload("file:///srv/tiger.iso", path).writer.path, str)
    assert_type(FileDownload("file:///srv/tiger.iso", given).writer, BufferWriter)
    assert_type(HttpDownload("https://example.org/tiger.iso", given).clone().writer, BufferWriter)
    assert_type(HttpDownload("https://example.org/tiger.iso", maybe).writer, Writer | None)
    without = HttpDownload("https://example.org/tiger.iso", None)
    without.writer = given
    for plan in Batch(HttpDownload(url, path / "name") for url in ("https://example.org/a",))():
        assert_type(plan.result().writer.path, str)
        assert_type(plan.download.status, int)
    mixed: list[Download] = [Nop(7), without, HttpDownload("https://example.org/b", "b")]
    batch: Batch = Batch(mixed)
    plans: PlanIterator = batch()
    assert_type(next(plans).result(), Download)
    built = [Factory().build("https://example.org/tiger.iso", path)]
    for built_plan in Batch(built)():
        assert_type(built_plan.result().writer.path, str)


def progress(download: Download) -> None:
    def show(completed: int, total: int | None) -> str:
        return f"{completed} of {total}"

    monitor = ProgressMonitor(show, total=5)
    monitor.watch(download)
    monitor.add(5)
    assert_type(monitor.figures, tuple[int, int | None])
    assert_type(monitor.completed, int)
    assert_type(ProgressMonitor().total, int | None)


def errors(download: Download) -> str:
    try:
        download()
    except SizeMismatch as error:
        assert_type(error.expected, int)
        return error.reason
    except MismatchError as error:
        assert_type(error.expected, int | str)
    except (DigestMismatch, ValidationError) as error:
        return error.reason
    except (NotFound, NotAuthorized) as error:
        failed: DownloadFailed = error
        assert_type(failed.facts, Facts | None)
        return str(failed)
    except DownloadError as error:
        assert_type(error.download, Download | None)
        assert_type(error.reason, str)
        assert_type(error.transient, bool)
        assert_type(error.retry_after, float | None)
        raise
    return ""


def events(download: Download) -> None:
    def fetched(event: Fetched) -> None:
        assert_type(event.buffer, bytes)
        assert_type(event.offset, int)
        assert_type(event.download, Download)

    def failed(event: Error) -> None:
        assert_type(event.error, DownloadError)
        assert_type(event.retrying, bool)
        event.repaired = True

    def ended(event: Succeeded | Failed) -> None:
        assert_type(event.name, str)

    def early(event: Prepared | Sent | Replied | Restarted) -> None:
        if isinstance(event.download, HttpDownload):
            event.download.headers["X-Keeper"] = "Ann"

    def anything(event: Event) -> int:
        return len(event.name)

    download.register(Event.FETCHED, fetched)
    download.register(Event.ERROR, failed)
    download.register(Event.FAILED, ended)
    download.register(Event.PREPARED, early)
    download.register(Event.SENT, anything)
    download.register(Event.SUCCEEDED, lambda event: str(event.download))
    download.router.unregister(Event.FETCHED, fetched)
    assert_type(download.router.send(Succeeded(download)), Succeeded)


def in_memory(download: Download) -> bytes:
    writer = BufferWriter(limit=1024)
    download.writer = writer
    assert_type(writer.content(), str)
    return writer.getvalue()


def factories(remote: object, artifact: object, path: Path) -> list[Download[FileWriter]]:
    factory = Factory(remote, allowed_paths=[path, "/srv"], public_only=True)
    monitor = DownloadMonitor(algorithms=["sha256"])
    assert_type(monitor.facts(), dict[str, Any])
    downloads = [
        factory.build("https://example.org/tiger.iso"),
        factory.build("https://example.org/tiger.iso", path, artifact),
        factory.build("https://example.org/tiger.iso", "isos/tiger.iso", artifact=artifact),
        Factory.build("https://example.org/tiger.iso", remote, path=path),
    ]
    assert_type(downloads, list[Download[FileWriter]])
    return downloads


def sources(remote: object, document: bytes, mirrorlist: str, folder: Path) -> None:
    mirrors = Mirrors.parse(mirrorlist)
    assert_type(mirrors.urls("isos/tiger.iso"), list[str])
    assert_type(Factory(remote, mirrors=mirrors).build("isos/tiger.iso").writer.path, str)
    download = HttpDownload("https://example.org/a", "a", mirrors=Mirrors([]).urls("a"))
    assert_type(download.source, str | None)
    for file in Metalink.parse(document).files:
        assert_type(file, MetalinkFile)
        assert_type(file.urls, list[MetalinkURL])
        assert_type(file.download(folder).writer.path, str)


def streams(download: Download) -> bytes:
    with download.stream() as file:
        assert_type(file, Stream)
        assert_type(file.readline(), bytes)
        return file.read(5)


def shared(context: Context) -> None:
    cache = Cache(timedelta(hours=1))
    cache.put(("any", 1), object())
    assert_type("key" in cache, bool)
    with context:
        context.token = "abc"
    assert_type(Context(token="abc").token, Any)


class Nop(Download):
    """A download as written by plugins of 2017."""

    def __init__(self, attachment: object) -> None:
        super().__init__("", None)
        self.attachment = attachment

    def _send(self) -> None: ...

    def __call__(self) -> None: ...


class Checked(Protocol):
    """A protocol that checks a setting of its downloads."""

    def check(self, download: Any) -> None:
        if not download.url:
            raise ValueError("url: must not be empty")


class CheckedDownload(Download):
    """A download with a protocol of its own."""

    _protocol = Checked

    def _send(self) -> None: ...


class ToPath(HttpDownload):
    """A strict subclass of before the classes were generic."""

    def __init__(self, url: str, path: str, **settings: Any) -> None:
        super().__init__(url, path, **settings)

    def clone(self) -> "ToPath":
        return super().clone()


class Archive(HttpDownload[FileWriter]):
    """A subclass that names its writer."""

    def __init__(self, url: str) -> None:
        super().__init__(url, FileWriter("archive.tar"))
        assert_type(self.writer.path, str)


class Logged(HttpDownload[W_co]):
    """A subclass that is generic itself."""

    def __init__(self, url: str, writer: W_co | str | None) -> None:
        super().__init__(url, writer)


def subclasses(given: BufferWriter) -> None:
    assert_type(ToPath("https://example.org/a", "a").writer, Writer | None)
    assert_type(Archive("https://example.org/a").writer.path, str)
    assert_type(Logged("https://example.org/a", given).writer, BufferWriter)


class Listed(Factory):
    """A factory that changes its downloads and drops the class-level call."""

    def build(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, url: str, path: Any = None, artifact: object = None
    ) -> Download[FileWriter]:
        return HttpDownload(url, FileWriter(path))


class StartsWith(Validation):
    def __init__(self, prefix: bytes) -> None:
        super().__init__()
        self.prefix = prefix
        self.start = b""

    def update(self, buffer: bytes) -> None:
        self.start += buffer[: len(self.prefix) - len(self.start)]

    def apply(self) -> None:
        if self.start != self.prefix:
            raise ValidationError(f"it should start with {self.prefix!r}")

    def reset(self) -> None:
        self.start = b""


class Counting(Writer):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def append(self, buffer: bytes) -> int:
        self.count += len(buffer)
        return len(buffer)


class Quota(Settings):
    def validate(self) -> None:
        raise ValueError("quota: is spent")


def stream(download: Download) -> list[bytes]:
    with download.stream() as file:
        assert_type(file, Stream)
        assert_type(file.read(), bytes)
        file.verify()
        return [*file, *file.iter_content(1024)]


def traces(download: HttpDownload) -> None:
    instrument(download)
    with Batch([download]) as batch:
        instrument(batch, None)
