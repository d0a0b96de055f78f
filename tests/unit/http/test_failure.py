"""Tests of the error messages of failed HTTP downloads."""

import errno
import http
import http.client
import socket
import ssl

import pytest
import requests
import urllib3.exceptions

from pulpcore.plugin.download.futures import DownloadFailed, NotAuthorized, NotFound
from pulpcore.plugin.download.futures.http import failure
from pulpcore.plugin.download.futures.http.wire.error import (
    ConnectTimeout,
    MissingCloseNotify,
    ProxyError,
    SocksRefused,
    TunnelRefused,
)


@pytest.mark.parametrize(
    ("error", "reason", "transient"),
    [
        (urllib3.exceptions.HTTPError("odd"), r"failed \(HTTPError\)", True),
        (ConnectionRefusedError(111, "Connection refused"), "refused", True),
        (OSError(113, "No route to host"), "No route to host", True),
        (ConnectionResetError(104, "Connection reset by peer"), "connection was reset", True),
        (BrokenPipeError(32, "Broken pipe"), "connection was reset", True),
        (http.client.IncompleteRead(b""), "ended before the content", True),
        (socket.gaierror(-2, "Unknown"), "name of the host can't be resolved: Unknown", True),
        (
            requests.exceptions.ProxyError("odd", socket.gaierror(-2, "Unknown")),
            "name of the proxy can't be resolved: Unknown",
            True,
        ),
        (UnicodeError("label too long"), "URL is not valid", False),
        (TunnelRefused(502), "replied 502", True),
        (TunnelRefused(400), "replied 400", False),
        (SocksRefused("0x05: Connection refused", is_login=False), "SOCKS .*refused", True),
        (ConnectTimeout("slow"), "no connection was made", True),
        (requests.exceptions.ConnectTimeout("slow"), "no connection was made", True),
        (MissingCloseNotify(), "without a close_notify", True),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong"), "TLS failed", False),
        (ssl.SSLEOFError(8, "EOF occurred"), "TLS failed", True),
    ],
    ids=repr,
)
def test_reason(error, reason, transient):
    """Each kind of network failure has its own message and says whether a retry may help."""
    failed = failure.from_exception(error)
    assert failed.__cause__ is error
    assert failed.transient == transient
    with pytest.raises(DownloadFailed, match=reason):
        raise failed


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (ConnectionRefusedError(111, "x"), "the connection to the proxy was refused: nobody"),
        (ConnectTimeout("x"), "no connection to the proxy was made within the time-out"),
        (TimeoutError("x"), "nothing was received from the proxy within the read time-out"),
        (http.client.RemoteDisconnected("x"), "the proxy closed the connection without a reply"),
        (http.client.IncompleteRead(b""), "the connection to the proxy ended before its reply did"),
        (ConnectionResetError(104, "x"), "the connection to the proxy was reset"),
        (OSError(113, "No route"), "the connection to the proxy failed: No route"),
        (socket.gaierror(-2, "Unknown"), "the name of the proxy can't be resolved: Unknown"),
        (
            ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong"),
            "TLS failed: the proxy doesn't speak TLS there; check the scheme and the port: is it h",
        ),
    ],
    ids=repr,
)
def test_proxy(cause, reason):
    """If the proxy has failed, each error message names the proxy."""
    error = ProxyError("the proxy failed")
    error.__cause__ = cause
    failed = failure.from_exception(requests.exceptions.ProxyError(error))
    assert failed.reason.startswith(reason)
    assert not failed.local


@pytest.mark.parametrize("wrap", [requests.ConnectionError, ProxyError, OSError])
@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL]
)
def test_used_up(number, wrap):
    """A resource of this machine that is used up is reported and doesn't count against the host."""
    failed = failure.from_exception(wrap("failed", OSError(number, "no more")))
    assert failed.local
    assert failed.transient
    assert failed.reason.startswith(("this machine has no", "this process has no"))


@pytest.mark.parametrize("status", [301, 304, 404])
def test_words_about_a_file(status):
    """A proxy's refusal of CONNECT has none of the advice about a file at a server."""
    failed = failure.from_exception(requests.exceptions.ProxyError(TunnelRefused(status, "")))
    phrase = http.HTTPStatus(status).phrase
    assert failed.reason.endswith(f"it replied {status} {phrase}")


@pytest.mark.parametrize(
    ("status", "kind", "is_transient"),
    [
        *((status, NotAuthorized, False) for status in (401, 403, 407)),
        *((status, DownloadFailed, False) for status in (302, 400, 404, 410, 501, 505, 999)),
        *((status, DownloadFailed, True) for status in (408, 425, 429, 500, 502, 503, 504)),
    ],
)
def test_refused_tunnel(status, kind, is_transient):
    """A proxy's refusal of CONNECT is classified by its status, but never as a missing file."""
    failed = failure.from_exception(requests.exceptions.ProxyError(TunnelRefused(status, "7")))
    assert type(failed) is kind
    assert failed.transient is is_transient
    assert failed.retry_after == 7
    assert failed.reason.startswith(f"the proxy did not connect to the server: it replied {status}")
    assert "URL" not in failed.reason


@pytest.mark.parametrize(
    ("status", "has_credentials", "peer", "advice"),
    [
        (401, False, "server", ": it wants credentials: give a user and a password"),
        (401, True, "server", ": it wants other credentials"),
        (401, False, "proxy", ": the proxy wants credentials: give them in proxy_url"),
        (401, True, "proxy", ": the proxy wants other credentials than those in proxy_url"),
        (407, False, "server", ": the proxy wants credentials: give them in proxy_url"),
        (407, True, "proxy", ": the proxy wants other credentials than those in proxy_url"),
        (403, True, "server", ": it refuses access"),
        (302, False, "server", ": no Location says where to"),
        (302, False, "proxy", ""),
    ],
)
def test_advice(status, has_credentials, peer, advice):
    """A user without credentials is told how to set them, and not that they are wrong."""
    failed = failure.from_status(status, None, has_credentials, peer)
    assert failed.reason.endswith(advice)


def test_socks_without_credentials():
    """If a SOCKS proxy demands a login, a user without credentials is told how to set them."""
    error = SocksRefused("SOCKS5 authentication failed", is_login=True)
    assert type(failure.from_exception(error)) is NotAuthorized


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (304, DownloadFailed, "304 Not Modified: nobody asked"),
        (404, NotFound, "404 Not Found"),
        (410, NotFound, "410 Gone"),
        (403, NotAuthorized, "403 Forbidden"),
        (500, DownloadFailed, "500 Internal Server Error"),
        (999, DownloadFailed, "replied 999"),
    ],
)
def test_status(status, kind, text):
    """Each HTTP status raises its error class. A status without a name is shown by its number."""
    failed = failure.from_status(status, None, False)
    assert type(failed) is kind
    assert text in failed.reason
    assert failed.retry_after is None


def test_retry_after():
    """The error message says when the server asked us to retry."""
    failed = failure.from_status(503, 7.0, False)
    assert "ready in 7 s, at " in failed.reason
    assert failed.retry_after == 7
