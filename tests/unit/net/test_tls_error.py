"""Tests of classifying TLS errors: which are transient, and their messages."""

import ssl

import pytest

from pulpcore.plugin.download.futures import DownloadFailed, NotAuthorized
from pulpcore.plugin.download.futures.net.tls_error import from_tls, is_cut

TRANSIENT = {
    "bad_record_mac": 20,
    "decryption_failed": 21,
    "record_overflow": 22,
    "decode_error": 50,
    "decrypt_error": 51,
    "internal_error": 80,
    "user_canceled": 90,
}
REFUSALS = {
    "no_certificate": 41,
    "bad_certificate": 42,
    "unsupported_certificate": 43,
    "certificate_revoked": 44,
    "certificate_expired": 45,
    "certificate_unknown": 46,
    "unknown_ca": 48,
    "access_denied": 49,
    "certificate_required": 116,
}
FINAL = {
    "unexpected_message": 10,
    "handshake_failure": 40,
    "illegal_parameter": 47,
    "protocol_version": 70,
    "insufficient_security": 71,
    "inappropriate_fallback": 86,
    "missing_extension": 109,
    "unsupported_extension": 110,
    "unrecognized_name": 112,
    "bad_certificate_status_response": 113,
    "no_application_protocol": 120,
}


def handshake(*answer: bytes) -> ssl.SSLError:
    """Return what a client's handshake raises for an answer to its first message."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    for part in answer:
        incoming.write(part)
    with pytest.raises(ssl.SSLError) as raised:
        client.do_handshake()
    return raised.value


def alert(number: int) -> ssl.SSLError:
    """Return what a client's handshake raises for a fatal alert."""
    return handshake(bytes([21, 3, 3, 0, 2, 2, number]))


@pytest.mark.parametrize("number", TRANSIENT.values(), ids=TRANSIENT)
def test_transient_alerts(number: int) -> None:
    """A TLS alert about damage or internal trouble of the server is transient."""
    failure = from_tls(alert(number))
    assert type(failure) is DownloadFailed
    assert failure.transient
    assert "the server gave it up" in failure.reason


@pytest.mark.parametrize("number", REFUSALS.values(), ids=REFUSALS)
def test_refusals(number: int) -> None:
    """A TLS alert about the client's certificate is NotAuthorized."""
    failure = from_tls(alert(number), "proxy")
    assert type(failure) is NotAuthorized
    assert not failure.transient
    assert "the proxy refused the client certificate" in failure.reason


@pytest.mark.parametrize("number", FINAL.values(), ids=FINAL)
def test_other_alerts(number: int) -> None:
    """A TLS alert about incompatible settings is permanent."""
    failure = from_tls(alert(number))
    assert type(failure) is DownloadFailed
    assert not failure.transient


def test_damage_in_the_handshake() -> None:
    """A TLS record that can't be decrypted is transient, in the handshake, too."""
    error = ssl.SSLError(1, "[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC] decryption failed")
    assert from_tls(error).transient


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 welcome\r\n"])
def test_no_tls(answer: bytes) -> None:
    """A peer without TLS is reported in one sentence."""
    failure = from_tls(handshake(answer), "proxy")
    assert type(failure) is DownloadFailed
    assert not failure.transient
    assert "the proxy doesn't speak TLS there; check the scheme and the port" in failure.reason


def test_other_failure_of_the_handshake() -> None:
    """Any other failure of the TLS handshake is permanent and shown by OpenSSL's name."""
    failure = from_tls(ssl.SSLError(1, "[SSL: UNSUPPORTED_PROTOCOL] unsupported (_ssl.c:1006)"))
    assert not failure.transient
    assert failure.reason == "TLS failed: UNSUPPORTED_PROTOCOL"


def test_reason_that_python_has_no_name_for() -> None:
    """An OpenSSL error that Python has no name for is recognized by its text."""
    failure = from_tls(ssl.SSLError(1, "[SSL] record layer failure (_ssl.c:1006)"))
    assert "doesn't speak TLS there" in failure.reason
    assert "RECORD_LAYER_FAILURE" in failure.reason


def test_after_the_handshake() -> None:
    """A TLS protocol error after the handshake counts as damage and is transient."""
    error = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:2580)")

    def recv() -> None:
        raise error

    with pytest.raises(ssl.SSLError):
        recv()
    failure = from_tls(error)
    assert failure.transient
    assert "what the server sent was damaged on the way (WRONG_VERSION_NUMBER)" in failure.reason


@pytest.mark.parametrize(
    "error",
    [
        ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
        ssl.SSLZeroReturnError(6, "closed"),
        ssl.SSLError(1, "[SSL: UNEXPECTED_EOF_WHILE_READING] unexpected eof"),
    ],
    ids=repr,
)
def test_cut(error: ssl.SSLError) -> None:
    """A TLS connection that ends without a close_notify was cut, which is transient."""
    assert is_cut(error)
    failure = from_tls(error)
    assert failure.transient
    assert failure.reason == "TLS failed: the connection was cut"


def test_trust() -> None:
    """An untrusted certificate is NotAuthorized, and the error says whose certificate it is."""
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] failed")
    error.verify_message = "certificate has expired"
    failure = from_tls(error, "proxy")
    assert type(failure) is NotAuthorized
    assert failure.reason == "the certificate of the proxy is not trusted: certificate has expired"
