"""A request as requests knows it, made ready with as little as possible."""

from __future__ import annotations

import re
from collections.abc import Mapping

import requests
from requests.structures import CaseInsensitiveDict

_LINE_END = re.compile(r"[\r\n]")


class UnsendableError(requests.RequestException):
    """There are characters in a request that would be read as its end, or the end of a line."""


class Common:
    """Headers that many requests have alike, of which the text is made once.

    Attributes:
        headers (dict[str, str]): The headers, without Host.
        text (str): The lines of a head that they are.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        """Take headers.

        Args:
            headers: The headers.
        """
        self.headers = dict(headers)
        self.text = _lines(self.headers)


class Request(requests.PreparedRequest):
    """A request without a body that has common headers, to which others can be added.

    It is a ``requests.PreparedRequest`` in all else. Headers of its own are made when somebody asks
    for them: for a small file that would cost as much as to send it.
    """

    def __init__(self, method: str, url: str, common: Common) -> None:
        """Make a request.

        Args:
            method: The method.
            url: The URL, ready to be sent.
            common: Its headers.
        """
        self._common = common
        self._own: CaseInsensitiveDict[str] | None = None
        super().__init__()
        self.method, self.url = method, url

    @property
    def headers(self) -> CaseInsensitiveDict[str]:
        """The headers, which may be changed."""
        if self._own is None:
            self._own = CaseInsensitiveDict(self._common.headers)
        return self._own

    @headers.setter
    def headers(self, headers: CaseInsensitiveDict[str]) -> None:
        self._own = headers

    @property
    def common(self) -> Common | None:
        """The common headers, while it has no others."""
        return self._common if self._own is None else None


def fields(request: requests.PreparedRequest, authority: str) -> str:
    """Return the lines of a head that are the headers of a request.

    Args:
        request: The request.
        authority: What Host says, unless that is among the headers.

    Raises:
        UnsendableError: There are characters that can't be sent.
    """
    common = request.common if isinstance(request, Request) else None
    if common is not None:
        return f"Host: {authority}\r\n{common.text}"
    lines = _lines(request.headers)
    return lines if "Host" in request.headers else f"Host: {authority}\r\n{lines}"


def _lines(headers: Mapping[str, str | bytes]) -> str:
    lines = [
        f"{name}: {value if isinstance(value, str) else value.decode('latin-1')}"
        for name, value in headers.items()
    ]
    if any(map(_LINE_END.search, lines)):
        raise UnsendableError("a header has characters that can't be sent")
    return "".join(f"{line}\r\n" for line in lines)
