"""What went wrong in TLS, in our errors and in words a person can act on."""

from __future__ import annotations

import re
import ssl

from ..error import DownloadFailed, NotAuthorized

_BAD_CERTIFICATE = re.compile(
    r"ALERT_.*(CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)|CERTIFICATE_VERIFY_FAILED"
)


def from_tls(error: ssl.SSLError, peer: str = "server") -> DownloadFailed:
    """Make the error for what TLS failed of.

    Args:
        error: What was raised.
        peer: Who is at the other end, in a word.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        problem = error.verify_message or "it is not for this host"
        return NotAuthorized(f"the certificate of the {peer} is not trusted: {problem}")
    reason = getattr(error, "reason", None) or ""
    if _BAD_CERTIFICATE.search(reason):
        return NotAuthorized(
            f"the server refused the client certificate, or the lack of one ({reason})"
        )
    failure = DownloadFailed(f"TLS failed: {reason or error.strerror or 'the connection was cut'}")
    # Cut, and not refused.
    failure.transient = is_cut(error)
    return failure


def is_cut(error: ssl.SSLError) -> bool:
    """Whether TLS failed because the connection ended, without the end that TLS has.

    Args:
        error: What was raised.
    """
    reason = getattr(error, "reason", None) or ""
    return isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) or reason.startswith(
        ("UNEXPECTED_EOF", "Closed before TLS handshake")
    )
