"""Asking only for what has changed (RFC 9110 section 13)."""

from __future__ import annotations

from typing import NamedTuple

import requests

from .wire.reply import header

ETAG = "If-None-Match"
LAST_MODIFIED = "If-Modified-Since"
HEADERS = (ETAG, LAST_MODIFIED)
"""What a server may answer with 304, by name."""


class Validators(NamedTuple):
    """What tells a version of a file from others, as the server said it.

    Attributes:
        etag (str | None): The ETag, with its quotes, and ``W/`` if it is weak.
        last_modified (str | None): The Last-Modified.
    """

    etag: str | None = None
    last_modified: str | None = None

    def headers(self) -> dict[str, str]:
        """Return what asks for any other version.

        Both are sent where both are known: the ETag wins, and a server that knows of none goes by
        the date (RFC 9110 section 13.1.3).
        """
        return {name: value for name, value in zip(HEADERS, self, strict=True) if value}

    def updated(self, reply: requests.Response) -> Validators:
        """Return what a reply says, and where it is silent what was known.

        A 206 need not say all of it again, nor a 304 (RFC 9110 sections 15.3.7 and 15.4.5).

        Args:
            reply: The reply.
        """
        return Validators(
            header(reply, "etag") or self.etag,
            header(reply, "last-modified") or self.last_modified,
        )

    @classmethod
    def asked(cls, reply: requests.Response) -> Validators:
        """Return what the request had that a reply is the answer to.

        Args:
            reply: The reply.
        """
        values = (reply.request.headers.get(name) for name in HEADERS)
        return cls(*(value if isinstance(value, str) else None for value in values))

    @classmethod
    def named(cls, validator: str) -> Validators:
        """Return what there is of a version, given what names it for ``If-Range``.

        Args:
            validator: A strong ETag, or a date.
        """
        return cls(etag=validator) if validator.startswith('"') else cls(last_modified=validator)


NOTHING = Validators()
"""What is known of a version of which the server said nothing."""


def is_unchanged(reply: requests.Response) -> bool:
    """Whether a reply says that the file is unchanged, to a request that asked for that.

    Args:
        reply: The reply.
    """
    return reply.status_code == requests.codes.not_modified and any(
        name in reply.request.headers for name in HEADERS
    )
