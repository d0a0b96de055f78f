"""What a download asks of a reply, whoever brought it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import requests

from .adapter import ForeignReply, Reply

# Fields that may stand once only. In Content-Encoding the codings of several fields are one list.
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


def _of(response: requests.Response) -> Reply:
    found: Any = response
    # An adapter that the caller has mounted brings one that is only what requests knows.
    return found if hasattr(response, "take") else ForeignReply(response)


def header(reply: requests.Response, name: str) -> str | None:
    """Return the value of a header of a reply; None if there is none.

    Some servers, and proxies before them, send a field twice that may stand once. With one value it
    counts once. With values that differ it says nothing: the value is empty, and not None, so that
    nobody takes the field for a missing one.

    Args:
        reply: The reply.
        name: The name of the header, in lower case.
    """
    found: Any = reply if hasattr(reply, "take") else ForeignReply(reply)
    value: str | None = found.header(name)
    if value is None or "," not in value or name not in _ONCE:
        return value
    several: list[str] = found.values(name)
    if several == [value] or ", ".join(several) != value:
        # Only one, or a handler has changed what came.
        return value
    if len(set(several)) == 1:
        return several[0]
    return value if name == "content-encoding" else ""


def headers(reply: requests.Response, name: str) -> list[str]:
    """Return the values of all fields of one name, as they came.

    Args:
        reply: The reply.
        name: The name of the fields, in lower case.
    """
    return _of(reply).values(name)


def length(reply: requests.Response) -> int | None:
    """Return how many bytes the body of a reply has; None where the head doesn't say.

    Args:
        reply: The reply, whose body is unread.
    """
    return _of(reply).length


def reader(reply: requests.Response) -> Callable[[int], bytes]:
    """Return what reads the body of a reply: what is there of it, as it was sent.

    Args:
        reply: The reply.
    """
    return _of(reply).take


def was_taken(reply: requests.Response, size: int) -> bool:
    """Whether nobody but a :func:`reader` has read of the body of a reply, or closed it.

    Args:
        reply: The reply, whose body seems to have come.
        size: How much the reader has returned (bytes).
    """
    return _of(reply).was_taken(size)


def drain(reply: requests.Response) -> None:
    """Read what is left of a reply if it is little and here, to use the connection again.

    Else close the connection.

    Args:
        reply: The reply, whose content nobody needs.
    """
    _of(reply).drain()
