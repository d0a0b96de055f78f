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

from .wire.reply import header

_CONTENT_RANGE = re.compile(r"bytes[ \t]+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE)
_RANGE = re.compile(r"bytes=(\d{1,18}(?=-)|(?=-\d))-(\d{0,18})", re.IGNORECASE)
_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')


class Version(NamedTuple):
    """A version of a file of which the first bytes are here.

    Attributes:
        url (str): The URL that the download has.
        validator (str): What names the version for ``If-Range``.
        total (int | None): The size of the whole file (bytes), where it was said.
    """

    url: str
    validator: str
    total: int | None

    def headers(self, position: int) -> dict[str, str]:
        """Return what asks for the rest.

        Args:
            position: How many bytes are here.
        """
        return {"Range": f"bytes={position}-", "If-Range": self.validator}

    def is_continued(self, reply: requests.Response, position: int) -> bool:
        """Whether a 206 brings the rest of this version.

        Args:
            reply: The reply.
            position: How many bytes are here.
        """
        part = content_range(reply)
        if part is None or part.first != position or not self._is_named(reply):
            return False
        total = part.total if self.total is None else self.total
        return part.total in (None, total) and (total is None or part.last == total - 1)

    def note(self) -> str:
        """Return a text to keep beside the bytes."""
        return json.dumps([_hash(self.url), self.validator, self.total])

    @classmethod
    def from_note(cls, note: str, url: str) -> Version | None:
        """Return the version of which a text was kept; None unless it is one of the URL.

        Args:
            note: The text.
            url: The URL that the download has.
        """
        try:
            name, validator, total = json.loads(note)
        except (ValueError, TypeError, RecursionError):
            return None
        if name != _hash(url) or not isinstance(validator, str) or not _is_strong(validator):
            return None
        return cls(url, validator, total if isinstance(total, int) else None)

    def _is_named(self, reply: requests.Response) -> bool:
        """Whether nothing in the reply names another version."""
        if (header(reply, "Content-Encoding") or "identity").lower() != "identity":
            return False
        etag = header(reply, "ETag")
        if self.validator.startswith('"'):
            return etag in (None, self.validator)
        return etag is None and header(reply, "Last-Modified") in (None, self.validator)


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
    etag = header(reply, "ETag")
    if etag is not None:
        return etag if _ETAG.fullmatch(etag) else None
    modified = header(reply, "Last-Modified") or ""
    try:
        age = parsedate_to_datetime(header(reply, "Date") or "") - parsedate_to_datetime(modified)
    except (ValueError, TypeError):
        return None
    return modified if age >= timedelta(seconds=1) else None


def content_range(reply: requests.Response) -> ContentRange | None:
    """Return the part of the file that a 206 says it brings; None if it can't be told.

    Args:
        reply: The reply.
    """
    match = _CONTENT_RANGE.fullmatch((header(reply, "Content-Range") or "").strip())
    if match is None:
        return None
    first, last = int(match.group(1)), int(match.group(2))
    total = None if match.group(3) == "*" else int(match.group(3))
    if last < first or (total is not None and last >= total):
        return None
    return ContentRange(first, last, total)


def is_as_asked(value: str, part: ContentRange) -> bool:
    """Whether a part of a file is the one that a Range header asks for (RFC 9110 section 14.1.2).

    A server may send less than was asked for (section 15.3.7), which nobody expects.

    Args:
        value: The value of the header. Of several ranges nothing is known.
        part: The part.
    """
    match = _RANGE.fullmatch(value.replace(" ", ""))
    if match is None:
        return True
    first, last = match.groups()
    end = None if part.total is None else part.total - 1
    if not first:
        # The last so many bytes.
        return end is None or (part.first, part.last) == (max(0, end + 1 - int(last)), end)
    if part.first != int(first):
        return False
    if end is None:
        return not last or part.last <= int(last)
    return part.last == (min(int(last), end) if last else end)


def _is_strong(validator: str) -> bool:
    """Whether it has the form of a strong ETag or of a date."""
    try:
        return bool(_ETAG.fullmatch(validator) or parsedate_to_datetime(validator))
    except (ValueError, TypeError):
        return False


def _hash(url: str) -> str:
    # There may be a token in the URL, and a note lies on disk.
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
