"""``pulp-futures sync``: download the files that a PULP_MANIFEST lists."""

from __future__ import annotations

import hashlib
import stat
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import click
from requests import Response
from rich.filesize import decimal

from pulpcore.plugin.download.futures import BufferWriter, Download, Factory
from pulpcore.plugin.download.futures.http.redirect import may_have_credentials
from pulpcore.plugin.download.futures.net.url import parse

from . import manifest
from .manifest import BadLine, Entry
from .options import Options
from .output import Output, Result, Status
from .progress import Progress
from .transfer import transfer

BLOCK = 2**20
"""The number of bytes to read from disk at a time."""


def sync(url: str, destination: Path, options: Options, output: Output) -> bool:
    """Download the files of a manifest that are missing in a folder or differ.

    Args:
        url: The URL of the manifest.
        destination: The folder. It is created if it is missing.
        options: The options.
        output: Reports to the user.

    Returns:
        Whether the folder now has every file of the manifest.

    Raises:
        click.UsageError: The URL or the folder can't be used.
    """
    try:
        content, url, factory = _read(url, options)
        found = manifest.parse(content)
    except manifest.Unusable as error:
        output.complain(f"failed: {error}")
        return False
    except KeyboardInterrupt:
        output.complain("stopped: the manifest was interrupted, and no file was downloaded")
        raise
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
        run.summarize(len(found))
    return run.well


class _Sync:
    """One run of the command, and the counters of its results."""

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
        """Return the entries whose file is missing or differs. Report all others."""
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
            # A file of a different size differs: don't hash it.
            (alike if _has_size(path, item.size) else differing).append(item)
        with self._output.progress("Checking", len(alike), _size(alike)) as progress:
            for entry in alike:
                if _sha256(self._destination / entry.path, progress) == entry.sha256:
                    self._report(entry, "skipped", "already there")
                else:
                    differing.append(entry)
                progress.count_file()
        return differing

    def download(self, entries: list[Entry]) -> None:
        """Download files and report the result of each."""
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
                    self._report(entry, "ok")
                else:
                    self._report(entry, "failed", failure)
                progress.count_file()

            transfer(downloads(), self._options.concurrent, done)

    def summarize(self, files: int) -> None:
        """Report the totals.

        Args:
            files: The number of all files, including interrupted ones.
        """
        seconds = max(time.monotonic() - self._began, 0.001)
        fetched = f"{decimal(self._fetched)} in {seconds:.1f} s"
        rate = f"{decimal(int(self._fetched / seconds))}/s"
        interrupted = files - self._results.total()
        self._output.say(
            f"{files} files: {self._results['ok']} downloaded ({fetched}, {rate}), "
            f"{self._results['skipped']} already there, {self._results['failed']} failed"
            + (f", {interrupted} interrupted" if interrupted else "")
        )

    def _report(self, entry: Entry, status: Status, reason: str | None = None) -> None:
        self._results[status] += 1
        url = entry.url(self._url)
        self._output.result(Result(entry.path, url, entry.size, entry.sha256, status, reason))

    def _refuse(self, bad: BadLine) -> None:
        self._results["failed"] += 1
        self._output.result(Result(bad.path, None, None, None, "failed", str(bad)))


def _read(url: str, options: Options) -> tuple[bytes, str, Factory]:
    """Download the manifest.

    Returns:
        The manifest, its URL after redirects, and the factory for the files. If a redirect led to
        another host, the factory has no credentials: they are meant for the given host.
    """
    factory = Factory(options.importer)
    try:
        # A buffer replaces this path below. It is absolute, so it needs no working directory.
        download: Download = factory.build(url, "/PULP_MANIFEST")
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    options.limit(download)
    writer = download.writer = BufferWriter(limit=manifest.LIMIT)
    failures: list[str | None] = []
    transfer([download], 1, lambda _, failure: failures.append(failure))
    if failures[0] is not None:
        raise manifest.Unusable(f"the manifest: {failures[0]}")
    if not isinstance(download.reply, Response):
        return writer.getvalue(), url.partition("?")[0], factory
    given, answered = parse(url), parse(str(download.reply.url))
    if may_have_credentials(given.origin, answered.origin):
        userinfo = urlsplit(url).netloc.rpartition("@")
        text = answered.text.replace("://", f"://{userinfo[0]}{userinfo[1]}", 1)
    else:
        text = answered.text
        factory = Factory(options.importer.without_credentials())
    return writer.getvalue(), text, factory


def _size(entries: list[Entry]) -> int:
    return sum(entry.size for entry in entries)


def _has_size(path: Path, size: int) -> bool:
    try:
        found = path.stat()
    except OSError:
        # A missing file is normal. Other errors will occur again in the download, and be reported.
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def _sha256(path: Path, progress: Progress) -> str | None:
    """Return the digest of a file (hex); None if the file can't be read."""
    digest = hashlib.sha256(usedforsecurity=False)
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
                progress.add(len(block))
    except OSError:
        return None
    return digest.hexdigest()
