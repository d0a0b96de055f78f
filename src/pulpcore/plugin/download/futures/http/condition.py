"""Conditional requests: download a file only if it has changed (RFC 9110 section 13)."""

from __future__ import annotations

from typing import NamedTuple

import requests

from .options import Options
from .wire.reply import header

ETAG = "If-None-Match"
LAST_MODIFIED = "If-Modified-Since"
HEADERS = (ETAG, LAST_MODIFIED)
"""The headers of a conditional request, which a server may answer with 304."""


class Validators(NamedTuple):
    """The validators of a version of a file (RFC 9110 section 8.8), as the server sent them.

    Attributes:
        etag (str | None): The ETag with its quotes, and with ``W/`` if it is weak.
        last_modified (str | None): The Last-Modified.
    """

    etag: str | None = None
    last_modified: str | None = None

    def headers(self) -> dict[str, str]:
        """Return the headers that request the file unless it is still this version.

        Both headers are sent if both values are known: If-None-Match has precedence, and a server
        without ETags uses the date (RFC 9110 section 13.1.3).
        """
        return {name: value for name, value in zip(HEADERS, self, strict=True) if value}

    def updated(self, reply: requests.Response) -> Validators:
        """Return the validators of a response, completed by the known ones.

        A 206 or a 304 may omit some of them (RFC 9110 sections 15.3.7 and 15.4.5).

        Args:
            reply: The response.
        """
        return Validators(
            header(reply, "etag") or self.etag,
            header(reply, "last-modified") or self.last_modified,
        )

    @classmethod
    def asked(cls, reply: requests.Response) -> Validators:
        """Return the validators in the request that a response answers.

        Args:
            reply: The response.
        """
        values = (reply.request.headers.get(name) for name in HEADERS)
        return cls(*(value if isinstance(value, str) else None for value in values))

    @classmethod
    def named(cls, validator: str) -> Validators:
        """Return validators with the one that ``If-Range`` used.

        Args:
            validator: A strong ETag, or a date.
        """
        return cls(etag=validator) if validator.startswith('"') else cls(last_modified=validator)


def asked_for(download: Options, source: str) -> dict[str, str]:
    """Return the headers that ask for any version but the one that is at the target.

    There are none if the caller knows no version, if the target is missing, if the caller's own
    headers ask, or if a mirror is asked: validators are those of one origin (RFC 9110 section
    8.8.1).

    Args:
        download: The download.
        source: The URL to ask.
    """
    etag, modified, writer = download.known_etag, download.known_last_modified, download.writer
    if (
        source != download.url
        or any(name in download.headers for name in HEADERS)
        or (writer is not None and writer.is_missing())
    ):
        return {}
    return Validators(etag, modified).headers()


NOTHING = Validators()
"""The validators of a version for which the server sent none."""


def is_unchanged(reply: requests.Response) -> bool:
    """Return whether a response to a conditional request says that the file is unchanged.

    Args:
        reply: The response.
    """
    return reply.status_code == requests.codes.not_modified and any(
        name in reply.request.headers for name in HEADERS
    )
