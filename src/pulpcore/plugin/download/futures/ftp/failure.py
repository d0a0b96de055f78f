"""What went wrong, in our errors and in words a person can act on."""

from __future__ import annotations

import ftplib
import socket
import ssl

from .. import redact
from ..error import DownloadFailed, NotAuthorized, NotFound, transient
from ..net.tls_error import from_tls
from .control import NoTls

ANTICIPATED = (ftplib.Error, OSError, EOFError, UnicodeError)
"""What ftplib and the system raise when the network or the server fails."""

_NOT_FOUND = "550"
_NOT_LOGGED_IN = "530"


def from_exception(error: Exception, *secrets: str) -> DownloadFailed:
    """Make our error for what ftplib or the system raised, and redact it.

    Args:
        error: What was raised; it becomes the cause.
        secrets: Texts to hide in it, such as the password, which a server may repeat.
    """
    # First, for a password of one digit may be a part of it.
    code = str(error)[:3]
    redact.exception(error, *secrets)
    failure = _translate(error, code)
    failure.__cause__ = error
    return failure


def _translate(error: Exception, code: str) -> DownloadFailed:
    replied = f"the server replied {str(error)[:200]}"
    if isinstance(error, NoTls):
        return DownloadFailed(f"the server refuses TLS: {replied}")
    if isinstance(error, ftplib.error_perm) and code == _NOT_FOUND:
        return NotFound(f"the server has no such file, or doesn't give it out: {replied}")
    if isinstance(error, ftplib.error_perm) and code == _NOT_LOGGED_IN:
        return NotAuthorized(f"the server wants other credentials: {replied}")
    if isinstance(error, UnicodeDecodeError):
        return DownloadFailed("the server's reply can't be read")
    if isinstance(error, UnicodeError):
        return DownloadFailed("the URL is not valid: check its host")
    if isinstance(error, ssl.SSLError):
        return from_tls(error)
    if isinstance(error, ftplib.Error):
        failure = DownloadFailed(replied)
        # Replies that begin with 4 mean: try again (RFC 959 section 4.2.1).
        failure.transient = isinstance(error, ftplib.error_temp)
        return failure
    return transient(_network_reason(error))


def _network_reason(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return f"the name of the host can't be resolved: {error.strerror}"
    if isinstance(error, TimeoutError):
        return "nothing was received within the time-out"
    if isinstance(error, EOFError):
        return "the server closed the connection"
    return f"the connection failed: {getattr(error, 'strerror', None) or error}"
