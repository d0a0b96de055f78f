"""The options that both commands share."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import click
from requests import PreparedRequest

from pulpcore.plugin.download.futures import Download, Factory, HttpDownload, Limits, Mirrors
from pulpcore.plugin.download.futures.batch import CONCURRENT
from pulpcore.plugin.download.futures.http.redirect import is_private
from pulpcore.plugin.download.futures.net.url import parse

from . import values

MOST = 256
"""The largest number of downloads at a time."""

MOST_PARTS = 64
"""The largest number of parts: each takes 8 MiB of memory."""


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
    max_retries: int | None = None
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
        processes (int): The number of processes that run them.
        parts (int): The number of connections for one large file.
        least_speed (float | None): The minimum speed of an attempt (bytes per second).
        limits (Limits): What all downloads share.
        mirrors (Mirrors | None): The bases of --mirror.
        keeps (bool): Keep partial files, and go on with them.
        as_json (bool): Write a line of JSON for each file.
        quiet (bool): Write errors only.
        verbose (int): 1: name each file. 2: show the library's log records too.
    """

    importer: Importer
    concurrent: int
    processes: int
    parts: int
    least_speed: float | None
    limits: Limits
    mirrors: Mirrors | None
    keeps: bool
    as_json: bool
    quiet: bool
    verbose: int

    def prepare(self, download: Download, mirrors: Sequence[str] = ()) -> None:
        """Set what an importer has no attribute for.

        Args:
            download: The download to change.
            mirrors: More URLs of the file.
        """
        if download.timeout is not None:
            download.timeout.least_speed = self.least_speed
        if isinstance(download, HttpDownload):
            download.mirrors = tuple(mirrors)
            download.parts = self.parts

    def foreign(self, url: str) -> Factory:
        """Return the factory for a URL that somebody else chose: it has no credentials but its own.

        A netrc file has none for it either. Its default entry would go to any host.

        Args:
            url: The URL.
        """
        has_own = parse(url).user is not None
        return Factory(self.importer.without_credentials(), auth=None if has_own else _nobody)

    def mirrors_of(self, path: str) -> list[str]:
        """Return the URLs of a file below the bases of --mirror.

        Args:
            path: The path of the file, encoded as in a URL.

        Raises:
            ValueError: The path leads out of the bases.
        """
        return [] if self.mirrors is None else self.mirrors.urls(path)


def _nobody(request: PreparedRequest) -> PreparedRequest:
    """Add no credentials to a request. With any ``auth``, a netrc file isn't read."""
    return request


class Grouped(click.Command):
    """A command whose help groups the options."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, in groups.

        Args:
            context: The context of click.
            formatter: Takes what is written.
        """
        groups: dict[str, list[tuple[str, str]]] = {"Files": []}
        for parameter in self.get_params(context):
            # In some versions of click, get_params() also returns arguments.
            record = parameter.get_help_record(context)
            if record is not None and isinstance(parameter, click.Option):
                title = _GROUPS.get(parameter.opts[-1].lstrip("-"), "Files")
                groups.setdefault(title, []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


def common(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command with the shared options, which it receives as an argument ``options``.

    Args:
        command: The function of the command.
    """

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        taken = {name: given.pop(name) for name in _NAMES}
        command(options=_options(taken), **given)

    for option in reversed(_OPTIONS):
        wrapper = option(wrapper)
    return wrapper


def _options(given: dict[str, Any]) -> Options:
    if given["quiet"] and given["verbose"]:
        raise click.UsageError("--quiet and --verbose exclude each other.")
    values.check_certificates(given["ca"], given["cert"], given["key"])
    user = given["user"]
    importer = Importer(
        username=user,
        password=None if user is None else _password(user),
        headers=[{name: value} for name, value in given["headers"]],
        ssl_ca_certificate=_pem(given["ca"]),
        ssl_client_certificate=_pem(given["cert"]),
        ssl_client_key=_pem(given["key"]),
        ssl_validation=not given["insecure"],
        proxy_url=given["proxy"],
        connect_timeout=given["connect_timeout"],
        sock_read_timeout=given["read_timeout"],
        total_timeout=given["total_timeout"],
        max_retries=given["retry"],
    )
    return Options(
        importer,
        mirrors=Mirrors(given["bases"]) if given["bases"] else None,
        limits=Limits(bandwidth=given["limit_rate"], per_host=given["per_host"]),
        **{name: given[name] for name in _AS_GIVEN},
    )


_AS_GIVEN = (
    "concurrent",
    "processes",
    "parts",
    "least_speed",
    "keeps",
    "as_json",
    "quiet",
    "verbose",
)
_NAMES = (
    *_AS_GIVEN,
    *("user", "headers", "ca", "cert", "key", "insecure", "proxy", "connect_timeout"),
    *("read_timeout", "total_timeout", "retry", "limit_rate", "per_host", "bases"),
)
"""The names of the shared options."""


def _pem(path: str | None) -> PemFile | None:
    return None if path is None else PemFile(path)


def _password(user: str) -> str:
    password = os.environ.get(values.PASSWORD)
    if password is not None:
        return password
    # sys.stdin is None if it was closed.
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(
            f"--user needs a password: set {values.PASSWORD}, or run on a terminal."
        )
    answer: str = click.prompt(
        f"Password of {user}", hide_input=True, default="", show_default=False, err=True
    )
    return answer


_FILE = click.Path(exists=True, dir_okay=False, readable=True)

_OPTIONS = (
    click.option(
        "--concurrent",
        metavar="N",
        type=click.IntRange(1, MOST),
        default=CONCURRENT,
        show_default=True,
        help="How many downloads run at a time.",
    ),
    click.option(
        "--user",
        metavar="NAME",
        type=values.user,
        help=f"A user's name. The password comes from {values.PASSWORD}, or is asked for.",
    ),
    click.option(
        "--header",
        "headers",
        metavar="'NAME: VALUE'",
        multiple=True,
        type=values.header,
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
    click.option("--proxy", metavar="URL", type=values.proxy, help="A proxy for http and https."),
    click.option(
        "--connect-timeout",
        metavar="SECONDS",
        type=values.seconds,
        help="How long to wait for a connection. Default: 10.",
    ),
    click.option(
        "--read-timeout",
        metavar="SECONDS",
        type=values.seconds,
        help="How long to wait for the next bytes. Default: 30.",
    ),
    click.option(
        "--total-timeout",
        metavar="SECONDS",
        type=values.seconds,
        help="How long a file may take, retries included. Default: no limit.",
    ),
    click.option(
        "--least-speed",
        metavar="BYTES",
        type=click.FloatRange(min=0, min_open=True, max=2**40),
        help="Retry a file with fewer bytes a second over 30 s. Default: no limit.",
    ),
    click.option(
        "--retry",
        metavar="N",
        type=click.IntRange(0, 1000),
        help="How many more times to try a file after a temporary failure. Default: 6.",
    ),
    click.option(
        "--limit-rate",
        metavar="RATE",
        type=values.rate,
        help="Bytes a second of all files together, such as 500K or 2M. Default: no limit.",
    ),
    click.option(
        "--parts",
        metavar="N",
        type=click.IntRange(1, MOST_PARTS),
        default=1,
        help="Up to N connections for one large file. Default: 1.",
    ),
    click.option(
        "--processes",
        metavar="N",
        type=click.IntRange(1, MOST),
        default=1,
        help="Run the downloads in N processes, --concurrent of them in each. Default: 1.",
    ),
    click.option(
        "--per-host",
        metavar="N",
        type=click.IntRange(1, MOST),
        help="Connections to one host at a time. Default: as many as --concurrent.",
    ),
    click.option(
        "--mirror",
        "bases",
        metavar="BASE",
        multiple=True,
        type=values.mirror,
        help="A mirror of the folder that the files are in. May be given several times.",
    ),
    click.option(
        "-c",
        "--continue",
        "keeps",
        is_flag=True,
        help="Keep partial files, and go on with those of an earlier run.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Write errors only."),
    click.option(
        "--json", "as_json", is_flag=True, help="Write one line of JSON for each file to stdout."
    ),
    click.option(
        "-v", "--verbose", count=True, help="Name each file. Twice: show the library's log too."
    ),
)

_GROUPS = {
    **dict.fromkeys(("json", "quiet", "verbose", "help"), "Messages"),
    **dict.fromkeys(("user", "header", "ca", "cert", "key", "insecure", "proxy"), "Connection"),
    **dict.fromkeys(
        (
            *("concurrent", "connect-timeout", "least-speed", "limit-rate", "per-host"),
            *("parts", "processes"),
            *("read-timeout", "retry", "total-timeout"),
        ),
        "Limits",
    ),
}
"""The title of the group for each option that isn't about files."""
