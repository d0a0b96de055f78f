"""What went wrong in TLS, in our errors and in words a person can act on.

One table serves HTTP, FTP, and both of FTP's connections. Which alerts may be gone when the
download is tried again follows RFC 8446 section 6:

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
We can't decrypt or check what came         Transient: the data was damaged on the way
The handshake brought no TLS                Final: the server speaks another protocol
The handshake failed otherwise              Final
The connection ended without close_notify   Transient
=========================================== ======================================================
"""

from __future__ import annotations

import re
import ssl
import traceback

from ..error import DownloadFailed, NotAuthorized, transient

# How OpenSSL names the alert that came: the version of TLS that introduced it stands before.
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
# What OpenSSL finds by itself.
_DAMAGE = frozenset(
    {
        "BAD_SIGNATURE",
        "DECRYPTION_FAILED",
        "DECRYPTION_FAILED_OR_BAD_RECORD_MAC",
        "DIGEST_CHECK_FAILED",
    }
)
# RECORD_LAYER_FAILURE stands for the first from OpenSSL 3.2 on.
_NO_TLS = frozenset(
    {
        "HTTPS_PROXY_REQUEST",
        "HTTP_REQUEST",
        "RECORD_LAYER_FAILURE",
        "UNKNOWN_PROTOCOL",
        "WRONG_VERSION_NUMBER",
    }
)
# "[SSL] record layer failure (_ssl.c:1006)", where Python has no name for the reason.
_TEXT = re.compile(r"\[SSL(?:: (\w+))?\] ([\w ]+)")


def from_tls(error: ssl.SSLError, peer: str = "server", plain: str = "") -> DownloadFailed:
    """Make the error for what TLS failed of.

    Args:
        error: What was raised.
        peer: The other end of the connection, in a word.
        plain: The scheme of the same protocol without TLS.
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
    """Whether TLS failed because the connection ended, without the end that TLS has.

    Args:
        error: What was raised.
    """
    return isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) or _reason(error).startswith(
        ("UNEXPECTED_EOF", "Closed before TLS handshake")
    )


def _is_of_handshake(error: ssl.SSLError) -> bool:
    """Whether an error comes from the handshake: only there it may be that nobody speaks TLS.

    The traceback tells it, whoever does the handshake. An error that was never raised has none.
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
    """OpenSSL's name for what happened, such as WRONG_VERSION_NUMBER."""
    if named := getattr(error, "reason", None):
        return str(named)
    text = error.strerror or str(error)
    found = _TEXT.match(text)
    return (found[1] or found[2].strip().upper().replace(" ", "_")) if found else text
