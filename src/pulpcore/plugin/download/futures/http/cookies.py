"""The cookies that a chain of redirects sets, a bounded number of them."""

from __future__ import annotations

from email.message import Message
from typing import TYPE_CHECKING

from requests.cookies import MockRequest, MockResponse, RequestsCookieJar

from .wire.reply import headers

if TYPE_CHECKING:
    import requests

# A browser keeps 50 cookies of a domain, each of 4096 bytes (RFC 6265 section 6.1), and no server
# takes a head that is much longer. To parse thousands of cookies takes seconds, which no time-out
# ends.
_MOST = 100
_MOST_BYTES = 32 * 1024


class Cookies:
    """The cookies of one chain of redirects.

    Attributes:
        jar (RequestsCookieJar): The cookies.
    """

    def __init__(self) -> None:
        self.jar = RequestsCookieJar()
        self._left = _MOST
        self._bytes_left = _MOST_BYTES

    def take(self, reply: requests.Response) -> None:
        """Add the cookies that a reply sets, as long as there are few.

        Args:
            reply: The reply.
        """
        fields = Message()
        for value in headers(reply, "set-cookie"):
            if not self._left or len(value) > self._bytes_left:
                break
            self._left -= 1
            self._bytes_left -= len(value)
            fields["Set-Cookie"] = value
        if len(fields):
            self.jar.extract_cookies(MockResponse(fields), MockRequest(reply.request))  # type: ignore[arg-type]
