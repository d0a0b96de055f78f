"""What went wrong, in our errors and in words a person can act on."""

from __future__ import annotations

import errno
import http
import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import TypeVar

import requests
import urllib3.exceptions

from .. import redact
from ..address import ForbiddenAddress
from ..error import DownloadFailed, NotAuthorized, NotFound, transient
from ..net.tls_error import from_tls
from .wire.error import (
    ConnectTimeout,
    FramingError,
    MissingCloseNotify,
    ProxyError,
    SocksRefused,
    TunnelRefused,
    UnsendableError,
)

ANTICIPATED = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    UnicodeError,
)
"""What requests, urllib3 and the system raise when the network fails."""

_ADVICE = {
    http.HTTPStatus.NOT_MODIFIED: "nobody asked whether the file has changed",
    http.HTTPStatus.UNAUTHORIZED: "the server wants other credentials",
    http.HTTPStatus.FORBIDDEN: "the server refuses access",
    http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "the proxy wants other credentials",
    http.HTTPStatus.NOT_FOUND: "the server has nothing at this URL",
    http.HTTPStatus.GONE: "the server has nothing at this URL any more",
}
E = TypeVar("E", bound=BaseException)


def from_status(status: int, retry_after: float | None) -> DownloadFailed:
    """Make the error for a status that brings no file.

    Args:
        status: The status of the reply.
        retry_after: The seconds after which the server says that it is ready.
    """
    kind: type[DownloadFailed] = DownloadFailed
    if status in (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.GONE):
        kind = NotFound
    elif status in (
        http.HTTPStatus.UNAUTHORIZED,
        http.HTTPStatus.FORBIDDEN,
        http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
    ):
        kind = NotAuthorized
    try:
        # Not the reason of the reply, which may hold anything.
        phrase = f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        phrase = str(status)
    advice = _ADVICE.get(http.HTTPStatus(status)) if phrase != str(status) else None
    reason = f"the server replied {phrase}" + (f": {advice}" if advice else "")
    if retry_after:
        ready = formatdate(time.time() + retry_after, usegmt=True)
        reason += f"; it says that it is ready in {retry_after:.0f} s, at {ready}"
    error = kind(reason)
    error.retry_after = retry_after
    return error


def from_exception(error: Exception, *secrets: str) -> DownloadFailed:
    """Make our error for what requests, urllib3 or the system raised, and redact it.

    Args:
        error: What was raised; it becomes the cause.
        secrets: Texts to hide in it, such as the URL as given.
    """
    failure = _translate(error)
    redact.exception(error, *secrets)
    failure.__cause__ = error
    return failure


def _translate(error: Exception) -> DownloadFailed:
    """Find the cause that says most; the order matters, since nearly all of them are an OSError."""
    if (framing := find(error, FramingError)) is not None:
        return DownloadFailed(f"the reply can't be trusted: {framing}")
    if find(error, ForbiddenAddress) is not None:
        # Without the address: whoever is shown this may not be meant to know it.
        return DownloadFailed("the host's address is not public, which public_only forbids")
    if (tunnel := find(error, TunnelRefused)) is not None:
        return _refused_tunnel(tunnel.status)
    if (socks := find(error, SocksRefused)) is not None:
        kind = NotAuthorized if socks.is_login else transient
        return kind(f"the SOCKS proxy could not connect to the server: {socks}")
    # The second one is that of an adapter which the caller has mounted.
    is_proxy = find(error, ProxyError) or find(error, requests.exceptions.ProxyError)
    through = " to the proxy" if is_proxy is not None else ""
    if (cut := find(error, MissingCloseNotify)) is not None:
        return transient(str(cut.strerror))
    tls = find(error, ssl.SSLCertVerificationError) or find(error, ssl.SSLError)
    if tls is not None and not isinstance(tls, TimeoutError):
        return from_tls(tls, "proxy" if through else "server")
    if (unsendable := find(error, UnsendableError)) is not None:
        return DownloadFailed(str(unsendable))
    if _is_bad_url(error):
        return DownloadFailed("the URL is not valid: check its host and port")
    if (unknown := find(error, socket.gaierror)) is not None:
        named = "proxy" if through else "host"
        return transient(
            f"the name of the {named} can't be resolved: {unknown.strerror or unknown}"
        )
    return transient(_network_reason(error) + through)


def _network_reason(error: Exception) -> str:
    if find(error, ConnectionRefusedError) is not None:
        return "the connection was refused: nobody listens there"
    if (
        find(error, ConnectTimeout) is not None
        or find(error, requests.exceptions.ConnectTimeout) is not None
    ):
        return "no connection was made within the time-out"
    if (
        find(error, urllib3.exceptions.ReadTimeoutError) is not None
        or find(error, TimeoutError) is not None
    ):
        return "nothing was received within the read time-out"
    if find(error, http.client.RemoteDisconnected) is not None:
        return "the server closed the connection without a reply"
    if find(error, http.client.IncompleteRead) is not None:
        return "the connection ended before the content did"
    if find(error, ConnectionResetError) is not None or find(error, BrokenPipeError) is not None:
        return "the connection was reset"
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in errno.errorcode and cause.strerror:
            return f"the connection failed: {cause.strerror}"
    return f"the connection failed ({type(error).__name__})"


def _refused_tunnel(status: int) -> DownloadFailed:
    if status in (http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, http.HTTPStatus.FORBIDDEN):
        return NotAuthorized(f"the proxy refused to connect to the server: it replied {status}")
    failure = DownloadFailed(f"the proxy could not connect to the server: it replied {status}")
    failure.transient = status >= http.HTTPStatus.INTERNAL_SERVER_ERROR
    return failure


def _is_bad_url(error: Exception) -> bool:
    return (isinstance(error, ValueError) and not isinstance(error, ssl.SSLError)) or any(
        isinstance(cause, UnicodeError | urllib3.exceptions.LocationParseError)
        for cause in _chain(error)
    )


def find(error: BaseException, kind: type[E]) -> E | None:
    """Return the first exception of a kind among an exception and those behind it.

    Args:
        error: The exception.
        kind: The kind that is looked for.
    """
    return next((cause for cause in _chain(error) if isinstance(cause, kind)), None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and those behind it, which libraries keep in different places."""
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
