"""Mirrors: several servers with the same tree of files, and the lists that name them.

A plugin reads a mirrorlist by :meth:`Mirrors.parse` and gives it to a :class:`.Factory`. A Metalink
document names mirrors, size and digests of single files: see :class:`Metalink`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import unquote
from xml.parsers import expat

from . import redact
from .engine.sources import Site, Source, ranked
from .http import HttpDownload
from .net.url import parse
from .storage.staging import is_reserved
from .validation import DigestValidation, SizeValidation
from .writer import FileWriter

log = logging.getLogger(__name__)

SCHEMES = ("http", "https")
"""The schemes that a mirror may have."""

LARGEST = 10 * 1024 * 1024
"""The largest Metalink document (bytes)."""

_DEEPEST = 2
"""How deep within a file an element may be to count."""

_VERSION_4 = "urn:ietf:params:xml:ns:metalink"
_VERSION_3 = "http://www.metalinker.org/"
_LAST = 999999


class Mirrors:
    """Base URLs of the same tree of files, with the history of each.

    Share one object between all downloads from these mirrors: it learns which of them are fast and
    which fail. Thread-safe.

    Attributes:
        bases (tuple[str, ...]):
            The base URLs, as given.
    """

    def __init__(self, bases: Iterable[str]) -> None:
        """Store the bases.

        Args:
            bases:
                The base URLs. Credentials of a download go to the first one only.

        Raises:
            ValueError:
                There is none, or one is no http URL, or has a query or a fragment.
        """
        self.bases = tuple(bases)
        if not self.bases:
            raise ValueError("mirrors: there is no base URL")
        for number, base in enumerate(self.bases, start=1):
            try:
                parse(base, SCHEMES)
            except ValueError as error:
                raise ValueError(f"mirrors: number {number}: {error}") from error
            if "?" in base or "#" in base:
                raise ValueError(f"mirrors: number {number} has a query or a fragment")
        self._sites = {base: Site() for base in self.bases}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a mirrorlist: one URL a line. A line that begins with ``#`` is a comment.

        A line that is no http URL is skipped with a warning.

        Args:
            text:
                The mirrorlist.

        Raises:
            ValueError:
                It has no http URL.
        """
        bases = []
        for number, line in enumerate(text.splitlines(), start=1):
            url = line.strip()
            if not url or url.startswith("#"):
                continue
            if _is_http(url) and "?" not in url and "#" not in url:
                bases.append(url)
            else:
                log.warning("Line %d of a mirrorlist is no http URL, and is skipped", number)
        if not bases:
            raise ValueError("the mirrorlist has no http URL")
        return cls(bases)

    def url(self, path: str) -> str:
        """Return the URL of a file at the first base.

        Args:
            path:
                The path of the file below the bases, encoded as in a URL.

        Raises:
            ValueError:
                The path begins with a slash, or leads out of the tree.
        """
        return _joined(self.bases[0], path)

    def urls(self, path: str) -> list[str]:
        """Return the URLs of a file, the one to ask first at the beginning.

        Without a history they are in the order of the bases.

        Args:
            path:
                The path of the file below the bases, encoded as in a URL.

        Raises:
            ValueError:
                The path begins with a slash, or leads out of the tree.
        """
        return [Source(_joined(base, path), self._sites[base]) for base in ranked(self._sites)]

    def __repr__(self) -> str:
        return f"<Mirrors {', '.join(map(redact.url, self.bases))}>"


class MetalinkURL(NamedTuple):
    """A URL of a file.

    Attributes:
        url (str):
            The URL.
        priority (int):
            1 is asked first. Of a document of version 3 it is 101 less ``preference``.
        location (str | None):
            The country of the server (ISO 3166-1).
    """

    url: str
    priority: int
    location: str | None = None

    def __repr__(self) -> str:
        return f"<MetalinkURL {redact.url(self.url)} priority={self.priority}>"


class MetalinkFile(NamedTuple):
    """A file of a Metalink document.

    Attributes:
        name (str):
            Its name, a relative path that stays in its folder.
        size (int | None):
            Its size (bytes); None if the document doesn't say.
        digests (dict[str, str]):
            The digests in hex, by the names of hashlib.
        urls (list[MetalinkURL]):
            Its http URLs, the one with the best priority first.
    """

    name: str
    size: int | None
    digests: dict[str, str]
    urls: list[MetalinkURL]

    def download(self, folder: str | os.PathLike[str]) -> HttpDownload[FileWriter]:
        """Return a download of the file, with its mirrors, its size and its strongest digest.

        Args:
            folder: The folder to write the file to.

        Raises:
            ValueError: The file has no http URL, or a link leads out of the folder.
        """
        if not self.urls:
            raise ValueError("the file has no http URL")
        path = Path(folder) / self.name
        if not path.resolve().is_relative_to(Path(folder).resolve()):
            raise ValueError("there is a link in the folder that leads out of it")
        url, *mirrors = (each.url for each in self.urls)
        download = HttpDownload(url, FileWriter(str(path)), mirrors=mirrors)
        if self.size is not None:
            download.validations.append(SizeValidation(self.size))
        for algorithm in DigestValidation.ALGORITHMS:
            if algorithm in self.digests:
                download.validations.append(DigestValidation(algorithm, self.digests[algorithm]))
                break
        return download


class Metalink(NamedTuple):
    """A Metalink document (RFC 5854, and version 3 as Fedora publishes it).

    Attributes:
        files (list[MetalinkFile]): Its files.
    """

    files: list[MetalinkFile]

    @classmethod
    def parse(cls, data: bytes | str) -> Self:
        """Read a document. It may be hostile, so entities and any DTD are refused.

        Args:
            data: The document.

        Raises:
            ValueError:
                It isn't well-formed, is no Metalink document, has a DTD, an entity or more than 10
                MiB, the name of a file leads out of its folder or is that of a staging file, a size
                or a digest can't be right, or there is no http URL.
        """
        raw = data.encode() if isinstance(data, str) else data
        if len(raw) > LARGEST:
            raise ValueError(f"the Metalink document has more than {LARGEST} bytes")
        reader = _Reader()
        try:
            reader.read(raw)
        except expat.ExpatError as error:
            # The exception chain must not contain the document's text.
            raise ValueError(f"the Metalink document is not well-formed: {error}") from None
        for file in reader.files:
            # Sort once at the end, because a document may have a hundred thousand URLs.
            file.urls.sort(key=lambda url: url.priority)
        if not any(file.urls for file in reader.files):
            raise ValueError("the Metalink document has no http URL")
        return cls(reader.files)


class _Reader:
    """Reads a document with expat, which builds no tree.

    An element counts only at its expected place: a ``hash`` may also be that of a piece, or of an
    older version (Fedora's ``alternates``).
    """

    # The elements whose text is used, by version and by path below the file element.
    _PLACES: dict[str, dict[tuple[str, ...], str]] = {  # noqa: RUF012 - never changed
        _VERSION_4: {("size",): "size", ("hash",): "hash", ("url",): "url"},
        _VERSION_3: {
            ("size",): "size",
            ("verification", "hash"): "hash",
            ("resources", "url"): "url",
        },
    }
    _FILES = {  # noqa: RUF012 - never changed
        _VERSION_4: ("metalink", "file"),
        _VERSION_3: ("metalink", "files", "file"),
    }

    def __init__(self) -> None:
        self.files: list[MetalinkFile] = []
        self._version = ""
        self._path: list[str] = []
        self._text: list[str] | None = None
        self._attributes: dict[str, str] = {}

    def read(self, data: bytes) -> None:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.Parse(data, True)

    def _refuse(self, *_: Any) -> None:
        raise ValueError("the Metalink document has a DTD, which may define entities")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        space, _, local = name.rpartition(" ")
        if not self._path:
            if local != "metalink" or space not in self._FILES:
                raise ValueError("this is no Metalink document of version 3 or 4")
            self._version = space
        # Elements of other namespaces match no place.
        self._path.append(local if space == self._version else "")
        self._text = None
        if self._place() == ():
            self.files.append(MetalinkFile(_name(attributes.get("name", "")), None, {}, []))
        elif self._kind() is not None:
            self._text, self._attributes = [], attributes

    def _characters(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def _end(self, _name: str) -> None:
        if self._text is not None and (kind := self._kind()) is not None:
            self._take(kind, "".join(self._text).strip())
        self._text = None
        self._path.pop()

    def _kind(self) -> str | None:
        """Return the kind of the current element; None if it is irrelevant."""
        place = self._place()
        return None if place is None else self._PLACES[self._version].get(place)

    def _place(self) -> tuple[str, ...] | None:
        """Return the path of the current element below ``file``; None if outside or too deep."""
        within = self._FILES[self._version]
        # A document may nest a million elements, and copying the path at each would take hours.
        if len(self._path) > len(within) + _DEEPEST or tuple(self._path[: len(within)]) != within:
            return None
        return tuple(self._path[len(within) :])

    def _take(self, kind: str, text: str) -> None:
        file = self.files[-1]
        if kind == "size":
            self.files[-1] = file._replace(size=_number(text, "size"))
        elif kind == "hash":
            _add_digest(file.digests, self._attributes.get("type", ""), text)
        elif _is_http(text):
            given = self._attributes.get("location")
            file.urls.append(MetalinkURL(text, self._priority(), given))

    def _priority(self) -> int:
        if self._version == _VERSION_4:
            return _number(self._attributes.get("priority", str(_LAST)), "priority")
        return 101 - _number(self._attributes.get("preference", "1"), "preference")


def _add_digest(digests: dict[str, str], kind: str, text: str) -> None:
    """Add a digest, unless its algorithm is unknown."""
    # "sha-256" in version 4 (RFC 5854 section 4.2.4), "sha256" in version 3.
    algorithm = kind.lower().replace("-", "")
    if algorithm not in DigestValidation.ALGORITHMS:
        return
    value = DigestValidation(algorithm, text).expected
    if digests.setdefault(algorithm, value) != value:
        raise ValueError(f"the Metalink document has two different digests of {algorithm}")


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ValueError(f"the Metalink document has a {what} that is no number from 0")
    return int(text)


def _name(name: str) -> str:
    """Return the name of a file if it stays in its folder (RFC 5854 section 4.1.2.1)."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or not name.isprintable():
        raise ValueError("the name of a file in the Metalink document leads out of its folder")
    if "\\" in name or ":" in parts[0]:
        raise ValueError("the name of a file in the Metalink document is one of Windows")
    if any(map(is_reserved, parts)):
        raise ValueError("the name of a file in the Metalink document is one of a staging file")
    return name


def _joined(base: str, path: str) -> str:
    plain = unquote(path.partition("?")[0]).replace("\\", "/")
    if plain.startswith("/") or ".." in plain.split("/"):
        raise ValueError("the path must be relative, and must not lead out of the mirror's tree")
    return f"{base.rstrip('/')}/{path}"


def _is_http(url: str) -> bool:
    try:
        parse(url, SCHEMES)
    except ValueError:
        return False
    return True
