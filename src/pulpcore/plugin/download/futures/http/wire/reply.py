"""Access to a ``requests.Response``, of our own engine or of another adapter."""

from __future__ import annotations

from typing import Any

import requests

from .adapter import Reply
from .foreign import ForeignReply

# Fields that may occur once only. Content-Encoding is a list, so several fields are joined.
_ONCE = frozenset(
    {
        "content-disposition",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "date",
        "etag",
        "last-modified",
        "location",
        "retry-after",
    }
)


READ_BY_OTHERS = (
    "somebody else has read of the reply or closed it, such as a handler: leave its body alone "
    "while the download runs"
)
"""The reason of a failure if ``was_taken`` of a :class:`Reply` is False."""


def of(response: requests.Response) -> Reply:
    """Return a response as downloads read it.

    Args:
        response: The response. That of an adapter which the caller has mounted is a plain
            ``requests.Response``, and lacks the methods of a :class:`Reply`.
    """
    found: Any = response
    return found if hasattr(response, "take") else ForeignReply(response)


def header(reply: requests.Response, name: str) -> str | None:
    """Return the value of a header of a response; None if there is none.

    Some servers and proxies repeat a field that may occur once only. If all values are the same, it
    counts as one field. If they differ, the result is empty. It isn't None, because the field is
    not missing.

    Args:
        reply: The response.
        name: The name of the header, in lower case.
    """
    found: Any = reply if hasattr(reply, "take") else ForeignReply(reply)
    value: str | None = found.fields.get(name)
    if value is None or "," not in value or name not in _ONCE:
        return value
    several: list[str] = found.values(name)
    if several == [value] or ", ".join(several) != value:
        # There is one field, or a handler has changed the headers of the response.
        return value
    if len(set(several)) == 1:
        return several[0]
    return value if name == "content-encoding" else ""


def headers(reply: requests.Response, name: str) -> list[str]:
    """Return the values of all fields with a name, as received.

    Args:
        reply: The response.
        name: The name of the fields, in lower case.
    """
    return of(reply).values(name)


def length(reply: requests.Response) -> int | None:
    """Return the size of the body of a response (bytes); None if the head doesn't give it.

    Args:
        reply: The response, with its body unread.
    """
    return of(reply).length


def drain(reply: requests.Response) -> None:
    """Make the connection reusable, if only a few bytes of the body are left and available.

    Otherwise close the connection.

    Args:
        reply: The response, whose content isn't needed.
    """
    of(reply).drain()
