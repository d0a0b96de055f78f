"""Reads lists of files to download: URLs with a digest, lists in aria2's form, and checksums.

The form of aria2 is that of its option ``--input-file``: a URL a line, and indented lines under it
with its options. Blank lines and lines that begin with ``#`` are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from pulpcore.plugin.download.futures import DigestValidation, Factory
from pulpcore.plugin.download.futures.factory import file_name

from . import shown
from .manifest import Refused, relative

_LONGEST = 2**16

# A URL that needs no closer look: its last part is its name. For speed only.
_PLAIN = re.compile(r"https?://[A-Za-z0-9.:-]+/(?:[\w.~+-]+/)*(\w[\w.~+-]{0,200})", re.ASCII)
_FRAGMENT = re.compile(r"(.*)#(\w+)=([^#]*)", re.DOTALL)
_GNU = re.compile(r"(\\?)([0-9A-Fa-f]{32,128}) [ *](.+)")
_BSD = re.compile(r"(\\?)([A-Z0-9]+) \((.+)\) = ([0-9A-Fa-f]{32,128})")
_LENGTHS = {32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512"}

Expected = dict[str, int | str]


@dataclass(frozen=True, slots=True)
class Entry:
    """A file to download.

    Attributes:
        url (str): The URL.
        path (str): Where it goes, relative to the folder of all files.
        expected (dict[str, int | str]): What is known of it: ``size`` (bytes) and digests (hex).
    """

    url: str
    path: str
    expected: Expected = field(default_factory=dict)


class Checksums:
    """What a file of checksums says, as sha256sum and its relatives write it."""

    def __init__(self, lines: Iterable[str]) -> None:
        """Read the lines.

        Args:
            lines: The lines.

        Raises:
            Refused: One is no line of checksums, or a name has two digests.
        """
        self._by_path: dict[str, tuple[str, str]] = {}
        self._by_name: dict[str, tuple[str, str] | None] = {}
        for number, line in enumerate(lines, start=1):
            if line.strip() and not line.startswith("#"):
                self._add(number, line.rstrip("\r\n"))

    def _add(self, number: int, line: str) -> None:
        if (match := _GNU.fullmatch(line)) is not None:
            escaped, digest, path = match.groups()
            algorithm = _LENGTHS.get(len(digest), "")
        elif (match := _BSD.fullmatch(line)) is not None:
            escaped, algorithm, path, digest = match.groups()
        else:
            raise Refused(f"line {number} is no checksum and name of a file")
        try:
            algorithm, digest = digest_of(algorithm, digest)
        except ValueError as error:
            raise Refused(f"line {number}: {error}") from error
        if escaped:
            path = re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), path)
        path = path.removeprefix("./")
        found = algorithm, digest
        if self._by_path.setdefault(path, found) != found:
            raise Refused(f"line {number}: {path!r} has another digest above")
        name = path.rpartition("/")[2]
        # Two folders may have different files of one name.
        self._by_name[name] = found if self._by_name.get(name, found) == found else None

    def find(self, path: str) -> tuple[str, str]:
        """Return the algorithm and the digest of a file.

        Args:
            path: The path of the file; only its last part has to be listed.

        Raises:
            Refused: It isn't listed, or its name is that of two different files.
        """
        found = self._by_path.get(path) or self._by_name.get(path.rpartition("/")[2])
        if found is None:
            raise Refused("--checksums doesn't name it, or names two files so")
        return found


def digest_of(algorithm: str, digest: str) -> tuple[str, str]:
    """Check a digest.

    Args:
        algorithm: The name of the algorithm; ``sha-256`` means ``sha256``.
        digest: The digest (hex).

    Returns:
        The algorithm's name as hashlib has it, and the digest in lower case.

    Raises:
        ValueError: One of them can't be right.
    """
    name = algorithm.lower().replace("-", "")
    return name, DigestValidation(name, digest).expected


def entry_of(text: str, options: dict[str, str] | None = None) -> Entry:
    """Return the entry of a URL, which may end in ``#sha256=HEX``.

    Args:
        text: The URL.
        options: The options of aria2's form.

    Raises:
        Refused: The URL or an option can't be used.
    """
    if not options and (plain := _PLAIN.fullmatch(text)) is not None:
        return Entry(text, plain[1])
    expected: Expected = {}
    url, options = text, options or {}
    fragment = _FRAGMENT.fullmatch(text)
    try:
        if fragment is not None and fragment[2].lower() in DigestValidation.ALGORITHMS:
            url = fragment[1]
            algorithm, digest = digest_of(fragment[2], fragment[3])
            expected[algorithm] = digest
        if not Factory.serves(url):
            raise Refused(f"no URL of http, https, ftp, ftps or file: {shown.excerpt(text)}")
        if "checksum" in options:
            algorithm, digest = digest_of(*options["checksum"].partition("=")[::2])
            if expected.setdefault(algorithm, digest) != digest:
                raise Refused(f"the URL has another {algorithm} digest than its option checksum")
        if "size" in options:
            expected["size"] = _size(options["size"])
        name = relative(options["out"]) if "out" in options else file_name(url)
        if "dir" in options:
            name = relative(f"{options['dir']}/{name}")
    except ValueError as error:
        raise error if isinstance(error, Refused) else Refused(str(error)) from error
    return Entry(url, name, expected)


def _size(text: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text):
        raise Refused(f"size={shown.value(text)} is no number of bytes")
    return int(text)


_OPTIONS = ("checksum", "dir", "out", "size")


def read(file: BinaryIO, name: str) -> Iterator[Entry | Refused]:
    """Read a list in aria2's form, line by line.

    Args:
        file: The list.
        name: Its name for messages.

    Yields:
        The entries, and in the place of each that can't be used the reason.
    """
    entry = _Lines(name)
    number = 0
    while line := file.readline(_LONGEST):
        number += 1
        text = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
        if not text.strip() or text.startswith("#"):
            continue
        if entry.first and text[0] not in " \t":
            yield entry.finish()
            entry = _Lines(name)
        try:
            entry.add(number, text if len(line) < _LONGEST else None)
        except Refused as error:
            entry.first = entry.first or number
            entry.problem = entry.problem or f"line {number} of {name}: {error}"
    if entry.first:
        yield entry.finish()


class _Lines:
    """The lines of one entry.

    Attributes:
        first (int): The number of the line with the URL; 0 before there is one.
        problem (str): What is wrong with a line.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.first = 0
        self.problem = ""
        self._url = ""
        self._options: dict[str, str] = {}

    def add(self, number: int, text: str | None) -> None:
        if text is None:
            raise Refused("it is too long")
        if text[0] not in " \t":
            self.first = number
            self._url, *others = text.strip().split("\t")
            if others:
                raise Refused("several sources of one file aren't supported")
            return
        key, equals, value = text.strip().partition("=")
        if not self.first:
            raise Refused("an option stands above the first URL")
        if not equals or key not in _OPTIONS:
            raise Refused(f"no option of {', '.join(_OPTIONS)}: {shown.excerpt(text.strip())}")
        self._options[key] = value

    def finish(self) -> Entry | Refused:
        try:
            return Refused(self.problem) if self.problem else entry_of(self._url, self._options)
        except Refused as error:
            return Refused(f"line {self.first} of {self._name}: {error}")
