"""Downloading by HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, overload

import requests

from ..download import Download, derived
from ..engine import backoff
from ..engine.attempt import Attempt, record_of
from ..engine.limited import limits_of
from ..settings import SSL, Timeout, User
from ..writer import W_co
from . import condition
from .check import auth_of, headers_of, method_of, mirrors_of, parts_of, proxy_of
from .exchange import Exchange
from .options import Auth
from .protocol import HttpProtocol
from .transfer import Transfer

if TYPE_CHECKING:
    from urllib3.util import Retry

    from ..writer import FileWriter, StrPath


class HttpDownload(Download[W_co]):
    """Downloads a file by HTTP, from ``http://`` and ``https://`` URLs.

    It writes the bytes that the server published, so a ``.gz`` file isn't decompressed. The module
    :mod:`~pulpcore.plugin.download.futures.http.coding` describes what happens if a server encodes
    content without being asked.

    Attributes:
        method (str):
            GET or HEAD. A HEAD request returns a reply and no content.
        timeout (Timeout):
            The time-outs.
        user (User):
            The credentials for basic authentication. Like the client certificate and the headers
            Authorization, Cookie and Proxy-Authorization, they are only sent to the scheme, host
            and port of the URL, and not after a redirect to another one. An Authorization header
            has precedence over :attr:`auth`, that over ``user``, that over userinfo in the URL, and
            that over a netrc file.
            A netrc file also applies to other hosts that it names, after a redirect.
        ssl (SSL):
            The TLS settings.
        proxy_url (str | None):
            The URL of a proxy for http and https, which may contain credentials. None for the
            environment variables, such as ``https_proxy``.
        headers (MutableMapping[str, str]):
            Request headers. They are added to the library's own, or replace them.
        insecure_redirects (bool):
            Follow redirects from https to http, even if no digest validates the content.
        public_only (bool):
            Connect to public addresses only, also after a redirect: not to this machine, private
            networks or link-local addresses (see
            :func:`~pulpcore.plugin.download.futures.address.is_public`). The check applies to the
            address of the connection, before anything is sent. A proxy would hide that address, so
            the download fails if it had to use one.
        expansion_max (float | None):
            The limit against decompression bombs, for content that the server encodes without
            being asked: how many times as large as the encoded bytes it may become. There is no
            limit up to 64 MiB, or up to the size that a validation expects. None disables it.
        known_etag (str | None):
            The ETag of the file that the target has, from :attr:`etag` after the run that
            downloaded it. The server then sends the content only if it has another version
            (``If-None-Match``). None or '' if unknown. If the file of a
            :class:`~pulpcore.plugin.download.futures.FileWriter` is missing, it is downloaded
            anyway.
        known_last_modified (str | None):
            The same with :attr:`last_modified` (``If-Modified-Since``), for servers without ETags.
            Set both if you have both: the ETag has precedence. The date has a resolution of one
            second, so it misses a second change within the same second.
        mirrors (Sequence[str]):
            More URLs of the same content. An attempt that fails goes on with the next one at once,
            also with ``retry=None``. With nothing known, ``url`` is asked first, then the mirrors
            as given. The next one is asked only for the missing bytes if an enforced
            :class:`~pulpcore.plugin.download.futures.DigestValidation` (no subclass of it) checks
            the content, if the size is known and the same, and if the content is neither encoded
            nor read as a stream. Otherwise it is asked for the whole file. If content from several
            sources is then wrong, the last one is asked once more for all of it, which is no
            retry, and in this run no source continues another one any more. What is learned of
            each source is kept in the context, by origin. Neither ``user`` nor ``auth``, the
            client certificate or netrc goes to a mirror, and of ``headers`` only User-Agent, Range,
            and those whose name begins with Accept. Userinfo in a mirror's URL goes to that
            mirror. An http mirror of an https URL counts only if an enforced digest validates the
            content. Conditional requests (:attr:`known_etag`) go to ``url`` only,
            and ask it first.
        auth (Callable[[requests.PreparedRequest], requests.PreparedRequest] | None):
            Adds credentials to each request, as ``requests.auth.AuthBase`` does: it changes the
            request and returns it, and may register a hook for the response. It is called for the
            scheme, host and port of the URL only: not for mirrors, nor after a redirect to another
            host. Downloads share connections if they have the same object. See
            :class:`~pulpcore.plugin.download.futures.auth.BearerAuth`.
        parts (int):
            How many connections may fetch the file. With more than 1, a file of 16 MiB or more is
            fetched in parts of 8 MiB, if the server answers ranges and sends a strong validator.
            Connections are added while the sum of their speeds grows. The parts are handed on in
            order, so that writer, validations and handlers see what they always see; at most
            ``(parts + 1)`` times 8 MiB are in memory. A part that fails is fetched again alone,
            without an Error event; its fourth failure in a row fails the attempt. ``reply`` and the
            events Sent and Replied are those of the first request. Where the next of the
            ``mirrors`` may continue what one has brought, parts also come from the mirrors that
            have not failed: each from the source with the fewest connections. A part that fails at
            a mirror is fetched elsewhere, and neither that mirror nor one that takes much longer
            than the first source brings more of this file. Content that is encoded, and content
            that a Range header of yours asks for, comes over one connection.
        reply (requests.Response | None):
            The server's reply.
    """

    retry: Retry | None = backoff.DEFAULT
    expansion_max: float | None = 200
    parts: int = 1
    timeout: Timeout
    auth: Auth | None = None
    _protocol = HttpProtocol

    @overload
    def __init__(
        self: HttpDownload[FileWriter],
        url: str,
        writer: StrPath,
        method: str = ...,
        timeout: Timeout | float | tuple[float | None, float | None] | None = ...,
        user: User | tuple[str, str] | None = ...,
        ssl: SSL | None = ...,
        proxy_url: str | None = ...,
        headers: Mapping[str, str] | None = ...,
        insecure_redirects: bool = ...,
        public_only: bool = ...,
        known_etag: str | None = ...,
        known_last_modified: str | None = ...,
        mirrors: Iterable[str] = ...,
        auth: Auth | None = ...,
        parts: int = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        url: str,
        writer: W_co | StrPath | None,
        method: str = ...,
        timeout: Timeout | float | tuple[float | None, float | None] | None = ...,
        user: User | tuple[str, str] | None = ...,
        ssl: SSL | None = ...,
        proxy_url: str | None = ...,
        headers: Mapping[str, str] | None = ...,
        insecure_redirects: bool = ...,
        public_only: bool = ...,
        known_etag: str | None = ...,
        known_last_modified: str | None = ...,
        mirrors: Iterable[str] = ...,
        auth: Auth | None = ...,
        parts: int = ...,
    ) -> None: ...

    def __init__(
        self,
        url: str,
        writer: W_co | StrPath | None,
        method: str = "GET",
        timeout: Timeout | float | tuple[float | None, float | None] | None = None,
        user: User | tuple[str, str] | None = None,
        ssl: SSL | None = None,
        proxy_url: str | None = None,
        headers: Mapping[str, str] | None = None,
        insecure_redirects: bool = False,
        public_only: bool = False,
        known_etag: str | None = None,
        known_last_modified: str | None = None,
        mirrors: Iterable[str] = (),
        auth: Auth | None = None,
        parts: int = 1,
    ) -> None:
        """Create a download.

        Args:
            url: An http or https URL.
            writer: A writer, or the path of the file to write. None discards the content.
            method: GET or HEAD, in any case.
            timeout: The time-outs; None for the defaults of :class:`Timeout`. A number of seconds
                sets both ``connect`` and ``read``; a pair sets one each.
            user: The credentials for basic authentication, also as a pair of name and password.
            ssl: The TLS settings; None for the defaults of :class:`SSL`.
            proxy_url: The URL of a proxy; None for the environment variables.
            headers: Request headers.
            insecure_redirects: Follow redirects from https to http without a digest.
            public_only: Connect to public addresses only.
            known_etag: The ETag of the file that the target has.
            known_last_modified: The Last-Modified of the file that the target has.
            mirrors: More URLs of the same content.
            auth: A callable that adds credentials to a request, as requests has it.
            parts: How many connections may fetch the file.

        Raises:
            ValueError: The method is neither GET nor HEAD, or ``parts`` is less than 1.
            TypeError: An argument has a wrong type; the message names it.
        """
        super().__init__(url, writer)
        self.method = method_of(method)
        self.timeout = Timeout() if timeout is None else Timeout.of(timeout)
        self.user = User() if user is None else User.of(user)
        self.ssl = SSL() if ssl is None else SSL.of(ssl)
        self.proxy_url = None if proxy_url is None else proxy_of(proxy_url)
        self.headers: MutableMapping[str, str] = headers_of(headers)
        self.insecure_redirects = insecure_redirects
        self.public_only = public_only
        self.known_etag = known_etag
        self.known_last_modified = known_last_modified
        self.mirrors: Sequence[str] = mirrors_of(mirrors)
        self.auth = None if auth is None else auth_of(auth)
        self.parts = parts_of(parts)

    @derived
    def status(self) -> int:
        """The status of the last reply; 0 before the first one."""
        return _known(self).status

    @derived
    def unchanged(self) -> bool:
        """Whether the last run left the target as it is, because it already has the content.

        With ``skip_existing`` the run found this without a request. Otherwise the server replied
        304 (Not Modified) to :attr:`known_etag` or :attr:`known_last_modified`, or to a conditional
        header of yours, which replaces them. A 304 to a request without a condition is a failure.

        There are no Fetched events, so a monitor has no facts. Validations aren't applied. A writer
        other than a :class:`~pulpcore.plugin.download.futures.FileWriter` is empty.
        """
        return _known(self).is_unchanged

    @derived
    def etag(self) -> str | None:
        """The ETag of the file, for :attr:`known_etag` in a later run.

        None if the server sent none, if a mirror brought any of the content, or if the last run
        failed. After a HEAD request it is the ETag of the file that a GET would return.
        """
        return _validators(self).etag

    @derived
    def last_modified(self) -> str | None:
        """The Last-Modified of the file, as the server sent it; None as for :attr:`etag`."""
        return _validators(self).last_modified

    @derived
    def source(self) -> str | None:
        """Which of ``url`` and ``mirrors`` sent the last byte; None before the run succeeded."""
        return _known(self).source if _is_done(self) else None

    @property
    def session(self) -> requests.Session:
        """The session for this destination and these settings, from the context's cache.

        Raises:
            ValueError: The URL or a setting isn't usable.
        """
        return Exchange(self, {}, lambda _: None, limits=limits_of(self)).home_route().session

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method} {self}>"

    def _send(self) -> None:
        Transfer(self, Attempt.of(self), self._write).run()


def _known(download: HttpDownload) -> HttpProtocol:
    """Return the protocol's object of the last run; a new one before the first run."""
    protocol = record_of(download).protocol
    return protocol if isinstance(protocol, HttpProtocol) else HttpProtocol()


def _validators(download: HttpDownload) -> condition.Validators:
    """Return the validators of the URL's own version. Those of a mirror don't count."""
    known = _known(download)
    is_mirror = known.source != download.url and known.source in download.mirrors
    return known.validators if _is_done(download) and not is_mirror else condition.NOTHING


def _is_done(download: HttpDownload) -> bool:
    run = record_of(download).run
    return run is not None and run.is_done
