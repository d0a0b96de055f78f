"""Creates TLS contexts from TLS settings, one for each set of settings."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
import tempfile
from collections.abc import Iterator

import certifi
from urllib3.util.ssl_ import create_urllib3_context

from ..context import Context
from ..settings import PEM, SSL
from .used_up import from_used_up

log = logging.getLogger(__name__)

# OpenSSL's reason when it could read the key, but the key doesn't match the certificate.
_KEY_MISMATCH = "KEY_VALUES_MISMATCH"


def shared_context(settings: SSL, context: Context, protocol: str) -> ssl.SSLContext:
    """Return the TLS context for TLS settings, from the cache or a new one.

    Creating one with ``validation=False`` logs a warning. The caller's own context is returned
    unchanged.

    Args:
        settings: The TLS settings.
        context: The context whose cache holds the TLS contexts.
        protocol: The name of the protocol. Protocols have separate TLS contexts, because that of
            ``http`` offers HTTP/1.1 by ALPN.

    Raises:
        ValueError: A certificate or key isn't usable; the message names the attribute.
        DownloadFailed: This process is out of file descriptors or memory.
    """
    if settings.context is not None:
        return settings.context
    trust = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or None
    # The key has the values, not the settings object: that is mutable, and equal ones must share.
    name = ("tls", protocol, tuple(vars(settings).items()), trust)
    return context.cache.once(name, lambda: _make(settings, trust, protocol))


def _make(settings: SSL, trust: str | None, protocol: str) -> ssl.SSLContext:
    if not settings.validation:
        log.warning(
            "Servers' certificates are not verified, as the setting ssl.validation=False says"
        )
    made = make_context(settings, trust)
    if protocol == "http":
        # Some servers choose HTTP/2 if the client doesn't use ALPN (RFC 7301).
        made.set_alpn_protocols(["http/1.1"])
    return made


def make_context(settings: SSL, trust: str | None) -> ssl.SSLContext:
    """Create a TLS context, with TLS 1.2 as the minimum.

    It verifies certificates unless the settings turn that off.

    Args:
        settings: The TLS settings.
        trust: The path of a file or folder of trusted certificates, used if the settings name
            none. None for those of certifi.

    Returns:
        The TLS context.

    Raises:
        ValueError: A certificate or key isn't usable; the message names the attribute.
        DownloadFailed: This process is out of file descriptors or memory.
    """
    try:
        return _make_context(settings, trust)
    except (OSError, ValueError) as error:
        # If it is the cause of a ValueError that names an attribute, the attribute is not to blame.
        failure = from_used_up(error) or (error.__cause__ and from_used_up(error.__cause__))
        if failure is None:
            raise
        raise failure from error


def _make_context(settings: SSL, trust: str | None) -> ssl.SSLContext:
    try:
        context = create_urllib3_context()
    except OSError as error:
        if isinstance(error, ssl.SSLError):
            raise
        # urllib3 passes the file that SSLKEYLOGFILE names to OpenSSL, which opens it.
        raise ValueError(
            f"SSLKEYLOGFILE: {os.environ.get('SSLKEYLOGFILE')!r} can't be written to: "
            f"{error.strerror}"
        ) from error
    # Some builds of Python make OpenSSL treat a cut connection like a proper end.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    if not settings.validation:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        _trust(context, settings.ca_certificate, trust)
    if settings.client_certificate:
        _load_client_certificate(context, settings)
    return context


def _trust(context: ssl.SSLContext, given: str | None, default: str | None) -> None:
    if given == SSL.SYSTEM:
        _trust_system(context)
        return
    source = os.fspath(given or default or certifi.where())
    try:
        if PEM not in source and os.path.isdir(source):
            context.load_verify_locations(capath=source)
        else:
            # PEM text goes through a file too. OpenSSL accepts more kinds of PEM from files, such
            # as TRUSTED CERTIFICATE, and ignores other text between the certificates.
            with _path(source) as path:
                context.load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError, ValueError) as error:
        shown = "the PEM text" if PEM in source else repr(source)
        name = "ca_certificate" if given else "REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE"
        raise ValueError(f"{name}: {shown} holds no certificates that can be read") from error


def _trust_system(context: ssl.SSLContext) -> None:
    # set_default_verify_paths() would fail silently if the system has no certificates.
    paths = ssl.get_default_verify_paths()
    if not paths.cafile and not paths.capath:
        raise ValueError(
            "ca_certificate: the system has no certificates where OpenSSL looks for them; "
            "SSL_CERT_FILE or SSL_CERT_DIR can say where they are"
        )
    try:
        context.load_verify_locations(cafile=paths.cafile, capath=paths.capath)
    except OSError as error:
        raise ValueError(
            f"ca_certificate: the system's {paths.cafile!r} holds no certificates that can be read"
        ) from error


def _load_client_certificate(context: ssl.SSLContext, settings: SSL) -> None:
    certificate, key = settings.client_certificate or "", settings.client_key
    # The fields of a model hold an empty string for "no password".
    password = settings.client_key_password or None
    asked = False

    def give_password() -> str:
        nonlocal asked
        asked = True
        if password is None:
            raise ValueError("the key is encrypted")
        return password

    try:
        with _path(certificate) as certificate_path, _path(key or certificate) as key_path:
            # Without a callback OpenSSL would prompt for the password on the terminal and block.
            context.load_cert_chain(certificate_path, key_path, password=give_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        name = "client_certificate" if not key else "client_certificate or client_key"
        problem = f"{name}: not a certificate with its key in PEM"
        if asked and password is None:
            name = "client_key" if key else "client_certificate"
            problem = f"{name}: the key is encrypted: it needs a client_key_password"
        elif asked and getattr(error, "reason", None) != _KEY_MISMATCH:
            problem = "client_key_password: the key can't be decrypted with it"
        raise ValueError(problem) from error


@contextlib.contextmanager
def _path(given: str) -> Iterator[str]:
    """Yield the path of a PEM file. PEM text is written to a temporary one, private if possible."""
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
            # Some editors write byte order marks. After files were concatenated, a mark in the
            # middle would hide a certificate. Text between certificates may be in any script.
            file.write(pem.replace("\ufeff", "").encode(errors="replace"))
        yield path
    finally:
        os.close(descriptor)
        if not path.startswith("/proc/"):  # pragma: no cover - elsewhere than on Linux
            os.unlink(path)
