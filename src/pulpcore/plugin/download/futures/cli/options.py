"""The options that both commands share."""

from __future__ import annotations

import functools
import inspect
import math
import os
import re
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import click

from pulpcore.plugin.download.futures import Download
from pulpcore.plugin.download.futures.batch import CONCURRENT
from pulpcore.plugin.download.futures.http.redirect import is_private

PASSWORD = "PULP_FUTURES_PASSWORD"  # noqa: S105 - the name of a variable
"""The environment variable with the password."""

MOST = 256
"""The largest number of downloads at a time."""

LONGEST = 24 * 60 * 60.0
"""The longest time-out (seconds)."""


@dataclass(frozen=True)
class PemFile:
    """A certificate or key, as an importer holds it.

    Attributes:
        name (str): The path.
    """

    name: str


# repr=False: the password, the headers and the proxy's URL are secrets.
@dataclass(frozen=True, repr=False)
class Importer:
    """The connection settings, in an object with the attributes that Factory reads.

    An attribute that is None leaves the library's default.
    """

    username: str | None = None
    password: str | None = None
    headers: list[dict[str, str]] = field(default_factory=list)
    ssl_ca_certificate: PemFile | None = None
    ssl_client_certificate: PemFile | None = None
    ssl_client_key: PemFile | None = None
    ssl_validation: bool = True
    proxy_url: str | None = None
    connect_timeout: float | None = None
    sock_read_timeout: float | None = None
    total_timeout: float | None = None
    validate: bool = True

    def without_credentials(self) -> Importer:
        """Return a copy for another host, without user, client certificate and private headers."""
        return replace(
            self,
            username=None,
            password=None,
            headers=[header for header in self.headers if not any(map(is_private, header))],
            ssl_client_certificate=None,
            ssl_client_key=None,
        )


@dataclass(frozen=True)
class Options:
    """The values of the shared options.

    Attributes:
        importer (Importer): The connection settings.
        concurrent (int): The number of parallel downloads.
        least_speed (float | None): The minimum speed of an attempt (bytes per second).
        as_json (bool): Write a line of JSON for each file.
        verbose (int): 1: name each file. 2: show the library's log records too.
    """

    importer: Importer
    concurrent: int
    least_speed: float | None
    as_json: bool
    verbose: int

    def limit(self, download: Download) -> None:
        """Set the limits that an importer has no attribute for.

        Args:
            download: The download to change.
        """
        if download.timeout is not None:
            download.timeout.least_speed = self.least_speed


def common(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command with the shared options, which it receives as an argument ``options``.

    Args:
        command: The function of the command.
    """

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        taken = {name: values.pop(name) for name in _NAMES}
        command(options=_options(**taken), **values)

    for option in reversed(_OPTIONS):
        wrapper = option(wrapper)
    return wrapper


def _options(
    *,
    concurrent: int,
    user: str | None,
    headers: tuple[tuple[str, str], ...],
    ca: str | None,
    cert: str | None,
    key: str | None,
    insecure: bool,
    proxy: str | None,
    connect_timeout: float | None,
    read_timeout: float | None,
    total_timeout: float | None,
    least_speed: float | None,
    as_json: bool,
    verbose: int,
) -> Options:
    _check_certificates(ca, cert, key)
    importer = Importer(
        username=user,
        password=None if user is None else _password(user),
        headers=[{name: value} for name, value in headers],
        ssl_ca_certificate=_pem(ca),
        ssl_client_certificate=_pem(cert),
        ssl_client_key=_pem(key),
        ssl_validation=not insecure,
        proxy_url=proxy,
        connect_timeout=connect_timeout,
        sock_read_timeout=read_timeout,
        total_timeout=total_timeout,
    )
    return Options(importer, concurrent, least_speed, as_json, verbose)


# The names of the shared options.
_NAMES = tuple(inspect.signature(_options).parameters)


def _pem(path: str | None) -> PemFile | None:
    return None if path is None else PemFile(path)


def _password(user: str) -> str:
    password = os.environ.get(PASSWORD)
    if password is not None:
        return password
    # sys.stdin is None if it was closed.
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(f"--user needs a password: set {PASSWORD}, or run on a terminal.")
    answer: str = click.prompt(
        f"Password of {user}", hide_input=True, default="", show_default=False, err=True
    )
    return answer


def _user(text: str) -> str:
    # The message doesn't quote the value: a password follows the colon.
    if ":" in text:
        raise click.BadParameter(
            f"a name has no colon; the password comes from {PASSWORD} or a prompt."
        )
    return text


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    # The message doesn't quote the value, which may be a token.
    if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise click.BadParameter("a header is given as 'Name: value'.")
    if not re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", value):
        raise click.BadParameter(f"the value of {name} has a character that no header may have.")
    return name, value.strip()


def _proxy(text: str) -> str:
    # The message doesn't quote the value, which may have a password.
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise click.BadParameter("a proxy is given as http://[USER:PASSWORD@]HOST:PORT.")
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= LONGEST:
        raise click.BadParameter(
            f"{text!r} isn't a number of seconds above 0 and up to {LONGEST:.0f} (a day)."
        )
    return seconds


def _check_certificates(ca: str | None, cert: str | None, key: str | None) -> None:
    """Let OpenSSL read the files now, so that a bad file fails once, and not at each download."""
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


_FILE = click.Path(exists=True, dir_okay=False, readable=True)

_OPTIONS = (
    click.option(
        "--concurrent",
        type=click.IntRange(1, MOST),
        default=CONCURRENT,
        show_default=True,
        help="How many downloads run at a time.",
    ),
    click.option(
        "--user",
        metavar="NAME",
        type=_user,
        help=f"A user's name. The password comes from the variable {PASSWORD}, or is asked for.",
    ),
    click.option(
        "--header",
        "headers",
        metavar="'NAME: VALUE'",
        multiple=True,
        type=_header,
        help="A header to send. May be given several times.",
    ),
    click.option(
        "--ca",
        metavar="FILE",
        type=_FILE,
        help="Certificates (PEM) to trust instead of the default ones.",
    ),
    click.option("--cert", metavar="FILE", type=_FILE, help="A client certificate (PEM)."),
    click.option(
        "--key",
        metavar="FILE",
        type=_FILE,
        help="The key of the client certificate (PEM), where it isn't in the same file.",
    ),
    click.option("--insecure", is_flag=True, help="Don't verify the server's certificate."),
    click.option("--proxy", metavar="URL", type=_proxy, help="A proxy for http and https."),
    click.option(
        "--connect-timeout",
        metavar="SECONDS",
        type=_seconds,
        help="How long to wait for a connection. Default: 10.",
    ),
    click.option(
        "--read-timeout",
        metavar="SECONDS",
        type=_seconds,
        help="How long to wait for the next bytes. Default: 30.",
    ),
    click.option(
        "--total-timeout",
        metavar="SECONDS",
        type=_seconds,
        help="How long a file may take, retries included. Default: no limit.",
    ),
    click.option(
        "--least-speed",
        metavar="BYTES",
        type=click.FloatRange(min=0, min_open=True, max=2**40),
        help="Retry a file with fewer bytes a second over 30 s. Default: no limit.",
    ),
    click.option(
        "--json", "as_json", is_flag=True, help="Write one line of JSON for each file to stdout."
    ),
    click.option(
        "-v", "--verbose", count=True, help="Name each file. Twice: show the library's log too."
    ),
)
