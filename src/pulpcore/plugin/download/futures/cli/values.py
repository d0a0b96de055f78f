"""Checks and converts the values of options."""

from __future__ import annotations

import math
import re
import ssl
from urllib.parse import urlsplit

import click

from pulpcore.plugin.download.futures.mirrors import SCHEMES
from pulpcore.plugin.download.futures.net.url import parse

from .entries import digest_of

PASSWORD = "PULP_FUTURES_PASSWORD"  # noqa: S105 - the name of a variable
"""The environment variable with the password."""

LONGEST = 24 * 60 * 60.0
"""The longest time-out (seconds)."""

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def user(text: str) -> str:
    """Check the value of --user.

    Args:
        text: The value.
    """
    # The message doesn't quote the value: a password follows the colon.
    if ":" in text:
        raise click.BadParameter(
            f"a name has no colon; the password comes from {PASSWORD} or a prompt."
        )
    return text


def header(text: str) -> tuple[str, str]:
    """Return the name and the value of --header.

    Args:
        text: The value.
    """
    name, colon, value = text.partition(":")
    # The message doesn't quote the value, which may be a token.
    if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise click.BadParameter("a header is given as 'Name: value'.")
    if not re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", value):
        raise click.BadParameter(f"the value of {name} has a character that no header may have.")
    return name, value.strip()


def proxy(text: str) -> str:
    """Check the value of --proxy.

    Args:
        text: The value.
    """
    # The message doesn't quote the value, which may have a password.
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise click.BadParameter("a proxy is given as http://[USER:PASSWORD@]HOST:PORT.")
    return text


def mirror(text: str) -> str:
    """Check the value of --mirror.

    Args:
        text: The value.
    """
    try:
        parse(text, SCHEMES)
    except ValueError as error:
        # The message of parse() doesn't quote the URL, which may contain a password.
        raise click.BadParameter(f"the URL of a folder is needed: {error}.") from error
    if "?" in text or "#" in text:
        raise click.BadParameter("the URL of a folder has no query and no fragment.")
    return text


def seconds(text: str) -> float:
    """Return a number of seconds.

    Args:
        text: The value.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= LONGEST:
        raise click.BadParameter(
            f"{text!r} isn't a number of seconds above 0 and up to {LONGEST:.0f} (a day)."
        )
    return number


def rate(text: str) -> float:
    """Return a number of bytes a second, such as 500K or 2M.

    Args:
        text: The value.
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)([KMG]?)", text.upper())
    number = 0.0 if match is None else float(match[1]) * _UNITS[match[2]]
    if not number:
        raise click.BadParameter(f"{text!r} isn't a number of bytes a second, such as 500K or 2M.")
    return number


def sha256(text: str) -> tuple[str, str]:
    """Return the algorithm and the digest of --sha256.

    Args:
        text: The value.
    """
    return digest(f"sha256:{text}")


def digest(text: str) -> tuple[str, str]:
    """Return the algorithm and the digest of --digest.

    Args:
        text: The value.
    """
    algorithm, colon, hexadecimal = text.partition(":")
    if not colon:
        raise click.BadParameter("a digest is given as ALG:HEX, such as sha512:0a1b….")
    try:
        return digest_of(algorithm, hexadecimal)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error


def check_certificates(ca: str | None, cert: str | None, key: str | None) -> None:
    """Let OpenSSL read the files now, so that a bad file fails once, and not at each download.

    Args:
        ca: The path of --ca.
        cert: The path of --cert.
        key: The path of --key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except OSError as error:
            raise click.UsageError(f"--ca: {ca!r} holds no PEM certificate.") from error
    if cert is not None:
        try:
            # With an empty password OpenSSL doesn't ask for one on the terminal.
            context.load_cert_chain(cert, key, password="")
        except (OSError, ValueError) as error:
            raise click.UsageError(
                "--cert must be a PEM certificate, and --key the key of it, which is not "
                "encrypted; without --key, both are in the file of --cert."
            ) from error
    elif key is not None:
        raise click.UsageError("--key needs --cert.")
