"""Reads a file of checksums in the formats of sha256sum (GNU) and sha256 (BSD)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .entries import digest_of
from .manifest import Refused

_GNU = re.compile(r"(\\?)([0-9A-Fa-f]{32,128}) [ *](.+)")
_BSD = re.compile(r"(\\?)([A-Z0-9]+) \((.+)\) = ([0-9A-Fa-f]{32,128})")
_LENGTHS = {32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512"}


class Checksums:
    """The digests in a file of checksums."""

    def __init__(self, lines: Iterable[str]) -> None:
        """Read the lines.

        Args:
            lines: The lines.

        Raises:
            Refused: A line is malformed, its digest is invalid, or a path has two digests.
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
        # Two folders may have different files of one name. Then the name alone tells nothing.
        self._by_name[name] = found if self._by_name.get(name, found) == found else None

    def find(self, path: str) -> tuple[str, str]:
        """Return the algorithm and the digest of a file.

        Args:
            path: The path of the file. It is enough that its last part is listed.

        Raises:
            Refused: It isn't listed, or only its name is, with two different digests.
        """
        found = self._by_path.get(path) or self._by_name.get(path.rpartition("/")[2])
        if found is None:
            raise Refused("the file of --checksums has no line for it, or two files of this name")
        return found
