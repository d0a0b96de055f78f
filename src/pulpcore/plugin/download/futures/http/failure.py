"""Translates statuses and exceptions of HTTP to errors of this package."""

from __future__ import annotations

import errno
import http
import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import NamedTuple, TypeVar

import requests
import urllib3.exceptions

from .. import redact
from ..address import ForbiddenAddress
from ..engine import backoff
from ..error import DownloadFailed, NotAuthorized, NotFound, transient
from ..net.tls_error import from_tls, is_cut
from ..net.used_up import from_used_up
from .options import Options
from .wire.error import (
    ConnectTimeout,
    FramingError,
    MissingCloseNotify,
    ProxyError,
    SocksRefused,
    TunnelRefused,
    UnsendableError,
)
from .wire.reply import header

ANTICIPATED = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    UnicodeError,
)
"""The exceptions of requests, urllib3 and the system for a failure of the network."""


class _Status(NamedTuple):
    """The error for a status, and advice for the user."""

    kind: type[DownloadFailed] = DownloadFailed
    advice: str = ""


_STATUSES = {
    **dict.fromkeys((301, 302, 303, 307, 308), _Status(advice="no Location says where to")),
    304: _Status(advice="nobody asked whether the file has changed"),
    401: _Status(NotAuthorized, "it wants credentials: give a user and a password"),
    403: _Status(NotAuthorized, "it refuses access"),
    404: _Status(NotFound, "there is nothing at this URL"),
    407: _Status(NotAuthorized, "the proxy wants credentials: give them in proxy_url"),
    410: _Status(NotFound, "there is nothing at this URL any more"),
}
# The advice if credentials were sent.
_OTHERS = {
    401: "it wants other credentials",
    407: "the proxy wants other credentials than those in proxy_url",
}
# How a server refuses a surplus connection: by a status, or by refusing or closing it.
_FULL = frozenset({429, 503})
_REFUSALS = (
    ConnectionRefusedError,
    ConnectionResetError,
    BrokenPipeError,
    http.client.RemoteDisconnected,
)
E = TypeVar("E", bound=BaseException)


def from_reply(reply: requests.Response, download: Options) -> DownloadFailed:
    """Return the error for a reply that brings no file.

    Args:
        reply: The reply.
        download: The download, whose settings say what is transient.
    """
    status, policy = reply.status_code, download.retry
    sent = {401: "Authorization" in reply.request.headers, 407: "@" in (download.proxy_url or "")}
    retry_after = backoff.retry_after(header(reply, "retry-after") or "")
    error = from_status(status, retry_after, sent.get(status, False))
    error.transient = policy is not None and status in policy.status_forcelist
    return error


def from_status(
    status: int, retry_after: float | None, has_credentials: bool, peer: str = "server"
) -> DownloadFailed:
    """Return the error for a status without a file.

    Args:
        status: The status of the response.
        retry_after: The server's Retry-After (seconds).
        has_credentials: Whether the request had credentials.
        peer: Who responded: "server", or "proxy" to CONNECT.
    """
    reason, known = "the server replied", status
    if peer == "proxy":
        reason = "the proxy did not connect to the server: it replied"
        # Some proxies use 401 in place of 407.
        known = 407 if status == 401 else status
    kind, advice = _STATUSES.get(known, _Status())
    if peer == "proxy" and (kind is NotFound or 300 <= status < 400):
        # Here the status is about the server that the proxy should connect to, not about the file.
        kind, advice = _Status()
    if has_credentials:
        advice = _OTHERS.get(known, advice)
    try:
        # The standard phrase: the reason phrase of the response may contain anything.
        reason += f" {status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        reason += f" {status}"
    reason += f": {advice}" if advice else ""
    if retry_after:
        ready = formatdate(time.time() + retry_after, usegmt=True)
        reason += f"; it says that it is ready in {retry_after:.0f} s, at {ready}"
    error = kind(reason)
    error.retry_after = retry_after
    error.transient = status in backoff.TRANSIENT
    # With Retry-After, the back-off waits as long as the server says. 0 counts as none.
    error.refused = status in _FULL and not retry_after
    return error


def is_refusal(error: Exception) -> bool:
    """Return whether the server refused or closed the connection.

    Args:
        error: The exception, raised before a response was received.
    """
    return any(
        is_cut(cause) if isinstance(cause, ssl.SSLError) else isinstance(cause, _REFUSALS)
        for cause in _chain(error)
    )


def from_exception(error: Exception, *secrets: str) -> DownloadFailed:
    """Translate an exception to an error of this package, without secrets.

    Args:
        error: The exception. It becomes the cause of the error.
        secrets: Texts to redact, such as the URL as given.
    """
    failure = _translate(error)
    redact.exception(error, *secrets)
    failure.__cause__ = error
    return failure


def _translate(error: Exception) -> DownloadFailed:
    """Translate by the most informative cause. The order matters: most causes are OSErrors too."""
    if (framing := find(error, FramingError)) is not None:
        return DownloadFailed(f"the reply can't be trusted: {framing}")
    if find(error, ForbiddenAddress) is not None:
        # The message doesn't show the address: its reader may not be allowed to know it.
        return DownloadFailed("the host's address is not public, which public_only forbids")
    if (tunnel := find(error, TunnelRefused)) is not None:
        retry_after = backoff.retry_after(tunnel.retry_after)
        return from_status(tunnel.status, retry_after, tunnel.has_credentials, "proxy")
    if (socks := find(error, SocksRefused)) is not None:
        kind = NotAuthorized if socks.is_login else transient
        return kind(f"the SOCKS proxy could not connect to the server: {socks}")
    if (used_up := next(filter(None, map(from_used_up, _chain(error))), None)) is not None:
        return used_up
    # An adapter that the caller has mounted raises the error of requests.
    is_proxy = find(error, ProxyError) or find(error, requests.exceptions.ProxyError)
    return _of_network(error, "server" if is_proxy is None else "proxy")


def _of_network(error: Exception, peer: str) -> DownloadFailed:
    """Translate a failure of the connection to a server or a proxy."""
    if (cut := find(error, MissingCloseNotify)) is not None:
        return transient(str(cut.strerror))
    tls = find(error, ssl.SSLCertVerificationError) or find(error, ssl.SSLError)
    if tls is not None and not isinstance(tls, TimeoutError):
        return from_tls(tls, peer, "http")
    if (unsendable := find(error, UnsendableError)) is not None:
        return DownloadFailed(str(unsendable))
    if _is_bad_url(error):
        return DownloadFailed("the URL is not valid: check its host and port")
    if (unknown := find(error, socket.gaierror)) is not None:
        named = "host" if peer == "server" else peer
        return transient(
            f"the name of the {named} can't be resolved: {unknown.strerror or unknown}"
        )
    return transient(_network_reason(error, peer))


def _network_reason(error: Exception, peer: str) -> str:
    through = "" if peer == "server" else f" to the {peer}"
    connection = f"the connection{through}"
    if find(error, ConnectionRefusedError) is not None:
        return f"{connection} was refused: nobody listens there"
    if (
        find(error, ConnectTimeout) is not None
        or find(error, requests.exceptions.ConnectTimeout) is not None
    ):
        return f"no connection{through} was made within the time-out"
    if (
        find(error, urllib3.exceptions.ReadTimeoutError) is not None
        or find(error, TimeoutError) is not None
    ):
        return f"nothing was received from the {peer} within the read time-out"
    if find(error, http.client.RemoteDisconnected) is not None:
        return f"the {peer} closed the connection without a reply"
    if find(error, http.client.IncompleteRead) is not None:
        return f"{connection} ended before {'its reply' if through else 'the content'} did"
    if find(error, ConnectionResetError) is not None or find(error, BrokenPipeError) is not None:
        return f"{connection} was reset"
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in errno.errorcode and cause.strerror:
            return f"{connection} failed: {cause.strerror}"
    return f"{connection} failed ({type(error).__name__})"


def _is_bad_url(error: Exception) -> bool:
    return (isinstance(error, ValueError) and not isinstance(error, ssl.SSLError)) or any(
        isinstance(cause, UnicodeError | urllib3.exceptions.LocationParseError)
        for cause in _chain(error)
    )


def find(error: BaseException, kind: type[E]) -> E | None:
    """Return the first exception of a type among an exception and its causes.

    Args:
        error: The exception.
        kind: The type.
    """
    return next((cause for cause in _chain(error) if isinstance(cause, kind)), None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception and its causes, which libraries store in different places."""
    pending: list[object] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending += [
            getattr(current, "reason", None),
            *current.args,
            current.__cause__,
            current.__context__,
        ]
