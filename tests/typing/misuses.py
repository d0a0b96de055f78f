"""Invalid uses of the API. Type checkers read this file; nobody runs it.

Type checkers refuse each line. If one accepted a line, it would report the line's `ignore`
comment as unnecessary.
"""

from pulpcore.plugin.download.futures import (
    Batch,
    Download,
    DownloadMonitor,
    Event,
    Factory,
    FileWriter,
    FtpDownload,
    HttpDownload,
    SizeValidation,
    Timeout,
    User,
    Validation,
)
from pulpcore.plugin.download.futures.event import Error
from pulpcore.plugin.download.futures.progress import ProgressMonitor

URL = "https://example.org/tiger.iso"


def downloads(download: HttpDownload) -> None:
    Download(URL, None)  # type: ignore[abstract]
    HttpDownload(URL)  # type: ignore[call-overload]
    HttpDownload(URL, b"tiger.iso")  # type: ignore[call-overload]
    HttpDownload(URL, None, timeout="10")  # type: ignore[call-overload]
    HttpDownload(URL, None, timeout=(1, 2, 3))  # type: ignore[arg-type]
    HttpDownload(URL, None, user="ann:secret")  # type: ignore[call-overload]
    HttpDownload(URL, None, headers=[("A", "b")])  # type: ignore[call-overload]
    HttpDownload(URL, None, proxy="http://proxy.example.org")  # type: ignore[call-overload]
    HttpDownload(URL, None, auth=("ann", "secret"))  # type: ignore[call-overload]
    HttpDownload(URL, None, known_etag=7)  # type: ignore[call-overload]
    FtpDownload(URL, None, tls="explicit")  # type: ignore[call-overload]
    download.writer = 7  # type: ignore[assignment]
    HttpDownload(URL, "tiger.iso").writer = None  # type: ignore[assignment]
    HttpDownload(URL, "tiger.iso", timeout="10")  # type: ignore[call-overload]
    download.retry = 3  # type: ignore[assignment]
    download.validations.append("sha256")  # type: ignore[arg-type]
    download.register(Event.SUCCEEDED, "handler")  # type: ignore[arg-type]
    download.register(Event.SUCCEEDED, lambda: None)  # type: ignore[arg-type,misc]
    download.ulr = URL  # type: ignore[attr-defined]


def others(download: Download, validation: Validation) -> None:
    FileWriter(7)  # type: ignore[arg-type]
    SizeValidation("many")  # type: ignore[arg-type]
    Timeout(connect="10")  # type: ignore[arg-type]
    User("ann", b"secret")  # type: ignore[arg-type]
    Batch(download)  # type: ignore[arg-type]
    Batch([validation])  # type: ignore[type-var]
    Batch([download], concurrent="4")  # type: ignore[arg-type]
    DownloadMonitor("tiger.iso")  # type: ignore[arg-type]
    Error(download, ValueError("a bug"))  # type: ignore[arg-type]


async def in_async_code(download: Download) -> None:
    async with Batch([download]) as batch:
        async for plan in batch():
            await plan.result()  # type: ignore[misc]


def progress(download: Download) -> None:
    ProgressMonitor(lambda completed: None)  # type: ignore[arg-type,misc]
    ProgressMonitor(total="5")  # type: ignore[arg-type]
    ProgressMonitor().watch(URL)  # type: ignore[arg-type]


def factories(remote: object) -> None:
    Factory(remote).build(URL, 7)  # type: ignore[arg-type]
    Factory(remote).build(URL, name="tiger.iso")  # type: ignore[call-arg]
    Factory.build(importer=remote)  # type: ignore[call-arg]
