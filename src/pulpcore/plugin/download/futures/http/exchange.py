"""A request and the redirects that follow it, up to the final reply."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import requests
from requests.auth import HTTPBasicAuth

from .. import redact
from ..engine.tracing import Requests, RequestTrace
from ..error import DownloadFailed
from ..net.url import URL, Origin, parse
from ..settings import SSL, Limits, Timeout, User
from ..validation import DigestValidation
from . import failure, redirect, secret
from .authentication import Authentication, key_of
from .cookies import Cookies
from .options import Options
from .redirect import SCHEMES
from .route import Route, find_route, without_client
from .wire.adapter import Request
from .wire.error import StaleConnection, TunnelRefused
from .wire.reply import drain

log = logging.getLogger(__name__)


class Exchange:
    """Sends the request of a download, and follows redirects.

    Attributes:
        reply (requests.Response | None): The last reply.
        urls (list[str]): The requested URLs, in that order, without userinfo and fragment.
    """

    def __init__(
        self,
        download: Options,
        headers: Mapping[str, str],
        before: Callable[[Origin], object],
        connect_timeout: Callable[[], float | None] = lambda: None,
        source: str | None = None,
        limits: tuple[Limits, ...] = (),
        trace: Requests | None = None,
    ) -> None:
        """Create an exchange.

        Args:
            download: The download, whose settings apply.
            headers: Additional headers.
            before: Called before each request, with the origin of its URL.
            connect_timeout: Returns the time-out of a new connection (seconds); None for none.
            source: The URL to request; None for that of the download. A mirror gets neither the
                credentials of the download, nor its client certificate, nor most of its headers.
            limits: The limits of the download.
            trace: Traces the requests of the run; None without tracing.
        """
        self._download, self._source = download, source
        self._is_mirror = source is not None and source != download.url
        self._headers = headers
        self._before, self._connect_timeout = before, connect_timeout
        self._limits, self._trace = limits, trace
        # Created on demand: most requests are answered without a redirect.
        self._cookies: Cookies | None = None
        self._read_timeout = (download.timeout or Timeout()).read
        self._ssl = download.ssl or SSL()
        # The caller's Authorization header takes precedence.
        self._auth = (
            None
            if download.auth is None or "Authorization" in download.headers
            else Authentication(
                download.auth, download, lambda made: self._request(self._urls[-1], made)
            )
        )
        self._home: URL
        self._own_login: tuple[str, str] | None = None
        self._urls: list[URL] = []
        self.urls: list[str] = []
        self._routes: list[Route] = []
        self.reply: requests.Response | None = None

    def run(self, asked: Sequence[str] = ()) -> requests.Response:
        """Return the final reply, with its body unread.

        Args:
            asked: The URLs of an earlier exchange for this source. The last of them is requested.

        Raises:
            DownloadFailed: There is no reply, or a redirect must not be followed.
        """
        try:
            self._begin()
            for text in asked[1:]:
                self._ask(parse(text, SCHEMES))
        except ValueError as error:
            # A handler may have changed the URL after the check.
            raise DownloadFailed(f"url: {error}") from error
        history: list[requests.Response] = []
        while True:
            url = self._urls[-1]
            reply = self.reply = self._request(url)
            if self._auth is not None:
                reply = self.reply = self._auth.answer(
                    reply,
                    stream=True,
                    timeout=(None, self._read_timeout),
                    verify=self._ssl.validation,
                    cert=None,
                    proxies=self._routes[-1].proxies,
                )
            if history:
                reply.history = list(history)
            try:
                target = redirect.location(reply, url)
                if target is None:
                    return reply
                self._ask(target)
                self._check_redirect(target)
            except DownloadFailed as error:
                reply.close()
                secret.hide(error, self._secrets())
                raise
            drain(reply)
            history.append(reply)
            if self._cookies is None:
                self._cookies = Cookies()
            self._cookies.take(reply)

    def first(self) -> tuple[URL, Route, requests.PreparedRequest]:
        """Return the first URL, the route to it, and the request.

        Raises:
            ValueError: The URL is invalid.
            DownloadFailed: A setting is invalid, the route needs a file that can't be read, or
                ``auth`` failed.
        """
        url = self._begin()
        request = self._made(url)
        if self._auth is not None:
            # A signature may have changed the query.
            url = parse(request.url or "", SCHEMES)
        return url, self._routes[-1], request

    def home_route(self) -> Route:
        """Return the route to the URL of the download.

        Raises:
            ValueError: The URL or a setting isn't usable.
        """
        url = self._begin()
        return self._route(url, True)[0]

    def _begin(self) -> URL:
        """Return the first URL."""
        url = self._home = parse(self._download.url, SCHEMES)
        user = self._download.user
        if self._auth is None and user is not None and user.name is not None:
            self._own_login = user.name, user.password or ""
        elif self._auth is None and url.user is not None:
            self._own_login = url.user, url.password or ""
        if self._is_mirror:
            url = parse(self._source or "", SCHEMES)
        self._urls, self.urls = [url], [url.text]
        return url

    def _ask(self, url: URL) -> None:
        self._urls.append(url)
        self.urls.append(url.text)

    def _route(self, url: URL, is_home: bool) -> tuple[Route, tuple[str, str] | None]:
        """Return the route to a URL, and the credentials to send; None leaves them to netrc."""
        download, ssl = self._download, self._ssl
        login = self._own_login if is_home else None
        if self._is_mirror:
            login = _mirror_login(self._urls[0], url) or login
        user = login
        if not is_home:
            ssl = without_client(ssl)
            if login is None and (
                # The download has its own credentials, so netrc isn't used for other hosts either.
                self._is_mirror
                or self._auth is not None
                or self._own_login is not None
                or "Authorization" in download.headers
            ):
                user = ("", "")
        route = find_route(
            url,
            user,
            download.proxy_url or None,
            ssl,
            download.context,
            download.public_only,
            self._limits,
            key_of(download.auth) if is_home and self._auth and download.auth else None,
        )
        return route, login

    def _check_redirect(self, target: URL) -> None:
        download = self._download
        if len(self._urls) > redirect.LIMIT + 1:
            raise DownloadFailed(
                f"there were more than {redirect.LIMIT} redirects, at last to {self._shown(target)}"
            )
        is_proved = any(
            isinstance(v, DigestValidation) and v.enforced for v in download.validations
        )
        if redirect.loses_security(self._urls) and not (download.insecure_redirects or is_proved):
            raise DownloadFailed(
                f"the server redirects from https to {self._shown(target)}: add a digest "
                "validation, or allow insecure_redirects"
            )

    def _request(
        self, url: URL, request: requests.PreparedRequest | None = None
    ) -> requests.Response:
        """Send a request. Repeat it if the server had just closed the connection.

        Args:
            url: The URL.
            request: The request of a hook of ``auth``, for the last request's route. None for a new
                request.
        """
        # The errors that follow must not have the status of a redirect. It would count as that of
        # this host.
        self.reply = None
        if request is None:
            request = self._made(url)
        route = self._routes[-1]
        adapter = route.adapter(url.text)
        asked = url if self._auth is None else parse(request.url or "", SCHEMES)
        # Terminates: each repetition uses up one idle connection.
        while True:
            self._before(url.origin)
            # Each request gets its own trace span, even if it repeats the one before.
            traced = None if self._trace is None else _span(self._trace, request, self._shown(url))
            try:
                reply: requests.Response = adapter.ask(
                    request, asked, self._connect_timeout, self._read_timeout, route.proxies
                )
            except failure.ANTICIPATED as error:
                if not _is_stale(error, self._trace):
                    raise self._failure(error, url) from error
            else:
                if traced is not None:
                    traced.replied(reply.status_code)
                if log.isEnabledFor(logging.DEBUG):
                    log.debug("%s %s: %d", request.method, self._shown(url), reply.status_code)
                return reply

    def _made(self, url: URL) -> requests.PreparedRequest:
        """Add the route to a URL, and return a new request for it."""
        home = self._home
        is_home = url is home or redirect.may_have_credentials(home.origin, url.origin)
        try:
            route, login = self._route(url, is_home)
            self._routes.append(route)
            request = self._prepare(route, url, is_home, login)
        except ValueError as error:
            redact.exception(error)
            raise DownloadFailed(f"a setting is wrong: {error}") from error
        except OSError as error:
            # The system reports an error, for example that a CA file can't be read.
            raise self._failure(error, url) from error
        return self._auth.apply(request) if is_home and self._auth is not None else request

    def _failure(self, error: Exception, url: URL) -> DownloadFailed:
        is_redirected = len(self._urls) > 1
        # The redirect's target may repeat secrets of the request.
        secrets = secret.repeated(url, self._secrets()) if is_redirected else ()
        failed = failure.from_exception(
            error, *secrets, self._download.url, self._source or "", url.text
        )
        failed.refused = failed.refused or failure.is_refusal(error)
        tunnel, retry = failure.find(error, TunnelRefused), self._download.retry
        if tunnel is not None and retry is not None:
            # The caller's status_forcelist also applies to a proxy's replies.
            failed.transient = tunnel.status in retry.status_forcelist
        if is_redirected:
            secret.hide(failed, secrets)
            failed.reason += f"; this was at {self._shown(url)}, where it was redirected to"
        return failed

    def _secrets(self) -> set[str]:
        found = _secrets(self._download, self._source, self._routes)
        return found if self._auth is None else found | self._auth.secrets

    def _shown(self, url: URL) -> str:
        if len(self._urls) == 1:
            return redact.url(url.text)
        return secret.shown(url, self._secrets())

    def _prepare(
        self, route: Route, url: URL, is_home: bool, login: tuple[str, str] | None
    ) -> Request:
        download = self._download
        request = Request(download.method, url.text, route.common)
        if download.headers:
            for name, value in download.headers.items():
                if is_home or (
                    redirect.is_for_mirrors(name)
                    if self._is_mirror
                    else not redirect.is_private(name)
                ):
                    request.headers[name] = value
        if route.is_tunnel:
            # The server at the end of the tunnel must not see the proxy's credentials.
            request.headers.pop("Proxy-Authorization", None)
        if self._headers:
            request.headers.update(self._headers)
        if self._cookies is not None or route.has_cookies:
            (self._cookies or Cookies()).show(request, route.session.cookies)
        auth = login
        if route.netrc and (is_home or redirect.may_have_netrc(self._urls, route.is_netrc_named)):
            auth = route.netrc
        if auth is not None and "Authorization" not in request.headers:
            HTTPBasicAuth(auth[0].encode(), auth[1].encode())(request)
        return request


def _mirror_login(mirror: URL, url: URL) -> tuple[str, str] | None:
    """Return the credentials in a mirror's URL if a URL may get them; else None."""
    if mirror.user is None or not redirect.may_have_credentials(mirror.origin, url.origin):
        return None
    return mirror.user, mirror.password or ""


def _span(trace: Requests, request: requests.PreparedRequest, shown: str) -> RequestTrace:
    return trace.begin(request.method or "", shown, request.headers)


def _is_stale(error: Exception, trace: Requests | None) -> bool:
    """Return whether the server had closed the connection. End the trace of the request."""
    if trace is not None:
        trace.end(error)
    return failure.find(error, StaleConnection) is not None


def _secrets(download: Options, source: str | None, routes: list[Route]) -> set[str]:
    """Return the secrets that a download sends, which a server may repeat."""
    user = download.user or User()
    return secret.of(
        [download.url, source, *(proxy for route in routes for proxy in route.proxies.values())],
        [(user.name, user.password), *(route.netrc for route in routes if route.netrc)],
        download.headers or {},
    )
