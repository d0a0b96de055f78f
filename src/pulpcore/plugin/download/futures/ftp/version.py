"""Which version of a file the bytes are of.

FTP names no versions. What it has is a file's size and the time when it was modified
(RFC 3659), which have one weakness: the time has a resolution of a second, and a file that is
written twice within one has the same time twice. So they tell a version for sure only when that
second is over, as it is with Last-Modified (RFC 9110 section 8.8.2.2). But FTP tells no server's
clock, and some servers give local time in place of UTC. Hence one of two things is asked for:

* The time is more than 13 hours ago by our own clock: that is long over in any time zone, the
  westernmost being 12 hours behind, and by any clock that isn't off by an hour.
* The same version was seen 2 seconds before: then it is, by whatever clock.
"""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_SURELY_OVER = timedelta(hours=13)
_SECONDS = 2


class Version(NamedTuple):
    """A version of a file.

    Attributes:
        place (str): What tells the file from others.
        size (int): Its size (bytes).
        modified (str): When it was modified, in the server's words.
    """

    place: str
    size: int
    modified: str

    def note(self) -> str:
        """Return a text to keep beside the bytes."""
        return json.dumps(self)

    @classmethod
    def from_note(cls, note: str) -> Version | None:
        """Return the version of which a text was kept; None if it isn't one.

        Args:
            note: The text.
        """
        try:
            place, size, modified = json.loads(note)
        except (ValueError, TypeError, RecursionError):
            return None
        return cls(place, size, modified)


class Sighting(NamedTuple):
    """A version that was seen on the server.

    Attributes:
        version (Version): The version.
        since (float): When it was seen for the first time (``time.monotonic()``).
        is_certain (bool): No later version can look like it.
    """

    version: Version
    since: float
    is_certain: bool

    @classmethod
    def of(cls, version: Version, asked: float, before: Sighting | None) -> Sighting:
        """Make one from what the server has just told.

        Args:
            version: What it told.
            asked: When it was asked (``time.monotonic()``).
            before: The last sighting.
        """
        since, is_over = time.monotonic(), _is_long_ago(version.modified)
        if before is not None and before.version == version:
            since = before.since
            is_over = is_over or asked - since >= _SECONDS
        return cls(version, since, is_over)


def _is_long_ago(modified: str) -> bool:
    try:
        told = datetime.strptime(modified[:14] + "+0000", "%Y%m%d%H%M%S%z")
    except ValueError:
        return False
    return datetime.now(UTC) - told > _SURELY_OVER


def place(url: str, user: str) -> str:
    """Return what tells a file from others.

    Args:
        url: The URL.
        user: The user's name, for paths are relative to the user's folder.
    """
    # There may be a password in the URL, and a note lies on disk.
    return hashlib.sha256(f"{user}\n{url}".encode("utf-8", "surrogatepass")).hexdigest()
