"""Entries: the files that ``get`` is to download, as URLs with options describe them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from pulpcore.plugin.download.futures import DigestValidation, Factory
from pulpcore.plugin.download.futures.factory import file_name
from pulpcore.plugin.download.futures.net.url import parse

from . import shown
from .manifest import Refused, relative

_HTTP = re.compile("https?:", re.IGNORECASE)
_FILE = re.compile("file:", re.IGNORECASE)
_FRAGMENT = re.compile(r"(.*)#(\w+)=([^#]*)", re.DOTALL)

Expected = dict[str, int | str]


@dataclass(frozen=True, slots=True)
class Entry:
    """A file to download.

    Attributes:
        url (str): The URL.
        path (str): Where it goes, relative to the folder of all files.
        expected (dict[str, int | str]): What is known of it: ``size`` (bytes) and digests (hex).
        mirrors (Sequence[str]): More URLs of the same file.
        is_foreign (bool): Somebody else chose the URL, so credentials must not be sent there.
        line (int): The number of its line in a list, from 1; 0 if it comes from elsewhere.
    """

    url: str
    path: str
    expected: Expected = field(default_factory=dict)
    mirrors: Sequence[str] = ()
    is_foreign: bool = False
    line: int = field(default=0, compare=False)


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


def is_http(url: str) -> bool:
    """Return whether a URL is one of http or https, which alone have mirrors.

    Args:
        url: The URL.
    """
    return _HTTP.match(url) is not None


def check(url: str) -> None:
    """Check that a URL can be parsed, so that a wrong one is refused before anything is fetched.

    Args:
        url: The URL. Its scheme has been checked.

    Raises:
        Refused: It isn't valid.
    """
    if _FILE.match(url) is None:
        try:
            parse(url)
        except ValueError as error:
            raise Refused(
                f"{shown.excerpt(url)}: the URL {str(error).removeprefix('it ')}"
            ) from error


def entry_of(
    text: str, options: dict[str, str] | None = None, mirrors: Sequence[str] = ()
) -> Entry:
    """Return the entry of a URL, which may end in ``#sha256=HEX``.

    Args:
        text: The URL.
        options: The options of aria2's form.
        mirrors: More URLs of the same file. Each may end in a digest, too.

    Raises:
        Refused: A URL or an option can't be used.
    """
    expected: Expected = {}
    options = options or {}
    try:
        url, *others = (_source(each, expected) for each in (text, *mirrors))
        if others and not all(map(is_http, (url, *others))):
            raise Refused("only URLs of http and https can be sources of the same file")
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
    return Entry(url, name, expected, tuple(others))


def _source(text: str, expected: Expected) -> str:
    """Return the URL of a source without its digest, which is added to what is expected."""
    url = text
    fragment = _FRAGMENT.fullmatch(text)
    if fragment is not None and fragment[2].lower() in DigestValidation.ALGORITHMS:
        url = fragment[1]
        algorithm, digest = digest_of(fragment[2], fragment[3])
        if expected.setdefault(algorithm, digest) != digest:
            raise Refused(f"its sources have different {algorithm} digests")
    if not Factory.serves(url):
        raise Refused(f"no URL of http, https, ftp, ftps or file: {shown.excerpt(text)}")
    check(url)
    return url


def _size(text: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text):
        raise Refused(f"size={shown.value(text)} is no number of bytes")
    return int(text)
