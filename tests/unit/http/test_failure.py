"""What went wrong, in words."""

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
    SocksRefused,
    TunnelRefused,
)


@pytest.mark.parametrize(
    ("error", "reason", "transient"),
    [
        (urllib3.exceptions.HTTPError("odd"), r"failed \(HTTPError\)", True),
        (ConnectionRefusedError(111, "Connection refused"), "refused", True),
        (OSError(113, "No route to host"), "No route to host", True),
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
    """Each kind of failure has its words, and says whether it may be gone when tried again."""
    failed = failure.from_exception(error)
    assert failed.__cause__ is error
    assert failed.transient == transient
    with pytest.raises(DownloadFailed, match=reason):
        raise failed


def test_tunnel_without_credentials():
    """A proxy that wants credentials is a matter of authorization."""
    error = requests.ConnectionError(TunnelRefused(407))
    assert type(failure.from_exception(error)) is NotAuthorized


def test_socks_without_credentials():
    """So is a SOCKS proxy that refuses them."""
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
    """Each status has its kind, and a number is told where there is no name for it."""
    failed = failure.from_status(status, None)
    assert type(failed) is kind
    assert text in failed.reason
    assert failed.retry_after is None


def test_retry_after():
    """It is told when the server is ready."""
    failed = failure.from_status(503, 7.0)
    assert "ready in 7 s, at " in failed.reason
    assert failed.retry_after == 7
