"""Resumes a download where an attempt broke off.

It never joins parts of two versions of a file. The request for the rest contains a strong validator
of the first part, and the response is checked (RFC 9110 sections 13.1.5 and 14).
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
from .wire.reply import header, length

_CONTENT_RANGE = re.compile(r"bytes[ \t]+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE)
_RANGE = re.compile(r"bytes=(\d{1,18}(?=-)|(?=-\d))-(\d{0,18})", re.IGNORECASE)
_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')


class Version(NamedTuple):
    """The version that the received bytes belong to. The response with the rest must match it.

    Attributes:
        asked (str): A hash of origin and path of the URL that was asked, before redirects.
        place (str): A hash of origin and path of the URL that responded, after redirects.
        query (str): A hash of the query of that URL.
        validator (str): The validator for ``If-Range``.
        modified (str | None): The Last-Modified.
        coding (str): The Content-Encoding; '' without one.
        total (int | None): The size of the whole file (bytes), if known.
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
        """Return the version in a response; None if the response has no strong validator.

        Args:
            reply: The response.
            asked: The URL that was asked, before redirects.
            answered: The URL that responded.
            total: The size of the whole file (bytes), if known.
        """
        validator = strong_validator(reply)
        if validator is None:
            return None
        modified = header(reply, "last-modified")
        place, query = place_of(answered)
        home = place if asked == answered else place_of(asked)[0]
        return cls(home, place, query, validator, modified, _coding(reply), total)

    def headers(self, position: int, end: int | None = None) -> dict[str, str]:
        """Return the headers that request the rest of this version, or a part of it.

        Args:
            position: The position of the first byte.
            end: The position behind the last one; None for the end of the file.
        """
        return {"Range": range_of(position, end), "If-Range": self.validator}

    def is_continued(
        self, reply: requests.Response, answered: str, position: int, end: int | None = None
    ) -> bool:
        """Return whether a 206 brings the rest of this version, up to its end, or a part of it.

        A 206 must repeat the validator of the request (RFC 9110 section 15.3.7). If the total size
        is unknown, nothing shows that the part reaches the end of the file, so it doesn't match.

        Args:
            reply: The response.
            answered: The URL that responded.
            position: The position of the first byte to bring.
            end: The position behind the last one; None for the end of the file.
        """
        part = content_range(reply)
        if part is None or part.first != position or not is_one_part(reply, part):
            return False
        total = part.total if self.total is None else self.total
        if total is None or part.total not in (None, total):
            return False
        if part.last != (total if end is None else end) - 1:
            return False
        place, query = place_of(answered)
        modified = header(reply, "last-modified")
        if place != self.place or _coding(reply) != self.coding:
            return False
        # If only the query differs, it may be a new signature of the same file.
        if query != self.query and (
            modified is None or modified != self.modified or part.total != self.total
        ):
            return False
        return modified in (None, self.modified) and self.validator == (
            header(reply, "etag") or modified
        )

    def note(self) -> str:
        """Return a text to store beside the received bytes."""
        return json.dumps(self)

    @classmethod
    def from_note(cls, note: str, asked: str) -> Version | None:
        """Parse a note; return None if it isn't valid or is of another URL.

        Args:
            note: The text that :meth:`note` returned.
            asked: The URL that is to be asked.
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
    """Return a hash of a URL's origin and path, and one of its query.

    Hashed because a URL may contain a token, and the note is stored on disk.

    Args:
        url: An http or https URL.
    """
    parsed = parse(url, SCHEMES)
    path, _, query = parsed.target.partition("?")
    return _hash(f"{parsed.origin} {path}"), _hash(query)


def range_of(position: int, end: int | None) -> str:
    """Return the header Range for the bytes from a position.

    Args:
        position: The position of the first byte.
        end: The position behind the last one; None for the end of the file.
    """
    return f"bytes={position}-{'' if end is None else end - 1}"


class ContentRange(NamedTuple):
    """The range of bytes in a 206, both ends included; the total is None if unknown."""

    first: int
    last: int
    total: int | None


def strong_validator(reply: requests.Response) -> str | None:
    """Return the validator for ``If-Range``; None if the response has no strong one.

    It is a strong ETag. If there is no ETag at all, it is a Last-Modified that is at least a second
    older than the Date of the response (RFC 9110 section 8.8.2.2).

    Args:
        reply: The response that brought the file.
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
    """Return the range that a 206 says it brings; None if the header is missing or invalid.

    Args:
        reply: The response.
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
    """Return whether a 200 brings the whole file, in spite of a Content-Range.

    RFC 9110 section 14.4 gives that field no meaning in a 200, but some servers send a part.

    Args:
        reply: The response.
    """
    if header(reply, "content-range") is None:
        return True
    part = content_range(reply)
    if part is None or not is_one_part(reply, part):
        return False
    return part.first == 0 and part.total == part.last + 1


def is_one_part(reply: requests.Response, part: ContentRange) -> bool:
    """Return whether the body can be the range that the Content-Range names, and nothing else.

    It can't if its length differs, or if it has the parts of a multipart body with their headers
    (RFC 9110 section 14.6).

    Args:
        reply: The response, whose body is unread.
        part: The range.
    """
    kind = (header(reply, "content-type") or "").partition(";")[0].strip().lower()
    return kind != "multipart/byteranges" and (
        reply.request.method == "HEAD" or length(reply) in (None, part.last - part.first + 1)
    )


def is_as_asked(value: str, part: ContentRange) -> bool:
    """Return whether a range is the one that a Range header requests (RFC 9110 section 14.1.2).

    Args:
        value: The value of the header. It must be a single range of bytes.
        part: The range in the response.
    """
    match = _RANGE.fullmatch(value.replace(" ", ""))
    if match is None:
        return False
    first, last = match.groups()
    end = None if part.total is None else part.total - 1
    if not first:
        # A suffix range: the last `size` bytes. Only the total shows that they are the last ones.
        return end is not None and (
            part.last == end and part.last - part.first + 1 == min(int(last), end + 1)
        )
    if part.first != int(first):
        return False
    if end is None:
        # With an unknown total, only an explicit last position can be verified.
        return bool(last) and part.last == int(last)
    return part.last == (min(int(last), end) if last else end)


def _is_strong(validator: str) -> bool:
    """Return whether it has the form of a strong ETag or of a date."""
    try:
        return bool(_ETAG.fullmatch(validator) or parsedate_to_datetime(validator))
    except (ValueError, TypeError):
        return False


def _coding(reply: requests.Response) -> str:
    value = (header(reply, "content-encoding") or "").strip().lower()
    return "" if value == "identity" else value


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
