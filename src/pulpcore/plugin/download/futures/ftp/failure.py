"""Translates exceptions of ftplib and the system to errors of this package."""

from __future__ import annotations

import ftplib
import socket
import ssl

from .. import redact
from ..error import DownloadFailed, NotAuthorized, NotFound, transient
from ..net.dial import DialTimeout
from ..net.tls_error import from_tls
from ..net.used_up import from_used_up
from .control import REPLY_MAX, LoginRefused, NoFile, NoTls, TooLong, TooMany

ANTICIPATED = (ftplib.Error, OSError, EOFError)
"""The exceptions of ftplib and the system for a failure of the network or the server."""

_NOT_LOGGED_IN = "530"


def from_exception(error: Exception, *secrets: str) -> DownloadFailed:
    """Translate an exception to an error of this package, without secrets.

    Args:
        error: The exception. It becomes the cause of the error.
        secrets: Texts to redact, such as the password, which a server may repeat.
    """
    # Before redacting: the code may contain the password, if that is a single digit.
    code = str(error)[:3]
    redact.exception(error, *secrets)
    failure = _translate(error, code)
    failure.__cause__ = error
    return failure


def _translate(error: Exception, code: str) -> DownloadFailed:
    replied = f"the server replied {_shown(str(error)[:200])}"
    if isinstance(error, NoTls):
        return DownloadFailed(f"the server refuses TLS: {replied}")
    if isinstance(error, TooMany):
        return transient(f"the server allows no more connections at the moment: {replied}")
    if isinstance(error, NoFile):
        return NotFound(f"the server has no such file, or doesn't give it out: {replied}")
    if isinstance(error, LoginRefused) or code == _NOT_LOGGED_IN:
        return NotAuthorized(f"the server refuses this user, or anonymous login: {replied}")
    if isinstance(error, ssl.SSLError):
        return from_tls(error)
    if isinstance(error, TooLong):
        return DownloadFailed(
            f"the server's reply can't be read: it has more than {REPLY_MAX} bytes"
        )
    if isinstance(error, ftplib.Error):
        failure = DownloadFailed(replied)
        # Replies 4yz report a temporary failure (RFC 959 section 4.2.1).
        failure.transient = isinstance(error, ftplib.error_temp)
        return failure
    return from_used_up(error) or transient(_network_reason(error))


def _network_reason(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return f"the name of the host can't be resolved: {error.strerror}"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused: nobody listens there"
    if isinstance(error, DialTimeout):
        return "no connection was made within the time-out"
    if isinstance(error, TimeoutError):
        return "nothing was received within the time-out"
    if isinstance(error, EOFError):
        return "the server closed the connection"
    return f"the connection failed: {getattr(error, 'strerror', None) or error}"


def _shown(reply: str) -> str:
    """Escape control characters, which a terminal would interpret, and unprintable ones."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in reply
    )
