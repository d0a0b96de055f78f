"""The cookies that a chain of redirects sets, limited in number and size."""

from __future__ import annotations

from email.message import Message
from typing import TYPE_CHECKING

from requests.cookies import MockRequest, MockResponse, RequestsCookieJar

from .wire.reply import headers

if TYPE_CHECKING:
    import requests

# Browsers keep 50 cookies of up to 4096 bytes for each domain (RFC 6265 section 6.1), and servers
# reject request heads that are much longer. Parsing thousands of cookies would take seconds, which
# no time-out interrupts.
_MOST = 100
_MOST_BYTES = 32 * 1024


class Cookies:
    """The cookies of one chain of redirects."""

    def __init__(self) -> None:
        # Created on demand: creating a jar takes longer than the rest of most requests.
        self._jar: RequestsCookieJar | None = None
        self._left = _MOST
        self._bytes_left = _MOST_BYTES

    def take(self, reply: requests.Response) -> None:
        """Add the cookies that a response sets, up to the limits.

        Args:
            reply: The response.
        """
        fields = Message()
        for value in headers(reply, "set-cookie"):
            if not self._left or len(value) > self._bytes_left:
                break
            self._left -= 1
            self._bytes_left -= len(value)
            fields["Set-Cookie"] = value
        if len(fields):
            self._jar = self._jar or RequestsCookieJar()
            self._jar.extract_cookies(MockResponse(fields), MockRequest(reply.request))  # type: ignore[arg-type]

    def show(self, request: requests.PreparedRequest, others: RequestsCookieJar) -> None:
        """Add the matching cookies to a request.

        Args:
            request: The request.
            others: More cookies, such as those of the session.
        """
        cookies = RequestsCookieJar()
        cookies.update(others)
        cookies.update(self._jar or {})
        if len(cookies):
            request.prepare_cookies(cookies)
