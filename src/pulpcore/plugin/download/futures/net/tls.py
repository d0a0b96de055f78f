"""Making the one TLS context that belongs to a set of TLS settings."""

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

# What OpenSSL says where a key was read, and isn't that of the certificate.
_ANOTHERS_KEY = "KEY_VALUES_MISMATCH"


def shared_context(settings: SSL, context: Context, protocol: str) -> ssl.SSLContext:
    """Return the TLS context of a set of TLS settings, from a context's cache or made for it.

    That ``validation=False`` is in force is logged where it is made.

    Args:
        settings: Whom to trust and what to show.
        context: What is shared.
        protocol: What is spoken through it. Each has its own, because that for ``http`` says by
            ALPN that it speaks HTTP/1.1.

    Raises:
        ValueError: A certificate or key isn't usable; the message names the attribute.
        DownloadFailed: This process has no file descriptors left to read them, or no memory.
    """
    trust = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or None
    # By the values: the settings may be changed, and two that are alike are to share.
    name = ("tls", protocol, tuple(vars(settings).items()), trust)
    try:
        found: ssl.SSLContext = context.cache.get(name)
    except LookupError:
        pass
    else:
        return found
    if not settings.validation:
        log.warning(
            "Servers' certificates are not verified, as the setting ssl.validation=False says"
        )
    made = make_context(settings, trust)
    if protocol == "http":
        # Some servers choose HTTP/2 for a client that doesn't say what it speaks (RFC 7301).
        made.set_alpn_protocols(["http/1.1"])
    shared: ssl.SSLContext = context.cache.setdefault(name, made)
    return shared


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
        DownloadFailed: This process has no file descriptors left to read them, or no memory.
    """
    try:
        return _make_context(settings, trust)
    except (OSError, ValueError) as error:
        # Also where it is behind the ValueError of an attribute, which is all right then.
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
        # urllib3 has OpenSSL open the file that this variable of the environment names.
        raise ValueError(
            f"SSLKEYLOGFILE: {os.environ.get('SSLKEYLOGFILE')!r} can't be written to: "
            f"{error.strerror}"
        ) from error
    # Some builds of Python ask OpenSSL to take a connection that is cut for one that ended.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    if not settings.validation:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        _trust(context, settings.ca_certificate, trust)
    if settings.client_certificate:
        _show(context, settings)
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
            # Text too is read from a file: OpenSSL takes more forms of PEM there, such as TRUSTED
            # CERTIFICATE, and skips what else stands between the certificates.
            with _path(source) as path:
                context.load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError, ValueError) as error:
        shown = "the PEM text" if PEM in source else repr(source)
        name = "ca_certificate" if given else "REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE"
        raise ValueError(f"{name}: {shown} holds no certificates that can be read") from error


def _trust_system(context: ssl.SSLContext) -> None:
    # Not set_default_verify_paths(), which says nothing where there are none.
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


def _show(context: ssl.SSLContext, settings: SSL) -> None:
    certificate, key = settings.client_certificate or "", settings.client_key
    # An empty one, as a model's field has it, is none.
    password = settings.client_key_password or None
    asked = False

    def tell_password() -> str:
        nonlocal asked
        asked = True
        if password is None:
            raise ValueError("the key is encrypted")
        return password

    try:
        with _path(certificate) as certificate_path, _path(key or certificate) as key_path:
            # Without a callback OpenSSL would ask for one at the terminal, and wait.
            context.load_cert_chain(certificate_path, key_path, password=tell_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        name = "client_certificate" if not key else "client_certificate or client_key"
        problem = f"{name}: not a certificate with its key in PEM"
        if asked and password is None:
            name = "client_key" if key else "client_certificate"
            problem = f"{name}: the key is encrypted: it needs a client_key_password"
        elif asked and getattr(error, "reason", None) != _ANOTHERS_KEY:
            problem = "client_key_password: the key can't be decrypted with it"
        raise ValueError(problem) from error


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
            # Without the byte order marks of some editors: within a text that is made of several
            # files they hide a certificate. Names in any script may stand beside.
            file.write(pem.replace("\ufeff", "").encode(errors="replace"))
        yield path
    finally:
        os.close(descriptor)
        if not path.startswith("/proc/"):  # pragma: no cover - elsewhere than on Linux
            os.unlink(path)
