"""``pulp-futures get``: download files by their URLs."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import click
from rich.filesize import decimal

from pulpcore.plugin.download.futures import Download, Factory, Writer

from . import entries, shown, streams
from .entries import Checksums, Entry, Expected
from .jobs import Job, Run
from .keys import Keys, key_of
from .manifest import Destination, Refused
from .options import Options
from .output import Output, Result
from .session import Session

STDIO = "-"
"""What stands for stdin or stdout in the place of a path."""


@dataclass(frozen=True)
class Wanted:
    """What the arguments ask for.

    Attributes:
        urls (tuple[str, ...]): The URLs.
        listed (str | None): The path of a list; ``-`` for stdin.
        checksums (Checksums | None): The digests of all files.
        folder (str | None): The folder of all files; None for the working directory.
        path (str | None): The path of the only file; ``-`` for stdout.
        expected (dict[str, int | str]): What is known of the only file.
    """

    urls: tuple[str, ...]
    listed: str | None
    checksums: Checksums | None
    folder: str | None
    path: str | None
    expected: Expected


def get(wanted: Wanted, options: Options, output: Output, session: Session | None) -> bool:
    """Download files.

    Args:
        wanted: What to download.
        options: The options.
        output: Reports to the user.
        session: What earlier runs have finished.

    Returns:
        Whether all files are there.

    Raises:
        click.UsageError: The arguments or a list can't be used.
    """
    if wanted.listed is None and len(wanted.urls) == 1:
        return _one(wanted, options, output, session)
    source = _Source(wanted, options)
    files = source.check()
    jobs = iter(source) if source.is_stream else source
    run = Run(options, output, session)
    try:
        run.run(jobs, output.progress("Downloading", files, None))
    except KeyboardInterrupt:
        output.stopped(options.keeps)
        raise
    finally:
        output.say(run.summary.text(files, options.keeps))
    return run.summary.well


def _one(wanted: Wanted, options: Options, output: Output, session: Session | None) -> bool:
    """Download the only file."""
    if wanted.path == STDIO and options.processes > 1:
        raise click.UsageError("--processes: other processes can't write to stdout.")
    job = _only(wanted, options)
    run = Run(options, output, session, hashes=True)
    try:
        run.run([job], output.progress(job.path or "", 1, job.size))
    except KeyboardInterrupt:
        output.stopped(options.keeps)
        output.say(run.summary.text(1, options.keeps))
        raise
    if run.last is not None and run.last.status == "ok":
        output.say(f"{job.path}: {decimal(run.last.size or 0)}, sha256 {run.last.sha256}")
    elif run.last is not None and run.last.status == "skipped":
        output.say(f"{job.path}: {run.last.reason}")
    return run.summary.well


def _only(wanted: Wanted, options: Options) -> Job | Result:
    """Return the job of the only file, for which a wrong argument is a usage error."""
    stdout = streams.content() if wanted.path == STDIO else None
    if wanted.path == STDIO and stdout is None:
        raise click.UsageError("--output: stdout is closed.")
    try:
        # A URL that goes to a given path needs no name.
        named = {} if wanted.path is None else {"out": "given"}
        entry = entries.entry_of(wanted.urls[0], named)
        expected = _all_expected(entry, wanted.expected)
        if wanted.checksums is not None:
            name = entry.path if wanted.path is None else os.path.basename(wanted.path)
            try:
                expected = _all_expected(entry, dict([wanted.checksums.find(name)]))
            except Refused as error:
                return Result(name, entry.url, None, None, "failed", str(error))
        # Factory wants a path. An absolute one needs no working directory; it isn't written to.
        path = "/stdout" if stdout is not None else wanted.path
        if path is None and wanted.folder is not None:
            path = str(Destination(Path(wanted.folder)).locate(entry.path))
        elif path is not None and stdout is None:
            path = os.path.join(wanted.folder or "", path)
        download: Download = Factory(options.importer).build(
            entry.url, path, SimpleNamespace(**expected)
        )
        name = entry.path if path is None else shown.path(wanted.path or path)
        if path is None:
            name = os.path.relpath(str(download.writer))
    except ValueError as error:
        raise click.UsageError(shown.hint(str(error))) from error
    except OSError as error:
        reason = f"the working directory can't be used: {error.strerror}"
        raise click.UsageError(reason) from error
    if stdout is not None:
        download.writer = Writer(stdout)
    return _job(name, entry.url, expected, partial(_same, download))


def _same(download: Download) -> Download:
    return download


def _job(name: str, url: str, expected: Expected, build: partial[Download]) -> Job:
    size, sha256 = expected.get("size"), expected.get("sha256")
    return Job(
        name,
        url,
        size if isinstance(size, int) else None,
        sha256 if isinstance(sha256, str) else None,
        build,
    )


def _all_expected(entry: Entry, more: Expected) -> Expected:
    """Add to what is known of an entry.

    Raises:
        Refused: The two contradict each other.
    """
    for name, value in more.items():
        if entry.expected.setdefault(name, value) != value:
            raise Refused(f"another {name} is given for it, too")
    return entry.expected


class _Source(Iterable[Job | Result]):
    """The files of the arguments and of a list, in this order."""

    def __init__(self, wanted: Wanted, options: Options) -> None:
        self._wanted = wanted
        self._factory = Factory(options.importer)
        try:
            folder = Path.cwd() if wanted.folder is None else Path(wanted.folder).absolute()
        except OSError as error:
            reason = f"the working directory can't be used: {error.strerror}"
            raise click.UsageError(reason) from error
        self._folder = Destination(folder)
        self._targets = Keys()
        # A list that can be read once only is checked line by line.
        self.is_stream = wanted.listed is not None and not _is_regular(wanted.listed)

    def check(self) -> int | None:
        """Look at all entries before anything is fetched.

        Returns:
            Their number; None if the list can be read once only.

        Raises:
            click.UsageError: One can't be used.
        """
        files = 0
        for item in self._entries(with_list=not self.is_stream):
            if isinstance(item, Refused):
                raise click.UsageError(f"{item}.")
            if not self._targets.add(key_of(item.path)):
                raise click.UsageError(self._again(item))
            files += 1
        return None if self.is_stream else files

    def __iter__(self) -> Iterator[Job | Result]:
        given = len(self._wanted.urls)
        for number, item in enumerate(self._entries(with_list=True)):
            if isinstance(item, Refused):
                yield Result(None, None, None, None, "failed", str(item))
                continue
            is_new = number < given or not self.is_stream
            if is_new or self._targets.add(key_of(item.path)):
                yield self._with_checksum(item)
            else:
                yield _refused(item, self._again(item))

    def _again(self, entry: Entry) -> str:
        return f"{shown.path(entry.path)!r}: two entries have this target"

    def _with_checksum(self, entry: Entry) -> Job | Result:
        try:
            if self._wanted.checksums is not None:
                _all_expected(entry, dict([self._wanted.checksums.find(entry.path)]))
        except Refused as error:
            return _refused(entry, str(error))
        return _job(shown.path(entry.path), entry.url, entry.expected, partial(self._build, entry))

    def _build(self, entry: Entry) -> Download:
        path = self._folder.locate(entry.path)
        return self._factory.build(entry.url, path, SimpleNamespace(**entry.expected))

    def _entries(self, with_list: bool) -> Iterator[Entry | Refused]:
        for url in self._wanted.urls:
            try:
                yield entries.entry_of(url)
            except Refused as error:
                yield error
        if not with_list or self._wanted.listed is None:
            return
        name = "stdin" if self._wanted.listed == STDIO else shown.path(self._wanted.listed)
        with open_list(self._wanted.listed) as file:
            yield from entries.read(file, name)


def _refused(entry: Entry, reason: str) -> Result:
    return Result(entry.path, entry.url, None, None, "failed", reason)


def _is_regular(path: str) -> bool:
    try:
        return path != STDIO and stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        raise click.UsageError(f"-i: {path!r}: {error.strerror}") from error


def open_list(path: str) -> BinaryIO:
    """Open a list of files.

    Args:
        path: The path; - for stdin.

    Raises:
        click.UsageError: It can't be opened.
    """
    if path == STDIO:
        # sys.stdin is None if it was closed.
        descriptor = os.dup(sys.stdin.fileno()) if sys.stdin is not None else -1
        if descriptor < 0:
            raise click.UsageError("-i: stdin is closed.")
        return open(descriptor, "rb")
    try:
        return open(path, "rb")
    except OSError as error:
        raise click.UsageError(f"-i: {path!r}: {error.strerror}") from error
