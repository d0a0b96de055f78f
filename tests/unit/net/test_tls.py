"""Tests of making a TLS context: accepted PEM forms, and possible failures."""

import errno
import os
import ssl
from pathlib import Path
from typing import Any

import pytest

from pulpcore.plugin.download.futures import SSL, DownloadFailed
from pulpcore.plugin.download.futures.net import tls as module
from pulpcore.plugin.download.futures.net.tls import make_context

FORMS = {
    "plain": lambda pem: pem,
    "byte order mark": lambda pem: "\ufeff" + pem,
    "CRLF": lambda pem: pem.replace("\n", "\r\n"),
    "trusted": lambda pem: pem.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
    "names beside": lambda pem: f"# Zertifizierungsstelle für München \udcff\n{pem}\nmore",
}


def trusted(given: str) -> int:
    """Return the number of certificates that a context trusts."""
    return make_context(SSL(ca_certificate=given), None).cert_store_stats()["x509"]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_text_is_taken_as_a_file_is(tls: Any, tmp_path: Path, form: Any) -> None:
    """CA certificates are read from text in every form that OpenSSL reads from a file."""
    text = form(tls.ca.read_text())
    path = tmp_path / "ca.pem"
    path.write_bytes(text.encode(errors="replace"))
    assert trusted(str(path)) == trusted(text) == 1


def test_several_certificates(tls: Any) -> None:
    """All CA certificates in a PEM text are trusted, even after a byte order mark within it."""
    assert trusted(tls.ca.read_text() + "\ufeff" + tls.other_ca.read_text()) == 2


@pytest.mark.parametrize("form", [FORMS["byte order mark"], FORMS["CRLF"]])
def test_client_certificate(tls: Any, form: Any) -> None:
    """A client certificate and key are read in every form that OpenSSL reads from a file."""
    certificate, key = (form(path.read_text()) for path in (tls.client.certificate, tls.client.key))
    make_context(SSL(client_certificate=certificate, client_key=key), None)


@pytest.mark.parametrize("text", ["-----BEGIN CERTIFICATE-----\nnonsense\n", "-----BEGIN"])
def test_text_without_certificates(text: str) -> None:
    """PEM text without a certificate is an error that names the attribute, not the text."""
    with pytest.raises(ValueError, match=r"^ca_certificate: the PEM text holds no certificates"):
        trusted(text)


def test_key_log_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the file for TLS keys can't be written, the error names its variable."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "missing" / "log"))
    with pytest.raises(ValueError, match=r"^SSLKEYLOGFILE: .*can't be written to: No such file"):
        make_context(SSL(), None)


def test_openssl_that_cannot_be_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of OpenSSL itself isn't blamed on the file for TLS keys."""

    def refuse() -> None:
        raise ssl.SSLError(1, "[SSL: NO_CIPHER_MATCH] no cipher match")

    monkeypatch.setattr(module, "create_urllib3_context", refuse)
    with pytest.raises(ssl.SSLError, match="cipher"):
        make_context(SSL(), None)


@pytest.mark.parametrize("where", ["set up", "certificates"])
def test_descriptors_used_up(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Running out of descriptors isn't blamed on the certificates."""

    def refuse(*unused: Any, **also_unused: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    if where == "set up":
        monkeypatch.setattr(module, "create_urllib3_context", refuse)
    else:
        monkeypatch.setattr(os, "memfd_create", refuse)
    settings = SSL(ca_certificate="-----BEGIN CERTIFICATE-----")
    with pytest.raises(DownloadFailed, match="no file descriptors left") as raised:
        make_context(settings, None)
    assert raised.value.local
