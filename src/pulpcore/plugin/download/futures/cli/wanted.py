"""The files that the arguments of ``get`` name: URLs, a list, and a Metalink document."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import click

from pulpcore.plugin.download.futures import Download, Factory

from . import lists, metalink, shown
from .checksums import Checksums
from .entries import Entry, Expected, entry_of, is_http
from .jobs import Job
from .keys import Keys, key_of
from .manifest import Destination, Refused, name_of
from .options import Options
from .output import Output, Result

STDIO = "-"
"""The path that means stdin or stdout."""


@dataclass(frozen=True)
class Wanted:
    """The arguments of ``get`` that name files.

    Attributes:
        urls (tuple[str, ...]): The URLs.
        listed (str | None): The path of a list; ``-`` for stdin.
        metalink (str | None): The path or the URL of a Metalink document.
        checksums (Checksums | None): The digests of all files.
        folder (str | None): The folder of all files; None for the working directory.
        path (str | None): The path of the only file; ``-`` for stdout.
        expected (dict[str, int | str]): The expected size and digests of the only file.
    """

    urls: tuple[str, ...]
    listed: str | None
    metalink: str | None
    checksums: Checksums | None
    folder: str | None
    path: str | None
    expected: Expected

    @property
    def is_one(self) -> bool:
        """Whether there is one URL and nothing else."""
        return len(self.urls) == 1 and self.listed is None and self.metalink is None


class Files(Iterable[Job | Result]):
    """The files of the arguments, of a Metalink document, and of a list, in this order."""

    def __init__(self, wanted: Wanted, options: Options) -> None:
        """Check the arguments. Nothing is read yet.

        Args:
            wanted: The arguments.
            options: The options.

        Raises:
            click.UsageError: The list or the working directory can't be used.
        """
        self._wanted = wanted
        self._options = options
        self._factory = Factory(options.importer)
        try:
            folder = Path.cwd() if wanted.folder is None else Path(wanted.folder).absolute()
        except OSError as error:
            reason = f"the working directory can't be used: {error.strerror}"
            raise click.UsageError(reason) from error
        self._folder_path = str(folder)
        self._folder = Destination(folder)
        self._targets = Keys()
        self._given: list[Entry | Refused | Result] = [_of_argument(url) for url in wanted.urls]
        # A pipe can be read only once, so its entries are checked while they are fetched.
        self.is_stream = wanted.listed is not None and not _is_regular(wanted.listed)

    def read_metalink(self, output: Output) -> None:
        """Read the Metalink document.

        Args:
            output: Reports to the user.

        Raises:
            click.UsageError: A local document can't be used, or the URL is invalid.
            KeyboardInterrupt: The user has interrupted it. A result says so.
        """
        where = self._wanted.metalink
        if where is None:
            return
        try:
            self._given += metalink.read(where, self._options, output)
        except KeyboardInterrupt:
            reason = "it was interrupted"
            self._given.append(Result(None, where, None, None, "interrupted", reason))
            raise

    def check(self) -> int | None:
        """Check all entries before anything is fetched.

        Returns:
            Their number; None if the list can be read only once.

        Raises:
            click.UsageError: An entry can't be used, or two have the same target.
        """
        files = 0
        for item in self._entries(with_list=not self.is_stream):
            if isinstance(item, Refused):
                raise click.UsageError(f"{item}.")
            if isinstance(item, Entry) and not self._targets.add(key_of(item.path)):
                raise click.UsageError(self._again(item))
            files += 1
        return None if self.is_stream else files

    def __iter__(self) -> Iterator[Job | Result]:
        given = len(self._given)
        for number, item in enumerate(self._entries(with_list=True)):
            if isinstance(item, Result):
                yield item
            elif isinstance(item, Refused):
                yield Result(None, None, None, None, "failed", str(item))
            elif number < given or not self.is_stream or self._targets.add(key_of(item.path)):
                yield self._with_checksum(item)
            else:
                yield _refused(item, self._again(item))

    def _again(self, entry: Entry) -> str:
        text = f"{shown.path(entry.path)!r}: two entries have this target"
        return f"line {entry.line} of {self._list_name()}: {text}" if entry.line else text

    def _list_name(self) -> str:
        listed = self._wanted.listed or ""
        return "stdin" if listed == STDIO else shown.path(listed)

    def _with_checksum(self, entry: Entry) -> Job | Result:
        try:
            if self._wanted.checksums is not None:
                add_expected(entry, dict([self._wanted.checksums.find(entry.path)]))
        except Refused as error:
            return _refused(entry, str(error))
        target = f"{self._folder_path}/{entry.path}"
        return job_of(entry, shown.path(entry.path), partial(self._build, entry), target)

    def _build(self, entry: Entry) -> Download:
        factory = self._options.foreign(entry.url) if entry.is_foreign else self._factory
        return build(entry, self._folder.locate(entry.path), factory, self._options)

    def _entries(self, with_list: bool) -> Iterator[Entry | Refused | Result]:
        found = chain(self._given, self._listed() if with_list else ())
        return found if self._options.mirrors is None else map(self._checked, found)

    def _checked(self, item: Entry | Refused | Result) -> Entry | Refused | Result:
        """Return the entry, or the reason why the bases of --mirror can't be used for it."""
        if isinstance(item, Entry):
            try:
                check_mirrors(item, self._options)
            except Refused as error:
                return Refused(f"{shown.path(item.path)!r}: {error}")
        return item

    def _listed(self) -> Iterator[Entry | Refused]:
        if self._wanted.listed is None:
            return
        with open_list(self._wanted.listed) as file:
            yield from lists.read(file, self._list_name())


def check_mirrors(entry: Entry, options: Options) -> None:
    """Check that the bases of --mirror can be used for a file.

    Args:
        entry: The file.
        options: The options.

    Raises:
        Refused: The file isn't fetched over http or https, or a base and its name make no URL.
    """
    if options.mirrors is None:
        return
    if not is_http(entry.url):
        raise Refused("--mirror: only a URL of http or https has mirrors")
    try:
        options.mirrors_of(name_of(entry.url))
    except ValueError as error:
        raise Refused(f"--mirror: {error}") from error


def build(entry: Entry, path: Path | str | None, factory: Factory, options: Options) -> Download:
    """Return the download of an entry.

    Args:
        entry: The entry, which has passed :func:`check_mirrors`.
        path: The path of the file; None for the name in the URL.
        factory: The factory that builds it.
        options: The options.

    Raises:
        ValueError: The URL or the path can't be used.
    """
    download: Download = factory.build(entry.url, path, SimpleNamespace(**entry.expected))
    options.prepare(download, [*entry.mirrors, *options.mirrors_of(name_of(entry.url))])
    return download


def job_of(entry: Entry, name: str, make: Callable[[], Download], target: str | None) -> Job:
    """Return the job of an entry.

    Args:
        entry: The entry.
        name: What messages and JSON call the file.
        make: Makes the download.
        target: The full path of the file; None if the content goes to no file.
    """
    size, sha256 = entry.expected.get("size"), entry.expected.get("sha256")
    return Job(
        name,
        entry.url,
        size if isinstance(size, int) else None,
        sha256 if isinstance(sha256, str) else None,
        make,
        target,
    )


def add_expected(entry: Entry, more: Expected) -> None:
    """Add an expected size or digest to an entry.

    Args:
        entry: The entry to change.
        more: The size or a digest.

    Raises:
        Refused: The entry has another value for it.
    """
    for name, value in more.items():
        if entry.expected.setdefault(name, value) != value:
            raise Refused(f"another {name} is given for it, too")


def _of_argument(url: str) -> Entry | Refused:
    try:
        return entry_of(url)
    except Refused as error:
        return error


def _refused(entry: Entry, reason: str) -> Result:
    return Result(entry.path, entry.url, None, None, "failed", reason)


def _is_regular(path: str) -> bool:
    if path == STDIO:
        # Python sets sys.stdin to None if file descriptor 0 is closed.
        if sys.stdin is None:
            raise click.UsageError("-i: stdin is closed.")
        return False
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise click.UsageError(f"-i: {path!r}: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise click.UsageError(f"-i: {path!r}: it is a folder.")
    return stat.S_ISREG(mode)


def open_list(path: str) -> BinaryIO:
    """Open a list of files.

    Args:
        path: The path; ``-`` for stdin.

    Raises:
        click.UsageError: It can't be opened.
    """
    if path == STDIO:
        return open(os.dup(sys.stdin.fileno()), "rb")
    try:
        return open(path, "rb")
    except OSError as error:
        raise click.UsageError(f"-i: {path!r}: {error.strerror}") from error
