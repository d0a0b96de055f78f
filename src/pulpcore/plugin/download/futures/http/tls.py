"""Making the one TLS context that belongs to a set of TLS settings."""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator

import certifi
from urllib3.util.ssl_ import create_urllib3_context

from ..settings import PEM, SSL


def make_context(settings: SSL, trust: str | None) -> ssl.SSLContext:
    """Make a TLS context: TLS 1.2 at least, and verification unless the settings turn it off.

    Args:
        settings: Whom to trust and what to show.
        trust: The path of a file or folder of certificates to trust if the settings name none; None
            for certifi's.

    Returns:
        The context.

    Raises:
        ValueError: A certificate or key isn't usable; the message names the attribute.
    """
    context = create_urllib3_context()
    # Some builds of Python ask OpenSSL to take a connection that is cut for one that ended.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    if not settings.validation:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        _trust(context, settings.ca_certificate, trust)
    if settings.client_certificate:
        _show(context, settings.client_certificate, settings.client_key)
    return context


def _trust(context: ssl.SSLContext, given: str | None, default: str | None) -> None:
    source = os.fspath(given or default or certifi.where())
    try:
        if PEM in source:
            # Names in any script may stand between the certificates.
            context.load_verify_locations(cadata=source.encode("ascii", "replace").decode())
        elif os.path.isdir(source):
            context.load_verify_locations(capath=source)
        else:
            context.load_verify_locations(cafile=source)
    except (ssl.SSLError, OSError, ValueError) as error:
        shown = "the PEM text" if PEM in source else repr(source)
        name = "ca_certificate" if given else "REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE"
        raise ValueError(f"{name}: {shown} holds no certificates that can be read") from error


def _show(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    try:
        with _path(certificate) as certificate_path, _path(key or certificate) as key_path:
            # Without a password OpenSSL would ask for one at the terminal, and wait.
            context.load_cert_chain(certificate_path, key_path, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        name = "client_certificate" if not key else "client_certificate or client_key"
        raise ValueError(
            f"{name}: not a certificate with its key in PEM, or the key is encrypted"
        ) from error


def _no_password() -> str:
    raise ValueError("the key is encrypted")


@contextlib.contextmanager
def _path(given: str) -> Iterator[str]:
    """The path of a PEM file. Text gets one that only this process has, for a moment."""
    pem = os.fspath(given)
    if PEM not in pem:
        yield pem
        return
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
        path = f"/proc/self/fd/{descriptor}"
    else:  # pragma: no cover - elsewhere than on Linux
        descriptor, path = tempfile.mkstemp()
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(pem.encode())
        yield path
    finally:
        os.close(descriptor)
        if not path.startswith("/proc/"):  # pragma: no cover - elsewhere than on Linux
            os.unlink(path)
