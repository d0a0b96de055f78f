"""``pulp-futures sync``: make a folder hold what a PULP_MANIFEST lists."""

from __future__ import annotations

import hashlib
import stat
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
from rich.filesize import decimal

from pulpcore.plugin.download.futures import BufferWriter, Download, Factory, redact

from . import manifest
from .manifest import BadLine, Entry
from .options import Options
from .output import Output, Result, Status
from .progress import Progress
from .transfer import transfer

BLOCK = 2**20
"""Bytes that are read from disk at a time."""


def sync(url: str, destination: Path, options: Options, output: Output) -> bool:
    """Download what is missing in a folder, or differs from a manifest.

    Args:
        url: The URL of the manifest.
        destination: The folder. It is made if it is missing.
        options: The options.
        output: Where to tell.

    Returns:
        Whether all is well.

    Raises:
        click.UsageError: The URL or the folder can't be used.
    """
    factory = Factory(options.importer)
    try:
        content = _read(url, factory, options)
        found = list(manifest.parse(content))
    except manifest.Unusable as error:
        output.complain(f"failed: {error}")
        return False
    try:
        destination.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"the folder {str(destination)!r} can't be made: {error.strerror}"
        raise click.UsageError(reason) from error
    run = _Sync(url, destination, factory, options, output)
    try:
        run.download(run.check(found))
    except KeyboardInterrupt:
        output.complain("stopped: no partial file is left, and another run gets the rest")
        raise
    finally:
        run.summarize()
    return run.well


class _Sync:
    """One run, and the count of how its files ended."""

    def __init__(
        self, url: str, destination: Path, factory: Factory, options: Options, output: Output
    ) -> None:
        self._url = url
        self._destination = destination
        self._factory = factory
        self._options = options
        self._output = output
        self._began = time.monotonic()
        self._results: Counter[str] = Counter()
        self._fetched = 0

    @property
    def well(self) -> bool:
        return not self._results["failed"]

    def check(self, found: list[Entry | BadLine]) -> list[Entry]:
        """Return the entries whose file is missing or differs, and tell of the others."""
        folder = manifest.Destination(self._destination)
        differing: list[Entry] = []
        alike: list[Entry] = []
        for item in found:
            if isinstance(item, BadLine):
                self._refuse(item)
                continue
            try:
                path = folder.locate(item.path)
            except manifest.Refused as error:
                self._refuse(BadLine(item.line, item.path, str(error)))
                continue
            # Only what has the right size is worth reading.
            (alike if _has_size(path, item.size) else differing).append(item)
        with self._output.progress("Checking", len(alike), _size(alike)) as progress:
            for entry in alike:
                if _sha256(self._destination / entry.path, progress) == entry.sha256:
                    self._tell(entry, "skipped", "already there")
                else:
                    differing.append(entry)
                progress.count_file()
        return differing

    def download(self, entries: list[Entry]) -> None:
        """Download files, and tell of each one."""
        with self._output.progress("Downloading", len(entries), _size(entries)) as progress:

            def downloads() -> Iterator[Download]:
                for entry in entries:
                    path = str(self._destination / entry.path)
                    download = self._factory.build(entry.url(self._url), path, entry)
                    self._options.limit(download)
                    download.attachment = entry
                    progress.watch(download)
                    yield download

            def done(download: Download, failure: str | None) -> None:
                entry = download.attachment
                if failure is None:
                    self._fetched += entry.size
                    self._tell(entry, "ok")
                else:
                    self._tell(entry, "failed", failure)
                progress.count_file()

            transfer(downloads(), self._options.concurrent, done)

    def summarize(self) -> None:
        seconds = max(time.monotonic() - self._began, 0.001)
        fetched = f"{decimal(self._fetched)} in {seconds:.1f} s"
        rate = f"{decimal(int(self._fetched / seconds))}/s"
        self._output.say(
            f"{self._results.total()} files: {self._results['ok']} downloaded ({fetched}, {rate}), "
            f"{self._results['skipped']} already there, {self._results['failed']} failed"
        )

    def _tell(self, entry: Entry, status: Status, reason: str | None = None) -> None:
        self._results[status] += 1
        url = entry.url(self._url)
        self._output.result(Result(entry.path, url, entry.size, entry.sha256, status, reason))

    def _refuse(self, bad: BadLine) -> None:
        self._results["failed"] += 1
        # What can't be used as a path may be a URL.
        path = bad.path
        if path is not None:
            path = redact.url(path) if ":/" in path else redact.text(path)
        self._output.result(Result(path, None, None, None, "failed", str(bad)))


def _read(url: str, factory: Factory, options: Options) -> bytes:
    try:
        # A name for a file that is never made: the URL may have none.
        download = factory.build(url, "PULP_MANIFEST")
    except ValueError as error:
        raise click.UsageError(redact.text(str(error))) from error
    options.limit(download)
    writer = download.writer = BufferWriter(limit=manifest.LIMIT)
    failures: list[str] = []

    def done(_: Download, failure: str | None) -> None:
        if failure is not None:
            failures.append(failure)

    transfer([download], 1, done)
    if failures:
        raise manifest.Unusable(f"the manifest: {failures[0]}")
    return writer.getvalue()


def _size(entries: list[Entry]) -> int:
    return sum(entry.size for entry in entries)


def _has_size(path: Path, size: int) -> bool:
    try:
        found = path.stat()
    except OSError:
        # Whether it isn't there or can't be looked at: the download will tell.
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def _sha256(path: Path, progress: Progress) -> str | None:
    """The digest of a file (hex); None where it can't be read."""
    digest = hashlib.sha256(usedforsecurity=False)
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
                progress.add(len(block))
    except OSError:
        return None
    return digest.hexdigest()
