"""Going on where an attempt broke off.

Two versions of a file are never spliced: the rest is asked for with a strong validator of what is
here, and what comes is looked at (RFC 9110 sections 13.1.5 and 14).
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import requests

from ..net.url import parse
from .redirect import SCHEMES
from .wire.reply import header

_CONTENT_RANGE = re.compile(r"bytes[ \t]+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE)
_RANGE = re.compile(r"bytes=(\d{1,18}(?=-)|(?=-\d))-(\d{0,18})", re.IGNORECASE)
_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')


class Version(NamedTuple):
    """What the first bytes of a file are of. The rest must agree in all of it.

    Attributes:
        asked (str): Origin and path of the URL that the download has, hashed.
        place (str): Origin and path of the URL that answered, after redirects, hashed.
        query (str): The query of that URL, hashed.
        validator (str): What names the version for ``If-Range``.
        modified (str | None): The Last-Modified.
        coding (str): The Content-Encoding; '' without one.
        total (int | None): The size of the whole file (bytes), where it was said.
    """

    asked: str
    place: str
    query: str
    validator: str
    modified: str | None
    coding: str
    total: int | None

    @classmethod
    def of(
        cls, reply: requests.Response, asked: str, answered: str, total: int | None
    ) -> Version | None:
        """Return the version that a reply brings; None if nothing names it for sure.

        Args:
            reply: The reply.
            asked: The URL that the download has.
            answered: The URL that answered.
            total: The size of the whole file (bytes), where it was said.
        """
        validator = strong_validator(reply)
        if validator is None:
            return None
        modified = header(reply, "last-modified")
        place, query = place_of(answered)
        home = place if asked == answered else place_of(asked)[0]
        return cls(home, place, query, validator, modified, _coding(reply), total)

    def headers(self, position: int) -> dict[str, str]:
        """Return what asks for the rest.

        Args:
            position: How many bytes are here.
        """
        return {"Range": f"bytes={position}-", "If-Range": self.validator}

    def is_continued(self, reply: requests.Response, answered: str, position: int) -> bool:
        """Whether a 206 brings the rest of this version, up to its end.

        A 206 must have the validator that it was asked by (RFC 9110 section 15.3.7). Without a
        total nobody can tell whether it brings all of the rest.

        Args:
            reply: The reply.
            answered: The URL that answered.
            position: How many bytes are here.
        """
        part = content_range(reply)
        if part is None or part.first != position:
            return False
        total = part.total if self.total is None else self.total
        if total is None or part.total not in (None, total) or part.last != total - 1:
            return False
        place, query = place_of(answered)
        modified = header(reply, "last-modified")
        if place != self.place or _coding(reply) != self.coding:
            return False
        # A query that alone differs may be a new signature.
        if query != self.query and (modified != self.modified or part.total != self.total):
            return False
        return modified in (None, self.modified) and self.validator == (
            header(reply, "etag") or modified
        )

    def note(self) -> str:
        """Return a text to keep beside the bytes."""
        return json.dumps(self)

    @classmethod
    def from_note(cls, note: str, asked: str) -> Version | None:
        """Return the version of which a text was kept; None unless it is one of the URL.

        Args:
            note: The text.
            asked: The URL that the download has.
        """
        try:
            version = cls(*json.loads(note))
        except (ValueError, TypeError, RecursionError):
            return None
        texts = (version.place, version.query, version.validator, version.coding)
        if (
            version.asked != place_of(asked)[0]
            or not all(isinstance(text, str) for text in texts)
            or not _is_strong(version.validator)
        ):
            return None
        return version


def place_of(url: str) -> tuple[str, str]:
    """Return origin and path of a URL, and its query, hashed.

    There may be a token in a URL, and a note lies on disk.

    Args:
        url: An http or https URL.
    """
    parsed = parse(url, SCHEMES)
    path, _, query = parsed.target.partition("?")
    return _hash(f"{parsed.origin} {path}"), _hash(query)


class ContentRange(NamedTuple):
    """The part of a file that a 206 brings."""

    first: int
    last: int
    total: int | None


def strong_validator(reply: requests.Response) -> str | None:
    """Return what names the version of a file for ``If-Range``; None if nothing does for sure.

    That is a strong ETag, or else a Last-Modified that is at least a second older than the Date of
    the reply (RFC 9110 section 8.8.2.2), unless there is an ETag that is weak.

    Args:
        reply: The reply that brought the file.
    """
    etag = header(reply, "etag")
    if etag is not None:
        return etag if _ETAG.fullmatch(etag) else None
    modified = header(reply, "last-modified") or ""
    try:
        age = parsedate_to_datetime(header(reply, "date") or "") - parsedate_to_datetime(modified)
    except (ValueError, TypeError):
        return None
    return modified if age >= timedelta(seconds=1) else None


def content_range(reply: requests.Response) -> ContentRange | None:
    """Return the part of the file that a 206 says it brings; None if it can't be told.

    Args:
        reply: The reply.
    """
    match = _CONTENT_RANGE.fullmatch((header(reply, "content-range") or "").strip())
    if match is None:
        return None
    first, last = int(match.group(1)), int(match.group(2))
    total = None if match.group(3) == "*" else int(match.group(3))
    if last < first or (total is not None and last >= total):
        return None
    return ContentRange(first, last, total)


def is_whole(reply: requests.Response) -> bool:
    """Whether nothing in a 200 says that it brings a part only (RFC 9110 section 14.4).

    Args:
        reply: The reply.
    """
    if header(reply, "content-range") is None:
        return True
    part = content_range(reply)
    return part is not None and part.first == 0 and part.total == part.last + 1


def is_as_asked(value: str, part: ContentRange) -> bool:
    """Whether a part of a file is the one that a Range header asks for (RFC 9110 section 14.1.2).

    Args:
        value: The value of the header. It must be a single range of bytes.
        part: The part.
    """
    match = _RANGE.fullmatch(value.replace(" ", ""))
    if match is None:
        return False
    first, last = match.groups()
    end = None if part.total is None else part.total - 1
    if not first:
        # The last so many bytes.
        size = int(last) if end is None else min(int(last), end + 1)
        return part.last - part.first + 1 == size and end in (None, part.last)
    if part.first != int(first):
        return False
    if end is None:
        # Without the total, only an end that was asked for tells that this is all.
        return bool(last) and part.last == int(last)
    return part.last == (min(int(last), end) if last else end)


def _is_strong(validator: str) -> bool:
    """Whether it has the form of a strong ETag or of a date."""
    try:
        return bool(_ETAG.fullmatch(validator) or parsedate_to_datetime(validator))
    except (ValueError, TypeError):
        return False


def _coding(reply: requests.Response) -> str:
    value = (header(reply, "content-encoding") or "").strip().lower()
    return "" if value == "identity" else value


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
