"""Writes the head of a request, with as little work as possible."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .error import UnsendableError

# RFC 9110 section 5.5.
_INVALID = re.compile(r"[\r\n\0]")
_NO_TARGET = re.compile(r"[^\x21-\x7e]")


class CommonHeaders:
    """Headers that many requests share. Their lines are written once.

    Attributes:
        headers (dict[str, str]): The headers, without Host.
        lines (str): Their lines in the head of a request.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        """Write the lines of the headers.

        Args:
            headers: The headers, without Host.
        """
        self.headers = dict(headers)
        self.lines = lines(self.headers)


def head(method: str, target: str, fields: str) -> bytes:
    """Return the head of a request.

    Args:
        method: The method.
        target: The request target (RFC 9112 section 3.2).
        fields: The lines of the headers.

    Raises:
        UnsendableError: The method, the target or a header has characters that can't be sent.
    """
    if _NO_TARGET.search(target) or (method != "GET" and _NO_TARGET.search(method)):
        raise UnsendableError("the method or the URL has characters that can't be sent")
    try:
        return f"{method} {target} HTTP/1.1\r\n{fields}\r\n".encode("latin-1")
    except UnicodeEncodeError:
        # Raise outside of the except clause: the UnicodeEncodeError contains the whole head.
        pass
    raise UnsendableError("a header has characters that can't be sent")


def lines(headers: Mapping[str, str | bytes]) -> str:
    """Return the lines of headers in the head of a request.

    Args:
        headers: The headers.

    Raises:
        UnsendableError: A header has characters that can't be sent.
    """
    found = [
        f"{name}: {value if isinstance(value, str) else value.decode('latin-1')}"
        for name, value in headers.items()
    ]
    if any(map(_INVALID.search, found)):
        raise UnsendableError("a header has characters that can't be sent")
    return "".join(f"{line}\r\n" for line in found)
