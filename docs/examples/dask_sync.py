"""Download many files on the workers of a cluster."""

from collections.abc import Iterable

from distributed import Client

from pulpcore.plugin.download.futures import Batch, DownloadError, FileWriter, HttpDownload


def sync(scheduler: str, base: str, names: Iterable[str], folder: str) -> list[str]:
    """Download files into a folder that all workers share; return what failed."""
    downloads = (HttpDownload(f"{base}/{name}", FileWriter(f"{folder}/{name}")) for name in names)
    failed = []
    with Client(scheduler) as client, Batch(downloads, executor=client.get_executor()) as batch:
        for plan in batch():
            try:
                plan.result()
            except DownloadError as error:
                failed.append(str(error))
    return failed
