"""Continues the content of one source from another one, if a digest covers the whole.

Nothing in the replies of two servers shows that they have the same version. So the digest decides,
and the sizes must agree. A digest that fails is no fault of either source: the engine then fetches
the file once more from one of them alone.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import requests

from ..validation import DigestValidation, SizeValidation
from . import resume
from .options import Options
from .wire.reply import header


class Beginning(NamedTuple):
    """The first bytes of a file, which another source may continue.

    Attributes:
        source (str): The URL that sent the first of them.
        total (int | None): The size of the whole file (bytes). None if it is unknown or
            contradictory, or if the content is encoded. No other source can continue then.
    """

    source: str
    total: int | None

    @classmethod
    def of(cls, download: Options, source: str, total: object, coding: str | None) -> Beginning:
        """Return the beginning for a reply with the whole file, or for an earlier run's note.

        Args:
            download: The download. The sizes that it validates must agree.
            source: The URL that was requested, before redirects.
            total: The size in the reply or the note (bytes). A value of another type is ignored.
            coding: The Content-Encoding; empty without one.
        """
        sizes = {
            each.expected
            for each in download.validations
            if isinstance(each, SizeValidation) and each.enforced
        }
        if type(total) is int:
            sizes.add(total)
        return cls(source, sizes.pop() if len(sizes) == 1 and not coding else None)

    @classmethod
    def noted(
        cls, download: Options, source: str, note: str, version: resume.Version | None
    ) -> Beginning | None:
        """Return the beginning in an earlier run's note; None if it isn't of this source.

        Args:
            download: The download.
            source: The URL that may have sent the first bytes.
            note: What the earlier run noted.
            version: The version in the note; None if the bytes came from several sources.
        """
        if version is not None:
            return cls.of(download, source, version.total, version.coding)
        try:
            place, total = json.loads(note)
        except (ValueError, TypeError, RecursionError):
            return None
        is_it = place == resume.place_of(source)[0]
        return cls.of(download, source, total, None) if is_it else None

    def note(self) -> str:
        """Return a text to store beside bytes that came from several sources."""
        return json.dumps((resume.place_of(self.source)[0], self.total))

    def is_of_another(self, download: Options, source: str) -> bool:
        """Return whether another source of the download sent the first bytes.

        Args:
            download: The download.
            source: The URL of the current source.
        """
        return self.source != source and self.source in (download.url, *download.mirrors)

    def can_be_joined(self, download: Options, position: int) -> bool:
        """Return whether another source may send the rest.

        Args:
            download: The download.
            position: The number of bytes received so far.
        """
        if self.total is None or position >= self.total:
            return False
        # The exact class: a subclass may hash only a part of the content.
        return any(
            type(each) is DigestValidation and each.enforced for each in download.validations
        )

    def headers(self, position: int, end: int | None = None) -> dict[str, str]:
        """Return the headers that request the rest, or a part of it.

        The validator of one source means nothing to another one.

        Args:
            position: The position of the first byte.
            end: The position behind the last one; None for the end of the file.
        """
        return {"Range": resume.range_of(position, end)}

    def is_continued(
        self, reply: requests.Response, answered: str, position: int, end: int | None = None
    ) -> bool:
        """Return whether a 206 has the rest, or a part of it, of a file of the same size.

        Args:
            reply: The response.
            answered: The URL that responded, which may be any.
            position: The position of the first byte to bring.
            end: The position behind the last one; None for the end of the file.
        """
        part = resume.content_range(reply)
        return (
            part is not None
            and (part.first, part.total) == (position, self.total)
            and part.last + 1 == (part.total if end is None else end)
            and resume.is_one_part(reply, part)
            and header(reply, "content-encoding") is None
        )
