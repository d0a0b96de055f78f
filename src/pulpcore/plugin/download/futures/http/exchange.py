"""A request and the redirects that follow it, up to the reply that counts."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

import requests
from requests.auth import HTTPBasicAuth
from requests.cookies import RequestsCookieJar

from .. import redact
from ..error import DownloadFailed
from ..settings import SSL, Timeout
from ..validation import DigestValidation
from . import failure, redirect
from .route import Route, find_route, origin, without_client
from .wire.reply import drain
from .wire.request import Request
from .wire.transport import StaleConnection

if TYPE_CHECKING:
    from .download import HttpDownload

# A URL in which there is nothing to make ready: requests would leave each of these as it is.
_PLAIN = re.compile(
    r"https?://[a-z0-9][a-z0-9.\-]*(:[1-9][0-9]*)?(/(?!\.)[A-Za-z0-9_~!$&'()*+,;=:@.\-]*)+"
    r"(\?[A-Za-z0-9_~!$&'()*+,;=:@.?/\-]+)?"
)


class Exchange:
    """Sends what a download asks for, and follows redirects.

    Attributes:
        urls (list[str]): The URLs that were asked, in that order.
        reply (requests.Response | None): The last reply.
    """

    def __init__(
        self,
        download: HttpDownload,
        headers: Mapping[str, str],
        before: Callable[[], float | None],
    ) -> None:
        """Make an exchange.

        Args:
            download: Whose settings count.
            headers: Headers to send beside those of the download.
            before: Called before each request; returns how long a connection may take (seconds).
        """
        self._download = download
        self._headers = headers
        self._before = before
        self._cookies: RequestsCookieJar | None = None
        self._read_timeout = (download.timeout or Timeout()).read
        self._ssl = download.ssl or SSL()
        self.urls = [download.url]
        self.reply: requests.Response | None = None

    def run(self) -> requests.Response:
        """Return the reply that counts, with its content unread.

        Raises:
            DownloadFailed: There is none, or a redirect must not be followed.
        """
        history: list[requests.Response] = []
        while True:
            reply = self.reply = self._request(self.urls[-1])
            reply.history = list(history)
            try:
                target = redirect.location(reply, self.urls[-1])
            except DownloadFailed:
                reply.close()
                raise
            if target is None:
                return reply
            drain(reply)
            self.urls.append(target)
            self._check_redirect()
            history.append(reply)
            if self._cookies is None:
                self._cookies = RequestsCookieJar()
            self._cookies.update(reply.cookies)

    def route(self, url: str) -> Route:
        """Return the route to a destination.

        Args:
            url: The URL of the destination.

        Raises:
            ValueError: The URL or a setting isn't usable.
        """
        download = self._download
        user, ssl = self._credentials(), self._ssl
        if not self._is_home(url):
            ssl = without_client(ssl)
            if user is not None or "Authorization" in download.headers:
                # The download has credentials of its own: a netrc file has no say elsewhere either.
                user = ("", "")
        return find_route(
            url, user, download.proxy_url or None, ssl, download.context, download.public_only
        )

    def _check_redirect(self) -> None:
        download = self._download
        target = redact.url(self.urls[-1])
        if len(self.urls) > redirect.LIMIT + 1:
            raise DownloadFailed(
                f"there were more than {redirect.LIMIT} redirects, at last to {target}"
            )
        try:
            origin(self.urls[-1])
        except ValueError as error:
            raise DownloadFailed(f"the server redirects to {target}: {error}") from None
        if redirect.loses_security(self.urls) and not download.insecure_redirects:
            digests = [v for v in download.validations if isinstance(v, DigestValidation)]
            if not any(digest.enforced for digest in digests):
                raise DownloadFailed(
                    f"the server redirects from https to {target}: add a digest validation, "
                    "or allow insecure_redirects"
                )

    def _request(self, url: str) -> requests.Response:
        """Send one request, again if it went to a connection that the server had closed."""
        # An error from here on has no status: that of a redirect would be read as the host's.
        self.reply = None
        try:
            route = self.route(url)
            request = self._prepare(route, url)
        except requests.RequestException as error:
            raise failure.from_exception(error, url) from error
        except ValueError as error:
            redact.exception(error)
            raise DownloadFailed(f"a setting is wrong: {error}") from error
        # Not ours, if the session's owner has mounted another.
        adapter = route.session.get_adapter(url)
        # Ends, for each time a connection less is kept.
        while True:
            timeout: Any = (self._before(), self._read_timeout)
            began = time.monotonic()
            try:
                reply = adapter.send(
                    request,
                    stream=True,
                    timeout=timeout,
                    verify=self._ssl.validation,
                    proxies=route.proxies,
                )
            except failure.ANTICIPATED as error:
                if failure.find(error, StaleConnection) is None:
                    raise self._failure(error, url) from error
            else:
                reply.elapsed = timedelta(seconds=time.monotonic() - began)
                return reply

    def _failure(self, error: Exception, url: str) -> DownloadFailed:
        failed = failure.from_exception(error, url, self._download.url)
        if len(self.urls) > 1:
            failed.reason += f"; this was at {redact.url(url)}, where it was redirected to"
        return failed

    def _prepare(self, route: Route, url: str) -> Request:
        download = self._download
        is_home = self._is_home(url)
        request = Request(download.method, url, route.common)
        if _PLAIN.fullmatch(url) is None:
            request.prepare_url(_without_userinfo(url), None)
        if download.headers:
            for name, value in download.headers.items():
                if is_home or not redirect.is_private(name):
                    request.headers[name] = value
        if route.is_tunnel:
            # Within the tunnel the server would see it.
            request.headers.pop("Proxy-Authorization", None)
        if self._headers:
            request.headers.update(self._headers)
        if self._cookies or len(route.session.cookies):
            cookies = RequestsCookieJar()
            cookies.update(route.session.cookies)
            cookies.update(self._cookies or {})
            request.prepare_cookies(cookies)
        auth = self._credentials() if is_home else None
        if route.netrc and (is_home or redirect.may_have_netrc(self.urls, route.is_netrc_named)):
            auth = route.netrc
        if auth is not None and "Authorization" not in request.headers:
            HTTPBasicAuth(auth[0].encode(), auth[1].encode())(request)
        return request

    def _is_home(self, url: str) -> bool:
        home = self._download.url
        return url == home or redirect.may_have_credentials(origin(home), origin(url))

    def _credentials(self) -> tuple[str, str] | None:
        user = self._download.user
        if user is not None and user.name is not None:
            return user.name, user.password or ""
        if "@" not in self._download.url:
            return None
        parts = urlsplit(self._download.url)
        if not parts.username and not parts.password:
            return None
        return unquote(parts.username or ""), unquote(parts.password or "")


def _without_userinfo(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
