"""The head of a request, written with as little work as possible."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .error import UnsendableError

_LINE_END = re.compile(r"[\r\n]")
_NO_TARGET = re.compile(r"[^\x21-\x7e]")


class CommonHeaders:
    """Headers that many requests have, whose lines are written once.

    Attributes:
        headers (dict[str, str]): The headers, without Host.
        lines (str): The lines of a head that they are.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        """Take headers.

        Args:
            headers: The headers.
        """
        self.headers = dict(headers)
        self.lines = lines(self.headers)


def head(method: str, target: str, fields: str) -> bytes:
    """Return the head of a request.

    Args:
        method: The method.
        target: The target, as it is sent.
        fields: The lines of its headers.

    Raises:
        UnsendableError: There are characters that can't be sent.
    """
    if _NO_TARGET.search(target) or _NO_TARGET.search(method):
        raise UnsendableError("the method or the URL has characters that can't be sent")
    try:
        return f"{method} {target} HTTP/1.1\r\n{fields}\r\n".encode("latin-1")
    except UnicodeEncodeError:
        # Not within the clause: the error has the whole head as an argument.
        pass
    raise UnsendableError("a header has characters that can't be sent")


def lines(headers: Mapping[str, str | bytes]) -> str:
    """Return the lines of a head that headers are.

    Args:
        headers: The headers.

    Raises:
        UnsendableError: There are characters that can't be sent.
    """
    found = [
        f"{name}: {value if isinstance(value, str) else value.decode('latin-1')}"
        for name, value in headers.items()
    ]
    if any(map(_LINE_END.search, found)):
        raise UnsendableError("a header has characters that can't be sent")
    return "".join(f"{line}\r\n" for line in found)
