"""The commands, as a person calls them."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import click

from pulpcore.plugin.download.futures import DigestValidation, redact

from .get import STDOUT, get
from .manifest import folder_for
from .options import Options, common
from .output import Output, logging_to
from .repository import Repository, serve
from .signals import Interrupted, stopping
from .sync import sync

DEMO = "pulp-futures-demo"

FAILED = 1
STOPPED = 130


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The arguments; by default those of the process.

    Returns:
        The exit status: 0 all well, 1 some files failed, 2 it can't be used so, 130 Ctrl-C, and for
        another signal 128 and its number.
    """
    with stopping():
        try:
            status = cli.main(arguments, prog_name="pulp-futures", standalone_mode=False)
        except click.ClickException as error:
            # An argument that is one too many, say, may be a URL.
            message = redact.text(error.format_message())
            click.UsageError(message, getattr(error, "ctx", None)).show()
            return error.exit_code
        except click.Abort as abort:
            # A prompt hides what stopped it in the context.
            cause = abort.__cause__ or abort.__context__
            return cause.status if isinstance(cause, Interrupted) else STOPPED
    return int(status or 0)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pulpcore-futures")
def cli() -> None:
    """Download files: whole, checked, and many at a time."""


@cli.command("sync")
@click.argument("manifest_url", required=False)
@click.argument("destination", required=False, type=click.Path(file_okay=False, path_type=Path))
@common
def sync_command(manifest_url: str | None, destination: Path | None, options: Options) -> None:
    """Make a folder hold what a PULP_MANIFEST lists.

    The lines of the manifest are path,sha256,size. What is missing in the folder DESTINATION, or
    differs, is downloaded; nothing is removed. By default the folder is made in the working
    directory, and named after the URL.

    Without MANIFEST_URL a generated repository is served on this machine, and downloaded into
    ./pulp-futures-demo.
    """
    output = Output(options.as_json, verbose=options.verbose > 0)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_logging(options, output))
        if manifest_url is None:
            manifest_url = stack.enter_context(serve(Repository()))
            destination = Path(DEMO)
            output.say(f"No URL of a manifest: serving a generated repository at {manifest_url}")
        folder = destination or Path(folder_for(manifest_url))
        if re.match("[A-Za-z][A-Za-z0-9+.-]+:/", str(folder)):
            raise click.UsageError("The destination is a URL: it must be a folder.")
        output.say(f"Syncing {redact.url(manifest_url)} into {folder}")
        well = sync(manifest_url, folder, options, output)
    _exit(well)


def _sha256(text: str) -> tuple[str, str]:
    return _digest(f"sha256:{text}")


def _digest(text: str) -> tuple[str, str]:
    algorithm, colon, digest = text.partition(":")
    if not colon:
        raise click.BadParameter("a digest is given as ALG:HEX, such as sha512:0a1b….")
    try:
        return algorithm.lower(), DigestValidation(algorithm, digest).expected
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error


@cli.command("get")
@click.argument("url")
@click.option(
    "-o",
    "--output",
    "path",
    metavar="PATH",
    help="Where to write it; - is stdout. Default: the name in the URL, in the working directory.",
)
@click.option("--sha256", metavar="HEX", type=_sha256, help="The SHA-256 that it must have.")
@click.option(
    "--digest",
    metavar="ALG:HEX",
    type=_digest,
    help=f"The digest that it must have: {', '.join(DigestValidation.ALGORITHMS)}.",
)
@click.option(
    "--size", metavar="BYTES", type=click.IntRange(min=0), help="The size that it must have."
)
@common
def get_command(
    url: str,
    path: str | None,
    sha256: tuple[str, str] | None,
    digest: tuple[str, str] | None,
    size: int | None,
    options: Options,
) -> None:
    """Download one file.

    What stands at the path is replaced when the new file is complete, and has the size and the
    digest that were given.
    """
    if sha256 is not None and digest is not None:
        raise click.UsageError("--sha256 and --digest exclude each other.")
    if path == "":
        raise click.UsageError("--output: the path is empty.")
    if path == STDOUT and options.as_json:
        raise click.UsageError("--json and '-o -' exclude each other: both write to stdout.")
    expected: dict[str, int | str] = dict([pair for pair in (sha256, digest) if pair])
    if size is not None:
        expected["size"] = size
    output = Output(options.as_json, verbose=options.verbose > 0, data=path == STDOUT)
    with _logging(options, output):
        well = get(url, path, expected, options, output)
    _exit(well)


def _logging(options: Options, output: Output) -> contextlib.AbstractContextManager[None]:
    level = logging.DEBUG if options.verbose > 1 else logging.WARNING
    return logging_to(output, level)


def _exit(well: bool) -> None:
    click.get_current_context().exit(0 if well else FAILED)
