"""Translates TLS errors to errors of this package.

HTTP and FTP share this table. Which alerts are transient follows from RFC 8446 section 6:

=========================================== ======================================================
What ended TLS                              What it means here
=========================================== ======================================================
The server's certificate isn't trusted      NotAuthorized
An alert about our certificate              NotAuthorized
``bad_record_mac``, ``decryption_failed``,  Transient: between proper implementations they are
``record_overflow``, ``decode_error``,      only seen when messages were corrupted in the network
``decrypt_error``                           (section 6.2)
``internal_error``, ``user_canceled``       Transient: they have nothing to do with the protocol
Any other alert, such as                    Final: the server can't agree, and won't the next time
``handshake_failure``, ``protocol_version``
or ``unrecognized_name``
We can't decrypt or verify a record         Transient: the data was damaged on the way
The peer's bytes aren't TLS                 Final: the server speaks another protocol
The handshake failed otherwise              Final
The connection ended without close_notify   Transient
=========================================== ======================================================
"""

from __future__ import annotations

import re
import ssl
import traceback

from ..error import DownloadFailed, NotAuthorized, transient

# OpenSSL's name of a received alert. The prefix is the version of TLS that introduced the alert.
_ALERT = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_)?(\w+)")
_REFUSALS = frozenset(
    {
        "ACCESS_DENIED",
        "BAD_CERTIFICATE",
        "CERTIFICATE_EXPIRED",
        "CERTIFICATE_REQUIRED",
        "CERTIFICATE_REVOKED",
        "CERTIFICATE_UNKNOWN",
        "NO_CERTIFICATE",
        "UNKNOWN_CA",
        "UNSUPPORTED_CERTIFICATE",
    }
)
_TRANSIENT_ALERTS = frozenset(
    {
        "BAD_RECORD_MAC",
        "DECODE_ERROR",
        "DECRYPTION_FAILED",
        "DECRYPT_ERROR",
        "INTERNAL_ERROR",
        "RECORD_OVERFLOW",
        "USER_CANCELLED",
    }
)
# Damage that the local OpenSSL detected, without an alert.
_DAMAGE = frozenset(
    {
        "BAD_SIGNATURE",
        "DECRYPTION_FAILED",
        "DECRYPTION_FAILED_OR_BAD_RECORD_MAC",
        "DIGEST_CHECK_FAILED",
    }
)
# OpenSSL 3.2 and later report RECORD_LAYER_FAILURE in place of some of the others.
_NO_TLS = frozenset(
    {
        "HTTPS_PROXY_REQUEST",
        "HTTP_REQUEST",
        "RECORD_LAYER_FAILURE",
        "UNKNOWN_PROTOCOL",
        "WRONG_VERSION_NUMBER",
    }
)
# Matches "[SSL] record layer failure (_ssl.c:1006)": Python has no name for some reasons.
_TEXT = re.compile(r"\[SSL(?:: (\w+))?\] ([\w ]+)")


def from_tls(error: ssl.SSLError, peer: str = "server", plain: str = "") -> DownloadFailed:
    """Translate a TLS error to an error of this package.

    Args:
        error: The exception.
        peer: What the other end of the connection is, such as "server" or "proxy".
        plain: The scheme of the same protocol without TLS, for the message.
    """
    reason = _reason(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        problem = error.verify_message or "it is not for this host"
        return NotAuthorized(f"the certificate of the {peer} is not trusted: {problem}")
    if is_cut(error):
        return transient("TLS failed: the connection was cut")
    alert = _ALERT.fullmatch(reason)
    if alert is not None:
        return _from_alert(alert[1], reason, peer)
    if reason in _DAMAGE or not _is_of_handshake(error):
        return transient(f"TLS failed: what the {peer} sent was damaged on the way ({reason})")
    if reason in _NO_TLS:
        return DownloadFailed(
            f"TLS failed: the {peer} doesn't speak TLS there; check the scheme and the port"
            f"{f': is it {plain}://?' if plain else ''} ({reason})"
        )
    return DownloadFailed(f"TLS failed: {reason}")


def is_cut(error: ssl.SSLError) -> bool:
    """Return whether the connection ended without a close_notify.

    Args:
        error: The exception.
    """
    return isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) or _reason(error).startswith(
        ("UNEXPECTED_EOF", "Closed before TLS handshake")
    )


def _is_of_handshake(error: ssl.SSLError) -> bool:
    """Return whether the error came from the handshake, where the peer may not speak TLS at all.

    The traceback shows it for any library that does the handshake. An exception that was never
    raised has no traceback, and counts as one of the handshake.
    """
    if error.__traceback__ is None:
        return True
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_name == "do_handshake" for frame, _ in frames)


def _from_alert(alert: str, reason: str, peer: str) -> DownloadFailed:
    if alert in _REFUSALS:
        return NotAuthorized(
            f"the {peer} refused the client certificate, or the lack of one ({reason})"
        )
    failure = DownloadFailed(f"TLS failed: the {peer} gave it up ({reason})")
    failure.transient = alert in _TRANSIENT_ALERTS
    return failure


def _reason(error: ssl.SSLError) -> str:
    """Return OpenSSL's name for the error, such as WRONG_VERSION_NUMBER."""
    if named := getattr(error, "reason", None):
        return str(named)
    text = error.strerror or str(error)
    found = _TEXT.match(text)
    return (found[1] or found[2].strip().upper().replace(" ", "_")) if found else text
