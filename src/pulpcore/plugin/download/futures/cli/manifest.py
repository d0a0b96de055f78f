"""Reads PULP_MANIFEST, the list of a repository's files, one ``path,sha256,size`` a line.

It follows pulp_file, so that the program downloads what Pulp would download.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from pulpcore.plugin.download.futures import redact
from pulpcore.plugin.download.futures.storage.staging import is_reserved

from . import shown

LIMIT = 128 * 2**20
"""The largest manifest that is read (bytes): about a million files."""

# The limits of Linux (bytes), and one for the depth: each folder of a path costs system calls.
_LONGEST_PATH = 4095
_LONGEST_NAME = 255
_DEEPEST = 100

# Split from the right: a path may have commas.
_LINE = re.compile(
    r"(?P<path>.*),\s*(?P<sha256>[0-9A-Fa-f]{64})\s*,\s*(?P<size>[0-9]{1,18})\s*", re.DOTALL
)


@dataclass(frozen=True)
class Entry:
    """A file of a manifest.

    Attributes:
        line (int): The number of the line, from 1.
        path (str): The path, relative to the manifest, its parts divided by '/'.
        sha256 (str): The digest (hex, lower case).
        size (int): The size (bytes).
    """

    line: int
    path: str
    sha256: str
    size: int

    @property
    def quoted(self) -> str:
        """The path as it stands in a URL."""
        return "/".join(quote(part, safe="") for part in self.path.split("/"))

    def url(self, manifest: str) -> str:
        """Return the URL of the file: next to the manifest, with the query of the manifest's URL.

        Servers that require a token in the query require it for each file. pulp_file does the same.

        Args:
            manifest: The URL of the manifest.
        """
        base, mark, query = manifest.partition("#")[0].partition("?")
        # urljoin() would normalize an unusual base URL.
        folder = base[: base.rindex("/") + 1] if urlsplit(base).path else base + "/"
        return folder + self.quoted + mark + query


@dataclass(frozen=True)
class BadLine:
    """A line of a manifest that can't be used.

    Attributes:
        line (int): The number of the line, from 1.
        path (str | None): The path; None if the line can't be parsed.
        reason (str): What is wrong with the line.
    """

    line: int
    path: str | None
    reason: str

    def __str__(self) -> str:
        return f"line {self.line} of the manifest: {self.reason}"


class Unusable(Exception):
    """The manifest can't be read; the message says why.

    Attributes:
        status (int | None): The status of the reply, if there was one.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        """Create the exception.

        Args:
            reason: Why.
            status: The status of the reply.
        """
        super().__init__(reason)
        self.status = status


class Refused(ValueError):
    """A path that must not be written to; the message says why."""


def parse(content: bytes) -> list[Entry | BadLine]:
    """Parse a manifest.

    It skips blank lines, comments, which begin with ``#``, and repetitions of an earlier line. A
    bad line doesn't affect the others.

    Args:
        content: The manifest.

    Returns:
        The entries and the bad lines, in order.

    Raises:
        Unusable: The content isn't UTF-8, or it has no line in the format of a manifest.
    """
    items: list[Entry | BadLine] = []
    files: dict[str, Entry] = {}
    # splitlines() would also split at other characters, which may be part of a path.
    for number, line in enumerate(_decode(content).split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _entry(number, line)
        if isinstance(found, Entry):
            first = files.setdefault(found.path, found)
            if first is not found:
                if (first.sha256, first.size) == (found.sha256, found.size):
                    continue
                reason = f"the path has another size or digest than in line {first.line}"
                found = BadLine(number, found.path, reason)
        items.append(found)
    if items and all(item.path is None for item in items):
        raise Unusable(f"this is no manifest: {items[0]}: is its URL right?")
    conflicts = _conflicts(files)
    return [
        BadLine(item.line, item.path, conflicts[item.path])
        if isinstance(item, Entry) and item.path in conflicts
        else item
        for item in items
    ]


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"the manifest is no text in UTF-8 (byte {error.start}): is its URL right?"
        raise Unusable(reason) from error


def _entry(number: int, line: str) -> Entry | BadLine:
    match = _LINE.fullmatch(line)
    if match is None:
        return BadLine(number, None, f"not path,sha256,size: {shown.excerpt(line)}")
    path = match["path"].strip()
    try:
        path = relative(path)
    except Refused as error:
        # Redact it: the path may be the tail of a URL, with a secret.
        return BadLine(number, shown.value(path), str(error))
    return Entry(number, path, match["sha256"].lower(), int(match["size"]))


def _conflicts(files: dict[str, Entry]) -> dict[str, str]:
    """Find paths that are a file in one line and a folder in another. The first line wins.

    It looks folders up among the files, and doesn't collect them: a path may have a hundred.

    Args:
        files: The entries by path, in the order of their lines.

    Returns:
        The reason for each path that is refused.
    """
    conflicts: dict[str, str] = {}
    for entry in files.values():
        if entry.path in conflicts:
            continue
        for folder in _folders(entry.path):
            file = files.get(folder)
            if file is None or folder in conflicts:
                continue
            if file.line < entry.line:
                conflicts[entry.path] = f"{folder!r} in the path is a file in line {file.line}"
                break
            conflicts[folder] = f"the path is that of a folder in line {entry.line}"
    return conflicts


def _folders(path: str) -> Iterator[str]:
    end = path.find("/")
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)


def relative(path: str) -> str:
    """Check a path without looking at the disk, and drop its empty parts and those that are ``.``.

    Args:
        path: The path.

    Raises:
        Refused: The path must not be used.
    """
    if "\0" in path:
        raise Refused("the path has a NUL character")
    if "\\" in path:
        raise Refused("the path has a backslash, which divides folders on some systems")
    if path.startswith("/") or re.match("[A-Za-z]:", path):
        raise Refused("the path is absolute, and must be relative")
    if re.match("[A-Za-z][A-Za-z0-9+.-]*:/", path):
        raise Refused("the path is a URL, and must be relative")
    try:
        size = len(os.fsencode(path))
    except UnicodeEncodeError:
        raise Refused("the path can't be encoded for the file system") from None
    parts = path.split("/")
    if (
        size > _LONGEST_PATH
        or len(parts) > _DEEPEST
        or any(len(os.fsencode(part)) > _LONGEST_NAME for part in parts)
    ):
        raise Refused(
            f"the path is too long: it may have {_LONGEST_PATH} bytes, {_DEEPEST} parts, "
            f"and {_LONGEST_NAME} bytes in each"
        )
    if ".." in parts:
        raise Refused("the path has a '..', which leaves the destination")
    if parts[-1] in ("", "."):
        raise Refused("the path names no file")
    if any(map(is_reserved, parts)):
        raise Refused("the path has a name that is used for temporary files")
    return "/".join(part for part in parts if part not in ("", "."))


class Destination:
    """The folder that the files of a manifest are written to. No path may lead out of it."""

    def __init__(self, folder: Path) -> None:
        """Resolve the links in the folder's path.

        Args:
            folder: The folder. It may be a link.
        """
        self._folder = folder
        self._real = os.path.realpath(folder)
        # A cache: there are fewer folders than files, and resolving one costs system calls.
        self._folders: dict[str, str] = {}

    def locate(self, path: str) -> Path:
        """Return the full path of a file.

        Args:
            path: The path in the manifest.

        Raises:
            Refused: A link leads out of the folder.
        """
        above, _, name = path.rpartition("/")
        real = self._folders.get(above)
        if real is None:
            real = self._folders[above] = os.path.realpath(self._folder / above)
        target = os.path.join(real, name)
        if os.path.islink(target):
            real = target = os.path.realpath(target)
        if os.path.commonpath((self._real, real)) != self._real or target == self._real:
            raise Refused("the path leaves the destination through a link")
        return self._folder / path


def folder_for(url: str) -> str:
    """Return the default name of the destination, from the manifest's host and path.

    Args:
        url: The URL of the manifest.
    """
    # Redact first: in a malformed URL, what looks like the path may contain a password.
    rest = re.sub("[A-Za-z][A-Za-z0-9+.-]*:(//)?", "", redact.url(url), count=1).partition("?")[0]
    name = rest.rpartition("/")[0] if "/" in rest else rest
    return re.sub("[^A-Za-z0-9._]+", "-", name).strip("-.") or "pulp-futures-sync"


def name_of(url: str) -> str:
    """Return the last part of a URL's path, as it stands in the URL.

    Args:
        url: The URL.
    """
    # urlsplit() would raise an error for a malformed URL.
    path = re.split("[?#]", url.partition("://")[2], maxsplit=1)[0].partition("/")[2]
    return path.rpartition("/")[2]
