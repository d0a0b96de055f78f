"""Reads lists in the form of aria2's option ``--input-file``.

Each line is a URL, or several URLs of the same file with tabs between them. Indented lines under it
are its options. Blank lines and lines that begin with ``#`` are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO
from urllib.parse import unquote

from . import shown
from .entries import Entry, Expected, entry_of
from .manifest import Refused

OPTIONS = ("checksum", "dir", "out", "size")
"""The options that an entry may have."""

# The longest line (bytes), and the most lines of an entry.
_LONGEST = 2**16
_MOST = 100
_BOM = b"\xef\xbb\xbf"

# A fast path for entries in the usual form, because a list may have a million of them. All others
# are parsed by _unusual().
_PORT = "[1-9][0-9]{0,3}|[1-5][0-9]{4}"
_HOST = rf"[A-Za-z0-9]+(?:[.-][A-Za-z0-9]+)*(?::(?:{_PORT}))?"
_NAME = r"\w[\w.~+-]{0,200}"
_PATH = rf"(?:{_NAME}/){{0,9}}{_NAME}"
_USUAL = re.compile(
    rf"(https?://{_HOST}/(?:[\w.~+%-]+/)*(\w[\w.~+%-]{{0,200}}))"
    rf"((?:\thttps?://{_HOST}/[\w.~+%/-]*)*)\n"
    rf"(?:[ \t]+(?:out=({_PATH})|dir=({_PATH})"
    r"|checksum=sha-256=([0-9a-f]{64})|size=([0-9]{1,18}))\n)*",
    re.ASCII,
)
_DECODED = re.compile(r"\w[\w.~+: -]{0,200}", re.ASCII)


def read(file: BinaryIO, name: str) -> Iterator[Entry | Refused]:
    """Read a list, line by line.

    Args:
        file: The list.
        name: Its name for messages.

    Yields:
        Each entry, or the reason why it can't be used.
    """
    number, numbers, lines = 0, list[int](), list[bytes]()
    while line := file.readline(_LONGEST):
        number += 1
        if number == 1:
            line = line.removeprefix(_BOM)
        if len(line) == _LONGEST:
            _skip_rest(file)
        if line[:1] not in (b" ", b"\t"):
            if line[:1] == b"#" or not line.strip():
                continue
            if lines:
                yield _entry(numbers, lines, name)
            numbers, lines = [number], [line]
        elif line.strip() and len(lines) <= _MOST:
            numbers.append(number)
            lines.append(line)
    if lines:
        yield _entry(numbers, lines, name)


def _skip_rest(file: BinaryIO) -> None:
    while (line := file.readline(_LONGEST)) and not line.endswith(b"\n"):
        pass


def _entry(numbers: list[int], lines: list[bytes], name: str) -> Entry | Refused:
    """Return the entry in the lines, or the reason why it can't be used."""
    text = b"".join(lines).decode("utf-8", "surrogateescape")
    usual = _USUAL.fullmatch(text)
    if usual is None or len(lines) > _MOST:
        return _unusual(numbers, lines, name)
    url, path, others, out, folder, digest, size = usual.groups()
    if out is not None:
        path = out
    elif "%" in path and _DECODED.fullmatch(path := unquote(path)) is None:
        return _unusual(numbers, lines, name)
    if folder is not None:
        path = f"{folder}/{path}"
    expected: Expected = {}
    if digest is not None:
        expected["sha256"] = digest
    if size is not None:
        expected["size"] = int(size)
    sources = tuple(others.split("\t")[1:]) if others else ()
    return Entry(url, path, expected, sources, line=numbers[0])


def _unusual(numbers: list[int], lines: list[bytes], name: str) -> Entry | Refused:
    options: dict[str, str] = {}
    sources: list[str] = []
    place = numbers[0]
    try:
        for number, line in zip(numbers, lines, strict=True):
            place = number
            _add(line, sources, options)
        place = numbers[0]
        return replace(_checked(len(lines), sources, options), line=place)
    except Refused as error:
        return Refused(f"line {place} of {name}: {error}")


def _checked(count: int, sources: list[str], options: dict[str, str]) -> Entry:
    if count > _MOST:
        raise Refused(f"it has more than {_MOST} lines")
    return entry_of(sources[0], options, sources[1:])


def _add(line: bytes, sources: list[str], options: dict[str, str]) -> None:
    """Add the sources or the option of a line."""
    if len(line) >= _LONGEST:
        raise Refused("it is too long")
    text = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
    if text[0] not in " \t":
        sources += [each.strip() for each in text.split("\t") if each.strip()]
        return
    key, equals, value = text.strip().partition("=")
    if not sources:
        raise Refused("an option stands above the first URL")
    if not equals or key not in OPTIONS:
        raise Refused(f"no option of {', '.join(OPTIONS)}: {shown.excerpt(text.strip())}")
    options[key] = value
