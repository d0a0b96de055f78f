"""Identifies the version of a file on an FTP server.

FTP has no version identifiers such as an ETag. It reports a file's size and modification time
(RFC 3659). The time has a resolution of one second, so a file that is written twice within a
second may keep its time. Size and time therefore identify a version only after that second is
over, as with Last-Modified (RFC 9110 section 8.8.2.2). But FTP doesn't report the server's clock,
and some servers report local time in place of UTC. So one of two conditions must hold:

* The time is more than 13 hours ago by the local clock. The westernmost time zone is 12 hours
  behind UTC, and the rest allows the clocks to differ by up to an hour.
* The server reported the same version at least 2 seconds before. No clock matters then.
"""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_LONG_AGO = timedelta(hours=13)
_SECONDS = 2


class Version(NamedTuple):
    """A version of a file.

    Attributes:
        place (str): A hash that identifies the file: see :func:`place`.
        size (int): The size (bytes).
        modified (str): The modification time, as the server sent it.
    """

    place: str
    size: int
    modified: str

    def note(self) -> str:
        """Return a text to store beside the received bytes."""
        return json.dumps(self)

    @classmethod
    def from_note(cls, note: str) -> Version | None:
        """Parse a note; return None if it isn't valid.

        Args:
            note: The text that :meth:`note` returned.
        """
        try:
            place, size, modified = json.loads(note)
        except (ValueError, TypeError, RecursionError):
            return None
        return cls(place, size, modified)


class Sighting(NamedTuple):
    """A version that the server reported.

    Attributes:
        version (Version): The version.
        since (float): When the server first reported it (``time.monotonic()``).
        is_certain (bool): A later version can't have the same size and time.
    """

    version: Version
    since: float
    is_certain: bool

    @classmethod
    def of(cls, version: Version, asked: float, before: Sighting | None) -> Sighting:
        """Compare the server's report with the last sighting.

        Args:
            version: The version that the server reported.
            asked: When the request was sent (``time.monotonic()``).
            before: The last sighting.
        """
        since, is_over = time.monotonic(), _is_long_ago(version.modified)
        if before is not None and before.version == version:
            since = before.since
            is_over = is_over or asked - since >= _SECONDS
        return cls(version, since, is_over)


def _is_long_ago(modified: str) -> bool:
    try:
        modified_at = datetime.strptime(modified[:14] + "+0000", "%Y%m%d%H%M%S%z")
    except ValueError:
        return False
    return datetime.now(UTC) - modified_at > _LONG_AGO


def place(url: str, user: str) -> str:
    """Return a hash that identifies a file.

    Args:
        url: The URL.
        user: The user's name, because the path is relative to the user's home directory.
    """
    # Hashed because the URL may contain a password, and the note is stored on disk.
    return hashlib.sha256(f"{user}\n{url}".encode("utf-8", "surrogatepass")).hexdigest()
