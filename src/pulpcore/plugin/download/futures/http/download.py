"""Downloading by HTTP."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, overload

import requests

from ..download import Download, derived
from ..engine import backoff
from ..engine.attempt import Attempt, record_of
from ..engine.limited import limits_of
from ..settings import SSL, Timeout, User
from ..writer import W_co
from .check import headers_of, method_of, proxy_of
from .exchange import Exchange
from .protocol import HttpProtocol
from .quiet import quiet
from .transfer import Transfer

if TYPE_CHECKING:
    from urllib3.util import Retry

    from ..writer import FileWriter, StrPath


class HttpDownload(Download[W_co]):
    """Downloads a file by HTTP, from ``http://`` and ``https://`` URLs.

    The bytes that are written are those that the server published: a published ``.gz`` isn't
    unpacked. See :mod:`~pulpcore.plugin.download.futures.http.coding` for servers that encode
    unasked.

    Attributes:
        method (str):
            GET or HEAD. HEAD brings a reply and no content.
        timeout (Timeout):
            How long to wait.
        user (User):
            The user, for basic authentication. It goes to the URL's own scheme, host and port only,
            and so do the client certificate and what the headers Authorization, Cookie and
            Proxy-Authorization say. An Authorization header wins over it; it wins over userinfo in
            the URL, and that over a netrc file. Only without all of these a netrc file counts, for
            the URL's host and, where it names them, for other hosts that it is redirected to.
        ssl (SSL):
            TLS settings.
        proxy_url (str | None):
            The URL of a proxy for http and https, in which there may be credentials. None for what
            the environment says.
        headers (MutableMapping[str, str]):
            Headers to send beside or instead of our own.
        insecure_redirects (bool):
            Follow redirects from https to http also where no digest validates the content.
        public_only (bool):
            Connect to public addresses only, also where redirected to: not to those of this
            machine, of private networks, or of the link (see
            :func:`~pulpcore.plugin.download.futures.address.is_public`). What counts is the address
            of the connection, which is ended before anything is sent. Through a proxy that can't be
            known: where one is to be used, the download fails.
        expansion_max (float | None):
            How many times as large as what was sent the content may become, where the server
            encoded it unasked; None for any size. It doesn't count up to 64 MiB, nor up to the size
            that a validation expects.
        known_etag (str | None):
            The ETag of the version that stands at the target, as :attr:`etag` had it after the run
            that brought it. The server is asked for any other version only (``If-None-Match``).
            None or '' if you know of none. Where the file of a
            :class:`~pulpcore.plugin.download.futures.FileWriter` is missing it comes in any case.
        known_last_modified (str | None):
            The same with :attr:`last_modified` (``If-Modified-Since``). Give both if you have both:
            the ETag wins, and the date is for servers without one. A date has whole seconds: a
            second change within one isn't seen.
        reply (requests.Response | None):
            The server's reply.
    """

    retry: Retry | None = backoff.DEFAULT
    expansion_max: float | None = 200
    timeout: Timeout
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
    ) -> None:
        """Make a download.

        Args:
            url: An http or https URL.
            writer: Where the content goes: a writer, or the path of a file. None for nowhere.
            method: GET or HEAD, in any case.
            timeout: How long to wait; None for the defaults of :class:`Timeout`. A number of
                seconds counts for ``connect`` and ``read``; a pair gives one for each.
            user: The user, for basic authentication; also a pair of a name and a password.
            ssl: TLS settings; None for the defaults of :class:`SSL`.
            proxy_url: The URL of a proxy; None for what the environment says.
            headers: Headers to send beside or instead of our own.
            insecure_redirects: Follow redirects from https to http also where no digest validates
                the content.
            public_only: Connect to public addresses only.
            known_etag: The ETag of the version that stands at the target.
            known_last_modified: The Last-Modified of the version that stands at the target.

        Raises:
            ValueError: The method is another one.
            TypeError: An argument has a wrong type; the message names it.
        """
        super().__init__(url, writer)
        self.method = method_of(method)
        self.timeout = Timeout.of(timeout)
        self.user = User.of(user)
        self.ssl = SSL.of(ssl)
        self.proxy_url = proxy_of(proxy_url)
        self.headers: MutableMapping[str, str] = headers_of(headers)
        self.insecure_redirects = insecure_redirects
        self.public_only = public_only
        self.known_etag = known_etag
        self.known_last_modified = known_last_modified

    @derived
    def status(self) -> int:
        """The status of the last reply; 0 before there is one."""
        return _known(self).status

    @derived
    def unchanged(self) -> bool:
        """Whether the run brought nothing, because the target has the content already.

        With ``skip_existing`` that was found without a request. Otherwise the server has the
        known version still (304).

        The file at the target isn't touched; any other writer is empty. There are no Fetched
        events, and so no facts in a monitor. Validations are not applied: they saw nothing.

        It is the answer to :attr:`known_etag` and :attr:`known_last_modified`. Where there is
        ``If-None-Match`` or ``If-Modified-Since`` among your own :attr:`headers`, that is sent
        instead, whatever stands at the target. A 304 that nobody asked for is a failure.
        """
        return _known(self).is_unchanged

    @derived
    def etag(self) -> str | None:
        """The ETag of the version that the last run brought or found unchanged, to remember it.

        None if the server tells none, and unless the run succeeded. After a HEAD it is that of the
        version that would have come.
        """
        return _known(self).validators.etag if _is_done(self) else None

    @derived
    def last_modified(self) -> str | None:
        """The Last-Modified of that version, as the server wrote it; None as for :attr:`etag`."""
        return _known(self).validators.last_modified if _is_done(self) else None

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
        with quiet():
            Transfer(self, Attempt.of(self), self._write).run()


def _known(download: HttpDownload) -> HttpProtocol:
    """What the last run learned; nothing before there is one."""
    protocol = record_of(download).protocol
    return protocol if isinstance(protocol, HttpProtocol) else HttpProtocol()


def _is_done(download: HttpDownload) -> bool:
    run = record_of(download).run
    return run is not None and run.is_done
